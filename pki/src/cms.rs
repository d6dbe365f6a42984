//! The one form of CMS SignedData (RFC 5652) that message signatures have, written and read.
//!
//! The profile: version 1, detached content of type id-data, one signer named by issuer and serial number, its certificate
//! included, the four signed attributes of CAdES-B-B (ETSI EN 319 122-1 section 6: content-type, message-digest, signing-time,
//! signing-certificate-v2), no unsigned attributes, no revocation data. Everything but the certificate, the time and the
//! signature follows from these three and the content, so [`read`] only finds them and the verifier writes the rest again and
//! compares. A CMS that says the same in other bytes is refused: nothing in it can be altered without being noticed.

use der::asn1::{AnyRef, GeneralizedTime, ObjectIdentifier, UtcTime};
use der::{Decode, Encode, Reader, SliceReader, Tag, TagNumber};
use jiff::Timestamp;

use crate::digest::sha256;
use crate::key::Algorithm;

const SIGNED_DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.2");
const DATA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.7.1");
const CONTENT_TYPE: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.3");
const MESSAGE_DIGEST: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.4");
const SIGNING_TIME: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.5");
const SIGNING_CERTIFICATE_V2: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.9.16.2.47");
const SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.1");
const SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.2");
const SHA512: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.16.840.1.101.3.4.2.3");
const ECDSA_WITH_SHA256: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.2");
const ECDSA_WITH_SHA384: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.4.3.3");
const ED25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.112");
const SHA256_WITH_RSA: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.113549.1.1.11");

/// Attributes looked at before a CMS is refused; the profile has four.
const MAX_ATTRIBUTES: usize = 8;

const SEQUENCE: u8 = 0x30;
const SET: u8 = 0x31;
const INTEGER: u8 = 0x02;
const OCTET_STRING: u8 = 0x04;
const CONTEXT_0: u8 = 0xa0;
/// INTEGER 1: CMSVersion of SignedData and SignerInfo when the signer is named by issuer and serial number.
const VERSION_1: [u8; 3] = [0x02, 0x01, 0x01];

/// What cannot be rebuilt: the parts of a CMS that a verifier takes from it.
pub(crate) struct Found<'a> {
    pub(crate) certificate: &'a [u8],
    pub(crate) signing_time: Timestamp,
    pub(crate) message_digest: &'a [u8],
    pub(crate) signature: &'a [u8],
}

/// Who signs: fixed for one certificate.
pub(crate) struct Signer<'a> {
    pub(crate) algorithm: Algorithm,
    /// The whole certificate, DER.
    pub(crate) certificate: &'a [u8],
    /// The certificate's issuer, content octets of the SEQUENCE.
    pub(crate) issuer: &'a [u8],
    /// The certificate's serial number, content octets of the INTEGER.
    pub(crate) serial: &'a [u8],
}

/// The digest of the content for signers of this algorithm. Ed25519 demands SHA-512 (RFC 8419 section 3).
pub(crate) fn digest(algorithm: Algorithm, content: &[u8]) -> Vec<u8> {
    use aws_lc_rs::digest::{SHA256, SHA384, SHA512, digest};
    let with = match algorithm {
        Algorithm::EcdsaP256 | Algorithm::Rsa3072 => &SHA256,
        Algorithm::EcdsaP384 => &SHA384,
        Algorithm::Ed25519 => &SHA512,
    };
    digest(with, content).as_ref().to_vec()
}

/// The signed attributes as a SET OF in DER order: the bytes that are signed (RFC 5652 section 5.4). Nothing for a time that
/// CMS cannot carry.
pub(crate) fn signed_attributes(
    signer: &Signer<'_>,
    message_digest: &[u8],
    signing_time: Timestamp,
) -> Option<Vec<u8>> {
    let certificate_hash = tlv(OCTET_STRING, &[&sha256(signer.certificate)]);
    // SigningCertificateV2 > certs > ESSCertIDv2 (RFC 5035 section 3): SHA-256 is the default algorithm and left out.
    let certificate_id = tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&tlv(SEQUENCE, &[&certificate_hash])])]);
    let mut attributes = [
        attribute(&CONTENT_TYPE, &oid(&DATA)),
        attribute(&SIGNING_TIME, &time(signing_time)?),
        attribute(&MESSAGE_DIGEST, &tlv(OCTET_STRING, &[message_digest])),
        attribute(&SIGNING_CERTIFICATE_V2, &certificate_id),
    ];
    attributes.sort();
    Some(tlv(SET, &[&attributes[0], &attributes[1], &attributes[2], &attributes[3]]))
}

/// The whole ContentInfo. `signed_attributes` is what [`signed_attributes`] returned.
pub(crate) fn write(signer: &Signer<'_>, signed_attributes: &[u8], signature: &[u8]) -> Vec<u8> {
    let digest_algorithm = digest_algorithm(signer.algorithm);
    let signer_id = tlv(SEQUENCE, &[&tlv(SEQUENCE, &[signer.issuer]), &tlv(INTEGER, &[signer.serial])]);
    // Within SignerInfo the same SET stands under the tag [0] (RFC 5652 section 5.3).
    let mut tagged_attributes = signed_attributes.to_vec();
    if let Some(tag) = tagged_attributes.first_mut() {
        *tag = CONTEXT_0;
    }
    let signer_info = tlv(
        SEQUENCE,
        &[
            &VERSION_1,
            &signer_id,
            &digest_algorithm,
            &tagged_attributes,
            &signature_algorithm(signer.algorithm),
            &tlv(OCTET_STRING, &[signature]),
        ],
    );
    let signed_data = tlv(
        SEQUENCE,
        &[
            &VERSION_1,
            &tlv(SET, &[&digest_algorithm]),
            &tlv(SEQUENCE, &[&oid(&DATA)]),
            &tlv(CONTEXT_0, &[signer.certificate]),
            &tlv(SET, &[&signer_info]),
        ],
    );
    tlv(SEQUENCE, &[&oid(&SIGNED_DATA), &tlv(CONTEXT_0, &[&signed_data])])
}

/// Finds the certificate, time, digest and signature. What it skips is compared by the caller with [`write`].
pub(crate) fn read(bytes: &[u8]) -> der::Result<Found<'_>> {
    let mut outer = SliceReader::new(bytes)?;
    let mut content_info = constructed(&mut outer, Tag::Sequence)?;
    take(&mut content_info, Tag::ObjectIdentifier)?;
    let mut explicit = constructed(&mut content_info, context(TagNumber::N0))?;
    let mut signed_data = constructed(&mut explicit, Tag::Sequence)?;
    take(&mut signed_data, Tag::Integer)?;
    take(&mut signed_data, Tag::Set)?;
    take(&mut signed_data, Tag::Sequence)?;
    let certificate = constructed(&mut signed_data, context(TagNumber::N0))?.tlv_bytes()?;
    let mut signer_infos = constructed(&mut signed_data, Tag::Set)?;
    let mut signer_info = constructed(&mut signer_infos, Tag::Sequence)?;
    take(&mut signer_info, Tag::Integer)?;
    take(&mut signer_info, Tag::Sequence)?;
    take(&mut signer_info, Tag::Sequence)?;
    let mut attributes = constructed(&mut signer_info, context(TagNumber::N0))?;
    take(&mut signer_info, Tag::Sequence)?;
    let signature = take(&mut signer_info, Tag::OctetString)?;
    let (mut signing_time, mut message_digest) = (None, None);
    for _ in 0..MAX_ATTRIBUTES {
        if attributes.is_finished() {
            break;
        }
        let mut attribute = constructed(&mut attributes, Tag::Sequence)?;
        let kind = ObjectIdentifier::decode(&mut attribute)?;
        let mut values = constructed(&mut attribute, Tag::Set)?;
        if kind == SIGNING_TIME {
            signing_time = Some(read_time(&mut values)?);
        } else if kind == MESSAGE_DIGEST {
            message_digest = Some(take(&mut values, Tag::OctetString)?);
        }
    }
    match (signing_time, message_digest) {
        (Some(signing_time), Some(message_digest)) => {
            Ok(Found { certificate, signing_time, message_digest, signature })
        }
        _ => Err(der::ErrorKind::Failed.into()),
    }
}

fn take<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> der::Result<&'a [u8]> {
    let any = AnyRef::decode(reader)?;
    der::Tagged::tag(&any).assert_eq(tag)?;
    Ok(any.value())
}

fn constructed<'a>(reader: &mut SliceReader<'a>, tag: Tag) -> der::Result<SliceReader<'a>> {
    SliceReader::new(take(reader, tag)?)
}

fn context(number: TagNumber) -> Tag {
    Tag::ContextSpecific { constructed: true, number }
}

fn read_time(reader: &mut SliceReader<'_>) -> der::Result<Timestamp> {
    let any = AnyRef::decode(reader)?;
    let since_epoch = match der::Tagged::tag(&any) {
        Tag::UtcTime => any.decode_as::<UtcTime>()?.to_unix_duration(),
        _ => any.decode_as::<GeneralizedTime>()?.to_unix_duration(),
    };
    let seconds = i64::try_from(since_epoch.as_secs()).map_err(|_| der::ErrorKind::DateTime)?;
    Timestamp::from_second(seconds).map_err(|_| der::ErrorKind::DateTime.into())
}

/// UTCTime until 2049, GeneralizedTime from then on (RFC 5652 section 11.3).
fn time(time: Timestamp) -> Option<Vec<u8>> {
    let since_epoch = std::time::Duration::from_secs(u64::try_from(time.as_second()).ok()?);
    match UtcTime::from_unix_duration(since_epoch) {
        Ok(time) => time.to_der().ok(),
        Err(_) => GeneralizedTime::from_unix_duration(since_epoch).ok()?.to_der().ok(),
    }
}

/// Without parameters, as RFC 5754 section 2 wants them generated.
fn digest_algorithm(algorithm: Algorithm) -> Vec<u8> {
    let digest = match algorithm {
        Algorithm::EcdsaP256 | Algorithm::Rsa3072 => SHA256,
        Algorithm::EcdsaP384 => SHA384,
        Algorithm::Ed25519 => SHA512,
    };
    tlv(SEQUENCE, &[&oid(&digest)])
}

fn signature_algorithm(algorithm: Algorithm) -> Vec<u8> {
    match algorithm {
        Algorithm::EcdsaP256 => tlv(SEQUENCE, &[&oid(&ECDSA_WITH_SHA256)]),
        Algorithm::EcdsaP384 => tlv(SEQUENCE, &[&oid(&ECDSA_WITH_SHA384)]),
        Algorithm::Ed25519 => tlv(SEQUENCE, &[&oid(&ED25519)]),
        // RSA alone has NULL parameters (RFC 5754 section 3.2).
        Algorithm::Rsa3072 => tlv(SEQUENCE, &[&oid(&SHA256_WITH_RSA), &[0x05, 0x00]]),
    }
}

fn attribute(kind: &ObjectIdentifier, value: &[u8]) -> Vec<u8> {
    tlv(SEQUENCE, &[&oid(kind), &tlv(SET, &[value])])
}

fn oid(oid: &ObjectIdentifier) -> Vec<u8> {
    tlv(0x06, &[oid.as_bytes()])
}

/// One DER element: tag, length in its shortest form, the parts one after the other.
fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let length: usize = parts.iter().map(|part| part.len()).sum();
    let mut out = Vec::with_capacity(length + 6);
    out.push(tag);
    match u8::try_from(length) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = length.to_be_bytes();
            let significant = bytes.iter().position(|byte| *byte != 0).unwrap_or(bytes.len() - 1);
            // A usize has at most 8 significant bytes.
            out.push(0x80 | u8::try_from(bytes.len() - significant).unwrap_or(8));
            out.extend_from_slice(&bytes[significant..]);
        }
    }
    for part in parts {
        out.extend_from_slice(part);
    }
    out
}
