//! The pieces of a body that waits in memory. Who sends it chooses how it is cut: a piece of one byte costs its handle and keeps the
//! whole buffer that it was received in, so small pieces are copied together and what is counted is what is used.

use std::collections::VecDeque;

use bytes::{Bytes, BytesMut};

/// Shorter pieces are copied: the copy is cheaper than what a piece keeps from being given back.
const SMALL: usize = 4 << 10;
/// How much is copied together.
const TOGETHER: usize = 16 << 10;

/// First in, first out.
#[derive(Debug, Default)]
pub struct Pieces {
    whole: VecDeque<Bytes>,
    /// Small pieces since the last large one.
    together: BytesMut,
    length: usize,
}

impl Pieces {
    /// Appends a piece.
    pub fn push(&mut self, piece: Bytes) {
        self.length += piece.len();
        if piece.len() >= SMALL || self.length == piece.len() {
            self.close();
            self.whole.push_back(piece);
            return;
        }
        if self.together.capacity() == 0 {
            self.together.reserve(TOGETHER);
        }
        self.together.extend_from_slice(&piece);
        if self.together.len() >= TOGETHER {
            self.close();
        }
    }

    /// Takes the oldest off, at most `most` bytes of it; `None` where nothing is left or wanted.
    pub fn pop(&mut self, most: usize) -> Option<Bytes> {
        if self.whole.is_empty() {
            self.close();
        }
        if most == 0 {
            return None;
        }
        let mut piece = self.whole.pop_front()?;
        if most < piece.len() {
            self.whole.push_front(piece.split_off(most));
        }
        self.length -= piece.len();
        Some(piece)
    }

    /// Bytes that wait.
    #[must_use]
    pub fn length(&self) -> usize {
        self.length
    }

    /// All of it in one.
    #[must_use]
    pub fn joined(mut self) -> Bytes {
        self.close();
        if let (1, Some(only)) = (self.whole.len(), self.whole.front_mut()) {
            return std::mem::take(only);
        }
        let mut joined = BytesMut::with_capacity(self.length);
        self.whole.iter().for_each(|piece| joined.extend_from_slice(piece));
        joined.freeze()
    }

    /// What was copied together becomes a piece.
    fn close(&mut self) {
        if !self.together.is_empty() {
            self.whole.push_back(std::mem::take(&mut self.together).freeze());
        }
    }
}

impl Iterator for Pieces {
    type Item = Bytes;

    fn next(&mut self) -> Option<Bytes> {
        self.pop(usize::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_million_pieces_are_few() {
        let mut pieces = Pieces::default();
        for _ in 0..1 << 20 {
            pieces.push(Bytes::from_static(b"x"));
        }
        assert_eq!(pieces.length(), 1 << 20);
        assert!(pieces.whole.len() <= 1 + (1 << 20) / TOGETHER, "{} pieces", pieces.whole.len());
    }

    #[test]
    fn one_piece_is_not_copied() {
        let (mut pieces, piece) = (Pieces::default(), Bytes::from(vec![7; 10]));
        pieces.push(piece.clone());
        assert_eq!(pieces.joined().as_ptr(), piece.as_ptr());
    }

    proptest! {
        #[test]
        fn what_goes_in_comes_out(
            cuts in proptest::collection::vec(1..9000_usize, 0..40),
            takes in proptest::collection::vec(0..20_000_usize, 0..20),
        ) {
            let mut pieces = Pieces::default();
            let mut all = Vec::new();
            for (number, length) in cuts.iter().enumerate() {
                let piece: Vec<u8> = (0..*length).map(|at| u8::try_from((at + number) % 251).unwrap()).collect();
                all.extend_from_slice(&piece);
                pieces.push(piece.into());
            }
            let mut out = Vec::new();
            for most in takes {
                let piece = pieces.pop(most).unwrap_or_default();
                prop_assert!(piece.len() <= most);
                out.extend_from_slice(&piece);
                prop_assert_eq!(pieces.length(), all.len() - out.len());
            }
            out.extend_from_slice(&pieces.joined());
            prop_assert!(out == all);
        }
    }
}
