//! Whether claims of identities are guarded: the ValidatingAdmissionPolicy and its binding, as they stand and not only by
//! their names.

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
    let policy = readable(policies.get_opt(ADMISSION_POLICY).await)?;
    let binding = readable(bindings.get_opt(ADMISSION_POLICY).await)?;
    let guarded = policy.is_some_and(|policy| refuses(&policy)) && binding.is_some_and(|binding| denies(&binding));
    let policy = if guarded { AdmissionPolicy::Installed } else { AdmissionPolicy::Missing };
    *context.caches.policy.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, policy));
    Ok(policy)
}

/// Whether it says anything, and refuses what it cannot evaluate.
fn refuses(policy: &ValidatingAdmissionPolicy) -> bool {
    let spec = policy.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.failure_policy.as_deref() != Some("Ignore") && spec.validations.iter().flatten().next().is_some()
    })
}

/// Whether it binds our policy, to all that the policy names, and does more than warn or record.
fn denies(binding: &ValidatingAdmissionPolicyBinding) -> bool {
    let spec = binding.spec.as_ref();
    spec.is_some_and(|spec| {
        spec.policy_name.as_deref() == Some(ADMISSION_POLICY)
            && spec.match_resources.is_none()
            && spec.validation_actions.iter().flatten().any(|action| action == "Deny")
    })
}

/// What may not be read cannot be relied on: that counts as missing.
fn readable<K>(answer: Result<Option<K>, kube::Error>) -> Result<Option<K>, Error> {
    match answer {
        Err(kube::Error::Api(status)) if status.is_forbidden() => Ok(None),
        answer => answer.map_err(Error::api("read the ValidatingAdmissionPolicy")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use k8s_openapi::api::admissionregistration::v1::{
        MatchResources, ValidatingAdmissionPolicyBindingSpec, ValidatingAdmissionPolicySpec, Validation,
    };

    #[test]
    fn a_policy_that_lets_things_pass_is_no_guard() {
        let policy = |failure: Option<&str>, validations: Vec<Validation>| ValidatingAdmissionPolicy {
            spec: Some(ValidatingAdmissionPolicySpec {
                failure_policy: failure.map(Into::into),
                validations: Some(validations),
                ..ValidatingAdmissionPolicySpec::default()
            }),
            ..ValidatingAdmissionPolicy::default()
        };
        let one = || vec![Validation::default()];
        assert!(refuses(&policy(Some("Fail"), one())) && refuses(&policy(None, one())));
        assert!(!refuses(&policy(Some("Ignore"), one())) && !refuses(&policy(None, vec![])));
        assert!(!refuses(&ValidatingAdmissionPolicy::default()));
    }

    #[test]
    fn a_binding_that_only_warns_or_covers_a_part_is_no_guard() {
        let binding = |name: &str, actions: &[&str], part: bool| ValidatingAdmissionPolicyBinding {
            spec: Some(ValidatingAdmissionPolicyBindingSpec {
                policy_name: Some(name.into()),
                validation_actions: Some(actions.iter().map(|action| (*action).into()).collect()),
                match_resources: part.then(MatchResources::default),
                ..ValidatingAdmissionPolicyBindingSpec::default()
            }),
            ..ValidatingAdmissionPolicyBinding::default()
        };
        assert!(denies(&binding(ADMISSION_POLICY, &["Deny", "Audit"], false)));
        assert!(!denies(&binding(ADMISSION_POLICY, &["Warn", "Audit"], false)));
        assert!(!denies(&binding(ADMISSION_POLICY, &["Deny"], true)));
        assert!(!denies(&binding("other", &["Deny"], false)));
        assert!(!denies(&ValidatingAdmissionPolicyBinding::default()));
    }
}
