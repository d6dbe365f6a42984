//! The operator's own port: whether it lives, whether it is ready and what it still waits for, and its metrics.

use std::collections::BTreeMap;
use std::future::Future;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::metrics::Metrics;

/// What must be true before this process is ready, and why it is not yet.
#[derive(Debug, Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<String, String>>>);

impl Readiness {
    /// `what` is not ready, because of `why`.
    pub fn pending(&self, what: &str, why: impl Into<String>) {
        self.lock().insert(what.to_owned(), why.into());
    }

    /// `what` is ready.
    pub fn done(&self, what: &str) {
        self.lock().remove(what);
    }

    /// What is pending: empty when ready.
    #[must_use]
    pub fn list(&self) -> BTreeMap<String, String> {
        self.lock().clone()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<String, String>> {
        // The map is whole after any panic: each change is one call.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[derive(Clone)]
struct Shown {
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

/// Serves `/livez`, `/readyz` and `/metrics` until `stop`.
pub async fn serve(
    address: SocketAddr,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    stop: impl Future<Output = ()> + Send + 'static,
) -> std::io::Result<()> {
    let listener = TcpListener::bind(address).await?;
    axum::serve(listener, router(readiness, metrics)).with_graceful_shutdown(stop).await
}

fn router(readiness: Readiness, metrics: Arc<Metrics>) -> Router {
    Router::new()
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics_text))
        .with_state(Shown { readiness, metrics })
}

async fn ready(State(shown): State<Shown>) -> Response {
    let pending = shown.readiness.list();
    if pending.is_empty() {
        return "ready\n".into_response();
    }
    let lines: Vec<_> = pending.iter().map(|(what, why)| format!("{what}: {why}\n")).collect();
    (StatusCode::SERVICE_UNAVAILABLE, lines.concat()).into_response()
}

async fn metrics_text(State(shown): State<Shown>) -> Response {
    match shown.metrics.text() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use http::Request;
    use http_body_util::BodyExt as _;
    use tower::ServiceExt as _;

    async fn ask(router: Router, path: &str) -> (StatusCode, String) {
        let answer = router.oneshot(Request::get(path).body(Body::empty()).unwrap()).await.unwrap();
        let status = answer.status();
        let bytes = answer.into_body().collect().await.unwrap().to_bytes();
        (status, String::from_utf8(bytes.to_vec()).unwrap())
    }

    #[tokio::test]
    async fn readiness_names_what_is_pending() {
        let readiness = Readiness::default();
        readiness.pending("members", "the CustomResourceDefinition is missing");
        let router = router(readiness.clone(), Arc::new(Metrics::new()));
        let (status, text) = ask(router.clone(), "/readyz").await;
        assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
        assert_eq!(text, "members: the CustomResourceDefinition is missing\n");
        assert_eq!(ask(router.clone(), "/livez").await.0, StatusCode::OK, "pending is not dead");
        readiness.done("members");
        assert_eq!(ask(router.clone(), "/readyz").await, (StatusCode::OK, "ready\n".to_owned()));
        assert!(ask(router, "/metrics").await.1.contains("saatkond_leading"));
    }
}
