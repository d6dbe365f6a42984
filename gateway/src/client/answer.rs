//! The answer on its way to the caller. Up to 1 MiB nothing of it is shown before its signature is verified; of a longer one the end
//! is held back, and without a good signature the caller sees a broken message, never a complete one.

use std::sync::Arc;
use std::time::Instant;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use saatkond_wire::identifier::{ClientId, ServerId, ServiceId};
use tracing::warn;

use crate::context::Context;
use crate::error::{Cause, Failure, Side};
use crate::frames::{EnvelopeError, Event};
use crate::http1::serve::{Aborted, Answer, AnswerBody};
use crate::memory::Hold;
use crate::message::{self, DigestingAnswer, MessageReader, ReadError};
use crate::pieces::Pieces;
use crate::request::headers::{self, names};
use crate::request::rest_part::AnswerPart;
use crate::state::in_force::InForce;

/// Up to here an answer is held until it is verified.
const HELD: usize = 1 << 20;
/// How much of the end of a longer one is held back.
const HELD_BACK: usize = 64 << 10;

/// What the answer must say to belong to the request.
pub struct Expected {
    /// Whether the request was a HEAD.
    pub is_head: bool,
    /// The message id.
    pub message_id: String,
    /// The request id.
    pub request_id: String,
    /// The called service.
    pub service: ServiceId,
    /// The caller.
    pub client: ClientId,
    /// The server that was asked.
    pub server: ServerId,
}

/// An answer being read.
struct Incoming {
    context: Arc<Context>,
    in_force: Arc<InForce>,
    reader: MessageReader,
    expected: Expected,
    rest: Bytes,
    digest: DigestingAnswer,
    started: Instant,
    pieces: Pieces,
    hold: Hold,
}

/// Takes the answer: whole and verified, or so that its end depends on the verification.
pub async fn take(
    context: Arc<Context>,
    in_force: Arc<InForce>,
    mut reader: MessageReader,
    expected: Expected,
    request_hash: String,
    started: Instant,
) -> Result<Answer, Failure> {
    let rest = match reader.next().await.map_err(|error| unreadable(&error))? {
        Event::Rest(rest) => rest,
        Event::Fault(fault) => return Err(Failure::Peer(fault)),
        _ => return Err(Failure::client(Cause::MissingRest, "the answer has no REST part")),
    };
    let part =
        AnswerPart::decode(&rest).map_err(|error| Failure::client(Cause::MimeParsingFailed, error.to_string()))?;
    if let Some(line) = headers::forbidden_on_the_way(&part.headers) {
        let why = format!("the answer holds the header {}", headers::latin1(&line.name));
        return Err(Failure::client(Cause::MimeParsingFailed, why));
    }
    consistent(&part, &expected, &request_hash)?;
    let status = StatusCode::from_u16(part.status)
        .map_err(|_| Failure::client(Cause::MimeParsingFailed, "the answer has no status"))?;
    // RFC 9110 6.4.1: to these there is no body, and none is written. One that came all the same would be taken off its evidence.
    let has_no_body = expected.is_head || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    let hold = context.held.hold();
    let mut incoming = Incoming {
        context,
        in_force,
        reader,
        expected,
        rest,
        digest: DigestingAnswer::default(),
        started,
        pieces: Pieces::default(),
        hold,
    };
    while let Some(piece) = incoming.next().await? {
        if has_no_body {
            return Err(Failure::client(Cause::MimeParsingFailed, "an answer that can have no body has one"));
        }
        let has_room = incoming.hold.grow(piece.len());
        incoming.pieces.push(piece);
        if incoming.pieces.length() > HELD || !has_room {
            return Ok(Answer { status, lines: part.headers, body: incoming.streamed() });
        }
    }
    incoming.context.metrics.ended(Side::Client, "ok", started.elapsed());
    let body = std::mem::take(&mut incoming.pieces).joined();
    Ok(Answer { status, lines: part.headers, body: AnswerBody::Whole(incoming.hold.keep(body)) })
}

/// Whether the answer belongs to the request (gateway.md 4): each of five statements, exactly once.
fn consistent(part: &AnswerPart, expected: &Expected, request_hash: &str) -> Result<(), Failure> {
    let (client, service) = (expected.client.to_string(), expected.service.to_string());
    for (name, value) in [
        ("x-road-client", client.as_str()),
        (names::SERVICE, service.as_str()),
        (names::REQUEST_ID, expected.request_id.as_str()),
        (names::REQUEST_HASH, request_hash),
        (names::ID, expected.message_id.as_str()),
    ] {
        let mut values = part.values(name);
        let is_same = values.next().is_some_and(|found| headers::latin1(found) == value) && values.next().is_none();
        if !is_same {
            let why = format!("the answer does not belong to the request: {name} differs");
            return Err(Failure::client(Cause::InconsistentResponse, why));
        }
    }
    Ok(())
}

fn unreadable(error: &ReadError) -> Failure {
    let cause = match error {
        ReadError::Envelope(EnvelopeError::NoRest) => Cause::MissingRest,
        ReadError::Envelope(EnvelopeError::NoSignature) => Cause::MissingSignature,
        ReadError::Envelope(_) => Cause::MimeParsingFailed,
        ReadError::Broken(_) | ReadError::Silent => Cause::IoError,
    };
    Failure::client(cause, error.to_string())
}

impl Incoming {
    /// The next piece of the body; `None` once the message is complete and proven.
    async fn next(&mut self) -> Result<Option<Bytes>, Failure> {
        match self.reader.next().await.map_err(|error| unreadable(&error))? {
            Event::Body(piece) => {
                self.digest.update(&piece);
                let max = self.in_force.limits().max_body_bytes;
                if max.is_some_and(|max| self.digest.length() > max) {
                    return Err(Failure::client(Cause::LoggingFailed, "the answer is longer than a message may be"));
                }
                Ok(Some(piece))
            }
            Event::Signature(signature) => {
                self.reader.end().await.map_err(|error| unreadable(&error))?;
                let digests = message::digests(&self.rest, std::mem::take(&mut self.digest).finish());
                let provider = &self.expected.service.client;
                let server = &self.expected.server;
                // Judged by what is in force when the signature is at hand.
                let current = self.context.state.current().unwrap_or_else(|| self.in_force.clone());
                message::verify(&current, &signature, &digests, provider, server, self.context.now())
                    .map_err(|refused| Failure::client(refused.cause, refused.why))?;
                Ok(None)
            }
            Event::Fault(fault) => Err(Failure::Peer(fault)),
            Event::Rest(_) => Err(Failure::client(Cause::MimeParsingFailed, "a second REST part")),
        }
    }

    /// The body as it comes.
    fn streamed(self) -> AnswerBody {
        AnswerBody::Stream(Box::pin(stream::unfold(Some(self), |incoming| async move {
            let mut incoming = incoming?;
            match incoming.stream().await {
                Ok((piece, is_last)) => Some((Ok(piece), (!is_last).then_some(incoming))),
                Err(failure) => {
                    let fault = incoming.context.fault(&failure, incoming.in_force.profile());
                    warn!(error_id = fault.detail, "an answer was broken off: its evidence did not come");
                    incoming.context.metrics.ended(Side::Client, failure.label(), incoming.started.elapsed());
                    Some((Err(Aborted), None))
                }
            }
        })))
    }

    /// What may be shown next, and whether it is the end. What is held back never falls below [`HELD_BACK`] before the signature
    /// is good.
    async fn stream(&mut self) -> Result<(Bytes, bool), Failure> {
        loop {
            if let Some(piece) = self.pieces.pop(self.pieces.length().saturating_sub(HELD_BACK)) {
                self.hold.shrink(piece.len());
                return Ok((piece, false));
            }
            let Some(piece) = self.next().await? else {
                self.context.metrics.ended(Side::Client, "ok", self.started.elapsed());
                return Ok((std::mem::take(&mut self.pieces).joined(), true));
            };
            self.pieces.push(piece);
        }
    }
}
