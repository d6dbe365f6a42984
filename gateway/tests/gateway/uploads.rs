//! What may change while a body is being sent: what counts is what holds when it has come whole.

use jiff::{SignedDuration, Timestamp};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::federation::Federation;
use crate::support::http::{Response, read, request};
use crate::support::pair::{PETS, Pair};

const LENGTH: usize = 512 << 10;

/// A call half of whose body has been taken by the provider's server.
struct Upload(TcpStream);

impl Upload {
    async fn begin(pair: &Pair, target: &str) -> Self {
        let length = LENGTH.to_string();
        let headers = [("X-Road-Client", "INST/GOV/200/CONS"), ("Content-Length", &*length)];
        let head = request("POST", target, &headers, None);
        let mut stream = TcpStream::connect(pair.ss2.client).await.unwrap();
        stream.write_all(&[head, vec![b'x'; LENGTH / 2]].concat()).await.unwrap();
        let taken = || pair.ss1.gateway.as_ref().unwrap().context.spool.used();
        eventually("the provider's server takes the body", taken, async || taken() > 0).await;
        Self(stream)
    }

    async fn end(mut self) -> Response {
        self.0.write_all(&vec![b'x'; LENGTH / 2]).await.unwrap();
        read(&mut self.0, false).await.unwrap()
    }
}

#[tokio::test]
async fn a_right_that_is_taken_back_while_a_body_is_sent_ends_that_call() {
    let mut pair = Pair::start().await;
    assert_eq!(pair.post(PETS, b"warm").await.status, 200);
    // Its right was judged before the first byte of the body was taken.
    let upload = Upload::begin(&pair, &format!("{PETS}/taken-back")).await;
    let services = &mut pair.ss1.server.clients.iter_mut().find(|client| !client.services.is_empty()).unwrap().services;
    services[0].access.clear();
    pair.ss1.server.version += 1;
    pair.federation.write_server(&pair.ss1);
    let state = || pair.ss1.metrics();
    eventually("taken up", state, async || pair.ss1.metrics().contains("server_version 2")).await;
    upload.end().await.assert_error("server.serverproxy.access_denied");
    assert!(pair.system.asked("taken-back").is_empty(), "the information system has not heard of it");
}

#[tokio::test]
async fn a_configuration_that_expires_while_a_body_is_sent_ends_that_call() {
    let mut pair = Pair::declare().await;
    pair.federation.start(&mut pair.ss2).await;
    // The provider's alone: the consumer would not send on.
    pair.federation.instance.expires_at = Timestamp::now() + SignedDuration::from_secs(4);
    pair.federation.start(&mut pair.ss1).await;
    let upload = Upload::begin(&pair, &format!("{PETS}/expired")).await;
    let not_ready = || saatkond_gateway::probes::not_ready(&pair.ss1.gateway.as_ref().unwrap().context);
    let expired = async || not_ready().is_some_and(|why| why.contains("expired"));
    eventually("the provider's configuration expires", not_ready, expired).await;
    upload.end().await.assert_error("server.serverproxy.global_conf_outdated");
    assert!(pair.system.asked("/expired").is_empty(), "the information system has not heard of it");
}

#[tokio::test]
async fn a_body_that_outlives_the_leaf_it_began_with_is_signed_with_the_next() {
    let mut pair = Pair::declare().await;
    pair.federation.start(&mut pair.ss1).await;
    // No leaf lives for less than a minute, a quarter of which lies before its issuance: this one ends in 4 s.
    let (issued, life) = (Timestamp::now() - SignedDuration::from_secs(41), SignedDuration::from_mins(1));
    let mut identity = pair.federation.identity(&pair.ss2);
    identity.signing = Federation::identity_by(&pair.ss2, &pair.federation.authority, 1, issued, life).signing;
    pair.federation.write_instance(&pair.ss2);
    pair.federation.write_server(&pair.ss2);
    pair.ss2.write_identity(&identity);
    pair.ss2.start(pair.federation.settings(&pair.ss2)).await;
    let upload = Upload::begin(&pair, &format!("{PETS}/outlived")).await;
    let context = pair.ss2.gateway.as_ref().unwrap().context.clone();
    let signer = || context.state.current().unwrap().identity.owners_signer().unwrap().facts().clone();
    let first = signer();
    pair.ss2.issue += 1;
    pair.federation.write_identity(&pair.ss2);
    eventually("the next leaf is in use", signer, async || signer() != first).await;
    eventually("the first one has ended", Timestamp::now, async || !first.is_valid_at(Timestamp::now())).await;
    assert_eq!(upload.end().await.status, 200);
    assert_eq!(pair.system.asked("/outlived").len(), 1);
}
