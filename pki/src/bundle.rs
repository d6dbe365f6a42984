//! The set of authorities that are trusted now.

use std::collections::BTreeMap;
use std::fmt;

use rustls_pki_types::{CertificateDer, TrustAnchor};

use crate::authority::{AuthorityCertificate, AuthorityError};
use crate::certificate::CertificateHash;
use crate::digest::sha256;
use crate::pem::{self, PemError};

/// Most authorities of one bundle. An instance needs two during a re-key and a few more of partners.
pub const MAX_AUTHORITIES: usize = 64;
/// Longest bundle text that is read.
pub const MAX_BUNDLE_BYTES: usize = 1024 * 1024;

/// CA certificates in canonical order, each once. Two bundles with the same certificates are equal, whatever the order,
/// repetitions, line ends and remarks of the texts they came from.
#[derive(Clone, PartialEq, Eq)]
pub struct Bundle {
    authorities: Vec<Anchor>,
}

/// One authority with its form for the chain builder, made once and not at every handshake.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Anchor {
    pub(crate) certificate: AuthorityCertificate,
    pub(crate) anchor: TrustAnchor<'static>,
}

/// Why a text or list is no bundle.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BundleError {
    /// The text is too long.
    #[error("the bundle is longer than {MAX_BUNDLE_BYTES} bytes")]
    TooLong,
    /// Not PEM.
    #[error("the bundle is not PEM")]
    Pem(#[source] PemError),
    /// A block of another kind, such as a key that would be published with the bundle.
    #[error("block {number} of the bundle is not a CERTIFICATE")]
    NotCertificate {
        /// Which block, counted from 1. Its label is not repeated: it is not ours to judge.
        number: usize,
    },
    /// A certificate that is no authority or does not parse.
    #[error("certificate {number} of the bundle cannot be an authority")]
    NotAuthority {
        /// Which block, counted from 1.
        number: usize,
        /// Why.
        #[source]
        source: Box<AuthorityError>,
    },
    /// No certificate at all. An empty bundle would trust nobody and stop every exchange.
    #[error("the bundle is empty")]
    Empty,
    /// More than [`MAX_AUTHORITIES`].
    #[error("the bundle has more than {MAX_AUTHORITIES} authorities")]
    TooMany,
    /// The chain builder cannot use a certificate as an anchor.
    #[error("the authority {subject} cannot be used as a trust anchor")]
    Anchor {
        /// Its subject.
        subject: String,
    },
}

impl Bundle {
    /// Puts certificates in canonical order (by SHA-256 of the DER) and drops repetitions.
    pub fn new(certificates: impl IntoIterator<Item = AuthorityCertificate>) -> Result<Self, BundleError> {
        let sorted: BTreeMap<CertificateHash, AuthorityCertificate> =
            certificates.into_iter().map(|certificate| (certificate.sha256(), certificate)).collect();
        if sorted.is_empty() {
            return Err(BundleError::Empty);
        }
        if sorted.len() > MAX_AUTHORITIES {
            return Err(BundleError::TooMany);
        }
        Ok(Self { authorities: sorted.into_values().map(Anchor::of).collect::<Result<_, _>>()? })
    }

    /// Reads PEM; every block must be the certificate of an authority.
    pub fn from_pem(text: &str) -> Result<Self, BundleError> {
        if text.len() > MAX_BUNDLE_BYTES {
            return Err(BundleError::TooLong);
        }
        let mut certificates = Vec::new();
        for (block, number) in pem::blocks(text).map_err(BundleError::Pem)?.into_iter().zip(1..) {
            if block.label != pem::CERTIFICATE {
                return Err(BundleError::NotCertificate { number });
            }
            let certificate = AuthorityCertificate::from_der(&block.content)
                .map_err(|error| BundleError::NotAuthority { number, source: Box::new(error) })?;
            certificates.push(certificate);
        }
        Self::new(certificates)
    }

    /// The canonical PEM: LF, no remarks.
    pub fn to_pem(&self) -> String {
        self.certificates().map(AuthorityCertificate::to_pem).collect()
    }

    /// SHA-256, in lower-case hexadecimal, over the DER certificates one after the other in canonical order. DER says its own
    /// length, so no two bundles run together to the same bytes.
    pub fn hash(&self) -> String {
        let all: Vec<u8> = self.certificates().flat_map(AuthorityCertificate::der).copied().collect();
        hex::encode(sha256(&all))
    }

    /// The authorities in canonical order.
    pub fn certificates(&self) -> impl ExactSizeIterator<Item = &AuthorityCertificate> {
        self.authorities.iter().map(|anchor| &anchor.certificate)
    }

    /// Whether the authority with this hash is trusted.
    pub fn contains(&self, certificate: CertificateHash) -> bool {
        self.certificates().any(|own| own.sha256() == certificate)
    }

    pub(crate) fn anchors(&self) -> &[Anchor] {
        &self.authorities
    }
}

impl Anchor {
    fn of(certificate: AuthorityCertificate) -> Result<Self, BundleError> {
        match webpki::anchor_from_trusted_cert(&CertificateDer::from(certificate.der())).map(|anchor| anchor.to_owned())
        {
            Ok(anchor) => Ok(Self { certificate, anchor }),
            Err(_) => Err(BundleError::Anchor { subject: certificate.facts().subject.clone() }),
        }
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.certificates()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;

    use super::*;
    use crate::fixture;
    use crate::key::Algorithm;
    use crate::leaf::Usage;

    fn three() -> Vec<AuthorityCertificate> {
        static THREE: LazyLock<Vec<AuthorityCertificate>> = LazyLock::new(|| {
            (1..=3).map(|number| fixture::authority(number, Algorithm::EcdsaP256).certificate().clone()).collect()
        });
        THREE.clone()
    }

    #[test]
    fn the_hash_is_of_the_sorted_certificates() {
        let mut all = three();
        let bundle = Bundle::new(all.clone()).unwrap();
        all.sort_by_key(AuthorityCertificate::sha256);
        let der: Vec<u8> = all.iter().flat_map(|certificate| certificate.der().to_vec()).collect();
        assert_eq!(bundle.hash(), hex::encode(sha256(&der)));
        assert!(bundle.contains(all[0].sha256()));
        assert!(!Bundle::new(all[1..].to_vec()).unwrap().contains(all[0].sha256()));
    }

    #[test]
    fn one_more_or_one_less_changes_the_hash() {
        let all = three();
        let hashes = [&all[..], &all[..2], &all[1..], &all[..1]].map(|some| Bundle::new(some.to_vec()).unwrap().hash());
        for (at, hash) in hashes.iter().enumerate() {
            assert!(!hashes[..at].contains(hash));
        }
    }

    #[test]
    fn only_authorities_are_taken() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let pem = authority.certificate().to_pem();
        let (leaf, key) = fixture::leaf(&authority, Usage::Authentication, Algorithm::EcdsaP256);
        assert_eq!(Bundle::from_pem("").unwrap_err(), BundleError::Empty);
        assert_eq!(Bundle::from_pem("no PEM at all").unwrap_err(), BundleError::Empty);
        assert_eq!(
            Bundle::from_pem(&(pem.clone() + &key.to_pkcs8_pem())).unwrap_err(),
            BundleError::NotCertificate { number: 2 }
        );
        assert!(matches!(Bundle::from_pem(&(leaf.pem + &pem)), Err(BundleError::NotAuthority { number: 1, .. })));
        assert!(matches!(Bundle::from_pem(&pem[..pem.len() - 10]), Err(BundleError::Pem(_))));
        assert_eq!(Bundle::from_pem(&" ".repeat(MAX_BUNDLE_BYTES + 1)).unwrap_err(), BundleError::TooLong);
    }

    #[test]
    fn the_count_has_a_bound() {
        let certificates = |count: u32| {
            let key = || fixture::key(Algorithm::Ed25519, 0);
            let make = |generation| {
                let spec = fixture::spec(generation, Algorithm::Ed25519);
                crate::authority::Authority::create_with_key(&spec, key()).unwrap().certificate().clone()
            };
            (0..count).map(make).collect::<Vec<_>>()
        };
        assert!(Bundle::new(certificates(64)).is_ok());
        assert_eq!(Bundle::new(certificates(65)).unwrap_err(), BundleError::TooMany);
    }

    proptest! {
        /// Whatever order, repetitions, line ends and remarks: one bundle, one hash, one text.
        #[test]
        fn equal_content_is_an_equal_bundle(
            picks in proptest::collection::vec(0_usize..3, 0..6).prop_map(|mut more| { more.extend([2, 0, 1]); more }),
            rotate in 0_usize..9,
            end in prop_oneof![Just("\n"), Just("\r\n"), Just("\r")],
            remark in "[a-z ]{0,12}",
        ) {
            let all = three();
            let mut picks = picks;
            let length = picks.len();
            picks.rotate_left(rotate % length);
            let text = picks.iter().map(|pick| all[*pick].to_pem()).collect::<Vec<_>>().join(&format!("\n{remark}\n"));
            let bundle = Bundle::from_pem(&text.replace('\n', end)).unwrap();
            let canonical = Bundle::new(all).unwrap();
            prop_assert_eq!(&bundle, &canonical);
            prop_assert_eq!(bundle.hash(), canonical.hash());
            prop_assert_eq!(bundle.to_pem(), canonical.to_pem());
            prop_assert_eq!(Bundle::from_pem(&bundle.to_pem()).unwrap(), canonical);
        }
    }
}
