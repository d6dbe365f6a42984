//! The link's endpoint: polls and farewells over HTTPS, bounded in size, number and time.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use axum::body::{Bytes, to_bytes};
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::{Next, from_fn_with_state};
use axum::response::{IntoResponse, Response};
use axum::routing::post;
use axum::{Extension, Json, Router};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use hyper_util::server::graceful::GracefulShutdown;
use hyper_util::service::TowerToHyperService;
use kube::Client;
use saatkond_api::SecurityServer;
use saatkond_domain::names::label_value;
use saatkond_wire::document::FORMAT;
use saatkond_wire::link::{
    GOODBYE_PATH, Goodbye, MAX_POLL_BYTES, MAX_WAIT_SECONDS, POLL_PATH, Poll, PollAnswer, Refusal,
};
use serde::de::DeserializeOwned;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tower::ServiceBuilder;

use super::documents::{Documents, Pair, ServerKey, read_fresh};
use super::peers::{Peers, key_of};
use super::places::Places;
use super::receipts::{self, StoreError, store};
use super::tls::CurrentTls;
use crate::clock::Clock;
use crate::metrics::Metrics;

/// Bounds of the endpoint. A connection with a poll held open takes about 48 KiB (TLS, HTTP/2, the poll itself): 4,000 of them fit three
/// quarters of the default limit of 256 MiB, and the rest is for documents and caches. Beyond that, more replicas.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Connections open at once of peers whose key is registered.
    pub connections: usize,
    /// Of them, of one key: the processes of a server share theirs, at most 20 and twice as many while they are replaced.
    pub connections_of_key: usize,
    /// Handshakes under way and connections of whoever has another key; further ones wait in the kernel's queue, at most for `handshake`
    /// each time that these are all taken by connections that say nothing. Who polls already is not held up by them, and who waits serves by
    /// what it holds.
    pub strangers: usize,
    /// Time for a handshake, for a request's head, and for its body.
    pub handshake: Duration,
    /// Requests at once on one connection.
    pub streams: u32,
    /// How long a connection may be open without a request, by a peer whose key is registered. Gateways poll all the time.
    pub idle: Duration,
    /// The same for any other: whoever holds some key can open a connection, and must not hold its place.
    pub idle_unregistered: Duration,
    /// Time for connections to end by themselves at shutdown.
    pub drain: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            connections: 3_500,
            connections_of_key: 64,
            strangers: 500,
            handshake: Duration::from_secs(10),
            streams: 8,
            idle: Duration::from_mins(2),
            idle_unregistered: Duration::from_secs(10),
            drain: Duration::from_secs(10),
        }
    }
}

/// Everything a request needs.
pub struct LinkState {
    /// For receipts and quorum reads.
    pub client: Client,
    /// The operator's namespace.
    pub namespace: String,
    /// The documents as seen last.
    pub documents: Documents,
    /// The registered keys as seen last.
    pub peers: Peers,
    /// Counts whatever was seen: whoever holds a poll open looks again.
    pub changes: watch::Sender<u64>,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Counters.
    pub metrics: Arc<Metrics>,
    /// Ends polls that are held open.
    pub stop: CancellationToken,
}

impl LinkState {
    /// Something was seen.
    pub fn changed(&self) {
        self.changes.send_modify(|count| *count = count.wrapping_add(1));
    }
}

/// SHA-256 of the peer's SubjectPublicKeyInfo, in lower-case hex.
#[derive(Debug, Clone)]
struct PeerKey(Arc<str>);

/// What is going on on a connection.
#[derive(Debug, Clone, Copy, Default)]
struct Activity {
    /// Requests under way.
    requests: usize,
    /// A request was refused because nobody has registered the key, or its body did not come.
    is_last: bool,
}

/// How long the answer to such a request may take to go out.
const LAST_WORD: Duration = Duration::from_secs(1);

/// A request under way, until it is dropped.
struct UnderWay(watch::Sender<Activity>);

impl UnderWay {
    fn new(activity: watch::Sender<Activity>) -> Self {
        activity.send_modify(|activity| activity.requests += 1);
        Self(activity)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|activity| activity.requests -= 1);
    }
}

/// Keeps the connection's books.
async fn note(
    State(patience): State<Duration>,
    Extension(activity): Extension<watch::Sender<Activity>>,
    request: Request,
    next: Next,
) -> Response {
    let _under_way = UnderWay::new(activity.clone());
    let (head, body) = request.into_parts();
    // A request whose body does not come is under way for ever, and its connection with it.
    let response = match tokio::time::timeout(patience, to_bytes(body, MAX_POLL_BYTES)).await {
        Ok(Ok(body)) => next.run(Request::from_parts(head, body.into())).await,
        Ok(Err(_)) => StatusCode::PAYLOAD_TOO_LARGE.into_response(),
        Err(_) => (StatusCode::REQUEST_TIMEOUT, Extension(Last)).into_response(),
    };
    if response.extensions().get::<Last>().is_some() {
        activity.send_modify(|activity| activity.is_last = true);
    }
    response
}

/// Marks an answer after which the connection has to go.
#[derive(Clone)]
struct Last;

/// Ends when the connection has been idle for too long, or its peer has been refused for good.
async fn is_over(state: &LinkState, limits: Limits, peer: &PeerKey, mut activity: watch::Receiver<Activity>) {
    loop {
        let now = *activity.borrow_and_update();
        let is_registered = state.peers.find(&peer.0, state.clock.now()).is_some();
        let wait = match now {
            Activity { is_last: true, .. } => Some(LAST_WORD),
            Activity { requests: 0, .. } if is_registered => Some(limits.idle),
            Activity { requests: 0, .. } => Some(limits.idle_unregistered),
            Activity { .. } => None,
        };
        let waiting = async {
            match wait {
                Some(wait) => state.clock.pause(wait).await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            () = waiting => return,
            // The sender lives as long as the connection.
            more = activity.changed(), if !now.is_last => if more.is_err() { return },
        }
    }
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refused {
    #[error("the message is not what is expected here")]
    Malformed,
    #[error("this version of the message is not understood")]
    Format,
    #[error("no security server has registered this key")]
    UnknownKey,
    #[error("a newer receipt of this process is stored already")]
    Stale,
    #[error("the status of the security server holds no more receipts")]
    Full,
    #[error("the receipt could not be stored; try again")]
    Unavailable,
}

impl Refused {
    fn words(&self) -> (StatusCode, &'static str) {
        match self {
            Self::Malformed => (StatusCode::BAD_REQUEST, "Malformed"),
            Self::Format => (StatusCode::BAD_REQUEST, "UnknownFormat"),
            Self::UnknownKey => (StatusCode::FORBIDDEN, "UnknownKey"),
            Self::Stale => (StatusCode::CONFLICT, "StaleReceipt"),
            Self::Full => (StatusCode::INSUFFICIENT_STORAGE, "TooManyProcesses"),
            Self::Unavailable => (StatusCode::SERVICE_UNAVAILABLE, "Unavailable"),
        }
    }
}

impl From<StoreError> for Refused {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::Stale => Self::Stale,
            StoreError::Gone => Self::UnknownKey,
            StoreError::Full => Self::Full,
            StoreError::Api(error) => {
                tracing::warn!(error = %error, "a receipt could not be stored");
                Self::Unavailable
            }
        }
    }
}

impl IntoResponse for Refused {
    fn into_response(self) -> Response {
        let (status, reason) = self.words();
        let refusal = Json(Refusal { reason: reason.to_owned(), message: self.to_string() });
        let mut response = (status, refusal).into_response();
        if matches!(self, Self::UnknownKey) {
            response.extensions_mut().insert(Last);
        }
        response
    }
}

/// The endpoint's paths. Each request must carry the peer's key as an extension.
fn router(state: Arc<LinkState>, limits: Limits) -> Router {
    Router::new()
        .route(POLL_PATH, post(poll))
        .route(GOODBYE_PATH, post(goodbye))
        .layer(from_fn_with_state(limits.handshake, note))
        .with_state(state)
}

fn message<T: DeserializeOwned>(body: &Bytes, format: impl Fn(&T) -> u32) -> Result<T, Refused> {
    let message: T = serde_json::from_slice(body).map_err(|_| Refused::Malformed)?;
    if format(&message) == 0 || format(&message) > FORMAT { Err(Refused::Format) } else { Ok(message) }
}

async fn poll(State(state): State<Arc<LinkState>>, Extension(peer): Extension<PeerKey>, body: Bytes) -> Response {
    match answer(&state, &peer, &body).await {
        Ok(answer) => {
            let news = answer.instance.is_some() || answer.server.is_some();
            state.metrics.polled(if news { "news" } else { "nothing" });
            Json(answer).into_response()
        }
        Err(refused) => {
            let (_, reason) = refused.words();
            state.metrics.polled(reason);
            tracing::info!(key = &*peer.0, reason, "poll refused");
            refused.into_response()
        }
    }
}

async fn answer(state: &LinkState, peer: &PeerKey, body: &Bytes) -> Result<PollAnswer, Refused> {
    let poll: Poll = message(body, |poll: &Poll| poll.format)?;
    if !is_uid(&poll.process.pod_uid) || poll.loaded.as_ref().is_some_and(|loaded| !is_bounded(loaded)) {
        return Err(Refused::Malformed);
    }
    // Before anything is read: what changes while it is read must end the wait.
    let mut changes = state.changes.subscribe();
    let server = state.peers.find(&peer.0, state.clock.now()).ok_or(Refused::UnknownKey)?;
    let key = document_key(&server);
    let Some(loaded) = &poll.loaded else {
        // It starts: no cache may answer it, and it is not kept waiting.
        let pair = read_fresh(&state.client, &state.namespace, &key).await;
        let pair = pair.map_err(|error| {
            tracing::warn!(error = %error, "the documents could not be read");
            Refused::Unavailable
        })?;
        return Ok(compose(&poll, &pair, fresh_issue_number(state, &server).await?));
    };
    store(&state.client, &server, &poll, loaded, state.clock.now()).await?;
    let wait = Duration::from_secs(poll.wait_seconds.min(MAX_WAIT_SECONDS).into());
    let mut over = state.clock.pause(wait);
    loop {
        let pair = state.documents.pair(&key);
        // Known as it was when the poll came, or as it is now. A server that is gone gets nothing more.
        let server = state.peers.find(&peer.0, state.clock.now()).ok_or(Refused::UnknownKey)?;
        let answer = compose(&poll, &pair, issue_number(&server));
        if poll.is_news(&answer.names()) || wait.is_zero() {
            return Ok(answer);
        }
        tokio::select! {
            more = changes.changed() => if more.is_err() { return Ok(answer) },
            () = &mut over => return Ok(answer),
            () = state.stop.cancelled() => return Ok(answer),
        }
    }
}

fn issue_number(server: &SecurityServer) -> u64 {
    server.status.as_ref().and_then(|status| status.issue_number).unwrap_or(0)
}

async fn fresh_issue_number(state: &LinkState, server: &SecurityServer) -> Result<u64, Refused> {
    let (namespace, name) = key_of(server);
    let api: kube::Api<SecurityServer> = kube::Api::namespaced(state.client.clone(), &namespace);
    match api.get_opt(&name).await {
        Ok(Some(server)) => Ok(issue_number(&server)),
        Ok(None) => Err(Refused::UnknownKey),
        Err(error) => {
            tracing::warn!(error = %error, "the security server could not be read");
            Err(Refused::Unavailable)
        }
    }
}

/// Sends only what is newer than what the process has at hand.
fn compose(poll: &Poll, pair: &Pair, issue_number: u64) -> PollAnswer {
    let instance_version = pair.instance.as_ref().map_or(0, |document| document.version);
    let server_version = pair.server.as_ref().map_or(0, |document| document.version);
    let newer = |document: &Option<super::documents::Document>, have: u64| {
        document.as_ref().filter(|document| document.version > have).map(|document| document.packed.to_vec())
    };
    PollAnswer {
        format: FORMAT,
        instance_version,
        server_version,
        issue_number,
        instance: newer(&pair.instance, poll.have_instance_version),
        server: newer(&pair.server, poll.have_server_version),
    }
}

/// How the ConfigMap of a server's configuration is labelled.
fn document_key(server: &SecurityServer) -> ServerKey {
    let (namespace, name) = key_of(server);
    (namespace, label_value(&name))
}

/// A UID becomes a field manager: nothing else may.
fn is_uid(text: &str) -> bool {
    (1..=36).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-')
}

/// The bounds of the status that it would be stored in.
fn is_bounded(loaded: &saatkond_wire::link::Loaded) -> bool {
    let hex = |text: &str, longest: usize| text.len() <= longest && text.bytes().all(|b| b.is_ascii_graphic());
    let sessions = loaded.old_sessions.as_ref().map_or(0, Vec::len);
    hex(&loaded.bundle_hash, 71) && hex(&loaded.leaf_serial, 64) && sessions <= 16
}

async fn goodbye(State(state): State<Arc<LinkState>>, Extension(peer): Extension<PeerKey>, body: Bytes) -> Response {
    let done = async {
        let goodbye: Goodbye = message(&body, |goodbye: &Goodbye| goodbye.format)?;
        if !is_uid(&goodbye.process.pod_uid) {
            return Err(Refused::Malformed);
        }
        let server = state.peers.find(&peer.0, state.clock.now()).ok_or(Refused::UnknownKey)?;
        receipts::end(&state.client, &server, &goodbye.process, state.clock.now()).await?;
        Ok(())
    };
    match done.await {
        Ok(()) => StatusCode::NO_CONTENT.into_response(),
        Err(refused) => refused.into_response(),
    }
}

/// Serves until `state.stop`, then lets connections end within [`Limits::drain`].
pub async fn serve(listener: TcpListener, tls: Arc<CurrentTls>, state: Arc<LinkState>, limits: Limits) {
    let graceful = GracefulShutdown::new();
    let places = Places::new(limits.connections, limits.strangers, limits.connections_of_key);
    let app = router(state.clone(), limits);
    let mut server = auto::Builder::new(TokioExecutor::new());
    server.http1().timer(TokioTimer::new()).header_read_timeout(limits.handshake);
    server
        .http2()
        .timer(TokioTimer::new())
        .max_concurrent_streams(limits.streams)
        .max_header_list_size(16 << 10)
        // A peer that is gone without a word gives its place back within this.
        .keep_alive_interval(Duration::from_secs(30))
        .keep_alive_timeout(Duration::from_secs(20));
    loop {
        let place = tokio::select! {
            () = state.stop.cancelled() => break,
            place = places.stranger() => place,
        };
        let Some(mut place) = place else { break };
        let stream = tokio::select! {
            () = state.stop.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    // Out of file handles, most likely: without a pause this would spin until some have been given back.
                    tracing::warn!(error = %error, "failed to accept a connection");
                    state.clock.pause(Duration::from_millis(50)).await;
                    continue;
                }
            },
        };
        let Some(config) = tls.get() else { continue };
        let (app, server, watcher, state) = (app.clone(), server.clone(), graceful.watcher(), state.clone());
        let places = places.clone();
        tokio::spawn(async move {
            state.metrics.link_connections.inc();
            let shaken = tokio::time::timeout(limits.handshake, shake(stream, config)).await;
            match shaken {
                Ok(Ok((_, peer)))
                    if !places.admit(&mut place, &peer.0, state.peers.find(&peer.0, state.clock.now()).is_some()) =>
                {
                    tracing::info!(
                        key = &*peer.0,
                        "a connection was refused: its key has as many as it may, or all are taken"
                    );
                }
                Ok(Ok((stream, peer))) => {
                    let activity = watch::Sender::new(Activity::default());
                    let over = is_over(&state, limits, &peer, activity.subscribe());
                    let service = ServiceBuilder::new();
                    let service = service.layer(Extension(peer.clone())).layer(Extension(activity)).service(app);
                    let service = TowerToHyperService::new(service);
                    let connection = server.serve_connection(TokioIo::new(stream), service).into_owned();
                    tokio::select! {
                        result = watcher.watch(connection) => if let Err(error) = result {
                            tracing::debug!(error = %error, "a connection ended badly");
                        },
                        () = over => tracing::debug!(key = &*peer.0, "a connection was closed: idle, or of an unknown key"),
                    }
                }
                Ok(Err(error)) => tracing::debug!(error = %error, "a handshake failed"),
                Err(_) => tracing::debug!("a handshake took too long"),
            }
            state.metrics.link_connections.dec();
            drop(place);
        });
    }
    drop(listener);
    if tokio::time::timeout(limits.drain, graceful.shutdown()).await.is_err() {
        tracing::warn!("connections were still open at the end");
    }
}

type Tls = tokio_rustls::server::TlsStream<TcpStream>;

async fn shake(stream: TcpStream, config: Arc<rustls::ServerConfig>) -> std::io::Result<(Tls, PeerKey)> {
    let refused = |why: &'static str| std::io::Error::other(why);
    stream.set_nodelay(true)?;
    let stream = TlsAcceptor::from(config).accept(stream).await?;
    let (_, session) = stream.get_ref();
    let leaf = session.peer_certificates().and_then(|chain| chain.first()).ok_or(refused("no certificate"))?;
    let key = saatkond_pki::certificate::public_key_of(leaf).map_err(|_| refused("not a certificate of ours"))?;
    let hash = key.spki_sha256().to_string();
    Ok((stream, PeerKey(hash.into())))
}

/// Listens.
pub async fn bind(address: SocketAddr) -> std::io::Result<TcpListener> {
    TcpListener::bind(address).await
}
