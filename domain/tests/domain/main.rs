//! The decisions of the operator, tested against a model of the world: tables with boundaries in pairs, golden renders,
//! walks to the steady state with a crash at every write.

mod fixtures;
mod golden;
mod member;
mod security_server;
mod trust_anchor;
mod walk;
mod world;
