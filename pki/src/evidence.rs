//! Signatures of messages: who said what, provable to others later.
//!
//! A message's digests become a [`manifest`], the manifest is signed as a detached CMS (CAdES-B-B). Both pack unchanged into an
//! ASiC-E container (ETSI EN 319 162-1) and are judged by any CMS tool; see ADR 0002.

use std::fmt;

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;

use crate::bundle::Bundle;
use crate::certificate::{self, CertificateError, CertificateFacts, CertificateHash};
use crate::cms::{self, Signer};
use crate::key::{KeyError, KeyPair};
pub use crate::manifest::{BODY_ENTRY, MANIFEST_ENTRY, MESSAGE_ENTRY, MessageDigests, SIGNATURE_ENTRY, manifest};
use crate::pem::{self, PemError};
use crate::verify::{self, Usage, VerifyError};

/// Longest signature that is read: a certificate and a few hundred bytes.
pub const MAX_SIGNATURE_BYTES: usize = certificate::MAX_CERTIFICATE_BYTES + 4 * 1024;

/// A member's signing certificate with its key. `Debug` shows the certificate's facts alone.
pub struct SigningCredential {
    leaf: Vec<u8>,
    /// Issuer (DER) and serial number (content octets), which name the signer in each signature.
    issuer: Vec<u8>,
    serial: Vec<u8>,
    facts: CertificateFacts,
    key: KeyPair,
}

/// A signature that fits the message and the certificate it came with. Who issued that certificate is not known yet: see
/// [`verify()`] or [`verify::verify_leaf`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CheckedSignature<'a> {
    /// The signer's certificate, DER.
    pub leaf_der: &'a [u8],
    /// Its hash: what a caller keeps chain verifications under.
    pub leaf_sha256: CertificateHash,
    /// When the signer says it signed, by its own clock.
    pub signing_time: Timestamp,
}

/// A signature by a certificate that is trusted for signing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerifiedSignature {
    /// The signer's certificate.
    pub facts: CertificateFacts,
    /// When the signer says it signed, by its own clock; within the certificate's validity.
    pub signing_time: Timestamp,
}

/// Why a message could not be signed, or its signature is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EvidenceError {
    /// The certificate text is not one PEM block "CERTIFICATE".
    #[error("the signing certificate is not one PEM block")]
    Pem(#[source] PemError),
    /// The signer's certificate cannot be read.
    #[error("the signing certificate cannot be read")]
    Certificate(#[source] CertificateError),
    /// The key could not be read or used.
    #[error("the signing key cannot be used")]
    Key(#[source] KeyError),
    /// The key is not that of the certificate.
    #[error("the key does not belong to the signing certificate of {subject}")]
    KeyMismatch {
        /// Subject of the certificate.
        subject: String,
    },
    /// A time before 1970 or after 9999.
    #[error("the signing time cannot be written")]
    Time,
    /// Longer than [`MAX_SIGNATURE_BYTES`].
    #[error("the signature is longer than {MAX_SIGNATURE_BYTES} bytes")]
    TooLong,
    /// Not a CMS SignedData of the profile.
    #[error("the signature is not a CMS of the expected form")]
    Malformed,
    /// It was made over other content: the message was altered on its way.
    #[error("the signature is over another message")]
    OtherContent,
    /// The signature value does not fit the certificate's key.
    #[error("the signature does not verify with the key of {subject}")]
    Signature {
        /// Subject of the certificate that came with it.
        subject: String,
    },
    /// The signature value is good, but something around it is not as the profile writes it.
    #[error("the signature has other bytes than its content calls for")]
    NotCanonical,
    /// It says it was made when its certificate was not valid.
    #[error("signed at {signing_time}, outside of the certificate's validity")]
    SignedOutsideValidity {
        /// What it says.
        signing_time: Timestamp,
    },
    /// The certificate is not trusted for signing.
    #[error("the signing certificate is not trusted")]
    Untrusted(#[source] VerifyError),
}

impl SigningCredential {
    /// Joins a DER certificate and its key.
    pub fn new(leaf_der: Vec<u8>, key: KeyPair) -> Result<Self, EvidenceError> {
        let parsed = certificate::parse(&leaf_der).map_err(EvidenceError::Certificate)?;
        let facts = CertificateFacts::of(&parsed).map_err(EvidenceError::Certificate)?;
        if certificate::public_key(&parsed).map_err(EvidenceError::Certificate)? != *key.public() {
            return Err(EvidenceError::KeyMismatch { subject: facts.subject });
        }
        let (issuer, serial) = (parsed.issuer().as_raw().to_vec(), parsed.raw_serial().to_vec());
        Ok(Self { issuer, serial, facts, key, leaf: leaf_der })
    }

    /// Reads both from PEM.
    pub fn from_pem(leaf_pem: &str, key_pem: &str) -> Result<Self, EvidenceError> {
        let leaf = pem::single(leaf_pem, pem::CERTIFICATE).map_err(EvidenceError::Pem)?;
        Self::new(leaf.to_vec(), KeyPair::from_pkcs8_pem(key_pem).map_err(EvidenceError::Key)?)
    }

    /// What the certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The certificate, DER.
    pub fn leaf_der(&self) -> &[u8] {
        &self.leaf
    }

    fn signer(&self) -> Signer<'_> {
        Signer { algorithm: self.key.algorithm(), certificate: &self.leaf, issuer: &self.issuer, serial: &self.serial }
    }
}

impl fmt::Debug for SigningCredential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SigningCredential").field("facts", &self.facts).finish_non_exhaustive()
    }
}

/// Signs a message: a detached CMS over its [`manifest`], DER. Signatures of ECDSA differ at each call.
pub fn sign(
    digests: &MessageDigests,
    credential: &SigningCredential,
    signing_time: Timestamp,
) -> Result<Vec<u8>, EvidenceError> {
    let signer = credential.signer();
    let digest = cms::digest(signer.algorithm, &manifest(digests));
    let attributes = cms::signed_attributes(&signer, &digest, signing_time).ok_or(EvidenceError::Time)?;
    let signature = credential.key.sign(&attributes).map_err(EvidenceError::Key)?;
    Ok(cms::write(&signer, &attributes, &signature))
}

/// Checks a signature against the message and the certificate that it carries, without asking who issued that certificate.
///
/// For callers that keep the outcome of chain checks by [`CheckedSignature::leaf_sha256`]. They must make that check
/// ([`verify::verify_leaf`] for [`Usage::Signing`]) and then call [`CheckedSignature::check_time`].
pub fn verify_signature_only<'a>(
    cms: &'a [u8],
    digests: &MessageDigests,
) -> Result<CheckedSignature<'a>, EvidenceError> {
    if cms.len() > MAX_SIGNATURE_BYTES {
        return Err(EvidenceError::TooLong);
    }
    let found = cms::read(cms).map_err(|_| EvidenceError::Malformed)?;
    let leaf: X509Certificate<'_> = certificate::parse(found.certificate).map_err(EvidenceError::Certificate)?;
    let key = certificate::public_key(&leaf).map_err(EvidenceError::Certificate)?;
    let signer = Signer {
        algorithm: key.algorithm(),
        certificate: found.certificate,
        issuer: leaf.issuer().as_raw(),
        serial: leaf.raw_serial(),
    };
    let digest = cms::digest(signer.algorithm, &manifest(digests));
    if digest != found.message_digest {
        return Err(EvidenceError::OtherContent);
    }
    let attributes = cms::signed_attributes(&signer, &digest, found.signing_time).ok_or(EvidenceError::Time)?;
    key.verify(&attributes, found.signature)
        .map_err(|_| EvidenceError::Signature { subject: leaf.subject().to_string() })?;
    // Bytes that no signature covers, such as algorithm names and versions, must say what they should.
    if cms::write(&signer, &attributes, found.signature) != cms {
        return Err(EvidenceError::NotCanonical);
    }
    Ok(CheckedSignature {
        leaf_der: found.certificate,
        leaf_sha256: CertificateHash::of(found.certificate),
        signing_time: found.signing_time,
    })
}

/// Checks a signature and its certificate's chain to the bundle at `now`. For a message from the log, `now` is the time that
/// its time stamp proves.
pub fn verify(
    cms: &[u8],
    digests: &MessageDigests,
    bundle: &Bundle,
    now: Timestamp,
) -> Result<VerifiedSignature, EvidenceError> {
    let checked = verify_signature_only(cms, digests)?;
    let facts =
        verify::verify_leaf(checked.leaf_der, &[], bundle, Usage::Signing, now).map_err(EvidenceError::Untrusted)?;
    checked.check_time(&facts)?;
    Ok(VerifiedSignature { facts, signing_time: checked.signing_time })
}

impl CheckedSignature<'_> {
    /// Refuses a signature that says it was made when its certificate was not valid. How far the signer's clock may be from
    /// the verifier's is the caller's to judge.
    pub fn check_time(&self, facts: &CertificateFacts) -> Result<(), EvidenceError> {
        if facts.is_valid_at(self.signing_time) {
            Ok(())
        } else {
            Err(EvidenceError::SignedOutsideValidity { signing_time: self.signing_time })
        }
    }
}
