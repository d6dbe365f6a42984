//! One call of an information system. No redirect is followed, nothing is decompressed, cached or remembered (gateway.md 3.2, 5).

use std::error::Error as _;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::BoxFuture;
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue, USER_AGENT};
use http::{HeaderMap, Request, Response};
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use hyper_util::client::legacy::Client;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use tokio::time::{Instant, sleep_until};

use super::connect::{ConnectFailure, Connector};
use crate::error::{Cause, Failure};
use crate::request::headers::Line;
use crate::spool::Rewound;
use crate::state::chain;

/// Idle connections are closed before common servers close them (60-75 s), so that few calls meet one that is going away.
const POOL_IDLE: Duration = Duration::from_secs(20);
const MAX_HEADER_LINES: usize = 200;

/// Calls information systems.
#[derive(Debug, Clone)]
pub struct InformationSystems(Client<Connector, CallBody>);

impl Default for InformationSystems {
    fn default() -> Self {
        // A call is only ever sent again if it was never sent: the client takes it back from a connection that turned out to be
        // closed before a byte was written.
        let client = Client::builder(TokioExecutor::new())
            .pool_timer(TokioTimer::new())
            .pool_idle_timeout(POOL_IDLE)
            .pool_max_idle_per_host(64)
            .http1_max_headers(MAX_HEADER_LINES)
            .build(Connector);
        Self(client)
    }
}

/// What to call.
#[derive(Debug)]
pub struct Call {
    /// The method.
    pub method: &'static str,
    /// The URL with path and query.
    pub url: String,
    /// The header lines that travel.
    pub lines: Vec<Line>,
    /// The verified body.
    pub body: Rewound,
    /// The longest silence; none for no bound.
    pub silence: Option<Duration>,
}

/// Whether a body is sent along (gateway.md 5: X-Road sends none with DELETE; here it is sent, as RFC 9110 allows and callers
/// expect).
fn carries_body(method: &str) -> bool {
    matches!(method, "POST" | "PUT" | "PATCH" | "DELETE")
}

impl InformationSystems {
    /// Calls. The answer's body is still to be read.
    pub async fn call(&self, call: Call) -> Result<Answered, Failure> {
        let Call { method, url, lines, body, silence } = call;
        let bad = |why: &str| Failure::server(Cause::ServiceMissingUrl, format!("the service cannot be called: {why}"));
        if !url.starts_with("http://") {
            return Err(bad("its address is not an http:// URL"));
        }
        let clock = Clock::new(silence);
        let length = body.left();
        let body = if carries_body(method) && length > 0 {
            CallBody { state: Mutex::new(BodyState::Reading(reading(body))), left: length, clock: clock.clone() }
        } else {
            CallBody { state: Mutex::new(BodyState::Done), left: 0, clock: clock.clone() }
        };
        let mut request =
            Request::builder().method(method).uri(&url).body(body).map_err(|error| bad(&error.to_string()))?;
        *request.headers_mut() = header_map(&lines);
        request
            .headers_mut()
            .insert(USER_AGENT, HeaderValue::from_static(concat!("saatkond/", env!("CARGO_PKG_VERSION"))));
        if matches!(method, "POST" | "PUT" | "PATCH") || request.body().left > 0 {
            let length = request.body().left;
            request.headers_mut().insert(CONTENT_LENGTH, length.into());
        }
        let answer = tokio::select! {
            answer = self.0.request(request) => answer.map_err(|error| failure(&error))?,
            () = clock.expired() => return Err(silent(silence)),
        };
        let (parts, body) = answer.into_parts();
        Ok(Answered { head: Response::from_parts(parts, ()), body, silence })
    }
}

/// An answer whose body is being read.
pub struct Answered {
    /// Status and headers.
    pub head: Response<()>,
    body: Incoming,
    silence: Option<Duration>,
}

impl Answered {
    /// The header lines in order of arrival; lines of one name stand together.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let lines = self.head.headers().iter();
        lines.map(|(name, value)| Line::new(name.as_str().as_bytes().to_vec(), value.as_bytes().to_vec())).collect()
    }

    /// The next piece of the body, never empty.
    pub async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        use http_body_util::BodyExt as _;
        loop {
            let clock = Clock::new(self.silence);
            let frame = tokio::select! {
                frame = self.body.frame() => frame,
                () = clock.expired() => return Err(silent(self.silence)),
            };
            match frame {
                None => return Ok(None),
                Some(Ok(frame)) => match frame.into_data() {
                    Ok(data) if !data.is_empty() => return Ok(Some(data)),
                    // Trailers do not travel.
                    _ => {}
                },
                Some(Err(error)) => {
                    let why = format!("the information system broke off its answer: {}", chain(&error));
                    return Err(Failure::server(Cause::IoError, why));
                }
            }
        }
    }
}

fn header_map(lines: &[Line]) -> HeaderMap {
    let mut map = HeaderMap::with_capacity(lines.len());
    for line in lines {
        // Both were checked when the REST part was read; a name that HTTP libraries refuse is left out.
        if let (Ok(name), Ok(value)) = (HeaderName::from_bytes(&line.name), HeaderValue::from_bytes(&line.value)) {
            map.append(name, value);
        }
    }
    map
}

fn silent(silence: Option<Duration>) -> Failure {
    let seconds = silence.unwrap_or_default().as_secs_f32();
    Failure::server(Cause::IoError, format!("the information system was silent for {seconds} s"))
}

fn failure(error: &hyper_util::client::legacy::Error) -> Failure {
    let mut source = error.source();
    while let Some(inner) = source {
        match inner.downcast_ref::<ConnectFailure>() {
            Some(ConnectFailure::UnknownHost(_)) => return Failure::server(Cause::UnknownHost, chain(error)),
            Some(ConnectFailure::Network(_)) => return Failure::server(Cause::NetworkError, chain(error)),
            None => source = inner.source(),
        }
    }
    Failure::server(Cause::IoError, chain(error))
}

/// Expires after a silence that nothing interrupted.
#[derive(Debug, Clone)]
struct Clock {
    silence: Option<Duration>,
    last: Arc<Mutex<Instant>>,
}

impl Clock {
    fn new(silence: Option<Duration>) -> Self {
        Self { silence, last: Arc::new(Mutex::new(Instant::now())) }
    }

    fn touch(&self) {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
    }

    async fn expired(&self) {
        let Some(silence) = self.silence else { return std::future::pending().await };
        loop {
            let until = *self.last.lock().unwrap_or_else(PoisonError::into_inner) + silence;
            if until <= Instant::now() {
                return;
            }
            sleep_until(until).await;
        }
    }
}

/// The body of a call, read from the spool as the information system takes it.
struct CallBody {
    /// A mutex only because the client wants to share it between threads; nobody ever waits for it.
    state: Mutex<BodyState>,
    left: u64,
    clock: Clock,
}

enum BodyState {
    Reading(BoxFuture<'static, (Rewound, io::Result<Option<Bytes>>)>),
    Done,
}

fn reading(mut body: Rewound) -> BoxFuture<'static, (Rewound, io::Result<Option<Bytes>>)> {
    async move {
        let piece = body.next().await;
        (body, piece)
    }
    .boxed()
}

impl Body for CallBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        self.clock.touch();
        let this = &mut *self;
        let state = this.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let BodyState::Reading(future) = state else { return Poll::Ready(None) };
        let (body, piece) = std::task::ready!(future.as_mut().poll(cx));
        match piece {
            Ok(Some(piece)) => {
                this.left = body.left();
                *state = if this.left == 0 { BodyState::Done } else { BodyState::Reading(reading(body)) };
                Poll::Ready(Some(Ok(Frame::data(piece))))
            }
            Ok(None) => {
                *state = BodyState::Done;
                Poll::Ready(None)
            }
            Err(error) => {
                *state = BodyState::Done;
                Poll::Ready(Some(Err(error)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
