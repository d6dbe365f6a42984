//! The connections to the API server: few, of HTTP/2, each shared by many requests.
//!
//! A watch holds its request open for minutes, and there is one in each namespace with a SecurityServer. With HTTP/1.1
//! each would be a TLS connection of its own: some 45 KiB here and more at the API server, which for a federation of
//! some hundred servers is most of what the operator needs.
//!
//! The API server bounds the requests that one connection may have at a time (`--http2-max-streams-per-connection`,
//! 100 unless told otherwise); a client that opens more waits silently until others end, and watches do not end. So watches
//! have connections of their own, with so many to each that there is room. The lease has one as well: it must not wait
//! behind hundreds of questions at a start. All other requests share one.

use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Request, Response};
use http_body::{Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_rustls::{FixedServerNameResolver, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use kube::Config;
use kube::client::{Body, ConfigExt as _, DynBody};
use tokio::sync::Mutex;
use tower::{BoxError, Service};

use crate::client::Answer;

/// Watches on one connection: below the 100 of Kubernetes' default, so that one that is opened anew finds room while the
/// server still counts the old one.
const ROOM: usize = 90;

/// How long a watch may take to be opened. Its answer begins at once: what takes longer waits for room, or for a server that
/// does not answer anybody.
const OPENING: Duration = Duration::from_secs(15);

/// How long it counts that a connection took less than [`ROOM`]: a server that was slow once must not cost a connection a watch
/// for ever.
const LEARNT: Duration = Duration::from_mins(10);

/// When a connection is given up.
#[derive(Clone, Copy)]
struct Patience {
    /// While requests are open: nothing heard for so long, it is asked for a sign of life.
    silence: Duration,
    /// Without one for so long it is over, and all that waits on it fails and is tried again.
    answer: Duration,
    /// Without a new request for so long it is not used for further ones.
    idle: Duration,
}

/// Within the time in which a lease is renewed or lost.
const LEASE: Patience =
    Patience { silence: Duration::from_secs(3), answer: Duration::from_secs(2), idle: Duration::from_mins(1) };

const REQUESTS: Patience =
    Patience { silence: Duration::from_secs(10), answer: Duration::from_secs(5), idle: Duration::from_mins(1) };

/// Longer than a watch lasts: the pool counts from the last request that began, and hyper asks a connection for a sign of life
/// only as long as the pool holds it.
const WATCHES: Patience =
    Patience { silence: Duration::from_secs(30), answer: Duration::from_secs(15), idle: Duration::from_mins(6) };

/// Keeps a connection, opened when it is first needed and opened anew when it broke or was idle. With a server that speaks HTTP/1.1
/// alone it is as many as there are requests.
type Connection = Client<HttpsConnector<HttpConnector>, Body>;

/// All connections of a client. Clones share them.
#[derive(Clone)]
pub(crate) struct Connections {
    shared: Arc<Shared>,
}

struct Shared {
    connector: HttpsConnector<HttpConnector>,
    requests: Connection,
    lease: Connection,
    watches: std::sync::Mutex<Watches>,
    /// The turn of the watch that is being opened. Whoever comes while a connection is not there yet dials as well, and what came
    /// second is not kept in the pool: nothing would ever ask it for a sign of life, and its watch would be deaf until its end.
    opening: Mutex<()>,
}

struct Watches {
    /// What one connection takes, and since when that is known, where it is less than [`ROOM`].
    learnt: Option<(usize, Instant)>,
    connections: Vec<(Connection, Arc<Load>)>,
}

impl Watches {
    fn room(&self, now: Instant) -> usize {
        self.learnt.filter(|(_, since)| now.duration_since(*since) < LEARNT).map_or(ROOM, |(room, _)| room)
    }
}

/// The watches on one connection.
#[derive(Default)]
struct Load {
    /// Asked for and not over.
    taken: AtomicUsize,
    /// Of these, with an answer.
    answered: AtomicUsize,
}

/// One watch's place on its connection, until dropped.
struct Seat {
    load: Arc<Load>,
    answered: bool,
}

impl Seat {
    fn answered(&mut self) {
        self.answered = true;
        self.load.answered.fetch_add(1, Ordering::Relaxed);
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if self.answered {
            self.load.answered.fetch_sub(1, Ordering::Relaxed);
        }
        self.load.taken.fetch_sub(1, Ordering::Relaxed);
    }
}

impl Connections {
    /// Prepares connections to the API server of a configuration; opens none yet.
    pub(crate) fn to(config: &Config) -> kube::Result<Self> {
        let mut http = HttpConnector::new();
        http.enforce_http(false);
        http.set_connect_timeout(config.connect_timeout);
        http.set_nodelay(true);
        let builder = HttpsConnectorBuilder::new().with_tls_config(config.rustls_client_config()?).https_or_http();
        // Whoever reaches the API server by an address gives the name that stands in its certificate.
        let builder = match config.tls_server_name.clone() {
            Some(name) => {
                let name = name.try_into().map_err(|error| kube::Error::Service(Box::new(error)))?;
                builder.with_server_name_resolver(FixedServerNameResolver::new(name))
            }
            None => builder,
        };
        let connector = builder.enable_all_versions().wrap_connector(http);
        let (requests, lease) = (connection(&connector, REQUESTS), connection(&connector, LEASE));
        let watches = std::sync::Mutex::new(Watches { learnt: None, connections: Vec::new() });
        let opening = Mutex::new(());
        Ok(Self { shared: Arc::new(Shared { connector, requests, lease, watches, opening }) })
    }

    /// A place for one more watch.
    fn seat(&self) -> (Connection, Seat) {
        let mut watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let room = watches.room(Instant::now());
        let taken = |load: &Arc<Load>| load.taken.load(Ordering::Relaxed);
        watches.connections.retain(|(_, load)| taken(load) > 0);
        let free = watches.connections.iter().position(|(_, load)| taken(load) < room);
        let at = free.unwrap_or_else(|| {
            watches.connections.push((connection(&self.shared.connector, WATCHES), Arc::default()));
            watches.connections.len() - 1
        });
        let (connection, load) = &watches.connections[at];
        // Counted under the lock: no two take the last place.
        load.taken.fetch_add(1, Ordering::Relaxed);
        (connection.clone(), Seat { load: load.clone(), answered: false })
    }

    /// A watch was not answered: where others are, this server gives a connection no more than those.
    fn crowded(&self, seat: &Seat) {
        let answered = seat.load.answered.load(Ordering::Relaxed);
        let mut watches = self.shared.watches.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if answered > 0 && answered < watches.room(now) {
            tracing::info!(answered, "the API server answers no more watches on one connection");
            watches.learnt = Some((answered, now));
        }
    }

    async fn watch(self, request: Request<Body>) -> Result<Answer, BoxError> {
        let _turn = self.shared.opening.lock().await;
        let (connection, mut seat) = self.seat();
        let Ok(answer) = tokio::time::timeout(OPENING, connection.request(request)).await else {
            self.crowded(&seat);
            return Err(format!("a watch was not opened within {} s", OPENING.as_secs()).into());
        };
        let answer = answer?;
        seat.answered();
        Ok(answer.map(|inner| boxed(Seated { inner, _seat: seat })))
    }

    async fn request(self, request: Request<Body>) -> Result<Answer, BoxError> {
        // The API server's own address may have a path before it.
        let of_lease = request.uri().path().contains("/apis/coordination.k8s.io/");
        let connection = if of_lease { &self.shared.lease } else { &self.shared.requests };
        Ok(connection.request(request).await?.map(boxed))
    }
}

fn connection(connector: &HttpsConnector<HttpConnector>, patience: Patience) -> Connection {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(patience.idle)
        .http2_keep_alive_interval(patience.silence)
        .http2_keep_alive_timeout(patience.answer)
        .build(connector.clone())
}

fn boxed<B>(body: B) -> Box<DynBody>
where
    B: http_body::Body<Data = Bytes, Error = hyper::Error> + Send + Unpin + 'static,
{
    Box::new(body.map_err(BoxError::from))
}

impl Service<Request<Body>> for Connections {
    type Response = Response<Box<DynBody>>;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let watches = request.uri().query().is_some_and(|query| query.split('&').any(|pair| pair == "watch=true"));
        if watches { Box::pin(self.clone().watch(request)) } else { Box::pin(self.clone().request(request)) }
    }
}

/// The answer to a watch, which holds its seat until it is dropped.
struct Seated {
    inner: Incoming,
    _seat: Seat,
}

impl http_body::Body for Seated {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        Pin::new(&mut self.inner).poll_frame(context)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_learnt_of_a_slow_server_is_forgotten() {
        let now = Instant::now();
        let mut watches = Watches { learnt: None, connections: Vec::new() };
        assert_eq!(watches.room(now), ROOM);
        watches.learnt = Some((3, now));
        let second = Duration::from_secs(1);
        assert_eq!(watches.room(now + LEARNT.saturating_sub(second)), 3);
        assert_eq!(watches.room(now + LEARNT), ROOM);
    }
}
