//! The HTTP layer (checklist T205 to T208, T216) and bytes that are no HTTP, on both ports.

use std::sync::atomic::Ordering;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

use crate::support::alone::{count_panics, is_alone, resident};
use crate::support::base::{BASE, CLIENT, PETS, call, mark};
use crate::support::http::{raw, read, read_next, request};
use crate::support::rogue::tls;

async fn refused(bytes: &[u8], status: u16) {
    let mut stream = TcpStream::connect(BASE.client).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    let response = read(&mut stream, false).await.unwrap();
    let shown = String::from_utf8_lossy(bytes);
    assert_eq!(response.status, status, "{shown}: {response:?}");
    assert_eq!(response.one("Connection"), "close");
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap_or(0), 0, "the connection is closed: {shown}");
}

#[tokio::test]
async fn t205_t206_t208_ambiguous_messages_are_refused_and_the_connection_closed() {
    let mark = mark();
    let target = format!("{PETS}/{mark}");
    for lines in [
        "Host: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n",
        "Host: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n",
        "Host: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n",
        "Host: h\r\nTransfer-Encoding: gzip\r\n",
        "Host: h\r\nTransfer-Encoding: chunked, identity\r\n",
        "",
        "Host: h\r\nHost: i\r\n",
        "Host: h\r\nX: a\r\n b\r\n",
        "Host: h\r\nX: a\0b\r\n",
        "Host: h\r\nX: a\rb\r\n",
    ] {
        let head = format!(
            "POST {target} HTTP/1.1\r\n{}: {}\r\n{lines}\r\nabcGET /smuggled HTTP/1.1\r\n\r\n",
            CLIENT.0, CLIENT.1
        );
        refused(head.as_bytes(), 400).await;
    }
    refused(format!("POST {target} HTTP/1.1\r\nHost: h\r\nExpect: nothing\r\n\r\n").as_bytes(), 417).await;
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t207_chunk_extensions_and_trailers() {
    let mark = mark();
    let mut bytes = request("PUT", &format!("{PETS}/{mark}"), &[CLIENT, ("Transfer-Encoding", "chunked")], None);
    bytes.extend_from_slice(b"3;ext=\"1\"\r\nabc\r\n0;last\r\nX-T: 1\r\n\r\n");
    assert_eq!(raw(BASE.client, &bytes).await.status, 200);
    let asked = &BASE.system.asked(&mark)[0];
    assert_eq!((asked.body.as_slice(), asked.all("Content-Length")), (&b"abc"[..], vec!["3".into()]));
    assert!(asked.all("X-T").is_empty() && asked.all("Transfer-Encoding").is_empty());
}

#[tokio::test]
async fn malformed_chunks_never_become_a_call() {
    let mark = mark();
    for chunks in ["x\r\n", "3\r\nabcd\r\n0\r\n\r\n", "3\nabc\r\n0\r\n\r\n", "ffffffffffffffffff\r\n"] {
        let mut bytes = request("PUT", &format!("{PETS}/{mark}"), &[CLIENT, ("Transfer-Encoding", "chunked")], None);
        bytes.extend_from_slice(chunks.as_bytes());
        let response = raw(BASE.client, &bytes).await;
        response.assert_error("server.clientproxy.io_error");
    }
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn a_caller_that_breaks_off_never_becomes_a_call() {
    let mark = mark();
    for length in [10, 200_000] {
        let mut stream = TcpStream::connect(BASE.client).await.unwrap();
        let head = request("POST", &format!("{PETS}/{mark}"), &[CLIENT, ("Content-Length", &length.to_string())], None);
        stream.write_all(&head).await.unwrap();
        stream.write_all(b"abc").await.unwrap();
        drop(stream);
    }
    // What comes after them on other connections is served, and they have left nothing.
    assert_eq!(call("GET", PETS, &[], None).await.status, 200);
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t216_http_10() {
    let bytes = format!("GET {PETS}/x HTTP/1.0\r\n{}: {}\r\n\r\n", CLIENT.0, CLIENT.1);
    let mut stream = TcpStream::connect(BASE.client).await.unwrap();
    stream.write_all(bytes.as_bytes()).await.unwrap();
    let response = read(&mut stream, false).await.unwrap();
    assert_eq!((response.status, response.json()["target"].as_str()), (200, Some("/v2/x")));
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn requests_in_a_row_on_one_connection() {
    let mut stream = TcpStream::connect(BASE.client).await.unwrap();
    let two = [
        request("POST", &format!("{PETS}/a"), &[CLIENT], Some(b"1")),
        request("GET", &format!("{PETS}/b"), &[CLIENT], None),
    ];
    stream.write_all(&two.concat()).await.unwrap();
    let mut bytes = Vec::new();
    for path in ["/v2/a", "/v2/b"] {
        let response = read_next(&mut stream, &mut bytes, false).await.unwrap();
        assert_eq!(response.json()["target"], path);
    }
    stream.write_all(&request("GET", PETS, &[CLIENT, ("Connection", "close")], None)).await.unwrap();
    assert_eq!(read(&mut stream, false).await.unwrap().one("Connection"), "close");
    assert_eq!(stream.read(&mut [0; 10]).await.unwrap(), 0);
}

#[tokio::test]
async fn who_sends_all_before_reading_sees_why_it_was_refused() {
    let body = vec![b'x'; 20 << 20];
    for (target, headers, error) in [
        (PETS, &[][..], "server.clientproxy.invalid_client_identifier"),
        ("/r1/INST/GOV/100/PROV/denied", &[CLIENT], "server.serverproxy.access_denied"),
    ] {
        let mut stream = TcpStream::connect(BASE.client).await.unwrap();
        stream.write_all(&request("POST", target, headers, Some(&body))).await.unwrap();
        let response = read(&mut stream, false).await.unwrap();
        assert_eq!((response.status, response.one("X-Road-Error").as_str()), (500, error), "{response:?}");
    }
}

/// The client's preface of HTTP/2 and empty SETTINGS (RFC 9113 section 3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0";

/// Frames of HTTP/2 that no peer should send, as they follow the preface within TLS.
fn malformed_http2() -> Vec<Vec<u8>> {
    const DATA: u8 = 0;
    const HEADERS: u8 = 1;
    const RESET: u8 = 3;
    const SETTINGS: u8 = 4;
    const PUSH: u8 = 5;
    const PING: u8 = 6;
    const WINDOW: u8 = 8;
    const CONTINUATION: u8 = 9;
    let frame = |kind: u8, flags: u8, stream: u32, content: &[u8]| {
        let length = u32::try_from(content.len()).unwrap().to_be_bytes();
        [&length[1..], &[kind, flags], &stream.to_be_bytes(), content].concat()
    };
    // HPACK's static table: POST, https, /, and an authority.
    let post = b"\x83\x87\x84\x41\x01x";
    let each =
        |count: u32, of: &dyn Fn(u32) -> Vec<u8>| (0..count).flat_map(|number| of(2 * number + 1)).collect::<Vec<_>>();
    vec![
        [0xff; 1000].to_vec(),
        frame(DATA, 0, 1, b"nobody asked"),
        frame(HEADERS, 4, 0, post),
        frame(HEADERS, 4, 2, post),
        frame(HEADERS, 4, 1, &[0xff; 200]),
        frame(HEADERS, 4, 1, b"\x40\x01x\x7f\xff\xff\xff\xff\xff\x0f"),
        frame(SETTINGS, 0, 0, b"odd"),
        frame(PUSH, 4, 1, post),
        frame(PING, 0, 0, b"short"),
        frame(WINDOW, 0, 0, &[0; 4]),
        frame(CONTINUATION, 4, 1, post),
        frame(77, 0xff, 1, &[0; 100]),
        // Headers without an end, in pieces of nothing.
        [frame(HEADERS, 0, 1, post), each(5000, &|_| frame(CONTINUATION, 0, 1, b""))].concat(),
        // Headers without an end, each of them large.
        [frame(HEADERS, 0, 1, post), each(20, &|_| frame(CONTINUATION, 0, 1, &[b'a'; 16_000]))].concat(),
        // A body of nothing, in very many pieces.
        [frame(HEADERS, 4, 1, post), each(5000, &|_| frame(DATA, 0, 1, b""))].concat(),
        // Asked and taken back, over and over.
        each(2000, &|stream| [frame(HEADERS, 4, stream, post), frame(RESET, 0, stream, &[0, 0, 0, 8])].concat()),
        each(5000, &|_| frame(PING, 0, 0, &[7; 8])),
        each(5000, &|_| frame(SETTINGS, 0, 0, b"")),
    ]
}

/// Bytes that are no request, and a call after each that must work.
#[tokio::test]
async fn no_bytes_hurt_either_port() {
    if !is_alone("http_layer::no_bytes_hurt_either_port").await {
        return;
    }
    let panics = count_panics();
    // What the hook sees of a task that nobody waits for.
    let _ = tokio::spawn(async { panic!("on purpose") }).await;
    assert_eq!(panics.swap(0, Ordering::Relaxed), 1);
    let long = "A".repeat(70_000);
    let garbage: Vec<Vec<u8>> = vec![
        b"\0".to_vec(),
        b"\r\n\r\n\r\n".to_vec(),
        b"GET\r\n\r\n".to_vec(),
        b"GET / HTTP/9.9\r\n\r\n".to_vec(),
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(),
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(),
        b"\x16\x03\x01\xff\xff".to_vec(),
        b"\x80\x2e\x01\x03\x01".to_vec(),
        long.clone().into_bytes(),
        format!("GET /{long} HTTP/1.1\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nX: {long}\r\n\r\n").into_bytes(),
        format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a:b\r\n".repeat(1000)).into_bytes(),
        (0..=255).collect(),
        [0xff; 1000].to_vec(),
    ];
    let round = async |address| {
        for bytes in &garbage {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let _ = stream.write_all(bytes).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            // The connection ends, one way or the other, and soon.
            let ended = tokio::time::timeout(std::time::Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "still open after {:?}", &bytes[..bytes.len().min(40)]);
        }
        assert_eq!(call("GET", PETS, &[], None).await.status, 200);
    };
    let inside = async || {
        for bytes in malformed_http2() {
            let mut stream = tls(BASE.server, Some(&BASE.leaf)).await.unwrap();
            let _ = stream.write_all(&[PREFACE, &bytes].concat()).await;
            let _ = stream.shutdown().await;
            let mut answer = Vec::new();
            let ended = tokio::time::timeout(std::time::Duration::from_secs(15), stream.read_to_end(&mut answer)).await;
            assert!(ended.is_ok(), "still open after {:?}", &bytes[..bytes.len().min(40)]);
        }
        assert_eq!(call("GET", PETS, &[], None).await.status, 200);
    };
    // What is made once is made in the first round.
    round(BASE.client).await;
    round(BASE.server).await;
    inside().await;
    let before = resident();
    for _ in 0..20 {
        round(BASE.client).await;
        round(BASE.server).await;
        inside().await;
    }
    let grown = resident().saturating_sub(before);
    assert_eq!(panics.load(Ordering::Relaxed), 0);
    assert!(grown < 8 << 20, "grew by {} KiB", grown >> 10);
}
