//! Certificate authorities: one generation is one key pair with its self-signed certificate.

use std::collections::BTreeSet;
use std::fmt;

use jiff::{SignedDuration, Timestamp};
use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyIdMethod, KeyUsagePurpose};
use time::OffsetDateTime;
use x509_parser::certificate::X509Certificate;
use zeroize::Zeroizing;

use crate::certificate::{self, CertificateError, CertificateFacts, CertificateHash};
use crate::key::{Algorithm, KeyError, KeyPair, KeySource, SubjectPublicKey};
use crate::pem::{self, PemError};
use crate::serial::Serial;

/// Organisation in every name that Saatkond issues.
pub(crate) const ORGANISATION: &str = "Saatkond";
/// Upper bound of a common name (RFC 5280 appendix A, ub-common-name), in characters.
pub(crate) const MAX_COMMON_NAME: usize = 64;

/// What a new authority is to be.
#[derive(Debug, Clone, Copy)]
pub struct AuthoritySpec<'a> {
    /// The instance (federation), e.g. `EE`. Part of the name.
    pub instance: &'a str,
    /// Counts the authorities of the instance. Part of the name: two authorities of one name cannot be told apart in a chain.
    pub generation: u32,
    /// The key's algorithm.
    pub algorithm: Algorithm,
    /// First second of validity. The caller backdates it ([`crate::leaf::BACKDATE`]), so that clocks that lag accept what the
    /// authority signs at once.
    pub not_before: Timestamp,
    /// From `not_before` to the last second of validity.
    pub lifetime: SignedDuration,
    /// Serial number.
    pub serial: Serial,
}

/// An authority that can sign: its certificate and key. `Debug` shows the public part alone.
pub struct Authority {
    certificate: AuthorityCertificate,
    /// The subject as it stands in the certificate, DER.
    subject: Vec<u8>,
    /// Name, key identifier and key in the library's form.
    issuer: rcgen::Issuer<'static, KeyPair>,
}

/// The public part of an authority; also what a bundle is made of.
#[derive(Clone, PartialEq, Eq)]
pub struct AuthorityCertificate {
    der: Vec<u8>,
    facts: CertificateFacts,
}

/// Why an authority could not be made or taken.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AuthorityError {
    /// The certificate text is not one PEM block "CERTIFICATE".
    #[error("the authority's certificate is not one PEM block")]
    Pem(#[source] PemError),
    /// The certificate does not parse.
    #[error("the authority's certificate cannot be read")]
    Certificate(#[source] CertificateError),
    /// The key could not be made, read or used.
    #[error("the authority's key cannot be used")]
    Key(#[source] KeyError),
    /// The key is not that of the certificate.
    #[error("the key does not belong to the certificate of {subject}")]
    KeyMismatch {
        /// Subject of the certificate.
        subject: String,
    },
    /// Basic constraints do not say CA:true, or key usage does not allow signing certificates.
    #[error("{subject} is not an authority: basic constraints CA:true and key usage keyCertSign are needed")]
    NotAuthority {
        /// Subject of the certificate.
        subject: String,
    },
    /// There is no subject key identifier, so leaves could not name their issuer's key.
    #[error("the authority {subject} has no subject key identifier")]
    NoKeyIdentifier {
        /// Subject of the certificate.
        subject: String,
    },
    /// A relative name of several attributes, or one attribute type twice: leaves would carry another issuer name than the
    /// authority's subject and no chain would be found.
    #[error("the name of authority {subject} cannot be copied exactly: use single attributes, each type once")]
    Name {
        /// Subject of the certificate.
        subject: String,
    },
    /// The instance makes the common name empty or longer than 64 characters.
    #[error("the common name \"{common_name}\" must have 1 to 64 characters without control characters")]
    CommonName {
        /// The name that was to be issued.
        common_name: String,
    },
    /// The validity is empty or beyond the year 9999.
    #[error("the authority's validity is empty or beyond the year 9999")]
    Validity,
    /// Building the certificate failed.
    #[error("the authority's certificate could not be built")]
    Build,
}

impl Authority {
    /// Makes a new self-signed authority with a new key.
    pub fn create(spec: &AuthoritySpec<'_>, keys: &dyn KeySource) -> Result<Self, AuthorityError> {
        Self::create_with_key(spec, keys.generate(spec.algorithm).map_err(AuthorityError::Key)?)
    }

    /// Makes a self-signed authority for a key that exists: the renewal of a generation with the same key and name, after
    /// which the leaves of the old certificate still verify. `spec.algorithm` must be the key's.
    pub fn create_with_key(spec: &AuthoritySpec<'_>, key: KeyPair) -> Result<Self, AuthorityError> {
        if key.algorithm() != spec.algorithm {
            return Err(AuthorityError::Key(KeyError::UnsupportedPrivateKey));
        }
        let common_name = format!("{} CA {}", spec.instance, spec.generation);
        if spec.instance.is_empty()
            || common_name.chars().count() > MAX_COMMON_NAME
            || common_name.chars().any(char::is_control)
        {
            return Err(AuthorityError::CommonName { common_name });
        }
        let not_after = spec.not_before.checked_add(spec.lifetime).map_err(|_| AuthorityError::Validity)?;
        if spec.lifetime < SignedDuration::from_secs(1) {
            return Err(AuthorityError::Validity);
        }
        let mut params = parameters(&common_name, spec.serial, key.public());
        params.not_before = asn1_time(spec.not_before).ok_or(AuthorityError::Validity)?;
        params.not_after = asn1_time(not_after).ok_or(AuthorityError::Validity)?;
        // No intermediate authority below it: a leaf key that leaks can never be made one.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let certificate = params.self_signed(&key).map_err(|_| AuthorityError::Build)?;
        Self::assemble(certificate.der(), key)
    }

    /// Takes a stored authority. Refuses what is no authority, what does not fit together and names that cannot be copied.
    /// Dates are not judged here: [`crate::leaf::issue`] does that with the time at which it signs.
    pub fn load(certificate_pem: &str, key_pem: &str) -> Result<Self, AuthorityError> {
        let der = pem::single(certificate_pem, pem::CERTIFICATE).map_err(AuthorityError::Pem)?;
        Self::assemble(&der, KeyPair::from_pkcs8_pem(key_pem).map_err(AuthorityError::Key)?)
    }

    fn assemble(der: &[u8], key: KeyPair) -> Result<Self, AuthorityError> {
        let parsed = certificate::parse(der).map_err(AuthorityError::Certificate)?;
        let certificate = AuthorityCertificate::of(&parsed)?;
        let subject = || certificate.facts.subject.clone();
        if certificate::public_key(&parsed).map_err(AuthorityError::Certificate)? != *key.public() {
            return Err(AuthorityError::KeyMismatch { subject: subject() });
        }
        if certificate.facts.subject_key_id.is_none() {
            return Err(AuthorityError::NoKeyIdentifier { subject: subject() });
        }
        if !has_simple_name(&parsed) {
            return Err(AuthorityError::Name { subject: subject() });
        }
        let issuer = rcgen::Issuer::from_ca_cert_der(&der.into(), key)
            .map_err(|_| AuthorityError::Name { subject: subject() })?;
        Ok(Self { subject: parsed.subject().as_raw().to_vec(), certificate, issuer })
    }

    /// The public part.
    pub fn certificate(&self) -> &AuthorityCertificate {
        &self.certificate
    }

    /// The key as PKCS#8 PEM, wiped when dropped: for the Secret of the generation and nothing else.
    pub fn key_pem(&self) -> Zeroizing<String> {
        self.issuer.key().to_pkcs8_pem()
    }

    /// Signs a certificate under this authority's name and key identifier.
    pub(crate) fn sign(
        &self,
        params: &CertificateParams,
        subject: &SubjectPublicKey,
    ) -> Result<Vec<u8>, AuthorityError> {
        let signed = params.signed_by(subject, &self.issuer).map_err(|_| AuthorityError::Build)?;
        let parsed = certificate::parse(signed.der()).map_err(AuthorityError::Certificate)?;
        // Chains are found by comparing these bytes; a name that the library wrote differently would be found by no verifier.
        if parsed.issuer().as_raw() != self.subject {
            return Err(AuthorityError::Name { subject: self.certificate.facts.subject.clone() });
        }
        Ok(signed.der().to_vec())
    }
}

impl fmt::Debug for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Authority").field("certificate", &self.certificate).finish_non_exhaustive()
    }
}

impl AuthorityCertificate {
    /// Takes one DER certificate; refuses what is no authority.
    pub fn from_der(der: &[u8]) -> Result<Self, AuthorityError> {
        Self::of(&certificate::parse(der).map_err(AuthorityError::Certificate)?)
    }

    /// Takes one PEM block "CERTIFICATE"; refuses what is no authority.
    pub fn from_pem(text: &str) -> Result<Self, AuthorityError> {
        Self::from_der(&pem::single(text, pem::CERTIFICATE).map_err(AuthorityError::Pem)?)
    }

    fn of(parsed: &X509Certificate<'_>) -> Result<Self, AuthorityError> {
        let facts = CertificateFacts::of(parsed).map_err(AuthorityError::Certificate)?;
        if facts.is_ca && facts.key_usage.key_cert_sign {
            Ok(Self { der: parsed.as_raw().to_vec(), facts })
        } else {
            Err(AuthorityError::NotAuthority { subject: facts.subject })
        }
    }

    /// The DER bytes.
    pub fn der(&self) -> &[u8] {
        &self.der
    }

    /// One PEM block, lines of 64 characters, LF.
    pub fn to_pem(&self) -> String {
        pem::encode(pem::CERTIFICATE, &self.der).to_string()
    }

    /// Everything the certificate says.
    pub fn facts(&self) -> &CertificateFacts {
        &self.facts
    }

    /// The certificate's hash.
    pub fn sha256(&self) -> CertificateHash {
        self.facts.sha256
    }

    /// First second of validity.
    pub fn not_before(&self) -> Timestamp {
        self.facts.not_before
    }

    /// Last second of validity.
    pub fn not_after(&self) -> Timestamp {
        self.facts.not_after
    }
}

impl fmt::Debug for AuthorityCertificate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "AuthorityCertificate({}, {})", self.facts.subject, self.facts.sha256)
    }
}

/// Parameters common to all certificates: name, serial number, key identifiers. The library's defaults would leave the key
/// identifiers out and derive the serial number from the key.
pub(crate) fn parameters(common_name: &str, serial: Serial, subject: &SubjectPublicKey) -> CertificateParams {
    let mut name = DistinguishedName::new();
    name.push(DnType::OrganizationName, ORGANISATION);
    name.push(DnType::CommonName, common_name);
    let mut params = CertificateParams::default();
    params.distinguished_name = name;
    params.serial_number = Some(serial.as_bytes().to_vec().into());
    params.key_identifier_method = KeyIdMethod::PreSpecified(subject.key_identifier());
    params.use_authority_key_identifier_extension = true;
    params
}

/// Certificates carry whole seconds and years up to 9999.
pub(crate) fn asn1_time(time: Timestamp) -> Option<OffsetDateTime> {
    OffsetDateTime::from_unix_timestamp(time.as_second()).ok().filter(|time| (0..=9999).contains(&time.year()))
}

/// Whether the library can copy the subject as the issuer of leaves: it panics on an empty relative name, fails on one of
/// several attributes and keeps only the last of a repeated attribute type.
fn has_simple_name(parsed: &X509Certificate<'_>) -> bool {
    let mut types = BTreeSet::new();
    parsed.subject().iter().all(|relative| {
        let mut attributes = relative.iter();
        attributes.next().is_some_and(|only| types.insert(only.attr_type().to_id_string()))
            && attributes.next().is_none()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fixture::{self, DAY, NOW, at, seconds, spec};

    #[test]
    fn what_is_created_loads_again() {
        for algorithm in Algorithm::ALL {
            let made = fixture::authority(3, algorithm);
            let loaded = Authority::load(&made.certificate().to_pem(), &made.key_pem()).unwrap();
            assert_eq!(loaded.certificate(), made.certificate(), "{algorithm}");
            let facts = loaded.certificate().facts();
            assert_eq!(facts.subject, "O=Saatkond, CN=EE CA 3");
            assert!(facts.is_ca && facts.self_issued && facts.key_usage.key_cert_sign && facts.key_usage.crl_sign);
            assert_eq!((facts.not_before, facts.not_after), (at(NOW - DAY), at(NOW + 364 * DAY)));
            assert_eq!(facts.subject_key_id, facts.authority_key_id);
            assert_eq!(facts.serial, spec(3, algorithm).serial.to_string());
            assert_eq!(AuthorityCertificate::from_pem(&made.certificate().to_pem()).as_ref(), Ok(made.certificate()));
        }
    }

    #[test]
    fn the_default_source_makes_a_new_key_each_time() {
        let make = || Authority::create(&spec(1, Algorithm::EcdsaP256), &crate::key::SystemKeys).unwrap();
        assert_ne!(make().certificate().facts().spki_sha256, make().certificate().facts().spki_sha256);
    }

    /// Renewal with the same key: name and key identifier stay, else the leaves of before find no issuer.
    #[test]
    fn a_renewed_authority_keeps_name_and_key_identifier() {
        let first = fixture::authority(1, Algorithm::EcdsaP256);
        let key = KeyPair::from_pkcs8_pem(&first.key_pem()).unwrap();
        let later = AuthoritySpec {
            not_before: at(NOW),
            serial: Serial::from_random([9; 16]),
            ..spec(1, Algorithm::EcdsaP256)
        };
        let second = Authority::create_with_key(&later, key).unwrap();
        let (one, two) = (first.certificate().facts(), second.certificate().facts());
        assert_eq!((&one.subject, &one.subject_key_id), (&two.subject, &two.subject_key_id));
        assert_ne!(one.sha256, two.sha256);
    }

    #[test]
    fn what_does_not_fit_together_is_refused() {
        let (one, two) = (fixture::authority(1, Algorithm::EcdsaP256), fixture::authority(2, Algorithm::EcdsaP256));
        let subject = "O=Saatkond, CN=EE CA 1".to_owned();
        let certificate = one.certificate().to_pem();
        let refused = |certificate: &str, key: &str| Authority::load(certificate, key).unwrap_err();
        assert_eq!(refused(&certificate, &two.key_pem()), AuthorityError::KeyMismatch { subject });
        assert!(matches!(refused(&certificate, ""), AuthorityError::Key(KeyError::Pem(_))));
        assert!(matches!(refused(&one.key_pem(), &one.key_pem()), AuthorityError::Pem(_)));
        assert!(matches!(refused(&certificate.repeat(2), &one.key_pem()), AuthorityError::Pem(_)));
        let key = fixture::key(Algorithm::EcdsaP384, 1);
        assert!(matches!(Authority::create_with_key(&spec(1, Algorithm::EcdsaP256), key), Err(AuthorityError::Key(_))));
    }

    #[test]
    fn a_certificate_without_the_marks_of_an_authority_is_refused() {
        let key = fixture::key(Algorithm::EcdsaP256, 1);
        let make = |is_ca: IsCa, usages: &[KeyUsagePurpose]| {
            let mut params = parameters("x", spec(1, Algorithm::EcdsaP256).serial, key.public());
            params.is_ca = is_ca;
            params.key_usages = usages.to_vec();
            AuthorityCertificate::from_der(params.self_signed(&key).unwrap().der()).map(|_| ())
        };
        let signs = [KeyUsagePurpose::KeyCertSign];
        let refused = Err(AuthorityError::NotAuthority { subject: "O=Saatkond, CN=x".to_owned() });
        assert_eq!(make(IsCa::Ca(BasicConstraints::Unconstrained), &signs), Ok(()));
        assert_eq!(make(IsCa::ExplicitNoCa, &signs), refused);
        assert_eq!(make(IsCa::NoCa, &signs), refused);
        assert_eq!(make(IsCa::Ca(BasicConstraints::Unconstrained), &[KeyUsagePurpose::DigitalSignature]), refused);
        assert_eq!(make(IsCa::Ca(BasicConstraints::Unconstrained), &[]), refused);
    }

    #[test]
    fn names_and_times_have_bounds() {
        let key = || fixture::key(Algorithm::EcdsaP256, 1);
        let attempt = |spec: &AuthoritySpec<'_>| Authority::create_with_key(spec, key()).map(|_| ());
        let base = spec(1, Algorithm::EcdsaP256);
        // " CA 1" takes 5 of the 64 characters.
        for (instance, ok) in
            [("a".repeat(59), true), ("a".repeat(60), false), (String::new(), false), ("E\nE".into(), false)]
        {
            assert_eq!(attempt(&AuthoritySpec { instance: &instance, ..base }).is_ok(), ok, "{instance:?}");
        }
        for (lifetime, ok) in [(0, false), (1, true), (7973 * 366 * DAY, false)] {
            let result = attempt(&AuthoritySpec { lifetime: seconds(lifetime), ..base });
            assert_eq!(result, if ok { Ok(()) } else { Err(AuthorityError::Validity) }, "{lifetime}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let shown = format!("{:?}", fixture::authority(1, Algorithm::EcdsaP256));
        assert!(shown.starts_with("Authority { certificate: AuthorityCertificate(O=Saatkond, CN=EE CA 1, "), "{shown}");
        assert!(shown.len() < 160, "{shown}");
    }
}
