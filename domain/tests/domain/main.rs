//! The decisions of the operator, tested against a model of the world: tables with boundaries in pairs, golden renders,
//! walks to the steady state with a crash at every write.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a helper that cannot go on fails its test")]
#![allow(clippy::type_complexity, reason = "a row of a table is read once, where it stands")]

mod fixtures;
mod golden;
mod member;
mod reconcile;
mod security_server;
mod trust_anchor;
mod walk;
mod world;
