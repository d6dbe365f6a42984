//! The one entry of a server's identity Secret: every leaf of the server with its key, in one write.

use std::fmt;

use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

use crate::identifier::{MemberId, ServerId};

/// The name of the Secret's entry, and of the file that a gateway reads.
pub const IDENTITY_ENTRY: &str = "identity.json";

/// All leaves of one security server. One entry, so that no reader ever sees a leaf with another leaf's key.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Identity {
    /// [`crate::document::FORMAT`] of the writer.
    pub format: u32,
    /// The server.
    pub server: ServerId,
    /// The highest issue number among the leaves.
    pub issue_number: u64,
    /// The TLS leaf.
    pub authentication: Credential,
    /// A signing leaf for each member served, ordered by member.
    pub signing: Vec<SigningIdentity>,
}

/// The leaf with which one member's messages are signed on this server.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SigningIdentity {
    /// The member.
    pub member: MemberId,
    /// Its leaf and key.
    #[serde(flatten)]
    pub credential: Credential,
}

/// A leaf and its private key.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Credential {
    /// The issue number that the leaf carries.
    pub issue_number: u64,
    /// The generation of the authority that issued it.
    pub generation: u64,
    /// The leaf, then intermediates if any, in PEM.
    pub certificate: String,
    /// The private key, PKCS#8 in PEM.
    pub key: SecretText,
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credential")
            .field("issue_number", &self.issue_number)
            .field("generation", &self.generation)
            .finish_non_exhaustive()
    }
}

/// Text that is wiped when dropped and never printed.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(transparent)]
pub struct SecretText(String);

impl Drop for SecretText {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl SecretText {
    /// Takes the text over.
    #[must_use]
    pub fn new(text: String) -> Self {
        Self(text)
    }

    /// The text itself. Let it go nowhere but into a key parser or a Secret.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SecretText {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SecretText(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_never_printed() {
        let key = SecretText::new("-----BEGIN PRIVATE KEY-----MC4".into());
        let credential = Credential { issue_number: 1, generation: 1, certificate: "C".into(), key: key.clone() };
        for text in [format!("{credential:?}"), format!("{credential:#?}"), format!("{key:?}")] {
            assert!(!text.contains("PRIVATE") && !text.contains("MC4"), "{text}");
        }
    }
}
