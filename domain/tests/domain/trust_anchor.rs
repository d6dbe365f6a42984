//! Decisions about trust anchors: who is registered, when documents are published, what the status says. Keys: `trust_anchor_keys`.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::conditions::{ConditionType, Reason, find};
use saatkond_api::v1alpha1::trust_anchor::{AdmissionMode, BlockingProcess, TrustAnchorStatus};
use saatkond_domain::effects::FinalizerChange;
use saatkond_domain::observed::{AdmissionPolicy, NamespaceAccess, Published, Stored};
use saatkond_domain::schedule::resign_at;
use saatkond_domain::trust_anchor::build::registrations;
use saatkond_domain::trust_anchor::observed::{ObservedAuthority, ObservedTrustAnchor};
use saatkond_domain::trust_anchor::plan::{AppliedTrustAnchor, TrustAnchorPlan};
use saatkond_domain::trust_anchor::{plan, status};

use crate::fixtures::{START, at, object};
use crate::world::{World, forbidden, key, younger_twin};

pub fn outcome(seen: &ObservedTrustAnchor, now: jiff::Timestamp) -> TrustAnchorStatus {
    let plan = plan(seen, now);
    let applied = AppliedTrustAnchor { published: plan.publish.is_some(), link_leaf: None, failure: None };
    status(seen, &plan, &applied, now).status
}

pub fn reason(status: &TrustAnchorStatus, condition: ConditionType) -> (String, String, String) {
    let it = find(&status.conditions, condition).unwrap_or_else(|| panic!("no {condition} in {status:#?}"));
    (it.status.clone(), it.reason.clone(), it.message.clone())
}

pub fn edit<P: Clone + std::fmt::Debug>(published: &mut Published<P>, change: impl FnOnce(&mut P)) {
    let Published::Valid(document) = published else { panic!("{published:?}") };
    change(Arc::make_mut(&mut document.payload));
}

type Change = fn(&mut World);

/// No write of any kind.
pub fn is_quiet(plan: &TrustAnchorPlan) -> bool {
    plan.finalizer == FinalizerChange::Keep
        && plan.relabel.is_empty()
        && plan.create_authority.is_none()
        && plan.create_configuration_keys.is_empty()
        && plan.publish.is_none()
        && plan.link_leaf.is_none()
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
    let blocks = |namespace: &str, pod: &str, reason: &str| (namespace.into(), Some(pod.into()), reason.into(), 60);
    let expected = [
        blocks("benefits", "consumer-server-uid-pod-1", "NoProcess"),
        blocks("population-register", "provider-server-uid-pod-1", "ReceiptsPending"),
    ];
    assert_eq!(shown(&status), expected);
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
