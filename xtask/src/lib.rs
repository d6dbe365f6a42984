//! Generators and their freshness check: CRDs, chart CRDs, the schema of its values, the field reference, examples.
//!
//! Everything generated is committed. A generator returns texts by path; [`generated::write`] puts them on disk,
//! [`generated::stale`] says which differ from what is there, and the tests of this crate call the latter.

pub mod conditions;
pub mod estonia;
pub mod examples;
pub mod fields;
pub mod generated;
pub mod values;
pub mod words;
