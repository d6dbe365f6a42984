//! Names of child objects: `<owner>-<role>`, never longer than the API server takes.

use saatkond_pki::digest::sha256;

/// The longest DNS label: Services, and values of labels.
pub const MAX_LABEL: usize = 63;
/// The longest name of most objects (RFC 1123 subdomain).
pub const MAX_NAME: usize = 253;

/// Field manager of the instance configuration in a start copy.
pub const INSTANCE_COPY_MANAGER: &str = "saatkond.io/security-server-instance-copy";
/// Field manager of the server configuration in a start copy.
pub const SERVER_COPY_MANAGER: &str = "saatkond.io/security-server-server-copy";

/// On a start copy: version of the instance configuration in it.
pub const INSTANCE_VERSION: &str = "saatkond.io/instance-version";
/// On a start copy: version of the server configuration in it.
pub const SERVER_VERSION: &str = "saatkond.io/server-version";
/// On a start copy: when the instance configuration in it was written (RFC 3339).
pub const COPIED_AT: &str = "saatkond.io/copied-at";

/// On a ConfigMap with a document: until when the document is accepted (RFC 3339).
pub const EXPIRES_AT: &str = "saatkond.io/expires-at";

/// SHA-256 in lower-case hex.
#[must_use]
pub fn hash_hex(bytes: &[u8]) -> String {
    hex::encode(sha256(bytes))
}

/// `owner` and `suffix` as one name of at most `max` characters. A name that would be longer is cut and gets eight
/// hexadecimal digits of the hash of the whole, so that two long owners with one beginning do not meet.
#[must_use]
pub fn bounded(owner: &str, suffix: &str, max: usize) -> String {
    let whole = format!("{owner}{suffix}");
    if whole.len() <= max {
        return whole;
    }
    let hash = &hash_hex(whole.as_bytes())[..8];
    // Names are ASCII where they reach this; a boundary is searched all the same, so that no input can panic.
    let room = max.saturating_sub(suffix.len() + hash.len() + 1);
    let end = (0..=room.min(owner.len())).rev().find(|&at| owner.is_char_boundary(at)).unwrap_or(0);
    let stem = owner[..end].trim_end_matches(['-', '.']);
    format!("{stem}-{hash}{suffix}")
}

/// The ConfigMap with a server's canonical configuration, in the operator's namespace.
///
/// A namespace has no dot, so the first dot separates it from the server's name: no two servers share one.
#[must_use]
pub fn server_configuration(namespace: &str, server: &str) -> String {
    bounded(&format!("{namespace}.{server}"), "-server-configuration", MAX_NAME)
}

/// The Secret with a server's certificates and keys.
#[must_use]
pub fn identity(server: &str) -> String {
    bounded(server, "-identity", MAX_NAME)
}

/// The ConfigMap with a server's start copy.
#[must_use]
pub fn start_copy(server: &str) -> String {
    bounded(server, "-configuration", MAX_NAME)
}

/// Field manager of one anchor's entry in the Secret `saatkond-link-identity`.
#[must_use]
pub fn link_identity_manager(anchor: &str) -> String {
    bounded("saatkond.io/link-identity-", anchor, 128)
}
