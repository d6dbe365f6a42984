//! What is in force, and how something newer comes into force: offered, judged as a whole, saved, then swapped in at once. What
//! is refused leaves everything as it was and raises a metric.

pub mod identity;
pub mod in_force;
pub mod issued;
pub mod judge;
pub mod saved;

use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::ArcSwapOption;
use jiff::Timestamp;
use saatkond_pki::bundle::Bundle;
use saatkond_pki::configuration_key::ConfigurationPublicKey;
use saatkond_pki::digest::sha256;
use saatkond_pki::verify::{Usage, verify_leaf};
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};
use saatkond_wire::document::{self, Payload, Verified};
use saatkond_wire::identity::IDENTITY_ENTRY;
use tokio::sync::watch;
use tracing::{info, warn};
use zeroize::Zeroizing;

use self::identity::OwnIdentity;
use self::in_force::InForce;
use self::issued::Issued;
use self::judge::{Rejection, Verdict};
use self::saved::{INSTANCE_FILE, SERVER_FILE, Saved};
use crate::metrics::{Metrics, ReasonLabel};
use crate::start::Held;
use crate::tls::Tls;

/// Where an offer comes from; for the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    /// The mounted start copy.
    Mount,
    /// This pod's own saved copy.
    Saved,
    /// The operator's link.
    Link,
    /// Another gateway.
    Peer,
}

/// What became of an offer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// It is newer than what was held and has replaced it.
    TakenUp,
    /// It is good, and not newer than what is held.
    Known,
    /// It was refused; what is held stays.
    Refused,
    /// It is good and could not be saved; what is held stays. To be offered again: no room in the directory may pass.
    Unsaved,
}

/// The state of a gateway.
pub struct State {
    pins: Vec<ConfigurationPublicKey>,
    saved: Saved,
    metrics: Arc<Metrics>,
    in_force: ArcSwapOption<InForce>,
    parts: Mutex<Parts>,
    changes: watch::Sender<u64>,
}

/// What was judged good so far, each for itself.
#[derive(Default)]
struct Parts {
    instance: Option<(Arc<Verified<InstanceConfiguration>>, Arc<Bundle>)>,
    server: Option<Arc<Verified<ServerConfiguration>>>,
    identity: Option<Entry>,
    /// An identity that does not fit the documents yet: its document may come later, or earlier, than its mount.
    waiting: Option<Entry>,
    /// The last entry that was read, so that a mount that is read every few seconds is judged once.
    last_identity: Option<[u8; 32]>,
}

/// An identity and the text that it was read from, to be saved.
#[derive(Clone)]
struct Entry {
    identity: Arc<OwnIdentity>,
    json: Arc<Zeroizing<Vec<u8>>>,
}

impl State {
    /// Nothing is in force yet.
    #[must_use]
    pub fn new(pins: Vec<ConfigurationPublicKey>, saved: Saved, metrics: Arc<Metrics>) -> Self {
        let (changes, _) = watch::channel(0);
        Self { pins, saved, metrics, in_force: ArcSwapOption::empty(), parts: Mutex::default(), changes }
    }

    /// What is in force now.
    #[must_use]
    pub fn current(&self) -> Option<Arc<InForce>> {
        self.in_force.load_full()
    }

    /// Tells of each change of what is in force, after it.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }

    /// Tells of a change that is not in the documents: listeners have opened.
    pub fn tell(&self) {
        self.changes.send_modify(|count| *count += 1);
    }

    /// The versions at hand, in force or not: instance, server, issue number; 0 for none.
    #[must_use]
    pub fn at_hand(&self) -> (u64, u64, u64) {
        let parts = self.lock();
        (
            parts.instance.as_ref().map_or(0, |(document, _)| document.payload.version),
            parts.server.as_ref().map_or(0, |document| document.payload.version),
            parts.identity.as_ref().map_or(0, |entry| entry.identity.issue_number),
        )
    }

    /// What the start rule asks; `None` without documents and a usable identity.
    #[must_use]
    pub fn held(&self, now: Timestamp) -> Option<Held> {
        let current = self.current()?;
        if current.authentication_problem(now).is_some() || current.is_outdated(now) {
            return None;
        }
        Some(Held {
            instance_version: current.instance.payload.version,
            server_version: current.server.payload.version,
            issue_number: current.identity.issue_number,
            leaf_generation: current.identity.authentication.generation,
            signing_generation: current.instance.payload.signing_generation,
        })
    }

    /// Offers an instance configuration.
    pub fn offer_instance(&self, packed: &[u8], origin: Origin, now: Timestamp) -> Offer {
        let mut parts = self.lock();
        if parts.instance.as_ref().is_some_and(|(held, _)| held.packed == packed) {
            return Offer::Known;
        }
        let result = self.judge_instance(&mut parts, packed, now);
        self.report(result, "instance configuration", origin)
    }

    /// Offers a server configuration.
    pub fn offer_server(&self, packed: &[u8], origin: Origin, now: Timestamp) -> Offer {
        let mut parts = self.lock();
        if parts.server.as_ref().is_some_and(|held| held.packed == packed) {
            return Offer::Known;
        }
        let result = self.judge_server(&mut parts, packed, now);
        self.report(result, "server configuration", origin)
    }

    /// Offers an identity. One that does not fit the documents yet is kept and tried again with each of them.
    pub fn offer_identity(&self, json: &[u8], origin: Origin, now: Timestamp) -> Offer {
        let mut parts = self.lock();
        let hash = sha256(json);
        if parts.last_identity.replace(hash) == Some(hash) {
            return Offer::Known;
        }
        let result = self.judge_identity(&mut parts, json, now);
        let offer = self.report(result, "identity", origin);
        if offer == Offer::Unsaved {
            parts.last_identity = None;
        }
        offer
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Parts> {
        self.parts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn report(&self, result: Result<Verdict, Rejection>, what: &'static str, origin: Origin) -> Offer {
        match result {
            Ok(Verdict::Newer) => Offer::TakenUp,
            Ok(Verdict::NotNewer) => Offer::Known,
            Err(rejection) => {
                self.metrics.updates_rejected.get_or_create(&ReasonLabel { reason: rejection.label() }).inc();
                let error = chain(&rejection);
                warn!(what, ?origin, error, "an update was not taken up, what is in force stays");
                if matches!(rejection, Rejection::Save(_)) { Offer::Unsaved } else { Offer::Refused }
            }
        }
    }

    /// The keys that may sign documents now: those pinned at the start, and those that the document in force names.
    fn open<P: Payload>(&self, parts: &Parts, packed: &[u8]) -> Result<Verified<P>, Rejection> {
        let mut trusted = self.pins.clone();
        if let Some((held, _)) = &parts.instance {
            let keys = &held.payload.configuration_keys;
            trusted.extend([keys.current.key, keys.next.key]);
        }
        document::open(packed, &trusted).map_err(Rejection::Document)
    }

    fn judge_instance(&self, parts: &mut Parts, packed: &[u8], now: Timestamp) -> Result<Verdict, Rejection> {
        let offered = self.open::<InstanceConfiguration>(parts, packed)?;
        let held = parts.instance.as_ref().map(|(held, _)| &held.payload);
        let (verdict, bundle) = judge::instance(held, &offered.payload, now)?;
        if verdict == Verdict::Newer {
            let new = Some((Arc::new(offered), Arc::new(bundle)));
            let old = std::mem::replace(&mut parts.instance, new);
            if let Err(rejection) = self.publish(parts, now) {
                parts.instance = old;
                return Err(rejection);
            }
        }
        Ok(verdict)
    }

    fn judge_server(&self, parts: &mut Parts, packed: &[u8], now: Timestamp) -> Result<Verdict, Rejection> {
        let offered = self.open::<ServerConfiguration>(parts, packed)?;
        let own = parts.identity.as_ref().map(|entry| entry.identity.server.clone());
        let held = parts.server.as_ref().map(|held| &held.payload);
        let verdict = judge::server(held, own.as_ref(), &offered.payload, now)?;
        if verdict == Verdict::Newer {
            let old = parts.server.replace(Arc::new(offered));
            if let Err(rejection) = self.publish(parts, now) {
                parts.server = old;
                return Err(rejection);
            }
        }
        Ok(verdict)
    }

    fn judge_identity(&self, parts: &mut Parts, json: &[u8], now: Timestamp) -> Result<Verdict, Rejection> {
        let offered = OwnIdentity::read(json).map_err(Rejection::Identity)?;
        if parts.server.as_ref().is_some_and(|server| server.payload.server != offered.server) {
            return Err(Rejection::OtherServer(Box::new(offered.server)));
        }
        if parts.identity.as_ref().is_some_and(|held| held.identity.issue_number > offered.issue_number) {
            return Ok(Verdict::NotNewer);
        }
        let json = Arc::new(Zeroizing::new(json.to_vec()));
        parts.waiting = Some(Entry { identity: Arc::new(offered), json });
        self.publish(parts, now)?;
        let bundle = parts.instance.as_ref().map(|(_, bundle)| &**bundle);
        match parts.waiting.as_ref().and_then(|entry| unfit(&entry.identity, bundle, now)) {
            Some(problem) => Err(Rejection::Unfit(problem)),
            None => Ok(Verdict::Newer),
        }
    }

    /// Puts the parts into force if they are complete. Saves them first: what a receipt says must survive a restart.
    fn publish(&self, parts: &mut Parts, now: Timestamp) -> Result<(), Rejection> {
        let bundle = parts.instance.as_ref().map(|(_, bundle)| &**bundle);
        let fits = parts.waiting.as_ref().is_some_and(|entry| unfit(&entry.identity, bundle, now).is_none());
        // Better an identity with a problem that is named than none.
        let entry = if fits || parts.identity.is_none() { &parts.waiting } else { &parts.identity };
        let is_promoted = entry.is_some() && (fits || parts.identity.is_none());
        let entry = entry.clone();
        if let (Some((instance, bundle)), Some(server), Some(entry)) = (&parts.instance, &parts.server, &entry) {
            self.put_in_force(instance, bundle, server, entry, now)?;
        }
        if is_promoted {
            parts.identity = entry;
            parts.waiting = None;
        }
        Ok(())
    }

    fn put_in_force(
        &self,
        instance: &Arc<Verified<InstanceConfiguration>>,
        bundle: &Arc<Bundle>,
        server: &Arc<Verified<ServerConfiguration>>,
        entry: &Entry,
        now: Timestamp,
    ) -> Result<(), Rejection> {
        let before = self.current();
        let same_identity = before.as_ref().is_some_and(|before| Arc::ptr_eq(&before.identity, &entry.identity));
        let issued = Issued::of(&instance.payload).map(Arc::new);
        let tls = match &before {
            // The same leaf, and the same peers are trusted: connections and pools live on.
            Some(before) if same_identity && *before.bundle == **bundle && before.issued == issued => {
                before.tls.clone()
            }
            _ => {
                let tls = Tls::new(&entry.identity, bundle, issued.as_ref(), &instance.payload, &self.metrics);
                Arc::new(tls.map_err(Rejection::Tls)?)
            }
        };
        if !same_identity {
            self.saved.write(IDENTITY_ENTRY, &entry.json).map_err(Rejection::Save)?;
        }
        self.saved.write(INSTANCE_FILE, &instance.packed).map_err(Rejection::Save)?;
        self.saved.write(SERVER_FILE, &server.packed).map_err(Rejection::Save)?;
        let problem = unfit(&entry.identity, Some(bundle), now);
        let (instance, server, identity) = (instance.clone(), server.clone(), entry.identity.clone());
        let new = Arc::new(InForce::new(instance, server, identity, bundle.clone(), tls, problem, issued));
        self.show(&new);
        self.in_force.store(Some(new));
        self.tell();
        Ok(())
    }

    fn show(&self, new: &InForce) {
        let (instance, server) = (&new.instance.payload, &new.server.payload);
        let leaf = &new.identity.authentication.facts;
        self.metrics.bundle_sequence.set(instance.bundle_sequence);
        self.metrics.instance_version.set(instance.version);
        self.metrics.server_version.set(server.version);
        self.metrics.configuration_expires.set(new.expires_at().as_second());
        self.metrics.leaf_expires.set(leaf.not_after.as_second());
        let signing = new.identity.signing.values().map(|leaf| leaf.facts().not_after.as_second());
        self.metrics.signing_leaf_expires.set(signing.min().unwrap_or(0));
        info!(
            instance_version = instance.version,
            server_version = server.version,
            bundle_sequence = instance.bundle_sequence,
            issue_number = new.identity.issue_number,
            leaf_serial = leaf.serial,
            problem = new.identity_problem,
            "in force"
        );
    }
}

/// Why an identity cannot be used under the authorities at hand. A guest's leaf is no reason: it would hold up the renewal of the
/// owner's and take the server from all others whom it serves. Peers judge it, and refuse that guest alone.
fn unfit(identity: &OwnIdentity, bundle: Option<&Bundle>, now: Timestamp) -> Option<String> {
    let bundle = bundle?;
    let (leaf, intermediates) = identity.authentication.chain.split_first()?;
    if let Err(error) = verify_leaf(leaf, intermediates, bundle, Usage::Authentication, now) {
        return Some(error.to_string());
    }
    let owners = verify_leaf(identity.owners_signer()?.leaf_der(), &[], bundle, Usage::Signing, now);
    owners.err().map(|error| error.to_string())
}

/// An error with its sources, in one line.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut out = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        let text = inner.to_string();
        // Some libraries repeat their source in their own text.
        if !out.ends_with(&text) {
            out.push_str(": ");
            out.push_str(&text);
        }
        source = inner.source();
    }
    out
}
