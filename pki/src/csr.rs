//! Certification requests (PKCS#10, RFC 2986) of members whose keys are made elsewhere.
//!
//! A request proves possession of a key and asks for nothing: names, uses and life are the issuer's policy alone, so whatever
//! else a request says is not read.

use aws_lc_rs::signature::{self, VerificationAlgorithm};
use rcgen::CertificateParams;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;

use crate::key::{Algorithm, KeyError, KeyPair, SubjectPublicKey};

/// No request of the project comes near this size.
pub const MAX_REQUEST_BYTES: usize = 16 * 1024;

/// Why a request was not made or taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CsrError {
    /// Longer than [`MAX_REQUEST_BYTES`].
    #[error("the certification request is longer than {MAX_REQUEST_BYTES} bytes")]
    TooLong,
    /// No DER certification request, or something follows it.
    #[error("the certification request is not well-formed DER")]
    Malformed,
    /// The key is of no supported algorithm.
    #[error("the key of the certification request is not supported")]
    Key(#[source] KeyError),
    /// The request was not signed by its key, or in an unknown way: no proof of possession.
    #[error("the certification request is not signed by its own key")]
    Possession,
    /// Building the request failed.
    #[error("the certification request could not be built")]
    Build,
}

/// Makes a request for a key, DER. It carries an empty subject and no extensions.
pub fn create(key: &KeyPair) -> Result<Vec<u8>, CsrError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    let request = params.serialize_request(key).map_err(|_| CsrError::Build)?;
    Ok(request.der().to_vec())
}

/// Takes the public key of a request after checking that its owner signed it.
pub fn accept(der: &[u8]) -> Result<SubjectPublicKey, CsrError> {
    if der.len() > MAX_REQUEST_BYTES {
        return Err(CsrError::TooLong);
    }
    let (rest, request) = X509CertificationRequest::from_der(der).map_err(|_| CsrError::Malformed)?;
    if !rest.is_empty() {
        return Err(CsrError::Malformed);
    }
    let info = &request.certification_request_info;
    let key = SubjectPublicKey::from_spki_der(info.subject_pki.raw).map_err(CsrError::Key)?;
    let signed_with = request.signature_algorithm.algorithm.to_id_string();
    let algorithm = signature_algorithm(key.algorithm(), &signed_with).ok_or(CsrError::Possession)?;
    key.verify_with(algorithm, info.raw, &request.signature_value.data).map_err(|_| CsrError::Possession)?;
    Ok(key)
}

/// How a key of this kind may sign its request: other tools than ours choose the digest freely.
fn signature_algorithm(key: Algorithm, signed_with: &str) -> Option<&'static dyn VerificationAlgorithm> {
    Some(match (key, signed_with) {
        (Algorithm::EcdsaP256, "1.2.840.10045.4.3.2") => &signature::ECDSA_P256_SHA256_ASN1,
        (Algorithm::EcdsaP256, "1.2.840.10045.4.3.3") => &signature::ECDSA_P256_SHA384_ASN1,
        (Algorithm::EcdsaP384, "1.2.840.10045.4.3.2") => &signature::ECDSA_P384_SHA256_ASN1,
        (Algorithm::EcdsaP384, "1.2.840.10045.4.3.3") => &signature::ECDSA_P384_SHA384_ASN1,
        (Algorithm::Ed25519, "1.3.101.112") => &signature::ED25519,
        (Algorithm::Rsa3072, "1.2.840.113549.1.1.11") => &signature::RSA_PKCS1_2048_8192_SHA256,
        (Algorithm::Rsa3072, "1.2.840.113549.1.1.12") => &signature::RSA_PKCS1_2048_8192_SHA384,
        (Algorithm::Rsa3072, "1.2.840.113549.1.1.13") => &signature::RSA_PKCS1_2048_8192_SHA512,
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::fixture;

    #[test]
    fn the_key_comes_through_for_every_algorithm() {
        for algorithm in Algorithm::ALL {
            let key = fixture::key(algorithm, 5);
            assert_eq!(accept(&create(&key).unwrap()).as_ref(), Ok(key.public()), "{algorithm}");
        }
    }

    #[test]
    fn a_request_without_possession_of_its_key_is_refused() {
        let der = create(&fixture::key(Algorithm::EcdsaP256, 5)).unwrap();
        let other = create(&fixture::key(Algorithm::EcdsaP256, 6)).unwrap();
        // The signed part of one with the signature of the other: as if somebody asked for a key that is not theirs.
        let (_, parsed) = X509CertificationRequest::from_der(&der).unwrap();
        let info = parsed.certification_request_info.raw;
        let mut forged = other.clone();
        let start = forged.windows(4).position(|bytes| bytes == &info[..4]).unwrap();
        forged[start..start + info.len()].copy_from_slice(info);
        assert_eq!(accept(&forged), Err(CsrError::Possession));
        assert_eq!(accept(&[der.as_slice(), &[0]].concat()), Err(CsrError::Malformed));
        assert_eq!(accept(&der[..der.len() - 1]), Err(CsrError::Malformed));
        assert_eq!(accept(&vec![0x30; MAX_REQUEST_BYTES + 1]), Err(CsrError::TooLong));
    }

    proptest! {
        /// Requests come from other clusters. The reader overlooks some octets outside of the signed part; what is taken from a
        /// damaged request is its owner's key or nothing.
        #[test]
        fn a_damaged_request_never_yields_another_key(place in 0_usize..400, mask in 1_u8..=255) {
            static DER: LazyLock<Vec<u8>> = LazyLock::new(|| create(&fixture::key(Algorithm::Ed25519, 5)).unwrap());
            let mut damaged = DER.clone();
            let place = place % damaged.len();
            damaged[place] ^= mask;
            if let Ok(key) = accept(&damaged) {
                prop_assert_eq!(key.spki_sha256(), fixture::key(Algorithm::Ed25519, 5).spki_sha256(), "byte {}", place);
            }
        }
    }
}
