//! `kubectl saatkond admit`: the governing authority's decision who may be whom.

use std::collections::BTreeSet;

use anyhow::Context;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use saatkond_api::admission::{self, MemberIdentity};
use saatkond_api::names::{self, annotation, manager};
use serde_json::{Value, json};

use crate::Outcome;
use crate::cluster::{Cluster, api_status};

/// Lets the operator work in a namespace, and says which member the namespace may be.
///
/// Writes the annotation saatkond.io/member-identities of the namespace, adding to what is there, and the RoleBinding
/// saatkond-member-namespace in it. Without an identity the RoleBinding alone: for a namespace that holds only
/// members admitted otherwise. With --remove it takes the identities away, or without an identity the RoleBinding.
#[derive(clap::Args)]
#[command(after_long_help = RIGHTS)]
pub struct Arguments {
    /// The namespace.
    namespace: String,
    /// Member identities, each instance/class/code, for example EE/GOV/70000001 (a comma in a code is written %2C).
    #[arg(value_name = "IDENTITY")]
    identities: Vec<MemberIdentity>,
    /// Take away instead of adding.
    #[arg(long)]
    remove: bool,
    /// Let the API server check everything and change nothing.
    #[arg(long)]
    dry_run: bool,
    /// Namespace that the operator runs in.
    #[arg(long, env = "SAATKOND_OPERATOR_NAMESPACE", value_name = "NAMESPACE", default_value = "saatkond-system")]
    operator_namespace: String,
}

const RIGHTS: &str = "\
Rights needed: those of the ClusterRole saatkond-admitter of the chart:
  admit          trustanchors.saatkond.io (all, or the one named as the instance in lower case)
  get, patch     namespaces
  get, patch, delete  rolebindings.rbac.authorization.k8s.io saatkond-member-namespace in the namespace
  create         rolebindings.rbac.authorization.k8s.io in the namespace
  bind           clusterroles.rbac.authorization.k8s.io saatkond-member-namespace";

/// What becomes of the annotation.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Change {
    /// The whole annotation; `None`: none is left.
    annotation: Option<String>,
    /// What was asked for and is new (or gone).
    effective: Vec<MemberIdentity>,
    /// What was asked for and was so already.
    already: Vec<MemberIdentity>,
    /// Entries that are there and are no identities; they are left as they are.
    malformed: Vec<String>,
}

fn plan(current: &str, asked: &[MemberIdentity], remove: bool) -> Change {
    let (mut identities, malformed) = admission::parse(current);
    let asked: BTreeSet<_> = asked.iter().cloned().collect();
    let (effective, already) = asked
        .into_iter()
        .partition(|identity| if remove { identities.remove(identity) } else { identities.insert(identity.clone()) });
    let malformed: Vec<String> = malformed.into_iter().map(|(text, _)| text).collect();
    let entries: Vec<String> = identities.iter().map(ToString::to_string).chain(malformed.iter().cloned()).collect();
    let annotation = (!entries.is_empty()).then(|| entries.join(","));
    Change { annotation, effective, already, malformed }
}

fn role_binding(namespace: &str, operator_namespace: &str) -> Value {
    json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "RoleBinding",
        "metadata": {
            "name": names::MEMBER_NAMESPACE_BINDING,
            "namespace": namespace,
            "labels": {names::label::NAME: names::MANAGED_BY},
        },
        "roleRef": {
            "apiGroup": "rbac.authorization.k8s.io",
            "kind": "ClusterRole",
            "name": names::MEMBER_NAMESPACE_ROLE,
        },
        "subjects": [{
            "kind": "ServiceAccount",
            "name": names::CONTROLLER_SERVICE_ACCOUNT,
            "namespace": operator_namespace,
        }],
    })
}

/// Carries the verb out.
pub async fn run(cluster: &Cluster, arguments: Arguments) -> anyhow::Result<Outcome> {
    let suffix = if arguments.dry_run { " (dry run)" } else { "" };
    // The annotation first: where the policy refuses it, the operator gets no rights either.
    if !arguments.identities.is_empty() {
        for line in annotate(cluster, &arguments).await? {
            println!("{line}{suffix}");
        }
    }
    if !arguments.remove {
        println!("{}{suffix}", bind(cluster, &arguments).await?);
    } else if arguments.identities.is_empty() {
        println!("{}{suffix}", unbind(cluster, &arguments).await?);
    }
    Ok(Outcome::AsDeclared)
}

async fn annotate(cluster: &Cluster, arguments: &Arguments) -> anyhow::Result<Vec<String>> {
    let name = &arguments.namespace;
    let namespaces: Api<Namespace> = Api::all(cluster.client.clone());
    let namespace = namespaces.get(name).await.with_context(|| format!("failed to read namespace {name}"))?;
    let annotations = namespace.metadata.annotations.unwrap_or_default();
    let current = annotations.get(annotation::MEMBER_IDENTITIES).map_or("", String::as_str);
    let change = plan(current, &arguments.identities, arguments.remove);

    if !change.effective.is_empty() {
        // The version read is the version written: somebody else's change in between is a conflict, never undone.
        let version = namespace.metadata.resource_version;
        let body = json!({
            "apiVersion": "v1",
            "kind": "Namespace",
            "metadata": {
                "name": name,
                "resourceVersion": version,
                "annotations": {annotation::MEMBER_IDENTITIES: change.annotation},
            },
        });
        let mut parameters = PatchParams { field_manager: Some(manager::PLUGIN.to_owned()), ..PatchParams::default() };
        parameters.dry_run = arguments.dry_run;
        let patch = if change.annotation.is_some() {
            // Whoever wrote the annotation before, the decision is the caller's now.
            parameters.force = true;
            Patch::Apply(body)
        } else {
            // Applying without the key would leave it to its other managers; null takes it away.
            Patch::Merge(body)
        };
        namespaces
            .patch(name, &parameters, &patch)
            .await
            .with_context(|| format!("failed to change the annotation of namespace {name}"))?;
    }
    Ok(lines(name, &change, arguments.remove))
}

fn lines(namespace: &str, change: &Change, remove: bool) -> Vec<String> {
    let (done, before) = if remove { ("no longer admitted as", "not") } else { ("admitted as", "already") };
    let mut lines = Vec::new();
    for identity in &change.effective {
        lines.push(format!("namespace/{namespace} {done} {identity}"));
    }
    for identity in &change.already {
        lines.push(format!("namespace/{namespace} was {before} admitted as {identity}"));
    }
    for text in &change.malformed {
        lines
            .push(format!("namespace/{namespace}: {text:?} in its annotation is no member identity and admits nobody"));
    }
    lines
}

async fn bind(cluster: &Cluster, arguments: &Arguments) -> anyhow::Result<String> {
    let namespace = &arguments.namespace;
    let bindings: Api<RoleBinding> = Api::namespaced(cluster.client.clone(), namespace);
    let name = names::MEMBER_NAMESPACE_BINDING;
    let before = match bindings.get(name).await {
        Ok(binding) => binding.metadata.resource_version,
        Err(error) if api_status(&error).is_some_and(|(code, _)| code == 404) => None,
        Err(error) => return Err(error).context("failed to read the RoleBinding"),
    };
    let mut parameters = PatchParams::apply(manager::PLUGIN).force();
    parameters.dry_run = arguments.dry_run;
    let body = role_binding(namespace, &arguments.operator_namespace);
    let after = bindings
        .patch(name, &parameters, &Patch::Apply(body))
        .await
        .with_context(|| format!("failed to write the RoleBinding in namespace {namespace}"))?;
    let what = match before {
        None => "created",
        Some(_) if before == after.metadata.resource_version => "unchanged",
        Some(_) => "configured",
    };
    let operator = &arguments.operator_namespace;
    let account = names::CONTROLLER_SERVICE_ACCOUNT;
    Ok(format!("rolebinding/{name} in {namespace} {what}: {operator}/{account} may run security servers here"))
}

async fn unbind(cluster: &Cluster, arguments: &Arguments) -> anyhow::Result<String> {
    let namespace = &arguments.namespace;
    let bindings: Api<RoleBinding> = Api::namespaced(cluster.client.clone(), namespace);
    let name = names::MEMBER_NAMESPACE_BINDING;
    let parameters = DeleteParams { dry_run: arguments.dry_run, ..DeleteParams::default() };
    match bindings.delete(name, &parameters).await {
        Ok(_) => {
            Ok(format!("rolebinding/{name} in {namespace} deleted: gateways go on, nothing is renewed or repaired"))
        }
        Err(error) if api_status(&error).is_some_and(|(code, _)| code == 404) => {
            Ok(format!("rolebinding/{name} in {namespace} was not there"))
        }
        Err(error) => Err(error).context("failed to delete the RoleBinding"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(texts: &[&str]) -> Vec<MemberIdentity> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn adding_keeps_what_is_there() {
        for (name, current, asked, expected, effective, already) in [
            ("first", "", vec!["EE/GOV/1"], "EE/GOV/1", 1, 0),
            ("second", "EE/GOV/2", vec!["EE/GOV/1"], "EE/GOV/1,EE/GOV/2", 1, 0),
            ("again", " EE/GOV/1\n", vec!["EE/GOV/1"], "EE/GOV/1", 0, 1),
            ("twice in one call", "", vec!["EE/GOV/1", "EE/GOV/1"], "EE/GOV/1", 1, 0),
            ("comma in a code", "", vec!["EE/GOV/1%2C2"], "EE/GOV/1%2C2", 1, 0),
            ("beside a malformed entry", "what", vec!["EE/GOV/1"], "EE/GOV/1,what", 1, 0),
        ] {
            let change = plan(current, &ids(&asked), false);
            assert_eq!(change.annotation.as_deref(), Some(expected), "{name}");
            assert_eq!((change.effective.len(), change.already.len()), (effective, already), "{name}");
        }
    }

    #[test]
    fn removing_takes_only_what_was_named() {
        let change = plan("EE/GOV/1,EE/GOV/2", &ids(&["EE/GOV/2", "EE/GOV/3"]), true);
        assert_eq!(change.annotation.as_deref(), Some("EE/GOV/1"));
        assert_eq!((change.effective, change.already), (ids(&["EE/GOV/2"]), ids(&["EE/GOV/3"])));
        assert_eq!(plan("EE/GOV/1", &ids(&["EE/GOV/1"]), true).annotation, None);
    }

    #[test]
    fn a_plan_carried_out_leaves_nothing_to_do() {
        for (current, remove) in [("", false), ("EE/COM/7,bad", false), ("EE/GOV/1,EE/GOV/2", true)] {
            let asked = ids(&["EE/GOV/1"]);
            let first = plan(current, &asked, remove);
            let second = plan(first.annotation.as_deref().unwrap_or(""), &asked, remove);
            assert!(second.effective.is_empty(), "{current}");
            assert_eq!(second.annotation, first.annotation, "{current}");
        }
    }

    #[test]
    fn what_was_done_is_told() {
        let change = plan("EE/GOV/1,bad", &ids(&["EE/GOV/1", "EE/GOV/2"]), false);
        assert_eq!(
            lines("n", &change, false),
            [
                "namespace/n admitted as EE/GOV/2",
                "namespace/n was already admitted as EE/GOV/1",
                "namespace/n: \"bad\" in its annotation is no member identity and admits nobody",
            ]
        );
        let change = plan("EE/GOV/1", &ids(&["EE/GOV/1", "EE/GOV/2"]), true);
        assert_eq!(
            lines("n", &change, true),
            ["namespace/n no longer admitted as EE/GOV/1", "namespace/n was not admitted as EE/GOV/2"]
        );
    }

    #[test]
    fn the_binding_names_the_operators_account() {
        let binding = role_binding("member", "elsewhere");
        assert_eq!(binding["subjects"][0]["namespace"], "elsewhere");
        assert_eq!(binding["subjects"][0]["name"], "saatkond-controller");
        assert_eq!(binding["roleRef"]["name"], "saatkond-member-namespace");
        let typed: RoleBinding = serde_json::from_value(binding).unwrap();
        assert_eq!(typed.metadata.namespace.as_deref(), Some("member"));
    }
}
