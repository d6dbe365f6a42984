//! Writing status: one writer, one field manager, only when something has changed.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kube::api::{Api, Patch, PatchParams};
use kube::{Resource, ResourceExt as _};
use saatkond_api::names::{API_VERSION, manager};
use saatkond_domain::effects::{FinalizerChange, PlannedEvent, StatusUpdate};
use saatkond_domain::statements::unseen;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::apply;
use crate::context::Context;
use crate::error::Error;
use crate::events::told;
use crate::store::Store;

/// A kind whose status the controller writes.
pub trait Stated: Resource<DynamicType = ()> + Clone + DeserializeOwned + std::fmt::Debug {
    /// Its status.
    type Status: Serialize + Clone + Default;
    /// Fields of it that others write: they are neither compared nor applied.
    const LEFT: &'static [&'static str];

    /// What stands.
    fn standing(&self) -> Option<&Self::Status>;

    /// The conditions in it.
    fn conditions(status: &mut Self::Status) -> &mut Vec<Condition>;
}

/// Writes the status of one object, and records what happened to it.
pub struct StatusWriter<'a, K> {
    /// What else of the controller this takes.
    pub context: &'a Context,
    /// Has what comes of a write before that returns.
    pub store: &'a Store<K>,
    /// Where the object is.
    pub api: &'a Api<K>,
    /// The object, as it was looked at.
    pub object: &'a K,
}

impl<K: Stated> StatusWriter<'_, K> {
    /// Ends a round: writes the status, unless the object has gone with its finalizer, and records the events of the plan and of the
    /// status. Fails as what was planned did, or else as the write did.
    pub async fn conclude(
        &self,
        change: FinalizerChange,
        ended: Result<(), Error>,
        planned: Vec<PlannedEvent>,
        update: StatusUpdate<K::Status>,
    ) -> Result<(), Error> {
        let gone = change == FinalizerChange::Remove && ended.is_ok();
        let written = if gone { Ok(false) } else { self.write(&update.status).await };
        let events = told(planned, update.events, &ended, &written);
        self.context.recorder.record(self.object, &events).await;
        ended?;
        written.map(|_| ())
    }

    /// Says in the status that the API server refuses to let the operator look, which would else leave the status as it was, or
    /// empty, and nobody the wiser. Other errors of reading pass by themselves, or nothing could be written either. Returns
    /// `error`.
    pub async fn refused(&self, error: Error) -> Error {
        let Some(failure) = apply::failure(&error).filter(|_| error.is_forbidden()) else { return error };
        let mut status = self.object.standing().cloned().unwrap_or_default();
        let known = K::conditions(&mut status);
        let (next, events) = unseen(known, &failure, self.object.meta().generation, self.context.clock.now());
        *known = next;
        let written = self.write(&status).await;
        if let Err(error) = &written {
            tracing::warn!(error = crate::error::chain(error), "the refusal could not be told in the status");
        }
        self.context.recorder.record(self.object, &told(Vec::new(), events, &Err::<(), _>(()), &written)).await;
        error
    }

    /// Writes the whole status that the controller owns, if it differs from what stands.
    async fn write(&self, wanted: &K::Status) -> Result<bool, Error> {
        let without = |status: &K::Status| {
            let mut value = serde_json::to_value(status).unwrap_or_default();
            if let Value::Object(fields) = &mut value {
                for field in K::LEFT {
                    fields.remove(*field);
                }
            }
            value
        };
        let wanted = without(wanted);
        if self.object.standing().map_or_else(|| json!({}), without) == wanted {
            return Ok(false);
        }
        let name = self.object.name_any();
        let kind = K::kind(&());
        let body = json!({
            "apiVersion": API_VERSION,
            "kind": kind,
            // The UID: a new object of the same name has a status of its own.
            "metadata": {"name": name, "uid": self.object.uid()},
            "status": wanted,
        });
        let params = PatchParams::apply(manager::STATUS).force();
        let doing = format!("write the status of {kind} {name}");
        let written = self.api.patch_status(&name, &params, &Patch::Apply(body)).await.map_err(Error::api(doing))?;
        self.store.wrote(self.object, written);
        Ok(true)
    }
}
