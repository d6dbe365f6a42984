//! The driver of TrustAnchors: observe, plan, apply, status.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::Api;
use saatkond_api::TrustAnchor;
use saatkond_api::v1alpha1::trust_anchor::TrustAnchorStatus;
use saatkond_domain::observed::AdmissionPolicy;
use saatkond_domain::trust_anchor::observed::{ObservedSigningKey, ObservedTrustAnchor};
use saatkond_domain::trust_anchor::plan::TrustAnchorPlan;
use saatkond_domain::trust_anchor::{plan, status};

use crate::apply;
use crate::context::Context;
use crate::driver::{Reconciled, sooner};
use crate::error::Error;
use crate::observe::trust_anchor::{Reading, gather};
use crate::status_writer::{Stated, StatusWriter};

impl Stated for TrustAnchor {
    type Status = TrustAnchorStatus;
    const LEFT: &'static [&'static str] = &[];

    fn standing(&self) -> Option<&TrustAnchorStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &mut TrustAnchorStatus) -> &mut Vec<Condition> {
        &mut status.conditions
    }
}

/// One look at one trust anchor.
pub async fn reconcile(context: &Arc<Context>, name: &str) -> Reconciled {
    let Some(anchor) = context.world.anchors.get("", name) else {
        context.signer.forget(name);
        return Ok(None);
    };
    let api: Api<TrustAnchor> = Api::all(context.client.clone());
    let status_writer = StatusWriter { context, store: &context.world.anchors, api: &api, object: &*anchor };
    let (seen, todo, now) = match decide(context, &anchor).await {
        Ok(seen) => seen,
        Err(error) => return Err(status_writer.refused(error).await),
    };
    let (applied, ended) = apply::trust_anchor::execute(context, &anchor, &todo).await;
    let update = status::status(&seen, &todo, &applied, now);
    status_writer.conclude(todo.finalizer, ended, todo.events, update).await?;
    // Neither the policy nor a Secret that users bring nor what is not ours is watched: each is looked for again.
    let waiting = seen.policy == AdmissionPolicy::Missing
        || !todo.foreign.is_empty()
        || matches!(seen.signing_key, ObservedSigningKey::Absent | ObservedSigningKey::Unusable { .. });
    Ok(Some(sooner(todo.next_check, now, waiting, SignedDuration::from_secs(10))))
}

/// What was seen, what is to be done about it, and when that was decided.
async fn decide(
    context: &Context,
    anchor: &Arc<TrustAnchor>,
) -> Result<(ObservedTrustAnchor, TrustAnchorPlan, Timestamp), Error> {
    let mut seen = gather(context, anchor.clone(), Reading::Cached).await?;
    let mut now = context.clock.now();
    let mut todo = plan::plan(&seen, now);
    if todo.decide_again {
        seen = gather(context, anchor.clone(), Reading::Live).await?;
        now = context.clock.now();
        todo = plan::plan(&seen, now);
    }
    Ok((seen, todo, now))
}
