//! Other gateways, as this one calls them: which to try, and connections to them.

pub mod ask;
pub mod candidates;
pub mod pool;
