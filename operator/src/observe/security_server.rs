//! What is seen for one security server. The children come last: how they are compared depends on what is wanted.

use std::sync::Arc;

use kube::ResourceExt as _;
use saatkond_api::{SecurityServer, TrustAnchor};
use saatkond_domain::observed::{NamespaceAccess, ObservedNamespace, Stored};
use saatkond_domain::security_server::observed::{Issuer, ObservedSecurityServer};
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};

use super::documents::{ReadDocument, Unseen};
use super::{candidate, children, documents, identity, keys};
use crate::context::Context;
use crate::error::Error;
use crate::signer::AnchorKeys;
use crate::store::place;

/// What was seen, with the bytes of the documents for the copies.
pub struct Gathered {
    /// For the plan.
    pub seen: ObservedSecurityServer,
    /// The instance configuration as published.
    pub instance: Arc<ReadDocument<InstanceConfiguration>>,
    /// The server configuration as published.
    pub configuration: Arc<ReadDocument<ServerConfiguration>>,
    /// The keys of the anchor.
    pub keys: Arc<AnchorKeys>,
}

/// Gathers everything but the children and the Deployment's status: see [`super::children::observe`].
pub async fn gather(
    context: &Context,
    server: Arc<SecurityServer>,
    namespace: Arc<ObservedNamespace>,
) -> Result<Gathered, Error> {
    let world = &context.world;
    let here = server.namespace().unwrap_or_default();
    let owner = world.members.get(&here, &server.spec.member_ref.name);
    let anchor = owner.as_ref().and_then(|owner| world.anchors.get("", &owner.spec.trust_anchor_ref.name));
    // Without the rights in the namespace nothing of it can be read, and nothing is planned there.
    let granted = namespace.access == NamespaceAccess::Granted;
    let mut known = Arc::new(AnchorKeys::default());
    let mut instance = Arc::new(ReadDocument::absent());
    let mut issuer = None;
    if let Some(anchor) = &anchor {
        known = keys::observe(context, &anchor.name_any(), false).await?;
        instance = documents::instance(context, &anchor.name_any(), &known, Unseen::of(&*server)).await?;
        issuer = self::issuer(context, anchor).await?;
    }
    // One that goes takes its document along, also where its owner has gone before it. Without the anchor's keys it does not
    // verify, which is no matter to whoever deletes it.
    let goes = server.metadata.deletion_timestamp.is_some();
    let configuration = if anchor.is_some() || goes {
        let anchor = anchor.as_ref().map(|anchor| anchor.name_any());
        documents::server(context, &here, &server.name_any(), anchor.as_deref(), &known).await?
    } else {
        Arc::new(ReadDocument::absent())
    };
    let own = place(&*server);
    let claims = |class: &str, code: &str| {
        let owns = owner
            .as_ref()
            .is_some_and(|owner| owner.spec.member_class.as_str() == class && owner.spec.member_code.as_str() == code);
        owns || server
            .spec
            .guests
            .iter()
            .any(|guest| guest.member_class.as_str() == class && guest.member_code.as_str() == code)
    };
    let members = anchor.as_ref().map_or_else(Vec::new, |anchor| {
        world.members.filter(|member| {
            member.spec.trust_anchor_ref.name == anchor.name_any()
                && claims(member.spec.member_class.as_str(), member.spec.member_code.as_str())
        })
    });
    let seen = ObservedSecurityServer {
        settings: context.settings.clone(),
        neighbours: world.servers.filter(|other| place(other).0 == own.0 && place(other) != own),
        members: members.into_iter().map(|member| candidate(context, member)).collect(),
        instance: instance.published.clone(),
        issuer,
        configuration_key: anchor.as_ref().and_then(|anchor| document_key(anchor, &known)),
        identity: if granted { identity::observe(context, &server).await? } else { Stored::Absent },
        configuration: configuration.published.clone(),
        start_copy: if granted { children::start_copy(context, &server, &known).await? } else { None },
        children: Vec::new(),
        pods: world.pods.of(&own.0, &own.1),
        deployment: None,
        namespace,
        owner,
        anchor,
        server,
    };
    Ok(Gathered { seen, instance, configuration, keys: known })
}

/// The authority that issues now: the generation that the anchor's status names, if its key is at hand.
async fn issuer(context: &Context, anchor: &TrustAnchor) -> Result<Option<Issuer>, Error> {
    let Some(generation) = anchor.status.as_ref().and_then(|status| status.signing_generation) else {
        return Ok(None);
    };
    let authority = keys::signing_authority(context, anchor, generation).await?;
    Ok(authority.map(|authority| Issuer {
        generation,
        not_before: authority.certificate().not_before(),
        not_after: authority.certificate().not_after(),
        certificate: authority.certificate().sha256(),
    }))
}

/// The configuration key that signs now: the one that the published instance configuration was signed with, if it is at
/// hand. No gateway would trust another yet.
fn document_key(anchor: &TrustAnchor, keys: &AnchorKeys) -> Option<u64> {
    let generation = anchor.status.as_ref()?.configuration.as_ref()?.key_generation;
    keys.document_signers.contains_key(&generation).then_some(generation)
}
