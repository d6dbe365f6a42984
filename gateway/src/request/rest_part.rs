//! The REST part (`M` in gateway.md 4): request line or status line and the headers that travel, as they are signed, hashed
//! and logged. What one server writes here, the other reads: both forms have one writer and one strict reader.

use bytes::Bytes;

use super::headers::Line;

/// The most headers: as many as a caller may send, and what gateways add. Each costs far more memory than its bytes.
const MAX_LINES: usize = crate::http1::head::MAX_LINES + 16;

/// The methods that are carried.
pub const METHODS: &[&str] = &["DELETE", "GET", "HEAD", "OPTIONS", "PATCH", "POST", "PUT", "TRACE"];

/// The method as one of [`METHODS`]; exact upper case.
#[must_use]
pub fn method(text: &str) -> Option<&'static str> {
    METHODS.iter().find(|method| **method == text).copied()
}

/// The REST part of a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RequestPart {
    /// One of [`METHODS`].
    pub method: &'static str,
    /// The raw path, beginning with `/r1/`.
    pub path: String,
    /// The raw query without its `?`.
    pub query: Option<String>,
    /// The headers, in order.
    pub headers: Vec<Line>,
}

/// The REST part of an answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AnswerPart {
    /// 100 to 999.
    pub status: u16,
    /// The reason phrase; carried, never shown to the caller.
    pub reason: String,
    /// The headers, in order.
    pub headers: Vec<Line>,
}

/// The bytes are not a REST part.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed REST part: {0}")]
pub struct RestPartError(&'static str);

impl RequestPart {
    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + self.path.len() + lengths(&self.headers));
        out.extend_from_slice(self.method.as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.path.as_bytes());
        if let Some(query) = &self.query {
            out.push(b'?');
            out.extend_from_slice(query.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
        write_lines(&self.headers, &mut out);
        out.into()
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RestPartError> {
        let mut lines = lines(bytes)?;
        let method = lines.next().and_then(method).ok_or(RestPartError("unknown method"))?;
        let target = lines.next().ok_or(RestPartError("no target"))?;
        if !target.bytes().all(|byte| matches!(byte, b'!'..=b'~')) {
            return Err(RestPartError("the target holds what none may"));
        }
        let (path, query) = match target.split_once('?') {
            Some((path, query)) => (path, Some(query.to_owned())),
            None => (target, None),
        };
        Ok(Self { method, path: path.to_owned(), query, headers: read_lines(lines)? })
    }
}

impl AnswerPart {
    /// Writes it.
    #[must_use]
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(64 + lengths(&self.headers));
        out.extend_from_slice(self.status.to_string().as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(self.reason.as_bytes());
        out.extend_from_slice(b"\r\n");
        write_lines(&self.headers, &mut out);
        out.into()
    }

    /// Reads it.
    pub fn decode(bytes: &[u8]) -> Result<Self, RestPartError> {
        let mut lines = lines(bytes)?;
        let status = lines.next().filter(|text| text.len() == 3).and_then(|text| text.parse().ok());
        let status = status.filter(|status| (200..=999).contains(status)).ok_or(RestPartError("unknown status"))?;
        let reason = lines.next().ok_or(RestPartError("no reason"))?.to_owned();
        Ok(Self { status, reason, headers: read_lines(lines)? })
    }

    /// The values of a header.
    pub fn values<'a>(&'a self, name: &'a str) -> impl Iterator<Item = &'a [u8]> {
        self.headers.iter().filter(move |line| line.is(name)).map(|line| line.value.as_ref())
    }
}

fn lengths(headers: &[Line]) -> usize {
    headers.iter().map(|line| line.name.len() + line.value.len() + 3).sum()
}

/// Writes lines with values in the UTF-8 form of their ISO-8859-1 characters, so that the part is a text and yet no byte of a
/// value is lost.
fn write_lines(headers: &[Line], out: &mut Vec<u8>) {
    for line in headers {
        out.extend_from_slice(&line.name);
        out.push(b':');
        for byte in line.value.iter().copied() {
            if byte < 0x80 {
                out.push(byte);
            } else {
                out.extend_from_slice(&[0xc0 | (byte >> 6), 0x80 | (byte & 0x3f)]);
            }
        }
        out.extend_from_slice(b"\r\n");
    }
}

fn lines(bytes: &[u8]) -> Result<impl Iterator<Item = &str>, RestPartError> {
    let text = std::str::from_utf8(bytes).map_err(|_| RestPartError("not UTF-8"))?;
    let text = text.strip_suffix("\r\n").ok_or(RestPartError("it does not end with a line end"))?;
    Ok(text.split("\r\n"))
}

fn read_lines<'a>(lines: impl Iterator<Item = &'a str>) -> Result<Vec<Line>, RestPartError> {
    let mut out = Vec::new();
    for line in lines {
        if out.len() == MAX_LINES {
            return Err(RestPartError("too many headers"));
        }
        let (name, value) = line.split_once(':').ok_or(RestPartError("a line without a colon"))?;
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(RestPartError("a header name that is no token"));
        }
        let mut bytes = Vec::with_capacity(value.len());
        for character in value.chars() {
            match u8::try_from(u32::from(character)) {
                Ok(byte) if byte == b'\t' || byte >= b' ' && byte != 0x7f => bytes.push(byte),
                _ => return Err(RestPartError("a header value with a character that none may hold")),
            }
        }
        out.push(Line::new(name.as_bytes().to_vec(), bytes));
    }
    Ok(out)
}

/// RFC 9110 5.6.2.
#[must_use]
pub fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_request_is_written_as_the_rule_says() {
        let part = RequestPart {
            method: "GET",
            path: "/r1/I/C/M/S/x".into(),
            query: Some(String::new()),
            headers: vec![
                Line::new("X-Road-Client", "I/C/M"),
                Line::new("X-Ä"[..2].to_owned(), vec![0xc4, b' ', 0x80]),
            ],
        };
        let bytes = part.encode();
        assert_eq!(bytes, "GET\r\n/r1/I/C/M/S/x?\r\nX-Road-Client:I/C/M\r\nX-:Ä \u{80}\r\n".as_bytes());
        assert_eq!(RequestPart::decode(&bytes).unwrap(), part);
    }

    #[test]
    fn what_is_no_rest_part() {
        for text in [
            "",
            "GET",
            "GET\r\n",
            "GET\r\n/x\r\nA",
            "GET\r\n/x\r\nA\r\n",
            "GET\r\n/x\r\n:v\r\n",
            "GET\r\n/x\r\nA b:v\r\n",
            "GET\r\n/x y\r\n",
            "get\r\n/x\r\n",
            "CONNECT\r\n/x\r\n",
            "GET\r\n/x\r\nA:b\nc\r\n",
            "GET\r\n/x\r\nA:\u{100}\r\n",
            "GET\r\n/x\r\nA:\u{7f}\r\n",
            "GET\r\n/ä\r\n",
        ] {
            assert!(RequestPart::decode(text.as_bytes()).is_err(), "{text:?}");
        }
        for text in
            ["", "200\r\n", "99\r\nOK\r\n", "0200\r\nOK\r\n", "101\r\nUpgrade\r\n", "+20\r\nOK\r\n", "200\r\nOK"]
        {
            assert!(AnswerPart::decode(text.as_bytes()).is_err(), "{text:?}");
        }
        assert!(RequestPart::decode(b"GET\r\n/x\r\nA:\xff\r\n").is_err());
    }

    proptest! {
        #[test]
        fn t212_every_header_byte_survives(value in proptest::collection::vec(
            prop_oneof![Just(b'\t'), b' '..=b'~', 0x80u8..=0xff], 0..50), status in 200u16..=999) {
            let part = AnswerPart { status, reason: "OK".into(), headers: vec![Line::new("X", value)] };
            prop_assert_eq!(AnswerPart::decode(&part.encode()).unwrap(), part);
        }

        #[test]
        fn no_bytes_make_the_reader_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = RequestPart::decode(&bytes);
            let _ = AnswerPart::decode(&bytes);
        }
    }
}
