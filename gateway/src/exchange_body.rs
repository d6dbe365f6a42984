//! The body of a message between gateways: a few frames at hand, or frames that are still being made.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use tokio::sync::{mpsc, oneshot};

/// Frames to be sent.
#[derive(Debug)]
pub enum ExchangeBody {
    /// All of them.
    Whole(VecDeque<Bytes>),
    /// As they come. An error resets the stream: the receiver cannot take what it has for a message.
    Stream {
        /// The frames.
        frames: mpsc::Receiver<Result<Bytes, io::Error>>,
        /// Told when the first frame is asked for: until then nothing can have been sent.
        started: Option<oneshot::Sender<()>>,
    },
}

impl ExchangeBody {
    /// Nothing.
    #[must_use]
    pub fn empty() -> Self {
        Self::Whole(VecDeque::new())
    }

    /// One piece.
    #[must_use]
    pub fn one(bytes: Bytes) -> Self {
        Self::Whole(VecDeque::from([bytes]))
    }
}

impl Body for ExchangeBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        match &mut *self {
            Self::Whole(pieces) => Poll::Ready(pieces.pop_front().map(|piece| Ok(Frame::data(piece)))),
            Self::Stream { frames, started } => {
                if let Some(started) = started.take() {
                    // Nobody has to want to know.
                    let _ = started.send(());
                }
                frames.poll_recv(cx).map(|piece| piece.map(|piece| piece.map(Frame::data)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        matches!(self, Self::Whole(pieces) if pieces.is_empty())
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Whole(pieces) => SizeHint::with_exact(pieces.iter().map(|piece| piece.len() as u64).sum()),
            Self::Stream { .. } => SizeHint::default(),
        }
    }
}
