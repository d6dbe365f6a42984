//! Publishing documents: sign what the plan says, write it exactly over what was seen, keep what was written.

use std::collections::BTreeMap;
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::ResourceExt as _;
use kube::api::{Api, Patch, PatchParams, PostParams};
use saatkond_domain::publication::Publication;
use saatkond_wire::document::{self, Payload};

use crate::context::Context;
use crate::error::Error;
use crate::observe::documents::{ReadDocument, Remembered, kept};
use crate::signer::AnchorKeys;

/// Signs and writes. A second writer's document is never overwritten: the write carries the version that it replaces, or
/// must create the object.
pub async fn publish<P: Payload + Clone>(
    context: &Context,
    publication: &Publication<P>,
    keys: &AnchorKeys,
    manager: &str,
    cache: &impl Remembered<P>,
) -> Result<Arc<ReadDocument<P>>, Error> {
    let name = publication.meta.name.clone().unwrap_or_default();
    let namespace = publication.meta.namespace.clone().unwrap_or_default();
    let key = keys.document_signers.get(&publication.key_generation).ok_or_else(|| Error::Sign {
        doing: "sign a document",
        source: format!("configuration key {} is not at hand", publication.key_generation).into(),
    })?;
    let signed = document::sign(&publication.payload, key).map_err(Error::sign("sign a document"))?;
    let mut map = ConfigMap {
        metadata: publication.meta.clone(),
        binary_data: Some(BTreeMap::from([(publication.entry.to_owned(), ByteString(signed.packed.clone()))])),
        ..ConfigMap::default()
    };
    let api: Api<ConfigMap> = Api::namespaced(context.client.clone(), &namespace);
    let written = match &publication.replaces {
        None => {
            let params = PostParams { field_manager: Some(manager.to_owned()), ..PostParams::default() };
            api.create(&params, &map).await
        }
        Some(version) => {
            map.metadata.resource_version = Some(version.clone());
            api.patch(&name, &PatchParams::apply(manager).force(), &Patch::Apply(&map)).await
        }
    };
    let written = written.map_err(Error::api(format!("publish ConfigMap {name}")))?;
    let version = written.resource_version().unwrap_or_default();
    let document = Arc::new(kept(signed, publication.key_generation, version, written.uid().unwrap_or_default(), true));
    cache.keep(name, &document);
    Ok(document)
}
