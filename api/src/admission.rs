//! Who may be whom: the text of the namespace annotation `saatkond.io/member-identities`.
//!
//! Identities are separated by commas, each is `instance/class/code`; a comma within a part is written `%2C`. Blanks
//! and line breaks around an identity are ignored, so that the list can be written on several lines.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use crate::identifiers::{IdentifierError, InstanceCode, MemberClass, MemberCode};

/// A member's full identity. It prints as it is written in the annotation: `EE/GOV/70000001`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MemberIdentity {
    /// The instance.
    pub instance: InstanceCode,
    /// The member's class.
    pub member_class: MemberClass,
    /// The member's code.
    pub member_code: MemberCode,
}

/// Why a text is not a member identity.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not three parts.
    #[error("a member identity has three parts: instance/class/code")]
    Parts,
    /// `%` not followed by two hexadecimal digits.
    #[error("a percent sign is not followed by two hexadecimal digits")]
    Encoding,
    /// A part is not an identifier.
    #[error("a part is not an identifier")]
    Part(#[source] IdentifierError),
}

impl fmt::Display for MemberIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, part) in [&*self.instance, &*self.member_class, &*self.member_code].into_iter().enumerate() {
            if at > 0 {
                f.write_str("/")?;
            }
            // Of the characters that an identifier may hold, the comma alone means something in the annotation.
            f.write_str(&part.replace(',', "%2C"))?;
        }
        Ok(())
    }
}

impl FromStr for MemberIdentity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        let mut parts = text.split('/');
        let (Some(instance), Some(class), Some(code), None) = (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(IdentityError::Parts);
        };
        Ok(Self {
            instance: decode(instance)?.parse().map_err(IdentityError::Part)?,
            member_class: decode(class)?.parse().map_err(IdentityError::Part)?,
            member_code: decode(code)?.parse().map_err(IdentityError::Part)?,
        })
    }
}

fn decode(part: &str) -> Result<String, IdentityError> {
    let mut bytes = Vec::with_capacity(part.len());
    let mut rest = part.bytes();
    while let Some(byte) = rest.next() {
        if byte != b'%' {
            bytes.push(byte);
            continue;
        }
        let mut digit = || rest.next().and_then(|b| char::from(b).to_digit(16)).ok_or(IdentityError::Encoding);
        let (high, low) = (digit()?, digit()?);
        bytes.push(u8::try_from(high * 16 + low).map_err(|_| IdentityError::Encoding)?);
    }
    String::from_utf8(bytes).map_err(|_| IdentityError::Encoding)
}

/// The identities in an annotation, and the entries that are none, with the reason.
///
/// One bad entry does not take the others' rights away.
#[must_use]
pub fn parse(annotation: &str) -> (BTreeSet<MemberIdentity>, Vec<(String, IdentityError)>) {
    let mut identities = BTreeSet::new();
    let mut refused = Vec::new();
    for text in annotation.split(',').map(str::trim).filter(|text| !text.is_empty()) {
        match text.parse() {
            Ok(identity) => {
                identities.insert(identity);
            }
            Err(error) => refused.push((text.to_owned(), error)),
        }
    }
    (identities, refused)
}

/// The annotation that admits these identities.
#[must_use]
pub fn format<'a>(identities: impl IntoIterator<Item = &'a MemberIdentity>) -> String {
    let sorted: BTreeSet<_> = identities.into_iter().collect();
    sorted.into_iter().map(ToString::to_string).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_several_lines_and_names_what_it_refuses() {
        let (good, bad) = parse("EE/GOV/70000001,\n  EE/COM/1%2C2 , EE/GOV, EE/GOV/a%2Fb, EE/GOV/%G1,");
        assert_eq!(good.len(), 2);
        assert!(good.iter().any(|identity| identity.member_code == "1,2"));
        let errors: Vec<_> = bad.iter().map(|(text, error)| (text.as_str(), error)).collect();
        assert!(matches!(
            errors[..],
            [
                ("EE/GOV", IdentityError::Parts),
                ("EE/GOV/a%2Fb", IdentityError::Part(_)),
                ("EE/GOV/%G1", IdentityError::Encoding)
            ]
        ));
    }

    #[test]
    fn what_is_written_is_read() {
        let text = "EE/COM/1%2C2,EE/GOV/70000001";
        let (identities, refused) = parse(text);
        assert!(refused.is_empty());
        assert_eq!(format(&identities), text);
    }

    #[test]
    fn nothing_admits_nobody() {
        assert_eq!(parse(" , ").0.len(), 0);
    }
}
