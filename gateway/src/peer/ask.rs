//! Asking other gateways for the instance configuration that they run on, while this one starts without a link.

use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use saatkond_wire::exchange::INSTANCE_CONFIGURATION_PATH;
use tokio::time::timeout;
use uuid::Uuid;

use super::pool::{self, host_of};
use crate::context::Context;
use crate::exchange_body::ExchangeBody;
use crate::start::Peers;
use crate::state::{Offer, Origin};

const MAX_DOCUMENT: usize = 16 << 20;
const TIMEOUT: Duration = Duration::from_secs(5);
/// Most peers asked in one round.
const PEERS: usize = 8;

/// Asks some peers, chosen anew each time, and takes up what is newer. The channel needs no trust: documents are signed.
pub async fn ask(context: &Arc<Context>) -> Peers {
    let Some(in_force) = context.state.current() else { return Peers::Unknown };
    let servers = &in_force.instance.payload.servers;
    let start = Uuid::new_v4().as_u128() as usize % servers.len().max(1);
    let mut asking: FuturesUnordered<_> = servers[start..]
        .iter()
        .chain(&servers[..start])
        .take(PEERS)
        .map(|entry| timeout(TIMEOUT, document(&in_force.tls.untrusting, &entry.address)))
        .collect();
    let mut answered = false;
    while let Some(result) = asking.next().await {
        if let Ok(Some(packed)) = result {
            let offer = context.state.offer_instance(&packed, Origin::Peer, context.now());
            answered |= matches!(offer, Offer::TakenUp | Offer::Known);
        }
    }
    if answered { Peers::Answered } else { Peers::Silent }
}

async fn document(tls: &Arc<rustls::ClientConfig>, address: &str) -> Option<Vec<u8>> {
    let mut connection = pool::open(tls, address, host_of(address)).await.ok()?;
    let mut request = Request::new(ExchangeBody::empty());
    *request.method_mut() = Method::GET;
    *request.uri_mut() = format!("https://gateway.saatkond.internal{INSTANCE_CONFIGURATION_PATH}").parse().ok()?;
    let response = connection.sender.send_request(request).await.ok()?;
    if response.status() != StatusCode::OK {
        return None;
    }
    let body = Limited::new(response.into_body(), MAX_DOCUMENT).collect().await.ok()?;
    Some(body.to_bytes().to_vec())
}
