//! The gateway on real sockets: pairs of gateways in one process, information systems, peers that lie and a link.
//!
//! Tests that begin with `tNNN` are the cases of the conformance checklist of the X-Road message protocol for REST that
//! docs/xroad-compatibility.md lists.

#![allow(clippy::unwrap_used, clippy::panic, reason = "helpers of tests fail as tests do")]

mod connection;
mod emergency;
mod errors;
mod headers;
mod http_layer;
mod lifecycle;
mod memory;
mod methods;
mod peers;
mod places;
mod revocation;
mod rights;
mod support;
mod uploads;
mod url;
