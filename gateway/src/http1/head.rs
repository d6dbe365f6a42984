//! Request heads: read strictly, or refused before anything is made of them (gateway.md 2.2).

use bytes::{Buf as _, Bytes, BytesMut};
use http::StatusCode;

use crate::request::headers::Line;

/// The longest request target, in bytes.
pub const MAX_TARGET: usize = 8 << 10;
/// All header lines together, in bytes.
pub const MAX_HEADERS: usize = 16 << 10;
/// The most header lines.
pub const MAX_LINES: usize = 200;
const MAX_REQUEST_LINE: usize = MAX_TARGET + 64;

/// A request head that has one reading.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Head {
    /// The method, any token.
    pub method: String,
    /// The raw path; `*` for the whole server.
    pub path: String,
    /// The raw query without its `?`.
    pub query: Option<String>,
    /// Whether it is HTTP/1.1; else 1.0.
    pub is_11: bool,
    /// All header lines in order.
    pub lines: Vec<Line>,
    /// How the body is framed.
    pub framing: Framing,
    /// Whether the caller wants to go on with this connection.
    pub keep_alive: bool,
    /// Whether the caller waits for `100 Continue` before it sends the body.
    pub expects_continue: bool,
}

/// How a body is framed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Framing {
    /// So many bytes; none without a header.
    Length(u64),
    /// In chunks.
    Chunked,
}

/// A head that nobody may act on. The connection is closed after it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{why}")]
pub struct Refusal {
    /// The answer.
    pub status: StatusCode,
    /// For the caller, and a metric label: one of a fixed set.
    pub why: &'static str,
}

fn refuse<T>(status: u16, why: &'static str) -> Result<T, Refusal> {
    Err(Refusal { status: StatusCode::from_u16(status).unwrap_or(StatusCode::BAD_REQUEST), why })
}

/// Takes one head off the front of `buffer`; `None` while it is not complete.
pub fn take(buffer: &mut BytesMut) -> Result<Option<Head>, Refusal> {
    let mut slots = [httparse::EMPTY_HEADER; MAX_LINES];
    let mut request = httparse::Request::new(&mut slots);
    let status = match request.parse(buffer) {
        Ok(status) => status,
        Err(httparse::Error::Version) if buffer.starts_with(b"PRI * HTTP/2") => {
            return refuse(426, "HTTP/2 is not spoken here");
        }
        Err(httparse::Error::Version) if has_version(buffer) => return refuse(505, "unknown HTTP version"),
        Err(httparse::Error::TooManyHeaders) => return refuse(431, "too many header lines"),
        Err(httparse::Error::HeaderName) => return refuse(400, "malformed header name"),
        Err(httparse::Error::HeaderValue) => return refuse(400, "malformed header value"),
        Err(_) => return refuse(400, "malformed request line"),
    };
    let length = match status {
        httparse::Status::Complete(length) => length,
        httparse::Status::Partial => return bounds(buffer).map(|()| None),
    };
    bounds(&buffer[..length])?;
    let (Some(method), Some(target), Some(version)) = (request.method, request.path, request.version) else {
        return refuse(400, "malformed request line");
    };
    let (method, target) = (method.to_owned(), target.to_owned());
    let spans: Vec<_> = request
        .headers
        .iter()
        .map(|header| (span(buffer, header.name.as_bytes()), span(buffer, header.value.trim_ascii())))
        .collect();
    // Copied: what lives as long as the request would keep the whole buffer, and each request would need a new one.
    let bytes = Bytes::copy_from_slice(&buffer[..length]);
    buffer.advance(length);
    let part = |(start, end): (usize, usize)| bytes.slice(start..end);
    let lines: Vec<Line> =
        spans.into_iter().map(|(name, value)| Line { name: part(name), value: part(value) }).collect();
    judge(method, &target, version == 1, lines).map(Some)
}

/// Whether the request line has the three parts that it should, the last of them a version: a raw blank in the target moves what
/// should be the version.
fn has_version(head: &[u8]) -> bool {
    let line = head.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let mut parts = line.split(|byte| *byte == b' ');
    parts.nth(2).is_some_and(|version| version.starts_with(b"HTTP/")) && parts.next().is_none()
}

/// Where `part` lies in `whole`, of which it is a slice. An empty slice may lie anywhere.
fn span(whole: &[u8], part: &[u8]) -> (usize, usize) {
    if part.is_empty() {
        return (0, 0);
    }
    let start = part.as_ptr().addr() - whole.as_ptr().addr();
    (start, start + part.len())
}

fn bounds(head: &[u8]) -> Result<(), Refusal> {
    // Empty lines before a request are allowed (RFC 9112 2.2) and count as headers here.
    let start = head.iter().position(|byte| !matches!(byte, b'\r' | b'\n')).unwrap_or(head.len());
    let line = head[start..].iter().position(|byte| *byte == b'\n');
    if line.unwrap_or(head.len() - start) > MAX_REQUEST_LINE {
        return refuse(414, "the request target is too long");
    }
    if head.len() - line.unwrap_or(0) > MAX_HEADERS + 2 * MAX_REQUEST_LINE * usize::from(line.is_none()) {
        return refuse(431, "the headers are too long");
    }
    Ok(())
}

fn judge(method: String, target: &str, is_11: bool, lines: Vec<Line>) -> Result<Head, Refusal> {
    if method == "CONNECT" {
        return refuse(400, "CONNECT is not served");
    }
    if target.len() > MAX_TARGET {
        return refuse(414, "the request target is too long");
    }
    // Everything that no URI may hold raw and that some parser would cut, fold or decode in its own way.
    if !target.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
        return refuse(400, "malformed request target");
    }
    let all = |name: &'static str| lines.iter().filter(move |line| line.is(name)).map(|line| &line.value);
    let one = |name: &'static str, why| {
        let mut values = all(name);
        let first = values.next();
        if values.next().is_some() { refuse(400, why) } else { Ok(first) }
    };
    let host = one("Host", "more than one Host")?;
    if host.is_none() && is_11 {
        return refuse(400, "no Host");
    }
    let framing = match (one("Transfer-Encoding", "more than one Transfer-Encoding")?, content_length(&lines)?) {
        (Some(_), Some(_)) => return refuse(400, "Transfer-Encoding with Content-Length"),
        (Some(_), None) if !is_11 => return refuse(400, "Transfer-Encoding in HTTP/1.0"),
        (Some(coding), None) if coding.eq_ignore_ascii_case(b"chunked") => Framing::Chunked,
        (Some(_), None) => return refuse(400, "unknown Transfer-Encoding"),
        (None, length) => Framing::Length(length.unwrap_or(0)),
    };
    let expects_continue = match one("Expect", "more than one Expect")? {
        Some(value) if value.eq_ignore_ascii_case(b"100-continue") => is_11,
        Some(_) => return refuse(417, "unknown expectation"),
        None => false,
    };
    let tokens = || all("Connection").flat_map(|value| value.split(|byte| *byte == b',')).map(<[u8]>::trim_ascii);
    let says = |word: &str| tokens().any(|token| token.eq_ignore_ascii_case(word.as_bytes()));
    let keep_alive = if is_11 { !says("close") } else { says("keep-alive") };
    let (path, query) = origin_form(target, host)?;
    Ok(Head { method, path, query, is_11, lines, framing, keep_alive, expects_continue })
}

fn content_length(lines: &[Line]) -> Result<Option<u64>, Refusal> {
    let mut values = lines.iter().filter(|line| line.is("Content-Length"));
    let Some(line) = values.next() else { return Ok(None) };
    // Also when equal: whoever sends two has a second opinion somewhere.
    if values.next().is_some() {
        return refuse(400, "more than one Content-Length");
    }
    let digits = std::str::from_utf8(&line.value).ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse().ok()) {
        Some(length) => Ok(Some(length)),
        None => refuse(400, "malformed Content-Length"),
    }
}

/// Path and query of a target in origin form, absolute form (of this very host) or asterisk form.
fn origin_form(target: &str, host: Option<&Bytes>) -> Result<(String, Option<String>), Refusal> {
    let mut rest = target;
    if !target.starts_with('/') && target != "*" {
        let lower = target.get(..7).map(str::to_ascii_lowercase);
        let Some(after) = lower.filter(|start| start == "http://").map(|_| &target[7..]) else {
            return refuse(400, "malformed request target");
        };
        let end = after.find(['/', '?', '#']).unwrap_or(after.len());
        let (authority, path) = after.split_at(end);
        if host.is_some_and(|host| !host.eq_ignore_ascii_case(authority.as_bytes())) {
            return refuse(400, "the target is of another host");
        }
        rest = path;
    }
    // A fragment is the caller's own business and never part of a request.
    let rest = rest.split_once('#').map_or(rest, |(before, _)| before);
    let (path, query) = match rest.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (rest, None),
    };
    Ok((if path.is_empty() { "/" } else { path }.to_owned(), query))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(text: &[u8]) -> Result<Option<Head>, Refusal> {
        take(&mut BytesMut::from(text))
    }

    fn good(text: &str) -> Head {
        read(text.as_bytes()).unwrap().unwrap()
    }

    #[test]
    fn order_spelling_and_bytes_of_lines_stay() {
        let mut buffer = BytesMut::from(
            &b"\r\nPOST /a?b#c HTTP/1.1\r\nhOsT: h\r\nX-B:\r\nx-a:  \xc4 \r\nX-B: 2\r\ncontent-length: 3\r\n\r\nabcGET"
                [..],
        );
        let head = take(&mut buffer).unwrap().unwrap();
        let lines: Vec<_> = head.lines.iter().map(|line| (&line.name[..], &line.value[..])).collect();
        assert_eq!(
            lines,
            [(&b"hOsT"[..], &b"h"[..]), (b"X-B", b""), (b"x-a", b"\xc4"), (b"X-B", b"2"), (b"content-length", b"3")]
        );
        assert_eq!((head.path.as_str(), head.query.as_deref(), head.framing), ("/a", Some("b"), Framing::Length(3)));
        assert_eq!(&buffer[..], b"abcGET");
    }

    #[test]
    fn t205_t206_t208_what_could_be_read_in_two_ways_is_refused() {
        let start = "POST /r1/x HTTP/1.1\r\n";
        for (head, status) in [
            ("Host: h\r\nContent-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("Host: h\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n", 400),
            ("Host: h\r\nContent-Length: 3\r\nContent-Length: 3\r\n\r\n", 400),
            ("Host: h\r\nContent-Length: 3\r\nContent-Length: 4\r\n\r\n", 400),
            ("Host: h\r\nContent-Length: 3, 3\r\n\r\n", 400),
            ("Host: h\r\nContent-Length: +3\r\n\r\n", 400),
            ("Host: h\r\nContent-Length: 0x3\r\n\r\n", 400),
            ("Host: h\r\nContent-Length: \r\n\r\n", 400),
            ("Host: h\r\nContent-Length: 99999999999999999999\r\n\r\n", 400),
            ("Host: h\r\nTransfer-Encoding: gzip\r\n\r\n", 400),
            ("Host: h\r\nTransfer-Encoding: gzip, chunked\r\n\r\n", 400),
            ("Host: h\r\nTransfer-Encoding: chunked, chunked\r\n\r\n", 400),
            ("Host: h\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n", 400),
            ("Host: h\r\nTransfer-Encoding : chunked\r\n\r\n", 400),
            ("Host: h\r\nTransfer-Encoding: \u{b}chunked\r\n\r\n", 400),
            ("\r\n", 400),
            ("Host: h\r\nHost: h\r\n\r\n", 400),
            ("Host: h\r\nX: a\r\n b\r\n\r\n", 400),
            ("Host: h\r\nX: a\0b\r\n\r\n", 400),
            ("Host: h\r\nX: a\rb\r\n\r\n", 400),
            ("Host: h\r\nno colon\r\n\r\n", 400),
            ("Host: h\r\nX Y: a\r\n\r\n", 400),
            ("Host: h\r\nExpect: 200-ok\r\n\r\n", 417),
        ] {
            let refused = read(format!("{start}{head}").as_bytes()).unwrap_err();
            assert_eq!(refused.status.as_u16(), status, "{head:?}: {refused}");
        }
        for (text, status) in [
            ("CONNECT h:80 HTTP/1.1\r\nHost: h:80\r\n\r\n", 400),
            ("GET /a b HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET /ä HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET a HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET http://other/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET https://h/ HTTP/1.1\r\nHost: h\r\n\r\n", 400),
            ("GET / HTTP/3.0\r\nHost: h\r\n\r\n", 505),
            ("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 426),
            ("POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
            ("GET\r\n\r\n", 400),
            ("\u{16}\u{3}\u{1}\u{2}\0", 400),
        ] {
            let refused = read(text.as_bytes()).unwrap_err();
            assert_eq!(refused.status.as_u16(), status, "{text:?}: {refused}");
        }
    }

    #[test]
    fn t018_bounds() {
        let with = |target: usize, header: usize| {
            format!("GET /{} HTTP/1.1\r\nHost: h\r\nX: {}\r\n\r\n", "a".repeat(target - 1), "b".repeat(header))
        };
        assert!(read(with(MAX_TARGET, 10).as_bytes()).unwrap().is_some());
        assert_eq!(read(with(MAX_TARGET + 1, 10).as_bytes()).unwrap_err().status.as_u16(), 414);
        assert!(read(with(10, MAX_HEADERS - 100).as_bytes()).unwrap().is_some());
        assert_eq!(read(with(10, MAX_HEADERS).as_bytes()).unwrap_err().status.as_u16(), 431);
        // The same without an end in sight: refused as soon as the bound is passed, not collected for ever.
        let endless = format!("GET /{}", "a".repeat(MAX_TARGET + 100));
        assert_eq!(read(endless.as_bytes()).unwrap_err().status.as_u16(), 414);
        let endless = format!("GET / HTTP/1.1\r\nX: {}", "a".repeat(MAX_HEADERS + 10));
        assert_eq!(read(endless.as_bytes()).unwrap_err().status.as_u16(), 431);
        let many = format!("GET / HTTP/1.1\r\nHost: h\r\n{}\r\n", "a:b\r\n".repeat(MAX_LINES));
        assert_eq!(read(many.as_bytes()).unwrap_err().status.as_u16(), 431);
        assert!(read(b"GET / HT").unwrap().is_none());
    }

    #[test]
    fn t216_versions_and_persistence() {
        for (text, is_11, keep_alive) in [
            ("GET / HTTP/1.1\r\nHost: h\r\n\r\n", true, true),
            ("GET / HTTP/1.1\r\nHost: h\r\nConnection: x, Close\r\n\r\n", true, false),
            ("GET / HTTP/1.0\r\n\r\n", false, false),
            ("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n", false, true),
            ("GET / HTTP/1.1\nHost: h\n\n", true, true),
            ("GET http://H/ HTTP/1.1\r\nHost: h\r\n\r\n", true, true),
            ("OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n", true, true),
        ] {
            let head = good(text);
            assert_eq!((head.is_11, head.keep_alive), (is_11, keep_alive), "{text:?}");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = read(&bytes);
            let _ = read(&[b"GET / HTTP/1.1\r\nHost: h\r\n", &bytes[..], b"\r\n\r\n"].concat());
        }
    }
}
