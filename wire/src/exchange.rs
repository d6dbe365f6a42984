//! The envelope between two gateways: one HTTP/2 request and response on port 5500, each a sequence of frames.
//!
//! A frame is one byte of kind, four bytes of length (big endian) and the content. The order is fixed:
//! REST part, any number of body frames, signature; or one error frame, at any point, as the last one. The signature
//! comes last because it covers the digest of a body that is passed on while it is read.
//!
//! Frames rather than multipart: nothing in the content has to be searched for a boundary, and a reader knows each
//! length, and so each bound, before it takes a byte.

use serde::{Deserialize, Serialize};

/// The path of an exchange.
pub const EXCHANGE_PATH: &str = "/saatkond/v1/exchange";
/// The path under which a gateway offers the instance configuration that it runs on.
pub const INSTANCE_CONFIGURATION_PATH: &str = "/saatkond/v1/instance-configuration";
/// The media type of requests and responses.
pub const CONTENT_TYPE: &str = "application/vnd.saatkond.exchange.v1";
/// The port that gateways listen on for each other.
pub const SERVER_PORT: u16 = 5500;

/// The longest REST part, in bytes: request line and headers, or status line and headers.
pub const MAX_REST_PART: usize = 64 << 10;
/// The longest body frame, in bytes.
pub const MAX_BODY_FRAME: usize = 256 << 10;
/// The longest signature, in bytes.
pub const MAX_SIGNATURE: usize = 16 << 10;
/// The longest error, in bytes.
pub const MAX_ERROR: usize = 16 << 10;
/// The length of a frame's head.
pub const HEAD: usize = 5;

/// What a frame holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    /// The REST part: the bytes that are signed and logged as `message.xml` (gateway.md 4).
    Rest = 1,
    /// A piece of the body.
    Body = 2,
    /// A detached CMS signature over REST part and body.
    Signature = 3,
    /// A [`Fault`] in JSON: the exchange failed, nothing that came before may be used.
    Error = 4,
}

impl Kind {
    /// The longest content of a frame of this kind.
    #[must_use]
    pub fn max_length(self) -> usize {
        match self {
            Self::Rest => MAX_REST_PART,
            Self::Body => MAX_BODY_FRAME,
            Self::Signature => MAX_SIGNATURE,
            Self::Error => MAX_ERROR,
        }
    }

    fn from_byte(byte: u8) -> Option<Self> {
        [Self::Rest, Self::Body, Self::Signature, Self::Error].into_iter().find(|kind| *kind as u8 == byte)
    }
}

/// An error of a security server as X-Road words it: it travels unchanged from the server that made it to the caller.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fault {
    /// A dotted code, for example `server.serverproxy.access_denied`.
    #[serde(rename = "type")]
    pub kind: String,
    /// A text for people.
    pub message: String,
    /// A UUID under which the server that made it has logged it.
    pub detail: String,
}

/// The bytes are not a frame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    /// No such kind.
    #[error("a frame of unknown kind {0}")]
    Kind(u8),
    /// Longer than its kind may be.
    #[error("a {kind:?} frame of {length} bytes, at most {} are accepted", kind.max_length())]
    TooLong {
        /// The kind.
        kind: Kind,
        /// The announced length.
        length: usize,
    },
}

/// The head of a frame with `length` bytes of content. A length beyond `u32` is saturated: every reader refuses it.
#[must_use]
pub fn head(kind: Kind, length: usize) -> [u8; HEAD] {
    let length = u32::try_from(length).unwrap_or(u32::MAX).to_be_bytes();
    [kind as u8, length[0], length[1], length[2], length[3]]
}

/// Reads the head of a frame and checks its length against its kind before any content is taken.
pub fn parse_head(head: [u8; HEAD]) -> Result<(Kind, usize), FrameError> {
    let kind = Kind::from_byte(head[0]).ok_or(FrameError::Kind(head[0]))?;
    let length = u32::from_be_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > kind.max_length() { Err(FrameError::TooLong { kind, length }) } else { Ok((kind, length)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn heads_and_their_bounds() {
        for kind in [Kind::Rest, Kind::Body, Kind::Signature, Kind::Error] {
            let longest = kind.max_length();
            assert_eq!(parse_head(head(kind, longest)), Ok((kind, longest)));
            assert_eq!(parse_head(head(kind, longest + 1)), Err(FrameError::TooLong { kind, length: longest + 1 }));
        }
        assert_eq!(parse_head([0; HEAD]), Err(FrameError::Kind(0)));
        assert_eq!(parse_head([5, 0, 0, 0, 0]), Err(FrameError::Kind(5)));
    }
}
