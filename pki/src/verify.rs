//! Whether a leaf is trusted: its chain to a bundle, at a time, for a use.

use std::fmt;

use jiff::Timestamp;
use rustls_pki_types::{CertificateDer, SignatureVerificationAlgorithm, TrustAnchor, UnixTime};
use webpki::{EndEntityCert, ExtendedKeyUsageValidator, KeyPurposeIdIter, aws_lc_rs as algorithms};

use crate::bundle::{Anchor, Bundle};
use crate::certificate::{CertificateError, CertificateFacts, ExtendedKeyUsage};
pub use crate::leaf::Usage;

/// Most intermediate certificates that a peer may send.
pub const MAX_INTERMEDIATES: usize = 8;

/// How certificates may be signed.
static SIGNATURES: &[&dyn SignatureVerificationAlgorithm] = &[
    algorithms::ECDSA_P256_SHA256,
    algorithms::ECDSA_P384_SHA384,
    algorithms::ED25519,
    algorithms::RSA_PKCS1_2048_8192_SHA256,
    algorithms::ECDSA_P256_SHA384,
    algorithms::ECDSA_P384_SHA256,
    algorithms::RSA_PKCS1_2048_8192_SHA384,
    algorithms::RSA_PKCS1_2048_8192_SHA512,
];

/// Which leaf was judged: enough to find it in a log, no secret.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafName {
    /// Subject as text.
    pub subject: String,
    /// Issuer as text.
    pub issuer: String,
    /// Serial number in hexadecimal.
    pub serial: String,
}

/// Why a leaf is not trusted.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum VerifyError {
    /// It cannot be read.
    #[error("the certificate cannot be read")]
    Malformed(#[source] CertificateError),
    /// Its last second has passed.
    #[error("{leaf} expired at {not_after}")]
    Expired {
        /// Which one.
        leaf: Box<LeafName>,
        /// Its last second.
        not_after: Timestamp,
    },
    /// Its first second is still to come.
    #[error("{leaf} is not valid before {not_before}")]
    NotYetValid {
        /// Which one.
        leaf: Box<LeafName>,
        /// Its first second.
        not_before: Timestamp,
    },
    /// Its key usage or extended key usage is not that of the use.
    #[error("{leaf} is not for {usage}")]
    WrongPurpose {
        /// Which one.
        leaf: Box<LeafName>,
        /// The use it was offered for.
        usage: Usage,
    },
    /// It was signed by no authority but its own key, or names itself as issuer.
    #[error("{leaf} is self-signed")]
    SelfSigned {
        /// Which one.
        leaf: Box<LeafName>,
    },
    /// It is an authority itself.
    #[error("{leaf} is an authority, not a leaf")]
    Authority {
        /// Which one.
        leaf: Box<LeafName>,
    },
    /// No authority of the bundle signed it. Also when a signature is false: what was altered was not signed.
    #[error("no authority of the bundle signed {leaf}")]
    UnknownIssuer {
        /// Which one.
        leaf: Box<LeafName>,
    },
    /// The authority is in the bundle, but outside of its own validity, which the chain builder would overlook.
    #[error("the authority that signed {leaf} is outside of its validity")]
    AuthorityNotValid {
        /// Which one.
        leaf: Box<LeafName>,
    },
    /// More than [`MAX_INTERMEDIATES`].
    #[error("{leaf} came with more than {MAX_INTERMEDIATES} intermediate certificates")]
    TooManyIntermediates {
        /// Which one.
        leaf: Box<LeafName>,
    },
    /// The chain breaks another rule of RFC 5280: an extension that is critical and unknown, a constraint.
    #[error("the chain of {leaf} is refused: {rule}")]
    Refused {
        /// Which one.
        leaf: Box<LeafName>,
        /// The chain builder's word for it.
        rule: String,
    },
}

/// Checks that a leaf may be used for `usage` at `now`, under an authority of the bundle. Both ends of each validity are
/// included; no skew is granted, since leaves and authorities are backdated.
pub fn verify_leaf(
    der: &[u8],
    intermediates: &[CertificateDer<'_>],
    bundle: &Bundle,
    usage: Usage,
    now: Timestamp,
) -> Result<CertificateFacts, VerifyError> {
    let facts = CertificateFacts::parse(der).map_err(VerifyError::Malformed)?;
    let leaf = || Box::new(LeafName::of(&facts));
    if facts.is_ca {
        return Err(VerifyError::Authority { leaf: leaf() });
    }
    if facts.self_issued {
        return Err(VerifyError::SelfSigned { leaf: leaf() });
    }
    if now.as_second() < facts.not_before.as_second() {
        return Err(VerifyError::NotYetValid { leaf: leaf(), not_before: facts.not_before });
    }
    if now.as_second() > facts.not_after.as_second() {
        return Err(VerifyError::Expired { leaf: leaf(), not_after: facts.not_after });
    }
    if !is_for(&facts, usage) {
        return Err(VerifyError::WrongPurpose { leaf: leaf(), usage });
    }
    if intermediates.len() > MAX_INTERMEDIATES {
        return Err(VerifyError::TooManyIntermediates { leaf: leaf() });
    }
    // The chain builder knows no dates of anchors: an authority that has expired would still be trusted.
    let valid = anchors(bundle, |anchor| anchor.certificate.facts().is_valid_at(now));
    match find_chain(der, intermediates, &valid, now) {
        Ok(()) => Ok(facts),
        Err(webpki::Error::UnknownIssuer | webpki::Error::InvalidSignatureForPublicKey) => {
            let all = anchors(bundle, |_| true);
            match find_chain(der, intermediates, &all, now) {
                Ok(()) => Err(VerifyError::AuthorityNotValid { leaf: leaf() }),
                Err(_) => Err(VerifyError::UnknownIssuer { leaf: leaf() }),
            }
        }
        Err(error) => Err(VerifyError::Refused { leaf: leaf(), rule: error.to_string() }),
    }
}

fn anchors(bundle: &Bundle, keep: impl Fn(&Anchor) -> bool) -> Vec<TrustAnchor<'static>> {
    bundle.anchors().iter().filter(|anchor| keep(anchor)).map(|anchor| anchor.anchor.clone()).collect()
}

fn find_chain(
    der: &[u8],
    intermediates: &[CertificateDer<'_>],
    anchors: &[TrustAnchor<'_>],
    now: Timestamp,
) -> Result<(), webpki::Error> {
    let certificate = CertificateDer::from(der);
    let leaf = EndEntityCert::try_from(&certificate)?;
    let seconds = u64::try_from(now.as_second()).unwrap_or(0);
    let now = UnixTime::since_unix_epoch(std::time::Duration::from_secs(seconds));
    leaf.verify_for_usage(SIGNATURES, anchors, intermediates, now, AnyPurpose, None, None).map(|_| ())
}

/// The leaf's purposes are compared as a set in [`is_for`]; those of intermediates are not restricted.
struct AnyPurpose;

impl ExtendedKeyUsageValidator for AnyPurpose {
    fn validate(&self, purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        purposes.map(|purpose| purpose.map(|_| ())).collect()
    }
}

/// Exactly the profile of the use, neither less nor more: a leaf for two uses would let one key answer for both.
fn is_for(facts: &CertificateFacts, usage: Usage) -> bool {
    let purposes = match usage {
        Usage::Authentication => ExtendedKeyUsage { server_auth: true, client_auth: true, ..Default::default() },
        Usage::Signing => ExtendedKeyUsage { document_signing: true, ..Default::default() },
        Usage::Link => ExtendedKeyUsage { server_auth: true, ..Default::default() },
    };
    let commits = facts.key_usage.content_commitment == (usage == Usage::Signing);
    facts.extended_key_usage == purposes
        && facts.key_usage.digital_signature
        && commits
        && !facts.key_usage.key_cert_sign
}

impl LeafName {
    pub(crate) fn of(facts: &CertificateFacts) -> Self {
        Self { subject: facts.subject.clone(), issuer: facts.issuer.clone(), serial: facts.serial.clone() }
    }
}

impl fmt::Display for LeafName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "certificate {} of \"{}\" by \"{}\"", self.serial, self.subject, self.issuer)
    }
}

impl fmt::Display for Usage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Authentication => "authentication",
            Self::Signing => "signing",
            Self::Link => "the link",
        })
    }
}
