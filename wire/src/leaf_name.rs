//! The one URI in the subject alternative name of each leaf: who it speaks for, what it is for, and its issue number.
//!
//! A leaf carries its issue number so that a peer can refuse everything below a server's lowest accepted number at
//! once, without waiting for expiry.

use std::fmt;
use std::str::FromStr;

use crate::identifier::{MemberId, ServerId, decode_part, encode_part};

/// The scheme of the URI.
pub const SCHEME: &str = "saatkond://";

/// Who a leaf speaks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum LeafName {
    /// A security server towards its peers and the link (TLS).
    Authentication {
        /// The server.
        server: ServerId,
        /// Rises with each issuance for this server.
        issue: u64,
    },
    /// A member's signature on messages, made on one of the servers that serve it.
    Signing {
        /// The member that signs.
        member: MemberId,
        /// The server that holds the key.
        server: ServerId,
        /// Rises with each issuance for this server.
        issue: u64,
    },
    /// The operator's link endpoint (TLS server).
    Link {
        /// The instance whose gateways it answers.
        instance: String,
    },
}

/// The text is not the name of a leaf of this federation.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("not the URI of a leaf: {why}")]
pub struct LeafNameError {
    why: &'static str,
}

impl fmt::Display for LeafName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authentication { server, issue } => write!(f, "{SCHEME}{server}?use=authentication&issue={issue}"),
            Self::Signing { member, server, issue } => {
                // `&` and `=` may stand unescaped in an identifier, but separate here: escape the whole value once more.
                let value = escape(&server.to_string());
                write!(f, "{SCHEME}{member}?use=signing&server={value}&issue={issue}")
            }
            Self::Link { instance } => write!(f, "{SCHEME}{}/link?use=link", encode_part(instance)),
        }
    }
}

fn escape(text: &str) -> String {
    percent_encoding::utf8_percent_encode(text, percent_encoding::NON_ALPHANUMERIC).to_string()
}

impl FromStr for LeafName {
    type Err = LeafNameError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let fail = |why| LeafNameError { why };
        let rest = text.strip_prefix(SCHEME).ok_or(fail("another scheme"))?;
        let (path, query) = rest.split_once('?').ok_or(fail("no query"))?;
        let mut fields = query.split('&');
        let mut field = |name: &'static str, why| {
            let pair = fields.next().and_then(|pair| pair.split_once('=')).filter(|(key, _)| *key == name);
            pair.map(|(_, value)| value).ok_or(fail(why))
        };
        let issue = |text: &str| text.parse().map_err(|_| fail("the issue number is not a number"));
        let name = match field("use", "no use")? {
            "authentication" => Self::Authentication {
                server: path.parse().map_err(|_| fail("not a security server"))?,
                issue: issue(field("issue", "no issue number")?)?,
            },
            "signing" => {
                let value = decode_part(field("server", "no server")?, "server").map_err(|_| fail("not a server"))?;
                Self::Signing {
                    member: path.parse().map_err(|_| fail("not a member"))?,
                    server: value.parse().map_err(|_| fail("not a security server"))?,
                    issue: issue(field("issue", "no issue number")?)?,
                }
            }
            "link" => {
                let instance = path.strip_suffix("/link").ok_or(fail("not a link"))?;
                Self::Link { instance: decode_part(instance, "instance").map_err(|_| fail("not an instance"))? }
            }
            _ => return Err(fail("unknown use")),
        };
        // One name has one text: anything else (extra fields, another order or escaping) is not ours.
        if name.to_string() == text { Ok(name) } else { Err(fail("not in canonical form")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_name_survives_its_text() {
        let member = MemberId { instance: "EE".into(), member_class: "G&V=".into(), member_code: "7/0?".into() };
        let server = ServerId { owner: member.clone(), server_code: "ss 1".into() };
        for name in [
            LeafName::Authentication { server: server.clone(), issue: 7 },
            LeafName::Signing { member, server, issue: u64::MAX },
            LeafName::Link { instance: "Ö/".into() },
        ] {
            assert_eq!(name.to_string().parse::<LeafName>().unwrap(), name, "{name}");
        }
    }

    #[test]
    fn foreign_names_are_refused() {
        for text in [
            "https://EE/GOV/1/ss1?use=authentication&issue=1",
            "saatkond://EE/GOV/1/ss1",
            "saatkond://EE/GOV/1?use=authentication&issue=1",
            "saatkond://EE/GOV/1/ss1?use=authentication&issue=-1",
            "saatkond://EE/GOV/1/ss1?use=authentication&issue=01",
            "saatkond://EE/GOV/1/ss1?use=authentication&issue=1&use=link",
            "saatkond://EE/GOV/1/ss1?issue=1&use=authentication",
            "saatkond://EE/GOV/%31/ss1?use=authentication&issue=1",
            "saatkond://EE/GOV/1/ss1?use=other&issue=1",
        ] {
            assert!(text.parse::<LeafName>().is_err(), "{text}");
        }
    }
}
