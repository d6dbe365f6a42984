//! The information system behind a service: called only with what was verified, answered for only with what it said.

pub mod connect;
pub mod information_system;
