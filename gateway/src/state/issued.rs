//! In an emergency: which leaves of a compromised authority were really issued. Whoever has stolen its key can mint any other.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use rustls_pki_types::CertificateDer;
use saatkond_pki::authority::AuthorityCertificate;
use saatkond_pki::bundle::Bundle;
use saatkond_pki::certificate::CertificateFacts;
use saatkond_pki::verify::{Usage, verify_leaf};
use saatkond_wire::configuration::InstanceConfiguration;
use saatkond_wire::identifier::ServerId;
use saatkond_wire::leaf_name::LeafName;

use super::identity::name_of;

/// What the configuration says of them.
#[derive(PartialEq, Eq)]
pub struct Issued {
    /// The authorities that are not compromised. `None` where there is none.
    others: Option<Bundle>,
    /// The keys of the leaves of the compromised ones, of each server.
    keys: HashMap<ServerId, HashSet<String>>,
}

impl Issued {
    /// `None` while no authority is compromised.
    #[must_use]
    pub fn of(document: &InstanceConfiguration) -> Option<Self> {
        let compromised = &document.emergency.as_ref()?.compromised_generations;
        let others = document.bundle.iter().filter(|entry| !compromised.contains(&entry.generation));
        let others = others.filter_map(|entry| AuthorityCertificate::from_pem(&entry.certificate).ok());
        let keys = document
            .servers
            .iter()
            .map(|entry| (entry.id(&document.instance), entry.issued_keys.iter().cloned().collect()))
            .collect();
        Some(Self { others: Bundle::new(others).ok(), keys })
    }

    /// Whether a leaf that chains to the bundle is one that was issued. One that another authority vouches for is. Which one that is, the
    /// chain alone says: what a leaf claims of its issuer whoever minted it has written.
    #[must_use]
    pub fn admits(
        &self,
        der: &[u8],
        intermediates: &[CertificateDer<'_>],
        facts: &CertificateFacts,
        usage: Usage,
        now: Timestamp,
    ) -> bool {
        let by_another = |others| verify_leaf(der, intermediates, others, usage, now).is_ok();
        if self.others.as_ref().is_some_and(by_another) {
            return true;
        }
        let (LeafName::Authentication { server, .. } | LeafName::Signing { server, .. }) = (match name_of(facts) {
            Some(name) => name,
            None => return false,
        }) else {
            return false;
        };
        self.keys.get(&server).is_some_and(|keys| keys.contains(&facts.spki_sha256.to_string()))
    }
}
