//! Signatures of messages: who said what, provable to others later.
//!
//! A message's digests become a [`manifest`], the manifest is signed as a detached CMS (CAdES-B-B). Both pack unchanged into an
//! ASiC-E container (ETSI EN 319 162-1) and are judged by any CMS tool; see ADR 0002.

use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use webpki::EndEntityCert;

pub use crate::batch::MAX_BATCH;
use crate::batch::{self, Form};
use crate::bundle::Bundle;
use crate::certificate::{self, CertificateError, CertificateFacts, CertificateHash};
use crate::cms::{self, Found, Signer};
use crate::digest::sha256;
use crate::key::{KeyError, KeyPair, SubjectPublicKey};
use crate::manifest::batch_manifest;
pub use crate::manifest::{
    BATCH_ENTRY, BODY_ENTRY, BodyDigest, MANIFEST_ENTRY, MESSAGE_ENTRY, MessageDigests, SIGNATURE_ENTRY, manifest,
};
use crate::pem::{self, PemError};
use crate::verify::{self, Usage, VerifyError};

/// Longest signature that is read: a certificate, a path and a few hundred bytes.
pub const MAX_SIGNATURE_BYTES: usize = certificate::MAX_CERTIFICATE_BYTES + 4 * 1024;

/// A member's signing certificate with its key. `Debug` shows the certificate's facts alone.
pub struct SigningCredential {
    leaf: Vec<u8>,
    /// Issuer and serial number (content octets), which name the signer in each signature.
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
        let facts = CertificateFacts::parse(&leaf_der).map_err(EvidenceError::Certificate)?;
        if certificate::public_key_of(&leaf_der).map_err(EvidenceError::Certificate)? != *key.public() {
            return Err(EvidenceError::KeyMismatch { subject: facts.subject });
        }
        let (issuer, serial) = {
            let der = CertificateDer::from(leaf_der.as_slice());
            let leaf =
                EndEntityCert::try_from(&der).map_err(|_| EvidenceError::Certificate(CertificateError::Malformed))?;
            (leaf.issuer().to_vec(), leaf.serial().to_vec())
        };
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
    sign_content(&manifest(digests), credential, signing_time)
}

/// Signs several messages at the cost of one signature; the results stand in the order of the messages. A message alone is signed
/// as by [`sign`], and so are all when there are more than [`MAX_BATCH`].
pub fn sign_batch(
    messages: &[&MessageDigests],
    credential: &SigningCredential,
    signing_time: Timestamp,
) -> Result<Vec<Vec<u8>>, EvidenceError> {
    let leaves: Vec<_> = messages.iter().map(|digests| batch::leaf(&manifest(digests))).collect();
    let Some((root, paths)) = batch::tree(&leaves) else {
        return messages.iter().map(|digests| sign(digests, credential, signing_time)).collect();
    };
    let cms = sign_content(&batch_manifest(&root), credential, signing_time)?;
    Ok(paths.into_iter().map(|path| [path.as_slice(), &cms].concat()).collect())
}

fn sign_content(
    content: &[u8],
    credential: &SigningCredential,
    signing_time: Timestamp,
) -> Result<Vec<u8>, EvidenceError> {
    let signer = credential.signer();
    let digest = cms::digest(signer.algorithm, content);
    let attributes = cms::signed_attributes(&signer, &digest, signing_time).ok_or(EvidenceError::Time)?;
    let signature = credential.key.sign(&attributes).map_err(EvidenceError::Key)?;
    Ok(cms::write(&signer, &attributes, &signature))
}

/// Checks a signature against the message and the certificate that it carries, without asking who issued that certificate.
///
/// For callers that keep the outcome of chain checks by [`CheckedSignature::leaf_sha256`]. They must make that check
/// ([`verify::verify_leaf`] for [`Usage::Signing`]) and then call [`CheckedSignature::check_time`].
pub fn verify_signature_only<'a>(
    signature: &'a [u8],
    digests: &MessageDigests,
) -> Result<CheckedSignature<'a>, EvidenceError> {
    verify_signature_remembering(signature, digests, &Forgetful)
}

/// As [`verify_signature_only`]; a batch's CMS whose check `memory` holds is not checked again. That the message belongs to the
/// batch is.
pub fn verify_signature_remembering<'a>(
    signature: &'a [u8],
    digests: &MessageDigests,
    memory: &impl Memory,
) -> Result<CheckedSignature<'a>, EvidenceError> {
    if signature.len() > MAX_SIGNATURE_BYTES {
        return Err(EvidenceError::TooLong);
    }
    let manifest = manifest(digests);
    let (steps, cms) = match batch::split(signature).ok_or(EvidenceError::Malformed)? {
        Form::Single { cms } => return check(&read(cms)?, cms, &manifest),
        Form::Batched { steps, cms } => (steps, cms),
    };
    let root = batch::climb(batch::leaf(&manifest), steps);
    let found = read(cms)?;
    // The root has one length: no two pairs of CMS and root are the same bytes.
    let name = sha256(&[cms, &root].concat());
    if memory.holds(&name) {
        return Ok(CheckedSignature::of(&found));
    }
    let checked = check(&found, cms, &batch_manifest(&root))?;
    memory.keep(name);
    Ok(checked)
}

/// Which batches' signatures have been found good. What is remembered is arithmetic, true at any time and whatever is trusted:
/// that a CMS signs a root with the key of the certificate it carries. Whether that certificate is trusted is asked for each message.
pub trait Memory {
    /// Whether this was kept.
    fn holds(&self, name: &[u8; 32]) -> bool;
    /// Keeps the name of a pair of CMS and root that was found good: a SHA-256 digest of both.
    fn keep(&self, name: [u8; 32]);
}

/// Remembers nothing.
struct Forgetful;

impl Memory for Forgetful {
    fn holds(&self, _: &[u8; 32]) -> bool {
        false
    }

    fn keep(&self, _: [u8; 32]) {}
}

fn read(cms: &[u8]) -> Result<Found<'_>, EvidenceError> {
    cms::read(cms).map_err(|_| EvidenceError::Malformed)
}

/// Checks what was found in `cms` against the content that it should sign.
fn check<'a>(found: &Found<'a>, cms: &[u8], content: &[u8]) -> Result<CheckedSignature<'a>, EvidenceError> {
    // The chain builder's reader, not that of `certificate`: it takes a tenth of the time and this is the hot path.
    let der = CertificateDer::from(found.certificate);
    let leaf = EndEntityCert::try_from(&der).map_err(|_| EvidenceError::Certificate(CertificateError::Malformed))?;
    let key = SubjectPublicKey::from_spki_der(&leaf.subject_public_key_info())
        .map_err(|error| EvidenceError::Certificate(CertificateError::Key(error)))?;
    let signer = Signer {
        algorithm: key.algorithm(),
        certificate: found.certificate,
        issuer: leaf.issuer(),
        serial: leaf.serial(),
    };
    let digest = cms::digest(signer.algorithm, content);
    if digest != found.message_digest {
        return Err(EvidenceError::OtherContent);
    }
    let attributes = cms::signed_attributes(&signer, &digest, found.signing_time).ok_or(EvidenceError::Time)?;
    if key.verify(&attributes, found.signature).is_err() {
        let facts = CertificateFacts::parse(found.certificate).map_err(EvidenceError::Certificate)?;
        return Err(EvidenceError::Signature { subject: facts.subject });
    }
    // Bytes that no signature covers, such as algorithm names and versions, must say what they should.
    if cms::write(&signer, &attributes, found.signature) != cms {
        return Err(EvidenceError::NotCanonical);
    }
    Ok(CheckedSignature::of(found))
}

/// Checks a signature and its certificate's chain to the bundle at `now`. For a message from the log, `now` is the time that
/// its time stamp proves.
pub fn verify(
    signature: &[u8],
    digests: &MessageDigests,
    bundle: &Bundle,
    now: Timestamp,
) -> Result<VerifiedSignature, EvidenceError> {
    let checked = verify_signature_only(signature, digests)?;
    let facts =
        verify::verify_leaf(checked.leaf_der, &[], bundle, Usage::Signing, now).map_err(EvidenceError::Untrusted)?;
    checked.check_time(&facts)?;
    Ok(VerifiedSignature { facts, signing_time: checked.signing_time })
}

impl<'a> CheckedSignature<'a> {
    fn of(found: &Found<'a>) -> Self {
        let leaf_sha256 = CertificateHash::of(found.certificate);
        Self { leaf_der: found.certificate, leaf_sha256, signing_time: found.signing_time }
    }

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

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::authority::Authority;
    use crate::digest::sha512;
    use crate::fixture::{self, HOUR, NOW, at};
    use crate::key::Algorithm;

    fn credential(authority: &Authority, algorithm: Algorithm) -> SigningCredential {
        let (leaf, key) = fixture::leaf(authority, Usage::Signing, algorithm);
        SigningCredential::from_pem(&leaf.pem, &key.to_pkcs8_pem()).unwrap()
    }

    fn digests() -> MessageDigests {
        MessageDigests::of_request(b"POST /EE/GOV/70000002/registry HTTP/1.1", Some(b"{}"))
    }

    #[test]
    fn every_algorithm_signs_and_verifies() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        for algorithm in Algorithm::ALL {
            let credential = credential(&authority, algorithm);
            for digests in [digests(), MessageDigests::of_request(b"", None)] {
                let cms = sign(&digests, &credential, at(NOW)).unwrap();
                let verified = verify(&cms, &digests, &bundle, at(NOW + 1)).unwrap();
                assert_eq!((&verified.facts, verified.signing_time), (credential.facts(), at(NOW)), "{algorithm}");
                let checked = verify_signature_only(&cms, &digests).unwrap();
                assert_eq!(checked.leaf_der, credential.leaf_der());
                assert_eq!(checked.leaf_sha256, credential.facts().sha256);
            }
        }
    }

    #[test]
    fn another_message_is_refused() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let cms = sign(&digests(), &credential(&authority, Algorithm::EcdsaP256), at(NOW)).unwrap();
        let others = [
            MessageDigests { body: None, ..digests() },
            MessageDigests { body: Some([0; 64].into()), ..digests() },
            MessageDigests::of_answer(b"POST /EE/GOV/70000002/registry HTTP/1.1", Some(b"{}")),
            MessageDigests { rest_part: [0; 64], ..digests() },
            MessageDigests { rest_part: sha512(b"{}"), body: Some(digests().rest_part.into()) },
        ];
        for other in others {
            assert_eq!(verify_signature_only(&cms, &other), Err(EvidenceError::OtherContent));
        }
    }

    /// Five messages under one signature; the odd one out has a shorter path.
    fn batch(credential: &SigningCredential) -> Vec<(MessageDigests, Vec<u8>)> {
        let messages: Vec<_> = (0..5_u8).map(|number| MessageDigests::of_request(&[number], Some(b"{}"))).collect();
        let signatures = sign_batch(&messages.iter().collect::<Vec<_>>(), credential, at(NOW)).unwrap();
        messages.into_iter().zip(signatures).collect()
    }

    #[derive(Default)]
    struct Kept(std::cell::RefCell<std::collections::HashSet<[u8; 32]>>);

    impl Memory for Kept {
        fn holds(&self, name: &[u8; 32]) -> bool {
            self.0.borrow().contains(name)
        }

        fn keep(&self, name: [u8; 32]) {
            self.0.borrow_mut().insert(name);
        }
    }

    #[test]
    fn a_batch_proves_each_of_its_messages_and_no_other() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        for algorithm in Algorithm::ALL {
            let credential = credential(&authority, algorithm);
            let batch = batch(&credential);
            for (digests, signature) in &batch {
                let verified = verify(signature, digests, &bundle, at(NOW + 1)).unwrap();
                assert_eq!((&verified.facts, verified.signing_time), (credential.facts(), at(NOW)), "{algorithm}");
                for (other, _) in batch.iter().filter(|(other, _)| other != digests) {
                    assert_eq!(verify_signature_only(signature, other), Err(EvidenceError::OtherContent));
                }
            }
        }
    }

    #[test]
    fn one_message_needs_no_batch_and_too_many_get_none() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let credential = credential(&authority, Algorithm::EcdsaP256);
        for count in [0, 1, MAX_BATCH + 1] {
            let digests = digests();
            let signatures = sign_batch(&vec![&digests; count], &credential, at(NOW)).unwrap();
            assert_eq!(signatures.len(), count);
            assert!(signatures.iter().all(|signature| signature[0] == 0x30), "each is a CMS alone");
        }
    }

    /// With and without a memory that holds the batch: what is remembered lets nothing else pass.
    #[test]
    fn no_byte_of_a_batched_signature_can_be_changed() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let memory = Kept::default();
        for (digests, signature) in batch(&credential(&authority, Algorithm::EcdsaP256)) {
            verify_signature_remembering(&signature, &digests, &memory).unwrap();
            let refused = |changed: &[u8], what: &str| {
                assert!(verify_signature_only(changed, &digests).is_err(), "{what}");
                assert!(verify_signature_remembering(changed, &digests, &memory).is_err(), "{what}, remembered");
            };
            for place in 0..signature.len() {
                for mask in [0x01, 0x80, 0xff] {
                    let mut changed = signature.clone();
                    changed[place] ^= mask;
                    refused(&changed, &format!("byte {place} ^ {mask:#x}"));
                }
                refused(&signature[..place], &format!("cut at {place}"));
            }
            refused(&[signature.as_slice(), &[0]].concat(), "longer");
        }
        assert_eq!(memory.0.borrow().len(), 1, "one batch");
    }

    #[test]
    fn what_is_remembered_is_not_checked_again_and_what_failed_is_not_remembered() {
        /// Says that it holds everything.
        struct Credulous;
        impl Memory for Credulous {
            fn holds(&self, _: &[u8; 32]) -> bool {
                true
            }
            fn keep(&self, _: [u8; 32]) {
                panic!("held already");
            }
        }
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let credential = credential(&authority, Algorithm::EcdsaP256);
        let (digests, mut signature) = batch(&credential).swap_remove(0);
        *signature.last_mut().unwrap() ^= 1;
        let memory = Kept::default();
        assert!(verify_signature_remembering(&signature, &digests, &memory).is_err());
        assert!(memory.0.borrow().is_empty());
        verify_signature_remembering(&signature, &digests, &Credulous).unwrap();
        // A signature of its own is never looked up.
        let mut single = sign(&digests, &credential, at(NOW)).unwrap();
        *single.last_mut().unwrap() ^= 1;
        assert!(verify_signature_remembering(&single, &digests, &Credulous).is_err());
    }

    /// A tree can be no message and a message no tree, whatever a signer is talked into.
    #[test]
    fn the_forms_do_not_pass_for_each_other() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let credential = credential(&authority, Algorithm::EcdsaP256);
        let batch = batch(&credential);
        let (digests, signature) = &batch[0];
        let Some(Form::Batched { steps, cms }) = batch::split(signature) else { panic!("no batch") };
        let root = batch::climb(batch::leaf(&manifest(digests)), steps);
        // The root in the place of the REST part's digest.
        let as_message = MessageDigests { rest_part: root, body: None };
        assert_eq!(verify_signature_only(cms, &as_message), Err(EvidenceError::OtherContent));
        assert_eq!(verify_signature_only(cms, digests), Err(EvidenceError::OtherContent));
        // A signature over the message itself behind a path.
        let single = sign(digests, &credential, at(NOW)).unwrap();
        let behind = [&signature[..signature.len() - cms.len()], &single].concat();
        assert_eq!(verify_signature_only(&behind, digests), Err(EvidenceError::OtherContent));
    }

    /// Every byte of every algorithm's signature: changed in its lowest, highest and all bits, doubled, left out.
    #[test]
    fn no_byte_of_a_signature_can_be_changed() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        for algorithm in Algorithm::ALL {
            let cms = sign(&digests(), &credential(&authority, algorithm), at(NOW)).unwrap();
            let step = if algorithm == Algorithm::EcdsaP256 { 1 } else { 3 };
            for place in (0..cms.len()).step_by(step) {
                for mask in [0x01, 0x80, 0xff] {
                    let mut changed = cms.clone();
                    changed[place] ^= mask;
                    assert!(
                        verify_signature_only(&changed, &digests()).is_err(),
                        "{algorithm} byte {place} ^ {mask:#x}"
                    );
                }
                let mut doubled = cms.clone();
                doubled.insert(place, cms[place]);
                assert!(verify_signature_only(&doubled, &digests()).is_err(), "{algorithm} byte {place} doubled");
                let mut left_out = cms.clone();
                left_out.remove(place);
                assert!(verify_signature_only(&left_out, &digests()).is_err(), "{algorithm} byte {place} left out");
                assert!(verify_signature_only(&cms[..place], &digests()).is_err(), "{algorithm} cut at {place}");
            }
            assert!(verify_signature_only(&[cms.as_slice(), &[0]].concat(), &digests()).is_err());
        }
    }

    /// The outcome names the part that was altered.
    #[test]
    fn each_region_has_its_error() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let credential = credential(&authority, Algorithm::EcdsaP256);
        let cms = sign(&digests(), &credential, at(NOW)).unwrap();
        let subject = credential.facts().subject.clone();
        let find = |part: &[u8]| cms.windows(part.len()).rposition(|bytes| bytes == part).unwrap();
        let digest = cms::digest(Algorithm::EcdsaP256, &manifest(&digests()));
        // 1.2.840.113549.1.7.1 stands in encapContentInfo (first) and in the content-type attribute (last).
        let data = hex::decode("06092a864886f70d010701").unwrap();
        let first_data = cms.windows(data.len()).position(|bytes| bytes == data).unwrap();
        let signature = EvidenceError::Signature { subject };
        let rows = [
            ("outer tag", 0, EvidenceError::Malformed),
            ("version", 25, EvidenceError::NotCanonical),
            ("content type, unsigned", first_data + 10, EvidenceError::NotCanonical),
            ("content type, signed", find(&data) + 10, EvidenceError::NotCanonical),
            ("message digest", find(&digest), EvidenceError::OtherContent),
            ("signing time", find(b"260301120000Z") + 11, signature.clone()),
            ("signature value", cms.len() - 1, signature),
        ];
        assert_eq!(cms[23..26], [0x02, 0x01, 0x01]);
        for (name, place, expected) in rows {
            let mut changed = cms.clone();
            changed[place] ^= 1;
            assert_eq!(verify_signature_only(&changed, &digests()), Err(expected), "{name}");
        }
    }

    /// A certificate of the same key and name in place of the one that signed: signing-certificate-v2 binds the signature to
    /// one certificate.
    #[test]
    fn the_certificate_cannot_be_exchanged() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let (leaf, key) = fixture::leaf(&authority, Usage::Signing, Algorithm::EcdsaP256);
        let first = SigningCredential::new(leaf.der.clone(), key).unwrap();
        let (other, key) = loop {
            let (other, key) = fixture::leaf(&authority, Usage::Signing, Algorithm::EcdsaP256);
            // Same length, so that it fits in place; ECDSA signatures vary by a byte or two.
            if other.der.len() == leaf.der.len() && other.der != leaf.der {
                break (other, key);
            }
        };
        assert_eq!(key.spki_sha256(), first.facts().spki_sha256);
        let mut cms = sign(&digests(), &first, at(NOW)).unwrap();
        let place = cms.windows(leaf.der.len()).position(|bytes| bytes == leaf.der).unwrap();
        cms[place..place + other.der.len()].copy_from_slice(&other.der);
        let refused = EvidenceError::Signature { subject: first.facts().subject.clone() };
        assert_eq!(verify_signature_only(&cms, &digests()), Err(refused));
    }

    #[test]
    fn the_chain_the_use_and_the_times_are_judged() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        let credential = credential(&authority, Algorithm::EcdsaP256);
        let (begin, end) = (credential.facts().not_before.as_second(), credential.facts().not_after.as_second());
        let judge = |signed: i64, bundle: &Bundle, now: i64| {
            verify(&sign(&digests(), &credential, at(signed)).unwrap(), &digests(), bundle, at(now)).map(|_| ())
        };
        let outside = |signed: i64| Err(EvidenceError::SignedOutsideValidity { signing_time: at(signed) });
        assert_eq!(judge(begin - 1, &bundle, NOW), outside(begin - 1));
        assert_eq!(judge(begin, &bundle, NOW), Ok(()));
        assert_eq!(judge(end, &bundle, end), Ok(()));
        assert_eq!(judge(end + 1, &bundle, end), outside(end + 1));
        assert!(matches!(judge(NOW, &bundle, end + 1), Err(EvidenceError::Untrusted(VerifyError::Expired { .. }))));
        let other = fixture::bundle(&[&fixture::authority(2, Algorithm::EcdsaP256)]);
        assert!(matches!(judge(NOW, &other, NOW), Err(EvidenceError::Untrusted(VerifyError::UnknownIssuer { .. }))));
        let (leaf, key) = fixture::leaf(&authority, Usage::Authentication, Algorithm::EcdsaP256);
        let cms = sign(&digests(), &SigningCredential::new(leaf.der, key).unwrap(), at(NOW)).unwrap();
        let refused = verify(&cms, &digests(), &bundle, at(NOW));
        assert!(matches!(refused, Err(EvidenceError::Untrusted(VerifyError::WrongPurpose { .. }))), "{refused:?}");
    }

    #[test]
    fn times_that_cms_cannot_carry() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let credential = credential(&authority, Algorithm::EcdsaP256);
        assert_eq!(sign(&digests(), &credential, at(-1)), Err(EvidenceError::Time));
        // The last second of UTCTime and the first of GeneralizedTime.
        for time in [0, 2_524_607_999, 2_524_608_000, 2_524_608_000 + 100 * HOUR] {
            let cms = sign(&digests(), &credential, at(time)).unwrap();
            assert_eq!(verify_signature_only(&cms, &digests()).unwrap().signing_time, at(time));
        }
    }

    #[test]
    fn what_does_not_fit_together_or_is_too_long_is_refused() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let (leaf, key) = fixture::leaf(&authority, Usage::Signing, Algorithm::EcdsaP256);
        let other = fixture::key(Algorithm::EcdsaP256, 3).to_pkcs8_pem();
        let refused = |leaf: &str, key: &str| SigningCredential::from_pem(leaf, key).unwrap_err();
        assert!(matches!(refused(&leaf.pem, &other), EvidenceError::KeyMismatch { .. }));
        assert!(matches!(refused(&other, &other), EvidenceError::Pem(_)));
        assert!(matches!(refused(&leaf.pem, &leaf.pem), EvidenceError::Key(_)));
        let long = vec![0x30; MAX_SIGNATURE_BYTES + 1];
        assert_eq!(verify_signature_only(&long, &digests()), Err(EvidenceError::TooLong));
        assert_eq!(verify_signature_only(&long[1..], &digests()), Err(EvidenceError::Malformed));
        let shown = format!("{:?}", SigningCredential::new(leaf.der, key).unwrap());
        assert!(
            shown.starts_with("SigningCredential { facts: CertificateFacts {") && !shown.contains("secret"),
            "{shown}"
        );
        assert!(!shown.contains("key:") && shown.ends_with(".. }"), "{shown}");
    }

    proptest! {
        /// Reading never panics and never accepts what was not signed.
        #[test]
        fn arbitrary_bytes_are_refused(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            prop_assert!(verify_signature_only(&bytes, &digests()).is_err());
        }

        /// The same with bytes that begin as DER does, so that the reader gets further.
        #[test]
        fn spliced_signatures_are_refused(from in 0_usize..900, to in 0_usize..900, length in 1_usize..300) {
            static CMS: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let authority = fixture::authority(1, Algorithm::EcdsaP256);
                sign(&digests(), &credential(&authority, Algorithm::Ed25519), at(NOW)).unwrap()
            });
            let cms = &*CMS;
            let (from, to) = (from % cms.len(), to % cms.len());
            let length = length.min(cms.len() - from).min(cms.len() - to);
            let mut spliced = cms.clone();
            spliced.copy_within(from..from + length, to);
            prop_assert_eq!(verify_signature_only(&spliced, &digests()).is_ok(), spliced == *cms);
        }
    }
}
