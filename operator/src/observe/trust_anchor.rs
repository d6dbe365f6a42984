//! What is seen for one trust anchor.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use jiff::Timestamp;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use saatkond_api::names::{annotation, label, role};
use saatkond_api::v1alpha1::trust_anchor::SourceChoice;
use saatkond_api::{SecurityServer, TrustAnchor};
use saatkond_domain::children::ChildKind;
use saatkond_domain::names::{label_value, server_configuration};
use saatkond_domain::observed::ObservedPod;
use saatkond_domain::trust_anchor::observed::ObservedTrustAnchor;

use super::documents::Unseen;
use super::{candidate, children, documents, identity, keys, policy};
use crate::context::Context;
use crate::error::Error;
use crate::store::Place;
use crate::watches::WatchSettings;
use crate::world::named_servers;

type Pods = BTreeMap<Place, Vec<ObservedPod>>;

/// Where what a rotation waits for is read from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reading {
    /// The caches: enough to see that nothing is to be done.
    Cached,
    /// The API server itself: a transition is decided on nothing else.
    Live,
}

/// Gathers everything.
pub async fn gather(
    context: &Context,
    anchor: Arc<TrustAnchor>,
    reading: Reading,
) -> Result<ObservedTrustAnchor, Error> {
    let name = anchor.name_any();
    let known = keys::observe(context, &name, reading == Reading::Live).await?;
    // That there is no authority is what one is made on: never from memory.
    let managed = matches!(anchor.spec.source.choice(), Some(SourceChoice::Managed(_)));
    let known = if managed && known.signers.is_empty() { keys::observe(context, &name, true).await? } else { known };
    let published = documents::instance(context, &name, &known, Unseen::Ask).await?;
    let world = &context.world;
    let members = world.members.filter(|member| member.spec.trust_anchor_ref.name == name);
    let namespaces: BTreeSet<_> = members.iter().filter_map(|member| member.namespace()).collect();
    let named: BTreeSet<_> = members.iter().flat_map(|member| named_servers(member)).collect();
    let concerns = |server: &SecurityServer| {
        let place = crate::store::place(server);
        namespaces.contains(&place.0) || named.contains(&place)
    };
    let (servers, pods) = match reading {
        Reading::Cached => {
            let servers = world.servers.filter(concerns);
            let places = servers.iter().map(|server| crate::store::place(&**server));
            let pods = places.map(|place| (place.clone(), world.pods.of(&place.0, &place.1))).collect();
            (servers, pods)
        }
        Reading::Live => {
            // The receipts before the pods: a process that comes in between is seen, and has stated nothing.
            let servers: Vec<_> = live_servers(context).await?.into_iter().filter(|server| concerns(server)).collect();
            let pods = live_pods(context, &servers).await?;
            (servers, pods)
        }
    };
    Ok(ObservedTrustAnchor {
        settings: context.settings.clone(),
        others: world.anchors.filter(|other| other.name_any() != name),
        policy: policy::observe(context).await?,
        authorities: known.authorities.clone(),
        signing_key: keys::signing_key(context, &anchor).await?,
        configuration_keys: known.configuration_keys.clone(),
        unlabelled: known.unlabelled.clone(),
        published: published.published.clone(),
        link_leaf: identity::link_leaf(context, &name).await?,
        members: members.into_iter().map(|member| candidate(context, member)).collect(),
        server_documents_expire: server_documents_expire(context, &name, &servers),
        servers,
        pods,
        live: reading == Reading::Live,
        anchor,
    })
}

async fn live_servers(context: &Context) -> Result<Vec<Arc<SecurityServer>>, Error> {
    let api: Api<SecurityServer> = Api::all(context.client.clone());
    let (mut servers, mut params) = (Vec::new(), ListParams::default().limit(WatchSettings::default().page));
    loop {
        let page = api.list(&params).await.map_err(Error::api("list the SecurityServers"))?;
        servers.extend(page.items.into_iter().map(Arc::new));
        match page.metadata.continue_.filter(|next| !next.is_empty()) {
            Some(next) => params.continue_token = Some(next),
            None => return Ok(servers),
        }
    }
}

async fn live_pods(context: &Context, servers: &[Arc<SecurityServer>]) -> Result<Pods, Error> {
    let mut pods = Pods::new();
    let namespaces: BTreeSet<_> = servers.iter().filter_map(|server| server.namespace()).collect();
    for namespace in namespaces {
        let all = children::pods_in(context, &namespace).await?;
        for server in servers.iter().filter(|server| server.namespace().as_deref() == Some(&*namespace)) {
            let name = server.name_any();
            let own = all.iter().filter(|(of, _)| *of == name).map(|(_, pod)| pod.clone());
            // What the list no longer shows: that a process has ended stays true, and one that has vanished may stand nowhere else.
            let gone = context.world.pods.gone(&namespace, &name);
            pods.insert(crate::store::place(&**server), own.chain(gone).collect());
        }
    }
    Ok(pods)
}

/// When the published configuration of each of these servers under the anchor ends, from its annotation.
fn server_documents_expire(
    context: &Context,
    anchor: &str,
    servers: &[Arc<SecurityServer>],
) -> BTreeMap<Place, Timestamp> {
    let anchor = label_value(anchor);
    let ends = servers.iter().filter_map(|server| {
        let at = crate::store::place(&**server);
        let map = server_configuration(&at.0, &at.1);
        let meta = context.world.child(ChildKind::ConfigMap, &context.settings.namespace, &map)?;
        let ours = meta.label(label::TRUST_ANCHOR) == Some(&*anchor)
            && meta.label(label::ROLE) == Some(role::SERVER_CONFIGURATION);
        Some((at, meta.annotation(annotation::EXPIRES_AT).filter(|_| ours)?.parse().ok()?))
    });
    ends.collect()
}
