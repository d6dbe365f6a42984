//! Looking at the world for one reconcile: reads only, nothing decided.

pub mod caches;
pub mod children;
pub mod documents;
pub mod identity;
pub mod keys;
pub mod member;
pub mod ownership;
pub mod policy;
pub mod security_server;
pub mod trust_anchor;

use std::sync::Arc;

use saatkond_api::Member;
use saatkond_domain::observed::Candidate;

use crate::context::Context;

/// A member with its namespace, as far as that is known.
pub(crate) fn candidate(context: &Context, member: Arc<Member>) -> Candidate {
    let namespace = kube::ResourceExt::namespace(&*member).unwrap_or_default();
    Candidate { namespace: context.world.namespace(&namespace, &context.settings.namespace), member }
}
