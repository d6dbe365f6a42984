//! Port 5500: other gateways connect here, with mutual TLS and HTTP/2.

pub mod exchange;
mod handshakes;
mod lingering;
mod shares;

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::CertificateDer;
use saatkond_wire::exchange::{CONTENT_TYPE, EXCHANGE_PATH, INSTANCE_CONFIGURATION_PATH};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tracing::{debug, warn};

use crate::accept;
use crate::context::Context;
use crate::exchange_body::ExchangeBody;
use crate::memory::Capacity;
use crate::peer::pool::{CONNECTION_WINDOW, STREAM_WINDOW};
use crate::server::handshakes::{Handshake, Handshakes};
use crate::server::lingering::Lingering;
use crate::server::shares::Shares;
use crate::state::chain;

const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
const MAX_STREAMS: u32 = 256;

/// What there is for peers: in all, and of that for one.
struct Places {
    connections: Semaphore,
    connections_of_one: Shares,
    exchanges: Arc<Semaphore>,
    exchanges_of_one: Shares,
}

impl Places {
    fn within(capacity: &Capacity) -> Self {
        Self {
            connections: Semaphore::new(capacity.peers),
            connections_of_one: Shares::of(capacity.peers),
            exchanges: Arc::new(Semaphore::new(capacity.exchanges)),
            exchanges_of_one: Shares::of(capacity.exchanges),
        }
    }
}

/// An exchange's place: one of all, and one of its peer's share.
pub struct Place {
    _of_all: OwnedSemaphorePermit,
    _of_one: OwnedSemaphorePermit,
}

/// Accepts until `closing` is cancelled; connections under way are left to end.
pub async fn listen(context: Arc<Context>, listener: TcpListener, tasks: TaskTracker, closing: CancellationToken) {
    let handshakes = Handshakes::new(context.capacity.handshakes);
    let places = Arc::new(Places::within(&context.capacity));
    while let Some(stream) = accept::next(&listener, "server", &closing).await {
        let (handshake, has_ousted) = handshakes.begin();
        if has_ousted {
            context.metrics.peer_refused("too_many_handshakes");
        }
        let (context, places, closing) = (context.clone(), places.clone(), closing.clone());
        tasks.spawn(async move { serve(context, stream, handshake, &places, &closing).await });
    }
}

async fn serve(
    context: Arc<Context>,
    stream: TcpStream,
    handshake: Handshake,
    places: &Places,
    closing: &CancellationToken,
) {
    let _ = stream.set_nodelay(true);
    let mut changes = context.state.changes();
    let Some(in_force) = context.state.current() else { return };
    let acceptor = TlsAcceptor::from(in_force.tls.server.clone());
    let accepted = tokio::select! {
        accepted = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(stream)) => accepted,
        () = handshake.ousted() => return,
    };
    drop(handshake);
    let stream = match accepted {
        Ok(Ok(stream)) => stream,
        Ok(Err(error)) => {
            if let Some(reason) = uncounted(&error) {
                context.metrics.peer_refused(reason);
                warn!(reason, error = chain(&error), "a TLS handshake on the server port failed");
            }
            return;
        }
        Err(_) => {
            context.metrics.peer_refused("handshake_timeout");
            return;
        }
    };
    // Beyond the bound a connection is closed at once, so that those that are served go on being served.
    let Ok(_place) = places.connections.try_acquire() else {
        context.metrics.peer_refused("too_many_connections");
        return;
    };
    let Some(peer) = stream.get_ref().1.peer_certificates() else { return };
    let peer: Arc<[CertificateDer<'static>]> = peer.iter().cloned().map(CertificateDer::into_owned).collect();
    let Some(leaf) = peer.first() else { return };
    let Ok(_own_place) = places.connections_of_one.share(leaf).try_acquire_owned() else {
        context.metrics.peer_refused("too_many_connections_of_one_peer");
        return;
    };
    let share = places.exchanges_of_one.share(leaf);
    let own = in_force.identity.authentication.generation;
    let session = context.sessions.open([own, in_force.generation_of(peer.first())]);
    let service = service_fn(|request: Request<Incoming>| {
        let (context, peer) = (context.clone(), peer.clone());
        let (of_one, of_all) = (share.clone().try_acquire_owned(), places.exchanges.clone().try_acquire_owned());
        async move {
            // Beyond the bound the peer is told that its request was not taken: it may ask another server at once.
            let refused = |reason| {
                context.metrics.peer_refused(reason);
                Err(h2::Error::from(h2::Reason::REFUSED_STREAM))
            };
            let Ok(of_one) = of_one else { return refused("too_many_exchanges_of_one_peer") };
            let Ok(of_all) = of_all else { return refused("too_many_exchanges") };
            let place = Place { _of_all: of_all, _of_one: of_one };
            Ok(answer(&context, &peer, request, place).await)
        }
    });
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(16 << 10)
        .keep_alive_interval(Duration::from_secs(20))
        .keep_alive_timeout(Duration::from_secs(20));
    let mut connection = pin!(builder.serve_connection(TokioIo::new(Lingering::new(stream)), service));
    let mut is_ending = false;
    loop {
        tokio::select! {
            result = connection.as_mut() => {
                if let Err(error) = result {
                    debug!(error = chain(&error), "a peer's connection ended");
                }
                break;
            }
            () = closing.cancelled(), if !is_ending => is_ending = true,
            told = changes.changed(), if !is_ending => {
                // A connection keeps the identity that it was opened with: after a change of leaf or bundle the peer is asked
                // to open another, and this one ends with its last call.
                let current = context.state.current();
                let is_same = current.is_some_and(|current| Arc::ptr_eq(&current.tls, &in_force.tls));
                is_ending = told.is_err() || !is_same;
            }
        }
        if is_ending {
            connection.as_mut().graceful_shutdown();
        }
    }
    if session.close() {
        // A rotation may wait to hear that nobody uses a leaf of that authority any more.
        context.state.tell();
    }
}

/// The reason under which a failed handshake is counted. None for a certificate that this gateway's verifier has refused: it has
/// counted and logged that with a reason of its own.
fn uncounted(error: &io::Error) -> Option<&'static str> {
    match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
        Some(rustls::Error::InvalidCertificate(rustls::CertificateError::BadSignature)) => Some("not_its_key"),
        Some(rustls::Error::InvalidCertificate(_)) => None,
        Some(rustls::Error::NoCertificatesPresented) => Some("no_certificate"),
        Some(rustls::Error::AlertReceived(_)) => Some("refused_by_peer"),
        _ => Some("handshake"),
    }
}

async fn answer(
    context: &Arc<Context>,
    peer: &[CertificateDer<'static>],
    request: Request<Incoming>,
    place: Place,
) -> Response<ExchangeBody> {
    match request.uri().path() {
        EXCHANGE_PATH => exchange::answer(context, peer, request, place).await,
        INSTANCE_CONFIGURATION_PATH if request.method() == http::Method::GET => match context.state.current() {
            Some(in_force) => {
                let packed = in_force.instance.packed.clone().into();
                respond(StatusCode::OK, "application/gzip", ExchangeBody::one(packed))
            }
            None => respond(StatusCode::SERVICE_UNAVAILABLE, "text/plain", ExchangeBody::empty()),
        },
        _ => respond(StatusCode::NOT_FOUND, "text/plain", ExchangeBody::empty()),
    }
}

/// An answer of the exchange protocol.
#[must_use]
pub fn message(body: ExchangeBody) -> Response<ExchangeBody> {
    respond(StatusCode::OK, CONTENT_TYPE, body)
}

fn respond(status: StatusCode, content_type: &'static str, body: ExchangeBody) -> Response<ExchangeBody> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static(content_type));
    response
}
