//! Version `v1alpha1` of the kinds.

pub mod member;
pub mod security_server;
pub mod trust_anchor;

pub use member::{Member, MemberSpec, MemberStatus};
pub use security_server::{SecurityServer, SecurityServerSpec, SecurityServerStatus};
pub use trust_anchor::{TrustAnchor, TrustAnchorSpec, TrustAnchorStatus};
