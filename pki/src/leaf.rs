//! Leaf certificates: the three profiles and their issuance.

use jiff::{SignedDuration, Timestamp};
use rcgen::{ExtendedKeyUsagePurpose, IsCa, KeyUsagePurpose, SanType};

use crate::authority::{self, Authority, AuthorityError, MAX_COMMON_NAME};
use crate::certificate::{CertificateFacts, DOCUMENT_SIGNING_COMPONENTS};
use crate::key::SubjectPublicKey;
use crate::pem;
use crate::serial::Serial;

/// How far a certificate's validity reaches back from its issuance, for peers whose clocks lag.
pub const BACKDATE: SignedDuration = SignedDuration::from_mins(5);
/// Most DNS names of one leaf.
pub const MAX_DNS_NAMES: usize = 64;
/// Longest label of a DNS name (RFC 1035).
pub const MAX_DNS_LABEL: usize = 63;
/// Longest DNS name as text, without the final dot.
pub const MAX_DNS_NAME: usize = 253;
/// Longest URI of a leaf, in bytes.
pub const MAX_URI_BYTES: usize = 2048;

/// What a leaf is for. One certificate has one use: a key that signs handshakes never signs messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Usage {
    /// A security server among its peers, as server and as client of TLS.
    Authentication,
    /// A member's signature of messages: digitalSignature and contentCommitment, id-kp-documentSigning (RFC 9336).
    Signing,
    /// The link endpoint of the operator, as server of TLS alone.
    Link,
}

/// Whom a leaf names. The strings are the caller's; this crate knows no identifiers of the federation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeafRequest {
    /// Its use.
    pub usage: Usage,
    /// Common name, for people reading a certificate: what is longer than 64 characters is cut off. Programs read the URI.
    pub common_name: String,
    /// The one URI of the subject alternative name: the identity.
    pub uri: String,
    /// DNS names of the subject alternative name; none for [`Usage::Signing`], at least one for [`Usage::Link`].
    pub dns_names: Vec<String>,
}

/// When, for how long and under which number a leaf is issued.
#[derive(Debug, Clone, Copy)]
pub struct Terms {
    /// The time of issuance.
    pub now: Timestamp,
    /// From the first to the last second of validity, the backdating included: a policy's maximum is never exceeded.
    pub lifetime: SignedDuration,
    /// No leaf outlives the authority less this time, so that an authority that is being retired has no valid leaf left
    /// (rotation invariant INV-4).
    pub retirement: SignedDuration,
    /// Serial number.
    pub serial: Serial,
}

/// A certificate as it was issued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IssuedLeaf {
    /// One PEM block.
    pub pem: String,
    /// The DER bytes.
    pub der: Vec<u8>,
    /// What it says.
    pub facts: CertificateFacts,
}

/// Why no leaf was issued.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The authority begins only later. Signing before would make leaves that no verifier accepts.
    #[error("the authority is not valid before {not_before}")]
    AuthorityNotYetValid {
        /// First second of the authority.
        not_before: Timestamp,
    },
    /// The authority's end less the retirement leaves less than a third of the wanted life, so that the new leaf would be due
    /// for renewal the moment it is stored. A new authority is needed first.
    #[error("the authority lets a leaf live until {until}, which is less than a third of the wanted life")]
    TooLittleLife {
        /// The authority's `not_after` less the retirement.
        until: Timestamp,
    },
    /// The wanted life is not longer than the backdating and rounding leave anything of.
    #[error("a leaf's life must be at least one minute")]
    Lifetime,
    /// The URI is empty, too long or not plain ASCII.
    #[error("the URI of a leaf must be 1 to {MAX_URI_BYTES} printable ASCII characters without spaces")]
    Uri,
    /// A DNS name is longer than DNS allows, or one of its labels is.
    #[error("DNS name \"{name}\" is too long: at most {MAX_DNS_LABEL} characters a label and {MAX_DNS_NAME} in all")]
    DnsNameLength {
        /// The name.
        name: String,
    },
    /// A DNS name is none that a verifier would compare.
    #[error("\"{name}\" is not a DNS name in lower case")]
    DnsName {
        /// The name.
        name: String,
    },
    /// Names that the use does not allow, or none where one is needed, or more than [`MAX_DNS_NAMES`].
    #[error("a signing leaf has no DNS names, a link leaf at least one, no leaf more than {MAX_DNS_NAMES}")]
    DnsNames,
    /// The common name is empty or has control characters.
    #[error("the common name of a leaf must not be empty or hold control characters")]
    CommonName,
    /// The authority could not sign.
    #[error("the authority could not sign the leaf")]
    Sign(#[source] AuthorityError),
}

/// Issues a leaf for a public key. Everything but the key comes from the request and the terms.
pub fn issue(
    authority: &Authority,
    request: &LeafRequest,
    subject: &SubjectPublicKey,
    terms: &Terms,
) -> Result<IssuedLeaf, IssueError> {
    let (not_before, not_after) = validity(authority.certificate().facts(), terms)?;
    check_names(request)?;
    let common_name: String = request.common_name.chars().take(MAX_COMMON_NAME).collect();
    let mut params = authority::parameters(&common_name, terms.serial, subject);
    params.not_before = authority::asn1_time(not_before).ok_or(IssueError::Lifetime)?;
    params.not_after = authority::asn1_time(not_after).ok_or(IssueError::Lifetime)?;
    params.is_ca = IsCa::ExplicitNoCa;
    params.key_usages = key_usages(request.usage);
    params.extended_key_usages = extended_key_usages(request.usage);
    for name in &request.dns_names {
        let name = name.as_str().try_into().map_err(|_| IssueError::DnsName { name: name.clone() })?;
        params.subject_alt_names.push(SanType::DnsName(name));
    }
    params.subject_alt_names.push(SanType::URI(request.uri.as_str().try_into().map_err(|_| IssueError::Uri)?));
    let der = authority.sign(&params, subject).map_err(IssueError::Sign)?;
    let facts = CertificateFacts::parse(&der).map_err(|error| IssueError::Sign(AuthorityError::Certificate(error)))?;
    Ok(IssuedLeaf { pem: pem::encode(pem::CERTIFICATE, &der).to_string(), der, facts })
}

/// The validity of a leaf issued now, contained in the authority's (INV-4). Whole seconds, as certificates carry.
fn validity(authority: &CertificateFacts, terms: &Terms) -> Result<(Timestamp, Timestamp), IssueError> {
    let now = terms.now.as_second();
    let lifetime = terms.lifetime.as_secs();
    if lifetime < 60 {
        return Err(IssueError::Lifetime);
    }
    if now < authority.not_before.as_second() {
        return Err(IssueError::AuthorityNotYetValid { not_before: authority.not_before });
    }
    // A short life, as tests use, must not be eaten up by the backdating.
    let backdate = BACKDATE.as_secs().min(lifetime / 4);
    let not_before = now.saturating_sub(backdate).max(authority.not_before.as_second());
    let until = authority.not_after.as_second().saturating_sub(terms.retirement.as_secs().max(0));
    let not_after = not_before.saturating_add(lifetime).min(until);
    if not_after.saturating_sub(now) < lifetime / 3 {
        let until = Timestamp::from_second(until).unwrap_or(authority.not_before);
        return Err(IssueError::TooLittleLife { until });
    }
    let time = |second| Timestamp::from_second(second).map_err(|_| IssueError::Lifetime);
    Ok((time(not_before)?, time(not_after)?))
}

fn key_usages(usage: Usage) -> Vec<KeyUsagePurpose> {
    match usage {
        Usage::Authentication | Usage::Link => vec![KeyUsagePurpose::DigitalSignature],
        Usage::Signing => vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::ContentCommitment],
    }
}

fn extended_key_usages(usage: Usage) -> Vec<ExtendedKeyUsagePurpose> {
    match usage {
        Usage::Authentication => vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        Usage::Signing => vec![ExtendedKeyUsagePurpose::Other(DOCUMENT_SIGNING_COMPONENTS.to_vec())],
        Usage::Link => vec![ExtendedKeyUsagePurpose::ServerAuth],
    }
}

fn check_names(request: &LeafRequest) -> Result<(), IssueError> {
    if request.common_name.is_empty() || request.common_name.chars().any(char::is_control) {
        return Err(IssueError::CommonName);
    }
    if request.uri.is_empty()
        || request.uri.len() > MAX_URI_BYTES
        || !request.uri.bytes().all(|byte| byte.is_ascii_graphic())
    {
        return Err(IssueError::Uri);
    }
    let count = match request.usage {
        Usage::Authentication => 0..=MAX_DNS_NAMES,
        Usage::Signing => 0..=0,
        Usage::Link => 1..=MAX_DNS_NAMES,
    };
    if !count.contains(&request.dns_names.len()) {
        return Err(IssueError::DnsNames);
    }
    match request.dns_names.iter().find(|name| is_too_long(name) || !is_dns_name(name)) {
        Some(name) if is_too_long(name) => Err(IssueError::DnsNameLength { name: name.clone() }),
        Some(name) => Err(IssueError::DnsName { name: name.clone() }),
        None => Ok(()),
    }
}

fn is_too_long(name: &str) -> bool {
    name.len() > MAX_DNS_NAME || name.split('.').any(|label| label.len() > MAX_DNS_LABEL)
}

/// A host name of RFC 1123 in lower case, without wildcard and final dot: what every verifier compares alike.
fn is_dns_name(name: &str) -> bool {
    let is_label = |label: &str| {
        let inner = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-';
        !label.is_empty() && label.bytes().all(inner) && !label.starts_with('-') && !label.ends_with('-')
    };
    // All digits in the last label is an address; name constraints and verifiers would read it as one.
    let last_is_number = name.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit()));
    !last_is_number && name.split('.').all(is_label)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::certificate::{ExtendedKeyUsage, KeyUsage};
    use crate::fixture::{self, DAY, HOUR, NOW, at, request, seconds, terms};
    use crate::key::Algorithm;

    fn issue_at(now: i64, lifetime: i64, retirement: i64) -> Result<(i64, i64), IssueError> {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let key = fixture::key(Algorithm::EcdsaP256, 9);
        let terms = Terms { now: at(now), lifetime: seconds(lifetime), retirement: seconds(retirement), ..terms() };
        let issued = issue(&authority, &request(Usage::Authentication), key.public(), &terms)?;
        Ok((issued.facts.not_before.as_second(), issued.facts.not_after.as_second()))
    }

    #[test]
    fn validity_is_contained_and_backdated() {
        let begin = NOW - DAY;
        let end = begin + 365 * DAY;
        let until = end - 7 * DAY;
        let life = 360 * HOUR;
        let rows = [
            ("usual", NOW, life, Ok((NOW - 300, NOW - 300 + life))),
            ("one second before the authority", begin - 1, life, Err(())),
            ("exactly at its beginning: not backdated", begin, life, Ok((begin, begin + life))),
            ("backdated as far as it goes", begin + 299, life, Ok((begin, begin + life))),
            ("backdated in full", begin + 300, life, Ok((begin, begin + life))),
            ("the last that gets its whole life", until - life + 300, life, Ok((until - life, until))),
            ("one second later it is cut", until - life + 301, life, Ok((until - life + 1, until))),
            ("a third of its life left", until - life / 3, life, Ok((until - life / 3 - 300, until))),
            ("one second less than a third", until - life / 3 + 1, life, Err(())),
            ("after the authority's end", end + 1, life, Err(())),
            ("a short life keeps three quarters", NOW, 600, Ok((NOW - 150, NOW + 450))),
            ("a minute", NOW, 60, Ok((NOW - 15, NOW + 45))),
            ("less than a minute", NOW, 59, Err(())),
        ];
        for (name, now, lifetime, expected) in rows {
            assert_eq!(issue_at(now, lifetime, 7 * DAY).map_err(|_| ()), expected, "{name}");
        }
        assert_eq!(issue_at(begin - 1, life, 0), Err(IssueError::AuthorityNotYetValid { not_before: at(begin) }));
        assert_eq!(issue_at(until, life, 7 * DAY), Err(IssueError::TooLittleLife { until: at(until) }));
        assert_eq!(
            issue_at(NOW, life, 400 * DAY).map_err(|error| matches!(error, IssueError::TooLittleLife { .. })),
            Err(true)
        );
    }

    #[test]
    fn each_profile_says_what_it_is_for() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let signs = KeyUsage { digital_signature: true, ..Default::default() };
        let rows = [
            (
                Usage::Authentication,
                signs,
                ExtendedKeyUsage { server_auth: true, client_auth: true, ..Default::default() },
            ),
            (
                Usage::Signing,
                KeyUsage { content_commitment: true, ..signs },
                ExtendedKeyUsage { document_signing: true, ..Default::default() },
            ),
            (Usage::Link, signs, ExtendedKeyUsage { server_auth: true, ..Default::default() }),
        ];
        for (usage, key_usage, extended_key_usage) in rows {
            let (issued, key) = fixture::leaf(&authority, usage, Algorithm::EcdsaP256);
            let facts = &issued.facts;
            assert_eq!((facts.key_usage, facts.extended_key_usage), (key_usage, extended_key_usage), "{usage}");
            assert_eq!(facts.uris, [request(usage).uri], "{usage}");
            assert_eq!(facts.dns_names, request(usage).dns_names, "{usage}");
            assert_eq!(facts.serial, terms().serial.to_string());
            assert_eq!(facts.spki_sha256, key.spki_sha256());
            assert_eq!(facts.subject_key_id, Some(key.public().key_identifier()));
            assert_eq!(facts.authority_key_id, authority.certificate().facts().subject_key_id);
            assert_eq!(facts.issuer, "O=Saatkond, CN=EE CA 1");
            assert_eq!(facts.subject, "O=Saatkond, CN=GOV/70000001/gw1");
            assert!(!facts.is_ca && !facts.self_issued);
            assert_eq!(*pem::single(&issued.pem, pem::CERTIFICATE).unwrap(), issued.der);
        }
    }

    #[test]
    fn names_that_verifiers_read_differently_are_refused() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let key = fixture::key(Algorithm::EcdsaP256, 9);
        let attempt = |request: &LeafRequest| issue(&authority, request, key.public(), &terms()).map(|leaf| leaf.facts);
        let with_dns = |usage, names: &[&str]| LeafRequest {
            dns_names: names.iter().map(|name| (*name).to_owned()).collect(),
            ..request(usage)
        };
        for name in ["", "UPPER", "a..b", ".a", "a.", "-a", "a-", "*.a", "a b", "täht", "10.0.0.1", "a.1"] {
            let refused = Err(IssueError::DnsName { name: name.to_owned() });
            assert_eq!(attempt(&with_dns(Usage::Authentication, &[name])), refused, "{name:?}");
        }
        assert!(attempt(&with_dns(Usage::Authentication, &[&"a".repeat(63), "1a.b-c"])).is_ok());
        for name in ["a".repeat(64), format!("a.{}.a", "b".repeat(64)), "a.".repeat(126) + "ab"] {
            let refused = Err(IssueError::DnsNameLength { name: name.clone() });
            assert_eq!(attempt(&with_dns(Usage::Authentication, &[&name])), refused, "{name}");
        }
        assert!(attempt(&with_dns(Usage::Authentication, &[&("a.".repeat(126) + "a")])).is_ok());
        assert_eq!(attempt(&with_dns(Usage::Signing, &["a"])), Err(IssueError::DnsNames));
        assert_eq!(attempt(&with_dns(Usage::Link, &[])), Err(IssueError::DnsNames));
        assert!(attempt(&with_dns(Usage::Authentication, &["a"; MAX_DNS_NAMES])).is_ok());
        assert_eq!(attempt(&with_dns(Usage::Authentication, &["a"; MAX_DNS_NAMES + 1])), Err(IssueError::DnsNames));
        let with_uri = |uri: &str| LeafRequest { uri: uri.to_owned(), ..request(Usage::Signing) };
        for uri in ["", "saatkond://EE/a b", "saatkond://EE/ä", "saatkond://EE/a\n", &"a".repeat(MAX_URI_BYTES + 1)] {
            assert_eq!(attempt(&with_uri(uri)), Err(IssueError::Uri), "{uri:?}");
        }
        assert!(attempt(&with_uri(&"a".repeat(MAX_URI_BYTES))).is_ok());
        let with_name = |name: &str| LeafRequest { common_name: name.to_owned(), ..request(Usage::Signing) };
        for name in ["", "a\nb"] {
            assert_eq!(attempt(&with_name(name)), Err(IssueError::CommonName), "{name:?}");
        }
        let long = attempt(&with_name(&"õ".repeat(200))).unwrap();
        assert_eq!(long.subject, format!("O=Saatkond, CN={}", "õ".repeat(64)));
    }
}
