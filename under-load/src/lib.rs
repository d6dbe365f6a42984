//! Calls in a real region while its authorities change and things break; ends with one line of what came of them.
//!
//! Everything runs inside the region's network: four members with their information systems ([`echo`]) call each other ([`callers`]) through
//! eight gateways in pods ([`federation`]); the controller runs in this process and dies at its writes ([`mortal`]); one authority after the
//! other takes the place of the one before ([`scene`]).

pub mod callers;
pub mod echo;
pub mod federation;
pub mod mortal;
pub mod outcome;
pub mod scene;
pub mod scrape;
pub mod tally;
