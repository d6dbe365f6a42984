//! An authority whose key somebody else may have.

use std::collections::BTreeSet;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use saatkond_api::names::{PAUSED_VALUE, annotation};
use saatkond_api::v1alpha1::trust_anchor::{Emergency, EmergencyStatus, ExcludedServer};
use saatkond_domain::rotation::{Phase, Standing};
use saatkond_domain::trust_anchor::audit::Act;
use saatkond_wire::configuration::ServerEntry;

use crate::fixtures::{START, at};
use crate::world::{Crash, World, key};

fn since() -> Timestamp {
    at(START - 86_400)
}

fn declare(world: &mut World, compromised: u64, servers: &[usize], drop_at: Option<Timestamp>) {
    let named = servers.iter().map(|index| key(&world.servers[*index]));
    let compromised_servers = named.map(|(namespace, name)| ExcludedServer { namespace, name }).collect();
    world.anchors[0].spec.emergency = Some(Emergency {
        compromised_generation: compromised,
        compromised_since: Time(since()),
        compromised_servers,
        drop_at: drop_at.map(Time),
        reason: "a backup was stolen".into(),
    });
}

fn standing(world: &World) -> Standing {
    Standing::of(world.document()).unwrap()
}

/// What is published to be compromised.
fn compromised(world: &World) -> &[u64] {
    world.document().emergency.as_ref().map(|it| it.compromised_generations.as_slice()).unwrap_or_default()
}

fn told(world: &World) -> Option<EmergencyStatus> {
    world.anchors[0].status.as_ref().unwrap().emergency.clone()
}

/// Rounds until the phase is published, with what happens in each of them.
fn until(world: &mut World, reached: impl Fn(&Phase) -> bool) {
    for _ in 0..30 {
        if reached(&standing(world).phase) {
            return;
        }
        world.round().unwrap();
    }
    panic!("{:?}", standing(world));
}

/// The keys that a server really has, as its Secret holds them.
fn keys_of(world: &World, index: usize) -> BTreeSet<String> {
    let facts = world.identities[&key(&world.servers[index])].facts().unwrap().clone();
    let signing = facts.signing.into_iter().map(|it| it.leaf.spki_sha256);
    signing.chain([facts.authentication.spki_sha256]).collect()
}

/// The published entry of a server.
fn entry(world: &World, index: usize) -> &ServerEntry {
    let (namespace, code) = (world.servers[index].namespace(), world.servers[index].spec.server_code.to_string());
    let owner = world.members.iter().find(|it| it.namespace() == namespace).unwrap();
    let mut servers = world.document().servers.iter();
    servers.find(|it| it.server_code == code && it.member_code == *owner.spec.member_code).unwrap()
}

#[test]
fn the_leaves_that_were_issued_are_named_at_once_and_another_authority_takes_its_place() {
    for is_paused in [false, true] {
        let mut world = World::steady();
        let before = [0, 1].map(|index| keys_of(&world, index));
        if is_paused {
            world.anchors[0].annotations_mut().insert(annotation::PAUSED.to_owned(), PAUSED_VALUE.to_owned());
        }
        assert_eq!((compromised(&world), told(&world)), (&[][..], None));
        // No request, and no window that is open: nothing of that is waited for.
        declare(&mut world, 1, &[], None);
        until(&mut world, |phase| matches!(phase, Phase::Announcing { next: 2 }));
        assert_eq!(compromised(&world), [1]);
        for (index, keys) in before.iter().enumerate() {
            assert!(keys.len() > 1, "{keys:?}");
            assert_eq!(entry(&world, index).issued_keys, keys.iter().cloned().collect::<Vec<_>>());
        }
        assert_eq!(told(&world).unwrap().compromised_generation, 1);
        // New ones of the next authority are not named: it vouches for them.
        until(&mut world, |phase| matches!(phase, Phase::Switching { .. }));
        world.round().unwrap();
        assert!(matches!(standing(&world).phase, Phase::Switching { .. }));
        for (index, keys) in before.iter().enumerate() {
            assert_ne!(keys_of(&world, index), *keys);
            assert_eq!(entry(&world, index).issued_keys, keys.iter().cloned().collect::<Vec<_>>());
        }
        until(&mut world, |phase| matches!(phase, Phase::Retiring { .. }));
        assert_eq!(compromised(&world), [0; 0], "it is trusted for nothing any more");
        assert!((0..2).all(|index| entry(&world, index).issued_keys.is_empty()));
        world.settle();
        assert_eq!((standing(&world).phase, standing(&world).signing), (Phase::Stable, 2));
        assert_eq!(standing(&world).requests, ["emergency-2"]);
        assert_eq!((told(&world), world.authorities.contains_key(&1)), (None, false));
        let acts: Vec<_> = world.on_record.iter().map(|it| it.act).collect();
        assert!(acts.contains(&Act::Taint) && acts.contains(&Act::Destroy), "{acts:?}");
        // For whoever looks at evidence later, also when the spec says nothing of it any more.
        world.anchors[0].spec.emergency = None;
        world.settle();
        let history = &world.anchors[0].status.as_ref().unwrap().history;
        let known: Vec<_> =
            history.iter().map(|it| (it.generation, it.compromised_since.as_ref().map(|at| at.0))).collect();
        assert_eq!(known, [(1, Some(since())), (2, None)]);
    }
}

#[test]
fn all_servers_are_reissued_at_once_and_not_in_waves() {
    let mut world = World::steady();
    declare(&mut world, 1, &[], None);
    until(&mut world, |phase| matches!(phase, Phase::Announcing { .. }));
    // It states nothing more, and holds the change up.
    world.silent = Some(0);
    until(&mut world, |phase| matches!(phase, Phase::Switching { .. }));
    for _ in 0..2 {
        world.round().unwrap();
        assert_eq!(world.anchors[0].status.as_ref().unwrap().rotation.as_ref().unwrap().reissuing, None);
    }
    assert!(matches!(standing(&world).phase, Phase::Switching { .. }));
    for index in 0..2 {
        let facts = world.identities[&key(&world.servers[index])].facts().unwrap();
        assert_eq!(facts.authentication.generation, 2, "server {index}");
    }
}

#[test]
fn a_compromised_server_is_refused_at_once_and_nobody_waits_for_it() {
    let mut world = World::steady();
    world.silent = Some(1);
    declare(&mut world, 1, &[1], None);
    until(&mut world, |phase| matches!(phase, Phase::Announcing { .. }));
    assert!(entry(&world, 1).issued_keys.is_empty() && !entry(&world, 0).issued_keys.is_empty());
    let told = told(&world).unwrap();
    let (namespace, name) = key(&world.servers[1]);
    assert!(told.uncovered[0].starts_with(&format!("SecurityServer {namespace}/{name} is named")), "{told:?}");
    world.settle();
    assert_eq!((standing(&world).phase, standing(&world).signing), (Phase::Stable, 2));
}

#[test]
fn whoever_is_not_ready_is_waited_for_until_the_time_that_a_person_has_set_and_is_named_before() {
    let drop_at = at(START + 7200);
    let mut world = World::steady();
    world.silent = Some(1);
    declare(&mut world, 1, &[], Some(drop_at));
    world.settle();
    assert!(matches!(standing(&world).phase, Phase::Announcing { .. }), "{:?}", standing(&world));
    let named = told(&world).unwrap();
    let (namespace, name) = key(&world.servers[1]);
    assert_eq!((named.uncovered_count, named.uncovered.len()), (2, 2));
    let of_silent = |who: &String| who.contains(&format!("SecurityServer {namespace}/{name} "));
    assert!(named.uncovered.iter().all(of_silent), "{named:?}");
    assert_eq!((named.waiting_for.len(), &*named.confirmed), (2, "2/4"));
    // One who is not ready is passed over early enough for all others to get their certificates before.
    let minutes = jiff::SignedDuration::from_mins;
    for (before_the_end, phase) in [
        (minutes(10) + jiff::SignedDuration::from_secs(1), "Announcing"),
        (minutes(10), "Switching"),
        (jiff::SignedDuration::from_secs(1), "Switching"),
        (minutes(0), "Stable"),
    ] {
        world.now = drop_at - before_the_end;
        world.settle();
        assert_eq!(standing(&world).phase.to_string(), phase, "{before_the_end:?} before");
    }
    assert_eq!(standing(&world).signing, 2);
}

#[test]
fn a_time_to_drop_that_is_over_leaves_time_to_trust_and_to_reissue() {
    let mut world = World::steady();
    declare(&mut world, 1, &[], Some(at(START - 1)));
    world.silent = Some(1);
    until(&mut world, |phase| matches!(phase, Phase::Announcing { .. }));
    for (seconds, phase) in [(59, "Announcing"), (1, "Switching"), (119, "Switching"), (1, "Stable")] {
        world.later(seconds);
        world.settle();
        assert_eq!(standing(&world).phase.to_string(), phase, "{seconds} s later");
    }
}

#[test]
fn a_change_to_the_compromised_authority_is_taken_back_wherever_it_is() {
    type Reached = fn(&Phase) -> bool;
    let phases: [(&str, Reached); 3] = [
        ("announced", |phase| matches!(phase, Phase::Announcing { .. })),
        ("switching", |phase| matches!(phase, Phase::Switching { .. })),
        ("retiring", |phase| matches!(phase, Phase::Retiring { .. })),
    ];
    for (name, reached) in phases {
        let mut world = World::steady();
        let rotation = world.anchors[0].spec.rotation.get_or_insert_default();
        rotation.request_id = Some("annual".into());
        until(&mut world, reached);
        declare(&mut world, 2, &[], None);
        world.round().unwrap();
        // One that is announced never issues.
        assert_eq!(name == "announced", standing(&world).phase == Phase::RollingBack { withdrawn: 2 }, "{name}");
        world.settle();
        assert_eq!((standing(&world).phase, standing(&world).signing), (Phase::Stable, 1), "{name}");
        assert_eq!(world.unready(), Vec::<String>::new(), "{name}");
    }
}

#[test]
fn no_change_goes_back_to_the_compromised_authority() {
    let phases: [fn(&Phase) -> bool; 2] =
        [|phase| matches!(phase, Phase::Announcing { .. }), |phase| matches!(phase, Phase::Switching { .. })];
    for reached in phases {
        let mut world = World::steady();
        let rotation = world.anchors[0].spec.rotation.get_or_insert_default();
        rotation.request_id = Some("annual".into());
        until(&mut world, reached);
        declare(&mut world, 1, &[], None);
        world.anchors[0].spec.rotation.get_or_insert_default().cancel = Some("annual".into());
        world.settle();
        assert_eq!((standing(&world).phase, standing(&world).signing), (Phase::Stable, 2));
        assert_eq!(standing(&world).requests, ["annual"], "the change that is under way is the one");
    }
}

#[test]
fn the_next_authority_may_be_compromised_as_well_and_another_one_follows() {
    let mut world = World::steady();
    declare(&mut world, 1, &[], None);
    until(&mut world, |phase| matches!(phase, Phase::Announcing { next: 2 }));
    let keys = keys_of(&world, 0);
    declare(&mut world, 2, &[], None);
    world.round().unwrap();
    // Neither stops being compromised because the other is: the next one is withdrawn, and the first is replaced all the same.
    assert_eq!(standing(&world).phase, Phase::RollingBack { withdrawn: 2 });
    assert_eq!(compromised(&world), [1]);
    assert_eq!(entry(&world, 0).issued_keys, keys.into_iter().collect::<Vec<_>>());
    world.settle();
    assert_eq!((standing(&world).phase, standing(&world).signing), (Phase::Stable, 3));
    assert_eq!(standing(&world).requests, ["emergency-2", "emergency-3"]);
}

#[test]
fn what_is_compromised_stays_so_while_it_is_trusted_and_a_number_that_nobody_has_is_nothing() {
    let mut world = World::steady();
    declare(&mut world, 1, &[], None);
    world.silent = Some(1);
    world.settle();
    for named in [None, Some(9)] {
        world.anchors[0].spec.emergency = None;
        if let Some(named) = named {
            declare(&mut world, named, &[], None);
        }
        world.settle();
        assert_eq!(compromised(&world), [1], "{named:?}");
        assert!(!entry(&world, 0).issued_keys.is_empty(), "{named:?}");
        assert_eq!(told(&world).map(|it| it.compromised_generation), Some(1), "{named:?}");
    }
    let mut world = World::steady();
    let before = world.document().clone();
    declare(&mut world, 9, &[], None);
    world.settle();
    assert_eq!((world.document(), told(&world)), (&before, None));
}

#[test]
fn a_crash_at_any_write_of_an_emergency_changes_nothing_in_the_end() {
    let run = |crash: Option<Crash>| {
        let mut world = World::steady();
        world.twice = false;
        declare(&mut world, 1, &[], None);
        world.crash = crash;
        world.settle();
        world
    };
    let writes = run(None).log.len();
    for write in 0..writes {
        for crash in [Crash::Before(write), Crash::After(write)] {
            let world = run(Some(crash));
            assert_eq!(world.crash, None, "the walk must come to {crash:?}");
            assert_eq!((standing(&world).phase, standing(&world).signing), (Phase::Stable, 2), "{crash:?}");
            assert_eq!(world.unready(), Vec::<String>::new(), "{crash:?}");
        }
    }
}
