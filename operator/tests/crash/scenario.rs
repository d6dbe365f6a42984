//! What happens to a federation.

use kube::api::{Api, ApiResource, DeleteParams, DynamicObject, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use serde_json::{Value, json};

use crate::state::within;
use crate::support::{SYSTEM, end_pod, federation, gateway_pods, until_stated};

/// Declares a federation, as its administrator.
pub async fn declare(admin: &Client, stem: &str) {
    for part in federation(stem).split("\n---\n") {
        let object: DynamicObject = serde_json::from_str(part).unwrap();
        let types = object.types.clone().unwrap();
        let kind = ApiResource::from_gvk(&types.try_into().unwrap());
        let api: Api<DynamicObject> = match object.namespace() {
            Some(namespace) => Api::namespaced_with(admin.clone(), &namespace, &kind),
            None => Api::all_with(admin.clone(), &kind),
        };
        api.create(&PostParams::default(), &object).await.unwrap();
    }
}

/// What happens to a federation while no operator runs, or, where it is set up, once one does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scenario {
    SetUp,
    Change,
    Departure,
    Rotation,
    Emergency,
}

impl Scenario {
    pub const ALL: [Self; 5] = [Self::SetUp, Self::Change, Self::Departure, Self::Rotation, Self::Emergency];

    pub fn letter(self) -> char {
        match self {
            Self::SetUp => 's',
            Self::Change => 'c',
            Self::Departure => 'd',
            Self::Rotation => 'r',
            Self::Emergency => 'e',
        }
    }

    /// Of a hundred plans, how many must be cut. How many writes a rotation has depends on which receipts fall together: the last
    /// of a long run do not always come.
    pub fn least(self) -> usize {
        if self.is_rotation() { 75 } else { 95 }
    }

    /// Whether another authority takes over.
    pub fn is_rotation(self) -> bool {
        matches!(self, Self::Rotation | Self::Emergency)
    }

    /// Carries it out.
    pub async fn begin(self, admin: &Client, stem: &str) {
        let home = format!("{stem}-home");
        match self {
            Self::SetUp => declare(admin, stem).await,
            Self::Change => {
                let edit = |name: &'static str, object: &'static str, patch: Value| {
                    let api = within(admin, name, &home);
                    async move {
                        api.patch(object, &PatchParams::default(), &Patch::Merge(patch)).await.unwrap();
                    }
                };
                // The key of a list's entry: an apply alone is refused, so lists are written whole before.
                let ports = json!([{"name": "client", "port": 81, "targetPort": "client"}]);
                edit("Service", "ss1", json!({"spec": {"ports": ports}})).await;
                for (name, object) in
                    [("PodDisruptionBudget", "ss1"), ("ConfigMap", "ss1-configuration"), ("Secret", "ss1-identity")]
                {
                    within(admin, name, &home).delete(object, &DeleteParams::default()).await.unwrap();
                }
                let unlabelled = json!({"metadata": {"labels": {"saatkond.io/role": null}}});
                let key = saatkond_api::names::ca_secret(stem, 1);
                within(admin, "Secret", SYSTEM)
                    .patch(&key, &PatchParams::default(), &Patch::Merge(unlabelled))
                    .await
                    .unwrap();
                let services = json!([
                    {"code": "persons", "rest": {"url": "http://population-app:8080/persons"}},
                    {"code": "families", "rest": {"url": "http://population-app:8080/families"}},
                ]);
                let subsystems = json!([{"code": "population", "connectionType": "HTTP", "services": services}]);
                edit("Member", "register", json!({"spec": {"subsystems": subsystems}})).await;
                edit("SecurityServer", "ss1", json!({"spec": {"replicas": 3}})).await;
                // The end of a process takes three writes; two end at once.
                gateway_pods(admin, &home, "ss1").await;
                until_stated(admin, &home, "ss1", 2).await;
                end_pod(admin, &home, "ss1-0").await;
                end_pod(admin, &home, "ss1-1").await;
            }
            Self::Departure => {
                for (name, object) in [("SecurityServer", "ss1"), ("Member", "register"), ("TrustAnchor", stem)] {
                    within(admin, name, &home).delete(object, &DeleteParams::default()).await.unwrap();
                }
            }
            Self::Rotation | Self::Emergency => {
                gateway_pods(admin, &home, "ss1").await;
                let stolen = json!({
                    "compromisedGeneration": 1, "compromisedSince": "2026-01-01T00:00:00Z", "reason": "stolen",
                });
                let asked = match self {
                    Self::Emergency => json!({"spec": {"emergency": stolen}}),
                    _ => json!({"spec": {"rotation": {"requestID": "r1"}}}),
                };
                let api = within(admin, "TrustAnchor", "");
                api.patch(stem, &PatchParams::default(), &Patch::Merge(asked)).await.unwrap();
            }
        }
    }
}
