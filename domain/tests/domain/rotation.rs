//! A change of the authority, walked through the whole model world.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use kube::ResourceExt;
use saatkond_api::conditions::{ConditionType, find};
use saatkond_api::names::annotation;
use saatkond_api::v1alpha1::trust_anchor::{ReissuingWave, RotationPhase};
use saatkond_domain::observed::Published;
use saatkond_domain::rotation::waves::rank;
use saatkond_domain::rotation::{Phase, Standing};
use saatkond_domain::trust_anchor;

use crate::fixtures::{START, at};
use crate::walk::essence;
use crate::world::{Crash, World, authority};

impl World {
    fn ask(&mut self, request: &str) {
        let rotation = self.anchors[0].spec.rotation.get_or_insert_default();
        rotation.request_id = Some(request.into());
    }

    fn cancel(&mut self, request: &str) {
        self.anchors[0].spec.rotation.get_or_insert_default().cancel = Some(request.into());
    }

    fn standing(&self) -> Standing {
        Standing::of(self.document()).unwrap()
    }

    fn rotation_message(&self) -> String {
        let conditions = &self.anchors[0].status.as_ref().unwrap().conditions;
        let found = find(conditions, ConditionType::RotationUnblocked).unwrap();
        format!("{}/{} {}", found.status, found.reason, found.message)
    }

    /// Rounds until the phase is published.
    fn until(&mut self, reached: impl Fn(&Phase) -> bool) {
        for _ in 0..30 {
            if reached(&self.standing().phase) {
                return;
            }
            self.round().unwrap();
        }
        panic!("{:?}: {}", self.standing(), self.rotation_message());
    }
}

#[test]
fn a_request_replaces_the_authority_once() {
    let mut world = World::steady();
    let (before, start) = (world.document().bundle_sequence, world.log.len());
    world.ask("annual");
    let mut phases = vec![];
    for _ in 0..30 {
        let wrote = world.round().unwrap();
        assert_eq!(world.unready(), Vec::<String>::new(), "nothing of the federation is lost on the way");
        let (phase, sequence) = (world.standing().phase, world.document().bundle_sequence);
        if phases.last() != Some(&(phase, sequence)) {
            phases.push((phase, sequence));
        }
        if !wrote {
            break;
        }
    }
    let ways = [
        (Phase::Stable, before),
        (Phase::Announcing { next: 2 }, before + 1),
        (Phase::Switching { old: 1, returning: false }, before + 2),
        (Phase::Retiring { old: 1, returning: false }, before + 3),
        (Phase::Stable, before + 3),
    ];
    assert_eq!(phases, ways);
    assert_eq!(world.authorities.keys().copied().collect::<Vec<_>>(), [2], "the old key is destroyed");
    assert_eq!(world.unready(), Vec::<String>::new());
    for server in &world.servers {
        let status = server.status.as_ref().unwrap();
        let issuers = status.signing.iter().map(|leaf| leaf.issuer_generation);
        assert!(issuers.chain(status.leaf.iter().map(|leaf| leaf.issuer_generation)).all(|issuer| issuer == 2));
    }
    let status = world.anchors[0].status.as_ref().unwrap().rotation.as_ref().unwrap();
    assert_eq!((status.phase, &*status.acknowledged, status.highest_generation), (RotationPhase::Stable, "4/4", 2));
    let at = |what: &str| world.log[start..].iter().position(|line| line.contains(what)).unwrap();
    assert!(at("create Secret ee-ca-2") < at("publish ConfigMap ee-instance"), "made before it is announced");

    // The same value again, and one that was taken up before another.
    let done = world.log.len();
    world.settle();
    world.ask("second");
    world.settle();
    assert_eq!(world.standing().signing, 3);
    world.ask("annual");
    world.settle();
    assert_eq!((world.standing().signing, world.standing().requests), (3, vec!["annual".into(), "second".into()]));
    assert!(world.log.len() > done);
}

#[test]
fn a_crash_at_any_write_of_a_change_changes_nothing_in_the_end() {
    let change = |crash: Option<Crash>| {
        let mut world = World::steady();
        world.twice = false;
        world.ask("annual");
        world.crash = crash;
        world.settle();
        world
    };
    let reference = change(None);
    let wanted = essence(&reference);
    let sites = reference.log.len();
    for site in 0..sites {
        for crash in [Crash::Before(site), Crash::After(site)] {
            let world = change(Some(crash));
            assert_eq!(world.crash, None, "the walk must come to {crash:?}");
            assert_eq!(essence(&world), wanted, "{crash:?}");
            assert_eq!(world.unready(), Vec::<String>::new(), "{crash:?}");
            let made = world.log.iter().filter(|line| line.contains("create Secret ee-ca-")).count();
            assert_eq!(made, 1, "{crash:?}: one authority for one request");
        }
    }
    println!("crash plans of a rotation: {} over {sites} write sites", 2 * sites);
}

#[test]
fn a_change_that_is_cancelled_ends_where_it_began_and_its_number_is_used_up() {
    for reached in [
        |phase: &Phase| matches!(phase, Phase::Announcing { .. }),
        |phase: &Phase| matches!(phase, Phase::Switching { .. }),
        |phase: &Phase| matches!(phase, Phase::Retiring { .. }),
    ] {
        let mut world = World::steady();
        world.ask("annual");
        world.until(reached);
        let from = world.standing().phase;
        world.cancel("annual");
        world.settle();
        let Standing { phase, signing, highest, .. } = world.standing();
        assert_eq!((phase, signing, highest), (Phase::Stable, 1, 2), "cancelled in {from}");
        assert_eq!(world.authorities.keys().copied().collect::<Vec<_>>(), [1], "cancelled in {from}");
        assert_eq!(world.unready(), Vec::<String>::new(), "cancelled in {from}");
        world.ask("again");
        world.settle();
        assert_eq!((world.standing().signing, world.standing().highest), (3, 3), "after {from}");
    }
}

#[test]
fn a_change_that_is_cancelled_before_it_begins_does_not() {
    let mut world = World::steady();
    world.ask("annual");
    world.cancel("annual");
    world.settle();
    assert_eq!((world.standing(), world.authorities.len()), (Standing::first(1), 1));
}

#[test]
fn a_request_that_an_anchor_is_born_with_changes_nothing() {
    let mut world = World::federation();
    world.ask("initial");
    world.settle();
    assert_eq!((world.standing().phase, world.standing().signing), (Phase::Stable, 1));
    assert_eq!((world.standing().requests, world.authorities.len()), (vec!["initial".into()], 1));
    world.ask("annual");
    world.settle();
    assert_eq!(world.standing().signing, 2);
}

#[test]
fn an_authority_is_replaced_at_half_of_its_life_in_a_window_and_cancelled_once() {
    let mut world = World::steady();
    let next = |world: &World| {
        let status = world.anchors[0].status.as_ref().unwrap().rotation.as_ref().unwrap();
        status.next_start.as_ref().map(|next| (next.request.clone(), next.at.0))
    };
    let half = world.authorities[&1].not_before() + SignedDuration::from_hours(4380);
    assert_eq!(next(&world), Some(("scheduled-2".into(), half)));
    // A window that opens an hour after.
    let minute = half + SignedDuration::from_hours(1);
    let opens = minute.strftime("%M %H %d %m *").to_string();
    let window = serde_json::json!({"cron": opens, "duration": "1h"});
    let rotation = world.anchors[0].spec.rotation.get_or_insert_default();
    rotation.windows = vec![serde_json::from_value(window).unwrap()];
    let until = |world: &mut World, time: Timestamp| {
        // Certificates and documents are renewed on the way.
        while world.now < time {
            world.now = time.min(world.now + SignedDuration::from_hours(48));
            world.settle();
        }
    };
    until(&mut world, minute - SignedDuration::from_secs(1));
    assert_eq!((world.standing(), next(&world)), (Standing::first(1), Some(("scheduled-2".into(), minute))));
    let plan = trust_anchor::plan(&world.observe_anchor(0), world.now);
    assert_eq!(plan.next_check, minute, "it is looked at when the window opens");
    world.later(1);
    world.until(|phase| matches!(phase, Phase::Announcing { next: 2 }));
    assert_eq!((world.standing().requests, next(&world)), (vec!["scheduled-2".into()], None));
    world.cancel("scheduled-2");
    world.settle();
    assert_eq!((world.standing().phase, world.standing().signing), (Phase::Stable, 1));
    assert_eq!(next(&world), None, "it would begin again the moment it is undone");
    world.anchors[0].spec.rotation.as_mut().unwrap().cancel = None;
    world.settle();
    assert_eq!((world.standing().phase, world.standing().signing), (Phase::Stable, 3));
    assert_eq!(next(&world).unwrap().0, "scheduled-4");
    assert_eq!(world.unready(), Vec::<String>::new());
}

#[test]
fn whoever_was_trusted_stays_on_record() {
    let history = |world: &World| -> Vec<(u64, bool)> {
        let history = &world.anchors[0].status.as_ref().unwrap().history;
        history.iter().map(|past| (past.generation, past.trusted_until.is_none())).collect()
    };
    let mut world = World::steady();
    assert_eq!(history(&world), [(1, true)]);
    world.later(60);
    world.ask("annual");
    world.until(|phase| matches!(phase, Phase::Retiring { .. }));
    assert_eq!(history(&world), [(1, false), (2, true)]);
    world.cancel("annual");
    world.until(|phase| matches!(phase, Phase::Switching { .. }));
    assert_eq!(history(&world), [(1, true), (2, true)], "trusted again");
    world.settle();
    assert_eq!(history(&world), [(1, true), (2, false)]);
    world.later(60);
    world.ask("again");
    world.until(|phase| matches!(phase, Phase::Retiring { .. }));
    world.until(|phase| *phase == Phase::Stable);
    let past = world.anchors[0].status.as_ref().unwrap().history.clone();
    assert_eq!(past[0].certificate, authority(1, 8760).to_pem(), "what was signed under it can be verified");
    assert_eq!((past[0].trusted_since.0, past[0].trusted_until.as_ref().unwrap().0), (at(START), at(START + 120)));

    // Its certificate is not deleted before it stands there.
    let mut seen = world.observe_anchor(0);
    let destroys = |seen: &_| trust_anchor::plan(seen, world.now).destroy_authority;
    assert!(destroys(&seen).is_some_and(|secret| secret.name == "ee-ca-1"));
    Arc::make_mut(&mut seen.anchor).status.as_mut().unwrap().history.clear();
    assert_eq!(destroys(&seen), None);
    world.anchors[0].status.as_mut().unwrap().history.clear();
    world.settle();
    assert_eq!(history(&world), [(1, false), (3, true)]);
    assert_eq!(world.authorities.keys().copied().collect::<Vec<_>>(), [3]);
}

#[test]
fn a_window_that_cannot_be_read_is_named_where_changes_are_looked_for() {
    let mut world = World::steady();
    let window = serde_json::json!({"cron": "0 25 * * *", "duration": "1h"});
    world.anchors[0].spec.rotation.get_or_insert_default().windows = vec![serde_json::from_value(window).unwrap()];
    world.ask("annual");
    world.settle();
    assert_eq!(world.standing(), Standing::first(1));
    let message = world.rotation_message();
    assert!(message.starts_with("False/InvalidSpec spec.rotation.windows[0], "), "{message}");
}

#[test]
fn nothing_is_retired_before_the_link_has_another_leaf() {
    let mut world = World::steady();
    world.ask("annual");
    world.until(|phase| matches!(phase, Phase::Retiring { .. }));
    let link = world.log.iter().rposition(|line| line.contains("saatkond-link-identity")).unwrap();
    let retired = world.log.iter().rposition(|line| line.contains("publish ConfigMap ee-instance")).unwrap();
    assert!(link < retired, "{:#?}", world.log);
    assert_eq!(world.link_leaf.facts().unwrap().generation, 2);
}

#[test]
fn one_silent_process_holds_everything_up_and_is_named() {
    let mut world = World::steady();
    world.ask("annual");
    world.silent = Some(0);
    world.settle();
    assert_eq!(world.standing().phase, Phase::Announcing { next: 2 });
    let uid = format!("{}-pod-0", world.servers[0].uid().unwrap());
    let message = world.rotation_message();
    assert!(message.starts_with("False/RotationWaiting Announcing: pod "), "{message}");
    assert!(message.contains(&*uid) && message.contains("population-register/ss1"), "{message}");
    let status = world.anchors[0].status.as_ref().unwrap().rotation.as_ref().unwrap();
    assert_eq!((status.phase, &*status.acknowledged), (RotationPhase::Announcing, "2/4"));
    let issued_by = |world: &World| world.servers[0].status.as_ref().unwrap().leaf.as_ref().unwrap().issuer_generation;
    assert_eq!(issued_by(&world), 1);
    world.silent = None;
    world.report();
    world.settle();
    assert_eq!((world.standing().phase, world.standing().signing, issued_by(&world)), (Phase::Stable, 2, 2));
    assert_eq!(world.rotation_message(), "True/AsDeclared no change of the authority is under way");
}

#[test]
fn one_server_gets_new_certificates_first_and_the_others_once_it_presents_them() {
    let mut world = World::steady();
    world.ask("annual");
    // And all have stated it.
    world.until(|phase| matches!(phase, Phase::Announcing { .. }));
    let rank_of = |world: &World, index: usize| {
        let id = world.servers[index].status.as_ref().unwrap().identity.clone().unwrap();
        rank(2, &id.parse().unwrap())
    };
    let canary = (0..world.servers.len()).min_by_key(|index| rank_of(&world, *index)).unwrap();
    world.silent = Some(canary);
    world.until(|phase| matches!(phase, Phase::Switching { .. }));
    let issuers = |world: &World| {
        let status = world.servers.iter().map(|server| server.status.as_ref().unwrap());
        status.map(|status| status.leaf.as_ref().unwrap().issuer_generation).collect::<Vec<_>>()
    };
    for _ in 0..6 {
        world.round().unwrap();
        let alone = (0..world.servers.len()).map(|index| if index == canary { 2 } else { 1 });
        assert!(issuers(&world).into_iter().zip(alone).all(|(issuer, most)| issuer <= most), "{:?}", issuers(&world));
    }
    assert_eq!(issuers(&world)[canary], 2);
    let rotation = |world: &World| world.anchors[0].status.as_ref().unwrap().rotation.clone().unwrap();
    let reissuing = rotation(&world).reissuing.unwrap();
    assert_eq!((reissuing.wave, reissuing.up_to), (ReissuingWave::Canary, Some(rank_of(&world, canary))));
    // Who waits for its turn is not who is waited for.
    let name =
        |index: usize| format!("{}/{}", world.servers[index].namespace().unwrap(), world.servers[index].name_any());
    let said = world.rotation_message();
    assert!(said.contains(&name(canary)) && !said.contains(&name(1 - canary)), "{said}");
    let blocking = &world.anchors[0].status.as_ref().unwrap().blocking;
    assert!(!blocking.is_empty() && blocking.iter().all(|it| format!("{}/{}", it.namespace, it.name) == name(canary)));
    // Whoever has lost the status begins with one again, and takes nothing back.
    world.anchors[0].status.as_mut().unwrap().rotation.as_mut().unwrap().reissuing = None;
    world.round().unwrap();
    assert_eq!(issuers(&world)[1 - canary], 1);
    world.silent = None;
    world.report();
    world.settle();
    assert_eq!((issuers(&world), rotation(&world).reissuing), (vec![2, 2], None));
}

/// Act, its subject, and how many are trusted.
fn on_record(world: &World) -> Vec<(String, String, usize)> {
    let told = world.on_record.iter().map(|it| (it.act.to_string(), it.subject.clone(), it.trusted.len()));
    told.collect()
}

#[test]
fn each_act_is_put_on_record_once_with_whom_it_concerns() {
    let mut world = World::steady();
    world.on_record.clear();
    world.ask("annual");
    world.settle();
    let expected = [
        ("prepare", "authority 2", 1),
        ("announce", "authority 2", 2),
        ("switch", "authority 2", 2),
        ("retire", "authority 1", 1),
        ("complete", "authority 2", 1),
        ("destroy", "authority 1", 1),
    ];
    let expected = expected.map(|(act, subject, trusted)| (act.to_owned(), subject.to_owned(), trusted));
    assert_eq!(on_record(&world), expected);
    let announced = &world.on_record[1];
    assert_eq!((&*announced.request, announced.signing_generation), ("annual", 1));
    let serial = |generation: u32| authority(generation, 8760).facts().serial.clone();
    assert_eq!(announced.trusted, [1, 2].map(|generation| format!("{generation}:{}", serial(generation))));
    assert!(announced.bundle_sequence < world.on_record[2].bundle_sequence);

    for (reached, expected) in [
        (
            (|phase: &Phase| matches!(phase, Phase::Announcing { .. })) as fn(&Phase) -> bool,
            vec!["prepare", "announce", "cancel", "complete", "destroy"],
        ),
        (
            |phase: &Phase| matches!(phase, Phase::Switching { .. }),
            vec!["prepare", "announce", "switch", "cancel", "retire", "complete", "destroy"],
        ),
        (
            |phase: &Phase| matches!(phase, Phase::Retiring { .. }),
            vec!["prepare", "announce", "switch", "retire", "cancel", "cancel", "retire", "complete", "destroy"],
        ),
    ] {
        let mut world = World::steady();
        world.on_record.clear();
        world.ask("annual");
        world.until(reached);
        world.cancel("annual");
        world.settle();
        let acts: Vec<_> = on_record(&world).into_iter().map(|(act, ..)| act).collect();
        assert_eq!(acts, expected);
    }
}

#[test]
fn a_paused_anchor_neither_begins_nor_goes_on_and_can_be_cancelled() {
    let mut world = World::steady();
    let paused = |world: &mut World, on: bool| {
        let annotations = world.anchors[0].annotations_mut();
        if on {
            annotations.insert(annotation::PAUSED.into(), "true".into());
        } else {
            annotations.remove(annotation::PAUSED);
        }
    };
    paused(&mut world, true);
    world.ask("annual");
    world.settle();
    assert_eq!(world.standing(), Standing::first(1));
    paused(&mut world, false);
    world.until(|phase| matches!(phase, Phase::Announcing { .. }));
    paused(&mut world, true);
    world.settle();
    assert_eq!(world.standing().phase, Phase::Announcing { next: 2 });
    world.cancel("annual");
    world.round().unwrap();
    assert_eq!(world.standing().phase, Phase::RollingBack { withdrawn: 2 });
}

#[test]
fn an_announced_key_that_is_lost_is_named_and_the_change_can_be_undone() {
    let mut world = World::steady();
    world.ask("annual");
    world.until(|phase| matches!(phase, Phase::Announcing { .. }));
    world.authorities.remove(&2);
    world.settle();
    assert_eq!(world.standing().phase, Phase::Announcing { next: 2 });
    let unready = world.unready().join("\n");
    assert!(unready.contains("AuthorityLost Secret ee-ca-2"), "{unready}");
    assert!(unready.contains("spec.rotation.cancel"), "{unready}");
    world.cancel("annual");
    world.settle();
    assert_eq!((world.standing().phase, world.standing().signing), (Phase::Stable, 1));
    assert_eq!(world.unready(), Vec::<String>::new());
}

#[test]
fn an_older_document_that_is_put_back_puts_no_older_phase_back() {
    let mut world = World::steady();
    let older = world.instance.clone();
    world.ask("annual");
    world.until(|phase| matches!(phase, Phase::Switching { .. }));
    let (sequence, version) = (world.document().bundle_sequence, world.document().version);
    let Published::Valid(mut old) = older else { panic!("published") };
    old.resource_version = "by-hand".into();
    world.instance = Published::Valid(old);
    world.silent = Some(0);
    world.settle();
    let Standing { phase, signing, .. } = world.standing();
    assert!(phase != Phase::Stable && signing == 2, "it goes on from where it was: {:?}", world.standing());
    assert!(world.document().version > version && world.document().bundle_sequence >= sequence);
    world.silent = None;
    world.report();
    world.settle();
    assert_eq!((world.standing().phase, world.standing().signing), (Phase::Stable, 2));
}
