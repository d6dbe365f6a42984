//! Path patterns of endpoints (gateway.md 9.3): `*` any run without `/`, two or more stars any run, `\*` and `\\` literal,
//! everything else literal, anchored at both ends, case-sensitive.

/// A pattern, ready to match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(Vec<Token>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Token {
    Byte(u8),
    Segment,
    Any,
}

impl Glob {
    /// Reads a pattern. Every text is one.
    #[must_use]
    pub fn new(pattern: &str) -> Self {
        let mut tokens = Vec::with_capacity(pattern.len());
        let mut bytes = pattern.bytes().peekable();
        while let Some(byte) = bytes.next() {
            tokens.push(match byte {
                b'*' => {
                    let mut token = Token::Segment;
                    while bytes.next_if_eq(&b'*').is_some() {
                        token = Token::Any;
                    }
                    token
                }
                b'\\' => Token::Byte(bytes.next_if(|next| matches!(next, b'*' | b'\\')).unwrap_or(byte)),
                _ => Token::Byte(byte),
            });
        }
        Self(tokens)
    }

    /// Whether the whole of `text` matches. Takes time proportional to the product of both lengths at worst: no pattern and no
    /// path make it blow up.
    #[must_use]
    pub fn matches(&self, text: &[u8]) -> bool {
        // Most patterns begin with literal text, and most paths of other endpoints differ there.
        let literal = self.0.iter().take_while(|token| matches!(token, Token::Byte(_))).count();
        if text.len() < literal || !self.0.iter().zip(text).take(literal).all(|(t, b)| *t == Token::Byte(*b)) {
            return false;
        }
        let (tokens, text) = (&self.0[literal..], &text[literal..]);
        // `reached[i]`: the first `i` tokens match the text read so far.
        let mut reached = vec![false; tokens.len() + 1];
        reached[0] = true;
        skip_empty(tokens, &mut reached);
        for byte in text {
            let mut next = vec![false; tokens.len() + 1];
            for (index, token) in tokens.iter().enumerate().filter(|(index, _)| reached[*index]) {
                match token {
                    Token::Byte(expected) => next[index + 1] |= expected == byte,
                    Token::Segment => next[index] |= *byte != b'/',
                    Token::Any => next[index] = true,
                }
            }
            skip_empty(tokens, &mut next);
            reached = next;
        }
        reached[tokens.len()]
    }
}

/// Stars match the empty run as well.
fn skip_empty(tokens: &[Token], reached: &mut [bool]) {
    for (index, token) in tokens.iter().enumerate() {
        if reached[index] && !matches!(token, Token::Byte(_)) {
            reached[index + 1] = true;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn t112_to_t120_the_table_of_patterns() {
        for (pattern, path, expected) in [
            ("/pets/*", "/pets/1", true),
            ("/pets/*", "/pets/", true),
            ("/pets/*", "/pets", false),
            ("/pets/*", "/pets/1/photo", false),
            ("/pets/**", "/pets/1/photo", true),
            ("/pets/***", "/pets/1/photo", true),
            ("/pets/**", "/pets", false),
            ("/*/photo", "/a/photo", true),
            ("/*/photo", "/a/b/photo", false),
            ("**/bar/**", "/a/bar/b", true),
            ("/files/*.json", "/files/a.json", true),
            ("/files/*.json", "/files/a.json.json", true),
            ("/files/*.json", "/files/a/b.json", false),
            ("/a?b", "/ab", false),
            ("/a?b", "/a?b", true),
            ("/lit\\*", "/lit*", true),
            ("/lit\\*", "/litx", false),
            ("/a\\\\b", "/a\\b", true),
            ("/a\\b", "/a\\b", true),
            ("**", "", true),
            ("**", "/a/b", true),
            ("/", "", false),
            ("", "", true),
            ("", "/", false),
            ("/Pets", "/pets", false),
            ("/a", "/a/b", false),
            ("/*a*a*a*b", "/aaaaaaaaaaaaaaaaaaaaaaaa", false),
        ] {
            assert_eq!(Glob::new(pattern).matches(path.as_bytes()), expected, "{pattern} {path}");
        }
    }

    #[test]
    fn a_pattern_made_to_hurt_does_not() {
        let pattern = Glob::new(&"*a".repeat(60));
        assert!(!pattern.matches(format!("{}b", "a".repeat(8000)).as_bytes()));
    }
}
