//! Every decision of the operator as a pure function: observed, plan, build, status.
//!
//! A reconcile is `observe` (the operator's, I/O) → `plan` (here: total, and leaves nothing to decide) → `apply` (the
//! operator's, I/O, in the order that the plan's type states) → `status` (here; written only if it differs). Nothing in
//! this crate has a client, reads a clock or draws a random number: the same input gives the same output, byte for byte.

pub mod admission;
pub mod children;
pub mod duplicates;
pub mod effects;
pub mod meta;
pub mod names;
pub mod observed;
pub mod publication;
pub mod quantity;
pub mod rotation;
pub mod schedule;
pub mod serving;
pub mod settings;
pub mod statements;

/// A member: admission, references, registration.
pub mod member {
    pub mod observed;
    pub mod plan;
    pub mod references;
    pub mod status;

    pub use plan::plan;
    pub use status::status;
}

/// A security server: leaves, its configuration, its copies, the objects that run it.
pub mod security_server {
    pub mod build;
    pub mod configuration;
    pub mod leaves;
    pub mod observed;
    pub mod plan;
    pub mod processes;
    pub mod registration;
    pub mod status;

    pub use plan::plan;
    pub use status::status;
}

/// A trust anchor: authority, configuration keys, the instance configuration, the link's leaf.
pub mod trust_anchor {
    pub mod audit;
    pub mod authority;
    pub mod build;
    mod calendar;
    mod emergency;
    mod history;
    pub mod keys;
    pub mod observed;
    pub mod plan;
    mod revocations;
    pub mod rotation;
    pub mod status;

    pub use plan::plan;
    pub use status::status;
}
