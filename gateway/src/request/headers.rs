//! Header lines as they arrive, which of them travel, and what X-Road's own say (gateway.md 3).

use bytes::Bytes;
use saatkond_wire::identifier::{ClientId, ServerId};

/// One header line. The name is an RFC 9110 token in the caller's spelling, the value has no surrounding blanks, no control
/// character but tab, and any bytes from 0x80 on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The name.
    pub name: Bytes,
    /// The value.
    pub value: Bytes,
}

impl Line {
    /// A line from texts that are valid by construction.
    pub fn new(name: impl Into<Bytes>, value: impl Into<Bytes>) -> Self {
        Self { name: name.into(), value: value.into() }
    }

    /// Whether the line has this name, whatever its case.
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }
}

/// X-Road's header names.
pub mod names {
    /// The calling client.
    pub const CLIENT: &str = "X-Road-Client";
    /// The message id.
    pub const ID: &str = "x-road-id";
    /// The request id, made by the consumer's server.
    pub const REQUEST_ID: &str = "x-road-request-id";
    /// The request hash, made by the provider's server.
    pub const REQUEST_HASH: &str = "x-road-request-hash";
    /// The called service, in answers.
    pub const SERVICE: &str = "x-road-service";
    /// The server that the caller wants to be served by.
    pub const SECURITY_SERVER: &str = "X-Road-Security-Server";
    /// For whom the caller asks.
    pub const REPRESENTED_PARTY: &str = "X-Road-Represented-Party";
    /// The type of an own error.
    pub const ERROR: &str = "X-Road-Error";
}

/// Never carried over in either direction: hop by hop, or revealing the origin, or ours to set.
const NEVER: &[&str] = &[
    "Connection",
    "Keep-Alive",
    "Proxy-Authenticate",
    "Proxy-Authorization",
    "Proxy-Connection",
    "TE",
    "Trailer",
    "Transfer-Encoding",
    "Upgrade",
    "Host",
    "User-Agent",
    "Server",
    "Content-Length",
    "Expect",
];

/// What a caller may not set: made anew by the servers for each exchange.
const NOT_IN_REQUESTS: &[&str] = &[names::REQUEST_ID, names::REQUEST_HASH];

/// What an information system may not set in answers: these are the servers' statements.
const NOT_IN_ANSWERS: &[&str] =
    &[names::ID, "x-road-client", names::SERVICE, names::REQUEST_ID, names::REQUEST_HASH, names::ERROR];

fn is_one_of(line: &Line, names: &[&str]) -> bool {
    names.iter().any(|name| line.is(name))
}

fn is_road(line: &Line) -> bool {
    line.name.get(..7).is_some_and(|start| start.eq_ignore_ascii_case(b"x-road-"))
}

fn travels(lines: &[Line], also_not: &'static [&'static str]) -> Vec<Line> {
    let nominated: Vec<&[u8]> = lines
        .iter()
        .filter(|line| line.is("Connection"))
        .flat_map(|line| line.value.split(|byte| *byte == b','))
        .map(<[u8]>::trim_ascii)
        .collect();
    // X-Road's own are of the message and not of a connection: who calls is read from them before, and must arrive so.
    let of_connection =
        |line: &Line| !is_road(line) && nominated.iter().any(|name| line.name.eq_ignore_ascii_case(name));
    lines
        .iter()
        .filter(|line| !is_one_of(line, NEVER) && !is_one_of(line, also_not))
        .filter(|line| !of_connection(line))
        .cloned()
        .collect()
}

/// The lines of a request that travel to the provider, in order.
#[must_use]
pub fn of_request(lines: &[Line]) -> Vec<Line> {
    travels(lines, NOT_IN_REQUESTS)
}

/// The lines of an information system's answer that travel to the caller, in order.
#[must_use]
pub fn of_answer(lines: &[Line]) -> Vec<Line> {
    travels(lines, NOT_IN_ANSWERS)
}

/// Whether a transport message holds a line that the sender had to remove: such a message is invalid.
#[must_use]
pub fn forbidden_on_the_way(lines: &[Line]) -> Option<&Line> {
    lines.iter().find(|line| is_one_of(line, NEVER))
}

/// What X-Road's own request headers say. Where one is repeated, the last counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RoadHeaders {
    /// The caller; absent where the header is.
    pub client: Option<ClientId>,
    /// The message id, if the caller gave one.
    pub id: Option<String>,
    /// The pinned server.
    pub security_server: Option<ServerId>,
}

/// Why X-Road's own headers cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invalid {name}: {why}")]
pub struct HeaderError {
    name: &'static str,
    why: String,
}

/// The longest message id: what the message log's column holds.
pub const MAX_ID: usize = 255;

fn last<'a>(lines: &'a [Line], name: &str) -> Option<&'a Line> {
    lines.iter().rev().find(|line| line.is(name))
}

fn text<'a>(line: &'a Line, name: &'static str) -> Result<&'a str, HeaderError> {
    std::str::from_utf8(&line.value)
        .ok()
        .filter(|text| text.is_ascii())
        .ok_or_else(|| HeaderError { name, why: "not percent-encoded ASCII".into() })
}

impl RoadHeaders {
    /// Reads them.
    pub fn read(lines: &[Line]) -> Result<Self, HeaderError> {
        let client = match last(lines, names::CLIENT) {
            Some(line) => {
                let id = text(line, names::CLIENT)?.parse::<ClientId>();
                Some(id.map_err(|error| HeaderError { name: names::CLIENT, why: error.to_string() })?)
            }
            None => None,
        };
        let id = match last(lines, names::ID) {
            Some(line) => {
                let fail = |why: &str| HeaderError { name: "X-Road-Id", why: why.into() };
                // Refused here rather than after the call: X-Road serves it and then fails to read the answer back.
                if line.value.trim_ascii().is_empty() {
                    return Err(fail("it is empty"));
                }
                if line.value.len() > MAX_ID {
                    return Err(fail("it is longer than 255 bytes"));
                }
                Some(latin1(&line.value))
            }
            None => None,
        };
        let security_server = match last(lines, names::SECURITY_SERVER) {
            Some(line) => {
                let id = text(line, names::SECURITY_SERVER)?.parse::<ServerId>();
                Some(id.map_err(|error| HeaderError { name: names::SECURITY_SERVER, why: error.to_string() })?)
            }
            None => None,
        };
        if let Some(line) = last(lines, names::REPRESENTED_PARTY)
            && line.value.split(|byte| *byte == b'/').count() > 2
        {
            let why = "it has more parts than class and code".into();
            return Err(HeaderError { name: names::REPRESENTED_PARTY, why });
        }
        Ok(Self { client, id, security_server })
    }
}

/// Header bytes as the characters of ISO-8859-1: every byte has one, and every one goes back.
#[must_use]
pub fn latin1(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| char::from(*byte)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lines(pairs: &[(&'static str, &'static str)]) -> Vec<Line> {
        pairs.iter().map(|(name, value)| Line::new(*name, *value)).collect()
    }

    fn names_of(lines: &[Line]) -> Vec<String> {
        lines.iter().map(|line| latin1(&line.name)).collect()
    }

    #[test]
    fn t043_t044_t050_what_never_travels() {
        let all = lines(&[
            ("Host", "evil"),
            ("user-agent", "cli"),
            ("Connection", "close, X-Secret ,x-other, X-Road-Service"),
            ("Keep-Alive", "5"),
            ("TE", "trailers"),
            ("Trailer", "x"),
            ("Upgrade", "h2c"),
            ("Proxy-Authorization", "b"),
            ("Proxy-Connection", "close"),
            ("X-Secret", "1"),
            ("X-Other", "2"),
            ("Expect", "100-continue"),
            ("Content-Length", "3"),
            ("X-ROAD-REQUEST-ID", "mine"),
            ("X-Road-Request-Hash", "h"),
            ("X-Custom", "1"),
            ("X-Custom", "2"),
            ("X-Road-Service", "as any header"),
            ("Authorization", "Bearer t"),
        ]);
        assert_eq!(names_of(&of_request(&all)), ["X-Custom", "X-Custom", "X-Road-Service", "Authorization"]);
    }

    #[test]
    fn t054_t055_t056_answers_cannot_speak_for_the_servers() {
        let all = lines(&[
            ("X-Road-Id", "1"),
            ("x-road-client", "1"),
            ("X-Road-Service", "1"),
            ("X-Road-Request-Id", "1"),
            ("X-Road-Request-Hash", "1"),
            ("X-Road-Error", "fake"),
            ("Server", "x"),
            ("Date", "d"),
        ]);
        assert_eq!(names_of(&of_answer(&all)), ["Date"]);
    }

    #[test]
    fn t022_t023_t031_t036_t037_t041_what_the_headers_say() {
        let read = |pairs: &[(&'static str, &'static str)]| RoadHeaders::read(&lines(pairs));
        let two = read(&[("X-Road-Client", "I/C/A/S"), ("x-road-client", "I/C/B/S")]).unwrap();
        assert_eq!(two.client.unwrap().to_string(), "I/C/B/S");
        assert_eq!(read(&[("X-Road-Id", "1"), ("X-Road-Id", "2")]).unwrap().id.unwrap(), "2");
        for (name, value, good) in [
            ("X-Road-Client", "I/C", false),
            ("X-Road-Client", "I/C/M", true),
            ("X-Road-Client", "I/C/M/S", true),
            ("X-Road-Client", "I/C/M/", false),
            ("X-Road-Client", "I/C/M/S/x", false),
            ("X-Road-Client", "I/C/M/%zz", false),
            ("X-Road-Client", "", false),
            ("X-Road-Id", "", false),
            ("X-Road-Represented-Party", "COM/777", true),
            ("X-Road-Represented-Party", "777", true),
            ("X-Road-Represented-Party", "/", true),
            ("X-Road-Represented-Party", "INST/COM/777", false),
            ("X-Road-Security-Server", "I/C/M/SS2", true),
            ("X-Road-Security-Server", "I/C/M", false),
            ("X-Road-Security-Server", "I/C/M/S/S", false),
        ] {
            assert_eq!(read(&[(name, value)]).is_ok(), good, "{name}: {value}");
        }
        let long: &'static str = Box::leak("x".repeat(MAX_ID + 1).into_boxed_str());
        assert!(read(&[("X-Road-Id", &long[..MAX_ID])]).is_ok());
        assert!(read(&[("X-Road-Id", long)]).is_err());
    }
}
