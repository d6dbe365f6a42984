//! Who may call what: path normalisation, patterns and rights (gateway.md 9). Pure.
//!
//! One parser makes both the path that is decided on and the path that is called: [`path::ServicePath`].

pub mod glob;
pub mod path;
pub mod rights;
