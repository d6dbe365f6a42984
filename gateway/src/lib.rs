//! The embedded security server: X-Road REST in, signed messages between gateways, access rights, information systems out.
//!
//! The way of a call: [`http1`] reads it, [`client`] understands, signs and sends it over a [`peer`] connection, [`server`] at the
//! other end checks who asks and what for ([`access`]), spools and verifies it ([`message`], [`spool`], [`signing`]), and [`provider`] calls the
//! information system. What all of that is decided on is in force as one immutable object ([`state`]), replaced as a whole.
//! Decisions ([`request`], [`access`], [`frames`], [`start`], [`state::judge`]) know no socket and no clock.

mod accept;
pub mod access;
pub mod client;
pub mod context;
pub mod error;
pub mod exchange_body;
pub mod files;
pub mod frames;
pub mod http1;
pub mod link;
pub mod memory;
pub mod message;
pub mod metrics;
pub mod peer;
pub mod pieces;
pub mod probes;
pub mod provider;
pub mod request;
pub mod run;
pub mod server;
pub mod sessions;
pub mod settings;
pub mod signing;
pub mod spool;
pub mod start;
pub mod state;
pub mod tls;

pub use run::run_until;
pub use settings::Settings;
