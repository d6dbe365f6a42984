//! Decisions about trust anchors.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::conditions::{ConditionType, Reason, find};
use saatkond_api::refs::OperatorSecretRef;
use saatkond_api::v1alpha1::trust_anchor::{
    AdmissionMode, AuthorityState, BlockingProcess, ExternalSource, TrustAnchorStatus, TrustSource,
};
use saatkond_domain::effects::FinalizerChange;
use saatkond_domain::observed::{AdmissionPolicy, NamespaceAccess, ObservedPod, Published, Stored};
use saatkond_domain::schedule::resign_at;
use saatkond_domain::trust_anchor::build::{bundle_hash, registrations};
use saatkond_domain::trust_anchor::observed::{
    ObservedAuthority, ObservedConfigurationKey, ObservedSigningKey, ObservedTrustAnchor, UnlabelledKey,
};
use saatkond_domain::trust_anchor::plan::{AppliedTrustAnchor, TrustAnchorPlan};
use saatkond_domain::trust_anchor::{plan, status};

use crate::fixtures::{START, at, object};
use crate::world::{World, authority, forbidden, key, younger_twin};

fn outcome(seen: &ObservedTrustAnchor, now: jiff::Timestamp) -> TrustAnchorStatus {
    let plan = plan(seen, now);
    let applied = AppliedTrustAnchor { published: plan.publish.is_some(), link_leaf: None, failure: None };
    status(seen, &plan, &applied, now).status
}

fn reason(status: &TrustAnchorStatus, condition: ConditionType) -> (String, String, String) {
    let it = find(&status.conditions, condition).unwrap_or_else(|| panic!("no {condition} in {status:#?}"));
    (it.status.clone(), it.reason.clone(), it.message.clone())
}

fn edit<P: Clone + std::fmt::Debug>(published: &mut Published<P>, change: impl FnOnce(&mut P)) {
    let Published::Valid(document) = published else { panic!("{published:?}") };
    change(Arc::make_mut(&mut document.payload));
}

type Trace = fn(&mut ObservedTrustAnchor, &ObservedTrustAnchor);
type Change = fn(&mut World);

/// No write of any kind.
fn is_quiet(plan: &TrustAnchorPlan) -> bool {
    plan.finalizer == FinalizerChange::Keep
        && plan.create_authority.is_none()
        && plan.create_configuration_keys.is_empty()
        && plan.publish.is_none()
        && plan.link_leaf.is_none()
}

#[test]
fn an_authority_is_made_only_where_no_trace_of_one_is_left() {
    let steady = World::steady();
    let fresh = World::federation().observe_anchor(0);
    let made = plan(&fresh, at(START));
    let request = made.create_authority.expect("no trace: made");
    assert_eq!((request.generation, &*request.instance), (1, "EE"));
    assert_eq!(request.not_before, at(START - 300), "backdated five minutes");
    assert_eq!(request.lifetime, SignedDuration::from_hours(8760));
    assert!(made.publish.is_none(), "what is published depends on what is made");
    assert_eq!(made.next_check, at(START), "looked at again at once");

    let whole = steady.observe_anchor(0);
    let traces: [(&str, Trace); 4] = [
        ("a published document", |seen, whole| seen.published = whole.published.clone()),
        ("a document that someone has edited", |seen, _| {
            seen.published =
                Published::Invalid { resource_version: "1".into(), uid: "u".into(), why: "not gzip".into() };
        }),
        ("the status", |seen, whole| {
            let status =
                TrustAnchorStatus { bundle: whole.anchor.status.clone().unwrap().bundle, ..Default::default() };
            Arc::make_mut(&mut seen.anchor).status = Some(status);
        }),
        ("a damaged Secret", |seen, _| {
            let secret = Stored::Unusable { why: "no key".into(), resource_version: "1".into() };
            seen.authorities = vec![ObservedAuthority { generation: 1, uid: "ca-1".into(), secret }];
        }),
    ];
    for (name, leave) in traces {
        let mut seen = fresh.clone();
        leave(&mut seen, &whole);
        assert!(plan(&seen, at(START)).create_authority.is_none(), "{name}");
        let (holds, reason, message) = reason(&outcome(&seen, at(START)), ConditionType::AuthorityAvailable);
        assert_eq!((&*holds, &*reason), ("False", "AuthorityLost"), "{name}: {message}");
        assert!(message.contains("ee-ca-1"), "{name}: {message}");
    }
}

#[test]
fn a_lost_authority_stops_issuing_and_nothing_else() {
    let mut world = World::steady();
    world.authorities.clear();
    world.members[0].spec.display_name = Some("Renamed".into());
    let seen = world.observe_anchor(0);
    let document = plan(&seen, world.now).publish.expect("documents are published").payload;
    assert_eq!(document.bundle, world.document().bundle, "what is trusted stays trusted");
    assert_eq!(document.bundle_sequence, world.document().bundle_sequence);
    assert_eq!(reason(&outcome(&seen, world.now), ConditionType::Ready).1, "AuthorityLost");
}

#[test]
fn another_authority_under_the_same_generation_is_refused() {
    let mut world = World::steady();
    let other = authority(1, 9000);
    world.authorities.insert(1, other);
    let seen = world.observe_anchor(0);
    assert!(plan(&seen, world.now).publish.is_none());
    assert_eq!(reason(&outcome(&seen, world.now), ConditionType::AuthorityAvailable).1, "AuthorityLost");
}

#[test]
fn foreign_objects_are_named_and_never_touched() {
    let mut seen = World::federation().observe_anchor(0);
    seen.authorities = vec![ObservedAuthority { generation: 1, uid: "ca-1".into(), secret: Stored::Foreign }];
    let planned = plan(&seen, at(START));
    assert!(planned.create_authority.is_none());
    assert_eq!(planned.foreign[0].name, "ee-ca-1");
    assert_eq!(reason(&outcome(&seen, at(START)), ConditionType::Ready).1, "ForeignObject");

    let mut seen = World::steady().observe_anchor(0);
    seen.published = Published::Foreign;
    let planned = plan(&seen, at(START));
    assert!(planned.publish.is_none());
    assert_eq!(planned.foreign[0].name, "ee-instance-configuration");
    assert_eq!(reason(&outcome(&seen, at(START)), ConditionType::ConfigurationPublished).1, "ForeignObject");
}

#[test]
fn a_key_that_has_lost_its_labels_counts_and_gets_them_back() {
    let mut seen = World::steady().observe_anchor(0);
    assert!(plan(&seen, at(START)).relabel.is_empty());
    seen.unlabelled =
        vec![UnlabelledKey { role: "authority", generation: 1, name: "ee-ca-1".into(), uid: "ca-1".into() }];
    let planned = plan(&seen, at(START));
    assert_eq!((planned.relabel.len(), planned.foreign.len()), (1, 0));
    let meta = &planned.relabel[0];
    assert_eq!((meta.name.as_deref(), meta.uid.as_deref()), (Some("ee-ca-1"), Some("ca-1")));
    let labels = meta.labels.as_ref().unwrap();
    assert_eq!((&*labels["saatkond.io/role"], &*labels["saatkond.io/trust-anchor"]), ("authority", "ee"));
    assert_eq!(reason(&outcome(&seen, at(START)), ConditionType::Ready).1, "AsDeclared");
}

#[test]
fn configuration_keys_that_are_there_and_not_known_are_named_with_what_they_lack() {
    let foreign = |generation| ObservedConfigurationKey { generation, secret: Stored::Foreign };
    let mut seen = World::steady().observe_anchor(0);
    seen.configuration_keys = vec![foreign(1), foreign(2)];
    let (_, why, message) = reason(&outcome(&seen, at(START)), ConditionType::ConfigurationPublished);
    assert_eq!(why, "ConfigurationKeyLost");
    assert!(message.contains("ee-configuration-1") && message.contains("role=configuration-key"), "{message}");
    assert!(!message.contains("then delete"), "{message}");
    let mut seen = World::federation().observe_anchor(0);
    seen.configuration_keys = vec![foreign(2)];
    let (_, why, message) = reason(&outcome(&seen, at(START)), ConditionType::ConfigurationPublished);
    assert_eq!(why, "ForeignObject");
    assert!(message.contains("ee-configuration-2") && message.contains("keep a copy"), "{message}");
}

/// Neither the missing policy nor a pause may turn a document that somebody has deleted into one that lists nobody.
#[test]
fn a_document_that_was_deleted_is_published_again_with_whom_it_had() {
    let cases: [(&str, Change); 4] = [
        ("as it is", |_| {}),
        ("without the policy", |w| w.policy = AdmissionPolicy::Missing),
        ("paused anchor", |w| pause(w.anchors[0].annotations_mut())),
        ("paused members and servers", |w| {
            w.members.iter_mut().for_each(|member| pause(member.annotations_mut()));
            w.servers.iter_mut().for_each(|server| pause(server.annotations_mut()));
        }),
    ];
    for (name, change) in cases {
        let mut world = World::steady();
        change(&mut world);
        let before = world.document().clone();
        world.instance = Published::Absent;
        for index in 0..world.members.len() {
            world.reconcile_member(index).unwrap();
        }
        world.settle();
        let after = world.document();
        assert_eq!((&after.members, &after.servers), (&before.members, &before.servers), "{name}");
        assert!(after.version > before.version, "{name}");
    }
}

fn pause(annotations: &mut std::collections::BTreeMap<String, String>) {
    annotations.insert("saatkond.io/paused".into(), "true".into());
}

#[test]
fn nobody_is_told_to_delete_what_may_be_the_only_copy_of_a_key() {
    for (name, mut seen, deletes) in [
        ("nothing published", World::federation().observe_anchor(0), true),
        ("published", World::steady().observe_anchor(0), false),
    ] {
        seen.authorities = vec![ObservedAuthority { generation: 1, uid: "ca-1".into(), secret: Stored::Foreign }];
        let (_, why, message) = reason(&outcome(&seen, at(START)), ConditionType::AuthorityAvailable);
        assert_eq!(why, "ForeignObject", "{name}");
        assert_eq!(message.contains("then delete it"), deletes, "{name}: {message}");
        assert_eq!(message.contains("saatkond.io/role=authority"), !deletes, "{name}: {message}");
    }
}

#[test]
fn the_older_of_two_anchors_of_an_instance_stays() {
    let mut world = World::federation();
    let second = object(
        "{apiVersion: saatkond.io/v1alpha1, kind: TrustAnchor, metadata: {name: two}, spec: {instance: EE, source: {managed: {}}}}",
        "second-uid",
        START - 99,
    );
    world.anchors.push(second);
    let (first, second) = (world.observe_anchor(0), world.observe_anchor(1));
    assert!(plan(&first, world.now).create_authority.is_some());
    let planned = plan(&second, world.now);
    assert!(planned.create_authority.is_none() && planned.create_configuration_keys.is_empty());
    let (_, why, message) = reason(&outcome(&second, world.now), ConditionType::Ready);
    assert_eq!(why, "DuplicateInstance");
    assert!(message.contains("TrustAnchor ee "), "{message}");
    // Its members are still being taken out: until the last has gone it publishes, and there are never two who do.
    let mut leaving = World::steady();
    leaving.anchors.push(world.anchors[1].clone());
    leaving.anchors[0].metadata.deletion_timestamp = Some(Time(world.now));
    let waits = leaving.observe_anchor(1);
    assert!(plan(&waits, world.now).create_authority.is_none());
    let (_, why, message) = reason(&outcome(&waits, world.now), ConditionType::Ready);
    assert_eq!(why, "DuplicateInstance");
    assert!(message.contains("until the 3 members registered with it have gone"), "{message}");
    // Who merely names it, and may be anybody, holds nobody up.
    leaving.anchors[0].status.as_mut().unwrap().counts = None;
    let (_, why, _) = reason(&outcome(&leaving.observe_anchor(1), world.now), ConditionType::Ready);
    assert_ne!(why, "DuplicateInstance");
    // Another instance is no rival.
    world.anchors[1].spec.instance = "FI".parse().unwrap();
    assert!(plan(&world.observe_anchor(1), world.now).create_authority.is_some());
}

#[test]
fn a_document_is_signed_again_when_its_day_is_over_and_not_a_second_before() {
    let world = World::steady();
    let seen = world.observe_anchor(0);
    let due = resign_at(world.document().signed_at, "anchor-uid");
    let before = at(due.as_second() - 1);
    assert!(plan(&seen, before).publish.is_none());
    assert_eq!(plan(&seen, before).next_check, due);
    let again = plan(&seen, due).publish.expect("due").payload;
    assert_eq!(again.version, world.document().version + 1, "else nobody would fetch it");
    assert_eq!(again.bundle_sequence, world.document().bundle_sequence);
    assert_eq!(again.expires_at.duration_since(again.signed_at), SignedDuration::from_hours(96));
}

#[test]
fn another_autonomy_is_signed_at_once() {
    let mut world = World::steady();
    world.anchors[0].spec.autonomy = "100h".parse().unwrap();
    let document = plan(&world.observe_anchor(0), world.now).publish.unwrap().payload;
    assert_eq!(document.expires_at.duration_since(document.signed_at), SignedDuration::from_hours(124));
}

#[test]
fn versions_never_go_back() {
    let world = World::steady();
    let (version, sequence) = (world.document().version, world.document().bundle_sequence);

    let mut deleted = world.observe_anchor(0);
    deleted.published = Published::Absent;
    let publication = plan(&deleted, world.now).publish.expect("published anew");
    assert_eq!((publication.payload.version, publication.payload.bundle_sequence), (version + 1, sequence));
    assert_eq!(publication.replaces, None);

    let mut older = world.observe_anchor(0);
    edit(&mut older.published, |document| {
        document.version = version - 1;
        document.members.clear();
    });
    let planned = plan(&older, world.now);
    assert_eq!(planned.publish.as_ref().unwrap().payload.version, version + 1);
    assert!(planned.publish.as_ref().unwrap().replaces.is_some(), "replaces exactly what was read");
    assert_eq!(planned.events[0].reason, Reason::DriftRepaired);

    let mut unlabelled = world.observe_anchor(0);
    let Published::Valid(document) = &mut unlabelled.published else { unreachable!() };
    document.intact = false;
    let planned = plan(&unlabelled, world.now);
    assert_eq!(planned.publish.as_ref().expect("no watch shows it").payload.version, version + 1);
    assert_eq!(planned.events[0].reason, Reason::DriftRepaired);

    let mut edited = world.observe_anchor(0);
    edited.published = Published::Invalid { resource_version: "77".into(), uid: "u".into(), why: "signature".into() };
    let publication = plan(&edited, world.now).publish.unwrap();
    assert_eq!((publication.payload.version, publication.replaces.as_deref()), (version + 1, Some("77")));

    // Nothing was written to the status for what could not be read.
    let kept = status(&edited, &plan(&edited, world.now), &AppliedTrustAnchor::default(), world.now).status;
    assert_eq!(kept.configuration, edited.anchor.status.as_ref().unwrap().configuration);
}

#[test]
fn the_sequence_rises_with_the_bundle_and_the_signing_generation_only() {
    let mut world = World::steady();
    let sequence = world.document().bundle_sequence;
    world.members[0].spec.display_name = Some("Renamed".into());
    let document = plan(&world.observe_anchor(0), world.now).publish.unwrap().payload;
    assert_eq!((document.version, document.bundle_sequence), (world.document().version + 1, sequence));

    let mut seen = world.observe_anchor(0);
    edit(&mut seen.published, |document| document.bundle_sequence = 7);
    edit(&mut seen.published, |document| document.signing_generation = 1);
    assert_eq!(plan(&seen, world.now).publish.unwrap().payload.bundle_sequence, 7, "nothing of the bundle changed");
}

#[test]
fn configuration_keys() {
    let world = World::steady();
    let seen = |keep: &[u64]| {
        let mut seen = world.observe_anchor(0);
        seen.configuration_keys.retain(|key| keep.contains(&key.generation));
        seen
    };
    // Only the first was made when the process died.
    let mut half = World::federation().observe_anchor(0);
    half.configuration_keys = seen(&[1]).configuration_keys;
    let made = plan(&half, at(START)).create_configuration_keys;
    assert_eq!(made.iter().map(|key| key.generation).collect::<Vec<_>>(), [2]);

    let lost_next = plan(&seen(&[1]), world.now);
    assert_eq!(lost_next.create_configuration_keys[0].generation, 3, "no generation number is used for two keys");

    // The announced one takes over; a new one is announced.
    let lost_current = plan(&seen(&[2]), world.now);
    assert_eq!(lost_current.create_configuration_keys[0].generation, 3);
    let mut later = world.observe_anchor(0);
    later.configuration_keys[0].generation = 3;
    later.configuration_keys.sort_by_key(|key| key.generation);
    let publication = plan(&later, world.now).publish.expect("signed by the key that took over");
    assert_eq!(publication.key_generation, 2);
    let keys = publication.payload.configuration_keys;
    assert_eq!((keys.current.generation, keys.next.generation), (2, 3));

    let none = seen(&[]);
    assert!(plan(&none, world.now).publish.is_none() && plan(&none, world.now).create_configuration_keys.is_empty());
    let (_, why, message) = reason(&outcome(&none, world.now), ConditionType::Ready);
    assert_eq!(why, "ConfigurationKeyLost");
    assert!(message.contains("ee-configuration-1") && message.contains("ee-configuration-2"), "{message}");
}

#[test]
fn who_is_registered() {
    let names = |world: &World| {
        let found = registrations(&world.observe_anchor(0));
        let members: Vec<_> = found.members.iter().map(|it| it.member_code.clone()).collect();
        let servers: Vec<_> = found.servers.iter().map(|it| it.address.clone()).collect();
        (members.join(" "), servers.join(" "))
    };
    let (all, both) = ("1 70000001 70000002", "ss1.population.example:5500 ss1.benefits.svc:5500");
    let steady = World::steady();
    let cases: [(&str, Change, &str, &str); 9] = [
        ("everybody", |_| {}, all, both),
        ("annotation taken away", |w| w.admit("benefits", None), "1 70000001", "ss1.population.example:5500"),
        (
            "rights lost for a while",
            |w| {
                w.namespaces.get_mut("benefits").unwrap().access = NamespaceAccess::Denied;
            },
            all,
            both,
        ),
        ("namespace not seen", |w| drop(w.namespaces.remove("benefits")), all, both),
        ("policy missing", |w| w.policy = AdmissionPolicy::Missing, all, both),
        ("member being deleted", |w| w.delete_member(0), "1 70000002", "ss1.benefits.svc:5500"),
        ("server being deleted", |w| w.delete_server(0), all, "ss1.benefits.svc:5500"),
        ("server without finalizer", |w| w.servers[0].metadata.finalizers = None, all, "ss1.benefits.svc:5500"),
        (
            "member without finalizer",
            |w| w.members[1].metadata.finalizers = None,
            "1 70000001",
            "ss1.population.example:5500",
        ),
    ];
    for (name, change, members, servers) in cases {
        let mut world = steady.clone();
        change(&mut world);
        assert_eq!(names(&world), (members.to_owned(), servers.to_owned()), "{name}");
    }
    // What is not registered yet is judged more strictly.
    let mut fresh = World::federation();
    fresh.policy = AdmissionPolicy::Missing;
    fresh.settle();
    assert_eq!(names(&fresh).0, "", "nobody new without the policy");
}

#[test]
fn an_older_claim_from_a_namespace_that_is_not_seen_pushes_nobody_out() {
    let steady = World::steady();
    let before = registrations(&steady.observe_anchor(0));
    let mut contested = steady;
    let mut squatter = contested.members[1].clone();
    squatter.metadata.namespace = Some("elsewhere".into());
    squatter.metadata.uid = Some("squatter-uid".into());
    squatter.metadata.creation_timestamp = Some(Time(at(START - 1000)));
    squatter.metadata.finalizers = None;
    contested.members.push(squatter);
    let cases: [(&str, Change); 3] = [
        ("the other is seen", |_| {}),
        ("neither is", |w| drop(w.namespaces.remove("benefits"))),
        ("it is seen, may claim nothing, and its rights are not known yet", |w| {
            w.admit("elsewhere", None);
            w.namespaces.get_mut("elsewhere").unwrap().access = NamespaceAccess::Unknown;
        }),
    ];
    for (name, change) in cases {
        let mut world = contested.clone();
        change(&mut world);
        let after = registrations(&world.observe_anchor(0));
        assert_eq!((&after.members, &after.servers), (&before.members, &before.servers), "{name}");
        assert!(plan(&world.observe_anchor(0), world.now).publish.is_none(), "{name}");
    }
}

#[test]
fn guests_need_both_sides() {
    let clients = |world: &World| registrations(&world.observe_anchor(0)).servers[1].clients.len();
    let steady = World::steady();
    assert_eq!(clients(&steady), 3);
    let mut unlisted = steady.clone();
    unlisted.servers[1].spec.guests.clear();
    assert_eq!(clients(&unlisted), 2);
    let mut unnamed = steady;
    unnamed.members[2].spec.subsystems[0].servers = None;
    assert_eq!(clients(&unnamed), 2, "unset means the member's own servers, never somebody else's");
}

#[test]
fn a_paused_object_keeps_its_entry_and_can_still_be_taken_out() {
    let mut world = World::steady();
    pause(world.members[0].annotations_mut());
    pause(world.servers[1].annotations_mut());
    world.members[0].spec.display_name = Some("Renamed".into());
    world.servers[1].spec.address = Some("elsewhere.example".into());
    assert!(plan(&world.observe_anchor(0), world.now).publish.is_none());
    // The guest leaves the paused server's entry all the same.
    world.delete_member(2);
    let document = plan(&world.observe_anchor(0), world.now).publish.unwrap().payload;
    assert_eq!(document.servers[1].clients.len(), 2);
    assert_eq!(document.servers[1].address, "ss1.benefits.svc:5500");
}

#[test]
fn a_paused_anchor_passes_no_entry_on_to_the_next_server_with_its_code() {
    let mut world = World::steady();
    world.servers.push(younger_twin(&world.servers[1]));
    world.anchors[0].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    world.delete_server(1);
    let document = plan(&world.observe_anchor(0), world.now).publish.expect("taken out").payload;
    assert!(document.servers.iter().all(|entry| entry.address != "ss1.benefits.svc:5500"), "{:?}", document.servers);
    world.settle();
    assert!(world.servers.iter().all(|it| it.uid().as_deref() != Some("consumer-server-uid")), "it has gone");
}

#[test]
fn what_a_paused_member_has_published_stays_and_nothing_is_added() {
    let mut world = World::steady();
    for member in &mut world.members[1..] {
        member.annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    }
    let standing = world.document().servers.clone();
    // One subsystem of the owner goes to no server, another one comes; the guest comes with one more.
    world.members[1].spec.subsystems[1].servers = Some(vec![]);
    world.members[1].spec.subsystems[0].code = "other".parse().unwrap();
    let mut second = world.members[2].spec.subsystems[0].clone();
    second.code = "second".parse().unwrap();
    world.members[2].spec.subsystems.push(second);
    assert_eq!(registrations(&world.observe_anchor(0)).servers, standing);
    assert!(plan(&world.observe_anchor(0), world.now).publish.is_none());

    // What others say of it is not its spec.
    let clients = |world: &World| registrations(&world.observe_anchor(0)).servers[1].clients.len();
    let mut unlisted = world.clone();
    unlisted.servers[1].spec.guests.clear();
    assert_eq!(clients(&unlisted), 2, "the server does not take it any more");
    let mut refused = world.clone();
    refused.admit("clinic", None);
    assert_eq!(clients(&refused), 2, "it is not admitted any more");
    world.members[1].annotations_mut().clear();
    assert_eq!(clients(&world), 2, "the pause is over: `other` alone, and the guest's");
}

#[test]
fn a_paused_member_that_was_never_published_is_registered_with_nothing() {
    let mut world = World::federation();
    world.members[1].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    world.members[2].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    world.settle();
    let document = world.document();
    let codes: Vec<_> = document.members.iter().map(|it| &*it.member_code).collect();
    assert_eq!(codes, ["70000001"]);
    assert_eq!(document.servers.len(), 1, "its server would act for somebody whom no entry announces");
    world.members[1].annotations_mut().clear();
    world.settle();
    let clients = &world.document().servers[1].clients;
    assert_eq!((world.document().members.len(), clients.len()), (2, 2), "the guest waits still");
}

fn external(certificates: &[String], key: bool) -> TrustSource {
    let signing_key_secret_ref = key.then(|| OperatorSecretRef { name: "signer".into() });
    let external = ExternalSource { certificates: certificates.to_vec(), signing_key_secret_ref };
    TrustSource { managed: None, external: Some(external) }
}

#[test]
fn an_external_source() {
    let (one, two) = (authority(1, 8760), authority(2, 8760));
    let key = |of: &saatkond_pki::authority::AuthorityCertificate| ObservedSigningKey::Present {
        spki_sha256: of.facts().spki_sha256.to_string(),
    };
    for (name, certificates, named, signing_key, available, ready) in [
        ("with its key", vec![one.to_pem()], true, key(&one), "AsDeclared", "AsDeclared"),
        ("without a key", vec![one.to_pem()], false, ObservedSigningKey::NotNamed, "SigningKeyMissing", "AsDeclared"),
        (
            "key Secret missing",
            vec![one.to_pem()],
            true,
            ObservedSigningKey::Absent,
            "SigningKeyMissing",
            "SigningKeyMissing",
        ),
        ("another key", vec![one.to_pem()], true, key(&two), "SigningKeyMismatch", "SigningKeyMismatch"),
        ("not a certificate", vec!["rubbish".into()], true, key(&one), "CertificateInvalid", "CertificateInvalid"),
        ("one of two", vec![one.to_pem(), two.to_pem()], true, key(&two), "AsDeclared", "AsDeclared"),
    ] {
        let mut world = World::federation();
        world.anchors[0].spec.source = external(&certificates, named);
        let keys = World::steady().observe_anchor(0).configuration_keys;
        let mut seen = world.observe_anchor(0);
        seen.configuration_keys = keys;
        seen.signing_key = signing_key;
        let status = outcome(&seen, world.now);
        assert_eq!(reason(&status, ConditionType::AuthorityAvailable).1, available, "{name}");
        let published = plan(&seen, world.now).publish;
        assert_eq!(published.is_some(), name != "not a certificate", "{name}: everything else works");
        if published.is_some() {
            assert_eq!(reason(&status, ConditionType::Ready).1, ready, "{name}");
        }
        assert!(plan(&seen, world.now).create_authority.is_none(), "{name}");
        if name == "with its key" {
            // The status was written and the document not, or it was lost: under another number every leaf would be issued anew.
            Arc::make_mut(&mut seen.anchor).status = Some(status);
            let again = plan(&seen, world.now).publish.expect("still to be published").payload;
            assert_eq!(again.bundle.iter().map(|entry| entry.generation).collect::<Vec<_>>(), [1]);
        }
    }
}

#[test]
fn another_external_authority_signs_only_when_every_process_trusts_it() {
    let (one, two) = (authority(1, 8760), authority(2, 8760));
    let mut world = World::steady();
    assert_eq!(world.authorities[&1], one, "the steady world's authority, now given from outside");
    world.anchors[0].spec.source = external(&[one.to_pem(), two.to_pem()], true);
    let observe = |world: &World| {
        let mut seen = world.observe_anchor(0);
        seen.signing_key = ObservedSigningKey::Present { spki_sha256: two.facts().spki_sha256.to_string() };
        seen
    };
    let announced = plan(&observe(&world), world.now).publish.expect("announced").payload;
    assert_eq!((announced.bundle.len(), announced.signing_generation, announced.bundle_sequence), (2, 1, 2));
    let mut paused = world.clone();
    paused.anchors[0].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    assert!(plan(&observe(&paused), world.now).publish.is_none(), "a paused anchor announces nobody");

    edit(&mut world.instance, |document| *document = announced.clone());
    let waiting = observe(&world);
    assert!(plan(&waiting, world.now).publish.is_none(), "no process has loaded it yet");
    assert_eq!(reason(&outcome(&waiting, world.now), ConditionType::AuthorityAvailable).1, "Waiting");

    let hash = bundle_hash(&announced);
    let sequence = |world: &mut World, index: usize, process: usize, to: u64| {
        let receipt = &mut world.servers[index].status.as_mut().unwrap().processes[process];
        (receipt.bundle_sequence, receipt.bundle_hash) = (to, hash.clone());
    };
    for (index, process) in [(0, 0), (0, 1), (1, 0)] {
        sequence(&mut world, index, process, 2);
        assert!(plan(&observe(&world), world.now).publish.is_none(), "not every process has loaded it");
    }
    sequence(&mut world, 1, 1, 2);
    let switched = plan(&observe(&world), world.now).publish.expect("switched").payload;
    assert_eq!((switched.signing_generation, switched.bundle_sequence), (2, 3));
    // As many receipts as replicas, but one of them is of a pod that is ending, and the new one has stated nothing.
    let mut surging = observe(&world);
    let place = key(&world.servers[1]);
    let pods = surging.pods.as_mut().unwrap().get_mut(&place).unwrap();
    pods.push(ObservedPod { uid: "new".into(), ..pods[0].clone() });
    assert!(plan(&surging, world.now).publish.is_none(), "a new pod has stated nothing");
    // What caches show may be behind: such a transition is decided again.
    let mut cached = observe(&world);
    assert!(!plan(&cached, world.now).decide_again);
    cached.pods = None;
    assert!(plan(&cached, world.now).decide_again);
    // A pod without a receipt counts as one that has not.
    world.servers[1].status.as_mut().unwrap().processes.pop();
    assert!(plan(&observe(&world), world.now).publish.is_none());
}

#[test]
fn an_external_certificate_that_cannot_be_read_takes_none_that_is_published_away() {
    let (one, two, three) = (authority(1, 8760), authority(2, 8760), authority(3, 8760));
    let mut world = World::steady();
    let truncated = |certificate: &saatkond_pki::authority::AuthorityCertificate| {
        let pem = certificate.to_pem();
        pem[..pem.len() / 2].to_owned()
    };
    let observe = |world: &World, certificates: &[String], key: &saatkond_pki::authority::AuthorityCertificate| {
        let mut world = world.clone();
        world.anchors[0].spec.source = external(certificates, true);
        let mut seen = world.observe_anchor(0);
        seen.signing_key = ObservedSigningKey::Present { spki_sha256: key.facts().spki_sha256.to_string() };
        seen
    };
    let available = |seen: &ObservedTrustAnchor| reason(&outcome(seen, world.now), ConditionType::AuthorityAvailable);
    // With the first one lost the second one alone would be announced, and every peer under the first one be refused.
    let damaged = observe(&world, &[truncated(&one), two.to_pem()], &one);
    assert!(plan(&damaged, world.now).publish.is_none(), "the published bundle stays");
    let (status, why, message) = available(&damaged);
    assert_eq!((&*status, &*why), ("False", "CertificateInvalid"));
    assert!(message.starts_with("certificate 1 of spec.source.external"), "{message}");
    assert_eq!(outcome(&damaged, world.now).signing_generation, None, "beside its key there is no certificate");
    // An entry that comes is nothing that is lost: what can be issued is issued.
    let coming = observe(&world, &[one.to_pem(), truncated(&two), three.to_pem()], &one);
    assert!(plan(&coming, world.now).publish.is_none(), "all of the list or none");
    assert!(available(&coming).2.starts_with("certificate 2 of spec.source.external"));
    assert_eq!(outcome(&coming, world.now).signing_generation, Some(1));

    let mended = observe(&world, &[one.to_pem(), two.to_pem()], &one);
    let document = plan(&mended, world.now).publish.expect("announced").payload;
    assert_eq!((document.bundle.len(), document.signing_generation), (2, 1));
    // Nor is the first document made of what happens to be readable.
    world.instance = Published::Absent;
    world.anchors[0].status = None;
    assert!(plan(&observe(&world, &[truncated(&one), two.to_pem()], &two), world.now).publish.is_none());
}

#[test]
fn an_authority_that_ends() {
    let world = World::steady();
    let seen = world.observe_anchor(0);
    let ends = world.authorities[&1].not_after().as_second();
    // Retirement a day, a third of a leaf five days.
    let last = ends - 24 * 3600 - 120 * 3600;
    for (name, now, expected, state) in [
        ("the last second", last, "AsDeclared", AuthorityState::Active),
        ("one second later", last + 1, "AuthorityExpiring", AuthorityState::Expiring),
        ("its last second", ends, "AuthorityExpiring", AuthorityState::Expiring),
        ("after it", ends + 1, "AuthorityExpired", AuthorityState::Expired),
    ] {
        let status = outcome(&seen, at(now));
        assert_eq!(reason(&status, ConditionType::AuthorityAvailable).1, expected, "{name}");
        assert_eq!(status.authorities[0].state, state, "{name}");
        assert_eq!(status.signing_generation.is_some(), expected == "AsDeclared", "{name}");
        assert_eq!(status.bundle.unwrap().generations, [1], "{name}: a bundle is never empty");
    }
}

#[test]
fn the_links_leaf() {
    let world = World::steady();
    let seen = world.observe_anchor(0);
    let leaf = world.link_leaf.facts().unwrap();
    assert_eq!((&*leaf.uri, &*leaf.dns_names[0]), ("saatkond://EE/link?use=link", "ee.link.saatkond.internal"));
    let due = saatkond_domain::schedule::renew_at(leaf, "anchor-uid", None);
    assert!(plan(&seen, at(due.as_second() - 1)).link_leaf.is_none());
    assert!(plan(&seen, due).link_leaf.is_some());
    let mut unpublished = seen.clone();
    unpublished.published = Published::Absent;
    unpublished.link_leaf = Stored::Absent;
    assert!(plan(&unpublished, world.now).link_leaf.is_none(), "gateways would not know its authority");
    let mut foreign = seen.clone();
    foreign.link_leaf = Stored::Foreign;
    assert_eq!(plan(&foreign, world.now).foreign[0].name, "saatkond-link-identity");
    let (_, why, message) = reason(&outcome(&foreign, world.now), ConditionType::Ready);
    assert_eq!(why, "ForeignObject");
    assert!(message.contains("Secret saatkond-link-identity"), "{message}");
    let mut damaged = seen;
    damaged.link_leaf = Stored::Unusable { why: "not JSON".into(), resource_version: "1".into() };
    assert!(plan(&damaged, world.now).link_leaf.is_some());
}

#[test]
fn the_finalizer_keeps_the_anchor_while_members_refer_to_it() {
    let mut world = World::steady();
    world.anchors[0].metadata.deletion_timestamp = Some(Time(world.now));
    assert_eq!(plan(&world.observe_anchor(0), world.now).finalizer, FinalizerChange::Keep);
    let (_, why, message) = reason(&outcome(&world.observe_anchor(0), world.now), ConditionType::Ready);
    assert_eq!((&*why, &*message), ("Deregistering", "3 members still refer to it; it stays until they are gone"));
    world.delete_member(0);
    assert!(plan(&world.observe_anchor(0), world.now).publish.is_some(), "its members are still taken out");
    world.members.clear();
    let planned = plan(&world.observe_anchor(0), world.now);
    assert_eq!(planned.finalizer, FinalizerChange::Remove);
    assert!(planned.publish.is_none());
}

#[test]
fn admission_and_pause_show_in_conditions() {
    let mut world = World::steady();
    assert!(is_quiet(&plan(&world.observe_anchor(0), world.now)));
    world.policy = AdmissionPolicy::Missing;
    let status = outcome(&world.observe_anchor(0), world.now);
    assert_eq!(reason(&status, ConditionType::Ready).1, "AdmissionPolicyMissing");
    world.anchors[0].spec.admission = AdmissionMode::Open;
    let status = outcome(&world.observe_anchor(0), world.now);
    assert_eq!(reason(&status, ConditionType::AdmissionGuarded).1, "AdmissionOpen");
    assert_eq!(reason(&status, ConditionType::Ready).1, "AsDeclared");
    world.anchors[0].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    assert_eq!(reason(&outcome(&world.observe_anchor(0), world.now), ConditionType::Ready).1, "Paused");
}

#[test]
fn who_blocks_is_named_and_since_when() {
    let mut world = World::steady();
    let counts = world.anchors[0].status.as_ref().unwrap().counts.unwrap();
    assert_eq!((counts.members, counts.security_servers, counts.processes, counts.receipts_current), (3, 2, 4, 4));
    world.servers[0].status.as_mut().unwrap().processes[1].bundle_sequence = 0;
    world.servers[1].status.as_mut().unwrap().processes.pop();
    world.later(60);
    world.anchors[0].status = Some(outcome(&world.observe_anchor(0), world.now));
    world.later(60);
    let status = outcome(&world.observe_anchor(0), world.now);
    let shown = |status: &TrustAnchorStatus| -> Vec<_> {
        let since = |blocking: &BlockingProcess| blocking.since.0.as_second() - START;
        let all = status.blocking.iter();
        all.map(|b| (b.namespace.clone(), b.pod_uid.clone(), b.reason.clone(), since(b))).collect()
    };
    let expected = |silent: Option<&str>, since| {
        vec![
            ("benefits".to_owned(), silent.map(str::to_owned), "NoProcess".to_owned(), since),
            ("population-register".into(), Some("provider-server-uid-pod-1".into()), "ReceiptsPending".into(), 60),
        ]
    };
    assert_eq!(shown(&status), expected(Some("consumer-server-uid-pod-1"), 60));
    // Caches show how many pods there are, and not which.
    let cached = ObservedTrustAnchor { pods: None, ..world.observe_anchor(0) };
    assert_eq!(shown(&outcome(&cached, world.now)), expected(None, 120));
    assert_eq!(status.counts.unwrap().receipts_current, 2);
}

#[test]
fn how_long_it_serves_without_the_operator() {
    let mut world = World::steady();
    let until = |world: &World| outcome(&world.observe_anchor(0), world.now).serves_without_operator_until.unwrap().0;
    assert_eq!(until(&world), at(START + 96 * 3600), "the documents are the weakest");
    world.servers[0].status.as_mut().unwrap().leaf.as_mut().unwrap().not_after = Time(at(START + 90 * 3600 + 59 * 60));
    assert_eq!(until(&world), at(START + 90 * 3600), "a leaf is, cut to the hour");
    world.servers[1].status.as_mut().unwrap().signing[0].not_after = Time(at(START + 80 * 3600));
    assert_eq!(until(&world), at(START + 80 * 3600), "a signing leaf is");
    let place = key(&world.servers[1]);
    edit(world.configurations.get_mut(&place).unwrap(), |document| document.expires_at = at(START + 70 * 3600));
    assert_eq!(until(&world), at(START + 70 * 3600), "a server's document is");
    // It is not signed again once its owner may not claim the identity any more, and nobody is served by it.
    world.admit("benefits", None);
    assert_eq!(until(&world), at(START + 90 * 3600), "what is left of a server that was taken out counts for nothing");
}

#[test]
fn a_failure_shows_and_changes_nothing_else() {
    let world = World::steady();
    let seen = world.observe_anchor(0);
    let applied = AppliedTrustAnchor { failure: Some(forbidden()), ..AppliedTrustAnchor::default() };
    let after = status(&seen, &plan(&seen, world.now), &applied, world.now).status;
    assert_eq!(reason(&after, ConditionType::Ready).1, "Forbidden");
    let before = seen.anchor.status.clone().unwrap();
    assert_eq!((after.bundle, after.configuration, after.counts), (before.bundle, before.configuration, before.counts));
}
