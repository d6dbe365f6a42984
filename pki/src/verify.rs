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
    fn validate(&self, mut purposes: KeyPurposeIdIter<'_, '_>) -> Result<(), webpki::Error> {
        purposes.try_for_each(|purpose| purpose.map(|_| ()))
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

#[cfg(test)]
mod tests {
    use rcgen::{BasicConstraints, ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose};

    use super::*;
    use crate::authority::{self, Authority, AuthoritySpec};
    use crate::fixture::{self, DAY, NOW, at, seconds, spec, terms};
    use crate::key::{Algorithm, KeyPair};

    /// The name of the variant: tables compare outcomes, not whole errors.
    fn outcome(result: Result<CertificateFacts, VerifyError>) -> &'static str {
        let Err(error) = result else { return "ok" };
        match error {
            VerifyError::Malformed(_) => "malformed",
            VerifyError::Expired { .. } => "expired",
            VerifyError::NotYetValid { .. } => "not yet valid",
            VerifyError::WrongPurpose { .. } => "wrong purpose",
            VerifyError::SelfSigned { .. } => "self-signed",
            VerifyError::Authority { .. } => "authority",
            VerifyError::UnknownIssuer { .. } => "unknown issuer",
            VerifyError::AuthorityNotValid { .. } => "authority not valid",
            VerifyError::TooManyIntermediates { .. } => "too many intermediates",
            VerifyError::Refused { .. } => "refused",
        }
    }

    #[test]
    fn each_algorithm_verifies_and_no_other_authority_does() {
        for algorithm in Algorithm::ALL {
            let (one, two) = (fixture::authority(1, algorithm), fixture::authority(2, algorithm));
            for leaf_algorithm in Algorithm::ALL {
                let (leaf, _) = fixture::leaf(&one, Usage::Authentication, leaf_algorithm);
                let judge =
                    |bundle: &Bundle| outcome(verify_leaf(&leaf.der, &[], bundle, Usage::Authentication, at(NOW)));
                assert_eq!(judge(&fixture::bundle(&[&one])), "ok", "{algorithm} signs {leaf_algorithm}");
                assert_eq!(judge(&fixture::bundle(&[&two, &one])), "ok", "{algorithm} signs {leaf_algorithm}");
                assert_eq!(judge(&fixture::bundle(&[&two])), "unknown issuer", "{algorithm} signs {leaf_algorithm}");
            }
        }
    }

    /// Two generations must never share a name, yet if they do (a restored backup), the right one is found.
    #[test]
    fn an_authority_of_the_same_name_with_another_key() {
        let make = |number| {
            Authority::create_with_key(&spec(1, Algorithm::EcdsaP256), fixture::key(Algorithm::EcdsaP256, number))
        };
        let (right, wrong) = (make(70).unwrap(), make(71).unwrap());
        let (leaf, _) = fixture::leaf(&right, Usage::Signing, Algorithm::EcdsaP256);
        let judge = |bundle: &Bundle| outcome(verify_leaf(&leaf.der, &[], bundle, Usage::Signing, at(NOW)));
        assert_eq!(judge(&fixture::bundle(&[&wrong, &right])), "ok");
        assert_eq!(judge(&fixture::bundle(&[&wrong])), "unknown issuer");
    }

    #[test]
    fn a_leaf_is_for_its_use_alone() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        let uses = [Usage::Authentication, Usage::Signing, Usage::Link];
        for issued_for in uses {
            let (leaf, _) = fixture::leaf(&authority, issued_for, Algorithm::EcdsaP256);
            for used_for in uses {
                let expected = if issued_for == used_for { "ok" } else { "wrong purpose" };
                let result = verify_leaf(&leaf.der, &[], &bundle, used_for, at(NOW));
                assert_eq!(outcome(result), expected, "{issued_for} as {used_for}");
            }
        }
    }

    fn handmade(authority: &Authority, usages: &[KeyUsagePurpose], purposes: &[ExtendedKeyUsagePurpose]) -> Vec<u8> {
        let key = fixture::key(Algorithm::EcdsaP256, 50);
        let mut params = authority::parameters("x", terms().serial, key.public());
        params.not_before = authority::asn1_time(at(NOW)).unwrap();
        params.not_after = authority::asn1_time(at(NOW + DAY)).unwrap();
        params.key_usages = usages.to_vec();
        params.extended_key_usages = purposes.to_vec();
        authority.sign(&params, key.public()).unwrap()
    }

    /// Name, use, key usage, purposes, outcome.
    type Row<'a> = (&'a str, Usage, &'a [KeyUsagePurpose], &'a [ExtendedKeyUsagePurpose], &'a str);

    #[test]
    fn neither_more_nor_less_than_the_profile() {
        use ExtendedKeyUsagePurpose::{Any, ClientAuth, Other, ServerAuth};
        use KeyUsagePurpose::{ContentCommitment, DigitalSignature, KeyCertSign};
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        let document = Other(vec![1, 3, 6, 1, 5, 5, 7, 3, 36]);
        let rows: [Row<'_>; 11] = [
            ("the profile", Usage::Authentication, &[DigitalSignature], &[ServerAuth, ClientAuth], "ok"),
            ("server only", Usage::Authentication, &[DigitalSignature], &[ServerAuth], "wrong purpose"),
            ("client only", Usage::Authentication, &[DigitalSignature], &[ClientAuth], "wrong purpose"),
            ("none", Usage::Authentication, &[DigitalSignature], &[], "wrong purpose"),
            (
                "any as well",
                Usage::Authentication,
                &[DigitalSignature],
                &[ServerAuth, ClientAuth, Any],
                "wrong purpose",
            ),
            ("no key usage", Usage::Authentication, &[], &[ServerAuth, ClientAuth], "wrong purpose"),
            (
                "commits",
                Usage::Authentication,
                &[DigitalSignature, ContentCommitment],
                &[ServerAuth, ClientAuth],
                "wrong purpose",
            ),
            (
                "signs",
                Usage::Authentication,
                &[DigitalSignature, KeyCertSign],
                &[ServerAuth, ClientAuth],
                "wrong purpose",
            ),
            (
                "the profile",
                Usage::Signing,
                &[DigitalSignature, ContentCommitment],
                std::slice::from_ref(&document),
                "ok",
            ),
            ("does not commit", Usage::Signing, &[DigitalSignature], std::slice::from_ref(&document), "wrong purpose"),
            (
                "both uses",
                Usage::Signing,
                &[DigitalSignature, ContentCommitment],
                &[document.clone(), ClientAuth],
                "wrong purpose",
            ),
        ];
        for (name, usage, usages, purposes, expected) in rows {
            let der = handmade(&authority, usages, purposes);
            assert_eq!(outcome(verify_leaf(&der, &[], &bundle, usage, at(NOW))), expected, "{usage}: {name}");
        }
    }

    #[test]
    fn a_leaf_is_valid_from_its_first_to_its_last_second() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        let (leaf, _) = fixture::leaf(&authority, Usage::Authentication, Algorithm::EcdsaP256);
        let (begin, end) = (leaf.facts.not_before.as_second(), leaf.facts.not_after.as_second());
        for (time, expected) in [(begin - 1, "not yet valid"), (begin, "ok"), (end, "ok"), (end + 1, "expired")] {
            let result = verify_leaf(&leaf.der, &[], &bundle, Usage::Authentication, at(time));
            assert_eq!(outcome(result), expected, "{time}");
        }
        let late = verify_leaf(&leaf.der, &[], &bundle, Usage::Authentication, at(end + 1)).unwrap_err();
        let text = late.to_string();
        assert!(text.contains("5a5a5a5a") && text.contains("GOV/70000001/gw1") && text.contains("EE CA 1"), "{text}");
    }

    /// The chain builder accepts an expired anchor; a leaf that outlives its authority must not slip through by that.
    #[test]
    fn an_authority_is_valid_from_its_first_to_its_last_second() {
        let short = AuthoritySpec { not_before: at(NOW), lifetime: seconds(DAY), ..spec(1, Algorithm::EcdsaP256) };
        let authority = Authority::create_with_key(&short, fixture::key(Algorithm::EcdsaP256, 2)).unwrap();
        let key = fixture::key(Algorithm::EcdsaP256, 50);
        let mut params = authority::parameters("x", terms().serial, key.public());
        params.not_before = authority::asn1_time(at(NOW - DAY)).unwrap();
        params.not_after = authority::asn1_time(at(NOW + 9 * DAY)).unwrap();
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let der = authority.sign(&params, key.public()).unwrap();
        let bundle = fixture::bundle(&[&authority, &fixture::authority(2, Algorithm::EcdsaP256)]);
        let rows =
            [(NOW - 1, "authority not valid"), (NOW, "ok"), (NOW + DAY, "ok"), (NOW + DAY + 1, "authority not valid")];
        for (time, expected) in rows {
            assert_eq!(outcome(verify_leaf(&der, &[], &bundle, Usage::Link, at(time))), expected, "{time}");
        }
    }

    #[test]
    fn self_signed_authorities_and_rubbish_are_told_apart() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        let key = fixture::key(Algorithm::EcdsaP256, 50);
        let mut params = authority::parameters("GOV/70000001/gw1", terms().serial, key.public());
        params.is_ca = IsCa::ExplicitNoCa;
        let own = params.self_signed(&key).unwrap();
        let (leaf, _) = fixture::leaf(&authority, Usage::Link, Algorithm::EcdsaP256);
        let judge = |der: &[u8]| outcome(verify_leaf(der, &[], &bundle, Usage::Link, at(NOW)));
        assert_eq!(judge(own.der()), "self-signed");
        assert_eq!(judge(authority.certificate().der()), "authority");
        assert_eq!(judge(&leaf.der[1..]), "malformed");
        let many = vec![CertificateDer::from(leaf.der.clone()); MAX_INTERMEDIATES + 1];
        assert_eq!(outcome(verify_leaf(&leaf.der, &many, &bundle, Usage::Link, at(NOW))), "too many intermediates");
        assert_eq!(outcome(verify_leaf(&leaf.der, &many[1..], &bundle, Usage::Link, at(NOW))), "ok");
    }

    #[test]
    fn no_byte_of_a_leaf_can_be_changed() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&authority]);
        let (leaf, _) = fixture::leaf(&authority, Usage::Link, Algorithm::EcdsaP256);
        for at_byte in 0..leaf.der.len() {
            for mask in [0x01, 0x20, 0x80, 0xff] {
                let mut changed = leaf.der.clone();
                changed[at_byte] ^= mask;
                let result = verify_leaf(&changed, &[], &bundle, Usage::Link, at(NOW));
                assert_ne!(outcome(result), "ok", "byte {at_byte} ^ {mask:#x}");
            }
        }
    }

    /// A leaf, whose key is in many hands, must not be able to make further leaves.
    #[test]
    fn chains_through_intermediates() {
        let root = fixture::authority(1, Algorithm::EcdsaP256);
        let bundle = fixture::bundle(&[&root]);
        let middle_key = fixture::key(Algorithm::EcdsaP256, 60);
        let middle = |is_ca: IsCa| {
            let mut params = authority::parameters("EE CA middle", terms().serial, middle_key.public());
            params.not_before = authority::asn1_time(at(NOW - DAY)).unwrap();
            params.not_after = authority::asn1_time(at(NOW + 300 * DAY)).unwrap();
            params.is_ca = is_ca;
            params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
            root.sign(&params, middle_key.public()).unwrap()
        };
        let real = middle(IsCa::Ca(BasicConstraints::Unconstrained));
        let pem = crate::pem::encode(crate::pem::CERTIFICATE, &real).to_string();
        let issuing = Authority::load(&pem, &KeyPair::to_pkcs8_pem(&middle_key)).unwrap();
        let (leaf, _) = fixture::leaf(&issuing, Usage::Link, Algorithm::EcdsaP256);
        let judge = |middle: Vec<u8>| outcome(verify_leaf(&leaf.der, &[middle.into()], &bundle, Usage::Link, at(NOW)));
        assert_eq!(judge(real), "ok");
        assert_eq!(judge(middle(IsCa::ExplicitNoCa)), "refused");
        assert_eq!(outcome(verify_leaf(&leaf.der, &[], &bundle, Usage::Link, at(NOW))), "unknown issuer");
    }
}
