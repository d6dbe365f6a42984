//! Reading Secrets with leaves: a server's identity, and the link's own.

use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::Api;
use saatkond_api::SecurityServer;
use saatkond_api::names::{LINK_IDENTITY_SECRET, MANAGED_BY, entry, label, role};
use saatkond_domain::children::ChildKind;
use saatkond_domain::meta::is_labelled;
use saatkond_domain::observed::{LeafFacts, Stored, is_ours};
use saatkond_domain::security_server::observed::{IdentityFacts, SigningFacts};
use saatkond_pki::certificate::CertificateFacts;
use saatkond_pki::key::KeyPair;
use saatkond_pki::pem;
use saatkond_wire::identity::{Credential, Identity};

use super::keys::text;
use crate::context::Context;
use crate::error::{Error, chain};
use crate::link::tls::entry_name;
use crate::signer::leaf_facts;

/// What stands in a server's identity Secret. Absence is read from the API server itself.
pub async fn observe(context: &Context, server: &SecurityServer) -> Result<Stored<IdentityFacts>, Error> {
    let namespace = server.namespace().unwrap_or_default();
    let name = saatkond_domain::names::identity(&server.name_any());
    let place = (namespace.clone(), server.name_any());
    if let Some(meta) = context.world.child(ChildKind::Secret, &namespace, &name)
        && let Some(known) = context.caches.identities.get(&place, &meta.version)
    {
        return Ok(known);
    }
    let Some(secret) = read(context, &namespace, &name).await? else { return Ok(Stored::Absent) };
    let version = secret.resource_version().unwrap_or_default();
    let stored = facts(secret, server);
    context.caches.identities.put(place, version, stored.clone());
    Ok(stored)
}

/// The identity itself, with its keys: to keep some of its leaves when others are issued.
pub async fn read_whole(context: &Context, server: &SecurityServer) -> Result<Option<(Identity, String)>, Error> {
    let namespace = server.namespace().unwrap_or_default();
    let name = saatkond_domain::names::identity(&server.name_any());
    let Some(mut secret) = read(context, &namespace, &name).await? else { return Ok(None) };
    let version = secret.resource_version().unwrap_or_default();
    let identity = text(&mut secret, entry::IDENTITY).and_then(|text| serde_json::from_str(&text).ok());
    Ok(identity.map(|identity| (identity, version)))
}

async fn read(context: &Context, namespace: &str, name: &str) -> Result<Option<Secret>, Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), namespace);
    api.get_opt(name).await.map_err(Error::api(format!("read Secret {namespace}/{name}")))
}

fn facts(mut secret: Secret, server: &SecurityServer) -> Stored<IdentityFacts> {
    let controller = secret.owner_references().iter().find(|owner| owner.controller == Some(true));
    let controller = controller.map(|owner| owner.uid.as_str());
    if !is_ours(controller, &server.uid().unwrap_or_default()) {
        return Stored::Foreign;
    }
    let resource_version = secret.resource_version().unwrap_or_default();
    let Some(text) = text(&mut secret, entry::IDENTITY) else {
        return Stored::Unusable { why: format!("{} is missing", entry::IDENTITY), resource_version };
    };
    // serde names only types and places in its errors for this type, but a place near a key is near enough to say less.
    let Ok(identity) = serde_json::from_str::<Identity>(&text) else {
        return Stored::Unusable { why: format!("{} is not an identity", entry::IDENTITY), resource_version };
    };
    let labelled = is_labelled(secret.labels(), server, role::IDENTITY);
    match identity_facts(&identity, resource_version.clone(), labelled) {
        Ok(facts) => Stored::Present(facts),
        Err(why) => Stored::Unusable { why, resource_version },
    }
}

/// What an identity says, once each certificate has been compared with its key.
pub fn identity_facts(identity: &Identity, resource_version: String, labelled: bool) -> Result<IdentityFacts, String> {
    let mut signing = Vec::new();
    for entry in &identity.signing {
        let leaf = credential_facts(&entry.credential)?;
        signing.push(SigningFacts { member: entry.member.clone(), leaf });
    }
    signing.sort_by(|a, b| a.member.cmp(&b.member));
    Ok(IdentityFacts {
        resource_version,
        labelled,
        issue_number: identity.issue_number,
        authentication: credential_facts(&identity.authentication)?,
        signing,
    })
}

fn credential_facts(credential: &Credential) -> Result<LeafFacts, String> {
    let der = pem::single(&credential.certificate, pem::CERTIFICATE).map_err(|error| chain(&error))?;
    let certificate = CertificateFacts::parse(&der).map_err(|error| chain(&error))?;
    let key = KeyPair::from_pkcs8_pem(credential.key.expose()).map_err(|error| chain(&error))?;
    if key.spki_sha256() != certificate.spki_sha256 {
        return Err(format!("the certificate {} stands beside another one's key", certificate.serial));
    }
    Ok(leaf_facts(&certificate, credential.generation, credential.issue_number, key.algorithm()))
}

/// The link's leaf for a trust anchor.
pub async fn link_leaf(context: &Context, anchor: &str) -> Result<Stored<LeafFacts>, Error> {
    let secret = read(context, &context.settings.namespace, LINK_IDENTITY_SECRET).await?;
    let Some(mut secret) = secret else { return Ok(Stored::Absent) };
    let says = |key: &str, value: &str| secret.labels().get(key).is_some_and(|found| found == value);
    let labelled = says(label::MANAGED_BY, MANAGED_BY) && says(label::ROLE, role::LINK_IDENTITY);
    let resource_version = secret.resource_version().unwrap_or_default();
    let text = text(&mut secret, &entry_name(anchor));
    let credential = text.as_deref().map(|text| serde_json::from_str::<Credential>(text));
    if !labelled {
        // Nobody owns it, so without its labels it is known by what only the operator writes. The leaf that is issued in place
        // of this one brings the labels back: without them no watch shows that somebody changes it.
        return Ok(match credential {
            Some(Ok(_)) => Stored::Unusable { why: "its labels are gone".to_owned(), resource_version },
            Some(Err(_)) | None => Stored::Foreign,
        });
    }
    let credential = match credential {
        None => return Ok(Stored::Absent),
        Some(Err(_)) => return Ok(Stored::Unusable { why: "it is not a credential".to_owned(), resource_version }),
        Some(Ok(credential)) => credential,
    };
    Ok(match credential_facts(&credential) {
        Ok(facts) => Stored::Present(facts),
        Err(why) => Stored::Unusable { why, resource_version },
    })
}
