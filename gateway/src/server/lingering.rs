//! Closing a connection of HTTP/2 so that its last GOAWAY arrives.
//!
//! A peer may have sent a request on its way before it read the GOAWAY that tells it that this one is not taken. A socket that is closed
//! with such bytes unread is reset, the reset throws away what the peer has not read yet, and the peer can no longer know whether its
//! request was acted upon (the same for HTTP/1.1: RFC 9112 section 9.6). So the writing half is closed first, and what still comes is
//! read and thrown away until the peer closes too.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::{Sleep, sleep};

/// How long a peer has to close after this side has: it closes as soon as it has read the GOAWAY.
const LINGER: Duration = Duration::from_secs(2);

/// A stream that is closed so.
#[derive(Debug)]
pub struct Lingering<S> {
    stream: S,
    /// Present once the writing half is closed.
    until: Option<Pin<Box<Sleep>>>,
}

impl<S> Lingering<S> {
    /// Wraps it.
    #[must_use]
    pub fn new(stream: S) -> Self {
        Self { stream, until: None }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Lingering<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buffer)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Lingering<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, until } = self.get_mut();
        if until.is_none() {
            ready!(Pin::new(&mut *stream).poll_shutdown(cx))?;
        }
        let until = until.get_or_insert_with(|| Box::pin(sleep(LINGER)));
        let mut thrown_away = [0; 4 << 10];
        loop {
            // Asked at each turn: a peer that goes on sending gets no more time than one that is silent.
            if until.as_mut().poll(cx).is_ready() {
                return Poll::Ready(Ok(()));
            }
            let mut buffer = ReadBuf::new(&mut thrown_away);
            match ready!(Pin::new(&mut *stream).poll_read(cx, &mut buffer)) {
                Ok(()) if !buffer.filled().is_empty() => {}
                // Closed by the peer, in whatever way: nothing is lost any more.
                _ => return Poll::Ready(Ok(())),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::time::{Instant, timeout};

    use super::*;

    #[tokio::test]
    async fn what_still_comes_is_read_until_the_peer_closes() {
        let (own, mut peer) = duplex(16);
        let closing = tokio::spawn(async move { Lingering::new(own).shutdown().await });
        assert_eq!(peer.read(&mut [0; 1]).await.unwrap(), 0, "the writing half is closed at once");
        peer.write_all(&[0; 1000]).await.unwrap();
        assert!(!closing.is_finished());
        drop(peer);
        timeout(LINGER / 2, closing).await.expect("it goes on waiting").unwrap().unwrap();
    }

    #[tokio::test]
    async fn a_peer_that_does_not_close_is_waited_for_within_bounds() {
        let (own, mut silent) = duplex(16);
        let (chatted_with, mut chatty) = duplex(16);
        let chatting = tokio::spawn(async move { while chatty.write_all(&[0; 1000]).await.is_ok() {} });
        let started = Instant::now();
        let (mut own, mut other) = (Lingering::new(own), Lingering::new(chatted_with));
        let both = async { tokio::join!(own.shutdown(), other.shutdown()) };
        let (silence, chat) = timeout(2 * LINGER, both).await.expect("it goes on waiting");
        assert!(silence.is_ok() && chat.is_ok() && started.elapsed() >= LINGER);
        drop((own, other));
        chatting.await.unwrap();
        assert_eq!(silent.read(&mut [0; 1]).await.unwrap(), 0);
    }
}
