//! X-Road identifiers: instance, member, subsystem, service, security server.
//!
//! On the wire they are compared byte for byte after percent-decoding: never by case folding, never by Unicode
//! normalisation (X-Road message protocol for REST, PR-REST 4.8). Which characters a *declared* identifier may hold is
//! the custom resources' business; here a code is only required not to be empty and to stay within [`MAX_CODE_LENGTH`].

use std::fmt;
use std::str::FromStr;

use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use serde::{Deserialize, Serialize};

/// The longest code accepted from the wire, in bytes after decoding (X-Road stores 255 characters).
pub const MAX_CODE_LENGTH: usize = 1020;

/// What stays as it is when an identifier part is written: RFC 3986 path characters as X-Road's encoder leaves them
/// (`A-Za-z0-9 - . _ ~ ! $ ' ( ) * , ; & = @ : +`), so that the ids in answers are the bytes that callers know.
const PART: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~')
    .remove(b'!')
    .remove(b'$')
    .remove(b'\'')
    .remove(b'(')
    .remove(b')')
    .remove(b'*')
    .remove(b',')
    .remove(b';')
    .remove(b'&')
    .remove(b'=')
    .remove(b'@')
    .remove(b':')
    .remove(b'+');

/// Why a text is not an identifier. The message names the part, never more than 80 characters of its content.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// The number of `/`-separated parts is not one that this identifier can have.
    #[error("{kind} has {found} parts separated by '/', expected {expected}")]
    Parts {
        /// What was being read, for example `client id`.
        kind: &'static str,
        /// How many parts the text has.
        found: usize,
        /// What would have been right.
        expected: &'static str,
    },
    /// A part is empty.
    #[error("the {part} is empty")]
    Empty {
        /// The name of the part.
        part: &'static str,
    },
    /// A part is longer than [`MAX_CODE_LENGTH`].
    #[error("the {part} is longer than {MAX_CODE_LENGTH} bytes")]
    TooLong {
        /// The name of the part.
        part: &'static str,
    },
    /// A part is not valid percent-encoded UTF-8.
    #[error("the {part} is not valid percent-encoded UTF-8")]
    Encoding {
        /// The name of the part.
        part: &'static str,
    },
}

/// Percent-encodes one identifier part for a URL path or an `X-Road-*` header.
#[must_use]
pub fn encode_part(part: &str) -> String {
    utf8_percent_encode(part, PART).to_string()
}

/// Decodes one identifier part strictly: RFC 3986 `pchar` and `%XX` only, UTF-8 after decoding, not empty.
///
/// Strictness matters: two servers that read one spelling differently would check rights for one party and call
/// another.
pub fn decode_part(raw: &str, part: &'static str) -> Result<String, IdentifierError> {
    if raw.is_empty() {
        return Err(IdentifierError::Empty { part });
    }
    let bytes = decode_strict(raw.as_bytes()).ok_or(IdentifierError::Encoding { part })?;
    let text = String::from_utf8(bytes).map_err(|_| IdentifierError::Encoding { part })?;
    if text.len() > MAX_CODE_LENGTH {
        return Err(IdentifierError::TooLong { part });
    }
    if text.trim().is_empty() {
        return Err(IdentifierError::Empty { part });
    }
    Ok(text)
}

/// Percent-decodes bytes that may hold only RFC 3986 `pchar`; `None` for anything else, a lone `%` or bad hex.
#[must_use]
pub fn decode_strict(raw: &[u8]) -> Option<Vec<u8>> {
    let hex = |byte: u8| (byte as char).to_digit(16);
    let mut out = Vec::with_capacity(raw.len());
    let mut rest = raw.iter().copied();
    while let Some(byte) = rest.next() {
        match byte {
            b'%' => {
                let (high, low) = (hex(rest.next()?)?, hex(rest.next()?)?);
                out.push(u8::try_from(high * 16 + low).ok()?);
            }
            b'A'..=b'Z'
            | b'a'..=b'z'
            | b'0'..=b'9'
            | b'-'
            | b'.'
            | b'_'
            | b'~'
            | b'!'
            | b'$'
            | b'&'
            | b'\''
            | b'('
            | b')'
            | b'*'
            | b'+'
            | b','
            | b';'
            | b'='
            | b':'
            | b'@' => out.push(byte),
            _ => return None,
        }
    }
    Some(out)
}

fn split<const MIN: usize, const MAX: usize>(
    text: &str,
    kind: &'static str,
    expected: &'static str,
    names: [&'static str; MAX],
) -> Result<Vec<String>, IdentifierError> {
    let found = text.split('/').count();
    if !(MIN..=MAX).contains(&found) {
        return Err(IdentifierError::Parts { kind, found, expected });
    }
    text.split('/').zip(names).map(|(raw, part)| decode_part(raw, part)).collect()
}

/// A member of an instance: `{instance}/{memberClass}/{memberCode}`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct MemberId {
    /// The instance, for example `EE`.
    pub instance: String,
    /// The member class, for example `GOV`.
    pub member_class: String,
    /// The member code, for example `70000001`.
    pub member_code: String,
}

/// A client of a security server: a member or one of its subsystems.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClientId {
    /// The member.
    #[serde(flatten)]
    pub member: MemberId,
    /// The subsystem code; absent for the member itself.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub subsystem: Option<String>,
}

/// A service: a subsystem's client id and the service code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceId {
    /// The providing subsystem. In r1 the subsystem is always present (gateway.md 2.1).
    #[serde(flatten)]
    pub client: ClientId,
    /// The service code.
    pub service: String,
}

/// A security server: its owner and the server code.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ServerId {
    /// The member that owns the server.
    #[serde(flatten)]
    pub owner: MemberId,
    /// The server code, unique per owner.
    pub server_code: String,
}

impl MemberId {
    /// The member itself as a client.
    #[must_use]
    pub fn client(&self) -> ClientId {
        ClientId { member: self.clone(), subsystem: None }
    }

    /// One of the member's subsystems as a client.
    #[must_use]
    pub fn subsystem(&self, code: impl Into<String>) -> ClientId {
        ClientId { member: self.clone(), subsystem: Some(code.into()) }
    }
}

impl ServiceId {
    /// Builds the id of a service of `client`.
    #[must_use]
    pub fn new(client: ClientId, service: impl Into<String>) -> Self {
        Self { client, service: service.into() }
    }
}

impl fmt::Display for MemberId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}/{}/{}",
            encode_part(&self.instance),
            encode_part(&self.member_class),
            encode_part(&self.member_code)
        )
    }
}

impl fmt::Display for ClientId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.member.fmt(f)?;
        match &self.subsystem {
            Some(code) => write!(f, "/{}", encode_part(code)),
            None => Ok(()),
        }
    }
}

impl fmt::Display for ServiceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.client, encode_part(&self.service))
    }
}

impl fmt::Display for ServerId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.owner, encode_part(&self.server_code))
    }
}

const NAMES: [&str; 4] = ["instance", "member class", "member code", "subsystem code"];

impl FromStr for MemberId {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let parts = split::<3, 3>(text, "member id", "3", [NAMES[0], NAMES[1], NAMES[2]])?;
        let [instance, member_class, member_code] = parts.try_into().map_err(|_| parts_error("member id", "3"))?;
        Ok(Self { instance, member_class, member_code })
    }
}

impl FromStr for ClientId {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = split::<3, 4>(text, "client id", "3 or 4", NAMES)?;
        let subsystem = if parts.len() == 4 { parts.pop() } else { None };
        let [instance, member_class, member_code] = parts.try_into().map_err(|_| parts_error("client id", "3 or 4"))?;
        Ok(Self { member: MemberId { instance, member_class, member_code }, subsystem })
    }
}

impl FromStr for ServiceId {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = [NAMES[0], NAMES[1], NAMES[2], NAMES[3], "service code"];
        let parts = split::<5, 5>(text, "service id", "5", names)?;
        let [instance, member_class, member_code, subsystem, service] =
            parts.try_into().map_err(|_| parts_error("service id", "5"))?;
        let member = MemberId { instance, member_class, member_code };
        Ok(Self { client: ClientId { member, subsystem: Some(subsystem) }, service })
    }
}

impl FromStr for ServerId {
    type Err = IdentifierError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let names = [NAMES[0], NAMES[1], NAMES[2], "server code"];
        let parts = split::<4, 4>(text, "security server id", "4", names)?;
        let [instance, member_class, member_code, server_code] =
            parts.try_into().map_err(|_| parts_error("security server id", "4"))?;
        Ok(Self { owner: MemberId { instance, member_class, member_code }, server_code })
    }
}

/// `split` has already checked the count; this keeps the conversion total without a panic.
fn parts_error(kind: &'static str, expected: &'static str) -> IdentifierError {
    IdentifierError::Parts { kind, found: 0, expected }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn client(text: &str) -> Result<ClientId, IdentifierError> {
        text.parse()
    }

    #[test]
    fn texts_and_their_identifiers() {
        let with_slash = client("EE/GOV/1/sub%2Fsystem").unwrap();
        assert_eq!(with_slash.subsystem.as_deref(), Some("sub/system"));
        assert_eq!(with_slash.to_string(), "EE/GOV/1/sub%2Fsystem");
        assert_eq!(client("EE/GOV/%C3%96%C3%84").unwrap().member.member_code, "ÖÄ");
        assert_eq!(client("EE/GOV/1").unwrap().subsystem, None);
        assert_ne!(client("EE/GOV/1/Pets").unwrap(), client("EE/GOV/1/pets").unwrap());
    }

    #[test]
    fn what_is_refused() {
        for (text, want) in [
            ("EE/GOV", IdentifierError::Parts { kind: "client id", found: 2, expected: "3 or 4" }),
            ("EE/GOV/1/s/x", IdentifierError::Parts { kind: "client id", found: 5, expected: "3 or 4" }),
            ("EE/GOV/1/", IdentifierError::Empty { part: "subsystem code" }),
            ("EE//1", IdentifierError::Empty { part: "member class" }),
            ("EE/GOV/%20", IdentifierError::Empty { part: "member code" }),
            ("EE/GOV/%", IdentifierError::Encoding { part: "member code" }),
            ("EE/GOV/%zz", IdentifierError::Encoding { part: "member code" }),
            ("EE/GOV/%FF", IdentifierError::Encoding { part: "member code" }),
            ("EE/GOV/a b", IdentifierError::Encoding { part: "member code" }),
            ("EE/GOV/ä", IdentifierError::Encoding { part: "member code" }),
        ] {
            assert_eq!(client(text), Err(want), "{text}");
        }
    }

    #[test]
    fn a_code_may_be_just_as_long_as_the_bound() {
        let longest = "x".repeat(MAX_CODE_LENGTH);
        assert!(decode_part(&longest, "code").is_ok());
        assert_eq!(decode_part(&format!("{longest}x"), "code"), Err(IdentifierError::TooLong { part: "code" }));
    }

    proptest! {
        #[test]
        fn every_identifier_survives_its_text(parts in proptest::collection::vec("\\PC{1,20}", 5)) {
            prop_assume!(parts.iter().all(|part| !part.trim().is_empty()));
            let member = MemberId {
                instance: parts[0].clone(), member_class: parts[1].clone(), member_code: parts[2].clone(),
            };
            let service = ServiceId::new(member.subsystem(&parts[3]), &parts[4]);
            prop_assert_eq!(service.to_string().parse::<ServiceId>().unwrap(), service);
            let server = ServerId { owner: member, server_code: parts[4].clone() };
            prop_assert_eq!(server.to_string().parse::<ServerId>().unwrap(), server);
        }
    }
}
