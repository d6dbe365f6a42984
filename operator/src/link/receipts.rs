//! Receipts: whether what a process states may be stored, and storing it.
//!
//! The decision is a pure function. Storing is one server-side apply for one entry of `status.processes`, under a field
//! manager of that process alone, so that no receipt erases another; its precondition is the version of the object that
//! the decision was made from, so that of two link replicas that hold an old and a new poll of one process the old one
//! never wins.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{Api, Patch, PatchParams};
use kube::{Client, ResourceExt as _};
use saatkond_api::SecurityServer;
use saatkond_api::names::{API_VERSION, manager};
use saatkond_api::v1alpha1::security_server::ProcessReceipt;
use saatkond_wire::link::{Loaded, Poll, ProcessId};
use serde_json::json;

/// How often a write is tried again when the object has changed meanwhile.
const ATTEMPTS: usize = 8;

/// What becomes of a receipt.
#[derive(Debug, Clone, PartialEq)]
pub enum Judgement {
    /// It says something new.
    Store(Box<ProcessReceipt>),
    /// It says what stands already.
    Same,
    /// It is older than what stands.
    Stale,
}

/// Judges what a process states, given what stands.
#[must_use]
pub fn judge(
    standing: Option<&ProcessReceipt>,
    process: &ProcessId,
    loaded: &Loaded,
    highest_format: u32,
    now: Timestamp,
) -> Judgement {
    let receipt = ProcessReceipt {
        pod_uid: process.pod_uid.clone(),
        incarnation: process.incarnation,
        instance_version: loaded.instance_version,
        server_version: loaded.server_version,
        bundle_sequence: loaded.bundle_sequence,
        bundle_hash: loaded.bundle_hash.clone(),
        leaf_issue_number: loaded.leaf_issue_number,
        leaf_serial: loaded.leaf_serial.clone(),
        old_sessions: loaded.old_sessions.clone(),
        started_alone: loaded.started_alone.map(|at| Time(whole_seconds(at))),
        ended_at: None,
        highest_format,
        reported_at: Some(Time(whole_seconds(now))),
    };
    let Some(old) = standing else { return Judgement::Store(Box::new(receipt)) };
    if receipt.incarnation < old.incarnation {
        return Judgement::Stale;
    }
    if receipt.incarnation > old.incarnation {
        return Judgement::Store(Box::new(receipt));
    }
    // What it said before it ended may arrive after.
    if old.ended_at.is_some() {
        return Judgement::Stale;
    }
    // Within one incarnation nothing ever goes back: what would is an old poll that arrives late.
    let numbers = |r: &ProcessReceipt| [r.instance_version, r.server_version, r.bundle_sequence, r.leaf_issue_number];
    if numbers(&receipt).iter().zip(numbers(old)).any(|(new, old)| *new < old) {
        return Judgement::Stale;
    }
    let unchanged = ProcessReceipt { reported_at: old.reported_at.clone(), ..receipt.clone() };
    if unchanged == *old { Judgement::Same } else { Judgement::Store(Box::new(receipt)) }
}

/// `metav1.Time` has whole seconds; without cutting, each comparison with what was read back would differ.
fn whole_seconds(at: Timestamp) -> Timestamp {
    Timestamp::from_second(at.as_second()).unwrap_or(at)
}

/// Why a receipt was not stored.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// It is older than what stands.
    #[error("a newer receipt of this process is stored already")]
    Stale,
    /// The SecurityServer is gone.
    #[error("the security server does not exist any more")]
    Gone,
    /// The list of processes is full and none of this process stands in it.
    #[error("the security server has as many receipts as its status holds")]
    Full,
    /// The API server did not take it.
    #[error("failed to store the receipt")]
    Api(#[source] Box<kube::Error>),
}

/// The most entries of `status.processes`, as its schema bounds it.
const MAX_PROCESSES: usize = 100;

/// Stores what a poll states, if it is new. `known` is the object as the cache has it: where that has the receipt
/// already, nothing is asked.
pub async fn store(
    client: &Client,
    known: &SecurityServer,
    poll: &Poll,
    loaded: &Loaded,
    now: Timestamp,
) -> Result<(), StoreError> {
    let standing = |server: &SecurityServer| find(server, &poll.process.pod_uid).cloned();
    let judge =
        |server: &SecurityServer| judge(standing(server).as_ref(), &poll.process, loaded, poll.highest_format, now);
    // The cache may be behind, so it can only save the write of what it has; it cannot refuse anything.
    if judge(known) == Judgement::Same {
        return Ok(());
    }
    let api = api(client, known);
    for attempt in 1.. {
        let Some(server) = api.get_opt(&known.name_any()).await.map_err(failed)? else {
            return Err(StoreError::Gone);
        };
        let receipt = match judge(&server) {
            Judgement::Same => return Ok(()),
            Judgement::Stale => return Err(StoreError::Stale),
            Judgement::Store(receipt) => receipt,
        };
        let count = server.status.as_ref().map_or(0, |status| status.processes.len());
        if count >= MAX_PROCESSES && standing(&server).is_none() {
            return Err(StoreError::Full);
        }
        match write(&api, &server, &receipt.pod_uid, &json!([receipt])).await {
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => return Ok(()),
        }
    }
    Ok(())
}

/// The receipt of a process that has ended.
#[must_use]
pub fn ended(receipt: &ProcessReceipt, now: Timestamp) -> ProcessReceipt {
    let at = Some(Time(whole_seconds(now)));
    ProcessReceipt { ended_at: at.clone(), reported_at: at, ..receipt.clone() }
}

/// Notes that a process says it has ended. A later incarnation's receipt stays. The controller takes the entry out once nothing else
/// speaks of the process: until then it is what shows that this one has not vanished.
pub async fn end(
    client: &Client,
    known: &SecurityServer,
    process: &ProcessId,
    now: Timestamp,
) -> Result<(), StoreError> {
    let api = api(client, known);
    for attempt in 1.. {
        let Some(server) = api.get_opt(&known.name_any()).await.map_err(failed)? else { return Ok(()) };
        let standing = find(&server, &process.pod_uid);
        let Some(standing) = standing.filter(|it| it.incarnation <= process.incarnation && it.ended_at.is_none())
        else {
            return Ok(());
        };
        match write(
            &api,
            &server,
            &process.pod_uid,
            &json!([ended(&ProcessReceipt { incarnation: process.incarnation, ..standing.clone() }, now)]),
        )
        .await
        {
            Err(kube::Error::Api(status)) if status.is_conflict() && attempt < ATTEMPTS => {}
            Err(error) => return Err(failed(error)),
            Ok(_) => return Ok(()),
        }
    }
    Ok(())
}

/// The receipt of a pod.
#[must_use]
pub fn find<'a>(server: &'a SecurityServer, pod_uid: &str) -> Option<&'a ProcessReceipt> {
    server.status.as_ref()?.processes.iter().find(|receipt| receipt.pod_uid == pod_uid)
}

fn api(client: &Client, server: &SecurityServer) -> Api<SecurityServer> {
    Api::namespaced(client.clone(), &server.namespace().unwrap_or_default())
}

fn failed(error: kube::Error) -> StoreError {
    StoreError::Api(Box::new(error))
}

/// Applies the entries of this process's manager: one, or none, which takes away what it applied before.
pub(crate) async fn write(
    api: &Api<SecurityServer>,
    server: &SecurityServer,
    pod_uid: &str,
    processes: &serde_json::Value,
) -> Result<SecurityServer, kube::Error> {
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": "SecurityServer",
        "metadata": {
            "name": server.name_any(),
            // Another object of the same name is not meant, nor one that has changed since it was read.
            "uid": server.uid(),
            "resourceVersion": server.resource_version(),
        },
        "status": {"processes": processes},
    });
    let params = PatchParams::apply(&manager::link(pod_uid)).force();
    api.patch_status(&server.name_any(), &params, &Patch::Apply(body)).await
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn process(incarnation: u64) -> ProcessId {
        ProcessId { pod_uid: "p".into(), incarnation }
    }

    fn loaded(instance: u64, server: u64, sequence: u64, issue: u64) -> Loaded {
        Loaded {
            instance_version: instance,
            server_version: server,
            bundle_sequence: sequence,
            bundle_hash: "h".into(),
            leaf_issue_number: issue,
            leaf_serial: "s".into(),
            old_sessions: Some(vec![1]),
            started_alone: None,
        }
    }

    const NOW: &str = "2026-01-02T00:00:00.7Z";

    fn stored(incarnation: u64, loaded: &Loaded) -> ProcessReceipt {
        match judge(None, &process(incarnation), loaded, 1, at(NOW)) {
            Judgement::Store(receipt) => *receipt,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn what_a_process_said_before_it_ended_is_stale_and_what_the_next_says_is_not() {
        let over = ended(&stored(1, &loaded(5, 5, 5, 5)), at(NOW));
        for later in [loaded(5, 5, 5, 5), loaded(6, 6, 6, 6)] {
            assert_eq!(judge(Some(&over), &process(1), &later, 1, at(NOW)), Judgement::Stale);
            let Judgement::Store(next) = judge(Some(&over), &process(2), &later, 1, at(NOW)) else { panic!() };
            assert_eq!((next.incarnation, next.ended_at), (2, None));
        }
    }

    #[test]
    fn what_is_stored_is_not_written_again() {
        let old = stored(1, &loaded(5, 5, 5, 5));
        let read: ProcessReceipt = serde_json::from_str(&serde_json::to_string(&old).unwrap()).unwrap();
        assert_eq!(judge(Some(&read), &process(1), &loaded(5, 5, 5, 5), 1, at(NOW)), Judgement::Same);
    }

    #[test]
    fn each_number_alone_decides_between_newer_and_older() {
        let old = stored(1, &loaded(5, 5, 5, 5));
        let newer = [loaded(6, 5, 5, 5), loaded(5, 6, 5, 5), loaded(5, 5, 6, 5), loaded(5, 5, 5, 6)];
        for (field, newer) in newer.iter().enumerate() {
            let judged = judge(Some(&old), &process(1), newer, 1, at(NOW));
            assert!(matches!(judged, Judgement::Store(_)), "number {field}");
        }
        let older = [loaded(4, 5, 5, 5), loaded(5, 4, 5, 5), loaded(5, 5, 4, 5), loaded(5, 5, 5, 4)];
        for (field, older) in older.iter().enumerate() {
            assert_eq!(judge(Some(&old), &process(1), older, 1, at(NOW)), Judgement::Stale, "number {field}");
        }
        let torn = loaded(6, 6, 6, 4);
        assert_eq!(judge(Some(&old), &process(1), &torn, 1, at(NOW)), Judgement::Stale, "newer and older at once");
    }

    #[test]
    fn an_earlier_incarnation_never_replaces_a_later_and_a_later_may_start_lower() {
        let old = stored(2, &loaded(5, 5, 5, 5));
        assert_eq!(judge(Some(&old), &process(1), &loaded(9, 9, 9, 9), 1, at(NOW)), Judgement::Stale);
        assert!(matches!(judge(Some(&old), &process(3), &loaded(1, 1, 1, 1), 1, at(NOW)), Judgement::Store(_)));
    }

    #[test]
    fn other_content_under_the_same_numbers_is_stored() {
        let old = stored(1, &loaded(5, 5, 5, 5));
        let other = Loaded { bundle_hash: "other".into(), ..loaded(5, 5, 5, 5) };
        assert!(matches!(judge(Some(&old), &process(1), &other, 1, at(NOW)), Judgement::Store(_)));
        assert!(matches!(judge(Some(&old), &process(1), &loaded(5, 5, 5, 5), 2, at(NOW)), Judgement::Store(_)));
    }

    #[test]
    fn a_start_without_having_met_anybody_is_stored_once() {
        let alone = Loaded { started_alone: Some(at("2026-01-01T00:00:00.5Z")), ..loaded(5, 5, 5, 5) };
        let old = stored(1, &alone);
        assert_eq!(old.started_alone, Some(Time(at("2026-01-01T00:00:00Z"))));
        assert_eq!(judge(Some(&old), &process(1), &alone, 1, at(NOW)), Judgement::Same);
        let met = stored(1, &loaded(5, 5, 5, 5));
        assert!(matches!(judge(Some(&met), &process(1), &alone, 1, at(NOW)), Judgement::Store(_)));
    }

    #[test]
    fn that_the_last_old_session_has_ended_is_stored_once() {
        let old = stored(1, &loaded(5, 5, 5, 5));
        let ended = Loaded { old_sessions: Some(vec![]), ..loaded(5, 5, 5, 5) };
        assert!(matches!(judge(Some(&old), &process(1), &ended, 1, at(NOW)), Judgement::Store(_)));
        let without = stored(1, &ended);
        assert_eq!(judge(Some(&without), &process(1), &ended, 1, at(NOW)), Judgement::Same);
    }
}
