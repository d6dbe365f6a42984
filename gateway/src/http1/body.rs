//! Request bodies: length-delimited and chunked (RFC 9112 6, 7.1), taken off a buffer piece by piece.

use bytes::{Buf, Bytes, BytesMut};

use super::head::Framing;

/// A chunk's size line with its extensions, in bytes.
const MAX_SIZE_LINE: usize = 1 << 10;
/// All trailer lines, in bytes. They are dropped, but read.
const MAX_TRAILERS: usize = 8 << 10;

/// Takes a body apart.
#[derive(Debug)]
pub struct Decoder(State);

#[derive(Debug)]
enum State {
    Length(u64),
    Size,
    Data(u64),
    DataEnd,
    Trailers(usize),
    Done,
}

/// What a decoder found.
#[derive(Debug, PartialEq, Eq)]
pub enum Piece {
    /// Some bytes, never none.
    Data(Bytes),
    /// The body is complete.
    End,
    /// More has to be read first.
    NeedsMore,
}

/// The chunks are malformed. Where the next request begins is unknown: the connection has to go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("malformed chunk: {0}")]
pub struct ChunkError(&'static str);

impl Decoder {
    /// For a body framed so.
    #[must_use]
    pub fn new(framing: Framing) -> Self {
        Self(match framing {
            Framing::Length(0) => State::Done,
            Framing::Length(length) => State::Length(length),
            Framing::Chunked => State::Size,
        })
    }

    /// Whether nothing is left to take.
    #[must_use]
    pub fn is_done(&self) -> bool {
        matches!(self.0, State::Done)
    }

    /// Takes what there is.
    pub fn take(&mut self, buffer: &mut BytesMut) -> Result<Piece, ChunkError> {
        loop {
            match &mut self.0 {
                State::Done => return Ok(Piece::End),
                State::Length(left) | State::Data(left) if buffer.is_empty() && *left > 0 => {
                    return Ok(Piece::NeedsMore);
                }
                State::Length(left) => {
                    let piece = take_up_to(buffer, left);
                    if *left == 0 {
                        self.0 = State::Done;
                    }
                    return Ok(Piece::Data(piece));
                }
                State::Data(left) => {
                    let piece = take_up_to(buffer, left);
                    if *left == 0 {
                        self.0 = State::DataEnd;
                    }
                    return Ok(Piece::Data(piece));
                }
                State::DataEnd => {
                    if buffer.len() < 2 {
                        return Ok(Piece::NeedsMore);
                    }
                    if !buffer.starts_with(b"\r\n") {
                        return Err(ChunkError("its data has another length"));
                    }
                    buffer.advance(2);
                    self.0 = State::Size;
                }
                State::Size => {
                    let Some(line) = take_line(buffer, MAX_SIZE_LINE)? else { return Ok(Piece::NeedsMore) };
                    self.0 = match size(&line)? {
                        0 => State::Trailers(0),
                        size => State::Data(size),
                    };
                }
                State::Trailers(so_far) => {
                    let Some(line) = take_line(buffer, MAX_TRAILERS)? else { return Ok(Piece::NeedsMore) };
                    *so_far += line.len() + 2;
                    if *so_far > MAX_TRAILERS {
                        return Err(ChunkError("too many trailers"));
                    }
                    if line.is_empty() {
                        self.0 = State::Done;
                    }
                }
            }
        }
    }
}

fn take_up_to(buffer: &mut BytesMut, left: &mut u64) -> Bytes {
    let count = usize::try_from(*left).unwrap_or(usize::MAX).min(buffer.len());
    *left -= count as u64;
    buffer.split_to(count).freeze()
}

/// A line that ends with CRLF. A bare LF or CR inside is refused: others would see another number of chunks.
fn take_line(buffer: &mut BytesMut, max: usize) -> Result<Option<BytesMut>, ChunkError> {
    let Some(end) = buffer.iter().position(|byte| *byte == b'\n') else {
        return if buffer.len() > max { Err(ChunkError("a line is too long")) } else { Ok(None) };
    };
    if end > max {
        return Err(ChunkError("a line is too long"));
    }
    let mut line = buffer.split_to(end + 1);
    line.truncate(end);
    if line.last() != Some(&b'\r') {
        return Err(ChunkError("a bare line feed"));
    }
    line.truncate(end - 1);
    if line.contains(&b'\r') {
        return Err(ChunkError("a bare carriage return"));
    }
    Ok(Some(line))
}

fn size(line: &[u8]) -> Result<u64, ChunkError> {
    let digits = line.split(|byte| *byte == b';').next().unwrap_or_default().trim_ascii_end();
    let digits = std::str::from_utf8(digits).map_err(|_| ChunkError("its size is not hexadecimal"))?;
    if digits.is_empty() || digits.len() > 15 || !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Err(ChunkError("its size is not hexadecimal"));
    }
    u64::from_str_radix(digits, 16).map_err(|_| ChunkError("its size is not hexadecimal"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// Feeds `text` in pieces of `step` bytes.
    fn read(framing: Framing, text: &[u8], step: usize) -> Result<(Vec<u8>, bool, usize), ChunkError> {
        let (mut decoder, mut buffer, mut body) = (Decoder::new(framing), BytesMut::new(), Vec::new());
        let mut input = text.chunks(step);
        loop {
            match decoder.take(&mut buffer)? {
                Piece::Data(data) => body.extend_from_slice(&data),
                Piece::End => return Ok((body, true, buffer.len())),
                Piece::NeedsMore => match input.next() {
                    Some(more) => buffer.extend_from_slice(more),
                    None => return Ok((body, false, buffer.len())),
                },
            }
        }
    }

    #[test]
    fn t207_extensions_and_trailers_are_read_and_dropped() {
        let text = b"3;a=b;c=\"d\"\r\nabc\r\n0A \r\n0123456789\r\n0\r\nX-Trailer: 1\r\n\r\n";
        for step in 1..=text.len() {
            let (body, done, _) = read(Framing::Chunked, text, step).unwrap();
            assert_eq!((body.as_slice(), done), (&b"abc0123456789"[..], true), "{step}");
        }
    }

    #[test]
    fn what_is_left_belongs_to_the_next_request() {
        assert_eq!(read(Framing::Length(3), b"abcGET", 100).unwrap(), (b"abc".to_vec(), true, 3));
        assert_eq!(read(Framing::Chunked, b"1\r\na\r\n0\r\n\r\nGET", 100).unwrap(), (b"a".to_vec(), true, 3));
        assert_eq!(read(Framing::Length(3), b"ab", 100).unwrap(), (b"ab".to_vec(), false, 0));
    }

    #[test]
    fn malformed_chunks() {
        for text in [
            "\r\n",
            "x\r\n",
            "-1\r\n",
            "0x1\r\na\r\n",
            "1\na\r\n",
            "1\r\nab\r\n",
            "1;a\rb\r\n",
            "1000000000000000\r\n",
            "ffffffffffffffff\r\n",
            &"1".repeat(2000),
            &format!("1;{}\r\n", "x".repeat(2000)),
            &format!("0\r\n{}", "a: b\r\n".repeat(2000)),
        ] {
            assert!(read(Framing::Chunked, text.as_bytes(), 4096).is_err(), "{:?}", &text[..text.len().min(30)]);
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200), step in 1usize..20) {
            let _ = read(Framing::Chunked, &bytes, step);
        }
    }
}
