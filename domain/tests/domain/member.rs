//! Decisions about members.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::Member;
use saatkond_api::conditions::{ConditionType, find};
use saatkond_api::v1alpha1::member::{AccessSubject, MemberStatus};
use saatkond_api::v1alpha1::trust_anchor::AdmissionMode;
use saatkond_domain::effects::{Failure, FinalizerChange};
use saatkond_domain::member::observed::ObservedMember;
use saatkond_domain::member::plan::AppliedMember;
use saatkond_domain::member::{plan, status};
use saatkond_domain::observed::{AdmissionPolicy, NamespaceAccess, ObservedDescription, Published};

use crate::fixtures::{self, START};
use crate::world::World;

fn outcome(seen: &ObservedMember) -> MemberStatus {
    status(seen, &AppliedMember::default(), fixtures::at(START)).status
}

fn reason(status: &MemberStatus, condition: ConditionType) -> (String, String) {
    let it = find(&status.conditions, condition).unwrap_or_else(|| panic!("no {condition} in {status:#?}"));
    (it.reason.clone(), it.message.clone())
}

#[test]
fn what_a_member_that_is_ready_shows() {
    let world = World::steady();
    let status = world.members[1].status.clone().unwrap();
    assert_eq!(status.identity.as_deref(), Some("EE/GOV/70000002"));
    assert_eq!(status.registered_subsystems, ["archive", "benefits"]);
    assert_eq!(status.servers.iter().map(|it| &*it.identity).collect::<Vec<_>>(), ["EE/GOV/70000002/ss1"]);
    assert_eq!(status.services, Some(0));
    let guest = world.members[2].status.clone().unwrap();
    assert_eq!((&*guest.servers[0].namespace, &*guest.servers[0].identity), ("benefits", "EE/GOV/70000002/ss1"));
    assert_eq!(world.members[0].status.as_ref().unwrap().services, Some(2));
}

#[test]
fn admission() {
    type Change = fn(&mut World);
    let identity = "kubectl saatkond admit benefits EE/GOV/70000002";
    let cases: [(&str, Change, &str, &str, FinalizerChange); 7] = [
        ("admitted", |_| {}, "AsDeclared", "may claim", FinalizerChange::Add),
        ("no rights", |w| deny(w), "NamespaceNotAdmitted", "kubectl saatkond admit benefits", FinalizerChange::Keep),
        ("no annotation", |w| w.admit("benefits", None), "IdentityNotAdmitted", identity, FinalizerChange::Keep),
        (
            "neither",
            |w| {
                w.admit("benefits", None);
                deny(w);
            },
            "IdentityNotAdmitted",
            identity,
            FinalizerChange::Keep,
        ),
        (
            "open",
            |w| {
                w.admit("benefits", None);
                w.anchors[0].spec.admission = AdmissionMode::Open;
            },
            "AdmissionOpen",
            "development",
            FinalizerChange::Add,
        ),
        (
            "unguarded",
            |w| w.policy = AdmissionPolicy::Missing,
            "AdmissionPolicyMissing",
            "chart",
            FinalizerChange::Keep,
        ),
        (
            "no anchor",
            |w| w.anchors.clear(),
            "TrustAnchorNotFound",
            "TrustAnchor ee does not exist",
            FinalizerChange::Keep,
        ),
    ];
    for (name, change, expected, words, finalizer) in cases {
        let mut world = World::federation();
        change(&mut world);
        let seen = world.observe_member(1);
        let (found, message) = reason(&outcome(&seen), ConditionType::Admitted);
        assert_eq!(found, expected, "{name}");
        assert!(message.contains(words), "{name}: {message}");
        assert_eq!(plan(&seen, world.now).finalizer, finalizer, "{name}");
    }
}

fn deny(world: &mut World) {
    world.namespaces.get_mut("benefits").unwrap().access = NamespaceAccess::Denied;
}

/// Another member with the same identity.
fn claimant(mut like: Member, namespace: &str, created: i64) -> Member {
    like.metadata.uid = Some(format!("{namespace}-uid"));
    like.metadata.namespace = Some(namespace.to_owned());
    like.metadata.creation_timestamp = Some(Time(fixtures::at(created)));
    like
}

#[test]
fn the_older_of_two_members_with_one_identity_stays() {
    for (name, created, admitted, own) in [
        ("older and admitted", START - 81, true, "DuplicateIdentity"),
        ("younger", START - 79, true, "AsDeclared"),
        ("older, but not admitted: nobody is pushed out by a mere claim", START - 81, false, "AsDeclared"),
    ] {
        let mut world = World::federation();
        let other = claimant(fixtures::consumer(), "elsewhere", created);
        world.admit("elsewhere", admitted.then_some("EE/GOV/70000002"));
        world.members.push(other);
        let seen = world.observe_member(1);
        let (found, message) = reason(&outcome(&seen), ConditionType::Admitted);
        assert_eq!(found, own, "{name}");
        if own == "DuplicateIdentity" {
            assert!(message.contains("elsewhere/benefits"), "{message}");
            assert_eq!(plan(&seen, world.now).finalizer, FinalizerChange::Keep, "{name}");
            world.settle();
            let status = outcome(&world.observe_member(1));
            assert!(status.registered_subsystems.is_empty(), "the entry is the other's: {status:#?}");
        }
    }
}

/// Without the policy the annotation proves nothing: who writes himself one must get nothing by it, older or not.
#[test]
fn without_the_policy_the_registered_member_stays_and_no_other_becomes_it() {
    let mut world = World::steady();
    world.policy = AdmissionPolicy::Missing;
    let mut squatter = claimant(fixtures::consumer(), "elsewhere", START - 1000);
    // Anybody may set it on his own object.
    squatter.metadata.finalizers = Some(vec![saatkond_api::names::finalizer::MEMBER.into()]);
    let mut server = fixtures::consumer_server();
    server.metadata.uid = Some("squatter-server-uid".into());
    server.metadata.namespace = Some("elsewhere".into());
    world.admit("elsewhere", Some("EE/GOV/70000002"));
    world.members.push(squatter);
    world.servers.push(server);
    let before = world.document().clone();
    world.settle();
    assert_eq!((&world.document().members, &world.document().servers), (&before.members, &before.servers));
    let admitted = |index| reason(&outcome(&world.observe_member(index)), ConditionType::Admitted).0;
    assert_eq!((&*admitted(1), &*admitted(3)), ("AsDeclared", "AdmissionPolicyMissing"));
    assert!(!world.identities.contains_key(&("elsewhere".into(), "ss1".into())), "no leaf in the other's name");

    // Nor does it inherit when the registered one goes.
    world.delete_member(1);
    world.settle();
    assert!(world.document().members.iter().all(|it| it.member_code != "70000002"), "{:#?}", world.document().members);
    world.policy = AdmissionPolicy::Installed;
    world.settle();
    assert!(world.document().members.iter().any(|it| it.member_code == "70000002"), "the annotation counts again");
}

/// What is told of a member that is registered must not depend on rights in its namespace, nor on a document that somebody has
/// deleted: with the next look somebody else would pass for it.
#[test]
fn a_registered_member_stays_registered_without_rights_and_without_a_readable_document() {
    type Change = fn(&mut World);
    let cases: [(&str, Change); 3] = [
        ("no rights", |w| deny(w)),
        ("no document", |w| w.instance = Published::Absent),
        ("a broken document", |w| {
            w.instance = Published::Invalid { resource_version: "1".into(), uid: "u".into(), why: "rubbish".into() };
        }),
    ];
    for (name, change) in cases {
        for policy in [AdmissionPolicy::Missing, AdmissionPolicy::Installed] {
            let mut world = World::steady();
            world.policy = policy;
            world.admit("elsewhere", Some("EE/GOV/70000002"));
            world.members.push(claimant(fixtures::consumer(), "elsewhere", START));
            change(&mut world);
            world.reconcile_member(3).unwrap();
            world.reconcile_member(1).unwrap();
            let status = world.members[1].status.clone().unwrap();
            assert_eq!(reason(&status, ConditionType::Registered).0, "AsDeclared", "{name}, {policy:?}");
            assert_eq!(status.registered_subsystems, ["archive", "benefits"], "{name}, {policy:?}");
        }
    }
}

/// Anybody may create a Member with another's identity in his own namespace: it changes nothing for the other's servers and hosts.
#[test]
fn a_claim_that_no_annotation_allows_changes_nothing_for_a_guest_whose_status_is_lost() {
    let mut world = World::steady();
    world.admit("elsewhere", None);
    world.members.push(claimant(fixtures::guest(), "elsewhere", START));
    world.members[2].status = None;
    let before = world.configurations.clone();
    world.reconcile_server(1).unwrap();
    assert_eq!(world.configurations, before, "the host serves on as before");
}

/// A status may be lost, say with a backup that is brought back. Who alone claims the identity keeps it.
#[test]
fn a_registered_member_whose_status_is_lost_stays_registered() {
    let mut world = World::steady();
    world.policy = AdmissionPolicy::Missing;
    world.members[1].status = None;
    world.settle();
    assert_eq!(reason(world.members[1].status.as_ref().unwrap(), ConditionType::Registered).0, "AsDeclared");
}

#[test]
fn a_member_goes_when_nothing_published_speaks_of_it() {
    let mut world = World::steady();
    world.delete_member(1);
    let seen = world.observe_member(1);
    assert_eq!(plan(&seen, world.now).finalizer, FinalizerChange::Keep);
    let (why, message) = reason(&outcome(&seen), ConditionType::Ready);
    assert_eq!((&*why, &*message), ("Deregistering", "it is being taken out of the published configuration"));

    let mut edited = seen.clone();
    edited.instance = Published::Invalid { resource_version: "1".into(), uid: "u".into(), why: "rubbish".into() };
    assert_eq!(plan(&edited, world.now).finalizer, FinalizerChange::Keep, "gateways hold the last good one");
    let mut orphan = seen.clone();
    orphan.anchor = None;
    assert_eq!(plan(&orphan, world.now).finalizer, FinalizerChange::Remove, "there is nothing to be taken out of");

    world.reconcile_anchor(0).unwrap();
    assert_eq!(plan(&world.observe_member(1), world.now).finalizer, FinalizerChange::Remove);
}

#[test]
fn an_identity_that_passes_on_lets_the_old_member_go() {
    let mut world = World::steady();
    world.admit("heir", Some("EE/GOV/70000002"));
    world.members.push(claimant(fixtures::consumer(), "heir", world.now.as_second()));
    world.settle();
    world.delete_member(1);
    world.settle();
    assert!(world.members.iter().all(|it| it.uid().as_deref() != Some("consumer-uid")), "it has gone");
    assert!(world.document().members.iter().any(|it| it.member_code == "70000002"), "the identity has stayed");
}

#[test]
fn references() {
    type Change = fn(&mut World);
    let description = || ("persons-openapi".to_owned(), "openapi.yaml".to_owned());
    let subject = |world: &mut World, subject: AccessSubject| {
        world.members[0].spec.subsystems[0].services[1].access =
            vec![saatkond_api::v1alpha1::member::AccessRight { subject, allow: None }];
    };
    let nobody = || AccessSubject {
        member_class: None,
        member_code: None,
        subsystem: None,
        global_group: None,
        local_group: None,
    };
    let mut cases: Vec<(&str, usize, World, &str, &str)> = vec![];
    let mut case = |name, index, change: Change, expected, words| {
        let mut world = World::steady();
        change(&mut world);
        cases.push((name, index, world, expected, words));
    };
    case("everything there", 0, |_| {}, "AsDeclared", "is there");
    case("no server of its own", 1, |w| drop(w.servers.remove(1)), "NoSecurityServer", "subsystem benefits");
    case("a server that does not exist", 2, |w| drop(w.servers.remove(1)), "SecurityServerNotFound", "benefits/ss1");
    case("not accepted", 2, |w| w.servers[1].spec.guests.clear(), "GuestNotAccepted", "COM/1");
    case("no subsystems, no servers", 2, |w| w.members[2].spec.subsystems.clear(), "NoSecurityServer", "create a");
    for (name, found, expected, words) in [
        (
            "no ConfigMap",
            Some(ObservedDescription::Absent),
            "DescriptionNotFound",
            "entry openapi.yaml of ConfigMap persons",
        ),
        ("no entry", Some(ObservedDescription::Absent), "DescriptionNotFound", "does not exist"),
        ("not YAML", Some(ObservedDescription::Unreadable { why: "line 3".into() }), "DescriptionInvalid", "line 3"),
        (
            "no version",
            Some(ObservedDescription::Read { version: None, has_paths: true }),
            "DescriptionInvalid",
            "openapi",
        ),
        (
            "Swagger 2",
            Some(ObservedDescription::Read { version: Some("2.0".into()), has_paths: true }),
            "DescriptionInvalid",
            "2.0",
        ),
        (
            "no paths",
            Some(ObservedDescription::Read { version: Some("3.0.1".into()), has_paths: false }),
            "DescriptionInvalid",
            "paths",
        ),
    ] {
        let mut world = World::steady();
        world.descriptions.remove(&description());
        world.descriptions.extend(found.map(|found| (description(), found)));
        cases.push((name, 0, world, expected, words));
    }
    for (name, who, expected, words) in [
        (
            "local group",
            AccessSubject { local_group: Some("x".parse().unwrap()), ..nobody() },
            "LocalGroupNotFound",
            "local group x",
        ),
        (
            "global group",
            AccessSubject { global_group: Some("x".parse().unwrap()), ..nobody() },
            "GlobalGroupNotFound",
            "global group x",
        ),
    ] {
        let mut world = World::steady();
        subject(&mut world, who);
        cases.push((name, 0, world, expected, words));
    }
    for (name, index, world, expected, words) in cases {
        let status = outcome(&world.observe_member(index));
        let (found, message) = reason(&status, ConditionType::ReferencesResolved);
        assert_eq!(found, expected, "{name}: {message}");
        assert!(message.contains(words), "{name}: {message}");
        assert_eq!(reason(&status, ConditionType::Ready).0, expected, "{name}");
    }
}

#[test]
fn what_was_not_looked_at_is_not_said_to_be_missing() {
    let mut world = World::steady();
    world.descriptions.clear();
    world.namespaces.get_mut("population-register").unwrap().access = NamespaceAccess::Denied;
    let status = outcome(&world.observe_member(0));
    let it = find(&status.conditions, ConditionType::ReferencesResolved).unwrap();
    assert_eq!((&*it.status, &*it.reason), ("Unknown", "Waiting"), "{}", it.message);
    assert_eq!(reason(&status, ConditionType::Ready).0, "NamespaceNotAdmitted");
}

#[test]
fn a_bad_description_takes_no_service_away() {
    let mut world = World::steady();
    let before = world.configurations.clone();
    for found in world.descriptions.values_mut() {
        *found = ObservedDescription::Absent;
    }
    world.settle();
    assert_eq!(world.configurations, before);
}

#[test]
fn waiting_failing_and_paused() {
    let mut world = World::federation();
    world.reconcile_member(0).unwrap();
    let fresh = outcome(&world.observe_member(0));
    assert_eq!(reason(&fresh, ConditionType::Registered).0, "Waiting");
    assert_eq!(reason(&fresh, ConditionType::Ready).0, "TrustAnchorNotReady");
    let mut world = World::steady();
    let failure = Failure { reason: saatkond_api::conditions::Reason::ApplyFailed, message: "timeout".into() };
    let failed = status(&world.observe_member(0), &AppliedMember { failure: Some(failure) }, world.now).status;
    assert_eq!(reason(&failed, ConditionType::Ready).0, "ApplyFailed");
    world.members[0].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    assert_eq!(reason(&outcome(&world.observe_member(0)), ConditionType::Ready).0, "Paused");
    let mut new = World::steady();
    new.members[1].spec.subsystems[1].code = "other".parse().unwrap();
    let (why, message) = reason(&outcome(&new.observe_member(1)), ConditionType::Registered);
    assert_eq!((&*why, message.contains("subsystem other")), ("UpdatePending", true));
}

#[test]
fn events_come_with_transitions() {
    let world = World::federation();
    let mut seen = world.observe_member(1);
    Arc::make_mut(&mut seen.namespace).identities = None;
    let first = status(&seen, &AppliedMember::default(), world.now);
    assert_eq!(first.events.len(), 1);
    assert!(first.events[0].warning && first.events[0].note.contains("kubectl saatkond admit"));
    Arc::make_mut(&mut seen.member).status = Some(first.status.clone());
    let second = status(&seen, &AppliedMember::default(), fixtures::at(START + 60));
    assert_eq!((second.status, second.events.len()), (first.status, 0), "the same again: byte-equal and silent");
}
