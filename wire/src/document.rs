//! Signed documents: the form in which configurations travel and rest.
//!
//! A document is a JSON Web Signature in flattened JSON form (RFC 7515 7.2.2) with the payload left unencoded (RFC 7797),
//! signed with Ed25519 (RFC 8037), and the whole compressed with gzip (RFC 1952). Unencoded, because Base64 would undo
//! most of the compression: at the size of a country the instance configuration is read by every gateway at every change.

use std::io::{Read, Write};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use flate2::Compression;
use flate2::read::GzDecoder;
use flate2::write::GzEncoder;
use saatkond_pki::configuration_key::{ConfigurationKey, ConfigurationPublicKey};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The largest document accepted, in bytes after decompression. A country of Estonia's size takes about 1 MiB.
pub const MAX_DOCUMENT_BYTES: u64 = 64 << 20;

/// The format that this version writes and the highest that it reads.
pub const FORMAT: u32 = 1;

/// What a document is about. The type is part of what is signed, so that one kind never passes for another.
pub trait Payload: Serialize + DeserializeOwned {
    /// The `typ` of the signed header.
    const TYPE: &'static str;
}

#[derive(Debug, Serialize, Deserialize, PartialEq, Eq)]
#[serde(deny_unknown_fields)]
struct Header {
    alg: String,
    b64: bool,
    crit: Vec<String>,
    kid: String,
    typ: String,
}

#[derive(Debug, Serialize, Deserialize)]
struct Flattened {
    protected: String,
    payload: String,
    signature: String,
}

/// Why bytes are not a document that may be used.
#[derive(Debug, thiserror::Error)]
pub enum DocumentError {
    /// Not gzip, or larger than [`MAX_DOCUMENT_BYTES`] when unpacked.
    #[error("failed to unpack the document")]
    Unpack(#[source] std::io::Error),
    /// Unpacked, it is larger than [`MAX_DOCUMENT_BYTES`].
    #[error("the document is larger than {MAX_DOCUMENT_BYTES} bytes when unpacked")]
    TooLarge,
    /// Not a flattened JSON Web Signature of the one form that is used here.
    #[error("the document is malformed: {0}")]
    Malformed(&'static str),
    /// The header names another kind of document.
    #[error("the document is of type {found}, expected {expected}")]
    Type {
        /// The type found.
        found: String,
        /// The type expected.
        expected: &'static str,
    },
    /// No trusted key has the key id that the document names.
    #[error("the document is signed by key {kid}, which is not trusted here")]
    UnknownKey {
        /// The key id found.
        kid: String,
    },
    /// The key is known, the signature is not its.
    #[error("the signature of the document does not verify with key {kid}")]
    Signature {
        /// The key id.
        kid: String,
    },
    /// The payload is not what its type says.
    #[error("failed to read the payload of the document")]
    Payload(#[source] serde_json::Error),
}

/// A document whose signature has been verified with a trusted key. There is no other way to make one than
/// [`open`] or [`sign`], so holding one is the proof.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Verified<P> {
    /// What it says.
    pub payload: P,
    /// The bytes as they travel and rest.
    pub packed: Vec<u8>,
    /// The id of the key that signed it.
    pub key_id: String,
}

/// Signs `payload` and packs it. The same payload and key give the same bytes.
pub fn sign<P: Payload + Clone>(payload: &P, key: &ConfigurationKey) -> Result<Verified<P>, DocumentError> {
    let key_id = key.public().key_id();
    let header =
        Header { alg: "EdDSA".into(), b64: false, crit: vec!["b64".into()], kid: key_id.clone(), typ: P::TYPE.into() };
    let protected = URL_SAFE_NO_PAD.encode(serde_json::to_vec(&header).map_err(DocumentError::Payload)?);
    let text = serde_json::to_string(payload).map_err(DocumentError::Payload)?;
    let signature = URL_SAFE_NO_PAD.encode(key.sign(&signing_input(&protected, &text)));
    let flattened = Flattened { protected, payload: text, signature };
    let plain = serde_json::to_vec(&flattened).map_err(DocumentError::Payload)?;
    // `GzEncoder::new` writes no time and no name: equal input gives equal bytes.
    let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
    encoder.write_all(&plain).map_err(DocumentError::Unpack)?;
    let packed = encoder.finish().map_err(DocumentError::Unpack)?;
    Ok(Verified { payload: payload.clone(), packed, key_id })
}

/// Unpacks a document, verifies it with one of `trusted`, and reads its payload.
///
/// Expiry and versions are the caller's to judge: this knows no time and no past.
pub fn open<P: Payload>(packed: &[u8], trusted: &[ConfigurationPublicKey]) -> Result<Verified<P>, DocumentError> {
    let mut plain = Vec::new();
    GzDecoder::new(packed).take(MAX_DOCUMENT_BYTES + 1).read_to_end(&mut plain).map_err(DocumentError::Unpack)?;
    if plain.len() as u64 > MAX_DOCUMENT_BYTES {
        return Err(DocumentError::TooLarge);
    }
    let flattened: Flattened =
        serde_json::from_slice(&plain).map_err(|_| DocumentError::Malformed("not a flattened JWS"))?;
    let header = URL_SAFE_NO_PAD
        .decode(&flattened.protected)
        .map_err(|_| DocumentError::Malformed("the protected header is not Base64url"))?;
    let header: Header =
        serde_json::from_slice(&header).map_err(|_| DocumentError::Malformed("unknown protected header"))?;
    if header.alg != "EdDSA" || header.b64 || header.crit != ["b64"] {
        return Err(DocumentError::Malformed("not EdDSA over an unencoded payload"));
    }
    if header.typ != P::TYPE {
        return Err(DocumentError::Type { found: header.typ, expected: P::TYPE });
    }
    let key = trusted
        .iter()
        .find(|key| key.key_id() == header.kid)
        .ok_or_else(|| DocumentError::UnknownKey { kid: header.kid.clone() })?;
    let signature = URL_SAFE_NO_PAD
        .decode(&flattened.signature)
        .map_err(|_| DocumentError::Malformed("the signature is not Base64url"))?;
    key.verify(&signing_input(&flattened.protected, &flattened.payload), &signature)
        .map_err(|_| DocumentError::Signature { kid: header.kid.clone() })?;
    let payload = serde_json::from_str(&flattened.payload).map_err(DocumentError::Payload)?;
    Ok(Verified { payload, packed: packed.to_vec(), key_id: header.kid })
}

/// RFC 7797 3: the encoded header, a full stop, the payload as it is.
fn signing_input(protected: &str, payload: &str) -> Vec<u8> {
    [protected.as_bytes(), b".", payload.as_bytes()].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Note {
        text: String,
    }
    impl Payload for Note {
        const TYPE: &'static str = "note";
    }
    #[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
    struct Other {
        text: String,
    }
    impl Payload for Other {
        const TYPE: &'static str = "other";
    }

    fn note() -> Note {
        Note { text: "Tere, \"saatkond\" \\ ümber\n".into() }
    }

    fn unpack(packed: &[u8]) -> String {
        let mut text = String::new();
        GzDecoder::new(packed).read_to_string(&mut text).unwrap();
        text
    }

    fn pack(text: &str) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
        encoder.write_all(text.as_bytes()).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn what_was_signed_opens_and_equal_input_gives_equal_bytes() {
        let key = ConfigurationKey::generate().unwrap();
        let signed = sign(&note(), &key).unwrap();
        assert_eq!(signed, sign(&note(), &key).unwrap());
        assert_eq!(open::<Note>(&signed.packed, &[key.public()]).unwrap(), signed);
    }

    #[test]
    fn another_key_another_type_and_a_changed_byte_are_refused() {
        let (key, other) = (ConfigurationKey::generate().unwrap(), ConfigurationKey::generate().unwrap());
        let signed = sign(&note(), &key).unwrap();
        assert!(matches!(open::<Note>(&signed.packed, &[other.public()]), Err(DocumentError::UnknownKey { .. })));
        assert!(matches!(open::<Other>(&signed.packed, &[key.public()]), Err(DocumentError::Type { .. })));
        let text = unpack(&signed.packed);
        let changed = pack(&text.replace("Tere", "Here"));
        assert!(matches!(open::<Note>(&changed, &[key.public()]), Err(DocumentError::Signature { .. })));
        assert!(matches!(open::<Note>(text.as_bytes(), &[key.public()]), Err(DocumentError::Unpack(_))));
    }

    #[test]
    fn a_small_file_that_unpacks_to_a_huge_one_is_refused_before_it_is_read() {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
        let chunk = vec![b' '; 1 << 20];
        for _ in 0..=(MAX_DOCUMENT_BYTES >> 20) {
            encoder.write_all(&chunk).unwrap();
        }
        let bomb = encoder.finish().unwrap();
        assert!(bomb.len() < 1 << 20);
        assert!(matches!(open::<Note>(&bomb, &[]), Err(DocumentError::TooLarge)));
    }
}
