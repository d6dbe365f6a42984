//! The request target of r1 (gateway.md 2): who is called, and what follows the service code.

use saatkond_wire::identifier::{IdentifierError, ServiceId, decode_part, decode_strict};

/// A parsed target.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Target {
    /// The called service.
    pub service: ServiceId,
    /// What follows the service code, from its `/` on, as it was written; empty without a slash.
    pub path: String,
    /// What follows the `?`, as it was written.
    pub query: Option<String>,
}

/// Why a target is not one of r1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TargetError {
    /// Fewer than seven pieces, or another first one.
    #[error("Invalid request URI")]
    Form,
    /// A part of the service id is not an identifier.
    #[error("Invalid request URI: {0}")]
    Identifier(#[from] IdentifierError),
    /// The path holds what no RFC 3986 path can: a raw character, or a `%` that is not followed by two hex digits.
    #[error("Invalid request URI: the path is not percent-encoded")]
    Path,
}

/// Whether a raw path belongs to r1. `/r2/…` and `/R1/…` do not.
#[must_use]
pub fn is_r1(path: &str) -> bool {
    path.starts_with("/r1/")
}

/// Parses a raw path and query.
pub fn parse(path: &str, query: Option<&str>) -> Result<Target, TargetError> {
    let mut pieces = path.splitn(8, '/');
    if pieces.next() != Some("") || pieces.next() != Some("r1") {
        return Err(TargetError::Form);
    }
    let mut part = |name| -> Result<String, TargetError> {
        let raw = pieces.next().ok_or(TargetError::Form)?;
        Ok(decode_part(raw, name)?)
    };
    let (instance, member_class) = (part("instance")?, part("member class")?);
    let (member_code, subsystem) = (part("member code")?, part("subsystem code")?);
    let service = part("service code")?;
    let path = pieces.next().map(|rest| format!("/{rest}")).unwrap_or_default();
    if !path.split('/').all(|segment| decode_strict(segment.as_bytes()).is_some()) {
        return Err(TargetError::Path);
    }
    let member = saatkond_wire::identifier::MemberId { instance, member_class, member_code };
    let service = ServiceId::new(member.subsystem(subsystem), service);
    Ok(Target { service, path, query: query.map(str::to_owned) })
}

/// Whether an identifier holds what X-Road's management refuses to register: served, but worth a line in the log.
#[must_use]
pub fn has_discouraged_characters(part: &str) -> bool {
    part.chars().any(|c| matches!(c, '%' | ':' | ';' | '/' | '\\' | '\u{200b}' | '\u{feff}') || c.is_control())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_targets() {
        for (path, query, service, rest) in [
            ("/r1/I/C/M/S/pets", None, "I/C/M/S/pets", ""),
            ("/r1/I/C/M/S/pets/", None, "I/C/M/S/pets", "/"),
            ("/r1/I/C/M/S/pets/v2/a%20b", Some("x=%2F&x=2"), "I/C/M/S/pets", "/v2/a%20b"),
            ("/r1/I/C/M/s%2Fub/%C3%B6/p%3B/", None, "I/C/M/s%2Fub/%C3%B6", "/p%3B/"),
            ("/r1/I/C/M/S/BAR%2FSERVICE//x", None, "I/C/M/S/BAR%2FSERVICE", "//x"),
        ] {
            let target = parse(path, query).unwrap();
            assert_eq!((target.service.to_string().as_str(), target.path.as_str()), (service, rest), "{path}");
            assert_eq!(target.query.as_deref(), query);
        }
    }

    #[test]
    fn t008_t012_t013_t015_t016_what_is_no_target() {
        for path in [
            "",
            "/",
            "/r1",
            "/r1/",
            "/r1/INST/GOV",
            "/r1/I/C/M/pets",
            "/r1/INST%2FGOV%2F100%2FPROV%2Fpets",
            "/r1//C/M/S/pets",
            "/r1/I/C/M//pets",
            "/r1/I/C/M/S/",
            "/r1/I/C/M/%20/pets",
            "/r1/I/C/M/S/%zz",
            "/r1/I/C/M/S/pets%",
            "/r1/I/C/M/S/%FF",
            "/r1/I/C/M/\"S\"/pets",
            "/r1/I/C/M/S/pets/a%2",
            "/r1/I/C/M/S/pets/a%u0041",
            "/r1/I/C/M/S/pets/ä",
            "/r1/I/C/M/S/pets/a|b",
            "/R1/I/C/M/S/pets",
            "/r2/I/C/M/S/pets",
        ] {
            assert!(parse(path, None).is_err(), "{path}");
        }
    }

    #[test]
    fn t017_what_is_worth_a_line() {
        assert!(has_discouraged_characters("a;b") && has_discouraged_characters("a\u{200b}"));
        assert!(!has_discouraged_characters("BAR-SERVICE.v1=?"));
    }
}
