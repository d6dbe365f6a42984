//! Starting, hot swaps under load, receipts, expiry, probes, draining (checklist T167, T169, T201, T202; design §6.2).

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use saatkond_pki::leaf::Usage;
use saatkond_wire::configuration::AuthorityEntry;
use saatkond_wire::document;
use saatkond_wire::identity::SecretText;
use saatkond_wire::leaf_name::LeafName;

use crate::support::eventually;
use crate::support::federation::{authority, consumer, issue, member, provider, replace, whole};
use crate::support::http::{raw, request};
use crate::support::link::FakeLink;
use crate::support::pair::{PETS, Pair};
use crate::support::rogue::{Client, authentication, rest, signed, signing};

async fn probe(address: std::net::SocketAddr, path: &str) -> (u16, String) {
    let response = raw(address, &request("GET", path, &[], None)).await;
    (response.status, response.text())
}

#[tokio::test]
async fn t201_probes_and_metrics() {
    let pair = Pair::start().await;
    assert_eq!(pair.call(PETS).await.status, 200);
    assert_eq!(probe(pair.ss2.admin, "/livez").await.0, 200);
    assert_eq!(probe(pair.ss2.admin, "/readyz").await.0, 200);
    let metrics = probe(pair.ss2.admin, "/metrics").await.1;
    assert!(metrics.contains("saatkond_gateway_exchanges_total{side=\"client\",outcome=\"ok\"} 1"), "{metrics}");
    assert!(metrics.contains("saatkond_gateway_bundle_sequence 1"), "{metrics}");
    assert!(
        !metrics.contains("pets") && !metrics.contains("GOV") && !metrics.contains("CONS"),
        "nothing that a caller chooses: {metrics}"
    );
    assert_eq!(probe(pair.ss2.admin, "/other").await.0, 404);
}

#[tokio::test]
async fn t167_t202_an_expired_configuration_stops_calls_until_there_is_a_fresh_one() {
    let mut pair = Pair::start().await;
    // Expires while the gateways run; a fresh one comes by the mount.
    pair.federation.instance.expires_at = Timestamp::now() + SignedDuration::from_millis(1500);
    pair.publish();
    let state = || (pair.ss1.metrics(), pair.ss2.metrics());
    let outdated = async || pair.call(PETS).await.has("X-Road-Error");
    eventually("the consumer says so", state, outdated).await;
    pair.call(PETS).await.assert_error("server.clientproxy.global_conf_outdated");
    assert_eq!(probe(pair.ss1.admin, "/readyz").await, (503, "Global configuration is expired\n".into()));
    let own = &pair.federation.authority;
    let mut client = Client::connect(pair.ss1.server_address, Some(&authentication(own, &pair.ss2.id))).await.unwrap();
    let message = signed(&rest("GET", PETS, &consumer()), b"", &signing(own, &member("200"), &pair.ss2.id));
    assert_eq!(client.exchange(message).await.unwrap().fault(), "server.serverproxy.global_conf_outdated");
    pair.federation.instance.expires_at = Timestamp::now() + SignedDuration::from_hours(1);
    pair.publish();
    let state = || (pair.ss1.metrics(), pair.ss2.metrics());
    eventually("served again", state, async || pair.call(PETS).await.status == 200).await;
    assert_eq!(probe(pair.ss1.admin, "/readyz").await.0, 200);
}

#[tokio::test]
async fn t169_a_bad_update_changes_nothing_and_is_counted() {
    let mut pair = Pair::start().await;
    let good = pair.federation.packed_instance();
    let other = authority(3);
    let mut cases: Vec<(&str, Vec<u8>)> = vec![("document", b"no document".to_vec())];
    let base = pair.federation.instance.clone();
    let with = |change: &dyn Fn(&mut saatkond_wire::configuration::InstanceConfiguration)| {
        let mut changed = base.clone();
        changed.version += 5;
        change(&mut changed);
        document::sign(&changed, &pair.federation.key).unwrap().packed
    };
    cases.push(("expired", with(&|c| c.expires_at = Timestamp::now() - SignedDuration::from_secs(1))));
    cases.push(("other_server", with(&|c| c.instance = "OTHER".into())));
    cases.push(("sequence_back", with(&|c| c.bundle_sequence = 0)));
    cases.push(("bundle", with(&|c| c.bundle[0].certificate = "no certificate".into())));
    cases.push(("bundle", with(&|c| c.bundle.clear())));
    cases.push(("format", with(&|c| c.format = 99)));
    let same_number = |c: &mut saatkond_wire::configuration::InstanceConfiguration| {
        c.version = base.version;
        c.members.clear();
    };
    cases.push(("conflict", with(&same_number)));
    cases.push(("conflict", with(&|c| c.bundle[0].certificate = other.certificate().to_pem())));
    let stranger = saatkond_pki::configuration_key::ConfigurationKey::generate().unwrap();
    cases.push(("document", document::sign(&base, &stranger).unwrap().packed));
    let mut conflicts = 0;
    for (reason, bytes) in cases {
        conflicts += usize::from(reason == "conflict");
        replace(&pair.ss1.dir.join("configuration/instance.jws.gz"), &bytes);
        let counted = || {
            let metrics = pair.ss1.metrics();
            let line =
                metrics.lines().find(|line| line.contains(&format!("updates_rejected_total{{reason=\"{reason}\"")));
            line.and_then(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).unwrap_or(0)
        };
        let expected = if reason == "conflict" { conflicts } else { 1 };
        eventually(reason, || pair.ss1.metrics(), async || counted() >= expected).await;
        assert!(pair.ss1.metrics().contains("instance_version 1"), "{reason}");
        assert_eq!(pair.call(PETS).await.status, 200, "{reason}");
    }
    replace(&pair.ss1.dir.join("configuration/instance.jws.gz"), &good);
    // An identity whose key is of another leaf, or another server's.
    let mut torn = pair.federation.identity(&pair.ss1);
    torn.authentication.key = torn.signing[0].credential.key.clone();
    pair.ss1.write_identity(&torn);
    let rejected = || pair.ss1.metrics();
    let counted = async || pair.ss1.metrics().contains("updates_rejected_total{reason=\"identity\"}");
    eventually("a torn identity is refused", rejected, counted).await;
    pair.ss1.write_identity(&pair.federation.identity(&pair.ss2));
    let counted = async || pair.ss1.metrics().contains("updates_rejected_total{reason=\"other_server\"} 2");
    eventually("another server's identity is refused", rejected, counted).await;
    assert_eq!(pair.call(PETS).await.status, 200);
    pair.publish();
    let rejected = || pair.ss1.metrics();
    let newer = async || pair.ss1.metrics().contains("instance_version 2");
    eventually("a good one is taken up after all that", rejected, newer).await;
}

#[tokio::test]
async fn t132_a_right_that_is_taken_back_ends_at_once() {
    let mut pair = Pair::start().await;
    assert_eq!(pair.call(PETS).await.status, 200);
    let services = &mut pair.ss1.server.clients.iter_mut().find(|client| !client.services.is_empty()).unwrap().services;
    services[0].access.clear();
    pair.ss1.server.version += 1;
    pair.federation.write_server(&pair.ss1);
    let state = || pair.ss1.metrics();
    eventually("denied", state, async || pair.call(PETS).await.has("X-Road-Error")).await;
    pair.call(PETS).await.assert_error("server.serverproxy.access_denied");
}

#[tokio::test]
async fn a_server_that_is_taken_out_is_refused_on_its_open_connections() {
    let mut pair = Pair::start().await;
    assert_eq!(pair.call(PETS).await.status, 200);
    let own = &pair.federation.authority;
    let mut client = Client::connect(pair.ss1.server_address, Some(&authentication(own, &pair.ss2.id))).await.unwrap();
    let message = || signed(&rest("GET", PETS, &consumer()), b"", &signing(own, &member("200"), &pair.ss2.id));
    assert!(client.exchange(message()).await.unwrap().events.len() > 1);
    let message = message();
    pair.federation.instance.servers.retain(|server| server.server_code != "SS2");
    pair.federation.instance.version += 1;
    pair.federation.write_instance(&pair.ss1);
    let state = || pair.ss1.metrics();
    eventually("taken up", state, async || pair.ss1.metrics().contains("instance_version 2")).await;
    let fault = client.exchange(message).await.unwrap();
    assert_eq!(fault.fault(), "server.serverproxy.service_failed.ssl_authentication_failed");
}

/// Calls without pause until told to stop; counts what failed.
fn load(pair: &Pair, stop: &Arc<AtomicBool>) -> (Vec<tokio::task::JoinHandle<()>>, Arc<AtomicUsize>, Arc<AtomicUsize>) {
    let (served, failed) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let callers = (0..4)
        .map(|_| {
            let (stop, served, failed, address) = (stop.clone(), served.clone(), failed.clone(), pair.ss2.client);
            tokio::spawn(async move {
                while !stop.load(Ordering::Relaxed) {
                    let bytes = request("GET", PETS, &[("X-Road-Client", "INST/GOV/200/CONS")], None);
                    let response = raw(address, &bytes).await;
                    if response.status == 200 {
                        served.fetch_add(1, Ordering::Relaxed);
                    } else {
                        eprintln!("failed: {}", response.text());
                        failed.fetch_add(1, Ordering::Relaxed);
                    }
                }
            })
        })
        .collect();
    (callers, served, failed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_call_fails_while_leaves_and_authorities_are_rotated() {
    let mut pair = Pair::start().await;
    let stop = Arc::new(AtomicBool::new(false));
    let (callers, served, failed) = load(&pair, &stop);
    let go_on = async |served: &AtomicUsize| {
        let before = served.load(Ordering::Relaxed);
        eventually(
            "calls go on",
            || failed.load(Ordering::Relaxed),
            async || served.load(Ordering::Relaxed) > before + 20,
        )
        .await;
    };
    go_on(&served).await;
    // Leaves of the same authority, on both sides.
    for _ in 0..2 {
        pair.ss1.issue += 1;
        pair.federation.write_identity(&pair.ss1);
        go_on(&served).await;
        pair.ss2.issue += 1;
        pair.federation.write_identity(&pair.ss2);
        go_on(&served).await;
    }
    // A re-key: trust both, then sign with the new, then trust the new alone.
    let new = authority(2);
    let entry = AuthorityEntry { generation: 2, certificate: new.certificate().to_pem() };
    pair.federation.instance.bundle.push(entry);
    let publish = async |pair: &mut Pair| {
        pair.federation.instance.bundle_sequence += 1;
        pair.publish();
        let line = format!("bundle_sequence {}", pair.federation.instance.bundle_sequence);
        let both = async || pair.ss1.metrics().contains(&line) && pair.ss2.metrics().contains(&line);
        eventually("both have it", || (pair.ss1.metrics(), pair.ss2.metrics()), both).await;
    };
    publish(&mut pair).await;
    go_on(&served).await;
    pair.federation.authority = new;
    pair.federation.generation = 2;
    pair.federation.instance.signing_generation = 2;
    publish(&mut pair).await;
    pair.ss1.issue += 1;
    pair.ss2.issue += 1;
    pair.federation.write_identity(&pair.ss1);
    pair.federation.write_identity(&pair.ss2);
    let issued = |site: &crate::support::federation::Site| site.gateway.as_ref().unwrap().context.state.at_hand().2;
    let expected = (pair.ss1.issue, pair.ss2.issue);
    let both = async || (issued(&pair.ss1), issued(&pair.ss2)) == expected;
    eventually("both have new leaves", || (pair.ss1.metrics(), pair.ss2.metrics()), both).await;
    go_on(&served).await;
    pair.federation.instance.bundle.remove(0);
    publish(&mut pair).await;
    go_on(&served).await;
    stop.store(true, Ordering::Relaxed);
    for caller in callers {
        caller.await.unwrap();
    }
    assert_eq!(failed.load(Ordering::Relaxed), 0, "of {}", served.load(Ordering::Relaxed));
}

#[tokio::test]
async fn a_call_finds_its_way_when_all_connections_are_being_closed_under_calls() {
    let mut pair = Pair::start().await;
    // As many calls under way as there are connections to a peer: none of them can end.
    let address = pair.ss2.client;
    let mut under_way = tokio::task::JoinSet::new();
    for count in 1..=4 {
        let bytes = request("GET", &format!("{PETS}/silent"), &[("X-Road-Client", "INST/GOV/200/CONS")], None);
        under_way.spawn(async move { raw(address, &bytes).await });
        let asked = || pair.system.asked("/silent").len();
        eventually("the call is under way", asked, async || asked() == count).await;
    }
    // The provider presents another leaf: it asks for new connections and keeps the old ones for the calls on them.
    pair.ss1.issue += 1;
    pair.federation.write_identity(&pair.ss1);
    let wanted = pair.ss1.issue;
    let issued = async || pair.ss1.gateway.as_ref().unwrap().context.state.at_hand().2 == wanted;
    eventually("the provider has the new leaf", || pair.ss1.metrics(), issued).await;
    for _ in 0..8 {
        let answer = pair.call(PETS).await;
        assert_eq!(answer.status, 200, "{}", answer.text());
    }
}

#[tokio::test]
async fn what_could_not_be_saved_is_tried_again_without_anything_new() {
    let mut pair = Pair::start().await;
    // In the way of what is written first.
    let blocked = pair.ss1.dir.join("state/.identity.json.new");
    std::fs::create_dir(&blocked).unwrap();
    pair.ss1.issue += 1;
    pair.federation.write_identity(&pair.ss1);
    let metrics = || pair.ss1.metrics();
    let counted = async || pair.ss1.metrics().contains("updates_rejected_total{reason=\"save\"}");
    eventually("it is told", metrics, counted).await;
    let context = pair.ss1.gateway.as_ref().unwrap().context.clone();
    let issue = || context.state.current().unwrap().identity.issue_number;
    let before = issue();
    std::fs::remove_dir(&blocked).unwrap();
    eventually("it is in force", metrics, async || issue() > before).await;
}

#[tokio::test]
async fn the_poll_is_the_receipt_and_comes_after_the_swap() {
    let mut pair = Pair::declare().await;
    let link = FakeLink::start(&pair.federation, 0).await;
    pair.federation.start(&mut pair.ss1).await;
    pair.federation.write_instance(&pair.ss2);
    pair.federation.write_server(&pair.ss2);
    pair.federation.write_identity(&pair.ss2);
    // What is published is newer than what is mounted: the gateway must not serve before it has it.
    pair.federation.instance.version = 7;
    link.publish(pair.federation.packed_instance(), 7);
    link.publish_server(pair.federation.packed_server(&pair.ss2), 1);
    let mut settings = pair.federation.settings(&pair.ss2);
    settings.link_url = link.url();
    pair.ss2.start(settings.clone()).await;
    assert!(pair.ss2.metrics().contains("instance_version 7"));
    let seen = || link.polls();
    let receipt = async |version: u64| {
        let found =
            async || link.polls().iter().any(|p| p.loaded.as_ref().is_some_and(|l| l.instance_version == version));
        eventually("a receipt", seen, found).await;
    };
    receipt(7).await;
    let polls = link.polls();
    assert!(polls[0].loaded.is_none() && polls[0].wait_seconds == 0, "a starting process has loaded nothing");
    assert_eq!((polls[0].have_instance_version, polls[0].process.incarnation), (1, 1));
    // A publication: the next poll says that it is loaded, and it is.
    pair.federation.instance.version = 8;
    pair.federation.instance.bundle_sequence = 2;
    pair.federation
        .instance
        .bundle
        .push(AuthorityEntry { generation: 2, certificate: authority(2).certificate().to_pem() });
    link.publish(pair.federation.packed_instance(), 8);
    receipt(8).await;
    let last = link.polls().pop().unwrap().loaded.unwrap();
    let in_force = pair.ss2.gateway.as_ref().unwrap().context.state.current().unwrap();
    assert_eq!((last.bundle_sequence, &last.bundle_hash), (2, &in_force.bundle.hash()));
    assert_eq!(last.leaf_serial, in_force.identity.authentication.facts.serial);
    // A change that comes by the mount is stated at once too.
    pair.ss2.issue += 1;
    pair.federation.write_identity(&pair.ss2);
    let stated = async || link.polls().iter().any(|p| p.loaded.as_ref().is_some_and(|l| l.leaf_issue_number == 2));
    eventually("the new leaf is stated", seen, stated).await;
    // Restarted in place with the mounts of before: it never falls behind what it has stated.
    pair.ss2.stop().await;
    assert_eq!(link.goodbyes(), [1]);
    drop(link);
    settings.link_url = "https://127.0.0.1:1".parse().unwrap();
    pair.ss2.start(settings).await;
    assert!(pair.ss2.metrics().contains("instance_version 8"), "{}", pair.ss2.metrics());
}

#[tokio::test]
async fn an_expired_leaf_of_a_guest_is_the_guests_alone() {
    let mut pair = Pair::declare().await;
    let guest = member("ÖÄ").subsystem("PROV");
    let mut host = pair.federation.site("100", "HOST", &[provider(), guest.clone()]);
    for client in [provider(), guest] {
        let url = format!("http://{}/v2", pair.system.address);
        host.service(&client, "hosted", &url, vec![whole(consumer())]);
    }
    pair.federation.write_instance(&host);
    pair.federation.write_server(&host);
    let expired = |identity: &mut saatkond_wire::identity::Identity, code: &str| {
        let past = Timestamp::now() - SignedDuration::from_mins(6);
        let signing = identity.signing.iter_mut().find(|it| it.member.member_code == code).unwrap();
        let server = identity.server.clone();
        let name = LeafName::Signing { member: signing.member.clone(), server, issue: signing.credential.issue_number };
        let life = SignedDuration::from_mins(4);
        let (leaf, key) = issue(&pair.federation.authority, Usage::Signing, &name, &[], past, life);
        signing.credential.certificate = leaf;
        signing.credential.key = SecretText::new(key.to_pkcs8_pem().to_string());
    };
    // A whole gateway has to start with it, and another leaf of the owner's to be taken up with it.
    for issue in [1, 2] {
        host.issue = issue;
        let mut identity = pair.federation.identity(&host);
        expired(&mut identity, "ÖÄ");
        host.write_identity(&identity);
        if issue == 1 {
            host.start(pair.federation.settings(&host)).await;
        }
        let context = &host.gateway.as_ref().unwrap().context;
        let in_use = || context.state.current().map(|current| current.identity.issue_number);
        eventually("in use", in_use, async || in_use() == Some(issue)).await;
        assert_eq!(probe(host.admin, "/readyz").await, (200, "ok\n".into()));
    }
    assert!(probe(host.admin, "/metrics").await.1.contains("signing_leaves_not_valid 1\n"));
    pair.federation.start(&mut pair.ss2).await;
    assert_eq!(pair.call("/r1/INST/GOV/100/PROV/hosted").await.status, 200);
    let guests = pair.call("/r1/INST/GOV/%C3%96%C3%84/PROV/hosted").await;
    guests.assert_error("server.serverproxy.service_failed.cannot_create_signature");
    // The owner's is everybody's.
    host.stop().await;
    let mut identity = pair.federation.identity(&host);
    expired(&mut identity, "100");
    host.write_identity(&identity);
    std::fs::remove_file(host.dir.join("state/identity.json")).unwrap();
    let gateway = Arc::new(saatkond_gateway::run::Gateway::new(pair.federation.settings(&host)).unwrap());
    let serving = gateway.clone();
    let task = tokio::spawn(async move { serving.serve().await.unwrap() });
    let not_ready =
        async || saatkond_gateway::probes::not_ready(&gateway.context).is_some_and(|why| why.contains("expired"));
    eventually("not ready", || saatkond_gateway::probes::not_ready(&gateway.context), not_ready).await;
    task.abort();
}

/// What a start waits for that the link has named, and that never comes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Missing {
    Document,
    LeafAndLink,
}

#[tokio::test]
async fn a_start_does_not_wait_for_ever_for_what_the_link_has_named() {
    for missing in [Missing::Document, Missing::LeafAndLink] {
        let mut pair = Pair::start().await;
        pair.ss2.stop().await;
        let mut link = Some(FakeLink::start(&pair.federation, 1).await);
        let mut refused = pair.federation.instance.clone();
        (refused.version, refused.format) = (9, 99);
        let refused = document::sign(&refused, &pair.federation.key).unwrap().packed;
        let named = link.as_ref().unwrap();
        match missing {
            Missing::Document => named.publish(refused, 9),
            Missing::LeafAndLink => named.issue(2),
        }
        let mut settings = pair.federation.settings(&pair.ss2);
        settings.link_url = named.url();
        settings.behind_after = Duration::from_secs(2);
        // It has a peer to ask, and never gives up on it.
        settings.alone_after = Duration::from_hours(1);
        let gateway = Arc::new(saatkond_gateway::run::Gateway::new(settings).unwrap());
        let (serving, context) = (gateway.clone(), gateway.context.clone());
        tokio::spawn(async move { serving.serve().await.unwrap() });
        let asked = || link.as_ref().is_some_and(|link| !link.polls().is_empty());
        eventually("the link has been asked", || missing, async || asked()).await;
        assert!(!context.is_serving.load(Ordering::Acquire), "{missing:?}");
        if missing == Missing::LeafAndLink {
            link = None;
        }
        let serves = async || context.is_serving.load(Ordering::Acquire);
        eventually("it serves on its peer's word", || missing, serves).await;
        assert_eq!(context.state.at_hand().0, 1);
        pair.ss2.gateway = Some(gateway);
        assert_eq!(pair.call(PETS).await.status, 200, "{missing:?}");
        pair.ss2.stop().await;
        drop(link);
    }
}

#[tokio::test]
async fn a_start_without_having_met_anybody_is_stated_when_the_link_is_back() {
    let mut pair = Pair::declare().await;
    let link = FakeLink::start(&pair.federation, 1).await;
    // As good as no link: what it names never comes. There is no peer.
    link.issue(2);
    pair.federation.write_instance(&pair.ss2);
    pair.federation.write_server(&pair.ss2);
    pair.federation.write_identity(&pair.ss2);
    let mut settings = pair.federation.settings(&pair.ss2);
    (settings.link_url, settings.behind_after) = (link.url(), Duration::ZERO);
    let before = Timestamp::now();
    pair.ss2.start(settings).await;
    let stated = || link.polls().iter().find_map(|poll| poll.loaded.clone());
    eventually("a receipt", stated, async || stated().is_some()).await;
    let alone = stated().unwrap().started_alone.unwrap();
    assert!((before..=Timestamp::now()).contains(&alone), "{alone}");
    assert!(pair.ss2.metrics().contains("started_alone 1"));
    let (_pair, link) = linked().await;
    let met = link.polls().iter().filter_map(|poll| poll.loaded.clone()).all(|loaded| loaded.started_alone.is_none());
    assert!(met, "{:?}", link.polls());
}

/// A pair whose consumer's server runs on a link that has published what it holds.
async fn linked() -> (Pair, FakeLink) {
    let mut pair = Pair::declare().await;
    let link = FakeLink::start(&pair.federation, 1).await;
    link.publish(pair.federation.packed_instance(), 1);
    link.publish_server(pair.federation.packed_server(&pair.ss2), 1);
    pair.federation.write_instance(&pair.ss2);
    pair.federation.write_server(&pair.ss2);
    pair.federation.write_identity(&pair.ss2);
    let mut settings = pair.federation.settings(&pair.ss2);
    settings.link_url = link.url();
    pair.ss2.start(settings).await;
    let stated = async || link.polls().iter().any(|poll| poll.loaded.is_some());
    eventually("the first receipt", || link.polls(), stated).await;
    (pair, link)
}

#[tokio::test]
async fn what_the_link_names_and_cannot_be_had_is_not_asked_for_in_a_loop() {
    let (mut pair, link) = linked().await;
    let rejected =
        |reason: &str| pair.ss2.metrics().contains(&format!("updates_rejected_total{{reason=\"{reason}\"}} 1"));
    // A leaf whose mount is late.
    let before = link.polls().len();
    link.issue(2);
    let told = async || link.polls().last().unwrap().told.issue_number == 2;
    eventually("it is told of the leaf", || link.polls().len(), told).await;
    // A document that this version must refuse.
    let unreadable = |c: &mut saatkond_wire::configuration::InstanceConfiguration| (c.version, c.format) = (9, 99);
    let mut refused = pair.federation.instance.clone();
    unreadable(&mut refused);
    link.publish(document::sign(&refused, &pair.federation.key).unwrap().packed, 9);
    eventually("it is refused", || pair.ss2.metrics(), async || rejected("format")).await;
    let told = async || link.polls().last().unwrap().told.instance_version == 9;
    eventually("it is told of the document", || link.polls().len(), told).await;
    // What can be had is taken at once, by the poll that is held, and stated.
    pair.federation.instance.version = 10;
    link.publish(pair.federation.packed_instance(), 10);
    pair.ss2.issue = 2;
    pair.federation.write_identity(&pair.ss2);
    let stated = async || {
        let last = link.polls().last().unwrap().loaded.clone().unwrap();
        (last.instance_version, last.leaf_issue_number) == (10, 2)
    };
    eventually("both are stated", || link.polls().len(), stated).await;
    // One for each answer that named something, one for each receipt, and one for each that a receipt cut short.
    let polls = link.polls().len() - before;
    assert!(polls <= 8, "{polls} polls: {:?}", link.polls());
}

#[tokio::test]
async fn a_link_that_answers_at_once_without_need_is_asked_ever_less_often() {
    let (pair, link) = linked().await;
    link.forget_what_was_told();
    link.issue(2);
    let (begun, before) = (std::time::Instant::now(), link.polls().len());
    eventually("three more polls", || link.polls().len(), async || link.polls().len() >= before + 3).await;
    // The pauses between them: at least half of 0.5, 1 and 2 s, whatever came before the first of them.
    assert!(begun.elapsed() >= Duration::from_millis(1750), "{:?}", begun.elapsed());
    drop(pair);
}

#[tokio::test]
async fn a_link_that_is_no_link_is_not_believed() {
    let mut pair = Pair::declare().await;
    let mut imposter = Pair::declare().await;
    imposter.federation.instance.version = 9;
    let link = FakeLink::start(&imposter.federation, 0).await;
    link.publish(imposter.federation.packed_instance(), 9);
    let mut settings = pair.federation.settings(&pair.ss2);
    settings.link_url = link.url();
    pair.federation.write_instance(&pair.ss2);
    pair.federation.write_server(&pair.ss2);
    pair.federation.write_identity(&pair.ss2);
    pair.ss2.start(settings).await;
    assert!(pair.ss2.metrics().contains("instance_version 1"));
    assert!(pair.ss2.metrics().contains("peers_refused_total{reason=\"unknown_issuer\"}"));
    assert!(link.polls().is_empty());
}

#[tokio::test]
async fn a_start_without_the_link_takes_the_newer_document_of_a_peer() {
    let mut pair = Pair::start().await;
    pair.ss2.stop().await;
    pair.federation.instance.version = 5;
    pair.federation.write_instance(&pair.ss1);
    let state = || pair.ss1.metrics();
    eventually("the peer has it", state, async || pair.ss1.metrics().contains("instance_version 5")).await;
    let mut settings = pair.federation.settings(&pair.ss2);
    // It would wait for ever for a peer, and has one.
    settings.alone_after = Duration::from_hours(1);
    pair.ss2.start(settings).await;
    assert!(pair.ss2.metrics().contains("instance_version 5"));
    assert!(pair.ss2.metrics().contains("started_alone 0"));
    assert_eq!(pair.call(PETS).await.status, 200);
}

/// A pod has 60 s to end, and what has not ended by then is killed without a word to anybody.
#[tokio::test]
async fn a_drain_ends_within_its_bound_where_a_call_does_not() {
    let mut pair = Pair::declare().await;
    let url = format!("http://{}/v2", pair.system.address);
    let patient = pair.ss1.service(&crate::support::federation::provider(), "patient", &url, vec![whole(consumer())]);
    patient.timeout_seconds = 0;
    pair.federation.start(&mut pair.ss1).await;
    pair.federation.start_with(&mut pair.ss2, |settings| settings.drain_bound = Duration::from_millis(300)).await;
    let mut caller = tokio::net::TcpStream::connect(pair.ss2.client).await.unwrap();
    let headers = [("X-Road-Client", "INST/GOV/200/CONS")];
    let call = request("GET", "/r1/INST/GOV/100/PROV/patient/silent", &headers, None);
    tokio::io::AsyncWriteExt::write_all(&mut caller, &call).await.unwrap();
    let state = || pair.system.asked("/silent");
    eventually("the call is under way", state, async || !pair.system.asked("/silent").is_empty()).await;
    let gateway = pair.ss2.gateway.clone().unwrap();
    let bound = Duration::from_secs(5);
    tokio::time::timeout(bound, gateway.drain()).await.expect("it waits for a call that does not end");
}

#[tokio::test]
async fn a_drain_lets_calls_under_way_end_and_takes_no_new_ones() {
    let mut pair = Pair::declare().await;
    let url = format!("http://{}/v2", pair.system.address);
    pair.ss1.service(&crate::support::federation::provider(), "slow", &url, vec![whole(consumer())]);
    pair.federation.start(&mut pair.ss1).await;
    pair.federation.start(&mut pair.ss2).await;
    let address = pair.ss2.client;
    let under_way = tokio::spawn(async move {
        let target = "/r1/INST/GOV/100/PROV/slow/drip";
        raw(address, &request("GET", target, &[("X-Road-Client", "INST/GOV/200/CONS")], None)).await
    });
    let state = || pair.system.asked("/drip");
    eventually("the call is under way", state, async || !pair.system.asked("/drip").is_empty()).await;
    let admin = pair.ss2.admin;
    let gateway = pair.ss2.gateway.clone().unwrap();
    let draining = tokio::spawn(async move { gateway.drain().await });
    let not_ready = async || probe(admin, "/readyz").await == (503, "Draining\n".into());
    eventually("not ready", || (), not_ready).await;
    assert_eq!(under_way.await.unwrap().text(), "drips");
    draining.await.unwrap();
    assert!(tokio::net::TcpStream::connect(address).await.is_err());
}
