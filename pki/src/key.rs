//! Key pairs of authorities and leaves, and where they come from.

use std::fmt;
use std::str::FromStr;

use aws_lc_rs::encoding::{AsDer, Pkcs8V1Der};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_ASN1, ECDSA_P256_SHA256_ASN1_SIGNING, ECDSA_P384_SHA384_ASN1, ECDSA_P384_SHA384_ASN1_SIGNING,
    ED25519, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _, ParsedPublicKey, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_SHA256,
    RsaEncoding, RsaKeyPair, RsaParameters, UnparsedPublicKey, VerificationAlgorithm,
};
use x509_parser::prelude::FromDer;
use x509_parser::x509::SubjectPublicKeyInfo;
use zeroize::Zeroizing;

pub use crate::digest::SpkiHash;
use crate::pem::{self, PemError};

/// What a key pair is and how it signs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Algorithm {
    /// ECDSA on P-256 with SHA-256: the default, the fastest to sign with and accepted everywhere.
    #[default]
    EcdsaP256,
    /// ECDSA on P-384 with SHA-384.
    EcdsaP384,
    /// Ed25519 (RFC 8032, RFC 8410).
    Ed25519,
    /// RSA of 3072 bits, PKCS#1 v1.5 with SHA-256.
    Rsa3072,
}

/// A secret key with its public half. `Debug` shows the algorithm and the hash of the public key, nothing more.
pub struct KeyPair {
    secret: Secret,
    pkcs8: Zeroizing<Vec<u8>>,
    public: SubjectPublicKey,
}

enum Secret {
    Ecdsa(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
    Rsa(RsaKeyPair),
}

/// A public key of one of the supported algorithms. Equal when the encoding is.
#[derive(Clone)]
pub struct SubjectPublicKey {
    algorithm: Algorithm,
    /// DER SubjectPublicKeyInfo (RFC 5280 section 4.1).
    spki: Vec<u8>,
    /// Content of its bit string, the form in which the provider takes keys.
    raw: Vec<u8>,
    /// The provider's form: reading a point of a curve costs as much as a tenth of a verification.
    parsed: ParsedPublicKey,
}

/// Where key pairs come from. The operator uses [`SystemKeys`]; tests may bring their own.
pub trait KeySource: Send + Sync {
    /// A new key pair.
    fn generate(&self, algorithm: Algorithm) -> Result<KeyPair, KeyError>;
}

/// Keys from the system's random source.
#[derive(Debug, Clone, Copy, Default)]
pub struct SystemKeys;

/// Why a key was refused. No variant carries any byte of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The text is not one PEM block "PRIVATE KEY".
    #[error("the key is not a PKCS#8 PEM block")]
    Pem(#[source] PemError),
    /// No supported private key: damaged, another algorithm, or RSA of another size.
    #[error("the private key is not ECDSA-P256, ECDSA-P384, Ed25519 or RSA-3072 in PKCS#8")]
    UnsupportedPrivateKey,
    /// No supported public key.
    #[error("the public key is not ECDSA-P256, ECDSA-P384, Ed25519 or RSA-3072")]
    UnsupportedPublicKey,
    /// The signature was not made by this key over this message.
    #[error("the signature does not verify")]
    Signature,
    /// The cryptographic provider failed (out of entropy or memory).
    #[error("the cryptographic provider failed")]
    Provider,
    /// The name is not one of the four.
    #[error("the key algorithm is not one of ECDSA-P256, ECDSA-P384, Ed25519, RSA-3072")]
    UnknownAlgorithm,
}

impl Algorithm {
    /// All, in the order of the documentation.
    pub const ALL: [Self; 4] = [Self::EcdsaP256, Self::EcdsaP384, Self::Ed25519, Self::Rsa3072];

    /// The name used in specs and status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::EcdsaP256 => "ECDSA-P256",
            Self::EcdsaP384 => "ECDSA-P384",
            Self::Ed25519 => "Ed25519",
            Self::Rsa3072 => "RSA-3072",
        }
    }

    fn rcgen(self) -> &'static rcgen::SignatureAlgorithm {
        match self {
            Self::EcdsaP256 => &rcgen::PKCS_ECDSA_P256_SHA256,
            Self::EcdsaP384 => &rcgen::PKCS_ECDSA_P384_SHA384,
            Self::Ed25519 => &rcgen::PKCS_ED25519,
            Self::Rsa3072 => &rcgen::PKCS_RSA_SHA256,
        }
    }

    fn verification(self) -> &'static dyn VerificationAlgorithm {
        match self {
            Self::EcdsaP256 => &ECDSA_P256_SHA256_ASN1,
            Self::EcdsaP384 => &ECDSA_P384_SHA384_ASN1,
            Self::Ed25519 => &ED25519,
            Self::Rsa3072 => &RSA_PKCS1_2048_8192_SHA256,
        }
    }
}

impl fmt::Display for Algorithm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

impl FromStr for Algorithm {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|algorithm| algorithm.name() == text).ok_or(KeyError::UnknownAlgorithm)
    }
}

impl KeyPair {
    /// Reads an unencrypted PKCS#8 key of any supported algorithm.
    pub fn from_pkcs8_pem(text: &str) -> Result<Self, KeyError> {
        Self::from_pkcs8(pem::single(text, pem::PRIVATE_KEY).map_err(KeyError::Pem)?)
    }

    /// Takes PKCS#8 DER. The algorithm is found by trying: each parser refuses the identifiers of the others.
    pub(crate) fn from_pkcs8(pkcs8: Zeroizing<Vec<u8>>) -> Result<Self, KeyError> {
        let (secret, algorithm) = if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_ASN1_SIGNING, &pkcs8) {
            (Secret::Ecdsa(key), Algorithm::EcdsaP256)
        } else if let Ok(key) = EcdsaKeyPair::from_pkcs8(&ECDSA_P384_SHA384_ASN1_SIGNING, &pkcs8) {
            (Secret::Ecdsa(key), Algorithm::EcdsaP384)
        } else if let Ok(key) = Ed25519KeyPair::from_pkcs8_maybe_unchecked(&pkcs8) {
            (Secret::Ed25519(key), Algorithm::Ed25519)
        } else if let Ok(key) = RsaKeyPair::from_pkcs8(&pkcs8)
            && key.public_modulus_len() == 384
        {
            (Secret::Rsa(key), Algorithm::Rsa3072)
        } else {
            return Err(KeyError::UnsupportedPrivateKey);
        };
        let raw = match &secret {
            Secret::Ecdsa(key) => key.public_key().as_ref(),
            Secret::Ed25519(key) => key.public_key().as_ref(),
            Secret::Rsa(key) => key.public_key().as_ref(),
        };
        let public = SubjectPublicKey::new(algorithm, raw.to_vec())?;
        Ok(Self { secret, pkcs8, public })
    }

    /// PKCS#8 (RFC 5958) as PEM, wiped when dropped.
    pub fn to_pkcs8_pem(&self) -> Zeroizing<String> {
        pem::encode(pem::PRIVATE_KEY, &self.pkcs8)
    }

    /// PKCS#8 DER, for TLS stacks.
    pub fn pkcs8_der(&self) -> &[u8] {
        &self.pkcs8
    }

    /// What the key is.
    pub fn algorithm(&self) -> Algorithm {
        self.public.algorithm
    }

    /// The public half.
    pub fn public(&self) -> &SubjectPublicKey {
        &self.public
    }

    /// SHA-256 over the DER of the public half.
    pub fn spki_sha256(&self) -> SpkiHash {
        self.public.spki_sha256()
    }

    /// Signs the message; the algorithm names the digest.
    pub fn sign(&self, message: &[u8]) -> Result<Vec<u8>, KeyError> {
        let signed = match &self.secret {
            Secret::Ecdsa(key) => key.sign(&SystemRandom::new(), message).map(|signature| signature.as_ref().to_vec()),
            Secret::Ed25519(key) => key.try_sign(message).map(|signature| signature.as_ref().to_vec()),
            Secret::Rsa(key) => {
                let encoding: &'static dyn RsaEncoding = &RSA_PKCS1_SHA256;
                let mut signature = vec![0; key.public_modulus_len()];
                key.sign(encoding, &SystemRandom::new(), message, &mut signature).map(|()| signature)
            }
        };
        signed.map_err(|_| KeyError::Provider)
    }
}

impl fmt::Debug for KeyPair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyPair").field("public", &self.public).finish_non_exhaustive()
    }
}

impl SubjectPublicKey {
    /// Refuses what is no key of the algorithm: a point off the curve, an RSA key of another size.
    fn new(algorithm: Algorithm, raw: Vec<u8>) -> Result<Self, KeyError> {
        if algorithm == Algorithm::Rsa3072 && !is_rsa_3072(&raw) {
            return Err(KeyError::UnsupportedPublicKey);
        }
        let parsed =
            ParsedPublicKey::new(algorithm.verification(), &raw).map_err(|_| KeyError::UnsupportedPublicKey)?;
        let encoding = Encoding { algorithm, raw: &raw };
        let spki = rcgen::PublicKeyData::subject_public_key_info(&encoding);
        Ok(Self { algorithm, spki, raw, parsed })
    }

    /// Reads a DER SubjectPublicKeyInfo that is encoded in the one way that the algorithm's RFC demands.
    pub fn from_spki_der(der: &[u8]) -> Result<Self, KeyError> {
        let (_, parsed) = SubjectPublicKeyInfo::from_der(der).map_err(|_| KeyError::UnsupportedPublicKey)?;
        // Points and Ed25519 keys have one length each; the comparison below proves the guess and that nothing else was said.
        let algorithm = match der.len() {
            91 => Algorithm::EcdsaP256,
            120 => Algorithm::EcdsaP384,
            44 => Algorithm::Ed25519,
            _ => Algorithm::Rsa3072,
        };
        let key = Self::new(algorithm, parsed.subject_public_key.data.to_vec())?;
        if key.spki == der { Ok(key) } else { Err(KeyError::UnsupportedPublicKey) }
    }

    /// DER SubjectPublicKeyInfo.
    pub fn spki_der(&self) -> &[u8] {
        &self.spki
    }

    /// What the key is.
    pub fn algorithm(&self) -> Algorithm {
        self.algorithm
    }

    /// SHA-256 over [`Self::spki_der`].
    pub fn spki_sha256(&self) -> SpkiHash {
        SpkiHash::of(&self.spki)
    }

    /// The subject key identifier: the first 20 bytes of [`Self::spki_sha256`] (RFC 7093 section 2, method 4).
    ///
    /// Derived from the key alone, so an authority renewed with the same key keeps it.
    pub fn key_identifier(&self) -> Vec<u8> {
        self.spki_sha256().as_bytes()[..20].to_vec()
    }

    /// Checks a signature made by [`KeyPair::sign`].
    pub fn verify(&self, message: &[u8], signature: &[u8]) -> Result<(), KeyError> {
        self.parsed.verify_sig(message, signature).map_err(|_| KeyError::Signature)
    }

    /// Checks a signature made with another digest than ours.
    pub(crate) fn verify_with(
        &self,
        algorithm: &'static dyn VerificationAlgorithm,
        message: &[u8],
        signature: &[u8],
    ) -> Result<(), KeyError> {
        UnparsedPublicKey::new(algorithm, &self.raw).verify(message, signature).map_err(|_| KeyError::Signature)
    }
}

impl PartialEq for SubjectPublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.spki == other.spki
    }
}

impl Eq for SubjectPublicKey {}

fn is_rsa_3072(raw: &[u8]) -> bool {
    RsaParameters::public_modulus_len(raw).is_ok_and(|bits| bits == 3072)
}

impl fmt::Debug for SubjectPublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SubjectPublicKey({}, {})", self.algorithm, self.spki_sha256())
    }
}

impl KeySource for SystemKeys {
    fn generate(&self, algorithm: Algorithm) -> Result<KeyPair, KeyError> {
        let pkcs8 = match algorithm {
            Algorithm::EcdsaP256 => EcdsaKeyPair::generate(&ECDSA_P256_SHA256_ASN1_SIGNING)
                .and_then(|key| key.to_pkcs8v1())
                .map(|document| document.as_ref().to_vec()),
            Algorithm::EcdsaP384 => EcdsaKeyPair::generate(&ECDSA_P384_SHA384_ASN1_SIGNING)
                .and_then(|key| key.to_pkcs8v1())
                .map(|document| document.as_ref().to_vec()),
            // Version 1 without the public key: OpenSSL 3.0 does not read version 2 (RFC 5958 section 2).
            Algorithm::Ed25519 => {
                Ed25519KeyPair::generate().and_then(|key| key.to_pkcs8v1()).map(|document| document.as_ref().to_vec())
            }
            Algorithm::Rsa3072 => RsaKeyPair::generate(KeySize::Rsa3072)
                .and_then(|key| AsDer::<Pkcs8V1Der<'_>>::as_der(&key))
                .map(|document| document.as_ref().to_vec()),
        };
        KeyPair::from_pkcs8(Zeroizing::new(pkcs8.map_err(|_| KeyError::Provider)?))
    }
}

/// What the library needs to encode a key.
struct Encoding<'a> {
    algorithm: Algorithm,
    raw: &'a [u8],
}

impl rcgen::PublicKeyData for Encoding<'_> {
    fn der_bytes(&self) -> &[u8] {
        self.raw
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm.rcgen()
    }
}

impl rcgen::PublicKeyData for SubjectPublicKey {
    fn der_bytes(&self) -> &[u8] {
        &self.raw
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.algorithm.rcgen()
    }
}

impl rcgen::PublicKeyData for KeyPair {
    fn der_bytes(&self) -> &[u8] {
        self.public.der_bytes()
    }

    fn algorithm(&self) -> &'static rcgen::SignatureAlgorithm {
        self.public.algorithm.rcgen()
    }
}

impl rcgen::SigningKey for KeyPair {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rcgen::Error> {
        KeyPair::sign(self, message).map_err(|_| rcgen::Error::RingUnspecified)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture;
    use crate::test_support::FixedKeys;

    #[test]
    fn every_algorithm_signs_round_trips_and_has_one_name() {
        for algorithm in Algorithm::ALL {
            let key = fixture::key(algorithm, 0);
            assert_eq!(key.algorithm(), algorithm);
            assert_eq!(algorithm.to_string().parse(), Ok(algorithm));
            let again = KeyPair::from_pkcs8_pem(&key.to_pkcs8_pem()).unwrap();
            assert_eq!(again.public(), key.public(), "{algorithm}");
            let public = SubjectPublicKey::from_spki_der(key.public().spki_der()).unwrap();
            assert_eq!(&public, key.public());
            let signature = again.sign(b"message").unwrap();
            assert_eq!(public.verify(b"message", &signature), Ok(()), "{algorithm}");
            assert_eq!(public.verify(b"massage", &signature), Err(KeyError::Signature), "{algorithm}");
        }
    }

    #[test]
    fn system_keys_read_back_and_differ() {
        for algorithm in [Algorithm::EcdsaP256, Algorithm::EcdsaP384, Algorithm::Ed25519] {
            let (one, two) = (SystemKeys.generate(algorithm).unwrap(), SystemKeys.generate(algorithm).unwrap());
            assert_eq!(one.algorithm(), algorithm);
            assert_ne!(one.spki_sha256(), two.spki_sha256());
        }
    }

    #[test]
    fn fixed_keys_repeat_in_each_run() {
        let keys = FixedKeys::default();
        let generate = |keys: &FixedKeys| keys.generate(Algorithm::EcdsaP256).unwrap().spki_sha256();
        let (first, second) = (generate(&keys), generate(&keys));
        assert_ne!(first, second);
        assert_eq!((generate(&FixedKeys::default()), generate(&FixedKeys::starting_at(1))), (first, second));
    }

    #[test]
    fn public_keys_of_other_forms_are_refused() {
        let spki = fixture::key(Algorithm::EcdsaP256, 0).public().spki_der().to_vec();
        let mut off_curve = spki.clone();
        *off_curve.last_mut().unwrap() ^= 1;
        let mut trailing = spki.clone();
        trailing.push(0);
        let mut other_curve = spki.clone();
        // The last octet of the curve's identifier.
        let curve = other_curve.windows(8).position(|bytes| bytes == hex::decode("2a8648ce3d030107").unwrap()).unwrap();
        other_curve[curve + 7] = 6;
        for (name, der) in
            [("point", off_curve), ("trailing", trailing), ("curve", other_curve), ("cut", spki[..60].to_vec())]
        {
            assert_eq!(SubjectPublicKey::from_spki_der(&der), Err(KeyError::UnsupportedPublicKey), "{name}");
        }
        let small = RsaKeyPair::generate(KeySize::Rsa2048).unwrap();
        let raw = small.public_key().as_ref();
        let small = rcgen::PublicKeyData::subject_public_key_info(&Encoding { algorithm: Algorithm::Rsa3072, raw });
        assert_eq!(SubjectPublicKey::from_spki_der(&small), Err(KeyError::UnsupportedPublicKey));
    }

    #[test]
    fn debug_shows_no_secret() {
        for algorithm in Algorithm::ALL {
            let key = fixture::key(algorithm, 0);
            let shown = format!("{key:?}");
            let secret = key.pkcs8_der();
            assert!(shown.contains(&key.spki_sha256().to_string()), "{shown}");
            // Any 8 bytes of the key as hex, decimal list or base64 would be found by one of these.
            for window in secret.windows(8) {
                assert!(!shown.contains(&hex::encode(window)), "{algorithm}");
                assert!(!shown.contains(&format!("{window:?}")[1..20]), "{algorithm}");
            }
            assert!(shown.len() < 140, "{shown}");
        }
    }
}
