//! What follows the service code, taken apart once (gateway.md 9.4, the safer rule).
//!
//! Each segment keeps its raw form beside its decoded one. The raw forms are what is called, the decoded ones what rights are
//! decided on: two views of one parse, so that no path is granted and another called.

use saatkond_wire::identifier::decode_strict;

/// A path that has no traversal in any encoding.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePath {
    raw: String,
    decoded: Vec<u8>,
    is_ambiguous: bool,
}

/// Why nobody may be granted a path, whatever the rights.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    /// A character or a percent sign that no path may hold.
    #[error("the path is not percent-encoded")]
    Encoding,
    /// `.` or `..` in some spelling: the information system might resolve it.
    #[error("the path holds a dot segment")]
    DotSegment,
    /// An empty segment before the last: some servers drop it, some do not.
    #[error("the path holds an empty segment")]
    EmptySegment,
    /// A control character or a backslash, which some servers take for a separator or an end.
    #[error("the path holds a control character or a backslash")]
    Character,
}

impl ServicePath {
    /// Takes `raw` apart: empty, or beginning with `/`.
    pub fn parse(raw: &str) -> Result<Self, PathError> {
        let mut path = Self { raw: raw.to_owned(), decoded: Vec::with_capacity(raw.len()), is_ambiguous: false };
        let Some(rest) = raw.strip_prefix('/') else {
            return if raw.is_empty() { Ok(path) } else { Err(PathError::Encoding) };
        };
        let mut segments = rest.split('/').peekable();
        while let Some(segment) = segments.next() {
            if segment.is_empty() && segments.peek().is_some() {
                return Err(PathError::EmptySegment);
            }
            let decoded = decode_strict(segment.as_bytes()).ok_or(PathError::Encoding)?;
            // An encoded separator splits for servers that decode first: look at the pieces as they would.
            if decoded.split(|byte| matches!(byte, b'/' | b'\\')).any(is_dot_segment) {
                return Err(PathError::DotSegment);
            }
            if decoded.iter().any(|byte| matches!(byte, 0..=0x1f | 0x7f | b'\\')) {
                return Err(PathError::Character);
            }
            path.is_ambiguous |= decoded.contains(&b'/');
            path.decoded.push(b'/');
            path.decoded.extend_from_slice(&decoded);
        }
        Ok(path)
    }

    /// What patterns are matched against; `None` where an encoded slash makes it a matter of opinion where segments end.
    /// A right on the whole service covers such a path, a pattern never does.
    #[must_use]
    pub fn matched(&self) -> Option<&[u8]> {
        (!self.is_ambiguous).then_some(&self.decoded)
    }

    /// What is called, appended to the service's base path.
    #[must_use]
    pub fn forwarded(&self) -> &str {
        &self.raw
    }
}

/// `.` or `..`, also with a path parameter (`..;x`), which some servers cut off before they resolve.
fn is_dot_segment(piece: &[u8]) -> bool {
    let name = piece.split(|byte| *byte == b';').next().unwrap_or_default();
    matches!(name, b"." | b"..")
}

/// The URL that is called: base, path, query (gateway.md 2.4).
///
/// A slash at the end of the base is dropped before a path. A base without path becomes `/`.
#[must_use]
pub fn url(base: &str, path: &ServicePath, query: Option<&str>) -> String {
    let path = path.forwarded();
    let mut url = if path.is_empty() { base } else { base.strip_suffix('/').unwrap_or(base) }.to_owned();
    let after_scheme = url.find("://").map_or(0, |at| at + 3);
    if path.is_empty() && !url[after_scheme..].contains('/') {
        url.push('/');
    }
    url.push_str(path);
    if let Some(query) = query {
        url.push('?');
        url.push_str(query);
    }
    url
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn t123_t125_what_is_matched() {
        for (raw, matched) in [
            ("", ""),
            ("/", "/"),
            ("/a/", "/a/"),
            ("/t%65st", "/test"),
            ("/a%2Db", "/a-b"),
            ("/a%20b", "/a b"),
            ("/a..b/...", "/a..b/..."),
            ("/a%25b", "/a%b"),
            ("/%252e%252e/x", "/%2e%2e/x"),
            ("/a%3Fb%23c%3Bd", "/a?b#c;d"),
            ("/%C3%B6", "/ö"),
        ] {
            let path = ServicePath::parse(raw).unwrap();
            assert_eq!(path.matched(), Some(matched.as_bytes()), "{raw}");
            assert_eq!(path.forwarded(), raw);
        }
    }

    #[test]
    fn t121_t122_t124_t209_what_nobody_is_granted() {
        for (raw, error) in [
            ("/public/../secret", PathError::DotSegment),
            ("/public/%2e%2e/secret", PathError::DotSegment),
            ("/public/%2E./secret", PathError::DotSegment),
            ("/public/..%2Fsecret", PathError::DotSegment),
            ("/public/x%2F..%2F..%2Fsecret", PathError::DotSegment),
            ("/public/..%5Csecret", PathError::DotSegment),
            ("/public/..;a/secret", PathError::DotSegment),
            ("/public/%2e%2e%3Ba/secret", PathError::DotSegment),
            ("/public/.", PathError::DotSegment),
            ("/%2e%2e/secret", PathError::DotSegment),
            ("/test/foo/../bar", PathError::DotSegment),
            ("//public", PathError::EmptySegment),
            ("/public//x", PathError::EmptySegment),
            ("/public//../secret", PathError::EmptySegment),
            ("/a%00b", PathError::Character),
            ("/a%0d%0ab", PathError::Character),
            ("/a%5Cb", PathError::Character),
            ("/a%7F", PathError::Character),
            ("/a%", PathError::Encoding),
            ("/a%zz", PathError::Encoding),
            ("/ä", PathError::Encoding),
            ("/a b", PathError::Encoding),
            ("a", PathError::Encoding),
        ] {
            assert_eq!(ServicePath::parse(raw), Err(error), "{raw}");
        }
        for raw in ["/%2Fsecret/public/x", "/a%2Fb", "/a%3Bb/%2F/c"] {
            assert_eq!(ServicePath::parse(raw).unwrap().matched(), None, "{raw}");
        }
    }

    #[test]
    fn t003_to_t006_the_table_of_urls() {
        for (base, path, query, expected) in [
            ("http://is/v2", "", None, "http://is/v2"),
            ("http://is/v2", "/", None, "http://is/v2/"),
            ("http://is/v2", "/v1/x", None, "http://is/v2/v1/x"),
            ("http://is/v2/", "/x", None, "http://is/v2/x"),
            ("http://is/v2/", "", None, "http://is/v2/"),
            ("http://is", "", Some("a=1"), "http://is/?a=1"),
            ("http://is", "/x", Some(""), "http://is/x?"),
            ("http://is:80", "", None, "http://is:80/"),
        ] {
            assert_eq!(url(base, &ServicePath::parse(path).unwrap(), query), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_called_decodes_to_what_was_matched(raw in "(/[a-z.%/;0-9A-F]{0,12}){0,4}") {
            if let Ok(path) = ServicePath::parse(&raw) && let Some(matched) = path.matched() {
                let called: Vec<Vec<u8>> = path.forwarded().split('/').map(|s| decode_strict(s.as_bytes()).unwrap()).collect();
                prop_assert_eq!(called.join(&b'/'), matched);
                prop_assert!(!matched.split(|b| *b == b'/').any(|s| s == b".."));
            }
        }
    }
}
