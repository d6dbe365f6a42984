//! What is seen for one trust anchor.

use std::collections::BTreeSet;
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use saatkond_api::TrustAnchor;
use saatkond_api::names::{annotation, label, role};
use saatkond_api::v1alpha1::trust_anchor::SourceChoice;
use saatkond_domain::children::ChildKind;
use saatkond_domain::names::label_value;
use saatkond_domain::trust_anchor::observed::ObservedTrustAnchor;

use super::documents::Unseen;
use super::{candidate, documents, identity, keys, policy};
use crate::context::Context;
use crate::error::Error;
use crate::world::named_servers;

/// Gathers everything.
pub async fn gather(context: &Context, anchor: Arc<TrustAnchor>) -> Result<ObservedTrustAnchor, Error> {
    let name = anchor.name_any();
    let known = keys::observe(context, &name, false).await?;
    // That there is no authority is what one is made on: never from memory.
    let managed = matches!(anchor.spec.source.choice(), Some(SourceChoice::Managed(_)));
    let known = if managed && known.signers.is_empty() { keys::observe(context, &name, true).await? } else { known };
    let published = documents::instance(context, &name, &known, Unseen::Ask).await?;
    let world = &context.world;
    let members = world.members.filter(|member| member.spec.trust_anchor_ref.name == name);
    let namespaces: BTreeSet<_> = members.iter().filter_map(|member| member.namespace()).collect();
    let named: BTreeSet<_> = members.iter().flat_map(|member| named_servers(member)).collect();
    let servers = world.servers.filter(|server| {
        let place = crate::store::place(server);
        namespaces.contains(&place.0) || named.contains(&place)
    });
    Ok(ObservedTrustAnchor {
        settings: context.settings.clone(),
        others: world.anchors.filter(|other| other.name_any() != name),
        policy: policy::observe(context).await?,
        authorities: known.authorities.clone(),
        signing_key: keys::signing_key(context, &anchor).await?,
        configuration_keys: known.configuration_keys.clone(),
        published: published.published.clone(),
        link_leaf: identity::link_leaf(context, &name).await?,
        members: members.into_iter().map(|member| candidate(context, member)).collect(),
        server_documents_expire: server_documents_expire(context, &name),
        servers,
        anchor,
    })
}

/// When the first of the anchor's published server configurations ends, from their annotations.
fn server_documents_expire(context: &Context, anchor: &str) -> Option<Timestamp> {
    let maps = context.world.children_in(ChildKind::ConfigMap, &context.settings.namespace);
    let anchor = label_value(anchor);
    let ends = maps.iter().filter_map(|meta| {
        let ours = meta.label(label::TRUST_ANCHOR) == Some(&*anchor)
            && meta.label(label::ROLE) == Some(role::SERVER_CONFIGURATION);
        meta.annotation(annotation::EXPIRES_AT).filter(|_| ours)?.parse().ok()
    });
    ends.min()
}
