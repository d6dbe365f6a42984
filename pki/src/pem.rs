//! PEM (RFC 7468), read strictly and written in one form.
//!
//! Key material passes through here, so nothing that fails to parse is ever quoted in an error.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Label of a certificate block (RFC 7468 section 5).
pub const CERTIFICATE: &str = "CERTIFICATE";
/// Label of an unencrypted PKCS#8 private key (RFC 7468 section 10).
pub const PRIVATE_KEY: &str = "PRIVATE KEY";
/// Label of a PKCS#10 certification request (RFC 7468 section 7).
pub const CERTIFICATE_REQUEST: &str = "CERTIFICATE REQUEST";

/// One block: its label and decoded content. The content is wiped when dropped, since it may be a key.
pub struct Block<'a> {
    /// What stands between `-----BEGIN ` and `-----`.
    pub label: &'a str,
    /// The decoded bytes.
    pub content: Zeroizing<Vec<u8>>,
}

/// Why a text is not PEM. No variant carries any of the text: it may hold a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PemError {
    /// A block was opened and not closed, or closed under another label.
    #[error("the PEM block that begins on line {line} has no matching END line")]
    Unterminated {
        /// Line of the BEGIN, counted from 1.
        line: usize,
    },
    /// An END line without a BEGIN line.
    #[error("the PEM END line {line} has no matching BEGIN line")]
    StrayEnd {
        /// Line of the END, counted from 1.
        line: usize,
    },
    /// What stands between BEGIN and END is not base64.
    #[error("the PEM block that begins on line {line} is not valid base64")]
    Base64 {
        /// Line of the BEGIN, counted from 1.
        line: usize,
    },
    /// Not exactly one block of the expected label.
    #[error("expected exactly one PEM block \"{expected}\"")]
    NotOne {
        /// The label looked for.
        expected: &'static str,
    },
}

/// All blocks of a text in order. Text outside of blocks is explanatory (RFC 7468 section 5.2) and skipped; line ends may be
/// LF, CRLF or CR.
pub fn blocks(text: &str) -> Result<Vec<Block<'_>>, PemError> {
    let mut found = Vec::new();
    let mut open: Option<(usize, &str, Zeroizing<String>)> = None;
    for (index, line) in text.split(['\n', '\r']).enumerate() {
        let (line, number) = (line.trim(), index + 1);
        if let Some(label) = boundary(line, "-----BEGIN ") {
            if let Some((line, ..)) = open {
                return Err(PemError::Unterminated { line });
            }
            // Room for any content: a growing buffer would leave copies of a key behind in freed memory.
            open = Some((number, label, Zeroizing::new(String::with_capacity(text.len()))));
        } else if let Some(label) = boundary(line, "-----END ") {
            match open.take() {
                Some((line, opened, content)) if opened == label => found.push(Block {
                    label,
                    content: Zeroizing::new(
                        STANDARD.decode(content.as_bytes()).map_err(|_| PemError::Base64 { line })?,
                    ),
                }),
                Some((line, ..)) => return Err(PemError::Unterminated { line }),
                None => return Err(PemError::StrayEnd { line: number }),
            }
        } else if let Some((_, _, content)) = &mut open {
            content.push_str(line);
        }
    }
    match open {
        Some((line, ..)) => Err(PemError::Unterminated { line }),
        None => Ok(found),
    }
}

/// The content of the only block of a text, which must have the given label.
pub fn single(text: &str, expected: &'static str) -> Result<Zeroizing<Vec<u8>>, PemError> {
    let mut all = blocks(text)?;
    match all.pop() {
        Some(block) if all.is_empty() && block.label == expected => Ok(block.content),
        _ => Err(PemError::NotOne { expected }),
    }
}

/// One block with lines of 64 characters and LF, wiped when dropped.
pub fn encode(label: &str, content: &[u8]) -> Zeroizing<String> {
    let body = Zeroizing::new(STANDARD.encode(content));
    let mut out = Zeroizing::new(String::with_capacity(body.len() + body.len() / 64 + 2 * label.len() + 40));
    out.push_str("-----BEGIN ");
    out.push_str(label);
    out.push_str("-----\n");
    let mut rest = body.as_str();
    while !rest.is_empty() {
        // Base64 is ASCII: every index is a character boundary.
        let (line, tail) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = tail;
    }
    out.push_str("-----END ");
    out.push_str(label);
    out.push_str("-----\n");
    out
}

fn boundary<'a>(line: &'a str, start: &str) -> Option<&'a str> {
    line.strip_prefix(start)?.strip_suffix("-----")
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_survives_any_line_ending() {
        let content: Vec<u8> = (0..200).collect();
        let text = encode(CERTIFICATE, &content);
        for text in
            [text.to_string(), text.replace('\n', "\r\n"), text.replace('\n', "\r"), format!("a note\n\n{}", *text)]
        {
            assert_eq!(*single(&text, CERTIFICATE).unwrap(), content);
        }
    }

    #[test]
    fn broken_text_is_refused_with_its_line() {
        let cases = [
            ("-----BEGIN A-----\nAAAA\n", PemError::Unterminated { line: 1 }),
            ("\n-----BEGIN A-----\nAAAA\n-----END B-----\n", PemError::Unterminated { line: 2 }),
            ("-----BEGIN A-----\n-----BEGIN A-----\n-----END A-----", PemError::Unterminated { line: 1 }),
            ("-----END A-----", PemError::StrayEnd { line: 1 }),
            ("-----BEGIN A-----\nA*AA\n-----END A-----", PemError::Base64 { line: 1 }),
        ];
        for (text, expected) in cases {
            assert_eq!(blocks(text).err(), Some(expected), "{text:?}");
        }
    }

    #[test]
    fn single_wants_one_block_of_its_label() {
        let one = encode(CERTIFICATE, b"x");
        let expected = Some(PemError::NotOne { expected: CERTIFICATE });
        for text in [String::new(), one.repeat(2), encode(PRIVATE_KEY, b"x").to_string()] {
            assert_eq!(single(&text, CERTIFICATE).err(), expected);
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(content in proptest::collection::vec(any::<u8>(), 0..200), remark in "[ -~\n]{0,40}") {
            let text = encode(CERTIFICATE, &content);
            prop_assert!(text.lines().all(|line| line.len() <= 64));
            prop_assert_eq!(&*single(&text, CERTIFICATE).unwrap(), &content);
            // A remark that looks like a block makes an error, never another content.
            if let Ok(found) = single(&format!("{remark}\n{}", *text), CERTIFICATE) {
                prop_assert_eq!(&*found, &content);
            }
        }

        #[test]
        fn reading_never_panics(text in "(-----(BEGIN|END) [A-Z]{0,3}-----|[A-Za-z0-9+/=\r\n]{0,9}){0,9}") {
            let _ = blocks(&text);
        }
    }
}
