//! The custom resources of saatkond.io: types, conditions and names. No client, no I/O.
//!
//! Everything here is data. What a field means to its user stands in its doc comment, which reaches
//! `kubectl explain` and `docs/reference/api.md`; what the operator concludes from it stands in `saatkond-domain`.

pub mod admission;
#[cfg(feature = "validation")]
pub mod cases;
pub mod conditions;
pub mod crds;
pub mod duration;
pub mod identifiers;
pub mod names;
pub mod refs;
pub mod v1alpha1;
#[cfg(feature = "validation")]
pub mod validation;

pub use v1alpha1::{Member, SecurityServer, TrustAnchor};
