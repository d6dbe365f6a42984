//! Writing status: one writer, one field manager, only when something has changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use saatkond_api::names::{API_VERSION, manager};
use saatkond_domain::statements::unseen;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::apply;
use crate::context::Context;
use crate::error::Error;
use crate::events::told;
use crate::store::Store;

/// Writes the whole status that the controller owns, if it differs from what stands. `left` names the fields that others
/// write: they are neither compared nor applied. What comes of it is in `store` before this returns.
pub async fn write<K, S>(
    store: &Store<K>,
    api: &Api<K>,
    object: &K,
    standing: Option<&S>,
    wanted: &S,
    left: &[&str],
) -> Result<bool, Error>
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize,
{
    let without = |status: &S| {
        let mut value = serde_json::to_value(status).unwrap_or_default();
        if let Value::Object(fields) = &mut value {
            for field in left {
                fields.remove(*field);
            }
        }
        value
    };
    let wanted = without(wanted);
    if standing.map_or_else(|| json!({}), without) == wanted {
        return Ok(false);
    }
    let name = object.name_any();
    let kind = K::kind(&());
    let body = json!({
        "apiVersion": API_VERSION,
        "kind": kind,
        // The UID: a new object of the same name has a status of its own.
        "metadata": {"name": name, "uid": object.uid()},
        "status": wanted,
    });
    let params = PatchParams::apply(manager::STATUS).force();
    let doing = format!("write the status of {kind} {name}");
    let written = api.patch_status(&name, &params, &Patch::Apply(body)).await.map_err(Error::api(doing))?;
    store.wrote(object, written);
    Ok(true)
}

/// Says in the status that the API server refuses to let the operator look, which would else leave the status as it was, or
/// empty, and nobody the wiser. Other errors of reading pass by themselves, or nothing could be written either. Returns
/// `error`.
pub async fn refused<K, S>(
    context: &Context,
    (store, api, left): (&Store<K>, &Api<K>, &[&str]),
    object: &K,
    standing: Option<&S>,
    conditions: impl Fn(&mut S) -> &mut Vec<Condition>,
    error: Error,
) -> Error
where
    K: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug,
    S: Serialize + Clone + Default,
{
    let Some(failure) = apply::failure(&error).filter(|_| error.is_forbidden()) else { return error };
    let mut status = standing.cloned().unwrap_or_default();
    let known = conditions(&mut status);
    let (next, events) = unseen(known, &failure, object.meta().generation, context.clock.now());
    *known = next;
    let written = write(store, api, object, standing, &status, left).await;
    if let Err(error) = &written {
        tracing::warn!(error = crate::error::chain(error), "the refusal could not be told in the status");
    }
    context.recorder.record(object, &told(Vec::new(), events, &Err::<(), _>(()), &written)).await;
    error
}
