//! What is said of security servers: their conditions, in a table, and what shows when something fails.

use std::sync::Arc;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use saatkond_api::conditions::ConditionType;
use saatkond_domain::children::ChildKind;
use saatkond_domain::observed::NamespaceAccess;
use saatkond_domain::security_server::observed::ObservedSecurityServer;
use saatkond_domain::security_server::plan::AppliedSecurityServer;
use saatkond_domain::security_server::{build, plan, registration, status};

use crate::fixtures::{START, at};
use crate::security_server::{facts, outcome, reason};
use crate::world::{World, forbidden};

#[test]
fn conditions_of_a_running_server() {
    type Change = fn(&mut ObservedSecurityServer);
    let alone: Change = |s| processes(s)[0].started_alone = Some(Time(at(START)));
    let cases: [(&str, ConditionType, Change, &str, &str); 20] = [
        ("fine", ConditionType::Ready, |_| {}, "AsDeclared", "2 processes serve"),
        ("loaded", ConditionType::ConfigurationLoaded, |_| {}, "AsDeclared", "every process"),
        (
            "no receipts",
            ConditionType::ConfigurationLoaded,
            |s| processes(s).clear(),
            "NoProcess",
            "no process has reported",
        ),
        (
            "one silent",
            ConditionType::ConfigurationLoaded,
            |s| drop(processes(s).pop()),
            "ReceiptsPending",
            "pod ss1-1 has not reported",
        ),
        (
            "old bundle",
            ConditionType::ConfigurationLoaded,
            |s| processes(s)[0].bundle_sequence = 0,
            "ReceiptsPending",
            "pod ss1-0 has not loaded the published bundle",
        ),
        (
            "old identity",
            ConditionType::ConfigurationLoaded,
            |s| processes(s)[0].leaf_issue_number = 0,
            "ReceiptsPending",
            "identity",
        ),
        (
            "started alone",
            ConditionType::ConfigurationLoaded,
            alone,
            "StartedAlone",
            "every process runs on what is published now; pod ss1-0 began at",
        ),
        ("started alone, and well", ConditionType::Ready, alone, "AsDeclared", "2 processes serve"),
        (
            "pods not ready",
            ConditionType::Available,
            |s| s.deployment.as_mut().unwrap().ready = 1,
            "PodsNotReady",
            "1 of 2",
        ),
        // A new pod that never starts, or has not yet: those from before stay ready.
        (
            "not looked at by the Deployment's controller",
            ConditionType::Available,
            |s| s.deployment.as_mut().unwrap().observed = false,
            "RollingOut",
            "to be rolled out",
        ),
        (
            "stuck",
            ConditionType::Ready,
            |s| {
                let deployment = s.deployment.as_mut().unwrap();
                (deployment.replicas, deployment.updated) = (3, 1);
                deployment.message = Some("has timed out progressing".into());
            },
            "RollingOut",
            "1 of 2 processes are as declared now, 2 are older: has timed out progressing",
        ),
        (
            "the last new pod is not ready",
            ConditionType::Available,
            |s| {
                let deployment = s.deployment.as_mut().unwrap();
                (deployment.replicas, deployment.updated, deployment.ready) = (3, 2, 2);
            },
            "RollingOut",
            "2 of 2 processes are as declared now, 1 are older",
        ),
        (
            "one more than declared, as new as the others",
            ConditionType::Available,
            |s| {
                let deployment = s.deployment.as_mut().unwrap();
                (deployment.replicas, deployment.updated, deployment.ready) = (3, 3, 3);
            },
            "AsDeclared",
            "2 of 2",
        ),
        (
            "the Deployment is applied now",
            ConditionType::Ready,
            |s| outdated(s, ChildKind::Deployment),
            "RollingOut",
            "to be rolled out",
        ),
        (
            "another object is applied now",
            ConditionType::Ready,
            |s| outdated(s, ChildKind::NetworkPolicy),
            "AsDeclared",
            "2 processes serve",
        ),
        (
            "too few are ready while it is rolled out",
            ConditionType::Available,
            |s| {
                let deployment = s.deployment.as_mut().unwrap();
                (deployment.updated, deployment.ready) = (1, 1);
            },
            "PodsNotReady",
            "1 of 2",
        ),
        ("no pods", ConditionType::Available, |s| s.deployment = None, "Waiting", "not declared"),
        ("deleted while paused", ConditionType::ChildrenApplied, deleted_while_paused, "Paused", "no Deployment"),
        ("deleted while paused", ConditionType::Available, deleted_while_paused, "Paused", "no Deployment"),
        (
            "scaled to zero",
            ConditionType::Available,
            |s| Arc::make_mut(&mut s.server).spec.replicas = 0,
            "ScaledToZero",
            "replicas is 0",
        ),
    ];
    for (name, condition, change, expected, words) in cases {
        let mut seen = World::steady().observe_server(0);
        change(&mut seen);
        let (found, message) = reason(&outcome(&seen), condition);
        assert_eq!(found, expected, "{name}");
        assert!(message.contains(words), "{name}: {message}");
    }
    let mut world = World::steady();
    world.members[2].spec.subsystems[0].servers = None;
    let (found, message) = reason(&outcome(&world.observe_server(1)), ConditionType::ReferencesResolved);
    assert_eq!(found, "GuestNotConfirmed");
    assert!(message.contains("COM/1"), "{message}");
    let seen = world.observe_server(1);
    let place = registration::place(&seen).unwrap();
    let policy = build::children(&seen, &place, &[]).into_iter().find(|it| it.kind() == ChildKind::NetworkPolicy);
    assert!(!policy.unwrap().value().to_string().contains("clinic"), "who has agreed to nothing is let in to nothing");
}

fn deleted_while_paused(seen: &mut ObservedSecurityServer) {
    Arc::make_mut(&mut seen.server).annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    seen.children.retain(|child| child.kind != ChildKind::Deployment);
    seen.deployment = None;
}

/// The pods go on serving: it is the operator that may not look.
#[test]
fn without_rights_in_the_namespace_the_last_known_number_of_pods_stays() {
    let mut world = World::steady();
    world.namespaces.get_mut("population-register").unwrap().access = NamespaceAccess::Denied;
    let mut seen = world.observe_server(0);
    seen.deployment = None;
    let status = outcome(&seen);
    assert_eq!((status.replicas, status.ready_replicas), (Some(2), Some(2)));
    assert_eq!(reason(&status, ConditionType::Ready).0, "NamespaceNotAdmitted");
}

/// Another one than stands there is wanted.
fn outdated(seen: &mut ObservedSecurityServer, kind: ChildKind) {
    seen.children.iter_mut().find(|child| child.kind == kind).unwrap().applied_hash = Some("old".into());
}

fn processes(seen: &mut ObservedSecurityServer) -> &mut Vec<saatkond_api::v1alpha1::security_server::ProcessReceipt> {
    &mut Arc::make_mut(&mut seen.server).status.as_mut().unwrap().processes
}

#[test]
fn renewals_that_fail_are_named_before_they_hurt() {
    let world = World::steady();
    let mut seen = world.observe_server(0);
    seen.issuer = None;
    let leaf = seen.identity.facts().unwrap().authentication.clone();
    let floor = saatkond_pki::renewal::floor(leaf.not_before, leaf.not_after).as_second();
    let ends = leaf.not_after.as_second();
    for (name, now, expected, words) in [
        ("due, a third and more is left", floor - 1, "SigningKeyMissing", "no signing key"),
        ("a third is left", floor, "RenewalOverdue", "not renewed"),
        ("the last second", ends - 1, "RenewalOverdue", "not renewed"),
        ("ended", ends, "RenewalOverdue", "has ended"),
    ] {
        let planned = plan(&seen, at(now));
        let status = status(&seen, &planned, &AppliedSecurityServer::default(), at(now)).status;
        let (found, message) = reason(&status, ConditionType::IdentityIssued);
        assert_eq!(found, expected, "{name}");
        assert!(message.contains(words), "{name}: {message}");
    }
}

#[test]
fn failures_show_and_take_nothing_back() {
    let world = World::steady();
    let mut seen = world.observe_server(0);
    facts(&mut seen).authentication.dns_names.clear();
    let planned = plan(&seen, world.now);
    let applied = AppliedSecurityServer { failure: Some(forbidden()), ..AppliedSecurityServer::default() };
    let after = status(&seen, &planned, &applied, world.now).status;
    assert_eq!(reason(&after, ConditionType::IdentityIssued).0, "Forbidden");
    assert_eq!(reason(&after, ConditionType::Ready).0, "Forbidden");
    let before = seen.server.status.as_ref().unwrap();
    assert_eq!((after.issue_number, &after.registered_keys), (before.issue_number, &before.registered_keys));
}
