//! What a call was answered with, as `curl --include` prints it.

use anyhow::{Context, bail};

/// An HTTP answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// Header names in lower case, and values, in order of arrival.
    pub headers: Vec<(String, String)>,
    /// The body as text.
    pub body: String,
}

impl Answer {
    /// Reads the output of `curl --include`.
    pub fn parse(text: &str) -> anyhow::Result<Self> {
        let Some((head, body)) = text.split_once("\r\n\r\n") else { bail!("not an HTTP answer: {text:?}") };
        let mut lines = head.split("\r\n");
        let status = lines.next().unwrap_or_default();
        let status = status.split(' ').nth(1).and_then(|code| code.parse().ok());
        let headers = lines.filter_map(|line| line.split_once(':'));
        Ok(Self {
            status: status.with_context(|| format!("no status in {head:?}"))?,
            headers: headers.map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned())).collect(),
            body: body.to_owned(),
        })
    }

    /// The last header of this name (lower case).
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().rev().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    /// The headers of the X-Road protocol.
    pub fn xroad_headers(&self) -> impl Iterator<Item = &(String, String)> {
        self.headers.iter().filter(|(name, _)| name.starts_with("x-road-"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_read() {
        let text =
            "HTTP/1.1 403 Forbidden\r\nX-Road-Error: server.a\r\nx-road-id: a:b\r\nx-road-id: c\r\n\r\nbo\r\n\r\ndy";
        let answer = Answer::parse(text).unwrap();
        assert_eq!(answer.status, 403);
        assert_eq!(answer.header("x-road-error"), Some("server.a"));
        assert_eq!(answer.header("x-road-id"), Some("c"), "the last counts");
        assert_eq!(answer.xroad_headers().count(), 3);
        assert_eq!(answer.body, "bo\r\n\r\ndy");
    }

    #[test]
    fn what_is_no_answer_is_an_error() {
        for text in ["", "curl: (7) failed", "HTTP/1.1\r\n\r\n", "HTTP/1.1 abc\r\n\r\n"] {
            assert!(Answer::parse(text).is_err(), "{text:?}");
        }
    }
}
