//! A caller that says exactly what a test wants it to say, and reads what comes.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// A response. Names are as they came.
#[derive(Debug, Clone)]
pub struct Response {
    pub status: u16,
    pub headers: Vec<(String, Vec<u8>)>,
    pub body: Vec<u8>,
    /// Whether the body ended as its framing promised.
    pub is_complete: bool,
}

impl Response {
    pub fn all(&self, name: &str) -> Vec<String> {
        let named = self.headers.iter().filter(|(found, _)| found.eq_ignore_ascii_case(name));
        named.map(|(_, value)| String::from_utf8_lossy(value).into_owned()).collect()
    }

    pub fn one(&self, name: &str) -> String {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name} in {self:?}");
        all[0].clone()
    }

    pub fn has(&self, name: &str) -> bool {
        !self.all(name).is_empty()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Asserts an own error of this type, in every respect in which own errors are alike.
    pub fn assert_error(&self, kind: &str) -> &Self {
        assert_eq!(self.status, 500, "{self:?}");
        let json = self.json();
        assert_eq!(json["type"], kind, "{self:?}");
        assert_eq!(self.one("X-Road-Error"), kind);
        for name in ["x-road-id", "x-road-client", "x-road-service", "x-road-request-id", "x-road-request-hash"] {
            assert!(!self.has(name), "{name} in an own error: {self:?}");
        }
        self
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends bytes and reads one response.
pub async fn raw(address: SocketAddr, request: &[u8]) -> Response {
    let mut stream = TcpStream::connect(address).await.unwrap();
    let is_head = request.starts_with(b"HEAD");
    stream.write_all(request).await.unwrap();
    read(&mut stream, is_head).await.expect("no response")
}

/// A request with the usual lines.
pub fn request(method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Vec<u8> {
    let mut out = format!("{method} {target} HTTP/1.1\r\nHost: gateway\r\n").into_bytes();
    for (name, value) in headers {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    if let Some(body) = body {
        out.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(body.unwrap_or_default());
    out
}

/// Reads one response; `None` when the connection ends before its head does.
pub async fn read(stream: &mut TcpStream, is_head: bool) -> Option<Response> {
    let mut bytes = Vec::new();
    let response = read_next(stream, &mut bytes, is_head).await;
    assert!(bytes.is_empty(), "more than one response: {bytes:?}");
    response
}

/// Reads one response of several; what follows it stays in `bytes`.
pub async fn read_next(stream: &mut TcpStream, bytes: &mut Vec<u8>, is_head: bool) -> Option<Response> {
    timeout(Duration::from_secs(30), read_inner(stream, bytes, is_head)).await.expect("no response in time")
}

async fn read_inner(stream: &mut TcpStream, bytes: &mut Vec<u8>, is_head: bool) -> Option<Response> {
    let (mut response, used) = loop {
        let mut slots = [httparse::EMPTY_HEADER; 300];
        let mut parsed = httparse::Response::new(&mut slots);
        if let httparse::Status::Complete(used) = parsed.parse(bytes).unwrap() {
            let code = parsed.code.unwrap();
            if code == 100 {
                bytes.drain(..used);
                continue;
            }
            let headers = parsed.headers.iter().map(|h| (h.name.to_owned(), h.value.to_vec())).collect();
            break (Response { status: code, headers, body: Vec::new(), is_complete: true }, used);
        }
        if !more(stream, bytes).await {
            return None;
        }
    };
    let mut rest = bytes.split_off(used);
    bytes.clear();
    if is_head || matches!(response.status, 204 | 304) {
        *bytes = rest;
        return Some(response);
    }
    if response.has("Transfer-Encoding") {
        loop {
            let line = loop {
                if let Some(end) = rest.windows(2).position(|w| w == b"\r\n") {
                    break rest.drain(..end + 2).take(end).collect::<Vec<_>>();
                }
                if !more(stream, &mut rest).await {
                    response.is_complete = false;
                    return Some(response);
                }
            };
            let size = usize::from_str_radix(std::str::from_utf8(&line).unwrap(), 16).unwrap();
            while rest.len() < size + 2 {
                if !more(stream, &mut rest).await {
                    response.body.append(&mut rest);
                    response.is_complete = false;
                    return Some(response);
                }
            }
            response.body.extend(rest.drain(..size));
            rest.drain(..2);
            if size == 0 {
                *bytes = rest;
                return Some(response);
            }
        }
    }
    if response.has("Content-Length") {
        let length: usize = response.one("Content-Length").parse().unwrap();
        while rest.len() < length {
            if !more(stream, &mut rest).await {
                response.is_complete = false;
                break;
            }
        }
        *bytes = rest.split_off(length.min(rest.len()));
    } else {
        while more(stream, &mut rest).await {}
    }
    response.body = rest;
    Some(response)
}

async fn more(stream: &mut TcpStream, into: &mut Vec<u8>) -> bool {
    into.reserve(256 << 10);
    matches!(stream.read_buf(into).await, Ok(count) if count > 0)
}
