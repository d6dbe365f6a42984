//! The envelope between gateways, read and written without a socket: bytes in, events out (see [`saatkond_wire::exchange`]).

use std::collections::VecDeque;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use saatkond_wire::exchange::{Fault, FrameError, HEAD, Kind, MAX_BODY_FRAME, head, parse_head};

/// What a message consists of, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// The REST part; always first.
    Rest(Bytes),
    /// A piece of the body, never empty; pieces are not frames.
    Body(Bytes),
    /// The signature; the message is complete.
    Signature(Bytes),
    /// The sender failed; the message is void.
    Fault(Fault),
}

/// Why bytes are not a message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvelopeError {
    /// A frame head that cannot be.
    #[error("malformed frame: {0}")]
    Frame(#[from] FrameError),
    /// Something else came before the REST part, or nothing at all.
    #[error("the message has no REST part")]
    NoRest,
    /// The message ended before its signature.
    #[error("the message has no signature")]
    NoSignature,
    /// The message ended within a frame.
    #[error("the message ended within a frame")]
    Truncated,
    /// A second REST part, or anything after the end.
    #[error("a frame where none may be")]
    Order,
    /// The error frame is not a fault in JSON.
    #[error("the error frame is not a fault")]
    Fault,
}

/// Reads one message.
#[derive(Debug, Default)]
pub struct Reader {
    input: VecDeque<Bytes>,
    frame: Option<(Kind, usize)>,
    partial: BytesMut,
    has_rest: bool,
    is_over: bool,
}

impl Reader {
    /// Hands over bytes as they arrived.
    pub fn push(&mut self, bytes: Bytes) {
        if !bytes.is_empty() {
            self.input.push_back(bytes);
        }
    }

    /// The next event; `None` until more bytes are pushed.
    pub fn next_event(&mut self) -> Result<Option<Event>, EnvelopeError> {
        loop {
            if self.is_over {
                return if self.input.is_empty() { Ok(None) } else { Err(EnvelopeError::Order) };
            }
            let Some((kind, left)) = self.frame else {
                if !self.gather(HEAD) {
                    return Ok(None);
                }
                let mut bytes = [0; HEAD];
                self.partial.split_to(HEAD).copy_to_slice(&mut bytes);
                let (kind, length) = parse_head(bytes)?;
                match (kind, self.has_rest) {
                    (Kind::Rest, true) => return Err(EnvelopeError::Order),
                    (Kind::Body | Kind::Signature, false) => return Err(EnvelopeError::NoRest),
                    _ => {}
                }
                self.frame = Some((kind, length));
                continue;
            };
            if kind == Kind::Body {
                // Passed on in the pieces in which it comes: nothing is copied, nothing collected.
                if left == 0 {
                    self.frame = None;
                    continue;
                }
                let Some(first) = self.input.front_mut() else { return Ok(None) };
                let piece = first.split_to(left.min(first.len()));
                if first.is_empty() {
                    self.input.pop_front();
                }
                self.frame = (left > piece.len()).then(|| (kind, left - piece.len()));
                return Ok(Some(Event::Body(piece)));
            }
            if !self.gather(left) {
                return Ok(None);
            }
            let content = self.partial.split_to(left).freeze();
            self.frame = None;
            return Ok(Some(match kind {
                Kind::Rest | Kind::Body => {
                    self.has_rest = true;
                    Event::Rest(content)
                }
                Kind::Signature => {
                    self.is_over = true;
                    Event::Signature(content)
                }
                Kind::Error => {
                    self.is_over = true;
                    Event::Fault(serde_json::from_slice(&content).map_err(|_| EnvelopeError::Fault)?)
                }
            }));
        }
    }

    /// Says that no bytes will follow.
    pub fn finish(&self) -> Result<(), EnvelopeError> {
        match (self.is_over, self.has_rest) {
            (true, _) => Ok(()),
            _ if self.frame.is_some() || !self.partial.is_empty() => Err(EnvelopeError::Truncated),
            (false, true) => Err(EnvelopeError::NoSignature),
            (false, false) => Err(EnvelopeError::NoRest),
        }
    }

    /// Moves input until `count` bytes are at hand in one piece. Bounded: no frame but a body's is longer than its kind allows.
    fn gather(&mut self, count: usize) -> bool {
        while self.partial.len() < count {
            let Some(first) = self.input.front_mut() else { return false };
            let piece = first.split_to((count - self.partial.len()).min(first.len()));
            self.partial.extend_from_slice(&piece);
            if first.is_empty() {
                self.input.pop_front();
            }
        }
        true
    }
}

/// One frame in one piece.
#[must_use]
pub fn frame(kind: Kind, content: &[u8]) -> Bytes {
    let mut out = BytesMut::with_capacity(HEAD + content.len());
    out.put_slice(&head(kind, content.len()));
    out.put_slice(content);
    out.freeze()
}

/// The frames of a piece of a body, without copying it: heads and contents alternate.
pub fn body_frames(mut piece: Bytes) -> impl Iterator<Item = Bytes> {
    let mut waiting = None;
    std::iter::from_fn(move || {
        if let Some(content) = waiting.take() {
            return Some(content);
        }
        if piece.is_empty() {
            return None;
        }
        let content = piece.split_to(piece.len().min(MAX_BODY_FRAME));
        let head = Bytes::copy_from_slice(&head(Kind::Body, content.len()));
        waiting = Some(content);
        Some(head)
    })
}

/// An error frame. A text that is too long for one is cut.
#[must_use]
pub fn fault_frame(fault: &Fault) -> Bytes {
    let cut = |text: &str| text.chars().take(1000).collect::<String>();
    let fault = Fault { kind: cut(&fault.kind), message: cut(&fault.message), detail: cut(&fault.detail) };
    // Strings alone: serialising them cannot fail.
    frame(Kind::Error, &serde_json::to_vec(&fault).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// REST part, body, signature.
    type Parts = (Option<Bytes>, Vec<u8>, Option<Bytes>);

    fn read(bytes: &[u8], step: usize) -> Result<Parts, EnvelopeError> {
        let (mut reader, mut rest, mut body, mut signature) = (Reader::default(), None, Vec::new(), None);
        for piece in bytes.chunks(step.max(1)) {
            reader.push(Bytes::copy_from_slice(piece));
            while let Some(event) = reader.next_event()? {
                match event {
                    Event::Rest(bytes) => rest = Some(bytes),
                    Event::Body(bytes) => {
                        assert!(!bytes.is_empty());
                        body.extend_from_slice(&bytes);
                    }
                    Event::Signature(bytes) => signature = Some(bytes),
                    Event::Fault(_) => {}
                }
            }
        }
        reader.finish().map(|()| (rest, body, signature))
    }

    fn message(body: &[u8]) -> Vec<u8> {
        let mut out = frame(Kind::Rest, b"M").to_vec();
        body_frames(Bytes::copy_from_slice(body)).for_each(|part| out.extend_from_slice(&part));
        out.extend_from_slice(&frame(Kind::Signature, b"S"));
        out
    }

    #[test]
    fn any_cut_gives_the_same_message() {
        let bytes = message(b"hello");
        for step in 1..=bytes.len() {
            assert_eq!(read(&bytes, step).unwrap(), (Some("M".into()), b"hello".to_vec(), Some("S".into())), "{step}");
        }
    }

    #[test]
    fn a_long_body_is_framed_within_bounds() {
        let body: Vec<u8> = (0..=255).cycle().take(MAX_BODY_FRAME * 2 + 7).collect();
        assert_eq!(read(&message(&body), 10_000).unwrap().1, body);
    }

    #[test]
    fn what_is_no_message() {
        let whole = message(b"hello");
        let rest = frame(Kind::Rest, b"M").to_vec();
        for (bytes, error) in [
            (vec![], EnvelopeError::NoRest),
            (rest.clone(), EnvelopeError::NoSignature),
            (frame(Kind::Signature, b"S").to_vec(), EnvelopeError::NoRest),
            (frame(Kind::Body, b"B").to_vec(), EnvelopeError::NoRest),
            ([rest.clone(), rest.clone()].concat(), EnvelopeError::Order),
            ([whole.clone(), vec![1]].concat(), EnvelopeError::Order),
            (whole[..whole.len() - 1].to_vec(), EnvelopeError::Truncated),
            (whole[..3].to_vec(), EnvelopeError::Truncated),
            (whole[..13].to_vec(), EnvelopeError::Truncated),
            (vec![9, 0, 0, 0, 0], EnvelopeError::Frame(FrameError::Kind(9))),
            (frame(Kind::Error, b"no json").to_vec(), EnvelopeError::Fault),
        ] {
            assert_eq!(read(&bytes, 4096).unwrap_err(), error, "{bytes:?}");
        }
        assert!(matches!(read(&[1, 0xff, 0, 0, 0], 9), Err(EnvelopeError::Frame(FrameError::TooLong { .. }))));
    }

    #[test]
    fn a_fault_survives_and_is_bounded() {
        let fault = Fault { kind: "server.x".into(), message: "ä".repeat(90_000), detail: "d".into() };
        let mut reader = Reader::default();
        reader.push(fault_frame(&fault));
        let Ok(Some(Event::Fault(read))) = reader.next_event() else { panic!("no fault") };
        assert_eq!((read.kind, read.message.chars().count()), (fault.kind, 1000));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..50) {
            let _ = read(&bytes, step);
            let _ = read(&[&frame(Kind::Rest, b"M")[..], &bytes].concat(), step);
        }
    }
}
