//! What gateways count of the requests that they send to each other. A pod that ends takes its counts along, so they are read now and then.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Empty};
use hyper::Request;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Api, ListParams};
use kube::{Client, ResourceExt as _};
use saatkond_api::names::label;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Where gateways show them.
const PORT: u16 = 9090;
const PATIENCE: Duration = Duration::from_secs(5);

/// Of all gateways that there were.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PeerCounts {
    /// Requests over connections that began with a full handshake.
    pub full: u64,
    /// Requests over connections that began with an earlier one's session.
    pub resumed: u64,
    /// Requests that a peer had not taken and that were sent again.
    pub retries: u64,
}

/// What each pod said last.
#[derive(Debug, Default)]
pub struct Scraped(Mutex<BTreeMap<String, PeerCounts>>);

impl Scraped {
    /// Reads all gateways that there are now. One that does not answer keeps what it said last.
    pub async fn read(&self, client: &Client) -> anyhow::Result<()> {
        let pods: Api<Pod> = Api::all(client.clone());
        let pods =
            pods.list(&ListParams::default().labels(label::SECURITY_SERVER)).await.context("failed to list pods")?;
        for pod in pods {
            let address = pod.status.as_ref().and_then(|status| status.pod_ip.as_ref()).and_then(|ip| ip.parse().ok());
            let (Some(address), Some(uid)) = (address, pod.uid()) else { continue };
            if let Ok(Ok(text)) = timeout(PATIENCE, get(address)).await {
                self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(uid, counts(&text));
            }
        }
        Ok(())
    }

    /// Of all together.
    #[must_use]
    pub fn sum(&self) -> PeerCounts {
        let all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.values().fold(PeerCounts::default(), |sum, pod| PeerCounts {
            full: sum.full + pod.full,
            resumed: sum.resumed + pod.resumed,
            retries: sum.retries + pod.retries,
        })
    }
}

async fn get(address: IpAddr) -> anyhow::Result<String> {
    let stream = TcpStream::connect((address, PORT)).await?;
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get("/metrics").header("Host", "gateway").body(Empty::<Bytes>::new())?;
    let body = sender.send_request(request).await?.into_body().collect().await?.to_bytes();
    Ok(String::from_utf8_lossy(&body).into_owned())
}

fn counts(text: &str) -> PeerCounts {
    let of = |series: &str| {
        let value = text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok());
        value.unwrap_or_default()
    };
    PeerCounts {
        full: of(r#"saatkond_gateway_peer_requests_total{handshake="full"}"#),
        resumed: of(r#"saatkond_gateway_peer_requests_total{handshake="resumed"}"#),
        retries: of("saatkond_gateway_peer_retries_total"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_are_read_and_pods_that_ended_stay_counted() {
        let text = "# HELP x\nsaatkond_gateway_peer_requests_total{handshake=\"full\"} 7\n\
                    saatkond_gateway_peer_requests_total{handshake=\"resumed\"} 5\nsaatkond_gateway_peer_retries_total 1\n";
        let read = counts(text);
        assert_eq!(read, PeerCounts { full: 7, resumed: 5, retries: 1 });
        assert_eq!(counts(""), PeerCounts::default());
        let scraped = Scraped::default();
        scraped.0.lock().unwrap().extend([("a".to_owned(), read), ("b".to_owned(), read)]);
        assert_eq!(scraped.sum(), PeerCounts { full: 14, resumed: 10, retries: 2 });
    }
}
