//! The decisions of the operator, tested against a model of the world: tables with boundaries in pairs, golden renders,
//! walks to the steady state with a crash at every write.
//!
//! Mutations that were tried, each of which turns a test red: signing again one second late; making an authority in place of
//! a lost one; the younger duplicate staying; issue numbers from the Secret alone; foreign children overwritten; a copy after
//! nine minutes; letting a server go while it is published; switching the signer before every receipt is in; renewing a
//! leaf one second late; issuing under a certificate that is not the published one; leaving an older document in place.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that cannot go on fails its test")]
#![allow(clippy::type_complexity, reason = "a row of a table is read once, where it stands")]

mod children;
mod emergency;
mod fixtures;
mod golden;
mod member;
mod processes;
mod reconcile;
mod revocation;
mod rotation;
mod security_server;
mod security_server_status;
mod trust_anchor;
mod trust_anchor_keys;
mod walk;
mod world;
