//! The provider's side of an exchange, in X-Road's order (gateway.md 6): who may ask, whether they may, whether they did, and only
//! then the information system.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, Request, Response, header};
use hyper::body::Incoming;
use rustls::pki_types::CertificateDer;
use saatkond_wire::configuration::ErrorProfile;
use saatkond_wire::exchange::{CONTENT_TYPE, Kind, MAX_REST_PART};
use saatkond_wire::identifier::{ClientId, ServerId, ServiceId};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use super::Place;
use crate::access::path::{PathError, ServicePath, url};
use crate::context::Context;
use crate::error::{Cause, Failure, Side};
use crate::exchange_body::ExchangeBody;
use crate::frames::{EnvelopeError, Event, body_frames, fault_frame, frame};
use crate::message::{self, DigestingAnswer, DigestingRequest, MessageReader, ReadError};
use crate::metrics::UnderWay;
use crate::pieces::Pieces;
use crate::provider::information_system::{Answered, Call};
use crate::request::hash::request_hash;
use crate::request::headers::{self, Line, RoadHeaders, names};
use crate::request::rest_part::{AnswerPart, RequestPart};
use crate::request::target;
use crate::spool::{Bounds, Rewound, SpoolError};
use crate::state::in_force::{InForce, OwnService};

/// Answers up to this length are sent as one while there is room; longer ones as they come.
const WHOLE: usize = 64 << 10;

/// Metadata services: answered by later versions (docs/xroad-compatibility.md).
const METADATA: &[&str] = &["listMethods", "allowedMethods", "getOpenAPI"];

/// Answers one exchange. It keeps its place until its answer has been sent.
pub async fn answer(
    context: &Arc<Context>,
    peer: &[CertificateDer<'static>],
    request: Request<Incoming>,
    place: Place,
) -> Response<ExchangeBody> {
    let started = Instant::now();
    let under_way = context.metrics.under_way(Side::Server);
    let in_force = context.state.current();
    let profile = in_force.as_ref().map_or(ErrorProfile::default(), |in_force| in_force.profile());
    let result = match in_force {
        Some(in_force) => provide(context, in_force, peer, request).await,
        None => Err(Failure::server(Cause::GlobalConfOutdated, "no configuration is in force")),
    };
    match result {
        Ok(answer) => {
            let done = Done { context: context.clone(), started, profile, _under_way: under_way, _place: place };
            message(answer, done).await
        }
        Err(failure) => {
            context.metrics.ended(Side::Server, failure.label(), started.elapsed());
            super::message(ExchangeBody::one(fault_frame(&context.fault(&failure, profile))))
        }
    }
}

/// What is left to do when an answer has been sent, or not.
struct Done {
    context: Arc<Context>,
    started: Instant,
    profile: ErrorProfile,
    _under_way: UnderWay,
    _place: Place,
}

/// The information system's answer, and what is said with it.
struct Reply {
    answered: Answered,
    rest: Bytes,
    in_force: Arc<InForce>,
    provider: ClientId,
}

/// A request that may be handed to the information system.
struct Asked {
    part: RequestPart,
    service: ServiceId,
    client: ClientId,
    request_id: Line,
    message_id: Line,
}

fn unexpired(in_force: &InForce, context: &Context) -> Result<(), Failure> {
    if in_force.is_outdated(context.now()) {
        let why = format!("the configuration expired at {}", in_force.expires_at());
        return Err(Failure::server(Cause::GlobalConfOutdated, why));
    }
    Ok(())
}

async fn provide(
    context: &Arc<Context>,
    in_force: Arc<InForce>,
    peer: &[CertificateDer<'static>],
    request: Request<Incoming>,
) -> Result<Reply, Failure> {
    if request.method() != Method::POST {
        return Err(Failure::server(Cause::InvalidHttpMethod, "an exchange is a POST"));
    }
    unexpired(&in_force, context)?;
    if request.headers().get(header::CONTENT_TYPE).is_none_or(|value| value != CONTENT_TYPE) {
        return Err(Failure::server(Cause::InvalidContentType, "the message is of another media type"));
    }
    let mut reader = MessageReader::new(request.into_body(), Some(context.peer_silence));
    // All of it within the bound of a silence: nothing is known of whoever sends it byte by byte, and it holds a place.
    let first = timeout(context.peer_silence, reader.next()).await.unwrap_or(Err(ReadError::Silent));
    let rest = match first.map_err(|error| unreadable(&error))? {
        Event::Rest(rest) => rest,
        Event::Fault(_) => return Err(Failure::server(Cause::ServiceFailedIoError, "the caller's server gave up")),
        _ => return Err(Failure::server(Cause::MissingRest, "the message has no REST part")),
    };
    let request = read_request(&rest)?;
    let granted = self::granted(context, &in_force, peer, &request)?;
    let (body, hash) = verified(context, &in_force, reader, &rest, &request.client, &granted.caller_server).await?;
    // An upload may take long: a right that was taken away meanwhile, a server that was deregistered, a leaf or a configuration that
    // has expired, counts.
    let current = context.state.current().unwrap_or_else(|| in_force.clone());
    unexpired(&current, context)?;
    let granted = self::granted(context, &current, peer, &request)?;
    let Granted { caller_server: _, path, address, timeout } = granted;
    if address.is_empty() {
        return Err(Failure::server(Cause::ServiceMissingUrl, format!("Service {} has no address", request.service)));
    }
    let call = Call {
        method: request.part.method,
        url: url(&address, &path, request.part.query.as_deref()),
        lines: request.part.headers.clone(),
        body,
        silence: (timeout > 0).then(|| Duration::from_secs(timeout.into())),
    };
    let answered = context.information_systems.call(call).await?;
    let rest = answer_part(&answered, &request, hash).encode();
    if rest.len() > MAX_REST_PART {
        return Err(Failure::server(Cause::IoError, "the headers of the information system's answer are too long"));
    }
    let provider = request.service.client;
    Ok(Reply { answered, rest, in_force: current, provider })
}

/// What a request may do by the configuration that it was judged by.
struct Granted {
    caller_server: ServerId,
    path: ServicePath,
    /// Where the service is.
    address: String,
    /// In seconds; 0 for none.
    timeout: u32,
}

/// Who asks, whether they may, and what: by one configuration, and without the body.
fn granted(
    context: &Context,
    in_force: &InForce,
    peer: &[CertificateDer<'static>],
    request: &Asked,
) -> Result<Granted, Failure> {
    let now = context.now();
    let provider = &request.service.client;
    let own = in_force
        .own_client(provider)
        .ok_or_else(|| Failure::server(Cause::ServiceFailedUnknownMember, format!("Client '{provider}' not found")))?;
    if in_force.signer(&provider.member, now).is_none() {
        let why = format!("no usable signing certificate of {}", provider.member);
        return Err(Failure::server(Cause::ServiceFailedCannotCreateSignature, why));
    }
    let caller_server = in_force.peer(peer, &request.client, now).map_err(|problem| {
        context.metrics.peer_refused(problem.label());
        warn!(reason = problem.label(), client = %request.client, problem = %problem, "a peer's server was refused");
        let cause = if problem.is_of_certificate() {
            Cause::ServiceFailedCertValidation
        } else {
            Cause::ServiceFailedSslAuthenticationFailed
        };
        Failure::server(cause, problem.to_string())
    })?;
    let code = &request.service.service;
    let service = own.service(code).ok_or_else(|| unknown_service(&request.service))?;
    let path = grant(in_force, own, service, request)?;
    if let Some(notice) = &service.entry.disabled {
        return Err(Failure::server(
            Cause::ServiceDisabled,
            format!("Service {} is disabled: {notice}", request.service),
        ));
    }
    let (address, timeout) = (service.entry.url.clone(), service.entry.timeout_seconds);
    Ok(Granted { caller_server, path, address, timeout })
}

fn unknown_service(service: &ServiceId) -> Failure {
    let why = if METADATA.contains(&service.service.as_str()) {
        format!("The metadata service {service} is not offered by this security server")
    } else {
        format!("Unknown service: {service}")
    };
    Failure::server(Cause::UnknownService, why)
}

fn unreadable(error: &ReadError) -> Failure {
    let cause = match error {
        ReadError::Envelope(EnvelopeError::NoRest) => Cause::MissingRest,
        ReadError::Envelope(EnvelopeError::NoSignature) => Cause::MissingSignature,
        ReadError::Envelope(_) => Cause::MimeParsingFailed,
        ReadError::Broken(_) | ReadError::Silent => Cause::ServiceFailedIoError,
    };
    Failure::server(cause, error.to_string())
}

/// Understands a REST part by itself: nothing of it is taken on the caller's server's word.
fn read_request(rest: &[u8]) -> Result<Asked, Failure> {
    let fail = |why: String| Failure::server(Cause::ServiceFailedInternalError, why);
    let part = RequestPart::decode(rest).map_err(|error| fail(error.to_string()))?;
    if let Some(line) = headers::forbidden_on_the_way(&part.headers) {
        return Err(fail(format!("the message holds the header {}", headers::latin1(&line.name))));
    }
    let target = target::parse(&part.path, part.query.as_deref()).map_err(|error| fail(error.to_string()))?;
    let road = RoadHeaders::read(&part.headers).map_err(|error| fail(error.to_string()))?;
    let last = |name| part.headers.iter().rev().find(|line| line.is(name)).cloned();
    let request_id = last(names::REQUEST_ID).ok_or_else(|| fail("the message has no request id".into()))?;
    let message_id = last(names::ID).ok_or_else(|| fail("the message has no message id".into()))?;
    let client = road.client.ok_or_else(|| fail("the message names no client".into()))?;
    Ok(Asked { service: target.service, client, request_id, message_id, part })
}

/// Decides on the caller's right, on the very path that will be called.
fn grant(
    in_force: &InForce,
    own: &crate::state::in_force::OwnClient,
    service: &OwnService,
    request: &Asked,
) -> Result<ServicePath, Failure> {
    // Parsed before, when the REST part was read: only the path is needed here.
    let raw = target::parse(&request.part.path, None).map(|target| target.path);
    let raw = raw.map_err(|error| Failure::server(Cause::ServiceFailedInternalError, error.to_string()))?;
    let denied = |why: &str| {
        Failure::server(Cause::AccessDenied, format!("Request is not allowed: SERVICE:{}{why}", request.service))
    };
    let path = ServicePath::parse(&raw).map_err(|error| match error {
        PathError::Encoding => Failure::server(Cause::InternalError, error.to_string()),
        _ => denied(&format!(": {error}")),
    })?;
    let (global, local) = (&in_force.global_groups, &own.local_groups);
    let is_allowed = service.rights.allow(&request.client, request.part.method, &path, global, local);
    if is_allowed { Ok(path) } else { Err(denied("")) }
}

/// Takes the body to the spool and judges the signature. Returns only what is proven to be the caller's, with its request hash.
async fn verified(
    context: &Arc<Context>,
    in_force: &Arc<InForce>,
    mut reader: MessageReader,
    rest: &[u8],
    client: &ClientId,
    server: &ServerId,
) -> Result<(Rewound, String), Failure> {
    let limits = in_force.limits();
    let bounds = Bounds { body: limits.max_body_bytes, total: limits.spool_bytes };
    let (mut digest, mut body) = (DigestingRequest::default(), context.spool.body());
    let signature = loop {
        match reader.next().await.map_err(|error| unreadable(&error))? {
            Event::Body(piece) => {
                digest.update(&piece);
                body.push(&piece, &context.spool, bounds).await.map_err(|error| match error {
                    SpoolError::TooLong(_) => Failure::server(Cause::LoggingFailed, error.to_string()),
                    SpoolError::Full | SpoolError::Io(_) => {
                        Failure::server(Cause::IoError, crate::state::chain(&error))
                    }
                })?;
                context.metrics.spool_bytes.set(context.spool.used());
            }
            Event::Signature(signature) => break signature,
            Event::Fault(_) => return Err(Failure::server(Cause::ServiceFailedIoError, "the caller's server gave up")),
            Event::Rest(_) => return Err(Failure::server(Cause::MimeParsingFailed, "a second REST part")),
        }
    };
    reader.end().await.map_err(|error| unreadable(&error))?;
    let body_digest = digest.finish();
    let digests = message::digests(rest, body_digest);
    // Judged by what is in force when the signature is at hand: a long upload may have outlived a bundle.
    let current = context.state.current().unwrap_or_else(|| in_force.clone());
    message::verify(&current, &signature, &digests, client, server, context.now())
        .map_err(|refused| Failure::server(refused.cause, refused.why))?;
    let body = body.rewind().await.map_err(|error| Failure::server(Cause::IoError, error.to_string()))?;
    Ok((body, request_hash(&digests.rest_part, body_digest.as_ref())))
}

fn answer_part(answered: &Answered, request: &Asked, hash: String) -> AnswerPart {
    let status = answered.head.status();
    let mut lines = headers::of_answer(&answered.lines());
    lines.extend([
        Line::new(names::ID, request.message_id.value.clone()),
        Line::new("x-road-client", request.client.to_string()),
        Line::new(names::SERVICE, request.service.to_string()),
        Line::new(names::REQUEST_ID, request.request_id.value.clone()),
        Line::new(names::REQUEST_HASH, hash),
    ]);
    let reason = status.canonical_reason().unwrap_or_default().to_owned();
    AnswerPart { status: status.as_u16(), reason, headers: lines }
}

/// Signs the answer and sends it: at once when it is short, as it comes when it is long.
async fn message(mut reply: Reply, done: Done) -> Response<ExchangeBody> {
    let (mut digest, mut pieces) = (DigestingAnswer::default(), Pieces::default());
    let (max, mut hold) = (reply.in_force.limits().max_body_bytes, done.context.held.hold());
    let end = loop {
        match next(&mut reply.answered, &mut digest, max).await {
            Ok(Some(piece)) => {
                let has_room = hold.grow(piece.len());
                pieces.push(piece);
                if pieces.length() > WHOLE || !has_room {
                    break Ok(false);
                }
            }
            Ok(None) => break Ok(true),
            Err(failure) => break Err(failure),
        }
    };
    let mut frames = VecDeque::from([frame(Kind::Rest, &reply.rest)]);
    let signature = match end {
        Ok(false) => {
            let (sender, receiver) = mpsc::channel(2);
            tokio::spawn(async move {
                // What was read ahead is held, and counted, until this has ended.
                let _hold = hold;
                let sent = stream(&done.context, reply, digest, frames, pieces, &sender, max).await;
                if let Err(failure) = &sent {
                    let fault = done.context.fault(failure, done.profile);
                    // Whatever came before is void: this is the last frame, and there is no signature.
                    let _ = timeout(done.context.peer_silence, sender.send(Ok(fault_frame(&fault)))).await;
                }
                done.end(&sent);
            });
            return super::message(ExchangeBody::Stream { frames: receiver, started: None });
        }
        Ok(true) => sign(&reply, digest, &done.context).await,
        Err(failure) => Err(failure),
    };
    let body = match &signature {
        Ok(signature) => {
            let total = frames.iter().map(Bytes::len).sum::<usize>() + pieces.length() + signature.len() + 64;
            frames.extend(pieces.flat_map(body_frames));
            frames.push_back(signature.clone());
            // Small pieces in one buffer: one HTTP/2 frame and one TLS record instead of five.
            let mut joined = Vec::with_capacity(total);
            for piece in &frames {
                joined.extend_from_slice(piece);
            }
            ExchangeBody::one(hold.keep(joined.into()))
        }
        Err(failure) => ExchangeBody::one(fault_frame(&done.context.fault(failure, done.profile))),
    };
    done.end(&signature.map(|_| ()));
    super::message(body)
}

impl Done {
    fn end(&self, result: &Result<(), Failure>) {
        let outcome = result.as_ref().err().map_or("ok", Failure::label);
        self.context.metrics.ended(Side::Server, outcome, self.started.elapsed());
        self.context.metrics.spool_bytes.set(self.context.spool.used());
    }
}

async fn next(
    answered: &mut Answered,
    digest: &mut DigestingAnswer,
    max: Option<u64>,
) -> Result<Option<Bytes>, Failure> {
    let piece = answered.next().await?;
    if let Some(piece) = &piece {
        digest.update(piece);
        if max.is_some_and(|max| digest.length() > max) {
            return Err(Failure::server(Cause::LoggingFailed, "the answer is longer than a message may be"));
        }
    }
    Ok(piece)
}

/// The signature frame of an answer.
async fn sign(reply: &Reply, digest: DigestingAnswer, context: &Context) -> Result<Bytes, Failure> {
    let now = context.now();
    // The newest leaf: a long answer may have outlived the one that was in force when it began.
    let current = context.state.current().unwrap_or_else(|| reply.in_force.clone());
    let signer = current.signer(&reply.provider.member, now).ok_or_else(|| {
        Failure::server(Cause::CannotCreateSignature, format!("no usable signing certificate of {}", reply.provider))
    })?;
    let digests = message::digests(&reply.rest, digest.finish());
    let signature = context.signing.sign(digests, signer, now).await;
    let signature = signature.map_err(|why| Failure::server(Cause::CannotCreateSignature, why))?;
    Ok(frame(Kind::Signature, &signature))
}

async fn stream(
    context: &Context,
    mut reply: Reply,
    mut digest: DigestingAnswer,
    frames: VecDeque<Bytes>,
    pieces: Pieces,
    sender: &mpsc::Sender<Result<Bytes, std::io::Error>>,
    max: Option<u64>,
) -> Result<(), Failure> {
    let send = async |bytes| {
        // Who takes nothing for so long keeps a connection to the information system, and a place, from others.
        let sent = timeout(context.peer_silence, sender.send(Ok(bytes))).await;
        let stopped = || Failure::server(Cause::IoError, "the caller's server stopped reading");
        sent.map_err(|_| stopped())?.map_err(|_| stopped())
    };
    for bytes in frames.into_iter().chain(pieces.flat_map(body_frames)) {
        send(bytes).await?;
    }
    loop {
        let piece = tokio::select! {
            piece = next(&mut reply.answered, &mut digest, max) => piece?,
            // An information system that says nothing more would be waited for on behalf of nobody.
            () = sender.closed() => return Err(Failure::server(Cause::IoError, "the caller's server has gone")),
        };
        let Some(piece) = piece else { break };
        for bytes in body_frames(piece) {
            send(bytes).await?;
        }
    }
    send(sign(&reply, digest, context).await?).await
}
