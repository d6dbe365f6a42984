//! Events: what happened to an object, for `kubectl describe`. Only plans and transitions of conditions cause any, so a
//! quiet federation writes none.

use std::sync::Arc;

use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::api::{Api, PostParams};
use kube::{Client, Resource};
use saatkond_domain::effects::PlannedEvent;
use saatkond_domain::names::hash_hex;

use crate::clock::Clock;

/// The longest note, in bytes, as the API server bounds it.
const MAX_NOTE: usize = 1024;
/// The reporting controller.
const CONTROLLER: &str = "saatkond.io/controller";

/// Records events.
#[derive(Clone)]
pub struct Recorder {
    client: Client,
    instance: String,
    clock: Arc<dyn Clock>,
}

impl Recorder {
    /// Records as this process (its pod's name).
    pub fn new(client: Client, instance: String, clock: Arc<dyn Clock>) -> Self {
        Self { client, instance, clock }
    }

    /// As which process.
    pub fn instance(&self) -> &str {
        &self.instance
    }

    /// Records events about an object. What cannot be recorded is logged and does not fail anything: events are for
    /// people, and nothing rests on them.
    pub async fn record<K: Resource<DynamicType = ()>>(&self, about: &K, events: &[PlannedEvent]) {
        let regarding = about.object_ref(&());
        // Events of cluster-scoped objects stand in `default`: the API server allows no other place.
        let namespace = regarding.namespace.clone().unwrap_or_else(|| "default".to_owned());
        for planned in events {
            let event = build(&regarding, &namespace, planned, &self.instance, self.clock.now());
            let api: Api<Event> = Api::namespaced(self.client.clone(), &namespace);
            match api.create(&PostParams::default(), &event).await {
                Ok(_) => {}
                // Recorded already, before a crash.
                Err(kube::Error::Api(status)) if status.is_already_exists() => {}
                Err(error) => tracing::debug!(error = %error, reason = %planned.reason, "an event was not recorded"),
            }
        }
    }
}

/// What is worth recording after a round: what the plan did if it was carried out to its end, and the transitions if the
/// status that shows them was written. A failure is such a transition: it must not take its own event along.
pub fn told<E, W>(
    planned: Vec<PlannedEvent>,
    concluded: Vec<PlannedEvent>,
    ended: &Result<(), E>,
    written: &Result<bool, W>,
) -> Vec<PlannedEvent> {
    let done = planned.into_iter().filter(|_| ended.is_ok());
    let seen = concluded.into_iter().filter(|_| matches!(written, Ok(true)));
    done.chain(seen).collect()
}

/// The event. Its name follows from what it says and the object's version, so that the same transition, seen again after
/// a crash, is the same event.
fn build(
    regarding: &ObjectReference,
    namespace: &str,
    planned: &PlannedEvent,
    instance: &str,
    now: jiff::Timestamp,
) -> Event {
    let text = |part: &Option<String>| part.clone().unwrap_or_default();
    let told = format!(
        "{}\n{}\n{}\n{}\n{}",
        text(&regarding.uid),
        text(&regarding.resource_version),
        planned.reason,
        planned.action,
        planned.note
    );
    let hash = hash_hex(told.as_bytes());
    let name = text(&regarding.name);
    let stem = name.get(..name.len().min(200)).unwrap_or_default();
    Event {
        metadata: ObjectMeta {
            name: Some(format!("{stem}.{}", &hash[..16])),
            namespace: Some(namespace.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some(planned.action.to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(shortened(&planned.note).to_owned()),
        reason: Some(planned.reason.to_string()),
        regarding: Some(regarding.clone()),
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(shortened_to(instance, 128).to_owned()),
        type_: Some(if planned.warning { "Warning" } else { "Normal" }.to_owned()),
        ..Event::default()
    }
}

fn shortened(note: &str) -> &str {
    shortened_to(note, MAX_NOTE)
}

/// Cut at a character: the API server refuses a longer text whole.
fn shortened_to(text: &str, longest: usize) -> &str {
    let end = (0..=longest.min(text.len())).rev().find(|&at| text.is_char_boundary(at)).unwrap_or(0);
    &text[..end]
}

#[cfg(test)]
mod tests {
    use super::*;
    use saatkond_api::conditions::Reason;

    fn event(note: &str, version: &str) -> Event {
        let regarding = ObjectReference {
            name: Some("ss1".into()),
            uid: Some("u".into()),
            resource_version: Some(version.into()),
            ..ObjectReference::default()
        };
        let planned = PlannedEvent { warning: true, reason: Reason::Paused, action: "Pause", note: note.into() };
        build(&regarding, "n", &planned, "pod", jiff::Timestamp::UNIX_EPOCH)
    }

    #[test]
    fn the_same_transition_is_the_same_event() {
        assert_eq!(event("a", "1").metadata.name, event("a", "1").metadata.name);
        assert_ne!(event("a", "1").metadata.name, event("b", "1").metadata.name);
        assert_ne!(event("a", "1").metadata.name, event("a", "2").metadata.name);
    }

    #[test]
    fn a_failure_keeps_its_own_event_and_loses_those_of_what_was_not_done() {
        let event =
            |note: &str| PlannedEvent { warning: true, reason: Reason::Forbidden, action: "x", note: note.into() };
        let told = |ended: Result<(), ()>, written: Result<bool, ()>| {
            let all = told(vec![event("did")], vec![event("saw")], &ended, &written);
            all.into_iter().map(|event| event.note).collect::<Vec<_>>()
        };
        assert_eq!(told(Ok(()), Ok(true)), ["did", "saw"]);
        assert_eq!(told(Err(()), Ok(true)), ["saw"]);
        assert_eq!(told(Ok(()), Ok(false)), ["did"]);
        assert!(told(Err(()), Err(())).is_empty());
    }

    #[test]
    fn notes_are_cut_at_a_character() {
        for shift in 0..2 {
            let note = format!("{}{}", "x".repeat(shift), "õ".repeat(MAX_NOTE));
            let cut = event(&note, "1").note.unwrap();
            assert!(cut.len() <= MAX_NOTE && cut.len() > MAX_NOTE - 3 && note.starts_with(&cut));
        }
    }
}
