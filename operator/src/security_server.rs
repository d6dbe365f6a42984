//! The driver of SecurityServers: observe, plan, apply, status.

use std::sync::Arc;

use jiff::{SignedDuration, Timestamp};
use saatkond_api::SecurityServer;
use saatkond_domain::effects::FinalizerChange;
use saatkond_domain::observed::{NamespaceAccess, ObservedNamespace};
use saatkond_domain::security_server::{plan, status};

use crate::context::Context;
use crate::driver::{Reconciled, sooner};
use crate::error::Error;
use crate::events::told;
use crate::observe::security_server::Gathered;
use crate::{apply, observe, status_writer};

/// Fields of the status that the link writes.
const RECEIPTS: &[&str] = &["processes"];

/// One look at one security server.
pub async fn reconcile(context: &Arc<Context>, namespace: &str, name: &str) -> Reconciled {
    let place = (namespace.to_owned(), name.to_owned());
    let Some(server) = context.world.servers.get(namespace, name) else {
        context.caches.forget_server(&place);
        return Ok(None);
    };
    // Not known yet whether the namespace is admitted: whoever learns it wakes this one.
    let Some(namespace) = context.world.known_namespace(namespace, &context.settings.namespace) else {
        return Ok(None);
    };
    let api = apply::objects::namespaced::<SecurityServer>(context, &server);
    let (gathered, now) = match look(context, &server, namespace).await {
        Ok(seen) => seen,
        Err(error) => {
            let place = (&context.world.servers, &api, RECEIPTS);
            let standing = server.status.as_ref();
            return Err(status_writer::refused(context, place, &*server, standing, |s| &mut s.conditions, error).await);
        }
    };
    let todo = plan::plan(&gathered.seen, now);
    let (applied, ended) = apply::security_server::execute(context, &gathered, &todo).await;
    let update = status::status(&gathered.seen, &todo, &applied, now);
    let gone = todo.finalizer == FinalizerChange::Remove && ended.is_ok();
    let written = if gone {
        Ok(false)
    } else {
        status_writer::write(&context.world.servers, &api, &*server, server.status.as_ref(), &update.status, RECEIPTS)
            .await
    };
    let events = told(todo.events, update.events, &ended, &written);
    context.recorder.record(&*server, &events).await;
    ended?;
    written?;
    // Pods are not watched: the end of one that is ending is looked for, since its receipt ends with it.
    let ending = gathered.seen.pods.iter().flatten().any(|pod| pod.deleting);
    // Nor are objects that lack our label: whoever takes a foreign one away would wait an hour for ours.
    Ok(Some(sooner(todo.next_check, now, ending || !todo.foreign.is_empty(), SignedDuration::from_secs(6))))
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
