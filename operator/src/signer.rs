//! The keys at hand, and what is signed with them.
//!
//! Keys come from Secrets of the operator's namespace by a live read and stay in memory while those Secrets are unchanged;
//! the types that hold them wipe them when dropped. Nothing here decides: names, generations and dates stand in the plan.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, PoisonError};

use saatkond_domain::effects::LeafOrder;
use saatkond_domain::observed::LeafFacts;
use saatkond_domain::trust_anchor::observed::{ObservedAuthority, ObservedConfigurationKey, UnlabelledKey};
use saatkond_domain::trust_anchor::plan::AuthorityRequest;
use saatkond_pki::authority::{Authority, AuthoritySpec};
use saatkond_pki::certificate::CertificateFacts;
use saatkond_pki::configuration_key::{ConfigurationKey, ConfigurationPublicKey};
use saatkond_pki::key::{Algorithm, KeySource};
use saatkond_pki::leaf::{self, Terms};
use saatkond_pki::serial::Serial;
use saatkond_wire::identity::{Credential, SecretText};

use crate::clock::Chance;
use crate::error::Error;

/// The keys of one trust anchor, as its Secrets hold them.
#[derive(Debug, Default)]
pub struct AnchorKeys {
    /// UID of the TrustAnchor that they were read for.
    pub owner: Option<String>,
    /// The authorities, without their keys.
    pub authorities: Vec<ObservedAuthority>,
    /// The configuration keys, without their secret half.
    pub configuration_keys: Vec<ObservedConfigurationKey>,
    /// The Secrets of ours that have lost a label.
    pub unlabelled: Vec<UnlabelledKey>,
    /// Authorities that can sign, by generation.
    pub signers: BTreeMap<u64, Arc<Authority>>,
    /// Configuration keys that can sign, by generation.
    pub document_signers: BTreeMap<u64, Arc<ConfigurationKey>>,
    /// The Secrets that this was read from: name and resourceVersion.
    pub read_from: BTreeMap<String, String>,
}

impl AnchorKeys {
    /// The public halves of all configuration keys, with their generations.
    #[must_use]
    pub fn public_keys(&self) -> Vec<(u64, ConfigurationPublicKey)> {
        self.document_signers.iter().map(|(generation, key)| (*generation, key.public())).collect()
    }
}

/// The keys at hand, by trust anchor.
#[derive(Debug, Default)]
pub struct Signer {
    anchors: Mutex<HashMap<String, Arc<AnchorKeys>>>,
}

impl Signer {
    /// The keys of a trust anchor, as read last.
    pub fn get(&self, anchor: &str) -> Option<Arc<AnchorKeys>> {
        self.lock().get(anchor).cloned()
    }

    /// Keeps what was read.
    pub fn put(&self, anchor: &str, keys: AnchorKeys) -> Arc<AnchorKeys> {
        let keys = Arc::new(keys);
        self.lock().insert(anchor.to_owned(), keys.clone());
        keys
    }

    /// Forgets the keys of a trust anchor that is gone.
    pub fn forget(&self, anchor: &str) {
        self.lock().remove(anchor);
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<AnchorKeys>>> {
        self.anchors.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What a leaf says, in the words of plans.
#[must_use]
pub fn leaf_facts(facts: &CertificateFacts, generation: u64, issue_number: u64, algorithm: Algorithm) -> LeafFacts {
    let mut dns_names = facts.dns_names.clone();
    dns_names.sort();
    LeafFacts {
        uri: facts.uris.first().cloned().unwrap_or_default(),
        dns_names,
        issue_number,
        generation,
        serial: facts.serial.clone(),
        spki_sha256: facts.spki_sha256.to_string(),
        algorithm,
        not_before: facts.not_before,
        not_after: facts.not_after,
    }
}

fn serial(chance: &dyn Chance) -> Result<Serial, Error> {
    let mut bytes = [0; 16];
    chance.fill(&mut bytes).map_err(Error::sign("draw a serial number"))?;
    Ok(Serial::from_random(bytes))
}

/// Makes an authority: a key and its self-signed certificate. RSA takes a second or more: call it where blocking is
/// allowed.
pub fn make_authority(
    request: &AuthorityRequest,
    keys: &dyn KeySource,
    chance: &dyn Chance,
) -> Result<Authority, Error> {
    let AuthorityRequest { meta: _, instance, generation, algorithm, not_before, lifetime } = request;
    let spec = AuthoritySpec {
        instance,
        generation: *generation,
        algorithm: *algorithm,
        not_before: *not_before,
        lifetime: *lifetime,
        serial: serial(chance)?,
    };
    Authority::create(&spec, keys).map_err(Error::sign("make an authority"))
}

/// A leaf with its new key, and what it says.
#[derive(Debug)]
pub struct Issued {
    /// For the Secret.
    pub credential: Credential,
    /// For the status.
    pub facts: LeafFacts,
}

/// Issues a leaf with a new key, exactly as the plan says.
pub fn issue(
    authority: &Authority,
    generation: u64,
    issue_number: u64,
    order: &LeafOrder,
    keys: &dyn KeySource,
    chance: &dyn Chance,
) -> Result<Issued, Error> {
    let LeafOrder { request, algorithm, now, lifetime, retirement } = order;
    let key = keys.generate(*algorithm).map_err(Error::sign("make a key"))?;
    let terms = Terms { now: *now, lifetime: *lifetime, retirement: *retirement, serial: serial(chance)? };
    let issued = leaf::issue(authority, request, key.public(), &terms).map_err(Error::sign("issue a leaf"))?;
    Ok(Issued {
        facts: leaf_facts(&issued.facts, generation, issue_number, *algorithm),
        credential: Credential {
            issue_number,
            generation,
            certificate: issued.pem,
            key: SecretText::new(key.to_pkcs8_pem().to_string()),
        },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::SystemChance;
    use jiff::{SignedDuration, Timestamp};
    use saatkond_pki::key::SystemKeys;
    use saatkond_pki::leaf::{LeafRequest, Usage};

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn an_authority_and_a_leaf_are_made_as_the_plan_says() {
        let request = AuthorityRequest {
            meta: kube::api::ObjectMeta::default(),
            instance: "EE".into(),
            generation: 3,
            algorithm: Algorithm::EcdsaP256,
            not_before: at("2026-01-01T00:00:00Z"),
            lifetime: SignedDuration::from_hours(8760),
        };
        let authority = make_authority(&request, &SystemKeys, &SystemChance).unwrap();
        let certificate = authority.certificate();
        assert_eq!(certificate.not_before(), at("2026-01-01T00:00:00Z"));
        assert_eq!(certificate.not_after(), at("2027-01-01T00:00:00Z"));
        assert!(certificate.facts().subject.contains("EE CA 3"), "{}", certificate.facts().subject);

        let order = LeafOrder {
            request: LeafRequest {
                usage: Usage::Link,
                common_name: "link".into(),
                uri: "saatkond://EE/link?use=link".into(),
                dns_names: vec!["ee.link.saatkond.internal".into()],
            },
            algorithm: Algorithm::Ed25519,
            now: at("2026-05-01T00:05:00Z"),
            lifetime: SignedDuration::from_hours(360),
            retirement: SignedDuration::from_hours(24),
        };
        let issued = issue(&authority, 3, 7, &order, &SystemKeys, &SystemChance).unwrap();
        assert_eq!(issued.facts.not_before, at("2026-05-01T00:00:00Z"));
        assert_eq!(issued.facts.not_after, at("2026-05-16T00:00:00Z"));
        assert_eq!((issued.facts.generation, issued.facts.issue_number), (3, 7));
        assert_eq!(issued.facts.uri, order.request.uri);
        assert!(issued.credential.key.expose().contains("PRIVATE KEY"));
        let again = issue(&authority, 3, 8, &order, &SystemKeys, &SystemChance).unwrap();
        assert_ne!(again.facts.serial, issued.facts.serial);
        assert_ne!(again.facts.spki_sha256, issued.facts.spki_sha256, "each leaf has a key of its own");
    }
}
