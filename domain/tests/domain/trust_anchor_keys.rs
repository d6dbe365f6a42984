//! Decisions about a trust anchor's authorities, configuration keys and the link's leaf.

use std::sync::Arc;

use jiff::SignedDuration;
use kube::ResourceExt;
use saatkond_api::conditions::ConditionType;
use saatkond_api::refs::OperatorSecretRef;
use saatkond_api::v1alpha1::trust_anchor::{AuthorityState, ExternalSource, TrustAnchorStatus, TrustSource};
use saatkond_domain::observed::{ObservedPod, Published, Stored};
use saatkond_domain::trust_anchor::build::bundle_hash;
use saatkond_domain::trust_anchor::observed::{
    ObservedAuthority, ObservedConfigurationKey, ObservedSigningKey, ObservedTrustAnchor, UnlabelledKey,
};
use saatkond_domain::trust_anchor::plan;
use saatkond_pki::authority::AuthorityCertificate;

use crate::fixtures::{START, at};
use crate::trust_anchor::{edit, outcome, reason};
use crate::world::{World, authority, key};

type Trace = fn(&mut ObservedTrustAnchor, &ObservedTrustAnchor);

#[test]
fn an_authority_is_made_only_where_no_trace_of_one_is_left() {
    let steady = World::steady();
    let fresh = World::federation().observe_anchor(0);
    let made = plan(&fresh, at(START));
    let request = made.create_authority.expect("no trace: made");
    assert_eq!((request.generation, &*request.instance), (1, "EE"));
    assert_eq!(request.not_before, at(START - 300), "backdated five minutes");
    assert_eq!(request.lifetime, SignedDuration::from_hours(8760));
    assert!(made.publish.is_none(), "what is published depends on what is made");
    assert_eq!(made.next_check, at(START), "looked at again at once");

    let whole = steady.observe_anchor(0);
    let traces: [(&str, Trace); 4] = [
        ("a published document", |seen, whole| seen.published = whole.published.clone()),
        ("a document that someone has edited", |seen, _| {
            seen.published =
                Published::Invalid { resource_version: "1".into(), uid: "u".into(), why: "not gzip".into() };
        }),
        ("the status", |seen, whole| {
            let status =
                TrustAnchorStatus { bundle: whole.anchor.status.clone().unwrap().bundle, ..Default::default() };
            Arc::make_mut(&mut seen.anchor).status = Some(status);
        }),
        ("a damaged Secret", |seen, _| {
            let secret = Stored::Unusable { why: "no key".into(), resource_version: "1".into() };
            seen.authorities = vec![ObservedAuthority { generation: 1, uid: "ca-1".into(), secret }];
        }),
    ];
    for (name, leave) in traces {
        let mut seen = fresh.clone();
        leave(&mut seen, &whole);
        assert!(plan(&seen, at(START)).create_authority.is_none(), "{name}");
        let (holds, reason, message) = reason(&outcome(&seen, at(START)), ConditionType::AuthorityAvailable);
        assert_eq!((&*holds, &*reason), ("False", "AuthorityLost"), "{name}: {message}");
        assert!(message.contains("ee-ca-1"), "{name}: {message}");
    }
}

#[test]
fn a_lost_authority_stops_issuing_and_nothing_else() {
    let mut world = World::steady();
    world.authorities.clear();
    world.members[0].spec.display_name = Some("Renamed".into());
    let seen = world.observe_anchor(0);
    let document = plan(&seen, world.now).publish.expect("documents are published").payload;
    assert_eq!(document.bundle, world.document().bundle, "what is trusted stays trusted");
    assert_eq!(document.bundle_sequence, world.document().bundle_sequence);
    assert_eq!(reason(&outcome(&seen, world.now), ConditionType::Ready).1, "AuthorityLost");
}

#[test]
fn another_authority_under_the_same_generation_is_refused() {
    let mut world = World::steady();
    let other = authority(1, 9000);
    world.authorities.insert(1, other);
    let seen = world.observe_anchor(0);
    assert!(plan(&seen, world.now).publish.is_none());
    assert_eq!(reason(&outcome(&seen, world.now), ConditionType::AuthorityAvailable).1, "AuthorityLost");
}

#[test]
fn a_key_that_has_lost_its_labels_counts_and_gets_them_back() {
    let mut seen = World::steady().observe_anchor(0);
    assert!(plan(&seen, at(START)).relabel.is_empty());
    seen.unlabelled =
        vec![UnlabelledKey { role: "authority", generation: 1, name: "ee-ca-1".into(), uid: "ca-1".into() }];
    let planned = plan(&seen, at(START));
    assert_eq!((planned.relabel.len(), planned.foreign.len()), (1, 0));
    let meta = &planned.relabel[0];
    assert_eq!((meta.name.as_deref(), meta.uid.as_deref()), (Some("ee-ca-1"), Some("ca-1")));
    let labels = meta.labels.as_ref().unwrap();
    assert_eq!((&*labels["saatkond.io/role"], &*labels["saatkond.io/trust-anchor"]), ("authority", "ee"));
    assert_eq!(reason(&outcome(&seen, at(START)), ConditionType::Ready).1, "AsDeclared");
}

#[test]
fn configuration_keys_that_are_there_and_not_known_are_named_with_what_they_lack() {
    let foreign = |generation| ObservedConfigurationKey { generation, secret: Stored::Foreign };
    let mut seen = World::steady().observe_anchor(0);
    seen.configuration_keys = vec![foreign(1), foreign(2)];
    let (_, why, message) = reason(&outcome(&seen, at(START)), ConditionType::ConfigurationPublished);
    assert_eq!(why, "ConfigurationKeyLost");
    assert!(message.contains("ee-configuration-1") && message.contains("role=configuration-key"), "{message}");
    assert!(!message.contains("then delete"), "{message}");
    let mut seen = World::federation().observe_anchor(0);
    seen.configuration_keys = vec![foreign(2)];
    let (_, why, message) = reason(&outcome(&seen, at(START)), ConditionType::ConfigurationPublished);
    assert_eq!(why, "ForeignObject");
    assert!(message.contains("ee-configuration-2") && message.contains("keep a copy"), "{message}");
}

#[test]
fn nobody_is_told_to_delete_what_may_be_the_only_copy_of_a_key() {
    for (name, mut seen, deletes) in [
        ("nothing published", World::federation().observe_anchor(0), true),
        ("published", World::steady().observe_anchor(0), false),
    ] {
        seen.authorities = vec![ObservedAuthority { generation: 1, uid: "ca-1".into(), secret: Stored::Foreign }];
        let (_, why, message) = reason(&outcome(&seen, at(START)), ConditionType::AuthorityAvailable);
        assert_eq!(why, "ForeignObject", "{name}");
        assert_eq!(message.contains("then delete it"), deletes, "{name}: {message}");
        assert_eq!(message.contains("saatkond.io/role=authority"), !deletes, "{name}: {message}");
    }
}

#[test]
fn configuration_keys() {
    let world = World::steady();
    let seen = |keep: &[u64]| {
        let mut seen = world.observe_anchor(0);
        seen.configuration_keys.retain(|key| keep.contains(&key.generation));
        seen
    };
    // Only the first was made when the process died.
    let mut half = World::federation().observe_anchor(0);
    half.configuration_keys = seen(&[1]).configuration_keys;
    let made = plan(&half, at(START)).create_configuration_keys;
    assert_eq!(made.iter().map(|key| key.generation).collect::<Vec<_>>(), [2]);

    let lost_next = plan(&seen(&[1]), world.now);
    assert_eq!(lost_next.create_configuration_keys[0].generation, 3, "no generation number is used for two keys");

    // The announced one takes over; a new one is announced.
    let lost_current = plan(&seen(&[2]), world.now);
    assert_eq!(lost_current.create_configuration_keys[0].generation, 3);
    let mut later = world.observe_anchor(0);
    later.configuration_keys[0].generation = 3;
    later.configuration_keys.sort_by_key(|key| key.generation);
    let publication = plan(&later, world.now).publish.expect("signed by the key that took over");
    assert_eq!(publication.key_generation, 2);
    let keys = publication.payload.configuration_keys;
    assert_eq!((keys.current.generation, keys.next.generation), (2, 3));

    let none = seen(&[]);
    assert!(plan(&none, world.now).publish.is_none() && plan(&none, world.now).create_configuration_keys.is_empty());
    let (_, why, message) = reason(&outcome(&none, world.now), ConditionType::Ready);
    assert_eq!(why, "ConfigurationKeyLost");
    assert!(message.contains("ee-configuration-1") && message.contains("ee-configuration-2"), "{message}");
}

fn external(certificates: &[String], key: bool) -> TrustSource {
    let signing_key_secret_ref = key.then(|| OperatorSecretRef { name: "signer".into() });
    let external = ExternalSource { certificates: certificates.to_vec(), signing_key_secret_ref };
    TrustSource { managed: None, external: Some(external) }
}

#[test]
fn an_external_source() {
    let (one, two) = (authority(1, 8760), authority(2, 8760));
    let key = |of: &saatkond_pki::authority::AuthorityCertificate| ObservedSigningKey::Present {
        spki_sha256: of.facts().spki_sha256.to_string(),
    };
    for (name, certificates, named, signing_key, available, ready) in [
        ("with its key", vec![one.to_pem()], true, key(&one), "AsDeclared", "AsDeclared"),
        ("without a key", vec![one.to_pem()], false, ObservedSigningKey::NotNamed, "SigningKeyMissing", "AsDeclared"),
        (
            "key Secret missing",
            vec![one.to_pem()],
            true,
            ObservedSigningKey::Absent,
            "SigningKeyMissing",
            "SigningKeyMissing",
        ),
        ("another key", vec![one.to_pem()], true, key(&two), "SigningKeyMismatch", "SigningKeyMismatch"),
        ("not a certificate", vec!["rubbish".into()], true, key(&one), "CertificateInvalid", "CertificateInvalid"),
        ("one of two", vec![one.to_pem(), two.to_pem()], true, key(&two), "AsDeclared", "AsDeclared"),
    ] {
        let mut world = World::federation();
        world.anchors[0].spec.source = external(&certificates, named);
        let keys = World::steady().observe_anchor(0).configuration_keys;
        let mut seen = world.observe_anchor(0);
        seen.configuration_keys = keys;
        seen.signing_key = signing_key;
        let status = outcome(&seen, world.now);
        assert_eq!(reason(&status, ConditionType::AuthorityAvailable).1, available, "{name}");
        let published = plan(&seen, world.now).publish;
        assert_eq!(published.is_some(), name != "not a certificate", "{name}: everything else works");
        if published.is_some() {
            assert_eq!(reason(&status, ConditionType::Ready).1, ready, "{name}");
        }
        assert!(plan(&seen, world.now).create_authority.is_none(), "{name}");
        if name == "with its key" {
            // The status was written and the document not, or it was lost: under another number every leaf would be issued anew.
            Arc::make_mut(&mut seen.anchor).status = Some(status);
            let again = plan(&seen, world.now).publish.expect("still to be published").payload;
            assert_eq!(again.bundle.iter().map(|entry| entry.generation).collect::<Vec<_>>(), [1]);
        }
    }
}

#[test]
fn another_external_authority_signs_only_when_every_process_trusts_it() {
    let (one, two) = (authority(1, 8760), authority(2, 8760));
    let mut world = World::steady();
    assert_eq!(world.authorities[&1], one, "the steady world's authority, now given from outside");
    world.anchors[0].spec.source = external(&[one.to_pem(), two.to_pem()], true);
    let observe = |world: &World| {
        let mut seen = world.observe_anchor(0);
        seen.signing_key = ObservedSigningKey::Present { spki_sha256: two.facts().spki_sha256.to_string() };
        seen
    };
    let announced = plan(&observe(&world), world.now).publish.expect("announced").payload;
    assert_eq!((announced.bundle.len(), announced.signing_generation, announced.bundle_sequence), (2, 1, 2));
    let mut paused = world.clone();
    paused.anchors[0].annotations_mut().insert("saatkond.io/paused".into(), "true".into());
    assert!(plan(&observe(&paused), world.now).publish.is_none(), "a paused anchor announces nobody");

    edit(&mut world.instance, |document| *document = announced.clone());
    let waiting = observe(&world);
    assert!(plan(&waiting, world.now).publish.is_none(), "no process has loaded it yet");
    assert_eq!(reason(&outcome(&waiting, world.now), ConditionType::AuthorityAvailable).1, "Waiting");

    let hash = bundle_hash(&announced);
    let sequence = |world: &mut World, index: usize, process: usize, to: u64| {
        let receipt = &mut world.servers[index].status.as_mut().unwrap().processes[process];
        (receipt.bundle_sequence, receipt.bundle_hash) = (to, hash.clone());
    };
    for (index, process) in [(0, 0), (0, 1), (1, 0)] {
        sequence(&mut world, index, process, 2);
        assert!(plan(&observe(&world), world.now).publish.is_none(), "not every process has loaded it");
    }
    sequence(&mut world, 1, 1, 2);
    let switched = plan(&observe(&world), world.now).publish.expect("switched").payload;
    assert_eq!((switched.signing_generation, switched.bundle_sequence), (2, 3));
    // As many receipts as replicas, but one of them is of a pod that is ending, and the new one has stated nothing.
    let mut surging = observe(&world);
    let place = key(&world.servers[1]);
    let pods = surging.pods.get_mut(&place).unwrap();
    pods.push(ObservedPod { uid: "new".into(), ..pods[0].clone() });
    assert!(plan(&surging, world.now).publish.is_none(), "a new pod has stated nothing");
    // What caches show may be behind: such a transition is decided again.
    let mut cached = observe(&world);
    assert!(!plan(&cached, world.now).decide_again);
    cached.live = false;
    assert!(plan(&cached, world.now).decide_again);
    // A pod without a receipt counts as one that has not.
    world.servers[1].status.as_mut().unwrap().processes.pop();
    assert!(plan(&observe(&world), world.now).publish.is_none());
}

#[test]
fn an_external_certificate_keeps_its_number_and_no_other_gets_it() {
    let (one, two, three) = (authority(1, 8760), authority(2, 8760), authority(3, 8760));
    let mut world = World::steady();
    let mut numbers = |listed: &[&AuthorityCertificate]| {
        let listed: Vec<_> = listed.iter().map(|certificate| certificate.to_pem()).collect();
        world.anchors[0].spec.source = external(&listed, true);
        let mut seen = world.observe_anchor(0);
        seen.signing_key = ObservedSigningKey::Present { spki_sha256: one.facts().spki_sha256.to_string() };
        world.anchors[0].status = Some(outcome(&seen, world.now));
        let published = plan(&seen, world.now).publish.expect("another list").payload;
        edit(&mut world.instance, |document| *document = published.clone());
        published.bundle.iter().map(|entry| entry.generation).collect::<Vec<_>>()
    };
    assert_eq!(numbers(&[&one, &two]), [1, 2]);
    assert_eq!(numbers(&[&one]), [1]);
    assert_eq!(numbers(&[&one, &three]), [1, 3], "two is taken");
    assert_eq!(numbers(&[&one, &three, &two]), [1, 2, 3]);
}

#[test]
fn an_external_certificate_that_cannot_be_read_takes_none_that_is_published_away() {
    let (one, two, three) = (authority(1, 8760), authority(2, 8760), authority(3, 8760));
    let mut world = World::steady();
    let truncated = |certificate: &saatkond_pki::authority::AuthorityCertificate| {
        let pem = certificate.to_pem();
        pem[..pem.len() / 2].to_owned()
    };
    let observe = |world: &World, certificates: &[String], key: &saatkond_pki::authority::AuthorityCertificate| {
        let mut world = world.clone();
        world.anchors[0].spec.source = external(certificates, true);
        let mut seen = world.observe_anchor(0);
        seen.signing_key = ObservedSigningKey::Present { spki_sha256: key.facts().spki_sha256.to_string() };
        seen
    };
    let available = |seen: &ObservedTrustAnchor| reason(&outcome(seen, world.now), ConditionType::AuthorityAvailable);
    // With the first one lost the second one alone would be announced, and every peer under the first one be refused.
    let damaged = observe(&world, &[truncated(&one), two.to_pem()], &one);
    assert!(plan(&damaged, world.now).publish.is_none(), "the published bundle stays");
    let (status, why, message) = available(&damaged);
    assert_eq!((&*status, &*why), ("False", "CertificateInvalid"));
    assert!(message.starts_with("certificate 1 of spec.source.external"), "{message}");
    assert_eq!(outcome(&damaged, world.now).signing_generation, None, "beside its key there is no certificate");
    // An entry that comes is nothing that is lost: what can be issued is issued.
    let coming = observe(&world, &[one.to_pem(), truncated(&two), three.to_pem()], &one);
    assert!(plan(&coming, world.now).publish.is_none(), "all of the list or none");
    assert!(available(&coming).2.starts_with("certificate 2 of spec.source.external"));
    assert_eq!(outcome(&coming, world.now).signing_generation, Some(1));

    let mended = observe(&world, &[one.to_pem(), two.to_pem()], &one);
    let document = plan(&mended, world.now).publish.expect("announced").payload;
    assert_eq!((document.bundle.len(), document.signing_generation), (2, 1));
    // Nor is the first document made of what happens to be readable.
    world.instance = Published::Absent;
    world.anchors[0].status = None;
    assert!(plan(&observe(&world, &[truncated(&one), two.to_pem()], &two), world.now).publish.is_none());
}

#[test]
fn an_authority_that_ends() {
    let world = World::steady();
    let seen = world.observe_anchor(0);
    let ends = world.authorities[&1].not_after().as_second();
    // Retirement a day, a third of a leaf five days.
    let last = ends - 24 * 3600 - 120 * 3600;
    for (name, now, expected, state) in [
        ("the last second", last, "AsDeclared", AuthorityState::Active),
        ("one second later", last + 1, "AuthorityExpiring", AuthorityState::Expiring),
        ("its last second", ends, "AuthorityExpiring", AuthorityState::Expiring),
        ("after it", ends + 1, "AuthorityExpired", AuthorityState::Expired),
    ] {
        let status = outcome(&seen, at(now));
        assert_eq!(reason(&status, ConditionType::AuthorityAvailable).1, expected, "{name}");
        assert_eq!(status.authorities[0].state, state, "{name}");
        assert_eq!(status.signing_generation.is_some(), expected == "AsDeclared", "{name}");
        assert_eq!(status.bundle.unwrap().generations, [1], "{name}: a bundle is never empty");
    }
}

#[test]
fn the_links_leaf() {
    let world = World::steady();
    let seen = world.observe_anchor(0);
    let leaf = world.link_leaf.facts().unwrap();
    assert_eq!((&*leaf.uri, &*leaf.dns_names[0]), ("saatkond://EE/link?use=link", "ee.link.saatkond.internal"));
    let due = saatkond_domain::schedule::renew_at(leaf, "anchor-uid", None);
    assert!(plan(&seen, at(due.as_second() - 1)).link_leaf.is_none());
    assert!(plan(&seen, due).link_leaf.is_some());
    let mut unpublished = seen.clone();
    unpublished.published = Published::Absent;
    unpublished.link_leaf = Stored::Absent;
    assert!(plan(&unpublished, world.now).link_leaf.is_none(), "gateways would not know its authority");
    let mut foreign = seen.clone();
    foreign.link_leaf = Stored::Foreign;
    assert_eq!(plan(&foreign, world.now).foreign[0].name, "saatkond-link-identity");
    let (_, why, message) = reason(&outcome(&foreign, world.now), ConditionType::Ready);
    assert_eq!(why, "ForeignObject");
    assert!(message.contains("Secret saatkond-link-identity"), "{message}");
    let mut damaged = seen;
    damaged.link_leaf = Stored::Unusable { why: "not JSON".into(), resource_version: "1".into() };
    assert!(plan(&damaged, world.now).link_leaf.is_some());
}
