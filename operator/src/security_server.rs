//! The driver of SecurityServers: observe, plan, apply, status.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use saatkond_api::SecurityServer;
use saatkond_api::v1alpha1::security_server::SecurityServerStatus;
use saatkond_domain::observed::{NamespaceAccess, ObservedNamespace};
use saatkond_domain::security_server::{plan, status};

use crate::context::Context;
use crate::driver::{Reconciled, sooner};
use crate::error::Error;
use crate::observe::security_server::Gathered;
use crate::status_writer::{Stated, StatusWriter};
use crate::{apply, observe};

/// Fields of the status that have writes of their own: the link's, and that of [`apply::objects::count`].
const LEFT: &[&str] = &["processes", "pods"];

impl Stated for SecurityServer {
    type Status = SecurityServerStatus;
    const LEFT: &'static [&'static str] = LEFT;

    fn standing(&self) -> Option<&SecurityServerStatus> {
        self.status.as_ref()
    }

    fn conditions(status: &mut SecurityServerStatus) -> &mut Vec<Condition> {
        &mut status.conditions
    }
}

/// One look at one security server.
pub async fn reconcile(context: &Arc<Context>, namespace: &str, name: &str) -> Reconciled {
    let place = (namespace.to_owned(), name.to_owned());
    let Some(server) = context.world.servers.get(namespace, name) else {
        context.caches.forget_server(&place);
        context.world.pods.forget(&place.0, &place.1);
        return Ok(None);
    };
    // Not known yet whether the namespace is admitted: whoever learns it wakes this one.
    let Some(namespace) = context.world.known_namespace(namespace, &context.settings.namespace) else {
        return Ok(None);
    };
    let api = apply::objects::namespaced::<SecurityServer>(context, &server);
    let status_writer = StatusWriter { context, store: &context.world.servers, api: &api, object: &*server };
    let (gathered, now) = match look(context, &server, namespace).await {
        Ok(seen) => seen,
        Err(error) => return Err(status_writer.refused(error).await),
    };
    let todo = plan::plan(&gathered.seen, now);
    let (applied, ended) = apply::security_server::execute(context, &gathered, &todo).await;
    let update = status::status(&gathered.seen, &todo, &applied, now);
    status_writer.conclude(todo.finalizer, ended, todo.events, update).await?;
    // Objects that lack our label are not watched: whoever takes a foreign one away would wait an hour for ours.
    Ok(Some(sooner(todo.next_check, now, !todo.foreign.is_empty(), SignedDuration::from_secs(6))))
}

/// All that is seen, its children too, and when that was.
async fn look(
    context: &Context,
    server: &Arc<SecurityServer>,
    namespace: Arc<ObservedNamespace>,
) -> Result<(Gathered, Timestamp), Error> {
    let mut gathered = observe::security_server::gather(context, server.clone(), namespace).await?;
    let now = context.clock.now();
    // As if no child were there: what the plan then applies is what there should be, and what children are compared with.
    let wanted = plan::plan(&gathered.seen, now).children;
    if gathered.seen.namespace.access == NamespaceAccess::Granted {
        let (children, deployment) = observe::children::observe(context, server, &wanted).await?;
        gathered.seen.children = children;
        gathered.seen.deployment = deployment;
    }
    Ok((gathered, now))
}
