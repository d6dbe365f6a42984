//! Connections to other gateways: HTTP/2 over mutual TLS, kept open and shared. A pool belongs to one bundle and leaf; dropping it
//! lets the calls under way end and closes the rest.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, HandshakeKind};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use crate::exchange_body::ExchangeBody;
use crate::state::chain;

/// Connections to each peer: behind one address there may be several replicas, and one connection reaches one of them.
const CONNECTIONS: usize = 4;
/// For TCP and TLS together.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);
/// How long a peer that could not be reached is tried after the others.
const UNHEALTHY_FOR: Duration = Duration::from_secs(10);
/// HTTP/2 windows: large enough for a fast network, small enough to bound what a slow reader holds in memory.
pub const STREAM_WINDOW: u32 = 512 << 10;
/// See [`STREAM_WINDOW`].
pub const CONNECTION_WINDOW: u32 = 4 << 20;

/// The pool.
pub struct Pool {
    tls: Arc<ClientConfig>,
    peers: Mutex<HashMap<String, Arc<Peer>>>,
    turn: AtomicUsize,
}

#[derive(Default)]
struct Peer {
    slots: [tokio::sync::Mutex<Option<Connection>>; CONNECTIONS],
    turn: AtomicUsize,
    failed: Mutex<Option<(Instant, ConnectError)>>,
}

impl Peer {
    /// A connection that is open and that nobody is at work on.
    fn open(&self) -> Option<Connection> {
        let kept = self.slots.iter().filter_map(|slot| slot.try_lock().ok()?.clone());
        kept.into_iter().find(|connection| !connection.sender.is_closed())
    }
}

/// A connection, cheap to clone.
#[derive(Clone)]
pub struct Connection {
    /// Sends requests.
    pub sender: SendRequest<ExchangeBody>,
    /// What the peer presented.
    pub chain: Arc<[CertificateDer<'static>]>,
    /// Whether it began with the session of an earlier one (RFC 8446 2.2).
    pub is_resumed: bool,
}

/// Why there is no connection.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// Nobody answered.
    #[error("failed to connect to {address}: {why}")]
    Network {
        /// Of the peer.
        address: String,
        /// In words.
        why: String,
    },
    /// Somebody answered whom TLS refused, or who refused us.
    #[error("TLS with {address} failed: {why}")]
    Tls {
        /// Of the peer.
        address: String,
        /// In words.
        why: String,
    },
}

impl Pool {
    /// An empty pool.
    #[must_use]
    pub fn new(tls: Arc<ClientConfig>) -> Self {
        Self { tls, peers: Mutex::default(), turn: AtomicUsize::new(0) }
    }

    /// The next number for [`super::candidates::order`].
    pub fn turn(&self) -> usize {
        self.turn.fetch_add(1, Ordering::Relaxed)
    }

    /// Whether the peer at this address has not failed lately.
    pub fn is_healthy(&self, address: &str) -> bool {
        let peer = self.lock().get(address).cloned();
        peer.is_none_or(|peer| {
            let failed = peer.failed.lock().unwrap_or_else(PoisonError::into_inner);
            failed.as_ref().is_none_or(|(at, _)| at.elapsed() > UNHEALTHY_FOR)
        })
    }

    /// A connection to the peer at `host:port`: one that is open, or a new one.
    pub async fn connection(&self, address: &str) -> Result<Connection, ConnectError> {
        let peer = self.lock().entry(address.to_owned()).or_default().clone();
        let slot = &peer.slots[peer.turn.fetch_add(1, Ordering::Relaxed) % CONNECTIONS];
        let asked = Instant::now();
        let mut slot = match slot.try_lock() {
            Ok(slot) => slot,
            // Somebody is opening that one, which may take the whole bound.
            Err(_) => match peer.open() {
                Some(other) => return Ok(other),
                None => slot.lock().await,
            },
        };
        if let Some(connection) = slot.as_ref().filter(|connection| !connection.sender.is_closed()) {
            return Ok(connection.clone());
        }
        *slot = None;
        // Whoever waited while an attempt failed has had its answer: else callers of a peer that is gone would wait one after the
        // other, each for a timeout of its own.
        let failed = || peer.failed.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((_, error)) = failed().as_ref().filter(|(at, _)| *at >= asked) {
            return Err(error.clone());
        }
        let result = open(&self.tls, address, host_of(address)).await;
        *slot = result.as_ref().ok().cloned();
        if result.is_err()
            && let Some(other) = peer.open()
        {
            // Behind one address there may be several processes: that one of them cannot be reached says nothing of the others.
            return Ok(other);
        }
        *failed() = result.as_ref().err().map(|error| (Instant::now(), error.clone()));
        result
    }

    /// Takes a connection out that its peer is closing, and all others on which the peer presented the same leaf: each would be handed
    /// out until the last call on it has ended. A peer with a new leaf closes all of them at the same moment, and a call that met one after the
    /// other would run out of attempts. Calls on them go on; where it was one of several processes that is ending, the others are merely
    /// connected to anew.
    pub async fn discard(&self, address: &str, connection: &Connection) {
        let Some(peer) = self.lock().get(address).cloned() else { return };
        for slot in &peer.slots {
            let mut slot = slot.lock().await;
            if slot.as_ref().is_some_and(|kept| kept.chain == connection.chain) {
                *slot = None;
            }
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Peer>>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Opens a connection of its own.
///
/// The server name says nothing between gateways: who the peer is stands in its certificate's URI, which is compared with the
/// server that was meant to be reached. The link is asked for by its name.
pub async fn open(tls: &Arc<ClientConfig>, address: &str, name: &str) -> Result<Connection, ConnectError> {
    match timeout(CONNECT_TIMEOUT, handshake(tls, address, name)).await {
        Ok(result) => result,
        Err(_) => Err(ConnectError::Network { address: address.to_owned(), why: "no answer in time".into() }),
    }
}

async fn handshake(tls: &Arc<ClientConfig>, address: &str, name: &str) -> Result<Connection, ConnectError> {
    let network = |error: &hyper::Error| ConnectError::Network { address: address.to_owned(), why: chain(error) };
    let refused = |why: String| ConnectError::Tls { address: address.to_owned(), why };
    let stream = connect(tls, address, name).await?;
    let certificates: Arc<[_]> = match stream.get_ref().1.peer_certificates() {
        Some(chain) => chain.iter().cloned().map(CertificateDer::into_owned).collect(),
        None => return Err(refused("the peer has no certificate".into())),
    };
    let is_resumed = stream.get_ref().1.handshake_kind() == Some(HandshakeKind::Resumed);
    let mut builder = http2::Builder::new(TokioExecutor::new());
    builder
        .timer(TokioTimer::new())
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(STREAM_WINDOW as usize)
        .keep_alive_interval(Duration::from_secs(10))
        .keep_alive_timeout(Duration::from_secs(10))
        .keep_alive_while_idle(true);
    let (sender, connection) = builder.handshake(TokioIo::new(stream)).await.map_err(|error| network(&error))?;
    // Ends by itself when the last sender is dropped and the last call has ended.
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(error = chain(&error), "a connection to a peer ended");
        }
    });
    Ok(Connection { sender, chain: certificates, is_resumed })
}

/// Whether a request that failed was never taken by the peer, which says so itself (RFC 9113 6.8 and 8.7): its stream is above the
/// last one of a GOAWAY, or was refused. Such a request may be sent to somebody else.
#[must_use]
pub fn was_never_taken(error: &hyper::Error) -> bool {
    let is_leaving = |error: &h2::Error| error.is_go_away() && error.reason() == Some(h2::Reason::NO_ERROR);
    was_refused(error) || protocol_error(error).is_some_and(|error| error.is_remote() && is_leaving(error))
}

/// Whether the peer refused the stream of a request, and nothing more.
#[must_use]
pub fn was_refused(error: &hyper::Error) -> bool {
    protocol_error(error).is_some_and(|error| {
        error.is_remote() && error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM)
    })
}

fn protocol_error(error: &hyper::Error) -> Option<&h2::Error> {
    let mut source = std::error::Error::source(error);
    while let Some(inner) = source {
        if let Some(error) = inner.downcast_ref::<h2::Error>() {
            return Some(error);
        }
        source = inner.source();
    }
    None
}

/// The host of `host:port`.
#[must_use]
pub fn host_of(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host.trim_matches(['[', ']']))
}

async fn connect(tls: &Arc<ClientConfig>, address: &str, name: &str) -> Result<TlsStream<TcpStream>, ConnectError> {
    let network = |why: String| ConnectError::Network { address: address.to_owned(), why };
    let name = ServerName::try_from(name.to_owned()).map_err(|_| network("the address names no host".into()))?;
    let stream = TcpStream::connect(address).await.map_err(|error| network(error.to_string()))?;
    stream.set_nodelay(true).map_err(|error| network(error.to_string()))?;
    let connecting = TlsConnector::from(tls.clone()).connect(name, stream).await;
    connecting.map_err(|error| ConnectError::Tls { address: address.to_owned(), why: error.to_string() })
}
