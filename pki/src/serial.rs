//! Serial numbers of the certificates that Saatkond issues.

use std::fmt;
use std::str::FromStr;

/// A positive serial number of exactly 16 bytes (RFC 5280 section 4.1.2.2 allows up to 20).
///
/// The randomness is the caller's. Two bits are fixed: the highest is 0, so that the number is positive, and the next is 1, so
/// that it always takes 16 bytes and has one spelling; 126 random bits remain.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Serial([u8; 16]);

/// A text that is no serial number of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a serial number is written as 32 lower-case hexadecimal digits, the first of them 4 to 7")]
pub struct SerialFormError;

impl Serial {
    /// Makes a serial number of 16 random bytes.
    pub const fn from_random(mut bytes: [u8; 16]) -> Self {
        bytes[0] = (bytes[0] & 0x3f) | 0x40;
        Self(bytes)
    }

    /// The number, most significant byte first.
    pub const fn as_bytes(&self) -> &[u8; 16] {
        &self.0
    }
}

impl fmt::Display for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Serial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Serial({self})")
    }
}

impl FromStr for Serial {
    type Err = SerialFormError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut bytes = [0; 16];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| SerialFormError)?;
        let serial = Self::from_random(bytes);
        if serial.to_string() == text { Ok(serial) } else { Err(SerialFormError) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn always_positive_and_sixteen_bytes() {
        for (random, first) in [(0x00, 0x40), (0xff, 0x7f), (0x80, 0x40), (0x3f, 0x7f), (0x7f, 0x7f)] {
            assert_eq!(Serial::from_random([random; 16]).as_bytes()[0], first, "{random:#x}");
        }
    }

    #[test]
    fn text_round_trips_in_one_spelling() {
        let serial = Serial::from_random([0xab; 16]);
        assert_eq!(serial.to_string().parse(), Ok(serial));
        for text in ["", "40", "ABABABABABABABABABABABABABABABAB", "00000000000000000000000000000000"] {
            assert_eq!(text.parse::<Serial>(), Err(SerialFormError), "{text}");
        }
    }
}
