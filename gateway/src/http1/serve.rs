//! One connection of an information system: request after request, each with its answer, until one side has had enough.

use std::future::Future;
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use bytes::{BufMut, Bytes, BytesMut};
use futures_util::{Stream, StreamExt as _};
use http::StatusCode;
use socket2::SockRef;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::body::{Decoder, Piece};
use super::head::{self, Framing, Head, Refusal};
use crate::memory::Hold;
use crate::request::headers::Line;

/// Bodies up to this length are read before the request is handled; longer ones, chunked ones, and those for which there is no room,
/// while it is.
const WHOLE: usize = 64 << 10;
const LONG: u64 = WHOLE as u64 + 1;
const READ_BUFFER: usize = 16 << 10;
/// How long a caller is listened to after an answer that came before the end of its request, so that the answer is not lost to a
/// connection reset: while it goes on sending, and a moment longer.
const LINGER: Duration = Duration::from_secs(30);
const LINGER_SILENCE: Duration = Duration::from_secs(1);

/// How long to wait for a caller.
#[derive(Debug, Clone, Copy)]
pub struct Timeouts {
    /// For a whole head, from its first byte on.
    pub head: Duration,
    /// For the first byte of a request.
    pub idle: Duration,
    /// Between two pieces of a body.
    pub body: Duration,
    /// For the caller to take a piece of the answer.
    pub write: Duration,
}

/// The body of a request.
#[derive(Debug)]
pub enum RequestBody {
    /// All of it, possibly nothing.
    Whole(Bytes),
    /// Piece by piece; an error means that the rest will never come.
    Stream(mpsc::Receiver<Result<Bytes, io::Error>>),
}

/// The evidence for what was streamed did not come: the caller must not take the message for complete.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Aborted;

/// The body of an answer.
pub enum AnswerBody {
    /// All of it, possibly nothing.
    Whole(Bytes),
    /// Piece by piece.
    Stream(Pin<Box<dyn Stream<Item = Result<Bytes, Aborted>> + Send>>),
}

/// An answer.
pub struct Answer {
    /// The status.
    pub status: StatusCode,
    /// Header lines without framing.
    pub lines: Vec<Line>,
    /// The body.
    pub body: AnswerBody,
}

/// Answers requests.
pub trait Handler {
    /// Answers one.
    fn handle(&self, head: Head, body: RequestBody) -> impl Future<Output = Answer> + Send;
    /// Takes note of a caller that hung up before it had its answer: what was being done for it has been dropped.
    fn abandoned(&self);
    /// For what is read of a body before its request is handled.
    fn hold(&self) -> Hold;
    /// Takes note of a request that was refused before it was one.
    fn refused(&self, refusal: Refusal);
}

/// How a process ends: callers are told to go elsewhere first, and left alone later.
#[derive(Debug, Clone, Default)]
pub struct Ending {
    /// From here on each answer is the last one of its connection.
    pub leaving: CancellationToken,
    /// From here on no further request is taken.
    pub closing: CancellationToken,
}

/// Serves a connection.
pub async fn connection<H: Handler>(mut stream: TcpStream, handler: &H, times: Timeouts, ending: &Ending) {
    let mut buffer = BytesMut::with_capacity(READ_BUFFER);
    // An error means that the caller is gone: nobody is left to tell.
    while let Ok(true) = exchange(&mut stream, &mut buffer, handler, times, ending).await {}
}

/// One request and its answer; whether another may follow.
async fn exchange<H: Handler>(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    handler: &H,
    times: Timeouts,
    ending: &Ending,
) -> io::Result<bool> {
    if buffer.is_empty() {
        let first = tokio::select! {
            // In this order: a request that has arrived is answered, also when the last moment has come.
            biased;
            first = timeout(times.idle, read_some(stream, buffer)) => first,
            () = ending.closing.cancelled() => return Ok(false),
        };
        if !matches!(first, Ok(Ok(count)) if count > 0) {
            return Ok(false);
        }
    }
    let head = match timeout(times.head, read_head(stream, buffer)).await {
        Ok(Ok(Ok(head))) => head,
        Ok(Ok(Err(refusal))) => return refuse(stream, handler, refusal, times).await,
        Ok(Err(error)) => return Err(error),
        Err(_) => {
            let refusal = Refusal { status: StatusCode::REQUEST_TIMEOUT, why: "the head took too long" };
            return refuse(stream, handler, refusal, times).await;
        }
    };
    let (is_11, is_head) = (head.is_11, head.method == "HEAD");
    let mut keep_alive = head.keep_alive;
    let mut decoder = Decoder::new(head.framing);
    if head.expects_continue && !decoder.is_done() {
        timeout(times.write, stream.write_all(b"HTTP/1.1 100 Continue\r\n\r\n")).await??;
    }
    let mut hold = handler.hold();
    let answer = match begin(stream, buffer, &mut decoder, head.framing, &mut hold, times).await? {
        Begun::Whole(body) => {
            let mut handling = pin!(handler.handle(head, RequestBody::Whole(body)));
            tokio::select! {
                answer = &mut handling => Some(answer),
                () = gone(stream, buffer) => None,
            }
        }
        Begun::Part(first) => {
            let (sender, receiver) = mpsc::channel(2);
            let mut handling = pin!(handler.handle(head, RequestBody::Stream(receiver)));
            let mut caller = pin!(async {
                match pump(stream, buffer, &mut decoder, first, sender, times).await {
                    Pumped::Whole => gone(stream, buffer).await,
                    // The handler has been told: it has the last word.
                    Pumped::Broken => std::future::pending().await,
                    // It has had enough, and whether an answer comes is another's business: the caller may go before that.
                    Pumped::Unwanted if decoder.is_done() => gone(stream, buffer).await,
                    Pumped::Unwanted => wasted(stream).await,
                }
            });
            tokio::select! {
                answer = &mut handling => Some(answer),
                () = &mut caller => None,
            }
        }
        Begun::Stalled(error) => {
            let (sender, receiver) = mpsc::channel(1);
            // There is room for one.
            let _ = sender.try_send(Err(error));
            Some(handler.handle(head, RequestBody::Stream(receiver)).await)
        }
    };
    drop(hold);
    let Some(answer) = answer else {
        handler.abandoned();
        return Ok(false);
    };
    if !decoder.is_done() {
        // Nobody wants the rest of the body, so nobody knows where the next request begins.
        keep_alive = false;
    }
    if matches!(answer.body, AnswerBody::Stream(_)) && !is_11 {
        // For a caller of HTTP/1.0 the end of the connection is the end of the body.
        keep_alive = false;
        // Whatever ends this connection before the evidence is good, the end of this process too, must look like an error.
        stream.set_zero_linger()?;
    }
    let keep_alive = keep_alive && !ending.leaving.is_cancelled();
    let written = write_answer(stream, buffer, answer, is_11, is_head, keep_alive, times).await;
    if matches!(written, Ok(Written::Unheard)) {
        handler.abandoned();
    }
    if !matches!(written, Ok(Written::Whole)) {
        // A connection that just ends might be taken for the end of the answer.
        stream.set_zero_linger()?;
        return Ok(false);
    }
    if !is_11 {
        SockRef::from(&*stream).set_linger(None)?;
    }
    if !keep_alive {
        linger(stream).await;
    }
    Ok(keep_alive)
}

/// A body, as far as it is read before the request is handled.
enum Begun {
    /// All of it.
    Whole(Bytes),
    /// The rest is read while it is handled.
    Part(Bytes),
    /// The caller has stopped sending, and is still there.
    Stalled(io::Error),
}

/// Reads a short body whole, while there is room for it.
async fn begin(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    decoder: &mut Decoder,
    framing: Framing,
    hold: &mut Hold,
    times: Timeouts,
) -> io::Result<Begun> {
    let mut body = BytesMut::new();
    if matches!(framing, Framing::Chunked | Framing::Length(LONG..)) {
        return Ok(Begun::Part(Bytes::new()));
    }
    loop {
        let piece = match next_piece(stream, buffer, decoder, times).await {
            Err(error) if error.kind() == io::ErrorKind::TimedOut => return Ok(Begun::Stalled(error)),
            piece => piece?,
        };
        match piece {
            // The usual case: one piece is all, no copy. It lies in the connection's own buffer.
            Some(piece) if body.is_empty() && decoder.is_done() => return Ok(Begun::Whole(piece)),
            Some(piece) => {
                let has_room = hold.grow(piece.len());
                body.extend_from_slice(&piece);
                if !has_room && !decoder.is_done() {
                    return Ok(Begun::Part(body.freeze()));
                }
            }
            None => return Ok(Begun::Whole(body.freeze())),
        }
    }
}

/// Ends when the caller has closed its side: nobody is left to answer, and without this a call without a bound of its own would hold
/// its place for ever. What a caller sends ahead is kept for its next request; one that sends more than a buffer of it is not watched.
async fn gone(stream: &mut TcpStream, buffer: &mut BytesMut) {
    while buffer.len() < READ_BUFFER {
        // No room is made before there is something to read: mostly there is nothing until the answer has gone out.
        if stream.readable().await.is_err() {
            return;
        }
        match read_some(stream, buffer).await {
            Ok(0) | Err(_) => return,
            Ok(_) => {}
        }
    }
    std::future::pending::<()>().await;
}

/// Ends when the caller has closed its side; what it sends until then is the rest of a body that nobody wants.
async fn wasted(stream: &mut TcpStream) {
    let mut waste = vec![0; 4096];
    while let Ok(1..) = stream.read(&mut waste).await {}
}

async fn read_some(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<usize> {
    buffer.reserve(READ_BUFFER);
    stream.read_buf(buffer).await
}

async fn read_head(stream: &mut TcpStream, buffer: &mut BytesMut) -> io::Result<Result<Head, Refusal>> {
    loop {
        match head::take(buffer) {
            Ok(Some(head)) => return Ok(Ok(head)),
            Ok(None) if read_some(stream, buffer).await? == 0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(None) => {}
            Err(refusal) => return Ok(Err(refusal)),
        }
    }
}

/// The next piece of the body; `None` at its end.
async fn next_piece(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    decoder: &mut Decoder,
    times: Timeouts,
) -> io::Result<Option<Bytes>> {
    loop {
        match decoder.take(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
            Piece::Data(data) => return Ok(Some(data)),
            Piece::End => return Ok(None),
            Piece::NeedsMore => {
                if timeout(times.body, read_some(stream, buffer)).await?? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
        }
    }
}

/// How passing a body on has ended.
enum Pumped {
    /// At the body's end.
    Whole,
    /// Nobody takes it any more.
    Unwanted,
    /// It has no end, and whoever takes it has been told.
    Broken,
}

/// Passes the body on.
async fn pump(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    decoder: &mut Decoder,
    first: Bytes,
    sender: mpsc::Sender<Result<Bytes, io::Error>>,
    times: Timeouts,
) -> Pumped {
    if !first.is_empty() && sender.send(Ok(first)).await.is_err() {
        return Pumped::Unwanted;
    }
    loop {
        let piece = match next_piece(stream, buffer, decoder, times).await {
            Ok(Some(piece)) => Ok(piece),
            Ok(None) => return Pumped::Whole,
            Err(error) => Err(error),
        };
        let is_broken = piece.is_err();
        match sender.send(piece).await {
            // Also where it is the end that nobody heard of: a caller that is gone is noticed at the next read.
            Err(_) => return Pumped::Unwanted,
            Ok(()) if is_broken => return Pumped::Broken,
            Ok(()) => {}
        }
    }
}

/// What has become of an answer.
enum Written {
    /// All of it is written.
    Whole,
    /// Its body was aborted half way.
    Aborted,
    /// The caller went away before its end.
    Unheard,
}

/// Writes an answer.
async fn write_answer(
    stream: &mut TcpStream,
    buffer: &mut BytesMut,
    answer: Answer,
    is_11: bool,
    is_head: bool,
    keep_alive: bool,
    times: Timeouts,
) -> io::Result<Written> {
    let Answer { status, lines, body } = answer;
    let mut out = BytesMut::with_capacity(1024);
    out.put_slice(if is_11 { b"HTTP/1.1 " } else { b"HTTP/1.0 " });
    out.put_slice(status.as_str().as_bytes());
    out.put_u8(b' ');
    out.put_slice(status.canonical_reason().unwrap_or_default().as_bytes());
    out.put_slice(b"\r\n");
    for line in &lines {
        put_line(&mut out, &line.name, &line.value);
    }
    match (is_11, keep_alive) {
        (true, false) => put_line(&mut out, b"Connection", b"close"),
        (false, true) => put_line(&mut out, b"Connection", b"keep-alive"),
        _ => {}
    }
    // RFC 9110 8.6: no length where there can be no body, and none on HEAD, since only the provider knows it.
    let has_no_body = matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) || is_head;
    match body {
        _ if has_no_body => {
            out.put_slice(b"\r\n");
            timeout(times.write, stream.write_all(&out)).await??;
            Ok(Written::Whole)
        }
        AnswerBody::Whole(body) => {
            put_line(&mut out, b"Content-Length", body.len().to_string().as_bytes());
            out.put_slice(b"\r\n");
            if body.len() <= READ_BUFFER {
                // One packet for what fits one.
                out.put_slice(&body);
                timeout(times.write, stream.write_all(&out)).await??;
            } else {
                timeout(times.write, stream.write_all(&out)).await??;
                for piece in body.chunks(WHOLE) {
                    timeout(times.write, stream.write_all(piece)).await??;
                }
            }
            Ok(Written::Whole)
        }
        AnswerBody::Stream(mut pieces) => {
            if is_11 {
                put_line(&mut out, b"Transfer-Encoding", b"chunked");
            }
            out.put_slice(b"\r\n");
            loop {
                // Without the second, an answer that goes on for ever, or stops, would be waited for on behalf of nobody.
                let piece = tokio::select! {
                    piece = pieces.next() => piece,
                    () = gone(stream, buffer) => return Ok(Written::Unheard),
                };
                let Some(piece) = piece else { break };
                let Ok(piece) = piece else { return Ok(Written::Aborted) };
                if piece.is_empty() {
                    continue;
                }
                if is_11 {
                    out.put_slice(format!("{:x}\r\n", piece.len()).as_bytes());
                    out.put_slice(&piece);
                    out.put_slice(b"\r\n");
                } else {
                    out.put_slice(&piece);
                }
                timeout(times.write, stream.write_all(&out)).await??;
                out.clear();
            }
            if is_11 {
                out.put_slice(b"0\r\n\r\n");
            }
            timeout(times.write, stream.write_all(&out)).await??;
            Ok(Written::Whole)
        }
    }
}

fn put_line(out: &mut BytesMut, name: &[u8], value: &[u8]) {
    out.put_slice(name);
    out.put_slice(b": ");
    out.put_slice(value);
    out.put_slice(b"\r\n");
}

async fn refuse<H: Handler>(
    stream: &mut TcpStream,
    handler: &H,
    refusal: Refusal,
    times: Timeouts,
) -> io::Result<bool> {
    handler.refused(refusal);
    let lines = vec![Line::new("Content-Type", "text/plain")];
    let answer = Answer { status: refusal.status, lines, body: AnswerBody::Whole(format!("{}\n", refusal.why).into()) };
    write_answer(stream, &mut BytesMut::new(), answer, true, false, false, times).await?;
    linger(stream).await;
    Ok(false)
}

/// Ends the sending side, then reads what the caller may still be sending: closing at once would make the kernel answer it
/// with a reset, and a caller that first sends and then reads would never see the answer.
async fn linger(stream: &mut TcpStream) {
    if stream.shutdown().await.is_err() {
        return;
    }
    let mut waste = vec![0; 4096];
    let _ =
        timeout(LINGER, async { while let Ok(Ok(1..)) = timeout(LINGER_SILENCE, stream.read(&mut waste)).await {} })
            .await;
}
