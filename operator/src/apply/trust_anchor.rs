//! Carrying out the plan of a trust anchor.

use std::collections::BTreeMap;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, ObjectMeta, Patch, PatchParams, PostParams};
use saatkond_api::TrustAnchor;
use saatkond_api::names::{entry, finalizer, manager};
use saatkond_domain::effects::FinalizerChange;
use saatkond_domain::observed::LeafFacts;
use saatkond_domain::trust_anchor::audit::{Act, Record};
use saatkond_domain::trust_anchor::plan::{
    AppliedTrustAnchor, AuthorityRequest, ConfigurationKeyRequest, LinkLeafRequest, TrustAnchorPlan,
};
use saatkond_pki::configuration_key::ConfigurationKey;
use serde_json::json;
use zeroize::{Zeroize as _, Zeroizing};

use super::{failure, objects};
use crate::context::Context;
use crate::error::Error;
use crate::observe::keys;
use crate::publisher::publish;
use crate::signer;

/// Carries it out as far as it goes. Returns what came of it, and why it ended early.
pub async fn execute(
    context: &Context,
    anchor: &TrustAnchor,
    plan: &TrustAnchorPlan,
) -> (AppliedTrustAnchor, Result<(), Error>) {
    let mut applied = AppliedTrustAnchor::default();
    let ended = steps(context, anchor, plan, &mut applied).await;
    if let Err(error) = &ended {
        applied.failure = failure(error);
    }
    (applied, ended)
}

async fn steps(
    context: &Context,
    anchor: &TrustAnchor,
    plan: &TrustAnchorPlan,
    applied: &mut AppliedTrustAnchor,
) -> Result<(), Error> {
    let TrustAnchorPlan {
        finalizer: change,
        relabel,
        create_authority,
        create_configuration_keys,
        publish: publication,
        link_leaf,
        destroy_authority,
        decide_again: _, // the driver has
        foreign: _,      // told in the status
        events: _,       // recorded by the driver, with those of the status
        audit,
        next_check: _,
    } = plan;
    let name = anchor.name_any();
    let api: Api<TrustAnchor> = Api::all(context.client.clone());
    if *change == FinalizerChange::Add {
        objects::finalizer(&api, anchor, finalizer::TRUST_ANCHOR, *change).await?;
    }
    for meta in relabel {
        labels(context, meta).await?;
    }
    if let Some(request) = create_authority {
        authority(context, request).await?;
        put_on_record(context, anchor, audit, |act| act == Act::Prepare);
    }
    for request in create_configuration_keys {
        configuration_key(context, request).await?;
    }
    if let Some(publication) = publication {
        let keys = keys::observe(context, &name, false).await?;
        publish(context, publication, &keys, manager::TRUST_ANCHOR, &context.caches.instances).await?;
        applied.published = true;
        put_on_record(context, anchor, audit, |act| !matches!(act, Act::Prepare | Act::Destroy));
        // Who stands in it, or waits to, looks again at once; the watch would say so a little later.
        context.wake(context.world.dependants(&name));
    }
    if let Some(request) = link_leaf {
        applied.link_leaf = Some(leaf(context, anchor, request).await?);
    }
    if let Some(deletion) = destroy_authority {
        objects::delete(context, deletion).await?;
        put_on_record(context, anchor, audit, |act| act == Act::Destroy);
        context.signer.forget(&name);
    }
    if *change == FinalizerChange::Remove {
        objects::finalizer(&api, anchor, finalizer::TRUST_ANCHOR, *change).await?;
        context.signer.forget(&name);
    }
    Ok(())
}

/// One line for each act that was carried out just now. Who asked for it stands in the API server's own audit log.
fn put_on_record(context: &Context, anchor: &TrustAnchor, audit: &[Record], of: impl Fn(Act) -> bool) {
    for record in audit.iter().filter(|record| of(record.act)) {
        tracing::info!(
            target: "saatkond::audit",
            actor = context.recorder.instance(),
            trust_anchor = anchor.name_any(),
            act = %record.act,
            subject = record.subject,
            request = record.request,
            signing_generation = record.signing_generation,
            trusted = record.trusted.join(" "),
            bundle_sequence = record.bundle_sequence,
            instance_version = record.instance_version,
            excluded = record.excluded.join(" "),
            "on record"
        );
    }
}

/// Puts the labels of a Secret back. A merge, not an apply: that would make a Secret without a key where it has gone meanwhile.
async fn labels(context: &Context, meta: &ObjectMeta) -> Result<(), Error> {
    let name = meta.name.clone().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let params = PatchParams { field_manager: Some(manager::TRUST_ANCHOR.to_owned()), ..PatchParams::default() };
    let patch = Patch::Merge(json!({"metadata": {"uid": meta.uid, "labels": meta.labels}}));
    wipe(api.patch(&name, &params, &patch).await.map_err(Error::api(format!("label Secret {name}")))?);
    Ok(())
}

/// Makes an authority. Of two who make one generation the API server lets one; the other looks again and takes that.
async fn authority(context: &Context, request: &AuthorityRequest) -> Result<(), Error> {
    let (wanted, keys, chance) = (request.clone(), context.keys.clone(), context.chance.clone());
    // An RSA key takes seconds to find: nothing else may wait for it.
    let made = tokio::task::spawn_blocking(move || signer::make_authority(&wanted, &*keys, &*chance)).await;
    let made = made.map_err(Error::sign("make an authority"))??;
    let secret = immutable(
        &request.meta,
        "kubernetes.io/tls",
        [(entry::CA_CERTIFICATE, Zeroizing::new(made.certificate().to_pem())), (entry::CA_KEY, made.key_pem())],
    );
    create(context, &request.meta, secret).await
}

async fn configuration_key(context: &Context, request: &ConfigurationKeyRequest) -> Result<(), Error> {
    let key = ConfigurationKey::generate().map_err(Error::sign("make a configuration key"))?;
    let secret =
        immutable(&request.meta, "saatkond.io/configuration-key", [(entry::CONFIGURATION_KEY, key.to_pkcs8_pem())]);
    create(context, &request.meta, secret).await
}

fn immutable<const N: usize>(meta: &ObjectMeta, kind: &str, entries: [(&str, Zeroizing<String>); N]) -> Secret {
    Secret {
        metadata: meta.clone(),
        type_: Some(kind.to_owned()),
        immutable: Some(true),
        data: Some(
            entries.into_iter().map(|(name, text)| (name.to_owned(), ByteString(text.as_bytes().to_vec()))).collect(),
        ),
        ..Secret::default()
    }
}

/// Plain create: never an overwrite. That it exists already is well, whoever made it: the next look reads what is there
/// and decides whether it is ours.
async fn create(context: &Context, meta: &ObjectMeta, secret: Secret) -> Result<(), Error> {
    let name = meta.name.clone().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let params = PostParams { field_manager: Some(manager::TRUST_ANCHOR.to_owned()), ..PostParams::default() };
    let answer = api.create(&params, &secret).await;
    wipe(secret);
    match answer {
        Ok(made) => {
            wipe(made);
            Ok(())
        }
        Err(kube::Error::Api(status)) if status.is_already_exists() => Ok(()),
        Err(error) => Err(Error::api(format!("create Secret {name}"))(error)),
    }
}

/// Overwrites what a Secret holds before its memory is given back.
pub(super) fn wipe(secret: Secret) {
    for ByteString(mut bytes) in secret.data.into_iter().flat_map(BTreeMap::into_values) {
        bytes.zeroize();
    }
}

async fn leaf(context: &Context, anchor: &TrustAnchor, request: &LinkLeafRequest) -> Result<LeafFacts, Error> {
    let LinkLeafRequest { meta, entry, manager, generation, leaf } = request;
    let authority = super::security_server::authority(context, anchor, *generation).await?;
    // The link's leaf has no issue number: no process states it in a receipt.
    let issued = signer::issue(&authority, *generation, 0, leaf, &*context.keys, &*context.chance)?;
    context.metrics.issued("link");
    let text = serde_json::to_vec(&issued.credential).map_err(Error::sign("write a credential"))?;
    let text = Zeroizing::new(text);
    let secret = Secret {
        metadata: meta.clone(),
        data: Some(BTreeMap::from([(entry.clone(), ByteString(text.to_vec()))])),
        ..Secret::default()
    };
    let name = meta.name.clone().unwrap_or_default();
    let api: Api<Secret> = Api::namespaced(context.client.clone(), meta.namespace.as_deref().unwrap_or_default());
    let params = PatchParams::apply(manager).force();
    let answer = api.patch(&name, &params, &Patch::Apply(&secret)).await;
    wipe(secret);
    wipe(answer.map_err(Error::api(format!("apply Secret {name}")))?);
    Ok(issued.facts)
}
