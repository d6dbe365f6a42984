//! The operator's I/O: observe, apply, status writer, the link, metrics, events and the lease.
//!
//! A reconcile is four lines in a driver ([`trust_anchor`], [`member`], [`security_server`]): [`observe`] gathers what is,
//! `saatkond-domain` plans, [`apply`] carries out in the plan's order, [`status_writer`] writes what changed. [`run`] says
//! what runs beside what; [`client`] is the one way to the API server. `RBAC.md` lists every right and why.

pub mod apply;
pub mod child_meta;
pub mod client;
pub mod clock;
mod connections;
pub mod context;
pub mod driver;
pub mod error;
pub mod events;
pub mod gate;
pub mod health;
pub mod lease;
pub mod link;
pub mod member;
pub mod metrics;
pub mod observe;
pub mod pod_watch;
pub mod pods;
pub mod publisher;
pub mod queue;
pub mod run;
pub mod security_server;
pub mod settings;
pub mod signer;
pub mod state_metrics;
pub mod status_writer;
pub mod store;
pub mod trust_anchor;
pub mod watches;
pub mod world;
