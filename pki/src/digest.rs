//! SHA-2 digests and the two SHA-256 names that the project gives to keys and certificates.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;

/// SHA-256 of the bytes.
pub fn sha256(bytes: &[u8]) -> [u8; 32] {
    let mut out = [0; 32];
    out.copy_from_slice(digest::digest(&digest::SHA256, bytes).as_ref());
    out
}

/// SHA-512 of the bytes: what the manifest of a signed message holds (see [`crate::evidence`]).
pub fn sha512(bytes: &[u8]) -> [u8; 64] {
    let mut out = [0; 64];
    out.copy_from_slice(digest::digest(&digest::SHA512, bytes).as_ref());
    out
}

/// A text that is not 64 lower-case hexadecimal digits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a SHA-256 hash is written as 64 lower-case hexadecimal digits")]
pub struct HashFormError;

/// A SHA-256 hash of one kind of thing, so that the hash of a key is never compared with that of a certificate.
macro_rules! hash_newtype {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
        pub struct $name([u8; 32]);

        impl $name {
            /// Hashes the DER bytes.
            pub fn of(der: &[u8]) -> Self {
                Self(sha256(der))
            }

            /// The 32 bytes.
            pub const fn as_bytes(&self) -> &[u8; 32] {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&hex::encode(self.0))
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, concat!(stringify!($name), "({})"), self)
            }
        }

        impl FromStr for $name {
            type Err = HashFormError;

            fn from_str(text: &str) -> Result<Self, Self::Err> {
                let mut bytes = [0; 32];
                hex::decode_to_slice(text, &mut bytes).map_err(|_| HashFormError)?;
                // One spelling only: these strings are compared as strings in status fields and map keys.
                if text.bytes().any(|byte| byte.is_ascii_uppercase()) { Err(HashFormError) } else { Ok(Self(bytes)) }
            }
        }
    };
}

hash_newtype! {
    /// SHA-256 over the DER SubjectPublicKeyInfo: the name by which a peer is known at the link (design §6.17).
    SpkiHash
}
hash_newtype! {
    /// SHA-256 over the whole DER certificate.
    CertificateHash
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_round_trips_in_one_spelling() {
        let hash = SpkiHash::of(b"abc");
        assert_eq!(hash.to_string(), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
        assert_eq!(hash.to_string().parse(), Ok(hash));
        for text in [hash.to_string().to_uppercase(), hash.to_string()[1..].to_owned(), format!("{hash}0")] {
            assert_eq!(text.parse::<SpkiHash>(), Err(HashFormError), "{text}");
        }
    }
}
