//! Names of child objects: `<owner>-<role>`, never longer than the API server takes.

use saatkond_pki::digest::sha256;

/// The longest DNS label: Services, and values of labels.
pub const MAX_LABEL: usize = 63;
/// The longest name of most objects (RFC 1123 subdomain).
pub const MAX_NAME: usize = 253;

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
    bounded(&format!("saatkond.io/link-identity-{anchor}"), "", 128)
}

/// The Service of a server, under which its information systems call it.
#[must_use]
pub fn service(server: &str) -> String {
    bounded(server, "", MAX_LABEL)
}

/// A name as the value of a label.
#[must_use]
pub fn label_value(name: &str) -> String {
    bounded(name, "", MAX_LABEL)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn short_names_stay_as_they_are() {
        assert_eq!(identity("ss1"), "ss1-identity");
        assert_eq!(start_copy("ss1"), "ss1-configuration");
        assert_eq!(server_configuration("register", "ss1"), "register.ss1-server-configuration");
        assert_eq!(bounded(&"x".repeat(63), "", 63), "x".repeat(63), "exactly at the bound");
        assert_eq!(bounded(&"x".repeat(64), "", 63).len(), 63, "one above");
    }

    #[test]
    fn managers_of_two_anchors_differ() {
        assert_ne!(link_identity_manager("ee"), link_identity_manager("fi"));
        let (a, b) = (format!("{}a", "x".repeat(252)), format!("{}b", "x".repeat(252)));
        assert_ne!(link_identity_manager(&a), link_identity_manager(&b));
        assert!(link_identity_manager(&a).len() <= 128);
    }

    proptest! {
        #[test]
        fn names_fit_and_are_names(owner in r"[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?){0,4}", max in 30_usize..253) {
            for suffix in ["", "-identity", "-configuration"] {
                let name = bounded(&owner, suffix, max);
                prop_assert!(name.len() <= max, "{name}");
                prop_assert!(name.ends_with(suffix));
                prop_assert!(name.starts_with(|c: char| c.is_ascii_alphanumeric()));
                prop_assert!(name.ends_with(|c: char| c.is_ascii_alphanumeric()));
                prop_assert!(!name.contains(".-"), "a label must not begin with a hyphen: {name}");
                prop_assert_eq!(&name, &bounded(&owner, suffix, max));
            }
        }

        #[test]
        fn owners_with_one_beginning_do_not_meet(stem in "[a-z]{60,120}", a in "[a-z]{1,9}", b in "[a-z]{1,9}") {
            prop_assume!(a != b);
            prop_assert_ne!(
                bounded(&format!("{stem}{a}"), "-identity", 63),
                bounded(&format!("{stem}{b}"), "-identity", 63)
            );
        }

        #[test]
        fn servers_of_two_namespaces_do_not_meet(
            a in "[a-z0-9-]{1,63}", b in "[a-z0-9-]{1,63}", c in "[a-z0-9-]{1,63}", d in "[a-z0-9-]{1,63}",
        ) {
            prop_assume!((&a, &b) != (&c, &d));
            prop_assert_ne!(server_configuration(&a, &b), server_configuration(&c, &d));
        }
    }
}
