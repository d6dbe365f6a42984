//! Reading the Secrets of a trust anchor: its authorities and its configuration keys.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use kube::ResourceExt as _;
use kube::api::{Api, ListParams};
use saatkond_api::TrustAnchor;
use saatkond_api::names::{self, MANAGED_BY, entry, label, role};
use saatkond_api::v1alpha1::trust_anchor::SourceChoice;
use saatkond_domain::children::ChildKind;
use saatkond_domain::names::label_value;
use saatkond_domain::observed::{Stored, is_ours};
use saatkond_domain::trust_anchor::observed::{
    ObservedAuthority, ObservedConfigurationKey, ObservedSigningKey, UnlabelledKey,
};
use saatkond_pki::authority::Authority;
use saatkond_pki::configuration_key::ConfigurationKey;
use saatkond_pki::key::KeyPair;
use zeroize::Zeroizing;

use crate::context::Context;
use crate::error::{Error, chain};
use crate::signer::AnchorKeys;

/// The keys of a trust anchor. Read anew unless the watch shows exactly the Secrets that they were read from, and both
/// configuration keys are among them: that something is absent is never taken from memory, since keys are made on it.
pub async fn observe(context: &Context, anchor: &str, fresh: bool) -> Result<Arc<AnchorKeys>, Error> {
    if let Some(keys) = context.signer.get(anchor).filter(|_| !fresh) {
        let shown = shown(context, anchor);
        if keys.read_from == shown && keys.document_signers.len() >= 2 && keys.owner == owner(context, anchor) {
            return Ok(keys);
        }
    }
    read(context, anchor).await
}

/// The UID of the TrustAnchor of this name.
pub fn owner(context: &Context, anchor: &str) -> Option<String> {
    context.world.anchors.get("", anchor).and_then(|anchor| anchor.uid())
}

/// The Secrets of an anchor as the watch shows them: name and version.
fn shown(context: &Context, anchor: &str) -> BTreeMap<String, String> {
    let secrets = context.world.children_in(ChildKind::Secret, &context.settings.namespace);
    let anchor = label_value(anchor);
    let ours = secrets.iter().filter(|meta| {
        meta.label(label::TRUST_ANCHOR) == Some(&*anchor)
            && matches!(meta.label(label::ROLE), Some(role::AUTHORITY | role::CONFIGURATION_KEY))
    });
    ours.map(|meta| (meta.name.to_string(), meta.version.to_string())).collect()
}

async fn read(context: &Context, anchor: &str) -> Result<Arc<AnchorKeys>, Error> {
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let selector = format!(
        "{}={},{} in ({},{})",
        label::TRUST_ANCHOR,
        label_value(anchor),
        label::ROLE,
        role::AUTHORITY,
        role::CONFIGURATION_KEY
    );
    let listed = api.list(&ListParams::default().labels(&selector)).await;
    let mut secrets = listed.map_err(Error::api(format!("list the keys of {anchor}")))?.items;
    for (name_of, mut generations) in expected(context, anchor) {
        while let Some(generation) = generations.pop_first() {
            let name = name_of(anchor, generation);
            let is_listed = secrets.iter().any(|secret| secret.name_any() == name);
            if !is_listed {
                let secret = api.get_opt(&name).await.map_err(Error::api(format!("read Secret {name}")))?;
                let Some(secret) = secret else { continue };
                secrets.push(secret);
            }
            // After each that is there comes one that might be made, under a name that may be taken.
            if generation < MOST {
                generations.insert(generation + 1);
            }
        }
    }
    let owner = owner(context, anchor);
    let mut keys = AnchorKeys { owner: owner.clone(), ..AnchorKeys::default() };
    for secret in secrets {
        take(&mut keys, anchor, owner.as_deref(), secret);
    }
    keys.authorities.sort_by_key(|authority| authority.generation);
    keys.configuration_keys.sort_by_key(|key| key.generation);
    Ok(context.signer.put(anchor, keys))
}

/// The name of the Secret of an anchor's generation.
type NameOf = fn(&str, u64) -> String;

/// The highest generation that is looked for beside those that are listed: names that others have taken must not keep this at work.
const MOST: u64 = 10_000;

/// The generations of keys that might be made, and of those that the status tells of: such a Secret must be seen also where it has
/// lost its labels, or is somebody else's.
fn expected(context: &Context, anchor: &str) -> [(NameOf, BTreeSet<u64>); 2] {
    let status = context.world.anchors.get("", anchor).and_then(|anchor| anchor.status.clone()).unwrap_or_default();
    let highest = status.rotation.iter().map(|rotation| rotation.highest_generation + 1);
    let authorities = status.authorities.iter().map(|authority| authority.generation).chain(highest).chain([1]);
    let keys = status.configuration.iter().flat_map(|it| [it.key_generation, it.next_key_generation]).chain([1, 2]);
    [(names::ca_secret, authorities.collect()), (names::configuration_key_secret, keys.collect())]
}

/// Sorts one Secret in, by its name: labels can be edited, and under which name a key stands is what decides.
fn take(keys: &mut AnchorKeys, anchor: &str, owner: Option<&str>, secret: Secret) {
    let name = secret.name_any();
    let generation_after = |prefix: String| name.strip_prefix(&prefix).and_then(|text| text.parse::<u64>().ok());
    let version = secret.resource_version().unwrap_or_default();
    let uid = secret.uid().unwrap_or_default();
    let controller = secret.owner_references().iter().find(|of| of.controller == Some(true)).map(|of| of.uid.as_str());
    let left_over = is_left_over(controller, owner);
    let by_owner = owner.is_some_and(|owner| is_ours(controller, owner));
    let mut of_ours = |part: &'static str, generation: u64| {
        let labelled = is_labelled(&secret, anchor, part);
        if by_owner && !labelled {
            let (name, uid) = (name.clone(), uid.clone());
            keys.unlabelled.push(UnlabelledKey { role: part, generation, name, uid });
        }
        (labelled || by_owner) && !left_over
    };
    if let Some(generation) = generation_after(format!("{anchor}-ca-")) {
        let ours = of_ours(role::AUTHORITY, generation);
        let secret = if ours { authority(secret) } else { Stored::Foreign };
        let secret = match secret {
            Stored::Present(authority) => {
                let certificate = authority.certificate().clone();
                keys.signers.insert(generation, Arc::new(authority));
                Stored::Present(certificate)
            }
            Stored::Absent => Stored::Absent,
            Stored::Foreign => Stored::Foreign,
            Stored::Unusable { why, resource_version } => Stored::Unusable { why, resource_version },
        };
        if ours {
            keys.read_from.insert(name.clone(), version);
        }
        keys.authorities.push(ObservedAuthority { generation, uid, secret });
    } else if let Some(generation) = generation_after(format!("{anchor}-configuration-")) {
        let ours = of_ours(role::CONFIGURATION_KEY, generation);
        let secret = match if ours { configuration_key(secret) } else { Stored::Foreign } {
            Stored::Present(key) => {
                let public = key.public();
                keys.document_signers.insert(generation, Arc::new(key));
                Stored::Present(public)
            }
            Stored::Absent => Stored::Absent,
            Stored::Foreign => Stored::Foreign,
            Stored::Unusable { why, resource_version } => Stored::Unusable { why, resource_version },
        };
        if ours {
            keys.read_from.insert(name.clone(), version);
        }
        keys.configuration_keys.push(ObservedConfigurationKey { generation, secret });
    }
}

/// Whether a Secret carries our labels for this part.
fn is_labelled(secret: &Secret, anchor: &str, part: &str) -> bool {
    let says = |key: &str| secret.labels().get(key).map(String::as_str);
    says(label::MANAGED_BY) == Some(MANAGED_BY)
        && says(label::ROLE) == Some(part)
        && says(label::TRUST_ANCHOR) == Some(&*label_value(anchor))
}

/// Whether an object, by the UID of its controller, was another TrustAnchor's of the same name, which is gone: the garbage collector
/// takes it away in a moment, and whoever had taken it up would be left without. One that nobody owns was put back by hand.
pub fn is_left_over(controller: Option<&str>, owner: Option<&str>) -> bool {
    owner.is_some_and(|owner| controller.is_some() && !is_ours(controller, owner))
}

fn authority(mut secret: Secret) -> Stored<Authority> {
    let resource_version = secret.resource_version().unwrap_or_default();
    let (Some(certificate), Some(key)) = (text(&mut secret, entry::CA_CERTIFICATE), text(&mut secret, entry::CA_KEY))
    else {
        let why = format!("{} or {} is missing", entry::CA_CERTIFICATE, entry::CA_KEY);
        return Stored::Unusable { why, resource_version };
    };
    match Authority::load(&certificate, &key) {
        Ok(authority) => Stored::Present(authority),
        Err(error) => Stored::Unusable { why: chain(&error), resource_version },
    }
}

fn configuration_key(mut secret: Secret) -> Stored<ConfigurationKey> {
    let resource_version = secret.resource_version().unwrap_or_default();
    let Some(key) = text(&mut secret, entry::CONFIGURATION_KEY) else {
        return Stored::Unusable { why: format!("{} is missing", entry::CONFIGURATION_KEY), resource_version };
    };
    match ConfigurationKey::from_pkcs8_pem(&key) {
        Ok(key) => Stored::Present(key),
        Err(error) => Stored::Unusable { why: chain(&error), resource_version },
    }
}

/// Takes an entry out of a Secret, as text that is wiped when dropped.
pub fn text(secret: &mut Secret, name: &str) -> Option<Zeroizing<String>> {
    let ByteString(bytes) = secret.data.as_mut()?.remove(name)?;
    let bytes = Zeroizing::new(bytes);
    std::str::from_utf8(&bytes).ok().map(|text| Zeroizing::new(text.to_owned()))
}

/// An external source: the key that it names.
pub async fn signing_key(context: &Context, anchor: &TrustAnchor) -> Result<ObservedSigningKey, Error> {
    let Some(SourceChoice::External(external)) = anchor.spec.source.choice() else {
        return Ok(ObservedSigningKey::NotNamed);
    };
    if external.signing_key_secret_ref.is_none() {
        return Ok(ObservedSigningKey::NotNamed);
    }
    Ok(match external_key(context, anchor).await? {
        None => ObservedSigningKey::Absent,
        Some(Ok(key)) => ObservedSigningKey::Present { spki_sha256: key.spki_sha256().to_string() },
        Some(Err(why)) => ObservedSigningKey::Unusable { why },
    })
}

/// Reads the private key of an external source. The inner error says why it cannot be used.
async fn external_key(context: &Context, anchor: &TrustAnchor) -> Result<Option<Result<KeyPair, String>>, Error> {
    let Some(SourceChoice::External(external)) = anchor.spec.source.choice() else { return Ok(None) };
    let Some(name) = external.signing_key_secret_ref.as_ref().map(|named| &named.name) else { return Ok(None) };
    let api: Api<Secret> = Api::namespaced(context.client.clone(), &context.settings.namespace);
    let secret = api.get_opt(name).await.map_err(Error::api(format!("read Secret {name}")))?;
    let Some(key) = secret.and_then(|mut secret| text(&mut secret, entry::CA_KEY)) else { return Ok(None) };
    Ok(Some(KeyPair::from_pkcs8_pem(&key).map_err(|error| chain(&error))))
}

/// The authority of this generation, with its key, if it is at hand.
pub async fn signing_authority(
    context: &Context,
    anchor: &TrustAnchor,
    generation: u64,
) -> Result<Option<Arc<Authority>>, Error> {
    let Some(SourceChoice::External(external)) = anchor.spec.source.choice() else {
        let keys = observe(context, &anchor.name_any(), false).await?;
        return Ok(keys.signers.get(&generation).cloned());
    };
    // Which certificate has this generation stands in the status, by its serial number.
    let serial = anchor.status.as_ref().and_then(|status| {
        status.authorities.iter().find(|authority| authority.generation == generation).map(|found| found.serial.clone())
    });
    let Some(Ok(key)) = external_key(context, anchor).await? else { return Ok(None) };
    let pem = key.to_pkcs8_pem();
    let mut matching = external.certificates.iter().filter_map(|text| Authority::load(text.trim(), &pem).ok());
    Ok(matching
        .find(|authority| serial.as_ref().is_none_or(|serial| authority.certificate().facts().serial == *serial))
        .map(Arc::new))
}
