//! What is signed of a message: an ASiCManifest (ETSI EN 319 162-1, annex A.4) that lists its parts with their digests.
//!
//! The manifest is a function of the digests alone. A verifier builds it again from what it received and compares signatures;
//! no XML is ever parsed, so none of the ways in which two readers see different XML can be used against a signature.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::digest::sha512;

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

/// SHA-512 digests of the parts of one message.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MessageDigests {
    /// Of the REST part: request line or status, identifiers and headers.
    pub rest_part: [u8; 64],
    /// Of the body; a message without a body has none, which differs from an empty body.
    pub body: Option<[u8; 64]>,
}

impl MessageDigests {
    /// Digests parts that are in memory. Streams are digested as they pass and put in directly.
    pub fn of(rest_part: &[u8], body: Option<&[u8]>) -> Self {
        Self { rest_part: sha512(rest_part), body: body.map(sha512) }
    }
}

/// The bytes that the signature covers and that an ASiC-E container holds under [`MANIFEST_ENTRY`].
pub fn manifest(digests: &MessageDigests) -> Vec<u8> {
    let message = (MESSAGE_ENTRY, &digests.rest_part);
    write([message].into_iter().chain(digests.body.as_ref().map(|body| (BODY_ENTRY, body))))
}

/// The bytes that the signature of a batch covers. No message's manifest has this form, so neither passes for the other.
pub(crate) fn batch_manifest(root: &[u8; 64]) -> Vec<u8> {
    write([(BATCH_ENTRY, root)])
}

fn write<'a>(entries: impl IntoIterator<Item = (&'a str, &'a [u8; 64])>) -> Vec<u8> {
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

fn reference(out: &mut String, entry: &str, digest: &[u8; 64]) {
    out.push_str("  <asic:DataObjectReference URI=\"");
    out.push_str(entry);
    out.push_str(
        "\">\n    <ds:DigestMethod Algorithm=\"http://www.w3.org/2001/04/xmlenc#sha512\"/>\n    <ds:DigestValue>",
    );
    STANDARD.encode_string(digest, out);
    out.push_str("</ds:DigestValue>\n  </asic:DataObjectReference>\n");
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The bytes are a contract between gateways of different versions: a change here is a new profile.
    #[test]
    fn the_bytes_are_fixed() {
        let text = String::from_utf8(manifest(&MessageDigests::of(b"abc", Some(b"")))).unwrap();
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
    fn parts_cannot_change_places() {
        let manifests = [
            manifest(&MessageDigests::of(b"a", Some(b"b"))),
            manifest(&MessageDigests::of(b"b", Some(b"a"))),
            manifest(&MessageDigests::of(b"a", None)),
            manifest(&MessageDigests::of(b"a", Some(b""))),
            manifest(&MessageDigests::of(b"ab", None)),
        ];
        for (at, one) in manifests.iter().enumerate() {
            assert!(!manifests[..at].contains(one));
        }
    }
}
