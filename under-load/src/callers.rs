//! The callers: each member calls each other without a pause and without a retry, over connections that stay and over new ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, bail, ensure};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::{self, SendRequest};
use hyper::{Method, Request, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::echo;
use crate::federation::Member;
use crate::tally::Tally;

/// Longer than anything that a gateway waits for.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the first answers may take.
const READY_BOUND: Duration = Duration::from_mins(1);
/// Bodies of POST: within one frame, and one that is passed on in pieces.
const BODIES: [usize; 2] = [700, 20_000];

/// Calls of one ordered pair of members.
#[derive(Debug, Clone)]
pub struct Pair {
    /// Who calls.
    pub from: Member,
    /// Whose service.
    pub to: Member,
    /// The server that serves the caller.
    pub entrance: SocketAddr,
}

/// Calls until `stop`; at most `most` calls of all pairs together.
pub async fn call(pairs: Vec<Pair>, tally: Arc<Tally>, most: u64, stop: CancellationToken) {
    let left = Arc::new(AtomicU64::new(most));
    let mut callers = JoinSet::new();
    for pair in pairs {
        let (tally, left, stop) = (tally.clone(), left.clone(), stop.clone());
        callers.spawn(async move {
            let mut caller = Caller { pair, kept: None, number: 0 };
            let take = || left.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |left| left.checked_sub(1)).is_ok();
            while !stop.is_cancelled() && take() {
                caller.next(&tally).await;
            }
        });
    }
    callers.join_all().await;
}

/// Waits until each pair is answered as it must be: that a server is Ready says that its processes are, and that its Service leads to
/// them is for the nodes, a moment later.
pub async fn until_answered(pairs: &[Pair]) -> anyhow::Result<()> {
    let began = Instant::now();
    for pair in pairs {
        loop {
            let attempt = async { exchange(&mut connect(pair.entrance).await?, pair, 0).await };
            match timeout(PATIENCE, attempt).await {
                Ok(Ok(())) => break,
                Ok(Err(error)) if began.elapsed() > READY_BOUND => {
                    return Err(error.context(format!("{} to {}", pair.from.namespace, pair.to.namespace)));
                }
                Err(_) if began.elapsed() > READY_BOUND => bail!("{} is not answered", pair.from.namespace),
                _ => sleep(Duration::from_millis(200)).await,
            }
        }
    }
    Ok(())
}

struct Caller {
    pair: Pair,
    /// With the count of phases at which it was opened.
    kept: Option<(SendRequest<Full<Bytes>>, u64)>,
    number: usize,
}

impl Caller {
    /// One call. Of three, one goes over a new connection.
    async fn next(&mut self, tally: &Tally) {
        self.number += 1;
        let is_new = self.number.is_multiple_of(3);
        let (rotating, phase) = (tally.is_rotating(), tally.phases());
        let name = format!("{} to {}", self.pair.from.namespace, self.pair.to.namespace);
        let result = timeout(PATIENCE, self.made(is_new, tally)).await;
        let result = result.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {} s", PATIENCE.as_secs())));
        let opened = if is_new { None } else { self.kept.as_ref().map(|(_, opened)| *opened) };
        // A connection on which something failed is not used again, and was one that was kept.
        let opened = opened.or((!is_new).then_some(phase));
        if result.is_err() && !is_new {
            self.kept = None;
        }
        let failure = result.err().map(|error| {
            let over = if is_new { "a new connection" } else { "a kept connection" };
            format!("call {} of {name} over {over}, phase change {phase}: {error:#}", self.number)
        });
        tally.call(&name, opened, rotating, failure);
    }

    async fn made(&mut self, is_new: bool, tally: &Tally) -> anyhow::Result<()> {
        if is_new {
            let mut connection = connect(self.pair.entrance).await?;
            return exchange(&mut connection, &self.pair, self.number).await;
        }
        if let Some((kept, _)) = &mut self.kept
            && kept.ready().await.is_err()
        {
            // Its server has said that it was the last answer on it.
            self.kept = None;
        }
        if self.kept.is_none() {
            self.kept = Some((connect(self.pair.entrance).await?, tally.phases()));
        }
        let (kept, _) = self.kept.as_mut().context("there is a connection")?;
        exchange(kept, &self.pair, self.number).await
    }
}

async fn connect(address: SocketAddr) -> anyhow::Result<SendRequest<Full<Bytes>>> {
    let stream = TcpStream::connect(address).await.context("failed to connect")?;
    stream.set_nodelay(true)?;
    let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // Ends with its sender.
    tokio::spawn(connection);
    Ok(sender)
}

/// One exchange; fails unless all of the answer is as it must be.
async fn exchange(connection: &mut SendRequest<Full<Bytes>>, pair: &Pair, number: usize) -> anyhow::Result<()> {
    let (client, service) = (pair.from.client(), pair.to.service());
    let is_post = number.is_multiple_of(2);
    let method = if is_post { Method::POST } else { Method::GET };
    let body = if is_post { body_of(number) } else { Bytes::new() };
    let id = format!("{}-{}-{number}", pair.from.code, pair.to.code);
    let path = format!("/{number}");
    let request = Request::builder()
        .method(method.clone())
        .uri(format!("/r1/{service}{path}"))
        .header("Host", "ss1")
        .header("X-Road-Client", &client)
        .header("X-Road-Id", &id)
        .header("Content-Type", "application/octet-stream")
        .body(Full::new(body.clone()))?;
    let (head, answer) = connection.send_request(request).await.context("no answer")?.into_parts();
    let answer = answer.collect().await.context("the answer was cut off")?.to_bytes();
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if head.status != StatusCode::OK {
        bail!("{} {}: {}", head.status, header("x-road-error"), String::from_utf8_lossy(&answer));
    }
    for (name, expected) in [("x-road-client", &client), ("x-road-service", &service), ("x-road-id", &id)] {
        ensure!(header(name) == expected, "{name} is {:?} and not {expected:?}", header(name));
    }
    // The digest of a request that the answer's signature is bound to, of SHA-512 in base64.
    ensure!(header("x-road-request-hash").len() == 88, "x-road-request-hash is {:?}", header("x-road-request-hash"));
    ensure!(!header("x-road-request-id").is_empty(), "there is no x-road-request-id");
    let expected = echo::expected(pair.to.code, method.as_str(), &path, &client, &id, &body);
    ensure!(
        answer == expected,
        "the body has {} bytes and not those {} that were expected",
        answer.len(),
        expected.len()
    );
    Ok(())
}

/// No two that follow each other are alike.
fn body_of(number: usize) -> Bytes {
    let length = BODIES[number / 2 % BODIES.len()];
    (0..length).map(|at| u8::try_from((at * 31 + number) % 251).unwrap_or_default()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::federation::MEMBERS;

    /// An information system in place of the gateways: it says other headers than they would.
    #[tokio::test]
    async fn an_answer_that_is_not_as_it_must_be_is_a_failure() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        echo::serve("81000001", port).await.unwrap();
        let pair = Pair { from: MEMBERS[0], to: MEMBERS[1], entrance: port };
        let tally = Arc::new(Tally::default());
        call(vec![pair], tally.clone(), 6, CancellationToken::new()).await;
        let counts = tally.counts();
        assert_eq!((counts.requests, counts.failures, counts.new), (6, 6, 2));
        assert!(tally.failures()[0].contains("x-road-client is \"\""), "{:?}", tally.failures());
    }

    #[tokio::test]
    async fn nobody_there_is_a_failure() {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let pair = Pair { from: MEMBERS[0], to: MEMBERS[1], entrance: port };
        let tally = Arc::new(Tally::default());
        call(vec![pair], tally.clone(), 3, CancellationToken::new()).await;
        assert_eq!((tally.counts().requests, tally.counts().failures), (3, 3));
    }
}
