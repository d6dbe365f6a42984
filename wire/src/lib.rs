//! What gateways, agents and the link share: identifiers, signed documents, receipts and the exchange envelope.
//!
//! Everything here crosses a trust boundary. Types say what travels; they decide nothing, read no clock and open no
//! socket. Readers ignore unknown fields, so that a newer writer can add some; every document and every poll carries a
//! format number, so that a writer knows what its readers understand.

pub mod configuration;
pub mod document;
pub mod exchange;
pub mod identifier;
pub mod identity;
pub mod leaf_name;
pub mod link;
