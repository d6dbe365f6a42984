//! X-Road identifiers as this API declares them: strict characters, bounded lengths, case-sensitive.
//!
//! X-Road 7.3 and later lets an administrator enter `A-Z a-z 0-9 ' ( ) + , - . = ?` and nothing else; the same set
//! is required here when an object is admitted. (On the wire, other servers' identifiers are read tolerantly; that is
//! the gateway's business.) A code of dots alone is refused too: it would be a `.` or `..` segment of a URL, which
//! HTTP clients silently resolve.

use std::borrow::{Borrow, Cow};
use std::fmt;
use std::ops::Deref;
use std::str::FromStr;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer, Serialize, de};

/// What the API server accepts as an identifier: X-Road's characters, not dots alone.
pub const PATTERN: &str = r"^[A-Za-z0-9'()+,.=?-]*[A-Za-z0-9'()+,=?-][A-Za-z0-9'()+,.=?-]*$";

/// Service codes that X-Road keeps for its own metadata and monitoring services; refused ignoring case.
pub const RESERVED_SERVICE_CODES: [&str; 8] = [
    "listClients",
    "listMethods",
    "allowedMethods",
    "getWsdl",
    "getOpenAPI",
    "getSecurityServerMetrics",
    "getSecurityServerOperationalData",
    "getSecurityServerHealthData",
];

/// Why a text is not an identifier of this API.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentifierError {
    /// Nothing there.
    #[error("the {what} is empty")]
    Empty {
        /// Which identifier, for example `member code`.
        what: &'static str,
    },
    /// Longer than this identifier may be.
    #[error("the {what} is longer than {max} characters")]
    TooLong {
        /// Which identifier.
        what: &'static str,
        /// The bound.
        max: usize,
    },
    /// A character outside X-Road's strict set, or dots alone.
    #[error("the {what} may hold letters A-Z a-z, digits and ' ( ) + , - . = ? only, and not dots alone")]
    Characters {
        /// Which identifier.
        what: &'static str,
    },
}

fn check(text: &str, what: &'static str, max: usize) -> Result<(), IdentifierError> {
    if text.is_empty() {
        return Err(IdentifierError::Empty { what });
    }
    if text.len() > max {
        return Err(IdentifierError::TooLong { what, max });
    }
    let allowed = |b: u8| b.is_ascii_alphanumeric() || b"'()+,-.=?".contains(&b);
    if !text.bytes().all(allowed) || text.bytes().all(|b| b == b'.') {
        return Err(IdentifierError::Characters { what });
    }
    Ok(())
}

macro_rules! identifier {
    ($(#[$doc:meta])* $name:ident, $what:literal, $max:literal) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// The longest text in characters (all are ASCII).
            pub const MAX_LENGTH: usize = $max;

            /// The text as declared.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = IdentifierError;

            fn from_str(text: &str) -> Result<Self, IdentifierError> {
                check(text, $what, $max).map(|()| Self(text.to_owned()))
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdentifierError;

            fn try_from(text: String) -> Result<Self, IdentifierError> {
                check(&text, $what, $max).map(|()| Self(text))
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> Self {
                value.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Deref for $name {
            type Target = str;

            fn deref(&self) -> &str {
                &self.0
            }
        }

        impl AsRef<str> for $name {
            fn as_ref(&self) -> &str {
                &self.0
            }
        }

        impl Borrow<str> for $name {
            fn borrow(&self) -> &str {
                &self.0
            }
        }

        impl PartialEq<str> for $name {
            fn eq(&self, other: &str) -> bool {
                self.0 == other
            }
        }

        impl PartialEq<&str> for $name {
            fn eq(&self, other: &&str) -> bool {
                self.0 == *other
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                String::deserialize(deserializer)?.try_into().map_err(de::Error::custom)
            }
        }

        impl JsonSchema for $name {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({"type": "string", "minLength": 1, "maxLength": $max, "pattern": PATTERN})
            }
        }
    };
}

identifier!(
    /// The identifier of one federation, for example `EE`.
    ///
    /// Short, because it stands in the common name of each CA certificate, where X.509 allows 64 characters.
    InstanceCode,
    "instance",
    32
);
identifier!(
    /// A class of members that the governing authority defines, for example `GOV` or `COM`.
    MemberClass,
    "member class",
    32
);
identifier!(
    /// A member's code, unique in its class, for example a register number such as `70000001`.
    MemberCode,
    "member code",
    64
);
identifier!(
    /// A subsystem's code, unique within its member, for example `population`.
    SubsystemCode,
    "subsystem code",
    100
);
identifier!(
    /// A service's code, unique within its subsystem ignoring case, for example `persons`.
    ServiceCode,
    "service code",
    100
);
identifier!(
    /// A security server's code, unique within its owner, for example `ss1`.
    ServerCode,
    "server code",
    64
);
identifier!(
    /// The code of a global or local group, for example `hospitals`.
    GroupCode,
    "group code",
    100
);

impl ServiceCode {
    /// Whether X-Road keeps this code for itself (compared ignoring case).
    #[must_use]
    pub fn is_reserved(&self) -> bool {
        RESERVED_SERVICE_CODES.iter().any(|reserved| reserved.eq_ignore_ascii_case(&self.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_characters() {
        for good in ["70000001", "a", "A-b.c", "'()+,-.=?", "..a", "x."] {
            assert!(good.parse::<MemberCode>().is_ok(), "{good}");
        }
        for bad in [
            "",
            ".",
            "..",
            "a b",
            " a",
            "a ",
            "a:b",
            "a;b",
            "a/b",
            "a\\b",
            "a%b",
            "a_b",
            "õ",
            "a\u{200b}",
            "\u{feff}a",
            "a\n",
            "a\u{7f}",
        ] {
            assert!(bad.parse::<MemberCode>().is_err(), "{bad:?}");
        }
    }

    #[test]
    fn lengths_in_pairs() {
        assert!("x".repeat(32).parse::<InstanceCode>().is_ok());
        assert_eq!("x".repeat(33).parse::<InstanceCode>(), Err(IdentifierError::TooLong { what: "instance", max: 32 }));
    }

    #[test]
    fn case_matters() {
        assert_ne!("a".parse::<SubsystemCode>(), "A".parse::<SubsystemCode>());
    }

    #[test]
    fn reserved_service_codes() {
        for code in ["listMethods", "LISTMETHODS", "getopenapi"] {
            assert!(code.parse::<ServiceCode>().unwrap().is_reserved(), "{code}");
        }
        assert!(!"listMethods2".parse::<ServiceCode>().unwrap().is_reserved());
    }

    #[test]
    fn reading_is_strict_too() {
        assert!(serde_json::from_str::<MemberCode>("\"a/b\"").is_err());
        assert_eq!(serde_json::to_string(&"a".parse::<MemberCode>().unwrap()).unwrap(), "\"a\"");
    }
}
