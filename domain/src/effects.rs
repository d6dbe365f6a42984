//! What plans ask for, in types that leave nothing to decide, and what may have come of it.

use jiff::{SignedDuration, Timestamp};
use saatkond_api::conditions::Reason;
use saatkond_pki::key::Algorithm;
use saatkond_pki::leaf::LeafRequest;

use crate::children::ChildKind;

/// What happens to our finalizer on the object itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinalizerChange {
    /// It is as it should be.
    Keep,
    /// Set it before anything else is done: what it guards must not exist without it.
    Add,
    /// Take it away after everything else is done.
    Remove,
}

/// An object to delete. The UID is a precondition of the request: a newer object of the same name is not meant.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Deletion {
    /// What it is.
    pub kind: ChildKind,
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its UID, for the precondition.
    pub uid: String,
}

/// An object that stands where one of ours should, and is not ours. It is never touched.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct ForeignObject {
    /// Its kind.
    pub kind: ChildKind,
    /// Its name.
    pub name: String,
}

/// An event to record: on a transition or after an action, never once a reconcile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedEvent {
    /// Whether a person should act.
    pub warning: bool,
    /// One word, of the same list as the conditions' reasons.
    pub reason: Reason,
    /// What was done or concluded, a verb phrase in CamelCase (`events.k8s.io/v1` `action`).
    pub action: &'static str,
    /// A sentence for people.
    pub note: String,
}

/// How applying a plan ended early. What had been applied before stays applied; the next round goes on from there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// [`Reason::Forbidden`], [`Reason::ForeignObject`] or [`Reason::ApplyFailed`].
    pub reason: Reason,
    /// Verb, object and cause, for people.
    pub message: String,
}

/// A status to write, and the events that its transitions are worth.
#[derive(Debug, Clone, PartialEq)]
pub struct StatusUpdate<S> {
    /// The whole status as it should stand. Equal to the standing one: nothing is written.
    pub status: S,
    /// Events for conditions that changed.
    pub events: Vec<PlannedEvent>,
}

/// A leaf to issue, with a key of its own that is made for it. Together with a serial number it is what
/// `pki::leaf::issue` takes.
#[derive(Debug, Clone, PartialEq)]
pub struct LeafOrder {
    /// Use and names.
    pub request: LeafRequest,
    /// Of its key.
    pub algorithm: Algorithm,
    /// The time of issuance.
    pub now: Timestamp,
    /// From the first to the last second of validity.
    pub lifetime: SignedDuration,
    /// It ends this long before its authority, or earlier.
    pub retirement: SignedDuration,
}
