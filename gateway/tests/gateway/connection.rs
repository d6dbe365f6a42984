//! One connection of a caller by itself: how answers end, for callers of HTTP/1.0 too, and how connections do.

use std::io;
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::StatusCode;
use saatkond_gateway::http1::head::{Head, Refusal};
use saatkond_gateway::http1::serve::{Aborted, Answer, AnswerBody, Ending, Handler, RequestBody, Timeouts, connection};
use saatkond_gateway::memory::{HeldBytes, Hold};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;
use tokio::time::timeout;

use crate::support::http::read;
use crate::support::pair::Pair;
use crate::support::rogue::{authentication, tls};

/// Answers what the path says.
struct Says;

impl Handler for Says {
    async fn handle(&self, head: Head, body: RequestBody) -> Answer {
        if head.path == "/unwanted" {
            drop(body);
            return std::future::pending().await;
        }
        let body = match body {
            RequestBody::Whole(body) => Ok(body.len()),
            RequestBody::Stream(mut pieces) => {
                let mut length = 0;
                loop {
                    match pieces.recv().await {
                        Some(Ok(piece)) => length += piece.len(),
                        Some(Err(error)) => break Err(error.kind()),
                        None => break Ok(length),
                    }
                }
            }
        };
        let piece = |_| Ok::<_, Aborted>(Bytes::from(vec![b'x'; 64 << 10]));
        let body = match head.path.as_str() {
            "/two" => AnswerBody::Stream(Box::pin(stream::iter([0, 1].map(piece)))),
            "/endless" => AnswerBody::Stream(Box::pin(stream::iter((0..).map(piece)))),
            "/hangs" => AnswerBody::Stream(Box::pin(stream::unfold(0, move |count| async move {
                if count > 0 {
                    std::future::pending::<()>().await;
                }
                Some((piece(count), count + 1))
            }))),
            _ => AnswerBody::Whole(format!("{body:?}").into()),
        };
        Answer { status: StatusCode::OK, lines: Vec::new(), body }
    }

    fn abandoned(&self) {}

    fn hold(&self) -> Hold {
        HeldBytes::new(1 << 20).hold()
    }

    fn refused(&self, _: Refusal) {}
}

/// Nothing is left of a connection soon.
async fn is_over(task: JoinHandle<()>) {
    tokio::time::timeout(Duration::from_secs(10), task).await.expect("the connection is still served").unwrap();
}

#[tokio::test]
async fn a_caller_that_goes_away_during_an_answer_that_has_stopped_is_noticed() {
    let (mut caller, task) = served(Ending::default()).await;
    caller.write_all(b"GET /hangs HTTP/1.1\r\nHost: x\r\n\r\n").await.unwrap();
    let mut some = vec![0; 64 << 10];
    caller.read_exact(&mut some).await.unwrap();
    drop(caller);
    is_over(task).await;
}

#[tokio::test]
async fn a_caller_that_goes_away_while_nobody_takes_its_body_is_noticed() {
    let (mut caller, task) = served(Ending::default()).await;
    let head = b"POST /unwanted HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n";
    caller.write_all(head).await.unwrap();
    for _ in 0..100 {
        caller.write_all(b"3\r\nabc\r\n").await.unwrap();
    }
    drop(caller);
    is_over(task).await;
}

/// A connection that is served so, and the task that serves it.
async fn served(ending: Ending) -> (TcpStream, JoinHandle<()>) {
    let times = Timeouts {
        head: Duration::from_secs(10),
        idle: Duration::from_secs(10),
        body: Duration::from_millis(300),
        write: Duration::from_millis(300),
    };
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    (caller, tokio::spawn(async move { connection(stream, &Says, times, &ending).await }))
}

/// How the connection ends, and how much came before.
async fn end(caller: &mut TcpStream) -> (usize, Result<(), io::ErrorKind>) {
    let mut bytes = Vec::new();
    let result = tokio::time::timeout(Duration::from_secs(10), caller.read_to_end(&mut bytes)).await.expect("open");
    (bytes.len(), result.map(|_| ()).map_err(|error| error.kind()))
}

#[tokio::test]
async fn a_short_body_that_stops_coming_is_answered() {
    let (mut caller, _task) = served(Ending::default()).await;
    caller.write_all(b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 10\r\n\r\nabc").await.unwrap();
    let response = read(&mut caller, false).await.unwrap();
    assert_eq!((response.text(), response.one("Connection")), ("Err(TimedOut)".into(), "close".into()));
}

#[tokio::test]
async fn a_streamed_answer_ends_the_connection_of_http_10() {
    let (mut caller, _task) = served(Ending::default()).await;
    caller.write_all(b"GET /two HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").await.unwrap();
    let response = read(&mut caller, false).await.unwrap();
    assert_eq!((response.body.len(), response.has("Connection")), (128 << 10, false), "{:?}", response.headers);
}

#[tokio::test]
async fn what_is_not_complete_ends_with_an_error_for_http_10() {
    // The caller does not read, so that writing runs out of time.
    let (mut caller, task) = served(Ending::default()).await;
    caller.write_all(b"GET /endless HTTP/1.0\r\n\r\n").await.unwrap();
    task.await.unwrap();
    assert_eq!(end(&mut caller).await.1, Err(io::ErrorKind::ConnectionReset));
    // The task is dropped where it stands, as at the end of a process.
    let (mut caller, task) = served(Ending::default()).await;
    caller.write_all(b"GET /hangs HTTP/1.0\r\n\r\n").await.unwrap();
    caller.readable().await.unwrap();
    task.abort();
    let _ = task.await;
    assert_eq!(end(&mut caller).await.1, Err(io::ErrorKind::ConnectionReset));
}

#[tokio::test]
async fn who_is_leaving_says_so_in_every_answer() {
    let ending = Ending::default();
    let (mut caller, _task) = served(ending.clone()).await;
    caller.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert!(!read(&mut caller, false).await.unwrap().has("Connection"));
    ending.leaving.cancel();
    caller.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
    assert_eq!(read(&mut caller, false).await.unwrap().one("Connection"), "close");
    assert_eq!(end(&mut caller).await, (0, Ok(())));
}

#[tokio::test]
async fn a_request_that_has_arrived_is_answered_in_the_last_moment() {
    // Both are there when the task first looks, each time.
    for _ in 0..50 {
        let ending = Ending::default();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n").await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        stream.readable().await.unwrap();
        ending.leaving.cancel();
        ending.closing.cancel();
        let second = Duration::from_secs(1);
        let times = Timeouts { head: second, idle: second, body: second, write: second };
        tokio::spawn(async move { connection(stream, &Says, times, &ending).await });
        assert_eq!(read(&mut caller, false).await.unwrap().status, 200);
    }
}

/// HTTP/2 between gateways (RFC 9113): what a frame says, and on which stream.
fn frame_of_http2(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// Reads until the server closes, answering its SETTINGS and PING as a peer does; the last stream of each GOAWAY.
async fn read_until_closed(stream: &mut tokio_rustls::client::TlsStream<TcpStream>) -> Vec<u32> {
    let mut goaways = Vec::new();
    let mut head = [0; 9];
    while stream.read_exact(&mut head).await.is_ok() {
        let mut payload = vec![0; usize::from(head[1]) << 8 | usize::from(head[2])];
        stream.read_exact(&mut payload).await.unwrap();
        match (head[3], head[4]) {
            (4 | 6, 0) => {
                let payload = if head[3] == 6 { payload } else { Vec::new() };
                stream.write_all(&frame_of_http2(head[3], 1, 0, &payload)).await.unwrap();
            }
            (7, _) => goaways.push(u32::from_be_bytes(payload[..4].try_into().unwrap())),
            _ => {}
        }
    }
    goaways
}

#[tokio::test]
async fn a_request_that_crosses_the_last_goaway_does_not_reset_the_connection() {
    let mut pair = Pair::start().await;
    let leaf = authentication(&pair.federation.authority, &pair.ss2.id);
    let mut peer = tls(pair.ss1.server_address, Some(&leaf)).await.unwrap();
    peer.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await.unwrap();
    peer.write_all(&frame_of_http2(4, 0, 0, &[])).await.unwrap();
    // Another leaf: it asks for another connection.
    pair.ss1.issue += 1;
    pair.federation.write_identity(&pair.ss1);
    let goaways = timeout(Duration::from_secs(10), read_until_closed(&mut peer)).await.expect("it is not closed");
    assert_eq!(goaways.last(), Some(&0), "no request was taken: {goaways:?}");
    // Written before the GOAWAY was read, as far as the server can tell. A reset would come after the first.
    for stream in (1..32).step_by(2) {
        let written = peer.write_all(&frame_of_http2(1, 4, stream, &[0x82; 1000])).await;
        written.and(peer.flush().await).unwrap_or_else(|error| panic!("stream {stream}: {error}"));
    }
    drop(peer);
}
