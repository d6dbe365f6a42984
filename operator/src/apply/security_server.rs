//! Carrying out the plan of a security server.

use std::collections::BTreeMap;
use std::sync::Arc;

use bytes::Bytes;
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use saatkond_api::names::{entry, finalizer, manager};
use saatkond_api::{SecurityServer, TrustAnchor};
use saatkond_domain::children::{Child, ChildKind};
use saatkond_domain::effects::FinalizerChange;
use saatkond_domain::observed::{ObservedChild, Stored};
use saatkond_domain::security_server::observed::IdentityFacts;
use saatkond_domain::security_server::plan::{
    AppliedSecurityServer, IdentityPlan, LeafPlan, SecurityServerPlan, StartCopyPlan,
};
use saatkond_domain::security_server::processes::Endings;
use saatkond_pki::authority::Authority;
use saatkond_wire::document::FORMAT;
use saatkond_wire::identity::{Credential, Identity, SigningIdentity};
use zeroize::Zeroizing;

use super::trust_anchor::wipe;
use super::{failure, objects};
use crate::context::Context;
use crate::error::Error;
use crate::observe::security_server::Gathered;
use crate::observe::{children, identity, keys};
use crate::publisher::publish;
use crate::signer;
use crate::store::place;

/// Carries it out as far as it goes. Returns what came of it, and why it ended early.
pub async fn execute(
    context: &Context,
    gathered: &Gathered,
    plan: &SecurityServerPlan,
) -> (AppliedSecurityServer, Result<(), Error>) {
    let mut applied = AppliedSecurityServer::default();
    let ended = steps(context, gathered, plan, &mut applied).await;
    if let Err(error) = &ended {
        applied.failure = failure(error);
    }
    (applied, ended)
}

async fn steps(
    context: &Context,
    gathered: &Gathered,
    plan: &SecurityServerPlan,
    applied: &mut AppliedSecurityServer,
) -> Result<(), Error> {
    let SecurityServerPlan {
        finalizer: change,
        pods,
        untold,
        identity,
        configuration,
        start_copy,
        children,
        endings: Endings { end, forget },
        deletions,
        foreign: _, // told in the status
        events: _,  // recorded by the driver, with those of the status
        next_check: _,
    } = plan;
    let server = &gathered.seen.server;
    let namespace = server.namespace().unwrap_or_default();
    let api = objects::namespaced::<SecurityServer>(context, server);
    if *change == FinalizerChange::Add {
        objects::finalizer(&api, server, finalizer::SECURITY_SERVER, *change).await?;
    }
    // First: what is lastingly refused below must not hold back what only this process may have seen.
    let counted = match pods {
        Some(pods) => Some(objects::count(context, server, pods).await?),
        None => None,
    };
    context.world.pods.told(&place(&**server), &gathered.seen.pods, untold);
    objects::end(context, counted.as_ref().unwrap_or(server), end).await?;
    for pod_uid in forget {
        objects::forget(context, server, pod_uid).await?;
    }
    // The documents do not wait for it: signed anew by nobody, what a running server serves by would end because of a
    // leaf that cannot be issued.
    let mut unissued = None;
    if let Some(plan) = identity {
        match store_identity(context, gathered, plan).await {
            Ok(facts) => applied.identity = Some(facts),
            Err(error) if error.is_unreachable() => return Err(error),
            Err(error) => unissued = Some(error),
        }
    }
    let mut packed = gathered.configuration.packed.clone();
    if let Some(publication) = configuration {
        let cache = &context.caches.configurations;
        let written = publish(context, publication, &gathered.keys, manager::SECURITY_SERVER, cache).await?;
        packed = written.packed.clone();
        applied.configuration = true;
    }
    let known = gathered.seen.start_copy.as_ref().map(|copy| copy.uid.clone());
    copy(context, server, start_copy, known, &gathered.instance.packed, &packed).await?;
    // The Deployment may be planned for an identity that is not there: pods without it cannot start.
    if let Some(error) = unissued {
        return Err(error);
    }
    apply_children(context, &namespace, children, &gathered.seen.children).await?;
    for deletion in deletions {
        objects::delete(context, deletion).await?;
    }
    if *change == FinalizerChange::Remove {
        objects::finalizer(&api, server, finalizer::SECURITY_SERVER, *change).await?;
        context.caches.forget_server(&place(&**server));
    }
    Ok(())
}

/// Applies all: one that is refused, or changed by somebody else as it is written, holds up none of the others, but that no pod
/// comes before the account it runs as and the policy of who may reach it.
async fn apply_children(
    context: &Context,
    namespace: &str,
    children: &[Child],
    seen: &[ObservedChild],
) -> Result<(), Error> {
    let (mut failed, mut unguarded): (Option<Error>, bool) = (None, false);
    for child in children {
        if unguarded && child.kind() == ChildKind::Deployment {
            continue;
        }
        let known = seen.iter().find(|it| it.kind == child.kind() && it.name == child.name());
        match objects::child(context, namespace, child, known.map(|it| it.uid.as_str())).await {
            Ok(()) => {}
            Err(error) if error.is_unreachable() => return Err(error),
            Err(error) => {
                unguarded |= matches!(child.kind(), ChildKind::ServiceAccount | ChildKind::NetworkPolicy);
                if failed.as_ref().is_none_or(|known| gravity(known) < gravity(&error)) {
                    failed = Some(error);
                }
            }
        }
    }
    failed.map_or(Ok(()), Err)
}

/// Which of several failures counts. A contested child first, since only that outcome keeps its own writes from waking the object
/// at once; a conflict last, since looking again is all that it asks for.
fn gravity(error: &Error) -> u8 {
    match error {
        Error::Contested { .. } => 2,
        error if error.is_conflict() => 0,
        _ => 1,
    }
}

/// The authority of a generation that a plan names.
pub async fn authority(context: &Context, anchor: &TrustAnchor, generation: u64) -> Result<Arc<Authority>, Error> {
    keys::signing_authority(context, anchor, generation).await?.ok_or_else(|| Error::Sign {
        doing: "issue a leaf",
        source: format!("the key of authority {generation} is not at hand").into(),
    })
}

/// Issues what is to be issued, keeps the rest, and writes all of it in one entry.
async fn store_identity(context: &Context, gathered: &Gathered, plan: &IdentityPlan) -> Result<IdentityFacts, Error> {
    let IdentityPlan { meta, server: id, issue_number, generation, authentication, signing, replaces } = plan;
    let server = &gathered.seen.server;
    let keeps = std::iter::once(authentication).chain(signing.iter().map(|(_, leaf)| leaf));
    let mut old = None;
    if keeps.clone().any(|leaf| matches!(leaf, LeafPlan::Keep)) {
        old = identity::read_whole(context, server).await?.map(|(identity, _)| identity);
    }
    let lost = || Error::Sign { doing: "keep a leaf", source: "it is not in the Secret any more".into() };
    let issuer = match &gathered.seen.anchor {
        Some(anchor) if keeps.clone().any(|leaf| matches!(leaf, LeafPlan::Issue(_))) => {
            Some(authority(context, anchor, *generation).await?)
        }
        _ => None,
    };
    let issue = |leaf: &LeafPlan, kept: Option<Credential>, usage: &str| -> Result<Credential, Error> {
        match leaf {
            LeafPlan::Keep => kept.ok_or_else(lost),
            LeafPlan::Issue(order) => {
                let authority = issuer.as_ref().ok_or_else(lost)?;
                context.metrics.issued(usage);
                signer::issue(authority, *generation, *issue_number, order, &*context.keys, &*context.chance)
                    .map(|issued| issued.credential)
            }
        }
    };
    let mut identity = Identity {
        format: FORMAT,
        server: id.clone(),
        issue_number: *issue_number,
        authentication: issue(authentication, old.as_ref().map(|old| old.authentication.clone()), "authentication")?,
        signing: Vec::with_capacity(signing.len()),
    };
    for (member, leaf) in signing {
        let entries = old.iter().flat_map(|old| &old.signing);
        let kept = entries.filter(|entry| entry.member == *member).map(|entry| entry.credential.clone()).next();
        let credential = issue(leaf, kept, "signing")?;
        identity.signing.push(SigningIdentity { member: member.clone(), credential });
    }
    let text = Zeroizing::new(serde_json::to_vec(&identity).map_err(Error::sign("write an identity"))?);
    let mut metadata = meta.clone();
    metadata.resource_version.clone_from(replaces);
    let secret = Secret {
        metadata,
        data: Some(BTreeMap::from([(entry::IDENTITY.to_owned(), ByteString(text.to_vec()))])),
        ..Secret::default()
    };
    let namespace = server.namespace().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &namespace);
    let answer = if replaces.is_none() {
        let params = PostParams { field_manager: Some(manager::SECURITY_SERVER.to_owned()), ..PostParams::default() };
        api.create(&params, &secret).await
    } else {
        api.patch(&name, &PatchParams::apply(manager::SECURITY_SERVER).force(), &Patch::Apply(&secret)).await
    };
    wipe(secret);
    let stored = answer.map_err(Error::api(format!("write Secret {namespace}/{name}")))?;
    let version = stored.resource_version().unwrap_or_default();
    wipe(stored);
    let facts = identity::identity_facts(&identity, version.clone(), true)
        .map_err(|why| Error::Sign { doing: "read back what was issued", source: why.into() })?;
    context.caches.identities.put(place(&**server), version, Stored::Present(facts.clone()));
    Ok(facts)
}

/// Writes the start copies, each entry under a manager of its own.
async fn copy(
    context: &Context,
    server: &SecurityServer,
    plan: &StartCopyPlan,
    mut known: Option<String>,
    instance: &Bytes,
    configuration: &Bytes,
) -> Result<(), Error> {
    let StartCopyPlan { instance: instance_meta, server: server_meta } = plan;
    let parts = [
        (instance_meta, manager::INSTANCE_COPY, entry::INSTANCE_CONFIGURATION, instance),
        (server_meta, manager::SERVER_COPY, entry::SERVER_CONFIGURATION, configuration),
    ];
    for (meta, manager, entry, packed) in parts {
        if let Some(meta) = meta {
            known = Some(copy_entry(context, server, meta, known, manager, entry, packed).await?);
        }
    }
    Ok(())
}

async fn copy_entry(
    context: &Context,
    server: &SecurityServer,
    meta: &ObjectMeta,
    known: Option<String>,
    manager: &str,
    entry: &str,
    packed: &Bytes,
) -> Result<String, Error> {
    let is_new = known.is_none();
    let map = ConfigMap {
        metadata: ObjectMeta { uid: known, ..meta.clone() },
        binary_data: Some(BTreeMap::from([(entry.to_owned(), ByteString(packed.to_vec()))])),
        ..ConfigMap::default()
    };
    let namespace = server.namespace().unwrap_or_default();
    let name = meta.name.clone().unwrap_or_default();
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let written = api.patch(&name, &objects::applied_by(manager, is_new), &Patch::Apply(&map)).await;
    let written = written.map_err(Error::api(format!("apply ConfigMap {namespace}/{name}")))?;
    let mut copy = children::copy_of(&(&written.metadata).into());
    let has = |name: &str| written.binary_data.as_ref().is_some_and(|data| data.contains_key(name));
    copy.intact = has(saatkond_api::names::entry::INSTANCE_CONFIGURATION)
        && has(saatkond_api::names::entry::SERVER_CONFIGURATION);
    let version = written.resource_version().unwrap_or_default();
    context.caches.start_copies.put(place(server), version, copy);
    Ok(written.metadata.uid.unwrap_or_default())
}
