//! What is signed of a message: an ASiCManifest (ETSI EN 319 162-1, annex A.4) that lists its parts with their digests.
//!
//! The manifest is a function of the digests alone. A verifier builds it again from what it received and compares signatures;
//! no XML is ever parsed, so none of the ways in which two readers see different XML can be used against a signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::{sha256, sha512};

/// Entry of the REST part in an ASiC-E container. X-Road names it so although it is no XML.
pub const MESSAGE_ENTRY: &str = "message.xml";
/// Entry of the body.
pub const BODY_ENTRY: &str = "attachment1";
/// Entry of the root of a batch's hash tree, in the place of message and body: the bytes that the root is the digest of.
pub const BATCH_ENTRY: &str = "batch";
/// Entry of the manifest.
pub const MANIFEST_ENTRY: &str = "META-INF/ASiCManifest.xml";
/// Entry of the signature over the manifest.
pub const SIGNATURE_ENTRY: &str = "META-INF/signature.p7s";

/// Digests of the parts of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageDigests {
    /// SHA-512 of the REST part: request line or status, identifiers and headers.
    pub rest_part: [u8; 64],
    /// Of the body; a message without a body has none, which differs from an empty body.
    pub body: Option<BodyDigest>,
}

/// The digest of a body. Which one it is goes with the direction, not with anybody's choice: a body is digested once, as it passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BodyDigest {
    /// SHA-512 of a request's: `X-Road-Request-Hash` is made of it.
    Request([u8; 64]),
    /// SHA-256 of an answer's: processors have instructions for it, and most of what is exchanged are answers.
    Answer([u8; 32]),
}

impl BodyDigest {
    /// Its identifier in XML signatures (RFC 9231 section 2.1) and its bytes.
    fn method(&self) -> (&'static str, &[u8]) {
        match self {
            Self::Request(digest) => (SHA512, digest),
            Self::Answer(digest) => (SHA256, digest),
        }
    }
}

impl From<[u8; 64]> for BodyDigest {
    fn from(digest: [u8; 64]) -> Self {
        Self::Request(digest)
    }
}

impl From<[u8; 32]> for BodyDigest {
    fn from(digest: [u8; 32]) -> Self {
        Self::Answer(digest)
    }
}

const SHA512: &str = "http://www.w3.org/2001/04/xmlenc#sha512";
const SHA256: &str = "http://www.w3.org/2001/04/xmlenc#sha256";

impl MessageDigests {
    /// Digests the parts of a request that are in memory. Streams are digested as they pass and put in directly.
    pub fn of_request(rest_part: &[u8], body: Option<&[u8]>) -> Self {
        Self { rest_part: sha512(rest_part), body: body.map(|body| sha512(body).into()) }
    }

    /// The same of an answer.
    pub fn of_answer(rest_part: &[u8], body: Option<&[u8]>) -> Self {
        Self { rest_part: sha512(rest_part), body: body.map(|body| sha256(body).into()) }
    }
}

/// The bytes that the signature covers and that an ASiC-E container holds under [`MANIFEST_ENTRY`].
pub fn manifest(digests: &MessageDigests) -> Vec<u8> {
    let message = (MESSAGE_ENTRY, (SHA512, digests.rest_part.as_slice()));
    write([message].into_iter().chain(digests.body.as_ref().map(|body| (BODY_ENTRY, body.method()))))
}

/// The bytes that the signature of a batch covers. No message's manifest has this form, so neither passes for the other.
pub(crate) fn batch_manifest(root: &[u8; 64]) -> Vec<u8> {
    write([(BATCH_ENTRY, (SHA512, root.as_slice()))])
}

/// A digest's identifier and its bytes.
type Method<'a> = (&'static str, &'a [u8]);

fn write<'a>(entries: impl IntoIterator<Item = (&'a str, Method<'a>)>) -> Vec<u8> {
    let mut out = String::with_capacity(1024);
    out.push_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n");
    out.push_str("<asic:ASiCManifest xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n");
    out.push_str("  <asic:SigReference URI=\"");
    out.push_str(SIGNATURE_ENTRY);
    out.push_str("\" MimeType=\"application/pkcs7-signature\"/>\n");
    entries.into_iter().for_each(|(entry, digest)| reference(&mut out, entry, digest));
    out.push_str("</asic:ASiCManifest>\n");
    out.into_bytes()
}

fn reference(out: &mut String, entry: &str, (method, digest): Method<'_>) {
    out.push_str("  <asic:DataObjectReference URI=\"");
    out.push_str(entry);
    out.push_str("\">\n    <ds:DigestMethod Algorithm=\"");
    out.push_str(method);
    out.push_str("\"/>\n    <ds:DigestValue>");
    STANDARD.encode_string(digest, out);
    out.push_str("</ds:DigestValue>\n  </asic:DataObjectReference>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are a contract between gateways of different versions: a change here is a new profile.
    #[test]
    fn the_bytes_are_fixed() {
        let text = String::from_utf8(manifest(&MessageDigests::of_request(b"abc", Some(b"")))).unwrap();
        assert_eq!(
            text,
            concat!(
                "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n",
                "<asic:ASiCManifest xmlns:asic=\"http://uri.etsi.org/02918/v1.2.1#\" ",
                "xmlns:ds=\"http://www.w3.org/2000/09/xmldsig#\">\n",
                "  <asic:SigReference URI=\"META-INF/signature.p7s\" MimeType=\"application/pkcs7-signature\"/>\n",
                "  <asic:DataObjectReference URI=\"message.xml\">\n",
                "    <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha512\"/>\n",
                "    <ds:DigestValue>3a81oZNherrMQXNJriBBMRLm+k6JqX6iCp7u5ktV05ohkpkqJ0/BqDa6PCOj/uu9RU1EI2Q86A4qmslPpUyknw==",
                "</ds:DigestValue>\n",
                "  </asic:DataObjectReference>\n",
                "  <asic:DataObjectReference URI=\"attachment1\">\n",
                "    <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha512\"/>\n",
                "    <ds:DigestValue>z4PhNX7vuL3xVChQ1m2AB9Yg5AULVxXcg/SpIdNs6c5H0NE8XYXysP+DGNKHfuwvY7kxvUdBeoGlODJ6+SfaPg==",
                "</ds:DigestValue>\n",
                "  </asic:DataObjectReference>\n",
                "</asic:ASiCManifest>\n"
            )
        );
    }

    #[test]
    fn the_body_of_an_answer_has_a_digest_of_its_own() {
        let of = |digests| String::from_utf8(manifest(&digests)).unwrap();
        let (request, answer) =
            (of(MessageDigests::of_request(b"abc", Some(b""))), of(MessageDigests::of_answer(b"abc", Some(b""))));
        let (rest, body) = request.split_once("  <asic:DataObjectReference URI=\"attachment1\">").unwrap();
        assert!(body.contains("xmlenc#sha512"));
        let expected = concat!(
            "  <asic:DataObjectReference URI=\"attachment1\">\n",
            "    <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha256\"/>\n",
            "    <ds:DigestValue>47DEQpj8HBSa+/TImW+5JCeuQeRkm5NMpJWZG3hSuFU=</ds:DigestValue>\n",
            "  </asic:DataObjectReference>\n",
            "</asic:ASiCManifest>\n"
        );
        assert_eq!(answer, format!("{rest}{expected}"));
    }

    #[test]
    fn parts_cannot_change_places() {
        let manifests = [
            manifest(&MessageDigests::of_request(b"a", Some(b"b"))),
            manifest(&MessageDigests::of_request(b"b", Some(b"a"))),
            manifest(&MessageDigests::of_request(b"a", None)),
            manifest(&MessageDigests::of_request(b"a", Some(b""))),
            manifest(&MessageDigests::of_request(b"ab", None)),
            manifest(&MessageDigests::of_answer(b"a", Some(b"b"))),
        ];
        for (at, one) in manifests.iter().enumerate() {
            assert!(!manifests[..at].contains(one));
        }
    }
}
