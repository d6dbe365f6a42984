//! From nothing to the steady state, with a crash at every write, and what happens to it as time passes.

use kube::ResourceExt;
use proptest::prelude::*;
use saatkond_domain::observed::{NamespaceAccess, Published, Stored};

use crate::world::{Crash, World, key};

/// What must be equal at the end of two runs: everything but serial numbers, keys and resource versions.
pub fn essence(world: &World) -> Vec<String> {
    let mut lines = vec![];
    for anchor in &world.anchors {
        lines.push(format!("{} {:?}", key(anchor).1, anchor.metadata.finalizers));
    }
    for member in &world.members {
        lines.push(format!(
            "{:?} {:?} {:?}",
            key(member),
            member.metadata.finalizers,
            member.status.as_ref().map(|s| &s.servers)
        ));
    }
    for server in &world.servers {
        lines.push(format!("{:?} {:?}", key(server), server.metadata.finalizers));
    }
    for (generation, certificate) in &world.authorities {
        lines.push(format!("authority {generation} {}", certificate.facts().subject));
    }
    lines.push(format!("keys {:?}", world.configuration_keys));
    let document = world.document();
    lines.push(format!("{:?} {:?} {}", document.members, document.servers, document.bundle_sequence));
    for (place, document) in &world.configurations {
        lines.push(format!("{place:?} {:?}", document.payload().map(|it| &it.clients)));
    }
    for (place, identity) in &world.identities {
        let Stored::Present(facts) = identity else { panic!("{identity:?}") };
        let signing: Vec<_> = facts.signing.iter().map(|it| (&it.member, &it.leaf.uri)).collect();
        lines.push(format!("{place:?} {} {} {signing:?}", facts.issue_number, facts.authentication.uri));
    }
    for (place, copy) in &world.copies {
        lines.push(format!("{place:?} copies {} {}", copy.instance.is_some(), copy.server_version.is_some()));
    }
    for (place, children) in &world.children {
        let mut all: Vec<_> = children.iter().map(|it| (it.kind, &it.name, &it.applied_hash)).collect();
        all.sort();
        lines.push(format!("{place:?} {all:?}"));
    }
    lines
}

#[test]
fn everything_becomes_ready_and_stays_quiet() {
    let mut world = World::federation();
    world.settle();
    assert_eq!(world.unready(), Vec::<String>::new());
    assert_eq!(world.document().members.len(), 3);
    assert_eq!(world.document().servers.len(), 2);
    let before = world.log.len();
    world.later(300);
    world.settle();
    assert_eq!(world.log[before..], [] as [String; 0], "no write in five idle minutes");
}

#[test]
fn a_crash_at_any_write_changes_nothing_in_the_end() {
    let mut reference = World::federation();
    reference.twice = false;
    let mut beginnings = vec![reference.clone()];
    while reference.round().is_ok_and(|wrote| wrote) {
        beginnings.push(reference.clone());
    }
    let wanted = essence(&reference);
    let sites = reference.log.len();
    assert!(sites > 30, "{:#?}", reference.log);
    for site in 0..sites {
        for crash in [Crash::Before(site), Crash::After(site)] {
            // Up to the round of the crash all runs are the same.
            let beginning = beginnings.iter().rev().find(|world| world.log.len() <= site);
            let mut world = beginning.unwrap().clone();
            world.crash = Some(crash);
            world.settle();
            assert_eq!(world.crash, None, "the walk must come to {crash:?}");
            assert_eq!(essence(&world), wanted, "{crash:?}");
            assert_eq!(world.unready(), Vec::<String>::new(), "{crash:?}");
            let made = |what: &str| world.log.iter().filter(|line| line.contains(what)).count();
            for secret in
                ["create Secret ee-ca-", "create Secret ee-configuration-1", "create Secret ee-configuration-2"]
            {
                assert_eq!(made(secret), 1, "{crash:?}: {secret}");
            }
        }
    }
    println!("crash plans: {} over {sites} write sites", 2 * sites);
}

#[test]
fn a_crash_at_any_write_of_a_departure_changes_nothing_in_the_end() {
    let depart = |crash: Option<Crash>| {
        let mut world = World::steady();
        world.delete_server(0);
        world.delete_member(2);
        world.crash = crash;
        world.settle();
        world
    };
    let reference = depart(None);
    let wanted = essence(&reference);
    for site in 0..reference.log.len() {
        for crash in [Crash::Before(site), Crash::After(site)] {
            let world = depart(Some(crash));
            assert_eq!(essence(&world), wanted, "{crash:?}");
            let at = |what: &str| world.log.iter().position(|line| line.contains(what)).unwrap();
            assert!(
                at("publish ConfigMap ee-instance-configuration") < at("patch SecurityServer population-register/ss1"),
                "{crash:?}: out of the configuration before the pods go: {:#?}",
                world.log
            );
        }
    }
}

#[test]
fn leaves_are_renewed_through_a_month_and_documents_daily() {
    let mut world = World::steady();
    let (mut issued, mut renewals) = (1, 0);
    for hour in (0..30 * 24).step_by(3) {
        world.later(3 * 3600);
        world.settle();
        assert_eq!(world.unready(), Vec::<String>::new(), "hour {hour}");
        let seen = world.observe_server(0);
        let facts = seen.identity.facts().unwrap();
        assert!(facts.issue_number == issued || facts.issue_number == issued + 1, "numbers rise one by one");
        renewals += u32::from(facts.issue_number > issued);
        issued = facts.issue_number;
        let document = world.document();
        let left = document.expires_at.duration_since(world.now).as_hours();
        assert!(left >= 72, "hour {hour}: documents must outlive the autonomy, {left} h are left");
        let left = facts.authentication.not_after.duration_since(world.now).as_hours();
        assert!(left >= 120, "hour {hour}: a third of a leaf's life must be left, {left} h are");
    }
    // 30 days in steps of 0.55 to 0.65 of 15 days.
    assert_eq!(renewals, 3);
    let published = world.log.iter().filter(|line| line.contains("ee-instance-configuration")).count();
    assert!((30..=33).contains(&published), "{published} in 30 days");
    let leaves = world.log.iter().filter(|line| line.contains("write Secret")).count();
    assert_eq!(leaves, 6, "all leaves of a server are renewed in one write");
}

#[test]
fn one_registered_key_stays_until_its_leaf_ends() {
    let mut world = World::steady();
    let keys = |world: &World| world.servers[0].status.as_ref().unwrap().registered_keys.clone();
    let first = keys(&world);
    assert_eq!(first.len(), 1);
    let mut most = 0;
    for _ in 0..20 {
        world.later(24 * 3600);
        world.settle();
        let now = keys(&world);
        assert!(now.iter().all(|key| key.not_after.0 > world.now));
        assert!(now.windows(2).all(|pair| pair[0].issue_number > pair[1].issue_number));
        most = most.max(now.len());
    }
    assert_eq!(most, 2, "while the old leaf is valid, some process may still present it");
    assert!(!keys(&world).contains(&first[0]));
}

/// What people, time and accidents do to a federation.
#[derive(Debug, Clone)]
enum Event {
    Hours(i64),
    Deny(usize),
    Grant(usize),
    TakeIdentity(usize),
    GiveIdentity(usize),
    DeleteMember(usize),
    DeleteServer(usize),
    DropGuests(usize),
    Pause(usize, bool),
    Replicas(usize, i32),
    LoseIdentity(usize),
    LoseConfiguration(usize),
    LoseDocument,
    LoseCopy(usize),
    EditChild(usize, usize),
    Crash(usize),
}

const NAMESPACES: [(&str, &str); 3] =
    [("population-register", "EE/GOV/70000001"), ("benefits", "EE/GOV/70000002"), ("clinic", "EE/COM/1")];

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (0_i64..300).prop_map(Event::Hours),
        (0_usize..3).prop_map(Event::Deny),
        (0_usize..3).prop_map(Event::Grant),
        (0_usize..3).prop_map(Event::TakeIdentity),
        (0_usize..3).prop_map(Event::GiveIdentity),
        (0_usize..3).prop_map(Event::DeleteMember),
        (0_usize..2).prop_map(Event::DeleteServer),
        (0_usize..2).prop_map(Event::DropGuests),
        (0_usize..2, any::<bool>()).prop_map(|(at, pause)| Event::Pause(at, pause)),
        (0_usize..2, 0_i32..4).prop_map(|(at, n)| Event::Replicas(at, n)),
        (0_usize..2).prop_map(Event::LoseIdentity),
        (0_usize..2).prop_map(Event::LoseConfiguration),
        Just(Event::LoseDocument),
        (0_usize..2).prop_map(Event::LoseCopy),
        (0_usize..2, 0_usize..5).prop_map(|(at, child)| Event::EditChild(at, child)),
        (0_usize..12).prop_map(Event::Crash),
    ]
}

fn happen(world: &mut World, event: &Event) {
    let place = |world: &World, at: usize| world.servers.get(at).map(key);
    match *event {
        Event::Hours(hours) => world.later(hours * 3600),
        Event::Deny(at) => world.namespaces.get_mut(NAMESPACES[at].0).unwrap().access = NamespaceAccess::Denied,
        Event::Grant(at) => world.namespaces.get_mut(NAMESPACES[at].0).unwrap().access = NamespaceAccess::Granted,
        Event::TakeIdentity(at) => world.namespaces.get_mut(NAMESPACES[at].0).unwrap().identities = None,
        Event::GiveIdentity(at) => {
            world.namespaces.get_mut(NAMESPACES[at].0).unwrap().identities = Some(NAMESPACES[at].1.into());
        }
        Event::DeleteMember(at) if at < world.members.len() => world.delete_member(at),
        Event::DeleteServer(at) if at < world.servers.len() => world.delete_server(at),
        Event::DropGuests(at) if at < world.servers.len() => world.servers[at].spec.guests.clear(),
        Event::Replicas(at, n) if at < world.servers.len() => world.servers[at].spec.replicas = n,
        Event::Pause(at, pause) if at < world.servers.len() => {
            world.servers[at].annotations_mut().insert("saatkond.io/paused".into(), pause.to_string());
        }
        Event::LoseIdentity(at) => drop(place(world, at).and_then(|place| world.identities.remove(&place))),
        Event::LoseConfiguration(at) => drop(place(world, at).and_then(|place| world.configurations.remove(&place))),
        Event::LoseDocument => world.instance = Published::Absent,
        Event::LoseCopy(at) => drop(place(world, at).and_then(|place| world.copies.remove(&place))),
        Event::EditChild(at, child) => {
            let children = place(world, at).and_then(|place| world.children.get_mut(&place));
            if let Some(child) = children.and_then(|all| all.get_mut(child)) {
                child.intact = false;
            }
        }
        Event::Crash(after) => world.crash = Some(Crash::After(world.log.len() + after)),
        // What it was about has gone already.
        Event::DeleteMember(_)
        | Event::DeleteServer(_)
        | Event::DropGuests(_)
        | Event::Replicas(..)
        | Event::Pause(..) => {}
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn whatever_happens_it_settles_and_what_must_rise_rises(events in prop::collection::vec(event(), 1..10)) {
        let mut world = World::steady();
        world.twice = false;
        let (mut version, mut numbers) = (world.document().version, std::collections::BTreeMap::new());
        for event in &events {
            happen(&mut world, event);
            world.settle();
            world.crash = None;
            let document = world.document();
            prop_assert!(document.version >= version, "versions never go back");
            version = document.version;
            prop_assert_eq!(document.bundle_sequence, 1, "nothing here touches the bundle");
            for (place, identity) in &world.identities {
                let Some(facts) = identity.facts() else { continue };
                let highest = numbers.entry(place.clone()).or_insert(0);
                prop_assert!(facts.issue_number >= *highest, "issue numbers never go back");
                *highest = facts.issue_number;
            }
            for server in &document.servers {
                for client in &server.clients {
                    let listed = document.members.iter().any(|it| it.member_code == client.member_code);
                    prop_assert!(listed, "{server:?} serves somebody who is not registered");
                }
            }
        }
        let before = world.log.len();
        prop_assert!(!world.round().unwrap_or(true), "after {events:?}: {:#?}", &world.log[before..]);
        let made = world.log.iter().filter(|line| line.starts_with("create Secret")).count();
        prop_assert_eq!(made, 0, "no second authority, no second configuration key");
    }
}
