//! Writing single objects.

use kube::api::{Api, DeleteParams, DynamicObject, Patch, PatchParams, Preconditions};
use kube::core::NamespaceResourceScope;
use kube::{Resource, ResourceExt as _};
use saatkond_api::SecurityServer;
use saatkond_api::names::{API_VERSION, manager};
use saatkond_api::v1alpha1::security_server::CountedPod;
use saatkond_domain::children::{Child, overwriting};
use saatkond_domain::effects::{Deletion, FinalizerChange};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::context::Context;
use crate::error::Error;
use crate::link::receipts;
use crate::observe::{children, ownership};

/// Sets or takes away our finalizer. Those of others stay.
pub async fn finalizer<K>(api: &Api<K>, object: &K, name: &str, change: FinalizerChange) -> Result<(), Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
{
    let (params, patch) = match change {
        FinalizerChange::Keep => return Ok(()),
        FinalizerChange::Add => {
            // The UID keeps an apply from making a new object where the old one is gone.
            let metadata = json!({"name": object.name_any(), "uid": object.uid(), "finalizers": [name]});
            let body = json!({"apiVersion": API_VERSION, "kind": K::kind(&()), "metadata": metadata});
            (PatchParams::apply(manager::FINALIZER).force(), Patch::Apply(body))
        }
        // Not by an apply: it takes away only what no other manager holds. An object that was made anew from a dump has the
        // finalizer from whoever made it, and would never end.
        FinalizerChange::Remove => {
            let others: Vec<_> = object.finalizers().iter().filter(|held| *held != name).collect();
            // One that was added since would be lost unseen, and a newer object of the same name is not meant.
            let metadata = json!({"resourceVersion": object.resource_version(), "finalizers": others});
            let update = PatchParams { field_manager: Some(manager::FINALIZER.into()), ..PatchParams::default() };
            (update, Patch::Merge(json!({"metadata": metadata})))
        }
    };
    match api.patch(&object.name_any(), &params, &patch).await {
        Ok(_) => Ok(()),
        // Gone already: there is nothing to hold any more.
        Err(kube::Error::Api(status)) if change == FinalizerChange::Remove && status.is_not_found() => Ok(()),
        Err(error) => Err(Error::api(format!("set the finalizer of {} {}", K::kind(&()), object.name_any()))(error)),
    }
}

/// Applies a child by server-side apply under the one manager of the children of SecurityServers.
///
/// Force is for fields that are ours by design; the plan asks only for objects that are ours or were not there when it
/// looked. That look was at the API server itself, and is over: `known` is the UID of what was there, so that what somebody has made in
/// its place since is left alone, and where nothing was there nothing is taken by force.
pub async fn child(context: &Context, namespace: &str, child: &Child, known: Option<&str>) -> Result<(), Error> {
    let kind = child.kind();
    let api = children::api(context, kind, namespace);
    let mut value = child.value();
    if let Some(uid) = known {
        value["metadata"]["uid"] = uid.into();
    }
    let params = applied_by(manager::SECURITY_SERVER, known.is_none());
    let doing = |verb: &str| Error::api(format!("{verb} {kind} {namespace}/{}", child.name()));
    let mut applied = match api.patch(child.name(), &params, &Patch::Apply(&value)).await {
        Ok(applied) if children::learn(context, kind, &applied, Some(child)).intact => return Ok(()),
        Ok(added_to) => overwrite(&api, &added_to, &value).await.map_err(doing("overwrite"))?,
        // Somebody has changed what a list's entries are told apart by, say a port's number: applied, their entry would
        // stand beside ours, and both cannot.
        Err(kube::Error::Api(status)) if status.code == 422 => {
            match api.get_opt(child.name()).await.map_err(doing("read"))? {
                Some(live) if live.metadata.uid.as_deref() == known => {
                    overwrite(&api, &live, &value).await.map_err(doing("overwrite"))?
                }
                Some(_) | None => return Err(doing("apply")(kube::Error::Api(status))),
            }
        }
        Err(error) => return Err(doing("apply")(error)),
    };
    // Overwriting counts as an update beside our apply, by us or by one of us that died there: while it stands, a field
    // that we apply no longer would stay.
    if let Some(kept) = ownership::without_updates_of_ours(&applied.metadata) {
        let metadata = json!({"resourceVersion": applied.resource_version(), "managedFields": kept});
        let disowned = Patch::Merge(json!({"metadata": metadata}));
        let answer = api.patch(child.name(), &PatchParams::default(), &disowned).await;
        applied = answer.map_err(doing("give up updates of"))?;
    }
    if children::learn(context, kind, &applied, Some(child)).intact {
        return Ok(());
    }
    // Not tried again at once: whatever changes it as it is written would do so each time.
    Err(Error::Contested { object: format!("{kind} {namespace}/{}", child.name()) })
}

/// An apply that takes fields by force, unless it is to make the object.
pub fn applied_by(manager: &str, is_new: bool) -> PatchParams {
    PatchParams { force: !is_new, ..PatchParams::apply(manager) }
}

fn as_json(object: &DynamicObject) -> Value {
    serde_json::to_value(object).unwrap_or_default()
}

/// Writes lists and selectors whole, which takes out what others have added, then takes the fields again.
async fn overwrite(api: &Api<DynamicObject>, live: &DynamicObject, value: &Value) -> kube::Result<DynamicObject> {
    let mut whole = overwriting(&as_json(live), value);
    // What was added since would be lost unseen.
    whole["metadata"] = json!({"resourceVersion": live.resource_version()});
    let update = PatchParams { field_manager: Some(manager::SECURITY_SERVER.into()), ..PatchParams::default() };
    api.patch(&live.name_any(), &update, &Patch::Merge(whole)).await?;
    api.patch(&live.name_any(), &applied_by(manager::SECURITY_SERVER, false), &Patch::Apply(value)).await
}

/// Deletes exactly the object that was seen: a newer one of the same name is not meant. Gone already is well.
pub async fn delete(context: &Context, deletion: &Deletion) -> Result<(), Error> {
    let Deletion { kind, namespace, name, uid } = deletion;
    let api = children::api(context, *kind, namespace);
    let preconditions = Preconditions { uid: Some(uid.clone()), resource_version: None };
    let params = DeleteParams { preconditions: Some(preconditions), ..DeleteParams::background() };
    match api.delete(name, &params).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.is_not_found() || status.is_conflict() => Ok(()),
        Err(error) => Err(Error::api(format!("delete {kind} {namespace}/{name}"))(error)),
    }
}

/// Writes whose processes count, if the server is as it was seen: an operator that has lost its lease unawares must not put an older
/// list back, from which a pod that has vanished is missing.
pub async fn count(context: &Context, server: &SecurityServer, pods: &[CountedPod]) -> Result<SecurityServer, Error> {
    let name = server.name_any();
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": "SecurityServer",
        "metadata": {"name": name, "uid": server.uid(), "resourceVersion": server.resource_version()},
        "status": {"pods": pods},
    });
    let api = namespaced::<SecurityServer>(context, server);
    let params = PatchParams::apply(manager::COUNTED_PODS).force();
    let doing = format!("write whose processes of SecurityServer {name} count");
    let written = api.patch_status(&name, &params, &Patch::Apply(&body)).await.map_err(Error::api(doing))?;
    context.world.servers.wrote(server, written.clone());
    Ok(written)
}

/// Writes into receipts that their processes have ended, under each receipt's own manager.
pub async fn end(context: &Context, server: &SecurityServer, pods: &[String]) -> Result<(), Error> {
    let api = namespaced::<SecurityServer>(context, server);
    let mut server = server.clone();
    for pod in pods {
        let Some(receipt) = receipts::find(&server, pod) else { continue };
        let ended = receipts::ended(receipt, context.clock.now());
        let doing = || format!("note in a receipt of SecurityServer {} that its process has ended", server.name_any());
        // What it answers is the version that the next one is written to.
        server = receipts::write(&api, &server, pod, &json!([ended])).await.map_err(Error::api(doing()))?;
    }
    Ok(())
}

/// Takes a receipt out of the status: its process has ended. The receipt's own manager applies nothing any more. Not an empty
/// list: after a lost answer this comes a second time, and would write that list where there is none.
pub async fn forget(context: &Context, server: &SecurityServer, pod_uid: &str) -> Result<(), Error> {
    let name = server.name_any();
    let api = namespaced::<SecurityServer>(context, server);
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": "SecurityServer",
        "metadata": {"name": name, "uid": server.uid()},
    });
    let params = PatchParams::apply(&manager::link(pod_uid)).force();
    let doing = format!("forget a receipt of SecurityServer {name}");
    api.patch_status(&name, &params, &Patch::Apply(body)).await.map_err(Error::api(doing))?;
    Ok(())
}

/// The API of an object's kind in its namespace.
pub fn namespaced<K>(context: &Context, object: &K) -> Api<K>
where
    K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
{
    Api::namespaced(context.client.clone(), &object.namespace().unwrap_or_default())
}
