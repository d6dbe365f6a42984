//! Connections to information systems, with the difference that X-Road makes between a name that does not resolve and a host that
//! does not answer.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use http::Uri;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::client::legacy::connect::{Connected, Connection};
use hyper_util::rt::TokioIo;
use tokio::net::{TcpStream, lookup_host};
use tokio::time::timeout;

const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Connects to the host of a URI, in the clear.
#[derive(Debug, Clone)]
pub struct Connector;

/// Why an information system cannot be connected to.
#[derive(Debug, thiserror::Error)]
pub enum ConnectFailure {
    /// Its name does not resolve.
    #[error("the host name does not resolve")]
    UnknownHost(#[source] io::Error),
    /// It does not answer.
    #[error("the host cannot be connected to")]
    Network(#[source] io::Error),
}

/// A connection.
#[derive(Debug)]
pub struct Plain(TokioIo<TcpStream>);

impl tower::Service<Uri> for Connector {
    type Response = Plain;
    type Error = ConnectFailure;
    type Future = Pin<Box<dyn Future<Output = Result<Plain, ConnectFailure>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), ConnectFailure>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(async move {
            let host = uri.host().unwrap_or_default().trim_matches(['[', ']']).to_owned();
            let port = uri.port_u16().unwrap_or(80);
            match timeout(CONNECT_TIMEOUT, connect(&host, port)).await {
                Ok(result) => result,
                Err(_) => Err(ConnectFailure::Network(io::ErrorKind::TimedOut.into())),
            }
        })
    }
}

async fn connect(host: &str, port: u16) -> Result<Plain, ConnectFailure> {
    let addresses: Vec<_> = lookup_host((host, port)).await.map_err(ConnectFailure::UnknownHost)?.collect();
    if addresses.is_empty() {
        return Err(ConnectFailure::UnknownHost(io::ErrorKind::NotFound.into()));
    }
    let stream = TcpStream::connect(&addresses[..]).await.map_err(ConnectFailure::Network)?;
    stream.set_nodelay(true).map_err(ConnectFailure::Network)?;
    Ok(Plain(TokioIo::new(stream)))
}

impl Connection for Plain {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl Read for Plain {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(cx, buf)
    }
}

impl Write for Plain {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.0.is_write_vectored()
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }
}
