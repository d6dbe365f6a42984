//! This server's own leaves, ready to use: read from the mounted entry and checked as a whole.

use std::collections::HashMap;
use std::sync::Arc;

use rustls_pki_types::CertificateDer;
use saatkond_pki::certificate::{CertificateError, CertificateFacts};
use saatkond_pki::evidence::{EvidenceError, SigningCredential};
use saatkond_pki::key::{KeyError, KeyPair};
use saatkond_pki::pem::{self, PemError};
use saatkond_wire::document::FORMAT;
use saatkond_wire::identifier::{MemberId, ServerId};
use saatkond_wire::identity::{Credential, Identity};
use saatkond_wire::leaf_name::LeafName;

/// A leaf with its key, which belong together.
#[derive(Debug)]
pub struct OwnLeaf {
    /// The leaf, then intermediates.
    pub chain: Vec<CertificateDer<'static>>,
    /// Its key.
    pub key: KeyPair,
    /// What the leaf says.
    pub facts: CertificateFacts,
    /// The generation of the authority that issued it.
    pub generation: u64,
}

/// All leaves of this server.
#[derive(Debug)]
pub struct OwnIdentity {
    /// The server.
    pub server: ServerId,
    /// The highest issue number among the leaves.
    pub issue_number: u64,
    /// The TLS leaf.
    pub authentication: OwnLeaf,
    /// The signing leaf of each member served.
    pub signing: HashMap<MemberId, Arc<SigningCredential>>,
}

/// Why an identity cannot be used. Names no content of it.
#[derive(Debug, thiserror::Error)]
pub enum IdentityError {
    /// Not the JSON that it should be. The parser's text is not shown: it may quote the file.
    #[error("the identity is not readable")]
    Json,
    /// A format that this version does not know.
    #[error("the identity is of format {0}, which this version does not know")]
    Format(u64),
    /// A certificate is not PEM.
    #[error("the {0} certificate is not PEM")]
    Pem(&'static str, #[source] PemError),
    /// No certificate, or something that is none.
    #[error("the {0} entry holds no certificate")]
    NoCertificate(&'static str),
    /// A certificate cannot be read.
    #[error("the {0} certificate cannot be read")]
    Certificate(&'static str, #[source] CertificateError),
    /// A key cannot be read.
    #[error("the {0} key cannot be read")]
    Key(&'static str, #[source] KeyError),
    /// A key is of another leaf.
    #[error("the {0} key does not belong to its certificate")]
    Torn(&'static str),
    /// A signing leaf cannot sign.
    #[error("the signing entry cannot be used")]
    Signing(#[source] EvidenceError),
    /// A leaf speaks for somebody else.
    #[error("the {0} certificate is in another name")]
    Name(&'static str),
}

impl OwnIdentity {
    /// The signing leaf of the member that owns this server.
    #[must_use]
    pub fn owners_signer(&self) -> Option<&SigningCredential> {
        self.signing.get(&self.server.owner).map(|signer| &**signer)
    }

    /// Reads and checks the entry of the identity Secret.
    pub fn read(json: &[u8]) -> Result<Self, IdentityError> {
        let identity: Identity = serde_json::from_slice(json).map_err(|_| IdentityError::Json)?;
        if identity.format > FORMAT {
            return Err(IdentityError::Format(identity.format.into()));
        }
        let (authentication, name) = leaf("authentication", &identity.authentication)?;
        let expected = |issue| LeafName::Authentication { server: identity.server.clone(), issue };
        if name != expected(identity.authentication.issue_number) {
            return Err(IdentityError::Name("authentication"));
        }
        let mut signing = HashMap::new();
        for entry in &identity.signing {
            let (leaf, name) = leaf("signing", &entry.credential)?;
            let expected = LeafName::Signing {
                member: entry.member.clone(),
                server: identity.server.clone(),
                issue: entry.credential.issue_number,
            };
            let first = leaf.chain.first().map(|der| der.to_vec()).unwrap_or_default();
            let credential = SigningCredential::new(first, leaf.key).map_err(IdentityError::Signing)?;
            if name != expected || signing.insert(entry.member.clone(), Arc::new(credential)).is_some() {
                return Err(IdentityError::Name("signing"));
            }
        }
        Ok(Self { server: identity.server, issue_number: identity.issue_number, authentication, signing })
    }
}

fn leaf(what: &'static str, credential: &Credential) -> Result<(OwnLeaf, LeafName), IdentityError> {
    let blocks = pem::blocks(&credential.certificate).map_err(|error| IdentityError::Pem(what, error))?;
    let chain: Vec<_> = blocks
        .into_iter()
        .filter(|block| block.label == pem::CERTIFICATE)
        .map(|block| CertificateDer::from(block.content.to_vec()))
        .collect();
    let first = chain.first().ok_or(IdentityError::NoCertificate(what))?;
    let facts = CertificateFacts::parse(first).map_err(|error| IdentityError::Certificate(what, error))?;
    let key = KeyPair::from_pkcs8_pem(credential.key.expose()).map_err(|error| IdentityError::Key(what, error))?;
    if key.spki_sha256() != facts.spki_sha256 {
        return Err(IdentityError::Torn(what));
    }
    let name = name_of(&facts).ok_or(IdentityError::Name(what))?;
    Ok((OwnLeaf { chain, key, facts, generation: credential.generation }, name))
}

/// The one name of a leaf of the federation.
#[must_use]
pub fn name_of(facts: &CertificateFacts) -> Option<LeafName> {
    match facts.uris.as_slice() {
        [uri] => uri.parse().ok(),
        _ => None,
    }
}
