//! Certificates of a server whose keys somebody else may have.

use kube::ResourceExt as _;
use saatkond_api::names::{PAUSED_VALUE, annotation};
use saatkond_api::v1alpha1::security_server::Revocation;
use saatkond_api::v1alpha1::trust_anchor::RevocationStatus;
use saatkond_domain::trust_anchor::audit::Act;

use crate::world::{World, key};

fn revoke(world: &mut World, up_to: i64) {
    world.servers[0].spec.revocation = Some(Revocation { up_to_issue_number: up_to, reason: "stolen".into() });
}

fn pause(world: &mut World) {
    let paused = || (annotation::PAUSED.to_owned(), PAUSED_VALUE.to_owned());
    world.servers[0].annotations_mut().extend([paused()]);
    world.anchors[0].annotations_mut().extend([paused()]);
}

/// The numbers of the first server's leaves, that for TLS first.
fn numbers(world: &World) -> Vec<u64> {
    let facts = world.identities[&key(&world.servers[0])].facts().unwrap();
    let signing = facts.signing.iter().map(|it| it.leaf.issue_number);
    [facts.authentication.issue_number].into_iter().chain(signing).collect()
}

/// What is published of the first server.
fn lowest(world: &World) -> u64 {
    let code = world.servers[0].spec.server_code.to_string();
    let namespace = world.servers[0].namespace().unwrap();
    let owner = world.members.iter().find(|it| it.namespace().as_deref() == Some(&namespace)).unwrap();
    let mut servers = world.document().servers.iter();
    let entry = servers.find(|it| it.server_code == code && it.member_code == *owner.spec.member_code).unwrap();
    entry.lowest_issue_number
}

fn told(world: &World) -> Vec<RevocationStatus> {
    world.anchors[0].status.as_ref().unwrap().revocations.clone()
}

#[test]
fn what_is_revoked_is_refused_and_issued_anew_also_under_a_pause() {
    for (up_to, paused, reissued) in [(0, false, false), (1, false, true), (1, true, true), (40, false, true)] {
        let mut world = World::steady();
        let (before, others) = (numbers(&world), world.identities.clone());
        assert!(before.iter().all(|number| *number == 1), "{before:?}");
        if paused {
            pause(&mut world);
        }
        revoke(&mut world, up_to);
        world.settle();
        let lowest_accepted = u64::try_from(up_to).unwrap() + 1;
        assert_eq!(lowest(&world), lowest_accepted, "up to {up_to}, paused {paused}");
        let after = numbers(&world);
        assert!(after.iter().all(|number| *number >= lowest_accepted), "up to {up_to}: {after:?}");
        assert_eq!(before != after, reissued, "up to {up_to}: {after:?}");
        let on_record: Vec<_> = world.on_record.iter().filter(|it| it.act == Act::Revoke).collect();
        let [record] = &on_record[..] else { panic!("{on_record:?}") };
        assert!(record.subject.ends_with(&format!("/ss1 up to {up_to}")), "{record:?}");
        // The link hears nobody with a revoked key, and nobody else has a new one.
        let keys = &world.servers[0].status.as_ref().unwrap().registered_keys;
        assert!(!keys.is_empty() && keys.iter().all(|key| key.issue_number >= lowest_accepted), "{keys:?}");
        for (place, facts) in &others {
            assert_eq!(world.identities[place] == *facts, !reissued || *place != key(&world.servers[0]));
        }
    }
}

#[test]
fn what_was_revoked_stays_so_when_the_spec_says_less() {
    let mut world = World::steady();
    revoke(&mut world, 5);
    world.settle();
    for less in [Some(2), None] {
        match less {
            Some(less) => revoke(&mut world, less),
            None => world.servers[0].spec.revocation = None,
        }
        world.settle();
        assert_eq!(lowest(&world), 6);
    }
}

#[test]
fn who_has_not_confirmed_it_is_told_and_by_when_it_must_refuse() {
    let mut world = World::steady();
    assert_eq!(told(&world), []);
    // One server hears of nothing.
    world.silent = Some(1);
    revoke(&mut world, 1);
    world.settle();
    let [first] = &told(&world)[..] else { panic!("{:?}", told(&world)) };
    let silent = key(&world.servers[1]);
    assert_eq!(
        (&first.namespace, &first.name, first.up_to_issue_number),
        (&key(&world.servers[0]).0, &key(&world.servers[0]).1, 1)
    );
    assert_eq!(first.waiting_for.len(), 2, "{first:?}");
    let named = format!("of SecurityServer {}/{}", silent.0, silent.1);
    assert!(first.waiting_for.iter().all(|who| who.ends_with(&named)), "{first:?}");
    let all = world.servers.len() * 2;
    assert_eq!(first.confirmed, format!("{}/{all}", all - 2));
    assert_eq!(first.refused_by.0, world.document().expires_at);
    // Documents go on, and neither the version that is waited for nor the time changes with them.
    world.later(26 * 3600);
    world.settle();
    assert!(world.document().version > first.instance_version);
    world.silent = None;
    world.settle();
    world.settle();
    let [after] = &told(&world)[..] else { panic!("{:?}", told(&world)) };
    assert_eq!((after.instance_version, &after.refused_by), (first.instance_version, &first.refused_by));
    assert_eq!((&after.confirmed, after.waiting_for.len()), (&format!("{all}/{all}"), 0));
    // The next one is waited for anew.
    world.silent = Some(1);
    revoke(&mut world, 2);
    world.settle();
    let [next] = &told(&world)[..] else { panic!("{:?}", told(&world)) };
    assert!(next.instance_version > after.instance_version && next.waiting_for.len() == 2, "{next:?}");
}
