//! The driver of Members: observe, plan, apply, status. A member has no children: what it declares stands in the
//! configurations, which its trust anchor and its servers publish.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use saatkond_api::Member;
use saatkond_api::names::finalizer;
use saatkond_api::v1alpha1::member::MemberStatus;
use saatkond_domain::member::plan::{self, AppliedMember, MemberPlan};
use saatkond_domain::member::status;
use saatkond_domain::observed::{AdmissionPolicy, ObservedDescription};

use crate::context::Context;
use crate::driver::{Reconciled, sooner};
use crate::error::Error;
use crate::status_writer::{Stated, StatusWriter};
use crate::{apply, observe};

impl Stated for Member {
    type Status = MemberStatus;
    const LEFT: &'static [&'static str] = &[];

    fn standing(&self) -> Option<&MemberStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &mut MemberStatus) -> &mut Vec<Condition> {
        &mut status.conditions
    }
}

/// One look at one member.
pub async fn reconcile(context: &Arc<Context>, namespace: &str, name: &str) -> Reconciled {
    let place = (namespace.to_owned(), name.to_owned());
    let Some(member) = context.world.members.get(namespace, name) else {
        context.caches.forget_member(&place);
        return Ok(None);
    };
    // Not known yet whether the namespace is admitted: whoever learns it wakes this one.
    let Some(namespace) = context.world.known_namespace(namespace, &context.settings.namespace) else {
        return Ok(None);
    };
    let api = apply::objects::namespaced::<Member>(context, &member);
    let status_writer = StatusWriter { context, store: &context.world.members, api: &api, object: &*member };
    let seen = match observe::member::gather(context, member.clone(), namespace).await {
        Ok(seen) => seen,
        Err(error) => return Err(status_writer.refused(error).await),
    };
    let now = context.clock.now();
    let todo = plan::plan(&seen, now);
    let (applied, ended) = execute(context, &member, &todo).await;
    let update = status::status(&seen, &applied, now);
    status_writer.conclude(todo.finalizer, ended, todo.events, update).await?;
    // Neither the policy nor the users' ConfigMaps are watched: what is missing is looked for again.
    let lacking = seen.descriptions.values().any(|found| !matches!(found, ObservedDescription::Read { .. }));
    let waiting = lacking || seen.policy == AdmissionPolicy::Missing;
    let next = sooner(todo.next_check, now, waiting, SignedDuration::from_secs(10));
    Ok(Some(sooner(next, now, !seen.descriptions.is_empty(), SignedDuration::from_mins(10))))
}

async fn execute(context: &Context, member: &Member, plan: &MemberPlan) -> (AppliedMember, Result<(), Error>) {
    let MemberPlan { finalizer: change, events: _, next_check: _ } = plan;
    let api = apply::objects::namespaced::<Member>(context, member);
    let ended = apply::objects::finalizer(&api, member, finalizer::MEMBER, *change).await;
    (AppliedMember { failure: ended.as_ref().err().and_then(apply::failure) }, ended)
}
