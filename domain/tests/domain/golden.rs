//! What the builders render, compared with `tests/golden/*.yaml`. A difference is to be read like code; when it is
//! meant, `UPDATE_GOLDEN=1 cargo test -p saatkond-domain` writes it.

use std::fs;
use std::path::PathBuf;

use saatkond_api::v1alpha1::security_server::Resources;
use saatkond_domain::security_server::build::children;
use saatkond_domain::security_server::registration::place;
use saatkond_domain::{names, security_server, trust_anchor};
use serde_json::Value;

use crate::world::World;

fn compare(name: &str, documents: &[Value]) {
    let text: Vec<String> = documents.iter().map(|it| serde_saphyr::to_string(it).unwrap()).collect();
    let text = text.join("---\n");
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/golden").join(format!("{name}.yaml"));
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        fs::write(&path, &text).unwrap();
    }
    let golden = fs::read_to_string(&path).unwrap_or_default();
    assert!(golden == text, "{name}.yaml differs; now it renders\n{text}");
}

fn render(world: &World, index: usize) -> Vec<Value> {
    let seen = world.observe_server(index);
    let keys = &world.document().configuration_keys;
    let children = children(&seen, &place(&seen).unwrap(), &[keys.current.key, keys.next.key]);
    children.iter().map(saatkond_domain::children::Child::value).collect()
}

#[test]
fn objects_of_a_server() {
    compare("security-server", &render(&World::steady(), 0));
}

#[test]
fn objects_of_a_server_with_everything_set() {
    let mut world = World::steady();
    let spec = &mut world.servers[1].spec;
    spec.replicas = 3;
    spec.resources = Some(Resources {
        requests: [("cpu".to_owned(), k8s_openapi::apimachinery::pkg::api::resource::Quantity("1".into()))].into(),
        limits: [].into(),
    });
    spec.limits.spool_size = k8s_openapi::apimachinery::pkg::api::resource::Quantity("8Gi".into());
    let mut settings = (*world.settings).clone();
    settings.image_pull_secrets = vec!["pull".into()];
    world.settings = settings.into();
    compare("security-server-full", &render(&world, 1));
}

#[test]
fn the_instance_configuration() {
    let world = World::steady();
    let mut document = serde_json::to_value(world.document()).unwrap();
    // The authority is made anew in each run.
    document["bundle"][0]["certificate"] = "(PEM)".into();
    compare("instance-configuration", &[document]);
}

#[test]
fn the_server_configurations() {
    let world = World::steady();
    let documents = world.configurations.values().map(|it| serde_json::to_value(it.payload().unwrap()).unwrap());
    compare("server-configurations", &documents.collect::<Vec<_>>());
}

#[test]
fn metadata_of_secrets_and_documents() {
    let world = World::federation();
    let mut seen = world.observe_anchor(0);
    let plan = trust_anchor::plan(&seen, world.now);
    let mut documents = vec![serde_json::to_value(&plan.create_authority.unwrap().meta).unwrap()];
    documents.extend(plan.create_configuration_keys.iter().map(|it| serde_json::to_value(&it.meta).unwrap()));

    let world = World::steady();
    seen = world.observe_anchor(0);
    seen.published = saatkond_domain::observed::Published::Absent;
    documents.push(serde_json::to_value(trust_anchor::plan(&seen, world.now).publish.unwrap().meta).unwrap());
    seen = world.observe_anchor(0);
    seen.link_leaf = saatkond_domain::observed::Stored::Absent;
    let link = trust_anchor::plan(&seen, world.now).link_leaf.unwrap();
    assert_eq!((&*link.entry, &*link.manager), ("ee.json", "saatkond.io/link-identity-ee"));
    documents.push(serde_json::to_value(link.meta).unwrap());

    let mut seen = world.observe_server(1);
    seen.identity = saatkond_domain::observed::Stored::Absent;
    seen.configuration = saatkond_domain::observed::Published::Absent;
    seen.start_copy = None;
    let plan = security_server::plan(&seen, world.now);
    documents.push(serde_json::to_value(plan.identity.unwrap().meta).unwrap());
    documents.push(serde_json::to_value(plan.configuration.unwrap().meta).unwrap());
    documents.push(serde_json::to_value(plan.start_copy.instance).unwrap());
    documents.push(serde_json::to_value(plan.start_copy.server).unwrap());
    compare("metadata", &documents);
}

/// No pod restarts because a certificate or a document has changed.
#[test]
fn the_pod_template_changes_with_the_spec_alone() {
    let mut world = World::steady();
    let before = render(&world, 1);
    for _ in 0..30 {
        world.later(24 * 3600);
        world.settle();
    }
    world.members[2].spec.display_name = Some("Another name".into());
    world.members[1].spec.subsystems.pop();
    world.settle();
    assert_eq!(render(&world, 1), before);
    world.servers[1].spec.replicas = 5;
    assert_ne!(render(&world, 1), before);
}

#[test]
fn what_is_applied_hashes_to_its_annotation() {
    let world = World::steady();
    for child in render(&world, 0) {
        let mut bare = child.clone();
        let annotations = bare["metadata"]["annotations"].as_object_mut().unwrap();
        let hash = annotations.remove("saatkond.io/applied-hash").unwrap();
        if annotations.is_empty() {
            bare["metadata"].as_object_mut().unwrap().remove("annotations");
        }
        assert_eq!(hash, names::hash_hex(bare.to_string().as_bytes()), "{}", child["kind"]);
    }
}
