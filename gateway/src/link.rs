//! The operator's link: a long poll that asks for what is newer and states what is loaded. It states only what has been swapped in,
//! never what has merely arrived.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt as _, Limited};
use rustls::ClientConfig;
use saatkond_wire::document::FORMAT;
use saatkond_wire::link::{
    GOODBYE_PATH, Goodbye, Loaded, MAX_WAIT_SECONDS, POLL_PATH, Poll, PollAnswer, ProcessId, Refusal, Told,
};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{debug, info, warn};

use crate::context::Context;
use crate::exchange_body::ExchangeBody;
use crate::peer::pool::{self, Connection};
use crate::start::Link as Seen;
use crate::state::in_force::InForce;
use crate::state::{Origin, chain};

/// How much longer than the promised wait an answer may take.
const GRACE: Duration = Duration::from_secs(20);
/// Both documents in Base64, within [`saatkond_wire::document::MAX_DOCUMENT_BYTES`] each when packed.
const MAX_ANSWER: usize = 32 << 20;
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// The longest pause of a process that waits to serve for something to be published or mounted: it is not kept waiting by the link.
const LONGEST_STARTING_PAUSE: Duration = Duration::from_secs(5);

/// Where the link is, and who asks.
#[derive(Debug, Clone)]
pub struct Link {
    /// `host:port`.
    pub address: String,
    /// The name in its certificate.
    pub server_name: String,
    /// This process.
    pub process: ProcessId,
}

#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error("failed to connect to the link")]
    Connect(#[source] pool::ConnectError),
    #[error("the connection to the link broke")]
    Http(#[source] hyper::Error),
    #[error("the link did not answer in time")]
    Silent,
    #[error("the link refused with status {status}: {reason} {message}")]
    Refused { status: StatusCode, reason: String, message: String },
    #[error("the link's answer cannot be read: {0}")]
    Answer(String),
}

/// Polls until `closing`; tells `seen` how it goes.
pub async fn poll_forever(context: Arc<Context>, link: Link, seen: watch::Sender<Seen>, closing: CancellationToken) {
    let mut changes = context.state.changes();
    let mut connection: Option<(Arc<ClientConfig>, Connection)> = None;
    let (mut pause, mut told) = (FIRST_PAUSE, Told::default());
    loop {
        changes.mark_unchanged();
        let Some(in_force) = context.state.current() else {
            // Without a leaf and authorities there is nothing to connect with.
            tokio::select! {
                () = closing.cancelled() => return,
                _ = changes.changed() => continue,
            }
        };
        let is_starting = !context.is_serving.load(Ordering::Acquire);
        let (asked, before) = (Instant::now(), context.state.at_hand());
        let result = tokio::select! {
            () = closing.cancelled() => return,
            // Something else came into force: the receipt in the poll under way is out of date, give a new one at once.
            _ = changes.changed(), if !is_starting => continue,
            result = poll(&context, &link, &in_force, told, &mut connection) => result,
        };
        let wait = match result {
            Ok(answer) => {
                take(&context, &answer);
                let Told { instance_version, server_version, issue_number } = answer.names();
                seen.send_replace(Seen::Answered { instance_version, server_version, issue_number });
                told = answer.names();
                if context.state.at_hand() != before || asked.elapsed() >= LONGEST_PAUSE {
                    // It brought something, or was held while there was nothing.
                    pause = FIRST_PAUSE;
                    Duration::ZERO
                } else {
                    let longest = if is_starting { LONGEST_STARTING_PAUSE } else { LONGEST_PAUSE };
                    longer(&mut pause, longest)
                }
            }
            Err(error) => {
                connection = None;
                context.metrics.link_failures.inc();
                warn!(error = chain(&error), "the link cannot be used now");
                // An answer that was once given stays true: what is published only grows.
                seen.send_if_modified(|seen| {
                    let is_first = *seen == Seen::Unknown;
                    if is_first {
                        *seen = Seen::Silent;
                    }
                    is_first
                });
                longer(&mut pause, LONGEST_PAUSE)
            }
        };
        tokio::select! {
            () = closing.cancelled() => return,
            // A receipt does not wait for a pause to end.
            _ = changes.changed() => {}
            () = sleep(wait) => {}
        }
    }
}

/// This pause, jittered; the next one is twice as long, up to `longest`.
fn longer(pause: &mut Duration, longest: Duration) -> Duration {
    let now = (*pause).min(longest);
    *pause = (now * 2).min(longest);
    jittered(now)
}

/// Between half and the whole of a pause, so that gateways do not come back all at once.
fn jittered(pause: Duration) -> Duration {
    let random =
        f64::from(u16::from_be_bytes([uuid::Uuid::new_v4().as_bytes()[0], uuid::Uuid::new_v4().as_bytes()[1]]));
    pause.mul_f64(0.5 + random / f64::from(u16::MAX) / 2.0)
}

/// What is loaded: the past tense, taken from what is in force.
#[must_use]
pub fn loaded(context: &Context, in_force: &InForce) -> Option<Loaded> {
    context.is_serving.load(Ordering::Acquire).then(|| Loaded {
        instance_version: in_force.instance.payload.version,
        server_version: in_force.server.payload.version,
        bundle_sequence: in_force.instance.payload.bundle_sequence,
        bundle_hash: in_force.bundle.hash(),
        leaf_issue_number: in_force.identity.issue_number,
        leaf_serial: in_force.identity.authentication.facts.serial.clone(),
        old_sessions: Some(context.sessions.other_than(in_force.instance.payload.signing_generation)),
        started_alone: context.started_alone.get().copied(),
    })
}

async fn poll(
    context: &Context,
    link: &Link,
    in_force: &InForce,
    told: Told,
    connection: &mut Option<(Arc<ClientConfig>, Connection)>,
) -> Result<PollAnswer, LinkError> {
    let loaded = loaded(context, in_force);
    let wait_seconds = if loaded.is_some() { MAX_WAIT_SECONDS } else { 0 };
    let (have_instance_version, have_server_version, have_issue_number) = context.state.at_hand();
    let poll = Poll {
        format: FORMAT,
        highest_format: FORMAT,
        process: link.process.clone(),
        loaded,
        have_instance_version,
        have_server_version,
        have_issue_number,
        told,
        wait_seconds,
    };
    let connection = connect(link, in_force, connection).await?;
    let within = Duration::from_secs(wait_seconds.into()) + GRACE;
    let bytes = timeout(within, post(connection, POLL_PATH, &poll)).await.map_err(|_| LinkError::Silent)??;
    serde_json::from_slice(&bytes).map_err(|error| LinkError::Answer(error.to_string()))
}

async fn connect<'a>(
    link: &Link,
    in_force: &InForce,
    connection: &'a mut Option<(Arc<ClientConfig>, Connection)>,
) -> Result<&'a mut Connection, LinkError> {
    let tls = &in_force.tls.link;
    let usable = connection.take().filter(|(with, open)| Arc::ptr_eq(with, tls) && !open.sender.is_closed());
    let open = match usable {
        Some((_, open)) => open,
        None => pool::open(tls, &link.address, &link.server_name).await.map_err(LinkError::Connect)?,
    };
    Ok(&mut connection.insert((tls.clone(), open)).1)
}

async fn post<T: serde::Serialize>(
    connection: &mut Connection,
    path: &str,
    body: &T,
) -> Result<bytes::Bytes, LinkError> {
    let body = serde_json::to_vec(body).map_err(|error| LinkError::Answer(error.to_string()))?;
    let mut request = Request::new(ExchangeBody::one(body.into()));
    *request.method_mut() = Method::POST;
    let uri = format!("https://link.saatkond.internal{path}");
    *request.uri_mut() = uri.parse().map_err(|_| LinkError::Answer("no URI".into()))?;
    request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static("application/json"));
    let response = connection.sender.send_request(request).await.map_err(LinkError::Http)?;
    let status = response.status();
    let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
    let bytes = body.map_err(|error| LinkError::Answer(error.to_string()))?.to_bytes();
    if status == StatusCode::OK {
        return Ok(bytes);
    }
    let refusal = serde_json::from_slice::<Refusal>(&bytes).ok();
    let (reason, message) = refusal.map(|refusal| (refusal.reason, refusal.message)).unwrap_or_default();
    Err(LinkError::Refused { status, reason, message })
}

fn take(context: &Context, answer: &PollAnswer) {
    if let Some(packed) = &answer.instance {
        let offer = context.state.offer_instance(packed, Origin::Link, context.now());
        debug!(?offer, "instance configuration from the link");
    }
    if let Some(packed) = &answer.server {
        let offer = context.state.offer_server(packed, Origin::Link, context.now());
        debug!(?offer, "server configuration from the link");
    }
}

/// How long an ending process tries to say so: it must not wait for an operator that is gone.
const GOODBYE: Duration = Duration::from_secs(3);
/// One attempt: where one of the link's processes is ending too, another one answers.
const GOODBYE_ATTEMPT: Duration = Duration::from_secs(1);
/// Between two attempts.
const GOODBYE_PAUSE: Duration = Duration::from_millis(200);

/// Says that this process has ended.
pub async fn goodbye(context: &Context, link: &Link) {
    let Some(in_force) = context.state.current() else { return };
    let goodbye = Goodbye { format: FORMAT, process: link.process.clone() };
    let saying = async {
        loop {
            let attempt = timeout(GOODBYE_ATTEMPT, async {
                let mut connection = None;
                post(connect(link, &in_force, &mut connection).await?, GOODBYE_PATH, &goodbye).await
            });
            match attempt.await {
                Ok(Ok(_)) => return info!("said goodbye to the link"),
                // It was heard, and there is nothing to say it of: the server is not registered any more, say.
                Ok(Err(error @ LinkError::Refused { status, .. })) if status.is_client_error() => {
                    return info!(error = chain(&error), "the link refused the goodbye");
                }
                Ok(Err(error)) => info!(error = chain(&error), "could not say goodbye to the link"),
                Err(_) => info!("the link did not answer the goodbye"),
            }
            sleep(GOODBYE_PAUSE).await;
        }
    };
    if timeout(GOODBYE, saying).await.is_err() {
        info!("no goodbye was heard");
    }
}
