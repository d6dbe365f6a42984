//! Decisions about security servers.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::conditions::{ConditionType, Reason, find};
use saatkond_api::v1alpha1::security_server::SecurityServerStatus;
use saatkond_domain::children::{Child, ChildKind};
use saatkond_domain::effects::FinalizerChange;
use saatkond_domain::observed::{NamespaceAccess, Published, Stored};
use saatkond_domain::schedule::{may_renew_at, renew_at, resign_at};
use saatkond_domain::security_server::observed::{IdentityFacts, ObservedSecurityServer};
use saatkond_domain::security_server::plan::{AppliedSecurityServer, LeafPlan, SecurityServerPlan, StartCopyPlan};
use saatkond_domain::security_server::processes::Endings;
use saatkond_domain::security_server::{plan, status};
use saatkond_domain::serving::{address, dns_names};
use saatkond_pki::key::Algorithm;
use saatkond_pki::leaf::Usage;

use crate::fixtures::{START, at, consumer_server};
use crate::world::{World, authority, key, younger_twin};

fn is_quiet(plan: &SecurityServerPlan) -> bool {
    plan.finalizer == FinalizerChange::Keep
        && plan.identity.is_none()
        && plan.configuration.is_none()
        && plan.start_copy == StartCopyPlan::default()
        && plan.children.is_empty()
        && plan.endings == Endings::default()
        && plan.deletions.is_empty()
}

pub fn facts(seen: &mut ObservedSecurityServer) -> &mut IdentityFacts {
    let Stored::Present(facts) = &mut seen.identity else { panic!("no identity") };
    facts
}

pub fn outcome(seen: &ObservedSecurityServer) -> SecurityServerStatus {
    let now = at(START);
    status(seen, &plan(seen, now), &AppliedSecurityServer::default(), now).status
}

pub fn reason(status: &SecurityServerStatus, condition: ConditionType) -> (String, String) {
    let it = find(&status.conditions, condition).unwrap_or_else(|| panic!("no {condition} in {status:#?}"));
    (it.reason.clone(), it.message.clone())
}

fn issued(plan: &SecurityServerPlan) -> (bool, Vec<bool>) {
    let new = |leaf: &LeafPlan| matches!(leaf, LeafPlan::Issue(_));
    let identity = plan.identity.as_ref().expect("an identity");
    (new(&identity.authentication), identity.signing.iter().map(|(_, leaf)| new(leaf)).collect())
}

#[test]
fn the_first_identity_has_everything() {
    let world = World::steady();
    let mut seen = world.observe_server(1);
    seen.identity = Stored::Absent;
    Arc::make_mut(&mut seen.server).status = None;
    let identity = plan(&seen, world.now).identity.unwrap();
    assert_eq!((identity.issue_number, identity.replaces), (1, None));
    let LeafPlan::Issue(order) = &identity.authentication else { panic!("not issued") };
    assert_eq!(order.request.usage, Usage::Authentication);
    assert_eq!(order.request.uri, "saatkond://EE/GOV/70000002/ss1?use=authentication&issue=1");
    assert_eq!(order.request.dns_names, ["ss1", "ss1.benefits", "ss1.benefits.svc"]);
    assert_eq!((order.lifetime.as_hours(), order.retirement.as_hours()), (360, 24));
    let members: Vec<_> = identity.signing.iter().map(|(member, _)| member.to_string()).collect();
    assert_eq!(members, ["EE/COM/1", "EE/GOV/70000002"], "the owner and the guest, once each");
    let LeafPlan::Issue(order) = &identity.signing[0].1 else { panic!("not issued") };
    assert_eq!(order.request.usage, Usage::Signing);
    assert!(order.request.dns_names.is_empty());
    assert!(order.request.uri.starts_with("saatkond://EE/COM/1?use=signing&server="), "{}", order.request.uri);
}

#[test]
fn numbers_never_come_back() {
    let world = World::steady();
    let mut seen = world.observe_server(0);
    Arc::make_mut(&mut seen.server).status.as_mut().unwrap().issue_number = Some(9);
    seen.identity = Stored::Absent;
    assert_eq!(plan(&seen, world.now).identity.unwrap().issue_number, 10, "the Secret was deleted");
    seen.identity = Stored::Unusable { why: "not JSON".into(), resource_version: "5".into() };
    let identity = plan(&seen, world.now).identity.unwrap();
    assert_eq!((identity.issue_number, identity.replaces.as_deref()), (10, Some("5")), "the Secret was damaged");
    let mut newer = world.observe_server(0);
    facts(&mut newer).issue_number = 20;
    facts(&mut newer).authentication.dns_names.clear();
    assert_eq!(plan(&newer, world.now).identity.unwrap().issue_number, 21, "the status was lost");
}

#[test]
fn a_leaf_is_renewed_when_it_is_due_and_not_a_second_before() {
    let world = World::steady();
    let seen = world.observe_server(0);
    let status = seen.server.status.clone().unwrap();
    let due = status.leaf.as_ref().unwrap().renew_at.0.min(status.signing[0].renew_at.0);
    let leaf = &seen.identity.facts().unwrap().authentication;
    let computed = renew_at(leaf, "provider-server-uid", None);
    assert_eq!(status.leaf.unwrap().renew_at.0, computed, "persisted as it was drawn");
    let before = plan(&seen, at(due.as_second() - 1));
    assert!(before.identity.is_none());
    let planned = plan(&seen, due);
    assert_eq!(issued(&planned), (true, vec![true]), "what is past 55 % of its life is taken along: one write");
    assert_eq!(planned.identity.unwrap().issue_number, 2);
    // Persisted times win over what would be drawn now.
    let mut later = seen;
    let status = Arc::make_mut(&mut later.server).status.as_mut().unwrap();
    status.leaf.as_mut().unwrap().renew_at = Time(at(START + 1000));
    assert!(plan(&later, at(START + 999)).identity.is_none());
    assert_eq!(issued(&plan(&later, at(START + 1000))), (true, vec![false]), "too young to be taken along");
}

#[test]
fn what_is_taken_along_in_a_renewal() {
    let world = World::steady();
    let mut seen = world.observe_server(0);
    let status = Arc::make_mut(&mut seen.server).status.as_mut().unwrap();
    let may = may_renew_at(&seen.identity.facts().unwrap().authentication);
    status.leaf.as_mut().unwrap().renew_at = Time(at(may.as_second() - 1));
    status.signing[0].renew_at = Time(at(may.as_second() + 9999));
    assert_eq!(issued(&plan(&seen, at(may.as_second() - 1))), (true, vec![false]));
    assert_eq!(issued(&plan(&seen, may)), (true, vec![true]));
}

#[test]
fn reasons_to_issue_again() {
    type Change = fn(&mut IdentityFacts);
    let cases: [(&str, Change, (bool, Vec<bool>)); 6] = [
        ("DNS names", |f| drop(f.authentication.dns_names.pop()), (true, vec![false, false])),
        ("algorithm", |f| f.authentication.algorithm = Algorithm::Rsa3072, (true, vec![false, false])),
        ("issuer", |f| f.authentication.generation = 9, (true, vec![false, false])),
        (
            "another's name",
            |f| f.authentication.uri = "saatkond://EE/GOV/1/x?use=authentication&issue=1".into(),
            (true, vec![false, false]),
        ),
        ("a signing leaf's issuer", |f| f.signing[1].leaf.generation = 9, (false, vec![false, true])),
        ("a member without a leaf", |f| drop(f.signing.remove(0)), (false, vec![true, false])),
    ];
    for (name, change, expected) in cases {
        let world = World::steady();
        let mut seen = world.observe_server(1);
        change(facts(&mut seen));
        let planned = plan(&seen, world.now);
        assert_eq!(issued(&planned), expected, "{name}");
        assert_eq!(planned.events[0].reason, Reason::IdentityIssued, "{name}");
    }
    let mut world = World::steady();
    world.servers[0].spec.address = Some("other.example:6600".into());
    assert_eq!(issued(&plan(&world.observe_server(0), world.now)), (true, vec![false]), "another address");
}

#[test]
fn a_guest_that_leaves_takes_its_leaf_along() {
    let mut world = World::steady();
    world.servers[1].spec.guests.clear();
    world.reconcile_anchor(0).unwrap();
    let mut seen = world.observe_server(1);
    seen.issuer = None;
    let identity = plan(&seen, world.now).identity.expect("taking away needs no authority");
    assert_eq!(identity.signing.len(), 1);
    assert_eq!((identity.issue_number, &identity.authentication), (1, &LeafPlan::Keep), "nothing is issued for it");
}

#[test]
fn an_identity_that_has_lost_its_labels_is_written_again_with_all_its_leaves() {
    let world = World::steady();
    let mut seen = world.observe_server(1);
    assert!(plan(&seen, world.now).identity.is_none());
    facts(&mut seen).labelled = false;
    seen.issuer = None;
    let planned = plan(&seen, world.now);
    assert_eq!(issued(&planned), (false, vec![false, false]), "nothing is issued for it");
    let identity = planned.identity.unwrap();
    assert_eq!(identity.issue_number, 1, "nobody has to load it");
    assert_eq!(identity.meta.labels.unwrap()["app.kubernetes.io/managed-by"], "saatkond");
    assert_eq!(identity.replaces, Some(facts(&mut seen).resource_version.clone()));
    let reasons: Vec<_> = planned.events.iter().map(|event| event.reason).collect();
    assert_eq!(reasons, [Reason::DriftRepaired]);
}

#[test]
fn nothing_is_issued_for_what_is_not_published() {
    type Change = fn(&mut ObservedSecurityServer);
    let cases: [(&str, Change, &str); 7] = [
        ("no key", |s| s.issuer = None, "SigningKeyMissing"),
        ("not announced", |s| s.issuer.as_mut().unwrap().generation = 2, "Waiting"),
        ("another certificate", |s| s.issuer.as_mut().unwrap().certificate = authority(1, 9000).sha256(), "Waiting"),
        (
            "not registered",
            |s| {
                let Published::Valid(document) = &mut s.instance else { unreachable!() };
                Arc::make_mut(&mut document.payload).servers.clear();
            },
            "Waiting",
        ),
        ("foreign Secret", |s| s.identity = Stored::Foreign, "ForeignObject"),
        ("authority not valid yet", |s| s.issuer.as_mut().unwrap().not_before = at(START + 1), "Waiting"),
        ("authority ends soon", |s| s.issuer.as_mut().unwrap().not_after = at(START + 100), "AuthorityExpiring"),
    ];
    for (name, change, expected) in cases {
        let mut seen = World::steady().observe_server(0);
        seen.identity = Stored::Absent;
        change(&mut seen);
        let planned = plan(&seen, at(START));
        assert!(planned.identity.is_none(), "{name}");
        assert!(planned.children.iter().all(|child| child.kind() != ChildKind::Deployment), "{name}");
        assert_eq!(reason(&outcome(&seen), ConditionType::IdentityIssued).0, expected, "{name}");
        seen.children.retain(|child| child.kind != ChildKind::Deployment);
        let waits = if name == "foreign Secret" { "ForeignObject" } else { "Waiting" };
        assert_eq!(reason(&outcome(&seen), ConditionType::ChildrenApplied).0, waits, "{name}");
    }
}

#[test]
fn nothing_is_done_for_a_server_without_a_place() {
    type Change = fn(&mut World);
    let cases: [(&str, Change, &str, &str); 8] = [
        ("no member", |w| drop(w.members.remove(1)), "MemberNotFound", "Member benefits"),
        ("no anchor", |w| w.anchors.clear(), "TrustAnchorNotFound", "TrustAnchor ee"),
        (
            "no rights",
            |w| w.namespaces.get_mut("benefits").unwrap().access = NamespaceAccess::Denied,
            "NamespaceNotAdmitted",
            "kubectl saatkond admit benefits",
        ),
        ("identity taken away", |w| w.admit("benefits", None), "MemberNotAdmitted", "Member benefits"),
        ("member going", |w| w.delete_member(1), "MemberNotAdmitted", "Member benefits"),
        (
            "nothing published",
            |w| {
                w.instance = Published::Absent;
                w.members[1].status = None;
            },
            "TrustAnchorNotReady",
            "TrustAnchor ee has published no",
        ),
        (
            "the next document will list the member",
            |w| {
                let Published::Valid(document) = &mut w.instance else { unreachable!() };
                Arc::make_mut(&mut document.payload).members.retain(|it| it.member_code != "70000002");
            },
            "Waiting",
            "Member benefits is not registered",
        ),
        (
            "an older twin",
            |w| {
                let mut twin = consumer_server();
                twin.metadata.uid = Some("twin".into());
                twin.metadata.name = Some("older".into());
                twin.metadata.creation_timestamp = Some(Time(at(START - 51)));
                w.servers.push(twin);
            },
            "DuplicateServerCode",
            "SecurityServer older",
        ),
    ];
    for (name, change, expected, words) in cases {
        let mut world = World::steady();
        change(&mut world);
        let mut seen = world.observe_server(1);
        seen.identity = Stored::Absent;
        seen.configuration = Published::Absent;
        assert!(is_quiet(&plan(&seen, world.now)), "{name}");
        let (found, message) = reason(&outcome(&seen), ConditionType::Ready);
        assert_eq!(found, expected, "{name}");
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn the_member_of_another_namespace_gets_no_leaf_for_an_identity_that_is_held() {
    let mut world = World::steady();
    let mut member = world.members[1].clone();
    let mut server = consumer_server();
    for meta in [&mut member.metadata, &mut server.metadata] {
        meta.namespace = Some("thief".into());
        meta.uid = Some(format!("thief-{}", meta.uid.as_deref().unwrap()));
        meta.creation_timestamp = Some(Time(at(START)));
    }
    world.admit("thief", Some("EE/GOV/70000002"));
    world.members.push(member);
    world.servers.push(server);
    world.settle();
    assert!(!world.identities.contains_key(&("thief".into(), "ss1".into())));
    assert_eq!(reason(&outcome(&world.observe_server(2)), ConditionType::Ready).0, "MemberNotAdmitted");
}

#[test]
fn the_server_configuration() {
    let mut world = World::steady();
    let seen = world.observe_server(0);
    let standing = seen.configuration.payload().unwrap().clone();
    let due = resign_at(standing.signed_at, "provider-server-uid");
    assert!(plan(&seen, at(due.as_second() - 1)).configuration.is_none());
    let again = plan(&seen, due).configuration.expect("due").payload;
    assert_eq!((again.version, &again.clients), (standing.version + 1, &standing.clients));

    let mut deleted = world.observe_server(0);
    deleted.configuration = Published::Absent;
    assert_eq!(plan(&deleted, world.now).configuration.unwrap().payload.version, standing.version + 1);
    let mut edited = world.observe_server(0);
    edited.configuration = Published::Invalid { resource_version: "7".into(), uid: "u".into(), why: "edited".into() };
    let planned = plan(&edited, world.now);
    assert_eq!(planned.configuration.unwrap().replaces.as_deref(), Some("7"));
    assert!(planned.events.iter().any(|event| event.reason == Reason::DriftRepaired));
    let mut unlabelled = world.observe_server(0);
    let Published::Valid(document) = &mut unlabelled.configuration else { unreachable!() };
    document.intact = false;
    let replaced = document.resource_version.clone();
    let planned = plan(&unlabelled, world.now);
    let publication = planned.configuration.expect("without its labels no watch shows it");
    assert_eq!((publication.payload.version, publication.replaces), (standing.version + 1, Some(replaced)));
    assert!(planned.events.iter().any(|event| event.reason == Reason::DriftRepaired));
    let mut foreign = world.observe_server(0);
    foreign.configuration = Published::Foreign;
    let planned = plan(&foreign, world.now);
    assert!(planned.configuration.is_none());
    assert_eq!(planned.foreign[0].name, "population-register.ss1-server-configuration");

    world.members[0].spec.subsystems[0].services.pop();
    let mut seen = world.observe_server(0);
    seen.configuration_key = None;
    assert!(plan(&seen, world.now).configuration.is_none(), "without a key what is published stays");
    assert_eq!(reason(&outcome(&seen), ConditionType::ConfigurationPublished).0, "TrustAnchorNotReady");
    seen.configuration_key = Some(1);
    let planned = plan(&seen, world.now);
    assert_eq!(planned.configuration.unwrap().payload.clients[1].services.len(), 1);
    assert!(planned.start_copy.server.is_some() && planned.start_copy.instance.is_none(), "copied at once");
}

#[test]
fn the_start_copy() {
    let world = World::steady();
    let seen = |change: fn(&mut ObservedSecurityServer)| {
        let mut seen = world.observe_server(0);
        change(&mut seen);
        seen
    };
    let newer = |seen: &mut ObservedSecurityServer| {
        let Published::Valid(document) = &mut seen.instance else { unreachable!() };
        Arc::make_mut(&mut document.payload).version += 1;
    };
    let written = world.copies[&key(&world.servers[0])].instance.unwrap().written_at.as_second();
    let copied = |seen: &ObservedSecurityServer, now| {
        let copy = plan(seen, at(now)).start_copy;
        (copy.instance.is_some(), copy.server.is_some())
    };
    assert_eq!(copied(&seen(newer), written + 599), (false, false));
    assert_eq!(plan(&seen(newer), at(written + 599)).next_check, at(written + 600));
    assert_eq!(copied(&seen(newer), written + 600), (true, false));
    let sequence = seen(|seen| {
        let Published::Valid(document) = &mut seen.instance else { unreachable!() };
        let document = Arc::make_mut(&mut document.payload);
        document.version += 1;
        document.bundle_sequence += 1;
    });
    assert_eq!(copied(&sequence, written + 1), (true, false), "at once with another sequence");
    assert_eq!(copied(&seen(|seen| seen.start_copy = None), written), (true, true), "deleted by hand");
    assert_eq!(copied(&seen(|seen| seen.start_copy.as_mut().unwrap().intact = false), written), (true, true), "edited");
    let foreign = seen(|seen| seen.start_copy.as_mut().unwrap().controller = None);
    assert_eq!(copied(&foreign, written), (false, false));
    assert_eq!(plan(&foreign, at(written)).foreign[0].name, "ss1-configuration");
}

#[test]
fn drift_of_each_child_is_repaired_and_a_foreign_one_is_named() {
    let world = World::steady();
    let count = world.observe_server(0).children.len();
    assert_eq!(count, 5);
    for index in 0..count {
        let mut seen = world.observe_server(0);
        let kind = seen.children[index].kind;
        seen.children[index].intact = false;
        let planned = plan(&seen, world.now);
        assert_eq!(planned.children.iter().map(Child::kind).collect::<Vec<_>>(), [kind], "edited");
        assert_eq!(planned.events[0].reason, Reason::DriftRepaired, "{kind}");
        let mut seen = world.observe_server(0);
        seen.children.remove(index);
        assert_eq!(plan(&seen, world.now).children[0].kind(), kind, "deleted");
        let mut seen = world.observe_server(0);
        seen.children[index].applied_hash = Some("old".into());
        assert_eq!(plan(&seen, world.now).children[0].kind(), kind, "another one is wanted");
        for controller in [None, Some("another-uid".to_owned())] {
            let mut seen = world.observe_server(0);
            seen.children[index].controller = controller;
            seen.children[index].intact = false;
            let planned = plan(&seen, world.now);
            assert!(planned.children.is_empty(), "{kind}: never overwritten");
            assert_eq!(planned.foreign[0].kind, kind);
            let (found, message) = reason(&outcome(&seen), ConditionType::ChildrenApplied);
            assert_eq!(found, "ForeignObject");
            assert!(message.contains(&format!("{kind} ss1")), "{message}");
            assert_eq!(reason(&outcome(&seen), ConditionType::Ready).0, "ForeignObject");
        }
    }
}

#[test]
fn a_server_goes_when_nothing_published_speaks_of_it() {
    let mut world = World::steady();
    world.delete_server(0);
    let seen = world.observe_server(0);
    let planned = plan(&seen, world.now);
    assert_eq!((planned.finalizer, planned.deletions.len()), (FinalizerChange::Keep, 0));
    let (found, message) = reason(&outcome(&seen), ConditionType::Ready);
    assert_eq!(found, "Deregistering");
    assert!(message.contains("its pods stay"), "{message}");
    world.reconcile_anchor(0).unwrap();
    let planned = plan(&world.observe_server(0), world.now);
    assert_eq!(planned.finalizer, FinalizerChange::Remove);
    assert_eq!(planned.deletions[0].name, "population-register.ss1-server-configuration");
    assert_eq!(planned.deletions[0].uid, "configuration-uid");
    let mut orphan = seen;
    orphan.owner = None;
    orphan.anchor = None;
    assert_eq!(plan(&orphan, world.now).finalizer, FinalizerChange::Remove);
}

#[test]
fn a_server_that_another_follows_stays_until_its_address_is_out_of_the_document() {
    for (name, own, follower, finalizer) in [
        ("the entry leads to it", None, None, FinalizerChange::Keep),
        ("both have one address", Some("benefits.example"), Some("benefits.example"), FinalizerChange::Remove),
        ("its address has changed since", Some("new.example"), None, FinalizerChange::Keep),
    ] {
        let mut world = World::steady();
        world.servers.push(younger_twin(&world.servers[1]));
        if follower.is_some() {
            world.servers[1].spec.address = own.map(Into::into);
            world.reconcile_anchor(0).unwrap();
        }
        world.servers[1].spec.address = own.map(Into::into);
        world.servers[2].spec.address = follower.map(Into::into);
        world.delete_server(1);
        assert_eq!(plan(&world.observe_server(1), world.now).finalizer, finalizer, "{name}");
        world.reconcile_anchor(0).unwrap();
        assert_eq!(plan(&world.observe_server(1), world.now).finalizer, FinalizerChange::Remove, "{name}");
        let follower = address(&world.servers[2]);
        assert!(world.document().servers.iter().any(|entry| entry.address == follower), "{name}");
    }
    // One that never was the holder leaves the holder's entry behind.
    let mut world = World::steady();
    world.servers.push(younger_twin(&world.servers[1]));
    world.delete_server(2);
    assert_eq!(plan(&world.observe_server(2), world.now).finalizer, FinalizerChange::Remove);
}

#[test]
fn pause_stops_changes_of_the_spec_and_no_renewal() {
    let mut world = World::steady();
    world.servers[1].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    world.servers[1].spec.address = Some("new.example".into());
    world.servers[1].spec.replicas = 7;
    world.members[1].spec.subsystems.pop();
    let seen = world.observe_server(1);
    assert!(is_quiet(&plan(&seen, world.now)), "{:#?}", plan(&seen, world.now));
    assert_eq!(reason(&outcome(&seen), ConditionType::Ready).0, "Paused");
    let later = at(START + 10 * 24 * 3600);
    let planned = plan(&seen, later);
    assert!(issued(&planned).0 && planned.configuration.is_some(), "renewed and signed again");
    let LeafPlan::Issue(order) = planned.identity.unwrap().authentication else { panic!("not issued") };
    assert_eq!(order.request.dns_names, ["ss1", "ss1.benefits", "ss1.benefits.svc"], "the new address waits");
}

#[test]
fn what_a_paused_member_has_published_stays_while_its_servers_go_on() {
    let mut world = World::steady();
    for member in &mut world.members {
        member.annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    }
    let standing = world.observe_server(0).configuration.payload().unwrap().clone();
    // A right, a group, a service and a subsystem: each would reach the gateways within seconds.
    let subsystem = &mut world.members[0].spec.subsystems[0];
    let right = subsystem.services[0].access.pop().unwrap();
    subsystem.services[1].access.push(right);
    subsystem.local_groups.clear();
    let mut second = subsystem.clone();
    second.code = "second".parse().unwrap();
    world.members[0].spec.subsystems.push(second);
    assert!(is_quiet(&plan(&world.observe_server(0), world.now)), "{:#?}", plan(&world.observe_server(0), world.now));
    // The server's own spec does not wait, and the member's stays as it is while it is acted upon.
    world.servers[0].spec.limits.max_body_bytes = Some(4096);
    let changed = plan(&world.observe_server(0), world.now).configuration.expect("the limit is the server's").payload;
    assert_eq!((changed.limits.max_body_bytes, &changed.clients), (Some(4096), &standing.clients));
    // A document that is gone comes back with what was registered, and with no more.
    let mut gone = world.observe_server(0);
    gone.configuration = Published::Absent;
    let clients = plan(&gone, world.now).configuration.expect("put back").payload.clients;
    let ids = |clients: &[saatkond_wire::configuration::ClientEntry]| -> Vec<_> {
        clients.iter().map(|client| client.id.clone()).collect()
    };
    assert_eq!(ids(&clients), ids(&standing.clients));

    // A guest that is paused stays with what it has, until it is not admitted any more or the server does not take it.
    world.members[2].spec.subsystems.clear();
    assert!(plan(&world.observe_server(1), world.now).configuration.is_none());
    let count = |world: &World| {
        let planned = plan(&world.observe_server(1), world.now);
        planned.configuration.map(|publication| publication.payload.clients.len())
    };
    let mut unlisted = world.clone();
    unlisted.servers[1].spec.guests.clear();
    assert_eq!(count(&unlisted), Some(3));
    world.admit("clinic", None);
    assert_eq!(count(&world), Some(3));
}

#[test]
fn addresses_and_names() {
    let mut server = consumer_server();
    for (declared, expected, host) in [
        (None, "ss1.benefits.svc:5500", None),
        (Some("ss.example"), "ss.example:5500", Some("ss.example")),
        (Some("SS.Example:6600"), "SS.Example:6600", Some("ss.example")),
        (Some("192.0.2.7"), "192.0.2.7:5500", None),
        (Some("192.0.2.7:6600"), "192.0.2.7:6600", None),
        (Some("[2001:db8::7]"), "[2001:db8::7]:5500", None),
        (Some("[2001:db8::7]:6600"), "[2001:db8::7]:6600", None),
    ] {
        server.spec.address = declared.map(Into::into);
        assert_eq!(address(&server), expected);
        let names = dns_names(&server);
        assert_eq!(names.len(), 3 + usize::from(host.is_some()), "{names:?}");
        assert!(host.is_none_or(|host| names.iter().any(|name| name == host)), "{names:?}");
        assert!(names.is_sorted());
    }
}
