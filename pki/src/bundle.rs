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
        let der = CertificateDer::from(certificate.der());
        match webpki::anchor_from_trusted_cert(&der) {
            Ok(anchor) => Ok(Self { anchor: anchor.to_owned(), certificate: certificate.clone() }),
            Err(_) => Err(BundleError::Anchor { subject: certificate.facts().subject.clone() }),
        }
    }
}

impl fmt::Debug for Bundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.certificates()).finish()
    }
}
