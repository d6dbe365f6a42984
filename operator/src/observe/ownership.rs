//! What an object's managedFields say of us.

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ManagedFieldsEntry, ObjectMeta};
use saatkond_api::names::manager;

/// Whether the manager of children also holds fields by an update. Only a repair that was cut short leaves that.
#[must_use]
pub fn is_updated_by_us(meta: &ObjectMeta) -> bool {
    meta.managed_fields.iter().flatten().any(is_update_of_ours)
}

/// All entries but the updates by the manager of children; nothing where there is none.
#[must_use]
pub fn without_updates_of_ours(meta: &ObjectMeta) -> Option<Vec<&ManagedFieldsEntry>> {
    is_updated_by_us(meta)
        .then(|| meta.managed_fields.iter().flatten().filter(|entry| !is_update_of_ours(entry)).collect())
}

fn is_update_of_ours(entry: &ManagedFieldsEntry) -> bool {
    entry.manager.as_deref() == Some(manager::SECURITY_SERVER)
        && entry.operation.as_deref() == Some("Update")
        && entry.subresource.as_deref().unwrap_or_default().is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(manager: &str, operation: &str, subresource: Option<&str>) -> ManagedFieldsEntry {
        ManagedFieldsEntry {
            manager: Some(manager.into()),
            operation: Some(operation.into()),
            subresource: subresource.map(Into::into),
            ..ManagedFieldsEntry::default()
        }
    }

    #[test]
    fn only_our_own_updates_are_given_up() {
        let ours = manager::SECURITY_SERVER;
        let kept = vec![
            entry(ours, "Apply", None),
            entry("kubectl-edit", "Update", None),
            entry(ours, "Update", Some("status")),
        ];
        let meta = ObjectMeta { managed_fields: Some(kept.clone()), ..ObjectMeta::default() };
        assert!(without_updates_of_ours(&meta).is_none());
        let all = kept.iter().cloned().chain([entry(ours, "Update", None)]).collect();
        let meta = ObjectMeta { managed_fields: Some(all), ..ObjectMeta::default() };
        assert_eq!(without_updates_of_ours(&meta).unwrap(), kept.iter().collect::<Vec<_>>());
    }
}
