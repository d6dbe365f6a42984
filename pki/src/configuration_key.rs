//! The Ed25519 keys that sign configuration documents.
//!
//! They are no certificates: a gateway pins the public key itself, and a document names its successor. That keeps the trust in
//! documents apart from the trust in authorities, so a re-key of one never waits for the other (ADR 0003).

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::digest;
use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, UnparsedPublicKey};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use zeroize::Zeroizing;

use crate::pem::{self, PemError};

/// The secret half. Neither `Debug` nor any error shows a byte of it.
pub struct ConfigurationKey {
    pair: Ed25519KeyPair,
    pkcs8: Zeroizing<Vec<u8>>,
    public: ConfigurationPublicKey,
}

/// The public half: 32 bytes (RFC 8032), written as standard base64 with padding.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConfigurationPublicKey([u8; 32]);

/// Why a configuration key or a signature was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationKeyError {
    /// The text is not one PEM block "PRIVATE KEY".
    #[error("the configuration key is not a PKCS#8 PEM block")]
    Pem(#[source] PemError),
    /// The block is not an Ed25519 key, or its public part does not belong to it.
    #[error("the configuration key is not an Ed25519 key in PKCS#8")]
    NotEd25519,
    /// The text is not the base64 of 32 bytes.
    #[error("a configuration public key is the base64 of 32 bytes")]
    PublicKeyForm,
    /// The signature was not made by this key over this message.
    #[error("the signature does not verify with configuration key {key_id}")]
    Signature {
        /// [`ConfigurationPublicKey::key_id`] of the key it was checked with.
        key_id: String,
    },
    /// The cryptographic provider failed (out of entropy or memory).
    #[error("the cryptographic provider failed")]
    Provider,
}

impl ConfigurationKey {
    /// A new key from the system's random source.
    pub fn generate() -> Result<Self, ConfigurationKeyError> {
        Ed25519KeyPair::generate().map_err(|_| ConfigurationKeyError::Provider).and_then(Self::new)
    }

    /// The key that RFC 8032 derives from a seed. For tests and known-answer vectors: a seed that is not random is no secret.
    pub fn from_seed(seed: &[u8; 32]) -> Result<Self, ConfigurationKeyError> {
        Ed25519KeyPair::from_seed_unchecked(seed).map_err(|_| ConfigurationKeyError::NotEd25519).and_then(Self::new)
    }

    /// Reads what [`Self::to_pkcs8_pem`] or `openssl genpkey -algorithm ed25519` wrote.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, ConfigurationKeyError> {
        let der = pem::single(text, pem::PRIVATE_KEY).map_err(ConfigurationKeyError::Pem)?;
        // "Maybe unchecked" takes PKCS#8 version 1, which has no public key to compare with; where there is one, it is compared.
        Ed25519KeyPair::from_pkcs8_maybe_unchecked(&der)
            .map_err(|_| ConfigurationKeyError::NotEd25519)
            .and_then(Self::new)
    }

    /// PKCS#8 version 1 (RFC 5958, RFC 8410), the form that every OpenSSL reads.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, &self.pkcs8)
    }

    /// The signature over the message (RFC 8032, pure Ed25519).
    pub fn sign(&self, message: &[u8]) -> [u8; 64] {
        let signature = self.pair.sign(message);
        let mut out = [0; 64];
        out.copy_from_slice(signature.as_ref());
        out
    }

    /// The public half.
    pub fn public(&self) -> ConfigurationPublicKey {
        self.public
    }

    fn new(pair: Ed25519KeyPair) -> Result<Self, ConfigurationKeyError> {
        let pkcs8 = pair.to_pkcs8v1().map_err(|_| ConfigurationKeyError::Provider)?;
        let mut public = [0; 32];
        public.copy_from_slice(pair.public_key().as_ref());
        Ok(Self { pair, pkcs8: Zeroizing::new(pkcs8.as_ref().to_vec()), public: ConfigurationPublicKey(public) })
    }
}

impl fmt::Debug for ConfigurationKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConfigurationKey").field("public", &self.public).finish_non_exhaustive()
    }
}

impl ConfigurationPublicKey {
    /// Wraps the 32 bytes of an Ed25519 public key. Bytes that are no point of the curve verify nothing.
    pub const fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature of the message.
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), ConfigurationKeyError> {
        UnparsedPublicKey::new(&ED25519, &self.0)
            .verify(message, signature)
            .map_err(|_| ConfigurationKeyError::Signature { key_id: self.key_id() })
    }

    /// The short name of the key in documents, logs and status: lower-case hex of the first 16 bytes of SHA-256 over the key.
    pub fn key_id(&self) -> String {
        hex::encode(&digest::digest(&digest::SHA256, &self.0).as_ref()[..16])
    }
}

impl fmt::Display for ConfigurationPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&STANDARD.encode(self.0))
    }
}

impl fmt::Debug for ConfigurationPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ConfigurationPublicKey({self})")
    }
}

impl FromStr for ConfigurationPublicKey {
    type Err = ConfigurationKeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bytes = STANDARD.decode(text).map_err(|_| ConfigurationKeyError::PublicKeyForm)?;
        let key: [u8; 32] = bytes.try_into().map_err(|_| ConfigurationKeyError::PublicKeyForm)?;
        ParsedPublicKey::new(&ED25519, key).map_err(|_| ConfigurationKeyError::PublicKeyForm)?;
        Ok(Self(key))
    }
}

impl Serialize for ConfigurationPublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for ConfigurationPublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 8032 section 7.1, test 2.
    #[test]
    fn known_answer() {
        let seed = hex::decode("4ccd089b28ff96da9db6c346ec114e0f5b8a319f35aba624da8cf6ed4fb8a6fb").unwrap();
        let key = ConfigurationKey::from_seed(&seed.try_into().unwrap()).unwrap();
        let public = hex::decode("3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c").unwrap();
        assert_eq!(key.public().as_bytes().as_slice(), public);
        let signature = concat!(
            "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da",
            "085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302aeeb00d291612bb0c00"
        );
        assert_eq!(hex::encode(key.sign(&[0x72])), signature);
    }

    #[test]
    fn pem_and_base64_round_trip() {
        let key = ConfigurationKey::generate().unwrap();
        let again = ConfigurationKey::from_pkcs8_pem(&key.to_pkcs8_pem()).unwrap();
        assert_eq!(again.public(), key.public());
        assert_eq!(again.public().to_string().parse(), Ok(key.public()));
        assert_eq!(key.public().key_id().len(), 32);
        assert!(again.public().verify(b"message", &key.sign(b"message")).is_ok());
    }

    #[test]
    fn any_change_of_message_signature_or_key_is_refused() {
        let key = ConfigurationKey::generate().unwrap();
        let signature = key.sign(b"message");
        let refused = Err(ConfigurationKeyError::Signature { key_id: key.public().key_id() });
        assert_eq!(key.public().verify(b"messagf", &signature), refused);
        assert_eq!(key.public().verify(b"message", &signature[..63]), refused);
        for at in 0..signature.len() {
            let mut changed = signature;
            changed[at] ^= 1;
            assert_eq!(key.public().verify(b"message", &changed), refused, "byte {at}");
        }
        assert!(ConfigurationKey::generate().unwrap().public().verify(b"message", &signature).is_err());
    }

    #[test]
    fn wrong_forms_are_refused() {
        let short = STANDARD.encode([1; 31]);
        for text in ["", "AAAA", short.as_str(), "not base64 at all, and long enough to hold 32 bytes of it"] {
            assert_eq!(ConfigurationPublicKey::from_str(text), Err(ConfigurationKeyError::PublicKeyForm), "{text}");
        }
        let key = ConfigurationKey::generate().unwrap().to_pkcs8_pem();
        for text in
            [key.repeat(2), key.replace("PRIVATE KEY", "EC PRIVATE KEY"), key.replacen('M', "N", 1), String::new()]
        {
            assert!(ConfigurationKey::from_pkcs8_pem(&text).is_err());
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let key = ConfigurationKey::from_seed(&[0xAB; 32]).unwrap();
        let shown = format!("{key:?}");
        assert!(shown.contains(&key.public().to_string()));
        for secret in ["abab", "ABAB", "171", "q6ur"] {
            assert!(!shown.contains(secret), "{shown}");
        }
    }
}
