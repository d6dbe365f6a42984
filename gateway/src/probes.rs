//! The admin port: `/livez`, `/readyz`, `/metrics`.

use std::convert::Infallible;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::accept;
use crate::context::Context;

/// Why the process is not ready; `None` when it is.
#[must_use]
pub fn not_ready(context: &Context) -> Option<String> {
    let now = context.now();
    if context.is_draining.load(Ordering::Acquire) {
        return Some("Draining".into());
    }
    let Some(in_force) = context.state.current() else { return Some("No configuration is in force".into()) };
    if in_force.is_outdated(now) {
        return Some("Global configuration is expired".into());
    }
    if let Some(problem) = in_force.authentication_problem(now) {
        return Some(problem);
    }
    // The owner's alone: a guest's own calls say what is wrong with it, and must not take the others out of service.
    if in_force.identity.owners_signer().is_some_and(|signer| !signer.facts().is_valid_at(now)) {
        return Some("The owner's signing certificate is not valid now".into());
    }
    (!context.is_serving.load(Ordering::Acquire)).then(|| "The listeners are not open yet".into())
}

/// Serves until `closing`.
pub async fn listen(context: Arc<Context>, listener: TcpListener, closing: CancellationToken) {
    while let Some(stream) = accept::next(&listener, "admin", &closing).await {
        let (context, closing) = (context.clone(), closing.clone());
        tokio::spawn(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let context = context.clone();
                async move { Ok::<_, Infallible>(answer(&context, &request)) }
            });
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(Duration::from_secs(10)).max_buf_size(16 << 10);
            tokio::select! {
                _ = builder.serve_connection(TokioIo::new(stream), service) => {}
                () = closing.cancelled() => {}
            }
        });
    }
}

/// How many members served here cannot sign now.
fn not_valid(context: &Context) -> i64 {
    let (now, in_force) = (context.now(), context.state.current());
    let leaves = in_force.iter().flat_map(|in_force| in_force.identity.signing.values());
    leaves.map(|leaf| i64::from(!leaf.facts().is_valid_at(now))).sum()
}

fn answer(context: &Context, request: &Request<Incoming>) -> Response<Full<Bytes>> {
    let is_read = matches!(*request.method(), Method::GET | Method::HEAD);
    let (status, kind, text) = match request.uri().path() {
        _ if !is_read => (StatusCode::METHOD_NOT_ALLOWED, "text/plain", String::new()),
        "/livez" => (StatusCode::OK, "text/plain", "ok\n".into()),
        "/readyz" => match not_ready(context) {
            None => (StatusCode::OK, "text/plain", "ok\n".into()),
            Some(why) => (StatusCode::SERVICE_UNAVAILABLE, "text/plain", format!("{why}\n")),
        },
        "/metrics" => {
            context.metrics.signing_leaves_not_valid.set(not_valid(context));
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            (StatusCode::OK, kind, context.metrics.text())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", String::new()),
    };
    let mut response = Response::new(Full::new(text.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(kind));
    response
}
