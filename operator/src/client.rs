//! The one client through which all API traffic goes: it counts each request, bounds it in time, and is where tests cut
//! in.
//!
//! The layer lies outside everything else in the stack, so it sees each logical request once. kube's own retries are
//! off: a failed request fails the reconcile, whose queue knows how to wait and does not hide the wait inside one call
//! that may take minutes.

use std::convert::Infallible;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode};
use http_body::Frame;
use http_body_util::{BodyExt as _, Full, StreamBody};
use kube::client::{Body, ClientBuilder, ConfigExt as _, DynBody};
use kube::{Client, Config};
use tower::util::option_layer;
use tower::{BoxError, Layer, Service};

use crate::clock::Clock;
use crate::connections::Connections;
use crate::metrics::ApiRequests;

/// How long one request may take, watches aside. Longer than the API server's own limit for a slow write to etcd, so
/// that its answer is preferred to our guess.
pub const REQUEST_TIMEOUT: Duration = Duration::from_secs(45);

/// One request, as RBAC sees it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Call {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete` or `deletecollection`.
    pub verb: &'static str,
    /// The API group; empty for the core group.
    pub group: String,
    /// The resource, with its subresource after a slash.
    pub resource: String,
    /// The namespace, where there is one.
    pub namespace: Option<String>,
    /// The object, where one is named.
    pub name: Option<String>,
    /// The field manager of a write.
    pub manager: Option<String>,
}

impl Call {
    /// Reads a request to the API server. Nothing for paths that are no resources (`/livez`, `/version`).
    #[must_use]
    pub fn of<B>(request: &Request<B>) -> Option<Self> {
        let mut parts = request.uri().path().split('/').filter(|part| !part.is_empty()).peekable();
        let group = match parts.next()? {
            "api" => String::new(),
            "apis" => parts.next()?.to_owned(),
            _ => return None,
        };
        parts.next()?; // the version: rights do not depend on it
        let mut namespace = None;
        let mut rest: Vec<&str> = parts.collect();
        // `namespaces/x` alone is the Namespace itself, with more behind it the scope of something else.
        let of_namespace = group.is_empty() && matches!(rest.get(2), Some(&("status" | "finalize")));
        if rest.len() > 2 && rest[0] == "namespaces" && !of_namespace {
            namespace = Some(rest[1].to_owned());
            rest.drain(..2);
        }
        let resource = match (rest.first(), rest.get(2)) {
            (Some(resource), Some(sub)) => format!("{resource}/{sub}"),
            (Some(resource), None) => (*resource).to_owned(),
            (None, _) => return None,
        };
        let name = rest.get(1).map(|name| (*name).to_owned());
        let query = |key: &str| {
            request.uri().query().unwrap_or_default().split('&').find_map(|pair| {
                let (found, value) = pair.split_once('=')?;
                (found == key).then(|| value.replace("%2F", "/"))
            })
        };
        let watching = query("watch").is_some_and(|value| value != "false" && value != "0");
        let verb = match (request.method(), name.is_some()) {
            (&Method::GET | &Method::HEAD, _) if watching => "watch",
            (&Method::GET | &Method::HEAD, true) => "get",
            (&Method::GET | &Method::HEAD, false) => "list",
            (&Method::POST, _) => "create",
            (&Method::PUT, _) => "update",
            (&Method::PATCH, _) => "patch",
            (&Method::DELETE, true) => "delete",
            (&Method::DELETE, false) => "deletecollection",
            _ => return None,
        };
        Some(Self { verb, group, resource, namespace, name, manager: query("fieldManager") })
    }

    /// Whether it may change something.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb, "get" | "list" | "watch")
    }
}

impl fmt::Display for Call {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.verb, self.resource)?;
        if !self.group.is_empty() {
            write!(f, ".{}", self.group)?;
        }
        if let Some(namespace) = &self.namespace {
            write!(f, " in {namespace}")?;
        }
        if let Some(name) = &self.name {
            write!(f, " {name}")?;
        }
        Ok(())
    }
}

/// What a test wants to happen to a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// Nothing: it goes its way.
    Pass,
    /// The process dies before it is sent.
    DieBefore,
    /// It is carried out, and the process dies before it hears so.
    DieAfter,
    /// It is carried out, and the connection breaks before the answer arrives.
    LoseAnswer,
    /// It is not carried out; the server answers with this status.
    Answer(u16),
    /// The answer begins well and then nothing more comes: a connection that is open at one end alone.
    Silence,
}

/// Decides the fate of each request. Only tests give one to [`connect`].
pub trait Fault: Send + Sync + 'static {
    /// The fate of this request.
    fn judge(&self, call: &Call) -> Verdict;
    /// The process is dead from here on: the request that found out never returns.
    fn died(&self);
}

/// Until when this process may write, by its monotonic clock. A process that was frozen and wakes after its lease has gone
/// to another finds its writes refused here, whatever it was in the middle of.
#[derive(Clone)]
pub struct Fence {
    until: Arc<AtomicU64>,
    clock: Arc<dyn Clock>,
}

impl Fence {
    /// Closed.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self { until: Arc::default(), clock }
    }

    /// Opens until this moment.
    pub fn open_until(&self, moment: Duration) {
        self.until.store(u64::try_from(moment.as_millis()).unwrap_or(u64::MAX), Ordering::SeqCst);
    }

    /// Closes.
    pub fn close(&self) {
        self.until.store(0, Ordering::SeqCst);
    }

    /// Whether writes may pass. The Lease itself always may: it is how one gets to hold it.
    fn passes(&self, call: &Call) -> bool {
        let open = self.clock.elapsed() < Duration::from_millis(self.until.load(Ordering::SeqCst));
        open || !call.is_write() || call.resource == "leases"
    }
}

/// What the layer does besides counting.
#[derive(Clone, Default)]
pub struct Hooks {
    /// Lets writes pass only while the lease is held. `None` for processes that need no lease.
    pub fence: Option<Fence>,
    /// Faults; only in tests.
    pub fault: Option<Arc<dyn Fault>>,
}

/// Connects to the API server, through the counting layer.
pub fn connect(mut config: Config, requests: ApiRequests, hooks: Hooks) -> Result<Client, Box<kube::Error>> {
    // Retried by the queue, which knows how to wait, and counts.
    config.default_retry = false;
    let layer = Watchful { requests, hooks };
    if config.proxy_url.is_some() {
        // kube says itself which proxies it knows.
        return Ok(ClientBuilder::try_from(config).map_err(Box::new)?.with_layer(&layer).build());
    }
    let shared = Connections::to(&config).map_err(Box::new)?;
    let authenticated = option_layer(config.auth_layer().map_err(Box::new)?);
    let headers = config.extra_headers_layer().map_err(Box::new)?;
    let service = config.base_uri_layer().layer(authenticated.layer(headers.layer(shared)));
    Ok(ClientBuilder::new(service, config.default_namespace.clone()).with_layer(&layer).build())
}

/// The layer.
#[derive(Clone)]
struct Watchful {
    requests: ApiRequests,
    hooks: Hooks,
}

impl<S> Layer<S> for Watchful {
    type Service = Watched<S>;

    fn layer(&self, inner: S) -> Watched<S> {
        Watched { inner, layer: self.clone() }
    }
}

struct Watched<S> {
    inner: S,
    layer: Watchful,
}

/// An answer of the API server.
pub(crate) type Answer = Response<Box<DynBody>>;

impl<S> Service<Request<Body>> for Watched<S>
where
    S: Service<Request<Body>, Response = Answer, Error = BoxError>,
    S::Future: Send + 'static,
{
    type Response = Answer;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Answer, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let Some(call) = Call::of(&request) else { return Box::pin(self.inner.call(request)) };
        if self.layer.hooks.fence.as_ref().is_some_and(|fence| !fence.passes(&call)) {
            return Box::pin(std::future::ready(Err(format!("not leading any more: {call}").into())));
        }
        self.layer.requests.count(&call);
        let fault = self.layer.hooks.fault.clone();
        let verdict = fault.as_ref().map_or(Verdict::Pass, |fault| fault.judge(&call));
        match verdict {
            Verdict::Pass => {
                let answer = self.inner.call(request);
                if call.verb == "watch" { Box::pin(answer) } else { Box::pin(bounded(answer, call)) }
            }
            Verdict::DieBefore => Box::pin(dead(fault)),
            Verdict::DieAfter => Box::pin(die_after(self.inner.call(request), fault)),
            Verdict::LoseAnswer => Box::pin(lose(self.inner.call(request), call)),
            Verdict::Answer(status) => Box::pin(std::future::ready(refusal(status, &call))),
            Verdict::Silence => Box::pin(std::future::ready(Ok(silence()))),
        }
    }
}

async fn bounded(answer: impl Future<Output = Result<Answer, BoxError>>, call: Call) -> Result<Answer, BoxError> {
    match tokio::time::timeout(REQUEST_TIMEOUT, answer).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s: {call}", REQUEST_TIMEOUT.as_secs()).into()),
    }
}

async fn die_after(
    answer: impl Future<Output = Result<Answer, BoxError>>,
    fault: Option<Arc<dyn Fault>>,
) -> Result<Answer, BoxError> {
    drop(answer.await);
    dead(fault).await
}

async fn lose(answer: impl Future<Output = Result<Answer, BoxError>>, call: Call) -> Result<Answer, BoxError> {
    answer.await?;
    Err(format!("the connection broke during: {call}").into())
}

async fn dead(fault: Option<Arc<dyn Fault>>) -> Result<Answer, BoxError> {
    if let Some(fault) = fault {
        fault.died();
    }
    std::future::pending().await
}

fn refusal(status: u16, call: &Call) -> Result<Answer, BoxError> {
    let code = StatusCode::from_u16(status)?;
    let reason = match status {
        403 => "Forbidden",
        404 => "NotFound",
        409 => "Conflict",
        410 => "Expired",
        429 => "TooManyRequests",
        503 => "ServiceUnavailable",
        _ => "InternalError",
    };
    let body = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": format!("injected: {call}"), "reason": reason, "code": status,
    });
    let body = Full::new(Bytes::from(body.to_string())).map_err(|never: Infallible| -> BoxError { match never {} });
    let mut answer = Response::new(Box::new(body) as Box<DynBody>);
    *answer.status_mut() = code;
    answer.headers_mut().insert(http::header::CONTENT_TYPE, http::HeaderValue::from_static("application/json"));
    Ok(answer)
}

fn silence() -> Answer {
    let never = futures_util::stream::pending::<Result<Frame<Bytes>, BoxError>>();
    Response::new(Box::new(StreamBody::new(never)) as Box<DynBody>)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn call(method: &str, uri: &str) -> String {
        let request = Request::builder().method(method).uri(uri).body(()).unwrap();
        Call::of(&request).map_or_else(|| "nothing".to_owned(), |call| call.to_string())
    }

    #[test]
    fn requests_are_read_as_rbac_reads_them() {
        let cases = [
            ("GET", "/api/v1/namespaces?limit=500", "list namespaces"),
            ("GET", "/api/v1/namespaces/a", "get namespaces a"),
            ("PATCH", "/api/v1/namespaces/a/status", "patch namespaces/status a"),
            ("GET", "/api/v1/namespaces/a/secrets?watch=true&resourceVersion=0", "watch secrets in a"),
            ("GET", "/api/v1/namespaces/a/secrets/b", "get secrets in a b"),
            ("POST", "/api/v1/namespaces/a/secrets?", "create secrets in a"),
            ("GET", "/apis/saatkond.io/v1alpha1/members", "list members.saatkond.io"),
            ("GET", "/apis/saatkond.io/v1alpha1/trustanchors/ee", "get trustanchors.saatkond.io ee"),
            (
                "PATCH",
                "/apis/saatkond.io/v1alpha1/trustanchors/ee/status?fieldManager=m",
                "patch trustanchors/status.saatkond.io ee",
            ),
            (
                "PATCH",
                "/apis/saatkond.io/v1alpha1/namespaces/n/members/m/status?x",
                "patch members/status.saatkond.io in n m",
            ),
            ("DELETE", "/apis/apps/v1/namespaces/n/deployments/d", "delete deployments.apps in n d"),
            ("DELETE", "/apis/apps/v1/namespaces/n/deployments", "deletecollection deployments.apps in n"),
            ("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l", "update leases.coordination.k8s.io in n l"),
            ("GET", "/version", "nothing"),
            ("GET", "/apis", "nothing"),
        ];
        for (method, uri, expected) in cases {
            assert_eq!(call(method, uri), expected, "{method} {uri}");
        }
    }

    #[test]
    fn a_closed_fence_lets_reads_and_the_lease_pass_alone() {
        let fence = Fence::new(Arc::new(crate::clock::SystemClock::new()));
        let of =
            |method: &str, uri: &str| Call::of(&Request::builder().method(method).uri(uri).body(()).unwrap()).unwrap();
        let write = of("PATCH", "/api/v1/namespaces/a/configmaps/c");
        let read = of("GET", "/api/v1/namespaces/a/configmaps/c");
        let lease = of("PUT", "/apis/coordination.k8s.io/v1/namespaces/n/leases/l");
        assert!(!fence.passes(&write) && fence.passes(&read) && fence.passes(&lease));
        fence.open_until(Duration::from_hours(1));
        assert!(fence.passes(&write));
        fence.close();
        assert!(!fence.passes(&write));
    }

    #[test]
    fn the_manager_of_a_write_is_unescaped() {
        let uri = "/api/v1/namespaces/a/configmaps/c?force=true&fieldManager=saatkond.io%2Fmember";
        let request = Request::builder().method("PATCH").uri(uri).body(()).unwrap();
        let call = Call::of(&request).unwrap();
        assert_eq!(call.manager.as_deref(), Some("saatkond.io/member"));
        assert!(call.is_write());
    }
}
