//! What is to be done for a trust anchor.

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::ResourceExt;
use saatkond_api::TrustAnchor;
use saatkond_api::conditions::Reason;
use saatkond_api::names::{
    self, MANAGED_BY, ca_secret, configuration_key_secret, finalizer, instance_configuration_config_map, label, role,
};
use saatkond_api::v1alpha1::trust_anchor::{DEFAULT_CA_LIFETIME, KeyAlgorithm, SourceChoice};
use saatkond_pki::key::Algorithm;
use saatkond_pki::leaf::{BACKDATE, LeafRequest, Usage};
use saatkond_wire::configuration::{ConfigurationKeys, InstanceConfiguration};
use saatkond_wire::leaf_name::LeafName;

use super::audit::{self, Act, Record};
use super::authority::{self, AuthorityState};
use super::build::{bundle_hash, content};
use super::history;
use super::keys::{self, KeyState};
use super::observed::{ObservedTrustAnchor, UnlabelledKey};
use crate::children::ChildKind;
use crate::duplicates::preceded_by;
use crate::effects::{Deletion, Failure, FinalizerChange, ForeignObject, LeafOrder, PlannedEvent};
use crate::meta::{anchor_object, annotated, has_finalizer, is_deleting};
use crate::names::link_identity_manager;
use crate::observed::{LeafFacts, Published, Stored};
use crate::publication::{Annotated as _, Publication};
use crate::rotation::Step;
use crate::schedule::{later, next_check, renew_at, resign_at, whole_seconds};

/// Everything that is to be done for one trust anchor now, in this order: `finalizer` unless it is to be removed,
/// `relabel`, `create_authority`, `create_configuration_keys`, `publish`, `link_leaf`, `destroy_authority`, then the removal of the finalizer.
#[derive(Debug, Clone, PartialEq)]
pub struct TrustAnchorPlan {
    /// Our finalizer on the TrustAnchor.
    pub finalizer: FinalizerChange,
    /// Secrets with keys of ours to get their labels back: name, namespace, UID (a newer Secret of the name is not meant) and labels.
    pub relabel: Vec<ObjectMeta>,
    /// An authority to make.
    pub create_authority: Option<AuthorityRequest>,
    /// Configuration keys to make.
    pub create_configuration_keys: Vec<ConfigurationKeyRequest>,
    /// The next instance configuration.
    pub publish: Option<Publication<InstanceConfiguration>>,
    /// The link's own leaf for this anchor.
    pub link_leaf: Option<LinkLeafRequest>,
    /// The Secret of an authority that will never issue again.
    pub destroy_authority: Option<Deletion>,
    /// Whether the document to publish takes a rotation on, and was decided on what caches show: then nothing of this plan is done
    /// before it has been decided again on reads of the API server itself.
    pub decide_again: bool,
    /// What stands in the way.
    pub foreign: Vec<ForeignObject>,
    /// Events about what this plan does.
    pub events: Vec<PlannedEvent>,
    /// What is put on record of it, once it is done.
    pub audit: Vec<Record>,
    /// When to look again, at the latest.
    pub next_check: Timestamp,
}

/// A certificate authority to make: key and self-signed certificate in one immutable Secret, by a plain create. If
/// the object exists already, nothing is written and the next look decides. The fields after `meta` are those of
/// `pki::authority::AuthoritySpec`, but for the serial number, which is drawn at the making.
#[derive(Debug, Clone, PartialEq)]
pub struct AuthorityRequest {
    /// Name, namespace, labels and owner of the Secret.
    pub meta: ObjectMeta,
    /// The instance: part of its subject.
    pub instance: String,
    /// Counts the authorities of the anchor: part of its subject.
    pub generation: u32,
    /// Of its key.
    pub algorithm: Algorithm,
    /// From when its certificate is valid.
    pub not_before: Timestamp,
    /// For how long.
    pub lifetime: SignedDuration,
}

/// A configuration key (Ed25519) to make, in an immutable Secret, by a plain create.
#[derive(Debug, Clone, PartialEq)]
pub struct ConfigurationKeyRequest {
    /// Name, namespace, labels and owner of the Secret.
    pub meta: ObjectMeta,
    /// Counts the configuration keys of the anchor.
    pub generation: u64,
}

/// The link's own leaf, with a new key, to be written as the entry `<anchor>.json` of `saatkond-link-identity`.
#[derive(Debug, Clone, PartialEq)]
pub struct LinkLeafRequest {
    /// Name, namespace and labels of the Secret. Nobody owns it: it is shared by all anchors.
    pub meta: ObjectMeta,
    /// The entry of `data`.
    pub entry: String,
    /// Field manager of the apply: one an anchor, so that entries do not erase each other.
    pub manager: String,
    /// Generation of the authority to issue under.
    pub generation: u64,
    /// The leaf.
    pub leaf: LeafOrder,
}

/// What came of a [`TrustAnchorPlan`].
#[derive(Debug, Clone, PartialEq, Default)]
pub struct AppliedTrustAnchor {
    /// Whether the plan's document is published.
    pub published: bool,
    /// The link's leaf, if one was issued and stored.
    pub link_leaf: Option<LeafFacts>,
    /// Why it ended early, if it did.
    pub failure: Option<Failure>,
}

/// Decides what is to be done now.
#[must_use]
pub fn plan(seen: &ObservedTrustAnchor, now: Timestamp) -> TrustAnchorPlan {
    let anchor = &*seen.anchor;
    let uid = anchor.uid().unwrap_or_default();
    let mut plan = TrustAnchorPlan {
        finalizer: finalizer_change(seen),
        relabel: Vec::new(),
        create_authority: None,
        create_configuration_keys: Vec::new(),
        publish: None,
        link_leaf: None,
        destroy_authority: None,
        decide_again: false,
        foreign: Vec::new(),
        events: Vec::new(),
        audit: Vec::new(),
        next_check: next_check(now, &uid, []),
    };
    // While its members are being taken out, an anchor that is going still publishes; the last one's departure ends it.
    let ends = is_deleting(anchor) && seen.members.is_empty();
    if ends || seen.predecessor().is_some() {
        return plan;
    }
    relabel(seen, &mut plan);
    let authority = authority::state(seen, now);
    let keys = keys::state(seen);
    plan.foreign
        .extend(authority.foreign.iter().map(|name| ForeignObject { kind: ChildKind::Secret, name: name.clone() }));
    if let (Step::Create(generation), false) = (&authority.step, is_deleting(anchor)) {
        plan.events.push(PlannedEvent {
            warning: false,
            reason: Reason::AuthorityCreated,
            action: "CreateAuthority",
            note: format!("made the certificate authority of generation {generation}"),
        });
        plan.create_authority = Some(authority_request(seen, *generation, now));
        // The first one is on record with the first document.
        let document = seen.published.payload();
        plan.audit.extend(document.map(|it| audit::beside(anchor, it, Act::Prepare, *generation, now)));
    }
    let keys = match keys {
        KeyState::Ready(keys) => Some(keys),
        KeyState::Make(generations) => {
            plan.create_configuration_keys =
                generations.into_iter().map(|generation| key_request(seen, generation)).collect();
            None
        }
        KeyState::Lost { .. } => None,
        KeyState::Foreign { name } => {
            plan.foreign.push(ForeignObject { kind: ChildKind::Secret, name });
            None
        }
    };
    if plan.create_authority.is_some() || !plan.create_configuration_keys.is_empty() {
        // What is published depends on what is made now: look again at once.
        plan.next_check = now;
        return plan;
    }
    if let Step::Destroy(generation) = &authority.step {
        destroy(seen, *generation, now, &mut plan);
    }
    let mut deadlines = Vec::new();
    if let Step::Wait { until: Some(until), .. } = &authority.step {
        deadlines.push(*until);
    }
    deadlines.extend(super::rotation::next_start(seen, &authority, now).map(|next| next.at.0));
    if let Some(keys) = keys {
        publish(seen, &authority, &keys, now, &mut plan, &mut deadlines);
    }
    link_leaf(seen, &authority, now, &mut plan, &mut deadlines);
    transition(seen, &authority, now, &mut plan);
    deadlines.extend(
        authority.bundle.values().map(|certificate| later(certificate.not_after(), SignedDuration::from_secs(1))),
    );
    // Whoever is excluded until then is waited for again.
    deadlines.extend(seen.anchor.spec.rotation.iter().flat_map(|it| &it.excluded).map(|excluded| excluded.until.0));
    deadlines.retain(|deadline| *deadline > now);
    plan.next_check = next_check(now, &uid, deadlines);
    plan
}

impl ObservedTrustAnchor {
    /// The older TrustAnchor of the same instance. One on its way out acts until nobody is registered with it any more: an instance
    /// never has two authorities that issue. A Member that merely names it, and may be anybody's, holds nobody up.
    pub(crate) fn predecessor(&self) -> Option<&TrustAnchor> {
        let acts = |other: &&TrustAnchor| {
            let counts = other.status.as_ref().and_then(|status| status.counts.as_ref());
            !is_deleting(*other) || counts.is_some_and(|counts| counts.members + counts.security_servers > 0)
        };
        preceded_by(&*self.anchor, self.others_of_instance().filter(acts))
    }

    /// The other TrustAnchors of the same instance.
    fn others_of_instance(&self) -> impl Iterator<Item = &TrustAnchor> {
        let own = &self.anchor;
        self.others
            .iter()
            .map(|other| &**other)
            .filter(move |other| other.spec.instance == own.spec.instance && other.uid() != own.uid())
    }
}

/// Puts labels back. The key counts meanwhile: who takes a label off must not stop the federation, much less be told that
/// the Secret stands in the way.
fn relabel(seen: &ObservedTrustAnchor, plan: &mut TrustAnchorPlan) {
    for UnlabelledKey { role, generation, name, uid } in &seen.unlabelled {
        let meta = anchor_object(&seen.anchor, &seen.settings.namespace, name.clone(), role, Some(*generation));
        plan.events.push(PlannedEvent {
            warning: true,
            reason: Reason::DriftRepaired,
            action: "Relabel",
            note: format!("Secret {name} had lost labels; put them back"),
        });
        plan.relabel.push(ObjectMeta { uid: Some(uid.clone()), owner_references: None, ..meta });
    }
}

/// Deletes the key of an authority, if it is ours.
fn destroy(seen: &ObservedTrustAnchor, generation: u64, now: Timestamp, plan: &mut TrustAnchorPlan) {
    let authority = seen.authorities.iter().find(|authority| authority.generation == generation);
    let Some(authority) = authority.filter(|authority| authority.secret != Stored::Foreign) else { return };
    // Its certificate goes with the Secret. A status that could not be written since it was announced is written first.
    if authority.secret.facts().is_some_and(|certificate| history::generation(seen, certificate).is_none()) {
        return;
    }
    plan.events.push(PlannedEvent {
        warning: false,
        reason: Reason::AuthorityDestroyed,
        action: "DestroyAuthority",
        note: format!("deleted the key of the certificate authority of generation {generation}"),
    });
    let document = seen.published.payload();
    plan.audit.extend(document.map(|it| audit::beside(&seen.anchor, it, Act::Destroy, generation, now)));
    plan.destroy_authority = Some(Deletion {
        kind: ChildKind::Secret,
        namespace: seen.settings.namespace.clone(),
        name: ca_secret(&seen.anchor.name_any(), generation),
        uid: authority.uid.clone(),
    });
}

/// Says that the document takes a rotation on, or lets another authority issue: an external one has no phases.
fn transition(seen: &ObservedTrustAnchor, authority: &AuthorityState, now: Timestamp, plan: &mut TrustAnchorPlan) {
    let Some(publication) = &plan.publish else { return };
    let before = seen.published.payload().map(|standing| standing.signing_generation);
    let another = before.is_some_and(|before| before != publication.payload.signing_generation);
    plan.decide_again = !seen.live && (another || matches!(authority.step, Step::Publish(_)));
    let Some(before) = seen.published.payload() else { return };
    for record in audit::records(&seen.anchor, before, &publication.payload, now) {
        let (reason, action) = match record.act {
            Act::Revoke => (Reason::CertificatesRevoked, "Revoke"),
            Act::Taint => (Reason::AuthorityCompromised, "Taint"),
            _ => (Reason::RotationAdvanced, "Rotate"),
        };
        let warning = record.act == Act::Taint;
        plan.events.push(PlannedEvent { warning, reason, action, note: record.to_string() });
        plan.audit.push(record);
    }
}

/// The finalizer keeps the anchor, and with it the authority's key, while members refer to it.
fn finalizer_change(seen: &ObservedTrustAnchor) -> FinalizerChange {
    let set = has_finalizer(&*seen.anchor, finalizer::TRUST_ANCHOR);
    match (is_deleting(&*seen.anchor), set) {
        (false, false) => FinalizerChange::Add,
        (true, true) if seen.members.is_empty() => FinalizerChange::Remove,
        (false | true, _) => FinalizerChange::Keep,
    }
}

fn authority_request(seen: &ObservedTrustAnchor, generation: u64, now: Timestamp) -> AuthorityRequest {
    let anchor = &*seen.anchor;
    let (algorithm, lifetime) = match anchor.spec.source.choice() {
        Some(SourceChoice::Managed(managed)) => (algorithm(managed.algorithm), managed.lifetime.as_signed()),
        Some(SourceChoice::External(_)) | None => (Algorithm::default(), DEFAULT_CA_LIFETIME.as_signed()),
    };
    AuthorityRequest {
        meta: anchor_object(
            anchor,
            &seen.settings.namespace,
            ca_secret(&anchor.name_any(), generation),
            role::AUTHORITY,
            Some(generation),
        ),
        instance: anchor.spec.instance.to_string(),
        // Counts the authorities that an anchor has had.
        generation: u32::try_from(generation).unwrap_or(u32::MAX),
        algorithm,
        // Clocks of nodes differ by seconds: a certificate that begins now is refused by those that lag.
        not_before: later(whole_seconds(now), SignedDuration::ZERO - BACKDATE),
        lifetime,
    }
}

fn algorithm(declared: KeyAlgorithm) -> Algorithm {
    match declared {
        KeyAlgorithm::EcdsaP256 => Algorithm::EcdsaP256,
        KeyAlgorithm::EcdsaP384 => Algorithm::EcdsaP384,
        KeyAlgorithm::Ed25519 => Algorithm::Ed25519,
        KeyAlgorithm::Rsa3072 => Algorithm::Rsa3072,
    }
}

fn key_request(seen: &ObservedTrustAnchor, generation: u64) -> ConfigurationKeyRequest {
    let anchor = &*seen.anchor;
    let name = configuration_key_secret(&anchor.name_any(), generation);
    ConfigurationKeyRequest {
        meta: anchor_object(anchor, &seen.settings.namespace, name, role::CONFIGURATION_KEY, Some(generation)),
        generation,
    }
}

/// The newest version and bundle that anybody may have seen: of the published document, or of the status where that
/// remembers a later one (the object was deleted, or someone put an older document back).
fn last_known(seen: &ObservedTrustAnchor) -> (u64, Option<LastBundle>) {
    let published = seen.published.payload();
    let status = seen.anchor.status.as_ref();
    let remembered = status.and_then(|status| status.configuration.as_ref()).map_or(0, |it| it.version);
    match published {
        Some(document) if document.version >= remembered => {
            let bundle = LastBundle {
                sequence: document.bundle_sequence,
                hash: bundle_hash(document),
                signing: Some(document.signing_generation),
            };
            (document.version, Some(bundle))
        }
        Some(_) | None => {
            let bundle = status.and_then(|status| status.bundle.as_ref()).map(|bundle| LastBundle {
                sequence: bundle.sequence,
                hash: bundle.hash.trim_start_matches("sha256:").to_owned(),
                signing: status.and_then(|status| status.signing_generation),
            });
            (remembered, bundle)
        }
    }
}

struct LastBundle {
    sequence: u64,
    hash: String,
    signing: Option<u64>,
}

/// Publishes when the content differs from what is published, when its day is over, when what is published is not the
/// newest that was, or when its labels or annotations were changed.
fn publish(
    seen: &ObservedTrustAnchor,
    authority: &AuthorityState,
    keys: &ConfigurationKeys,
    now: Timestamp,
    plan: &mut TrustAnchorPlan,
    deadlines: &mut Vec<Timestamp>,
) {
    let anchor = &*seen.anchor;
    let name = instance_configuration_config_map(&anchor.name_any());
    if seen.published == Published::Foreign {
        plan.foreign.push(ForeignObject { kind: ChildKind::ConfigMap, name });
        return;
    }
    let Some(wanted) = content(seen, authority, keys, now) else { return };
    let uid = anchor.uid().unwrap_or_default();
    let (last_version, last_bundle) = last_known(seen);
    let mut edited = matches!(seen.published, Published::Invalid { .. });
    if let Published::Valid(document) = &seen.published {
        let standing = &*document.payload;
        edited = standing.version < last_version || !document.intact;
        let due = resign_at(standing.signed_at, &uid);
        let lives = standing.expires_at.duration_since(standing.signed_at);
        let same_life = lives == wanted.expires_at.duration_since(wanted.signed_at);
        let same_content = same_but_times(standing, &wanted) && document.key_generation == keys.current.generation;
        if same_content && same_life && !edited && now < due {
            deadlines.push(due);
            return;
        }
    }
    let (hash, signing) = (bundle_hash(&wanted), wanted.signing_generation);
    let sequence = match &last_bundle {
        Some(last) if last.hash == hash && last.signing.is_none_or(|last| last == signing) => last.sequence,
        Some(last) => last.sequence + 1,
        None => 1,
    };
    if edited {
        plan.events.push(PlannedEvent {
            warning: true,
            reason: Reason::DriftRepaired,
            action: "Publish",
            note: format!("ConfigMap {name} had been changed by someone; published it anew"),
        });
    }
    if last_bundle.is_none_or(|last| last.sequence != sequence) {
        plan.events.push(PlannedEvent {
            warning: false,
            reason: Reason::ConfigurationPublished,
            action: "Publish",
            note: format!("published bundle sequence {sequence}, signing generation {signing}"),
        });
    }
    let payload = InstanceConfiguration { version: last_version + 1, bundle_sequence: sequence, ..wanted };
    let meta = anchor_object(anchor, &seen.settings.namespace, name, role::INSTANCE_CONFIGURATION, None);
    deadlines.push(resign_at(payload.signed_at, &uid));
    plan.publish = Some(Publication {
        meta: annotated(meta, payload.annotations()),
        entry: names::entry::INSTANCE_CONFIGURATION,
        payload,
        key_generation: keys.current.generation,
        replaces: seen.published.replaces(),
    });
}

/// Whether two documents say the same. `wanted` carries the version and the sequence of `standing`.
fn same_but_times(standing: &InstanceConfiguration, wanted: &InstanceConfiguration) -> bool {
    let at = |document: &InstanceConfiguration| (document.signed_at, document.expires_at);
    let (signed_at, expires_at) = at(standing);
    InstanceConfiguration { signed_at, expires_at, ..wanted.clone() } == *standing
}

/// The link's own leaf: issued under the published signing generation alone, since that is what gateways verify with.
fn link_leaf(
    seen: &ObservedTrustAnchor,
    authority: &AuthorityState,
    now: Timestamp,
    plan: &mut TrustAnchorPlan,
    deadlines: &mut Vec<Timestamp>,
) {
    let anchor = &*seen.anchor;
    let published = seen.published.payload();
    let (Some(document), Some(signing)) = (published, authority.signing) else { return };
    if seen.link_leaf == Stored::Foreign {
        plan.foreign.push(ForeignObject { kind: ChildKind::Secret, name: names::LINK_IDENTITY_SECRET.to_owned() });
        return;
    }
    if !authority.can_issue || document.signing_generation != signing {
        return;
    }
    let name = names::link_server_name(&anchor.name_any());
    let uri = LeafName::Link { instance: anchor.spec.instance.to_string() }.to_string();
    if let Stored::Present(leaf) = &seen.link_leaf {
        let due = renew_at(leaf, &anchor.uid().unwrap_or_default(), None);
        let current = leaf.generation == signing && leaf.uri == uri && leaf.dns_names == [name.as_str()];
        if current && now < due {
            deadlines.push(due);
            return;
        }
    }
    plan.link_leaf = Some(LinkLeafRequest {
        meta: link_secret(&seen.settings.namespace),
        entry: format!("{}.json", anchor.name_any()),
        manager: link_identity_manager(&anchor.name_any()),
        generation: signing,
        leaf: LeafOrder {
            request: LeafRequest { usage: Usage::Link, common_name: name.clone(), uri, dns_names: vec![name] },
            algorithm: Algorithm::default(),
            now,
            lifetime: anchor.spec.leaf_policy.max_lifetime.as_signed(),
            retirement: authority::retirement(anchor),
        },
    });
}

fn link_secret(namespace: &str) -> ObjectMeta {
    let labels = [
        (label::MANAGED_BY, MANAGED_BY),
        (label::NAME, MANAGED_BY),
        (label::COMPONENT, names::component::LINK),
        (label::ROLE, role::LINK_IDENTITY),
    ];
    ObjectMeta {
        name: Some(names::LINK_IDENTITY_SECRET.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels.map(|(key, value)| (key.to_owned(), value.to_owned())).into()),
        ..ObjectMeta::default()
    }
}
