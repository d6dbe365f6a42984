//! What a certificate says, read once and kept as plain values.

use jiff::Timestamp;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::{GeneralName, ParsedExtension};
use x509_parser::prelude::FromDer;

pub use crate::digest::CertificateHash;
use crate::key::{KeyError, SpkiHash, SubjectPublicKey};

/// No certificate of the project comes near this size; a longer one is refused before it is parsed.
pub const MAX_CERTIFICATE_BYTES: usize = 16 * 1024;

/// id-kp-documentSigning (RFC 9336), as dotted text and as the components that rcgen takes.
pub(crate) const DOCUMENT_SIGNING: &str = "1.3.6.1.5.5.7.3.36";
pub(crate) const DOCUMENT_SIGNING_COMPONENTS: [u64; 9] = [1, 3, 6, 1, 5, 5, 7, 3, 36];

/// The facts of one certificate. Nothing here says that it is trusted: see [`crate::verify`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFacts {
    /// Serial number in lower-case hexadecimal without a leading zero byte; equals [`crate::serial::Serial`]'s text for our own.
    pub serial: String,
    /// Issuer name as text, for people.
    pub issuer: String,
    /// Subject name as text, for people.
    pub subject: String,
    /// Subject key identifier.
    pub subject_key_id: Option<Vec<u8>>,
    /// Key identifier of the authority that signed.
    pub authority_key_id: Option<Vec<u8>>,
    /// The public key's hash.
    pub spki_sha256: SpkiHash,
    /// The certificate's own hash.
    pub sha256: CertificateHash,
    /// First second of validity.
    pub not_before: Timestamp,
    /// Last second of validity.
    pub not_after: Timestamp,
    /// DNS names of the subject alternative name, in order.
    pub dns_names: Vec<String>,
    /// URIs of the subject alternative name, in order.
    pub uris: Vec<String>,
    /// Key usage (RFC 5280 section 4.2.1.3).
    pub key_usage: KeyUsage,
    /// Extended key usage (RFC 5280 section 4.2.1.12).
    pub extended_key_usage: ExtendedKeyUsage,
    /// Basic constraints say that it is an authority.
    pub is_ca: bool,
    /// Issuer and subject are the same bytes.
    pub self_issued: bool,
}

/// The bits of key usage that the project tells apart; all false when the extension is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent bits of one bit string")]
pub struct KeyUsage {
    /// May sign handshakes and messages.
    pub digital_signature: bool,
    /// May sign what its owner will not deny (nonRepudiation).
    pub content_commitment: bool,
    /// May sign certificates.
    pub key_cert_sign: bool,
    /// May sign revocation lists.
    pub crl_sign: bool,
    /// Any other bit.
    pub other: bool,
}

/// The purposes that the project tells apart; all false when the extension is missing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
#[expect(clippy::struct_excessive_bools, reason = "they are independent members of one set")]
pub struct ExtendedKeyUsage {
    /// id-kp-serverAuth.
    pub server_auth: bool,
    /// id-kp-clientAuth.
    pub client_auth: bool,
    /// id-kp-documentSigning (RFC 9336).
    pub document_signing: bool,
    /// Any other purpose, among them anyExtendedKeyUsage.
    pub other: bool,
}

/// Why bytes are no certificate that can be judged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum CertificateError {
    /// Longer than [`MAX_CERTIFICATE_BYTES`].
    #[error("the certificate is longer than {MAX_CERTIFICATE_BYTES} bytes")]
    TooLong,
    /// No DER certificate, or something follows it.
    #[error("the certificate is not well-formed DER")]
    Malformed,
    /// An extension stands twice or does not parse.
    #[error("the certificate has a repeated or malformed extension")]
    Extension,
    /// The validity is not a range of times.
    #[error("the certificate's validity is not a range of times")]
    Validity,
    /// Its key is of no supported algorithm.
    #[error("the certificate's key is not supported")]
    Key(#[source] KeyError),
}

impl CertificateFacts {
    /// Reads one DER certificate.
    pub fn parse(der: &[u8]) -> Result<Self, CertificateError> {
        Self::of(&parse(der)?)
    }

    /// Whether the time lies within the validity, both ends included (RFC 5280 section 4.1.2.5).
    pub fn is_valid_at(&self, now: Timestamp) -> bool {
        self.not_before.as_second() <= now.as_second() && now.as_second() <= self.not_after.as_second()
    }

    pub(crate) fn of(certificate: &X509Certificate<'_>) -> Result<Self, CertificateError> {
        let (not_before, not_after) = validity(certificate)?;
        let mut facts = Self {
            serial: hex::encode(trim_zero(certificate.raw_serial())),
            issuer: certificate.issuer().to_string(),
            subject: certificate.subject().to_string(),
            subject_key_id: None,
            authority_key_id: None,
            spki_sha256: SpkiHash::of(certificate.public_key().raw),
            sha256: CertificateHash::of(certificate.as_raw()),
            not_before,
            not_after,
            dns_names: Vec::new(),
            uris: Vec::new(),
            key_usage: KeyUsage::default(),
            extended_key_usage: ExtendedKeyUsage::default(),
            is_ca: false,
            self_issued: certificate.issuer().as_raw() == certificate.subject().as_raw(),
        };
        // RFC 5280 section 4.2 forbids an extension to stand twice; readers that take the first and readers that take the
        // last would see two different certificates.
        certificate.extensions_map().map_err(|_| CertificateError::Extension)?;
        for extension in certificate.extensions() {
            facts.take(extension.parsed_extension())?;
        }
        Ok(facts)
    }

    fn take(&mut self, extension: &ParsedExtension<'_>) -> Result<(), CertificateError> {
        match extension {
            ParsedExtension::SubjectKeyIdentifier(id) => self.subject_key_id = Some(id.0.to_vec()),
            ParsedExtension::AuthorityKeyIdentifier(id) => {
                self.authority_key_id = id.key_identifier.as_ref().map(|id| id.0.to_vec());
            }
            ParsedExtension::BasicConstraints(constraints) => self.is_ca = constraints.ca,
            ParsedExtension::KeyUsage(usage) => {
                // Bits 0, 1, 5 and 6 of RFC 5280 section 4.2.1.3.
                let other = usage.flags & !0b110_0011;
                self.key_usage = KeyUsage {
                    digital_signature: usage.digital_signature(),
                    content_commitment: usage.non_repudiation(),
                    key_cert_sign: usage.key_cert_sign(),
                    crl_sign: usage.crl_sign(),
                    other: other != 0,
                };
            }
            ParsedExtension::ExtendedKeyUsage(usage) => {
                let other = usage.other.iter().any(|purpose| purpose.to_id_string() != DOCUMENT_SIGNING);
                let named = usage.any
                    || usage.code_signing
                    || usage.email_protection
                    || usage.time_stamping
                    || usage.ocsp_signing;
                self.extended_key_usage = ExtendedKeyUsage {
                    server_auth: usage.server_auth,
                    client_auth: usage.client_auth,
                    document_signing: usage.other.iter().any(|purpose| purpose.to_id_string() == DOCUMENT_SIGNING),
                    other: other || named,
                };
            }
            ParsedExtension::SubjectAlternativeName(names) => {
                for name in &names.general_names {
                    match name {
                        GeneralName::DNSName(name) => self.dns_names.push((*name).to_owned()),
                        GeneralName::URI(uri) => self.uris.push((*uri).to_owned()),
                        _ => {}
                    }
                }
            }
            ParsedExtension::ParseError { .. } => return Err(CertificateError::Extension),
            _ => {}
        }
        Ok(())
    }
}

/// Parses one whole DER certificate of bounded size.
pub(crate) fn parse(der: &[u8]) -> Result<X509Certificate<'_>, CertificateError> {
    if der.len() > MAX_CERTIFICATE_BYTES {
        return Err(CertificateError::TooLong);
    }
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(CertificateError::Malformed),
    }
}

/// The key of a parsed certificate.
pub(crate) fn public_key(certificate: &X509Certificate<'_>) -> Result<SubjectPublicKey, CertificateError> {
    SubjectPublicKey::from_spki_der(certificate.public_key().raw).map_err(CertificateError::Key)
}

/// Reads the public key of a DER certificate.
pub fn public_key_of(der: &[u8]) -> Result<SubjectPublicKey, CertificateError> {
    public_key(&parse(der)?)
}

fn validity(certificate: &X509Certificate<'_>) -> Result<(Timestamp, Timestamp), CertificateError> {
    let second = |seconds| Timestamp::from_second(seconds).map_err(|_| CertificateError::Validity);
    let not_before = second(certificate.validity().not_before.timestamp())?;
    let not_after = second(certificate.validity().not_after.timestamp())?;
    if not_before <= not_after { Ok((not_before, not_after)) } else { Err(CertificateError::Validity) }
}

/// Drops the zero byte that DER puts before a number whose highest bit is set.
fn trim_zero(bytes: &[u8]) -> &[u8] {
    match bytes {
        [0, rest @ ..] if !rest.is_empty() => rest,
        _ => bytes,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::LazyLock;

    use proptest::prelude::*;
    use rcgen::{CustomExtension, IsCa};

    use super::*;
    use crate::authority::parameters;
    use crate::fixture::{self, at, terms};
    use crate::key::Algorithm;
    use crate::leaf::Usage;

    #[test]
    fn bytes_that_are_no_certificate_are_refused() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let (leaf, _) = fixture::leaf(&authority, Usage::Signing, Algorithm::EcdsaP256);
        let parse = |der: &[u8]| CertificateFacts::parse(der).map(|_| ());
        assert_eq!(parse(&leaf.der), Ok(()));
        assert_eq!(parse(&[]), Err(CertificateError::Malformed));
        assert_eq!(parse(&leaf.der[..leaf.der.len() - 1]), Err(CertificateError::Malformed));
        assert_eq!(parse(&[leaf.der.as_slice(), &[0]].concat()), Err(CertificateError::Malformed));
        assert_eq!(parse(&vec![0x30; MAX_CERTIFICATE_BYTES]), Err(CertificateError::Malformed));
        assert_eq!(parse(&vec![0x30; MAX_CERTIFICATE_BYTES + 1]), Err(CertificateError::TooLong));
    }

    /// Which of two a reader believes depends on the reader.
    #[test]
    fn an_extension_that_stands_twice_is_refused() {
        let key = fixture::key(Algorithm::EcdsaP256, 1);
        let mut params = parameters("twice", terms().serial, key.public());
        params.is_ca = IsCa::ExplicitNoCa;
        let once = params.self_signed(&key).unwrap();
        assert!(CertificateFacts::parse(once.der()).is_ok());
        // Basic constraints again, this time CA:true.
        params.custom_extensions =
            vec![CustomExtension::from_oid_content(&[2, 5, 29, 19], hex::decode("30030101ff").unwrap())];
        let twice = params.self_signed(&key).unwrap();
        assert_eq!(CertificateFacts::parse(twice.der()), Err(CertificateError::Extension));
    }

    #[test]
    fn validity_includes_both_ends() {
        let authority = fixture::authority(1, Algorithm::EcdsaP256);
        let facts = fixture::leaf(&authority, Usage::Link, Algorithm::EcdsaP256).0.facts;
        let (begin, end) = (facts.not_before.as_second(), facts.not_after.as_second());
        for (time, valid) in [(begin - 1, false), (begin, true), (end, true), (end + 1, false)] {
            assert_eq!(facts.is_valid_at(at(time)), valid, "{time}");
        }
    }

    #[test]
    fn serial_numbers_have_one_spelling() {
        for (bytes, trimmed) in [(&[0, 0x80][..], &[0x80][..]), (&[0], &[0]), (&[1, 0], &[1, 0])] {
            assert_eq!(trim_zero(bytes), trimmed);
        }
    }

    proptest! {
        /// Certificates come from peers: whatever they send, reading it returns. What is read is what stands there.
        #[test]
        fn damaged_certificates_never_panic(place in 0_usize..800, value: u8, cut in 0_usize..800) {
            static DER: LazyLock<Vec<u8>> = LazyLock::new(|| {
                let authority = fixture::authority(1, Algorithm::EcdsaP256);
                fixture::leaf(&authority, Usage::Authentication, Algorithm::EcdsaP256).0.der
            });
            let mut damaged = DER.clone();
            let place = place % damaged.len();
            damaged[place] = value;
            if let Ok(facts) = CertificateFacts::parse(&damaged) {
                prop_assert_eq!(facts.sha256, CertificateHash::of(&damaged));
            }
            let _ = public_key_of(&damaged);
            damaged.truncate(cut);
            prop_assert!(CertificateFacts::parse(&damaged).is_err() || damaged.len() == DER.len());
        }
    }
}
