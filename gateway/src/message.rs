//! Messages between gateways as both sides handle them: read event by event, digested on the way, signed and verified.

use std::time::Duration;

use aws_lc_rs::digest;
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use jiff::Timestamp;
use saatkond_pki::digest::sha512;
use saatkond_pki::evidence::{self, BodyDigest, EvidenceError, MessageDigests};
use saatkond_wire::identifier::{ClientId, ServerId};
use saatkond_wire::leaf_name::LeafName;
use tokio::time::timeout;

use crate::error::Cause;
use crate::frames::{EnvelopeError, Event, Reader};
use crate::state::chain;
use crate::state::in_force::InForce;

/// Reads a message from an HTTP body.
pub struct MessageReader {
    body: Incoming,
    reader: Reader,
    silence: Option<Duration>,
}

/// Why a message cannot be read to its end.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// It is not one.
    #[error(transparent)]
    Envelope(#[from] EnvelopeError),
    /// The connection broke.
    #[error("the message broke off: {0}")]
    Broken(String),
    /// Nothing came for too long.
    #[error("the message stopped coming")]
    Silent,
}

impl MessageReader {
    /// For a body; without a bound on silence when the peer may have to wait for somebody else.
    #[must_use]
    pub fn new(body: Incoming, silence: Option<Duration>) -> Self {
        Self { body, reader: Reader::default(), silence }
    }

    /// The next event. After the message's end, and only there, an error says that none is left.
    pub async fn next(&mut self) -> Result<Event, ReadError> {
        loop {
            if let Some(event) = self.reader.next_event()? {
                return Ok(event);
            }
            if !self.more().await? {
                self.reader.finish()?;
                return Err(EnvelopeError::Order.into());
            }
        }
    }

    /// Waits for the end of the body after the signature. Anything that follows it voids the message.
    pub async fn end(&mut self) -> Result<(), ReadError> {
        loop {
            self.reader.next_event()?;
            if !self.more().await? {
                return Ok(());
            }
        }
    }

    /// Reads on; `false` at the end of the body.
    async fn more(&mut self) -> Result<bool, ReadError> {
        let frame = match self.silence {
            Some(silence) => timeout(silence, self.body.frame()).await.map_err(|_| ReadError::Silent)?,
            None => self.body.frame().await,
        };
        match frame {
            None => Ok(false),
            Some(Err(error)) => Err(ReadError::Broken(chain(&error))),
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.reader.push(data);
                }
                Ok(true)
            }
        }
    }
}

/// Digests a body as it passes, to so many bytes.
pub struct Digesting<const N: usize> {
    context: digest::Context,
    length: u64,
}

/// For the body of a request.
pub type DigestingRequest = Digesting<64>;
/// For the body of an answer.
pub type DigestingAnswer = Digesting<32>;

impl Default for DigestingRequest {
    fn default() -> Self {
        Self { context: digest::Context::new(&digest::SHA512), length: 0 }
    }
}

impl Default for DigestingAnswer {
    fn default() -> Self {
        Self { context: digest::Context::new(&digest::SHA256), length: 0 }
    }
}

impl<const N: usize> Digesting<N> {
    /// Takes a piece.
    pub fn update(&mut self, piece: &[u8]) {
        self.context.update(piece);
        self.length += piece.len() as u64;
    }

    /// How much passed.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.length
    }

    /// The digest; `None` when not a single byte passed, since there is no body part then.
    #[must_use]
    pub fn finish(self) -> Option<[u8; N]> {
        (self.length > 0).then(|| {
            let mut out = [0; N];
            out.copy_from_slice(self.context.finish().as_ref());
            out
        })
    }
}

/// The digests of a message.
#[must_use]
pub fn digests(rest: &[u8], body: Option<impl Into<BodyDigest>>) -> MessageDigests {
    MessageDigests { rest_part: sha512(rest), body: body.map(Into::into) }
}

/// Why a signature is not accepted.
#[derive(Debug)]
pub struct Refused {
    /// For the caller.
    pub cause: Cause,
    /// In words.
    pub why: String,
}

/// Checks that a message is signed in the name of `client`'s member, on `server`, which is the one at the other end.
pub fn verify(
    in_force: &InForce,
    signature: &[u8],
    digests: &MessageDigests,
    client: &ClientId,
    server: &ServerId,
    now: Timestamp,
) -> Result<(), Refused> {
    let refuse = |cause, why: String| Refused { cause, why };
    let checked = evidence::verify_signature_remembering(signature, digests, &in_force.batches);
    let checked = checked.map_err(|error| {
        let cause = match error {
            EvidenceError::OtherContent | EvidenceError::Signature { .. } => Cause::InvalidSignatureValue,
            EvidenceError::Certificate(_) => Cause::IncorrectCertificate,
            _ => Cause::MalformedSignature,
        };
        refuse(cause, chain(&error))
    })?;
    let leaf = in_force.signing_leaf(checked.leaf_der, client, now).map_err(|problem| {
        let cause = if problem.is_of_certificate() { Cause::CertValidation } else { Cause::IncorrectCertificate };
        refuse(cause, problem.to_string())
    })?;
    checked.check_time(&leaf.facts).map_err(|error| refuse(Cause::CertValidation, chain(&error)))?;
    match &leaf.name {
        LeafName::Signing { server: holder, .. } if holder == server => Ok(()),
        _ => Err(refuse(Cause::IncorrectCertificate, "the signing key is of another security server".into())),
    }
}
