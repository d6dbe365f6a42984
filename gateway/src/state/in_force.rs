//! What a gateway serves with at one moment: both documents, the identity and the TLS made of them, indexed for the questions
//! that each request asks. Immutable; a change makes a new one.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use jiff::{SignedDuration, Timestamp};
use rustls_pki_types::CertificateDer;
use saatkond_pki::authority::AuthorityCertificate;
use saatkond_pki::bundle::Bundle;
use saatkond_pki::certificate::{CertificateFacts, CertificateHash};
use saatkond_pki::evidence::{Memory, SigningCredential};
use saatkond_pki::verify::{Usage, VerifyError, verify_leaf};
use saatkond_wire::configuration::{
    ErrorProfile, InstanceConfiguration, Limits, ServerConfiguration, ServerEntry, ServiceEntry,
};
use saatkond_wire::document::Verified;
use saatkond_wire::identifier::{ClientId, MemberId, ServerId};
use saatkond_wire::leaf_name::LeafName;

use super::identity::{OwnIdentity, name_of};
use super::issued::Issued;
use crate::access::rights::{Groups, Rights};
use crate::tls::Tls;

/// How long a chain that was verified is taken for good. Its dates are compared at each use; the rest can only change with the
/// bundle, and then this whole object changes.
const RECHECK_AFTER: SignedDuration = SignedDuration::from_secs(60);
/// Most chains that are remembered.
const MAX_CHAINS: usize = 4096;
/// Most signatures of batches that are remembered: the messages of one arrive within moments of each other.
const MAX_BATCHES: usize = 1024;

/// The configuration and identity in force.
pub struct InForce {
    /// The instance configuration.
    pub instance: Arc<Verified<InstanceConfiguration>>,
    /// The server configuration.
    pub server: Arc<Verified<ServerConfiguration>>,
    /// This server's leaves.
    pub identity: Arc<OwnIdentity>,
    /// The authorities in force.
    pub bundle: Arc<Bundle>,
    /// TLS made of the bundle and the leaf.
    pub tls: Arc<Tls>,
    /// Why the identity cannot be used with these documents, if it cannot.
    pub identity_problem: Option<String>,
    /// In an emergency: the leaves of compromised authorities that were really issued.
    pub issued: Option<Arc<Issued>>,
    /// Global groups.
    pub global_groups: Groups,
    /// Key identifiers and generations of the bundle's authorities.
    authorities: Vec<(Vec<u8>, u64)>,
    registered: HashSet<ClientId>,
    servers: HashMap<ServerId, usize>,
    providers: HashMap<ClientId, Vec<usize>>,
    own_clients: HashMap<ClientId, OwnClient>,
    chains: Mutex<HashMap<CertificateHash, Arc<Chain>>>,
    /// Batches whose signature has been found good, so that it is checked once and not for each of their messages.
    pub batches: KnownBatches,
}

/// See [`Memory`]. Bounded; goes with the configuration that it was filled under.
#[derive(Debug, Default)]
pub struct KnownBatches(Mutex<HashSet<[u8; 32]>>);

/// A client of this server with its services.
pub struct OwnClient {
    services: HashMap<String, OwnService>,
    /// Its local groups.
    pub local_groups: Groups,
}

/// A service behind this server.
pub struct OwnService {
    /// As declared.
    pub entry: ServiceEntry,
    /// Who may call it.
    pub rights: Rights,
}

/// A leaf that chains to the bundle in force.
pub struct Chain {
    /// What it says.
    pub facts: CertificateFacts,
    /// For whom it speaks.
    pub name: LeafName,
    verified_at: Timestamp,
}

/// Why a peer's or signer's leaf is refused.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LeafProblem {
    /// Its chain, time or purpose.
    #[error("{0}")]
    Chain(#[from] VerifyError),
    /// It carries no name of the federation.
    #[error("the certificate carries no name of this federation")]
    NoName,
    /// It speaks for another kind of party.
    #[error("the certificate is in the name of another kind of party")]
    OtherUse,
    /// Its server is not registered in the configuration.
    #[error("the security server {0} is not registered")]
    Unregistered(Box<ServerId>),
    /// It was revoked: somebody else may have its key.
    #[error("the certificate with issue number {issue} of the security server {server} is revoked")]
    Revoked {
        /// Whose it is.
        server: Box<ServerId>,
        /// Its number.
        issue: u64,
    },
    /// The authority that it chains to is compromised, and the operator has not issued it.
    #[error("the certificate {serial} was not issued by the operator, and its authority is compromised")]
    NotIssued {
        /// Its serial number.
        serial: String,
    },
    /// Its server does not serve the client in question.
    #[error("the security server {0} does not serve {1}")]
    NotServing(Box<ServerId>, Box<ClientId>),
}

impl LeafProblem {
    /// Whether it is the certificate that is not to be trusted, and not what it is used for.
    #[must_use]
    pub fn is_of_certificate(&self) -> bool {
        matches!(self, Self::Chain(_) | Self::Revoked { .. } | Self::NotIssued { .. })
    }

    /// The metric label.
    #[must_use]
    pub fn label(&self) -> &'static str {
        match self {
            Self::Chain(error) => chain_label(error),
            Self::NoName => "no_name",
            Self::OtherUse => "other_use",
            Self::Unregistered(_) => "unregistered",
            Self::Revoked { .. } => "revoked",
            Self::NotIssued { .. } => NOT_ISSUED,
            Self::NotServing(..) => "not_serving",
        }
    }
}

/// The metric label of a leaf that somebody has minted with the key of a compromised authority.
pub const NOT_ISSUED: &str = "not_issued";

/// The metric label of a refused chain.
#[must_use]
pub fn chain_label(error: &VerifyError) -> &'static str {
    match error {
        VerifyError::Malformed(_) => "malformed",
        VerifyError::Expired { .. } => "expired",
        VerifyError::NotYetValid { .. } => "not_yet_valid",
        VerifyError::WrongPurpose { .. } => "wrong_purpose",
        VerifyError::SelfSigned { .. } => "self_signed",
        VerifyError::Authority { .. } => "authority",
        VerifyError::UnknownIssuer { .. } => "unknown_issuer",
        VerifyError::AuthorityNotValid { .. } => "authority_not_valid",
        VerifyError::TooManyIntermediates { .. } => "too_many_intermediates",
        VerifyError::Refused { .. } => "refused",
    }
}

impl InForce {
    /// Indexes what was judged fit to use.
    #[must_use]
    pub fn new(
        instance: Arc<Verified<InstanceConfiguration>>,
        server: Arc<Verified<ServerConfiguration>>,
        identity: Arc<OwnIdentity>,
        bundle: Arc<Bundle>,
        tls: Arc<Tls>,
        identity_problem: Option<String>,
        issued: Option<Arc<Issued>>,
    ) -> Self {
        let document = &instance.payload;
        let member_id = |class: &str, code: &str| MemberId {
            instance: document.instance.clone(),
            member_class: class.to_owned(),
            member_code: code.to_owned(),
        };
        let mut registered = HashSet::new();
        for member in &document.members {
            let id = member_id(&member.member_class, &member.member_code);
            registered.extend(member.subsystems.iter().map(|subsystem| id.subsystem(&subsystem.code)));
            registered.insert(id.client());
        }
        let authorities = document.bundle.iter().filter_map(|entry| {
            let authority = AuthorityCertificate::from_pem(&entry.certificate).ok()?;
            Some((authority.facts().subject_key_id.clone()?, entry.generation))
        });
        let authorities = authorities.collect();
        let mut servers = HashMap::new();
        let mut providers: HashMap<ClientId, Vec<usize>> = HashMap::new();
        for (index, entry) in document.servers.iter().enumerate() {
            let id = entry.id(&document.instance);
            for served in &entry.clients {
                let member = member_id(&served.member_class, &served.member_code);
                let client = ClientId { member, subsystem: served.subsystem.clone() };
                providers.entry(client).or_default().push(index);
            }
            let owner = providers.entry(id.owner.client()).or_default();
            if owner.last() != Some(&index) {
                owner.push(index);
            }
            servers.insert(id, index);
        }
        let own_clients = server
            .payload
            .clients
            .iter()
            .map(|client| {
                let services = client.services.iter().map(|entry| {
                    (entry.code.clone(), OwnService { rights: Rights::new(&entry.access), entry: entry.clone() })
                });
                let own = OwnClient { services: services.collect(), local_groups: Groups::new(&client.local_groups) };
                (client.id.clone(), own)
            })
            .collect();
        let global_groups = Groups::new(&document.global_groups);
        Self {
            instance,
            server,
            identity,
            bundle,
            tls,
            identity_problem,
            global_groups,
            authorities,
            registered,
            servers,
            providers,
            own_clients,
            issued,
            chains: Mutex::default(),
            batches: KnownBatches::default(),
        }
    }

    /// The instance.
    #[must_use]
    pub fn instance_code(&self) -> &str {
        &self.instance.payload.instance
    }

    /// How own errors are worded.
    #[must_use]
    pub fn profile(&self) -> ErrorProfile {
        self.server.payload.error_profile
    }

    /// The bounds of this server.
    #[must_use]
    pub fn limits(&self) -> &Limits {
        &self.server.payload.limits
    }

    /// Whether one of the documents has expired.
    #[must_use]
    pub fn is_outdated(&self, now: Timestamp) -> bool {
        now >= self.expires_at()
    }

    /// When the first of both documents expires.
    #[must_use]
    pub fn expires_at(&self) -> Timestamp {
        self.instance.payload.expires_at.min(self.server.payload.expires_at)
    }

    /// A client that is registered and served here, with its services.
    #[must_use]
    pub fn own_client(&self, client: &ClientId) -> Option<&OwnClient> {
        let is_served = self.server_entry(&self.identity.server).is_some_and(|entry| entry.serves(client));
        self.own_clients.get(client).filter(|_| is_served && self.registered.contains(client))
    }

    /// The servers that serve a registered client.
    pub fn providers(&self, client: &ClientId) -> impl Iterator<Item = &ServerEntry> {
        let indexes = self.registered.contains(client).then(|| self.providers.get(client)).flatten();
        indexes.into_iter().flatten().map(|index| &self.instance.payload.servers[*index])
    }

    /// A registered server.
    #[must_use]
    pub fn server_entry(&self, id: &ServerId) -> Option<&ServerEntry> {
        self.servers.get(id).map(|index| &self.instance.payload.servers[*index])
    }

    /// The key that signs in a member's name here, if it is usable now.
    #[must_use]
    pub fn signer(&self, member: &MemberId, now: Timestamp) -> Option<&Arc<SigningCredential>> {
        self.identity.signing.get(member).filter(|credential| credential.facts().is_valid_at(now))
    }

    /// Why this server's own TLS leaf cannot be used now.
    #[must_use]
    pub fn authentication_problem(&self, now: Timestamp) -> Option<String> {
        if let Some(problem) = &self.identity_problem {
            return Some(problem.clone());
        }
        let facts = &self.identity.authentication.facts;
        (!facts.is_valid_at(now)).then(|| format!("the authentication certificate {} is not valid now", facts.serial))
    }

    /// Checks that a peer's leaf speaks for a registered server that serves `client`: at each request, also on old connections.
    pub fn peer(
        &self,
        chain: &[CertificateDer<'_>],
        client: &ClientId,
        now: Timestamp,
    ) -> Result<ServerId, LeafProblem> {
        let (leaf, intermediates) = chain.split_first().ok_or(LeafProblem::NoName)?;
        let chain = self.chain(leaf, intermediates, Usage::Authentication, now)?;
        let LeafName::Authentication { server, issue } = &chain.name else { return Err(LeafProblem::OtherUse) };
        let entry = self.accepting(server, *issue)?;
        if !entry.serves(client) || !self.registered.contains(client) {
            return Err(LeafProblem::NotServing(Box::new(server.clone()), Box::new(client.clone())));
        }
        Ok(server.clone())
    }

    /// Checks that a signing leaf speaks for `client`'s member, on a registered server that serves `client`.
    pub fn signing_leaf(&self, der: &[u8], client: &ClientId, now: Timestamp) -> Result<Arc<Chain>, LeafProblem> {
        let chain = self.chain(der, &[], Usage::Signing, now)?;
        let LeafName::Signing { member, server, issue } = &chain.name else { return Err(LeafProblem::OtherUse) };
        if *member != client.member {
            return Err(LeafProblem::OtherUse);
        }
        let entry = self.accepting(server, *issue)?;
        if !entry.serves(client) {
            return Err(LeafProblem::NotServing(Box::new(server.clone()), Box::new(client.clone())));
        }
        Ok(chain)
    }

    /// The entry of a server that is registered, for a leaf of its that is not revoked.
    fn accepting(&self, server: &ServerId, issue: u64) -> Result<&ServerEntry, LeafProblem> {
        let entry = self.server_entry(server).ok_or_else(|| LeafProblem::Unregistered(Box::new(server.clone())))?;
        if issue < entry.lowest_issue_number {
            return Err(LeafProblem::Revoked { server: Box::new(server.clone()), issue });
        }
        Ok(entry)
    }

    /// The generation of the authority that issued a peer's leaf; 0 where it is none of the bundle's.
    #[must_use]
    pub fn generation_of(&self, leaf: Option<&CertificateDer<'_>>) -> u64 {
        let facts = leaf.and_then(|leaf| CertificateFacts::parse(leaf).ok());
        let Some(issuer) = facts.and_then(|facts| facts.authority_key_id) else { return 0 };
        self.authorities.iter().find(|(key, _)| *key == issuer).map_or(0, |(_, generation)| *generation)
    }

    fn chain(
        &self,
        der: &[u8],
        intermediates: &[CertificateDer<'_>],
        usage: Usage,
        now: Timestamp,
    ) -> Result<Arc<Chain>, LeafProblem> {
        let hash = CertificateHash::of(der);
        let lock = || self.chains.lock().unwrap_or_else(PoisonError::into_inner);
        let known = lock().get(&hash).cloned();
        if let Some(chain) = known
            && chain.facts.is_valid_at(now)
            && (chain.verified_at..=chain.verified_at + RECHECK_AFTER).contains(&now)
            && usage == usage_of(&chain.name)
        {
            return Ok(chain);
        }
        let facts = verify_leaf(der, intermediates, &self.bundle, usage, now)?;
        let name = name_of(&facts).ok_or(LeafProblem::NoName)?;
        if usage_of(&name) != usage {
            return Err(LeafProblem::OtherUse);
        }
        if let Some(issued) = &self.issued
            && !issued.admits(der, intermediates, &facts, usage, now)
        {
            return Err(LeafProblem::NotIssued { serial: facts.serial });
        }
        let chain = Arc::new(Chain { facts, name, verified_at: now });
        let mut chains = lock();
        if chains.len() >= MAX_CHAINS {
            chains.clear();
        }
        chains.insert(hash, chain.clone());
        Ok(chain)
    }
}

impl KnownBatches {
    fn lock(&self) -> MutexGuard<'_, HashSet<[u8; 32]>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Memory for KnownBatches {
    fn holds(&self, name: &[u8; 32]) -> bool {
        self.lock().contains(name)
    }

    fn keep(&self, name: [u8; 32]) {
        let mut known = self.lock();
        if known.len() >= MAX_BATCHES {
            known.clear();
        }
        known.insert(name);
    }
}

fn usage_of(name: &LeafName) -> Usage {
    match name {
        LeafName::Authentication { .. } => Usage::Authentication,
        LeafName::Signing { .. } => Usage::Signing,
        LeafName::Link { .. } => Usage::Link,
    }
}

impl OwnClient {
    /// A service of the client.
    #[must_use]
    pub fn service(&self, code: &str) -> Option<&OwnService> {
        self.services.get(code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_remembered_within_a_bound() {
        let known = KnownBatches::default();
        for number in 0..3 * MAX_BATCHES {
            let mut name = [0; 32];
            name[..8].copy_from_slice(&number.to_be_bytes());
            assert!(!known.holds(&name));
            known.keep(name);
            assert!(known.holds(&name));
            assert!(known.lock().len() <= MAX_BATCHES);
        }
    }
}
