//! Whether claims of identities are guarded: the ValidatingAdmissionPolicy and its binding.

use std::sync::PoisonError;
use std::time::Duration;

use k8s_openapi::api::admissionregistration::v1::{ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding};
use kube::api::Api;
use saatkond_api::names::ADMISSION_POLICY;
use saatkond_domain::observed::AdmissionPolicy;

use crate::context::Context;
use crate::error::Error;

/// How long it counts that both are installed, and that one is missing.
const INSTALLED: Duration = Duration::from_mins(1);
const MISSING: Duration = Duration::from_secs(5);

/// Reads both, at most once in a while: they concern every member and change hardly ever.
pub async fn observe(context: &Context) -> Result<AdmissionPolicy, Error> {
    let now = context.clock.elapsed();
    let known = *context.caches.policy.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((at, policy)) = known {
        let bound = if policy == AdmissionPolicy::Installed { INSTALLED } else { MISSING };
        if now.saturating_sub(at) < bound {
            return Ok(policy);
        }
    }
    let policies: Api<ValidatingAdmissionPolicy> = Api::all(context.client.clone());
    let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(context.client.clone());
    let policy = policies.get_metadata_opt(ADMISSION_POLICY).await;
    let binding = bindings.get_metadata_opt(ADMISSION_POLICY).await;
    let there = is_there(policy)? && is_there(binding)?;
    let policy = if there { AdmissionPolicy::Installed } else { AdmissionPolicy::Missing };
    *context.caches.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, policy));
    Ok(policy)
}

/// What may not be read cannot be relied on: that counts as missing.
fn is_there<K>(answer: Result<Option<K>, kube::Error>) -> Result<bool, Error> {
    match answer {
        Ok(found) => Ok(found.is_some()),
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(false),
        Err(error) => Err(Error::api("read the ValidatingAdmissionPolicy")(error)),
    }
}
