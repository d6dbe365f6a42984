//! The HTTP/1.1 side that information systems call: heads, bodies, answers (RFC 9112).
//!
//! Why not a general HTTP server library: the REST part that is signed and logged holds the header lines as they arrived, in
//! their order and spelling, and a message that two parties could frame differently must be refused (gateway.md 2.2). A
//! library has folded, sorted and silently mended all of that before its handler sees anything (ADR 0004). The tokens of a head
//! are still parsed by `httparse`.

pub mod body;
pub mod head;
pub mod serve;
