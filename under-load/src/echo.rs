//! The members' information systems: each says what it was asked, by whom, and gives the body back.

use std::convert::Infallible;
use std::net::SocketAddr;

use anyhow::Context as _;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response, StatusCode};
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;

/// What an information system of this member answers.
#[must_use]
pub fn expected(code: &str, method: &str, path: &str, client: &str, id: &str, body: &[u8]) -> Bytes {
    let mut answer = format!("{code} {method} {path} {client} {id}\n").into_bytes();
    answer.extend_from_slice(body);
    answer.into()
}

/// Listens, and answers until the runtime ends.
pub async fn serve(code: &'static str, address: SocketAddr) -> anyhow::Result<()> {
    let listener = TcpListener::bind(address).await.with_context(|| format!("failed to listen on {address}"))?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let _ = stream.set_nodelay(true);
            let service = service_fn(move |request| answer(code, request));
            tokio::spawn(async move {
                // A gateway that ends leaves its connections; the calls say themselves whether they failed.
                let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
            });
        }
    });
    Ok(())
}

async fn answer(code: &str, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let (head, body) = request.into_parts();
    let Ok(body) = body.collect().await else {
        let mut refused = Response::new(Full::new(Bytes::from_static(b"the body was cut off")));
        *refused.status_mut() = StatusCode::BAD_REQUEST;
        return Ok(refused);
    };
    let header = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let (client, id) = (header("x-road-client"), header("x-road-id"));
    let answer = expected(code, head.method.as_str(), head.uri.path(), client, id, &body.to_bytes());
    Ok(Response::new(Full::new(answer)))
}
