//! Namespaces with objects of ours: whether the operator has its rights there, and what becomes of the Secrets in them.
//!
//! One watch a namespace answers both: it shows the metadata of our Secrets, and that it runs is the proof that the
//! namespace is admitted. A namespace without the RoleBinding refuses it; it is tried again every few seconds, so an
//! admission is noticed soon. Where only Members live there is no Secret to watch, so a question now and then does: a
//! watch is a request that stays open, and half of a federation's members are guests on others' servers.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use k8s_openapi::api::core::v1::Secret;
use kube::api::{Api, ListParams};
use kube::core::PartialObjectMeta;
use saatkond_api::names::{MANAGED_BY, label};
use saatkond_domain::children::ChildKind;
use saatkond_domain::observed::NamespaceAccess;
use tokio::sync::mpsc::UnboundedReceiver;
use tokio::sync::watch;
use tokio::task::{AbortHandle, JoinSet};

use crate::context::Context;
use crate::watches::{Change, Trouble, WatchSettings, follow};

/// Keeps one watch for each inhabited namespace, until dropped. `inhabited` changes when Members, SecurityServers or
/// namespaces come and go; `doubts` names namespaces where a write was refused.
pub async fn keep(
    context: Arc<Context>,
    watches: WatchSettings,
    mut inhabited: watch::Receiver<u64>,
    mut doubts: UnboundedReceiver<String>,
) {
    // Dropping the set ends all watches: nothing outlives this future.
    let mut tasks = JoinSet::new();
    let mut open: HashMap<String, (bool, AbortHandle)> = HashMap::new();
    let mut doubted: HashMap<String, Duration> = HashMap::new();
    loop {
        let wanted = context.world.inhabited();
        open.retain(|namespace, (serves, task)| {
            let keep = wanted.get(namespace) == Some(&*serves);
            if !keep {
                task.abort();
            }
            if !wanted.contains_key(namespace) {
                context.world.set_access(namespace, None);
            }
            // The operator's own Secrets have a watch of their own.
            let gone = !wanted.get(namespace).is_some_and(|serves| *serves);
            if gone && *namespace != context.settings.namespace {
                let _ = context.world.replace_children(ChildKind::Secret, |of| of == namespace, std::iter::empty());
            }
            keep
        });
        for (namespace, serves) in wanted {
            open.entry(namespace).or_insert_with_key(|namespace| {
                let (context, namespace) = (context.clone(), namespace.clone());
                let task = if serves {
                    tasks.spawn(watch_one(context, watches, namespace))
                } else {
                    tasks.spawn(ask_one(context, namespace))
                };
                (serves, task)
            });
        }
        tokio::select! {
            changed = inhabited.changed() => if changed.is_err() { return },
            Some(namespace) = doubts.recv() => {
                let now = context.clock.elapsed();
                doubted.retain(|_, at| now.saturating_sub(*at) < DOUBTED);
                if doubted.contains_key(&namespace) {
                    continue;
                }
                // A watch that is open stays open when the right to it is taken away: open it anew to learn.
                if let Some((_, task)) = open.remove(&namespace) {
                    task.abort();
                }
                doubted.insert(namespace, now);
            }
            Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
        }
    }
}

/// How soon a namespace that holds Members alone is asked again: when it is admitted, and when it is not.
const ADMITTED: Duration = Duration::from_mins(10);
const REFUSED: Duration = Duration::from_secs(4);

/// How long a namespace that was doubted is not doubted again. Where one right is missing and the watch has its own, each look at it
/// wakes who lives there, who is refused and doubts again.
const DOUBTED: Duration = Duration::from_secs(30);

/// The label selector of everything of ours.
fn ours() -> String {
    format!("{}={MANAGED_BY}", label::MANAGED_BY)
}

fn learnt(context: &Context, namespace: &str, access: NamespaceAccess) {
    if context.world.set_access(namespace, Some(access)) {
        tracing::info!(namespace, admitted = (access == NamespaceAccess::Granted), "looked at a namespace");
        context.wake(context.world.woken_by_namespace(namespace));
    }
}

async fn ask_one(context: Arc<Context>, namespace: String) {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let params = ListParams::default().labels(&ours()).limit(1);
    loop {
        // Boxed: what a request needs while it runs is not to be held by hundreds of tasks that wait.
        let wait = match Box::pin(api.list_metadata(&params)).await {
            Ok(_) => {
                learnt(&context, &namespace, NamespaceAccess::Granted);
                ADMITTED
            }
            Err(kube::Error::Api(status)) if status.is_forbidden() => {
                learnt(&context, &namespace, NamespaceAccess::Denied);
                REFUSED
            }
            Err(_) => REFUSED,
        };
        context.clock.pause(wait).await;
    }
}

async fn watch_one(context: Arc<Context>, watches: WatchSettings, namespace: String) {
    let api: Api<PartialObjectMeta<Secret>> = Api::namespaced(context.client.clone(), &namespace);
    follow(
        api,
        watches.config(Some(&ours())),
        |change| {
            let world = &context.world;
            let metas = match change {
                Change::All(all) => world.replace_children(
                    ChildKind::Secret,
                    |of| of == namespace,
                    all.iter().map(|object| (&object.metadata).into()),
                ),
                Change::There(object) => world.put_child(ChildKind::Secret, (&object.metadata).into()),
                Change::Gone(object) => world.drop_child(ChildKind::Secret, (&object.metadata).into()),
            };
            context.wake(metas.iter().flat_map(|meta| world.woken_by_child(meta)));
        },
        |trouble| match trouble {
            None => learnt(&context, &namespace, NamespaceAccess::Granted),
            Some((Trouble::Forbidden, _)) => learnt(&context, &namespace, NamespaceAccess::Denied),
            Some(_) => {}
        },
    )
    .await;
}
