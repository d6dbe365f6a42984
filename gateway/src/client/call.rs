//! The consumer's side of an exchange, in X-Road's order (gateway.md 6): who asks, whom, over which server; then sign and send.

use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use bytes::Bytes;
use http::uri::PathAndQuery;
use http::{Method, Request, Response, StatusCode, Uri, header};
use hyper::body::Incoming;
use saatkond_pki::digest::sha512;
use saatkond_wire::configuration::ServerEntry;
use saatkond_wire::exchange::{CONTENT_TYPE, Kind, MAX_REST_PART};
use saatkond_wire::identifier::{ClientId, ServerId, ServiceId};
use tokio::sync::{mpsc, oneshot};
use tracing::{info, warn};
use uuid::Uuid;

use super::answer::{self, Expected};
use crate::context::Context;
use crate::error::{Cause, Failure};
use crate::exchange_body::ExchangeBody;
use crate::frames::{body_frames, fault_frame, frame};
use crate::http1::head::Head;
use crate::http1::serve::{Answer, RequestBody};
use crate::message::{self, DigestingRequest, MessageReader};
use crate::peer::candidates;
use crate::peer::pool::{self, ConnectError, Connection};
use crate::request::hash::{Digest, request_hash};
use crate::request::headers::{self, Line, RoadHeaders, names};
use crate::request::rest_part::{self, RequestPart};
use crate::request::target;
use crate::state::chain;
use crate::state::in_force::InForce;

/// The body of a caller's request as it comes.
type Pieces = mpsc::Receiver<Result<Bytes, io::Error>>;

/// A request that was understood.
struct Understood {
    part: RequestPart,
    client: Option<ClientId>,
    service: ServiceId,
    pinned: Option<ServerId>,
    message_id: Option<String>,
}

/// The server that will answer, and the connection to it.
struct Peer {
    id: ServerId,
    address: String,
    connection: Connection,
}

/// Why a request did not get an answer.
enum Unanswered {
    /// The peer never took it: somebody else may be asked.
    NeverTaken(Failure),
    /// Some of it was sent: nobody else may be.
    Failed(Failure),
}

/// How often a request that was never taken is sent, in all.
const ATTEMPTS: usize = 3;

/// Calls a service for an information system.
pub async fn call(context: &Arc<Context>, head: Head, body: RequestBody, started: Instant) -> Result<Answer, Failure> {
    let now = context.now();
    let Some(in_force) = context.state.current() else {
        return Err(Failure::client(Cause::GlobalConfOutdated, "no configuration is in force"));
    };
    if in_force.is_outdated(now) {
        let why = format!("the configuration expired at {}", in_force.expires_at());
        return Err(Failure::client(Cause::GlobalConfOutdated, why));
    }
    if let Some(problem) = in_force.authentication_problem(now) {
        return Err(Failure::client(Cause::SslAuthenticationFailed, problem));
    }
    let is_head = head.method == "HEAD";
    let understood = understand(&head)?;
    warn_of_characters(&understood.service);
    let client = understood
        .client
        .clone()
        .ok_or_else(|| Failure::client(Cause::InvalidClientIdentifier, "the header X-Road-Client is missing"))?;
    if in_force.own_client(&client).is_none() {
        return Err(Failure::client(Cause::UnknownMember, format!("Client '{client}' not found")));
    }
    let (request_id, mut part) = (Uuid::new_v4().to_string(), understood.part);
    part.headers.push(Line::new(names::REQUEST_ID, request_id.clone()));
    let message_id = understood.message_id.unwrap_or_else(|| {
        let id = format!("{}-{}", in_force.instance_code(), Uuid::new_v4());
        part.headers.push(Line::new(names::ID, id.clone()));
        id
    });
    let rest = part.encode();
    if rest.len() > MAX_REST_PART {
        return Err(Failure::client(Cause::BadRequest, "the headers are too long"));
    }
    let service = understood.service;
    let candidates = candidates(&in_force, &service.client, understood.pinned.as_ref())?;
    let peer = connect(context, &in_force, candidates, &service.client, None).await?;
    let expected = Expected { is_head, message_id, request_id, service, client, server: peer.id.clone() };
    let sending = Sending { context, in_force: &in_force, rest, expected, pinned: understood.pinned, started };
    sending.send(peer, body).await
}

/// Method, target and headers: every fault in them is the caller's.
fn understand(head: &Head) -> Result<Understood, Failure> {
    let bad = |why: String| Failure::client(Cause::BadRequest, why);
    let method = rest_part::method(&head.method).ok_or_else(|| bad("Unsupported HTTP method".into()))?;
    let target = target::parse(&head.path, head.query.as_deref()).map_err(|error| bad(error.to_string()))?;
    // What the provider's HTTP client could not send would fail there with less to say.
    if let Some(query) = &head.query {
        PathAndQuery::try_from(format!("/?{query}")).map_err(|_| bad("Invalid request URI: the query".into()))?;
    }
    let road = RoadHeaders::read(&head.lines).map_err(|error| bad(error.to_string()))?;
    let (path, query) = (head.path.clone(), head.query.clone());
    let part = RequestPart { method, path, query, headers: headers::of_request(&head.lines) };
    let RoadHeaders { client, id, security_server } = road;
    Ok(Understood { part, client, service: target.service, pinned: security_server, message_id: id })
}

fn warn_of_characters(service: &ServiceId) {
    let ServiceId { client, service: code } = service;
    let parts = [Some(code), client.subsystem.as_ref(), Some(&client.member.member_code)];
    if parts.into_iter().flatten().any(|part| target::has_discouraged_characters(part)) {
        warn!(%service, "an identifier holds characters that should not be used");
    }
}

/// The servers that may answer (gateway.md 12).
fn candidates<'a>(
    in_force: &'a InForce,
    provider: &ClientId,
    pinned: Option<&ServerId>,
) -> Result<Vec<(ServerId, &'a ServerEntry)>, Failure> {
    let instance = in_force.instance_code();
    let mut candidates: Vec<_> = in_force.providers(provider).map(|entry| (entry.id(instance), entry)).collect();
    if candidates.is_empty() {
        let why = format!("Could not find addresses for service provider '{provider}'");
        return Err(Failure::client(Cause::UnknownMember, why));
    }
    if let Some(pinned) = pinned {
        candidates.retain(|(id, _)| id == pinned);
        if candidates.is_empty() {
            let why = format!("Invalid security server identifier '{pinned}' for '{provider}'");
            return Err(Failure::client(Cause::InvalidSecurityServer, why));
        }
    }
    Ok(candidates)
}

/// A connection to the first candidate that is there and is who it should be. The one that has just turned the request away comes
/// last.
async fn connect(
    context: &Context,
    in_force: &InForce,
    candidates: Vec<(ServerId, &ServerEntry)>,
    provider: &ClientId,
    turned_away: Option<&ServerId>,
) -> Result<Peer, Failure> {
    let pool = &in_force.tls.pool;
    let ordered = candidates::order(candidates, pool.turn(), |(id, entry)| {
        turned_away != Some(id) && pool.is_healthy(&entry.address)
    });
    let mut last = Failure::client(Cause::NetworkError, "no candidate server");
    for (id, entry) in ordered {
        let connection = match pool.connection(&entry.address).await {
            Ok(connection) => connection,
            Err(error) => {
                let cause = match error {
                    ConnectError::Network { .. } => Cause::NetworkError,
                    ConnectError::Tls { .. } => Cause::SslAuthenticationFailed,
                };
                info!(server = %id, error = chain(&error), "a candidate server cannot be used");
                last = Failure::client(cause, error.to_string());
                continue;
            }
        };
        match in_force.peer(&connection.chain, provider, context.now()) {
            Ok(found) if found == id => return Ok(Peer { id, address: entry.address.clone(), connection }),
            Ok(found) => {
                context.metrics.peer_refused("another_server");
                last = Failure::client(
                    Cause::SslAuthenticationFailed,
                    format!("'{found}' answers in the place of '{id}'"),
                );
            }
            Err(problem) => {
                context.metrics.peer_refused(problem.label());
                last = Failure::client(Cause::SslAuthenticationFailed, problem.to_string());
            }
        }
        warn!(server = %id, message = ?last, "a candidate server is not who it should be");
    }
    Err(last)
}

/// A request on its way.
struct Sending<'a> {
    context: &'a Arc<Context>,
    in_force: &'a Arc<InForce>,
    rest: Bytes,
    expected: Expected,
    /// The server that the caller wants to answer, if it named one.
    pinned: Option<ServerId>,
    started: Instant,
}

impl Sending<'_> {
    async fn send(mut self, peer: Peer, body: RequestBody) -> Result<Answer, Failure> {
        let max = self.in_force.limits().max_body_bytes;
        let (response, digest) = match body {
            RequestBody::Whole(body) => {
                if max.is_some_and(|max| body.len() as u64 > max) {
                    return Err(too_long());
                }
                let digest = (!body.is_empty()).then(|| sha512(&body));
                let signature = self.sign(digest).await?;
                let mut joined = Vec::with_capacity(self.rest.len() + body.len() + signature.len() + 64);
                joined.extend_from_slice(&frame(Kind::Rest, &self.rest));
                body_frames(body).for_each(|piece| joined.extend_from_slice(&piece));
                joined.extend_from_slice(&signature);
                (self.whole(peer, joined.into()).await?, digest)
            }
            RequestBody::Stream(pieces) => self.stream(peer, pieces, max).await?,
        };
        let reader = judge_head(response)?;
        let hash = request_hash(&sha512(&self.rest), digest.as_ref());
        let Self { context, in_force, expected, started, .. } = self;
        answer::take(context.clone(), in_force.clone(), reader, expected, hash, started).await
    }

    /// Sends a message that is at hand.
    async fn whole(&mut self, mut peer: Peer, message: Bytes) -> Result<Response<Incoming>, Failure> {
        for _ in 1..ATTEMPTS {
            match self.request(&mut peer, ExchangeBody::one(message.clone())).await {
                Err(Unanswered::NeverTaken(failure)) => peer = self.another(peer, &failure).await?,
                result => return result.map_err(Unanswered::into_failure),
            }
        }
        self.request(&mut peer, ExchangeBody::one(message)).await.map_err(Unanswered::into_failure)
    }

    /// Passes a body on while it comes. As long as nothing of it was asked for, another connection may be tried.
    async fn stream(
        &mut self,
        mut peer: Peer,
        mut pieces: Pieces,
        max: Option<u64>,
    ) -> Result<(Response<Incoming>, Option<Digest>), Failure> {
        for _ in 1..ATTEMPTS {
            match self.pass_on(&mut peer, &mut pieces, max).await {
                Err(Unanswered::NeverTaken(failure)) => peer = self.another(peer, &failure).await?,
                result => return result.map_err(Unanswered::into_failure),
            }
        }
        self.pass_on(&mut peer, &mut pieces, max).await.map_err(Unanswered::into_failure)
    }

    async fn pass_on(
        &self,
        peer: &mut Peer,
        pieces: &mut Pieces,
        max: Option<u64>,
    ) -> Result<(Response<Incoming>, Option<Digest>), Unanswered> {
        let (sender, frames) = mpsc::channel(2);
        let (started, begun) = oneshot::channel();
        let is_begun = AtomicBool::new(false);
        let mut pumping = pin!(async {
            if begun.await.is_err() {
                return Ok(None);
            }
            is_begun.store(true, Ordering::Relaxed);
            self.pump(pieces, sender, max).await
        });
        let body = ExchangeBody::Stream { frames, started: Some(started) };
        let mut sending = pin!(self.request(peer, body));
        let mut pumped = None;
        let response = loop {
            tokio::select! {
                response = &mut sending => break response,
                result = &mut pumping, if pumped.is_none() => pumped = Some(result.map_err(Unanswered::Failed)?),
            }
        };
        match response {
            Ok(response) => Ok((response, pumped.flatten())),
            // What was read from the caller is gone: this request cannot be made again.
            Err(Unanswered::NeverTaken(failure)) if is_begun.load(Ordering::Relaxed) => {
                Err(Unanswered::Failed(failure))
            }
            Err(unanswered) => Err(unanswered),
        }
    }

    /// Frames the body, digesting it, and signs at its end.
    async fn pump(
        &self,
        pieces: &mut Pieces,
        sender: mpsc::Sender<Result<Bytes, io::Error>>,
        max: Option<u64>,
    ) -> Result<Option<Digest>, Failure> {
        let mut digest = DigestingRequest::default();
        let mut failure = None;
        let _ = sender.send(Ok(frame(Kind::Rest, &self.rest))).await;
        while let Some(piece) = pieces.recv().await {
            match piece {
                Ok(piece) => {
                    digest.update(&piece);
                    if max.is_some_and(|max| digest.length() > max) {
                        failure = Some(too_long());
                        break;
                    }
                    for bytes in body_frames(piece) {
                        if sender.send(Ok(bytes)).await.is_err() {
                            // The peer has answered before it had everything: only an error can have that effect.
                            return Ok(None);
                        }
                    }
                }
                Err(error) => {
                    failure = Some(Failure::client(Cause::IoError, format!("the caller broke off: {error}")));
                    break;
                }
            }
        }
        let digest = digest.finish();
        let signature = match failure {
            None => self.sign(digest).await,
            Some(failure) => Err(failure),
        };
        match signature {
            Ok(signature) => {
                let _ = sender.send(Ok(signature)).await;
                Ok(digest)
            }
            Err(failure) => {
                // Tells the peer in so many words; without a signature it would not have used anything anyway.
                let fault = failure.fault(self.in_force.profile(), Uuid::new_v4());
                let _ = sender.send(Ok(fault_frame(&fault))).await;
                Err(failure)
            }
        }
    }

    /// A connection to another of the provider's servers, unless the caller pinned one; else another to the same, behind whose address
    /// there may be several processes. From here on the answer must come from the new one.
    async fn another(&mut self, peer: Peer, failure: &Failure) -> Result<Peer, Failure> {
        info!(server = %peer.id, message = ?failure, "a request was not taken, trying again");
        self.context.metrics.peer_retries.inc();
        // What is in force may have changed meanwhile; what was signed for is the same.
        let provider = &self.expected.service.client;
        let again = candidates(self.in_force, provider, self.pinned.as_ref())?;
        let another = connect(self.context, self.in_force, again, provider, Some(&peer.id)).await?;
        self.expected.server = another.id.clone();
        Ok(another)
    }

    async fn sign(&self, digest: Option<Digest>) -> Result<Bytes, Failure> {
        let now = self.context.now();
        let member = &self.expected.client.member;
        // X-Road wraps whatever goes wrong while a message is being made into io_error.
        let fail = |why: String| Failure::client(Cause::IoError, format!("cannot_create_signature: {why}"));
        // The newest leaf: a long upload may have outlived the one that was in force when it began.
        let current = self.context.state.current().unwrap_or_else(|| self.in_force.clone());
        let signer = current.signer(member, now);
        let signer = signer.ok_or_else(|| fail(format!("no usable signing certificate of {member}")))?;
        let digests = message::digests(&self.rest, digest);
        let signature = self.context.signing.sign(digests, signer, now).await;
        signature.map(|signature| frame(Kind::Signature, &signature)).map_err(fail)
    }

    async fn request(&self, peer: &mut Peer, body: ExchangeBody) -> Result<Response<Incoming>, Unanswered> {
        let mut request = Request::new(body);
        *request.method_mut() = Method::POST;
        *request.uri_mut() = Uri::from_static("https://gateway.saatkond.internal/saatkond/v1/exchange");
        request.headers_mut().insert(header::CONTENT_TYPE, header::HeaderValue::from_static(CONTENT_TYPE));
        self.context.metrics.peer_request(peer.connection.is_resumed);
        let mut error = match peer.connection.sender.try_send_request(request).await {
            Ok(response) => return Ok(response),
            Err(error) => error,
        };
        let why = format!("the connection to the provider's server broke: {}", chain(error.error()));
        let failure = Failure::client(Cause::IoError, why);
        if error.take_message().is_some() || pool::was_never_taken(error.error()) {
            // A server that is full says so on a connection that is good: opening another would only make it busier.
            if !pool::was_refused(error.error()) {
                self.in_force.tls.pool.discard(&peer.address, &peer.connection).await;
            }
            Err(Unanswered::NeverTaken(failure))
        } else {
            Err(Unanswered::Failed(failure))
        }
    }
}

impl Unanswered {
    fn into_failure(self) -> Failure {
        match self {
            Self::NeverTaken(failure) | Self::Failed(failure) => failure,
        }
    }
}

fn judge_head(response: Response<Incoming>) -> Result<MessageReader, Failure> {
    if response.status() != StatusCode::OK {
        let why = format!("the provider's server answered with status {}", response.status().as_u16());
        return Err(Failure::client(Cause::HttpError, why));
    }
    if response.headers().get(header::CONTENT_TYPE).is_none_or(|value| value != CONTENT_TYPE) {
        return Err(Failure::client(Cause::InvalidContentType, "the provider's server answered another media type"));
    }
    // How long an information system may take is known at the other end alone; HTTP/2 pings find a dead peer.
    Ok(MessageReader::new(response.into_body(), None))
}

fn too_long() -> Failure {
    Failure::client(Cause::IoError, "logging_failed: the body is longer than a message may be")
}
