//! Who counts, who has ended, who has vanished, and whom a person has excluded.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use saatkond_api::conditions::{ConditionType, Reason};
use saatkond_api::v1alpha1::security_server::CountedPod;
use saatkond_api::v1alpha1::trust_anchor::{ExcludedServer, Exclusion, Rotation};
use saatkond_domain::observed::ObservedPod;
use saatkond_domain::security_server::observed::ObservedSecurityServer;
use saatkond_domain::security_server::plan::AppliedSecurityServer;
use saatkond_domain::security_server::{plan, processes, status};
use saatkond_domain::trust_anchor;
use saatkond_domain::trust_anchor::observed::ObservedTrustAnchor;
use saatkond_domain::trust_anchor::plan::AppliedTrustAnchor;

use crate::world::World;

const POD: &str = "provider-server-uid-pod-0";
const OTHER: &str = "provider-server-uid-pod-1";

/// Writes what a look at the first server comes to, as the operator would; `pods` are seen.
fn look(world: &mut World, pods: &[ObservedPod]) {
    let mut seen = world.observe_server(0);
    seen.pods = pods.to_vec();
    let todo = plan(&seen, world.now);
    let standing = world.servers[0].status.as_mut().unwrap();
    for receipt in &mut standing.processes {
        if todo.endings.end.contains(&receipt.pod_uid) {
            receipt.ended_at = Some(Time(world.now));
        }
    }
    standing.processes.retain(|receipt| !todo.endings.forget.contains(&receipt.pod_uid));
    if let Some(pods) = todo.pods {
        world.servers[0].status.as_mut().unwrap().pods = pods;
    }
}

fn standing(world: &World) -> (Vec<(&str, bool)>, Vec<(&str, bool)>) {
    let status = world.servers[0].status.as_ref().unwrap();
    let pods = status.pods.iter().map(|pod| (&*pod.uid, pod.vanished_at.is_some()));
    let receipts = status.processes.iter().map(|receipt| (&*receipt.pod_uid, receipt.ended_at.is_some()));
    (pods.collect(), receipts.collect())
}

fn pods(world: &World) -> Vec<ObservedPod> {
    world.observe_server(0).pods
}

fn exclude(world: &mut World, process: Option<&str>, until: i64) {
    let server = &world.servers[0];
    let server = ExcludedServer { namespace: server.namespace().unwrap(), name: server.name_any() };
    let until = Time(jiff::Timestamp::from_second(world.now.as_second() + until).unwrap());
    let exclusion = Exclusion { server, process: process.map(str::to_owned), reason: "burnt".into(), until };
    world.anchors[0].spec.rotation = Some(Rotation { excluded: vec![exclusion], ..Rotation::default() });
}

/// Who is waited for in the first server, and whether it has vanished.
fn waited_for(world: &World, pods: &[ObservedPod]) -> Vec<(String, bool)> {
    let mut seen = world.observe_anchor(0);
    let server = seen.servers.iter().find(|server| server.uid() == world.servers[0].uid()).unwrap().clone();
    seen.pods.insert((server.namespace().unwrap(), server.name_any()), pods.to_vec());
    let mut document = seen.published.payload().unwrap().clone();
    // Nobody has stated that.
    document.bundle_sequence += 1;
    let (_, on) = trust_anchor::rotation::waits_for(&seen, &document, &[server], world.now);
    let vanished = |obstacle| trust_anchor::rotation::reason(obstacle) == Reason::Vanished;
    on.into_iter().map(|blocker| (blocker.pod.unwrap(), vanished(blocker.obstacle))).collect()
}

#[test]
fn an_end_is_noted_in_the_receipt_then_nobody_counts_it_then_the_receipt_goes() {
    for there in [true, false] {
        let mut world = World::steady();
        let mut all = pods(&world);
        look(&mut world, &all);
        assert_eq!(standing(&world), (vec![(POD, false), (OTHER, false)], vec![(POD, false), (OTHER, false)]));
        all[0].deleting = true;
        look(&mut world, &all);
        assert_eq!(standing(&world).0.len(), 2, "a terminating one counts");
        all[0].ended = true;
        look(&mut world, &all);
        // Whoever starts anew from here on need not have seen the end.
        if !there {
            all.remove(0);
        }
        let both = vec![(POD, false), (OTHER, false)];
        assert_eq!(standing(&world), (both, vec![(POD, true), (OTHER, false)]));
        look(&mut world, &all);
        assert_eq!(standing(&world), (vec![(OTHER, false)], vec![(POD, true), (OTHER, false)]));
        for _ in 0..2 {
            look(&mut world, &all);
            assert_eq!(standing(&world), (vec![(OTHER, false)], vec![(OTHER, false)]));
        }
    }
}

/// Between any two writes of an end the process may die, and the next one has not seen the pod.
#[test]
fn an_end_that_was_noted_is_not_lost_with_whoever_saw_it() {
    let mut world = World::steady();
    let mut all = pods(&world);
    look(&mut world, &all);
    (all[0].deleting, all[0].ended) = (true, true);
    // Only the first of the writes was carried out.
    let todo = plan(&ObservedSecurityServer { pods: all.clone(), ..world.observe_server(0) }, world.now);
    assert_eq!((todo.endings.end.as_slice(), todo.endings.forget.len()), ([POD.to_owned()].as_slice(), 0));
    world.servers[0].status.as_mut().unwrap().processes[0].ended_at = Some(Time(world.now));
    all.remove(0);
    look(&mut world, &all);
    look(&mut world, &all);
    assert_eq!(standing(&world), (vec![(OTHER, false)], vec![(OTHER, false)]));
}

#[test]
fn a_goodbye_is_an_end_once_the_pod_does_not_come_back() {
    let mut world = World::steady();
    let mut all = pods(&world);
    look(&mut world, &all);
    world.servers[0].status.as_mut().unwrap().processes[0].ended_at = Some(Time(world.now));
    all[0].deleting = true;
    look(&mut world, &all);
    assert_eq!(standing(&world), (vec![(OTHER, false)], vec![(POD, true), (OTHER, false)]));
    assert_eq!(waited_for(&world, &all), [(OTHER.to_owned(), false)]);
    look(&mut world, &all);
    assert_eq!(standing(&world).1, [(POD, true), (OTHER, false)], "as long as the object is there the goodbye stays");
    all.remove(0);
    look(&mut world, &all);
    assert_eq!(standing(&world).1, [(OTHER, false)]);
}

/// The watch shows the pod late, or not at all before it is gone: what was said before its container was started again is no end.
#[test]
fn a_goodbye_of_an_earlier_start_is_no_end() {
    for (restarts, is_end) in [(0, true), (1, false), (2, false)] {
        for gone in [false, true] {
            let mut world = World::steady();
            let mut all = pods(&world);
            look(&mut world, &all);
            world.later(60);
            world.servers[0].status.as_mut().unwrap().processes[0].ended_at = Some(Time(world.now));
            world.later(60);
            (all[0].restarts, all[0].deleting, all[0].gone) = (restarts, true, gone);
            for _ in 0..2 {
                look(&mut world, &all);
            }
            let counts: &[_] = if is_end { &[(OTHER, false)] } else { &[(POD, gone), (OTHER, false)] };
            assert_eq!(standing(&world).0, counts, "{restarts} restarts, gone {gone}");
            // Whoever starts anew has not seen the pod at all.
            all.remove(0);
            for _ in 0..2 {
                look(&mut world, &all);
            }
            let counts: &[_] = if is_end { &[(OTHER, false)] } else { &[(POD, true), (OTHER, false)] };
            assert_eq!(standing(&world), (counts.to_vec(), vec![(OTHER, false)]), "{restarts} restarts, gone {gone}");
        }
    }
}

/// Whoever finds the pod gone knows its starts from the status alone, whichever clock the goodbye was written by.
#[test]
fn a_goodbye_of_a_pod_that_is_gone_is_of_its_last_known_start_or_no_end() {
    for (incarnation, said_before, is_end) in
        [(1, false, false), (1, true, false), (2, false, true), (2, true, true), (3, false, true)]
    {
        let mut world = World::steady();
        let mut all = pods(&world);
        all[0].restarts = 1;
        look(&mut world, &all);
        assert_eq!(world.servers[0].status.as_ref().unwrap().pods[0].restarts, 1);
        // A kubelet that gives a pod up may report none of its containers.
        all[0].restarts = 0;
        look(&mut world, &all);
        let say = |world: &mut World| {
            let receipt = &mut world.servers[0].status.as_mut().unwrap().processes[0];
            (receipt.incarnation, receipt.ended_at) = (incarnation, Some(Time(world.now)));
        };
        if said_before {
            say(&mut world);
        }
        world.later(60);
        look(&mut world, &all[1..]);
        if !said_before {
            assert_eq!(standing(&world).0, [(POD, true), (OTHER, false)]);
            say(&mut world);
        }
        for _ in 0..2 {
            look(&mut world, &all[1..]);
        }
        let counts: &[_] = if is_end { &[(OTHER, false)] } else { &[(POD, true), (OTHER, false)] };
        let expected = (counts.to_vec(), vec![(OTHER, false)]);
        assert_eq!(standing(&world), expected, "start {incarnation}, said before it was gone: {said_before}");
    }
}

#[test]
fn a_pod_that_goes_before_it_was_counted_has_vanished() {
    let mut world = World::steady();
    let mut all = pods(&world);
    look(&mut world, &all);
    all.push(ObservedPod { name: "new".into(), uid: "new".into(), gone: true, ..all[0].clone() });
    look(&mut world, &all);
    all.pop();
    look(&mut world, &all);
    assert!(standing(&world).0.contains(&("new", true)), "{:?}", standing(&world));
}

#[test]
fn an_excluded_process_that_states_something_is_told_and_not_forgotten_again() {
    let mut world = World::steady();
    let all = pods(&world);
    look(&mut world, &all);
    let receipt = world.servers[0].status.as_ref().unwrap().processes[0].clone();
    look(&mut world, &all[1..]);
    exclude(&mut world, Some(POD), 3600);
    for _ in 0..2 {
        look(&mut world, &all[1..]);
    }
    assert_eq!(standing(&world).1, [(OTHER, false)]);
    let told = |world: &World| {
        let mut seen = world.observe_anchor(0);
        let first = &world.servers[0];
        seen.pods.insert((first.namespace().unwrap(), first.name_any()), all[1..].to_vec());
        said(&seen, world)
    };
    assert!(!told(&world).contains("running"), "{}", told(&world));
    // Its node is back.
    world.servers[0].status.as_mut().unwrap().processes.insert(0, receipt);
    for _ in 0..3 {
        look(&mut world, &all[1..]);
        assert_eq!(standing(&world), (vec![(OTHER, false)], vec![(POD, false), (OTHER, false)]));
    }
    assert_eq!(waited_for(&world, &all[1..]), [(OTHER.to_owned(), false)]);
    let expected = format!("excluded, but running: pod {POD} of SecurityServer population-register/ss1");
    assert!(told(&world).contains(&expected), "{}", told(&world));
    // Afterwards it is waited for as others are.
    world.later(3601);
    look(&mut world, &all[1..]);
    assert_eq!(standing(&world).0, [(POD, true), (OTHER, false)]);
}

#[test]
fn a_goodbye_in_a_pod_that_stays_says_nothing_of_the_process_that_is_started_next() {
    let mut world = World::steady();
    let all = pods(&world);
    look(&mut world, &all);
    world.servers[0].status.as_mut().unwrap().processes[0].ended_at = Some(Time(world.now));
    look(&mut world, &all);
    assert_eq!(standing(&world), (vec![(POD, false), (OTHER, false)], vec![(OTHER, false)]));
    assert!(waited_for(&world, &all).contains(&(POD.to_owned(), false)), "that one has stated nothing");
    look(&mut world, &all[1..]);
    assert_eq!(standing(&world).0, [(POD, true), (OTHER, false)], "and may run where nobody sees it");
}

#[test]
fn a_pod_that_is_gone_without_a_word_counts_until_somebody_says_otherwise() {
    for stated in [true, false] {
        let mut world = World::steady();
        let all = pods(&world);
        look(&mut world, &all);
        if !stated {
            world.servers[0].status.as_mut().unwrap().processes.remove(0);
        }
        world.later(60);
        let vanished_at = world.now;
        look(&mut world, &all[1..]);
        world.later(60);
        look(&mut world, &all[1..]);
        assert_eq!(standing(&world).0, [(POD, true), (OTHER, false)]);
        assert_eq!(world.servers[0].status.as_ref().unwrap().pods[0].vanished_at, Some(Time(vanished_at)));
        assert_eq!(waited_for(&world, &all[1..]), [(POD.to_owned(), true), (OTHER.to_owned(), false)]);
        let seen = ObservedSecurityServer { pods: all[1..].to_vec(), ..world.observe_server(0) };
        let told = status::status(&seen, &plan(&seen, world.now), &AppliedSecurityServer::default(), world.now).status;
        let told = |of: ConditionType| told.conditions.iter().find(|it| it.type_ == of.as_str()).unwrap().clone();
        let loaded = told(ConditionType::ConfigurationLoaded);
        assert_eq!((&*loaded.status, &*loaded.reason), ("True", "Vanished"), "{loaded:?}");
        assert!(loaded.message.contains(POD), "{loaded:?}");
        // It was there all the time: a watch was behind.
        let mut again = world.clone();
        look(&mut again, &all);
        assert_eq!(standing(&again).0, [(POD, false), (OTHER, false)]);

        exclude(&mut world, Some(POD), 3600);
        assert_eq!(waited_for(&world, &all[1..]), [(OTHER.to_owned(), false)]);
        look(&mut world, &all[1..]);
        if stated {
            assert_eq!(
                standing(&world),
                (vec![(POD, true), (OTHER, false)], vec![(OTHER, false)]),
                "its receipt first"
            );
        }
        look(&mut world, &all[1..]);
        assert_eq!(standing(&world), (vec![(OTHER, false)], vec![(OTHER, false)]), "it is forgotten for good");
        world.later(3601);
        assert_eq!(waited_for(&world, &all[1..]), [(OTHER.to_owned(), false)]);
    }
}

#[test]
fn who_is_excluded_is_not_waited_for_until_then_and_goes_on_otherwise() {
    let mut world = World::steady();
    let all = pods(&world);
    look(&mut world, &all);
    let both = || vec![(POD.to_owned(), false), (OTHER.to_owned(), false)];
    assert_eq!(waited_for(&world, &all), both());
    exclude(&mut world, Some(POD), 60);
    assert_eq!(waited_for(&world, &all), both()[1..]);
    look(&mut world, &all);
    assert_eq!(standing(&world), (vec![(POD, false), (OTHER, false)], vec![(POD, false), (OTHER, false)]));
    let next = trust_anchor::plan(&world.observe_anchor(0), world.now).next_check;
    assert!(next <= world.anchors[0].spec.rotation.as_ref().unwrap().excluded[0].until.0, "its end is waited for");
    world.later(59);
    assert_eq!(waited_for(&world, &all), both()[1..]);
    world.later(1);
    assert_eq!(waited_for(&world, &all), both());
    exclude(&mut world, None, 60);
    assert_eq!(waited_for(&world, &all), []);
    // A server that is excluded for a while keeps what is known of its processes.
    look(&mut world, &all[1..]);
    assert_eq!(standing(&world).0, [(POD, true), (OTHER, false)]);
}

/// What the condition of changes of the authority says.
fn said(seen: &ObservedTrustAnchor, world: &World) -> String {
    let todo = trust_anchor::plan(seen, world.now);
    let update = trust_anchor::status(seen, &todo, &AppliedTrustAnchor::default(), world.now);
    let all = update.status.conditions;
    all.into_iter().find(|it| it.type_ == ConditionType::RotationUnblocked.as_str()).unwrap().message
}

#[test]
fn an_exclusion_of_nobody_is_told() {
    let mut world = World::steady();
    exclude(&mut world, None, 60);
    let told = |world: &World| said(&world.observe_anchor(0), world);
    assert!(!told(&world).contains("excluded"), "{}", told(&world));
    world.anchors[0].spec.rotation.as_mut().unwrap().excluded[0].server.name = "ss9".into();
    assert!(told(&world).contains("no SecurityServer of this instance, but excluded: population-register/ss9"));
}

#[test]
fn a_full_list_of_pods_stays_within_its_bound() {
    const MORE: usize = processes::MAX_PODS + 5;
    let mut world = World::steady();
    // The last by name, and known from here alone.
    let vanished = CountedPod { uid: "z".into(), name: "z".into(), vanished_at: Some(Time(world.now)), restarts: 0 };
    world.servers[0].status.as_mut().unwrap().pods = vec![vanished.clone()];
    let mut seen = world.observe_server(0);
    let more = |number: usize| ObservedPod { uid: format!("more-{number:03}"), ..seen.pods[0].clone() };
    seen.pods = (0..MORE).map(more).collect();
    let todo = plan(&seen, world.now);
    let pods = todo.pods.unwrap();
    assert_eq!(pods.len(), processes::MAX_PODS);
    assert!(pods.contains(&vanished), "{pods:?}");
    let found_no_room = |uid: &String| pods.iter().all(|pod| pod.uid != *uid);
    assert_eq!((todo.untold.len(), todo.untold.iter().all(found_no_room)), (MORE - processes::MAX_PODS + 3, true));
}
