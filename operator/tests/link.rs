//! The link on a real API server, with its own rights: who is answered, what with, and what is stored before.
#![allow(clippy::unwrap_used, clippy::panic, reason = "a test fails by panicking, helpers of tests too")]

#[path = "support/rights.rs"]
mod rights;
mod support;

use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use jiff::{SignedDuration, Timestamp};
use kube::Client;
use kube::api::{Api, Patch, PatchParams};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use saatkond_api::SecurityServer;
use saatkond_operator::client::{Call, Fault, Hooks, Verdict, connect};
use saatkond_operator::clock::SystemClock;
use saatkond_operator::health::Readiness;
use saatkond_operator::link::Link;
use saatkond_operator::link::server::{Limits, bind};
use saatkond_operator::metrics::Metrics;
use saatkond_operator::watches::WatchSettings;
use saatkond_pki::authority::{Authority, AuthoritySpec};
use saatkond_pki::key::{Algorithm, KeyPair, KeySource, SystemKeys};
use saatkond_pki::leaf::{self, LeafRequest, Terms, Usage};
use saatkond_pki::serial::Serial;
use saatkond_wire::identity::{Credential, SecretText};
use saatkond_wire::link::{GOODBYE_PATH, Goodbye, Loaded, POLL_PATH, Poll, PollAnswer, ProcessId, Told, server_name};
use serde_json::{Value, json};
use support::{Bed, bed, until};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

/// Connections of one registered key.
const OF_KEY: usize = 3;
const POD: &str = "0a0b0c0d-0000-4000-8000-000000000001";

struct Leaf {
    pem: String,
    key: KeyPair,
}

fn authority() -> Authority {
    let spec = AuthoritySpec {
        instance: "LINK",
        generation: 1,
        algorithm: Algorithm::EcdsaP256,
        not_before: Timestamp::now() - SignedDuration::from_mins(5),
        lifetime: SignedDuration::from_hours(100),
        serial: Serial::from_random([7; 16]),
    };
    Authority::create(&spec, &SystemKeys).unwrap()
}

fn issue(authority: &Authority, usage: Usage, uri: &str, dns: &[String]) -> Leaf {
    let key = SystemKeys.generate(Algorithm::EcdsaP256).unwrap();
    let request = LeafRequest { usage, common_name: "test".into(), uri: uri.into(), dns_names: dns.to_vec() };
    let terms = Terms {
        now: Timestamp::now(),
        lifetime: SignedDuration::from_hours(10),
        retirement: SignedDuration::ZERO,
        serial: Serial::from_random([9; 16]),
    };
    let issued = leaf::issue(authority, &request, key.public(), &terms).unwrap();
    Leaf { pem: issued.pem, key }
}

struct Running {
    address: SocketAddr,
    readiness: Readiness,
    stop: CancellationToken,
    task: tokio::task::JoinHandle<()>,
    authority: Authority,
    calls: Arc<rights::Recorder>,
    _folder: tempfile::TempDir,
}

/// The link of trust anchor `anchor`, with its own ServiceAccount.
async fn link(bed: &Bed, anchor: &str) -> Running {
    let authority = authority();
    let folder = own_leaf(&authority, anchor);
    start(bed, authority, folder, None).await
}

/// A folder as the Secret of the link's leaves is mounted.
fn own_leaf(authority: &Authority, anchor: &str) -> tempfile::TempDir {
    let own = issue(authority, Usage::Link, "saatkond://LINK/link?use=link", &[server_name(anchor)]);
    let folder = tempfile::tempdir().unwrap();
    let credential = Credential {
        issue_number: 0,
        generation: 1,
        certificate: own.pem.clone(),
        key: SecretText::new(own.key.to_pkcs8_pem().to_string()),
    };
    std::fs::write(folder.path().join(format!("{anchor}.json")), serde_json::to_vec(&credential).unwrap()).unwrap();
    folder
}

/// A link that finds its leaves in this folder. With a fault of the test's, its calls are not recorded.
async fn start(bed: &Bed, authority: Authority, folder: tempfile::TempDir, fault: Option<Arc<dyn Fault>>) -> Running {
    let metrics = Arc::new(Metrics::new());
    let config = bed.account("saatkond-link").await;
    let calls = rights::Recorder::new();
    let hooks = Hooks { fence: None, fault: fault.or_else(|| Some(calls.clone())) };
    let client = connect(config, metrics.api_requests.clone(), hooks).unwrap();
    let listener = bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let address = listener.local_addr().unwrap();
    let (readiness, stop) = (Readiness::default(), CancellationToken::new());
    // What it waits for first, so that the wait below cannot see a link that has not begun.
    for what in ["documents", "security servers", "the link's own leaf"] {
        readiness.pending(what, "not begun");
    }
    let link = Link {
        client,
        namespace: support::SYSTEM.into(),
        identity: folder.path().to_owned(),
        listener,
        limits: Limits {
            idle_unregistered: Duration::from_secs(1),
            handshake: Duration::from_secs(2),
            connections_of_key: OF_KEY,
            strangers: 4,
            ..Limits::default()
        },
        watches: WatchSettings::default(),
        clock: Arc::new(SystemClock::new()),
        metrics,
        readiness: readiness.clone(),
    };
    let task = tokio::spawn(link.run(stop.clone()));
    let running = Running { address, readiness, stop, task, authority, calls, _folder: folder };
    until("the link is ready", Duration::from_secs(20), || async {
        let list = running.readiness.list();
        if list.is_empty() && TcpStream::connect(running.address).await.is_ok() {
            Ok(())
        } else {
            Err(format!("{list:?}"))
        }
    })
    .await;
    running
}

type Sender = hyper::client::conn::http2::SendRequest<Full<Bytes>>;

/// A connection as the holder of this leaf.
async fn dial(link: &Running, anchor: &str, leaf: &Leaf) -> Sender {
    let stream = shaken(link, anchor, leaf, b"h2").await;
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn shaken(
    link: &Running,
    anchor: &str,
    leaf: &Leaf,
    protocol: &[u8],
) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(link.authority.certificate().der().to_vec())).unwrap();
    let chain = vec![CertificateDer::from_pem_slice(leaf.pem.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(leaf.key.to_pkcs8_pem().as_bytes()).unwrap();
    let mut config =
        rustls::ClientConfig::builder().with_root_certificates(roots).with_client_auth_cert(chain, key).unwrap();
    config.alpn_protocols = vec![protocol.to_vec()];
    let stream = TcpStream::connect(link.address).await.unwrap();
    let name = ServerName::try_from(server_name(anchor)).unwrap();
    let shaken = tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream);
    tokio::time::timeout(Duration::from_secs(20), shaken).await.expect("there is a place within 20 s").unwrap()
}

/// A connection over HTTP/1.1 whose request never gets its body.
async fn slow(link: &Running, anchor: &str, leaf: &Leaf) -> tokio_rustls::client::TlsStream<TcpStream> {
    let mut stream = shaken(link, anchor, leaf, b"http/1.1").await;
    let head = format!("POST {POLL_PATH} HTTP/1.1\r\nHost: link\r\nContent-Length: 10\r\n\r\n");
    stream.write_all(head.as_bytes()).await.unwrap();
    stream
}

async fn post(sender: &mut Sender, path: &str, body: impl Into<Bytes>) -> (u16, Value) {
    let request = http::Request::post(format!("https://link{path}")).body(Full::new(body.into())).unwrap();
    let answer = sender.send_request(request).await.unwrap();
    let status = answer.status().as_u16();
    let body = answer.into_body().collect().await.unwrap().to_bytes();
    (status, serde_json::from_slice(&body).unwrap_or_default())
}

fn poll(loaded: Option<u64>, have: u64, wait: u32) -> Poll {
    Poll {
        format: 1,
        highest_format: 1,
        process: ProcessId { pod_uid: POD.into(), incarnation: 1 },
        loaded: loaded.map(|version| Loaded {
            instance_version: version,
            server_version: version,
            bundle_sequence: 1,
            bundle_hash: "00".into(),
            leaf_issue_number: 1,
            leaf_serial: "4a".into(),
            old_sessions: Some(vec![]),
            started_alone: None,
        }),
        have_instance_version: have,
        have_server_version: have,
        have_issue_number: 1,
        told: Told::default(),
        wait_seconds: wait,
    }
}

async fn ask(sender: &mut Sender, poll: &Poll) -> (u16, Value) {
    post(sender, POLL_PATH, serde_json::to_vec(poll).unwrap()).await
}

fn documents(anchor: &str, version: u64) -> String {
    let labels = |role: &str| {
        json!({
            "saatkond.io/role": role, "saatkond.io/trust-anchor": anchor,
            "saatkond.io/security-server": "ss1", "saatkond.io/security-server-namespace": format!("{anchor}-home"),
            "app.kubernetes.io/managed-by": "saatkond",
        })
    };
    let map = |name: String, role: &str, entry: &str| {
        json!({
            "apiVersion": "v1", "kind": "ConfigMap",
            "metadata": {
                "name": name, "namespace": support::SYSTEM, "labels": labels(role),
                "annotations": {"saatkond.io/document-version": version.to_string()},
            },
            "binaryData": {entry: "AAEC"},
        })
        .to_string()
    };
    [
        map(format!("{anchor}-instance-configuration"), "instance-configuration", "instance.jws.gz"),
        map(format!("{anchor}-home.ss1-server-configuration"), "server-configuration", "server.jws.gz"),
    ]
    .join("\n---\n")
}

/// A SecurityServer whose status registers this key.
async fn register(bed: &Bed, admin: &Client, anchor: &str, key: &KeyPair) {
    let home = format!("{anchor}-home");
    bed.apply(&support::namespace(&home, None));
    let server = json!({
        "apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": "ss1", "namespace": home},
        "spec": {"memberRef": {"name": "m"}, "serverCode": "ss1"},
    });
    bed.apply(&server.to_string());
    let status = json!({"status": {"issueNumber": 1, "registeredKeys": [
        {"spkiSha256": key.spki_sha256().to_string(), "issueNumber": 1, "notAfter": "2099-01-01T00:00:00Z"},
    ]}});
    let api: Api<SecurityServer> = Api::namespaced(admin.clone(), &home);
    api.patch_status("ss1", &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
}

async fn receipts(admin: &Client, anchor: &str) -> Vec<(u64, u64)> {
    let api: Api<SecurityServer> = Api::namespaced(admin.clone(), &format!("{anchor}-home"));
    let server = api.get("ss1").await.unwrap();
    server.status.unwrap().processes.iter().map(|receipt| (receipt.incarnation, receipt.instance_version)).collect()
}

/// Whether the only receipt is one of a process that has ended.
async fn has_ended(admin: &Client, anchor: &str) -> bool {
    let api: Api<SecurityServer> = Api::namespaced(admin.clone(), &format!("{anchor}-home"));
    api.get("ss1").await.unwrap().status.unwrap().processes[0].ended_at.is_some()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_poll_is_stored_before_it_is_answered_and_ends_when_there_is_news() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let link = link(bed, "lka").await;
    let leaf =
        issue(&link.authority, Usage::Authentication, "saatkond://LINK/GOV/1/ss1?use=authentication&issue=1", &[]);
    bed.apply(&documents("lka", 5));
    register(bed, &admin, "lka", &leaf.key).await;
    // A starting process is answered at once, from the API server itself.
    let started = Instant::now();
    let answer = until("the key is known", Duration::from_secs(10), || {
        // Anew each time: whoever has been refused is cut off.
        let (link, leaf) = (&link, &leaf);
        async move {
            match ask(&mut dial(link, "lka", leaf).await, &poll(None, 0, 55)).await {
                (200, answer) => Ok(answer),
                other => Err(format!("{other:?}")),
            }
        }
    })
    .await;
    let answer: PollAnswer = serde_json::from_value(answer).unwrap();
    assert_eq!((answer.instance_version, answer.server_version, answer.issue_number), (5, 5, 1));
    assert_eq!((answer.instance.as_deref(), answer.server.as_deref()), (Some(&[0, 1, 2][..]), Some(&[0, 1, 2][..])));
    assert!(started.elapsed() < Duration::from_secs(12));
    assert!(receipts(&admin, "lka").await.is_empty(), "a process that has loaded nothing has no receipt");

    // What it has loaded is stored before the answer.
    let mut sender = dial(&link, "lka", &leaf).await;
    let (status, _) = ask(&mut sender, &poll(Some(5), 5, 0)).await;
    assert_eq!((status, receipts(&admin, "lka").await), (200, vec![(1, 5)]));
    let version = || async {
        let api: Api<SecurityServer> = Api::namespaced(admin.clone(), "lka-home");
        api.get("ss1").await.unwrap().metadata.resource_version
    };
    let before = version().await;
    let (status, _) = ask(&mut sender, &poll(Some(5), 5, 0)).await;
    assert_eq!((status, version().await), (200, before), "the same receipt is not written twice");

    // An older one neither counts nor is answered.
    let (status, refusal) = ask(&mut sender, &poll(Some(4), 5, 0)).await;
    assert_eq!((status, refusal["reason"].as_str()), (409, Some("StaleReceipt")));
    assert_eq!(receipts(&admin, "lka").await, vec![(1, 5)]);

    // A held poll ends with news.
    let mut held = sender.clone();
    let waiting = tokio::spawn(async move { ask(&mut held, &poll(Some(5), 5, 55)).await });
    bed.apply(&documents("lka", 6));
    let (status, answer) = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!((status, answer["instanceVersion"].as_u64()), (200, Some(6)));
    assert!(answer["instance"].is_string());

    // A leaf that was stored ends it too, once: until the mount follows there is nothing more to say of it.
    let servers: Api<SecurityServer> = Api::namespaced(admin.clone(), "lka-home");
    let stored = json!({"status": {"issueNumber": 2}});
    servers.patch_status("ss1", &PatchParams::default(), &Patch::Merge(stored)).await.unwrap();
    let (_, answer) =
        tokio::time::timeout(Duration::from_secs(10), ask(&mut sender, &poll(Some(6), 6, 55))).await.unwrap();
    assert_eq!((answer["instanceVersion"].as_u64(), answer["issueNumber"].as_u64()), (Some(6), Some(2)));
    let told = Told { instance_version: 6, server_version: 6, issue_number: 2 };
    let mut held = sender.clone();
    let waiting = tokio::spawn(async move { ask(&mut held, &Poll { told, ..poll(Some(6), 6, 55) }).await });
    bed.apply(&documents("lka", 7));
    let (_, answer) = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_ne!(answer["instanceVersion"].as_u64(), Some(6), "held until there was news, not ended by the leaf");

    // A farewell is noted in the receipt. What the process had said before may arrive late, and the next start in its pod states anew.
    let process = |incarnation: u64| ProcessId { pod_uid: POD.into(), incarnation };
    let goodbye = serde_json::to_vec(&Goodbye { format: 1, process: process(1) }).unwrap();
    let (status, _) = post(&mut sender, GOODBYE_PATH, goodbye.clone()).await;
    assert_eq!((status, receipts(&admin, "lka").await, has_ended(&admin, "lka").await), (204, vec![(1, 6)], true));
    let (status, refused) = ask(&mut sender, &poll(Some(6), 6, 0)).await;
    assert_eq!((status, &refused["reason"]), (409, &json!("StaleReceipt")), "{refused}");
    assert!(has_ended(&admin, "lka").await);
    let again = Poll { process: process(2), ..poll(Some(6), 6, 0) };
    assert_eq!(ask(&mut sender, &again).await.0, 200);
    assert_eq!((receipts(&admin, "lka").await, has_ended(&admin, "lka").await), (vec![(2, 6)], false));
    // So may the farewell of the one before.
    assert_eq!(post(&mut sender, GOODBYE_PATH, goodbye).await.0, 204);
    assert!(!has_ended(&admin, "lka").await);

    // A held poll does not hold the end up.
    let mut held = sender.clone();
    let again = Poll { process: process(3), ..poll(Some(6), 6, 55) };
    let waiting = tokio::spawn(async move { ask(&mut held, &again).await });
    until("the receipt is there", Duration::from_secs(10), || async {
        let now = receipts(&admin, "lka").await;
        if now == [(3, 6)] { Ok(()) } else { Err(format!("{now:?}")) }
    })
    .await;
    link.stop.cancel();
    let (status, _) = tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    assert_eq!(status, 200);
    tokio::time::timeout(Duration::from_secs(15), link.task).await.unwrap().unwrap();
    support::remove(&admin, "lka").await;

    // All this is all that the link does.
    let account = "saatkond-link";
    assert_eq!(link.calls.without_right(account, support::SYSTEM), Vec::<String>::new(), "not in RBAC.md");
    assert_eq!(link.calls.without_use(account, support::SYSTEM), Vec::<rights::Row>::new(), "no request uses these");
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_is_not_registered_is_refused_and_large_or_broken_messages_are_too() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let link = link(bed, "lkb").await;
    let uri = "saatkond://LINK/GOV/1/ss1?use=authentication&issue=1";
    let registered = issue(&link.authority, Usage::Authentication, uri, &[]);
    // The same name under the same authority, with another key: a chain proves nothing here.
    let minted = issue(&link.authority, Usage::Authentication, uri, &[]);
    bed.apply(&documents("lkb", 1));
    register(bed, &admin, "lkb", &registered.key).await;
    until("the key is known", Duration::from_secs(10), || {
        let (link, registered) = (&link, &registered);
        async move {
            let answer = ask(&mut dial(link, "lkb", registered).await, &poll(None, 0, 0)).await;
            if answer.0 == 200 { Ok(()) } else { Err(format!("{answer:?}")) }
        }
    })
    .await;
    let mut good = dial(&link, "lkb", &registered).await;
    let mut bad = dial(&link, "lkb", &minted).await;
    let silent = dial(&link, "lkb", &minted).await;
    let (status, refusal) = ask(&mut bad, &poll(Some(1), 1, 0)).await;
    assert_eq!((status, refusal["reason"].as_str()), (403, Some("UnknownKey")));
    // It has been told, and holds no place.
    until("its connection is closed", Duration::from_secs(10), || async {
        if bad.is_closed() && silent.is_closed() { Ok(()) } else { Err("still open".to_owned()) }
    })
    .await;
    assert!(receipts(&admin, "lkb").await.is_empty());

    // Neither does who begins to say something and stops: as many as there are places for strangers, and then one more of each.
    let mut waiting = Vec::new();
    for leaf in [&minted, &minted, &minted, &minted, &registered] {
        waiting.push(slow(&link, "lkb", leaf).await);
    }
    let (status, _) = ask(&mut dial(&link, "lkb", &registered).await, &poll(None, 0, 0)).await;
    assert_eq!(status, 200, "whoever is registered is served beside them");
    for mut stream in waiting {
        let mut said = Vec::new();
        let ended = tokio::time::timeout(Duration::from_secs(10), stream.read_to_end(&mut said)).await;
        assert!(ended.is_ok(), "a request without its body holds its place: {}", String::from_utf8_lossy(&said));
    }
    // One key has its share, and what it gives back is free again.
    let mut held = vec![dial(&link, "lkb", &registered).await, dial(&link, "lkb", &registered).await];
    let mut further = dial(&link, "lkb", &registered).await;
    let request = http::Request::post(format!("https://link{POLL_PATH}")).body(Full::new(Bytes::new())).unwrap();
    assert!(further.send_request(request).await.is_err(), "with the first connection these are three");
    held.pop();
    until("a place is free again", Duration::from_secs(10), || async {
        let mut sender = dial(&link, "lkb", &registered).await;
        let request = http::Request::post(format!("https://link{POLL_PATH}")).body(Full::new(Bytes::new())).unwrap();
        sender.send_request(request).await.map(|_| ()).map_err(|error| error.to_string())
    })
    .await;

    let cases: [(&str, Vec<u8>, u16); 5] = [
        ("not JSON", b"{".to_vec(), 400),
        ("nothing", Vec::new(), 400),
        ("too large", vec![b' '; 64 << 10], 413),
        ("another format", serde_json::to_vec(&Poll { format: 99, ..poll(None, 0, 0) }).unwrap(), 400),
        (
            "a pod UID that would be another field manager",
            serde_json::to_vec(&Poll {
                process: ProcessId { pod_uid: "../status".into(), incarnation: 1 },
                ..poll(Some(1), 1, 0)
            })
            .unwrap(),
            400,
        ),
    ];
    for (what, body, expected) in cases {
        let (status, answer) = post(&mut good, POLL_PATH, body).await;
        assert_eq!(status, expected, "{what}: {answer}");
    }
    let (status, _) = post(&mut good, "/v1/other", Vec::new()).await;
    assert_eq!(status, 404);
    // A peer without a certificate does not get as far as a request.
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from(link.authority.certificate().der().to_vec())).unwrap();
    let mut config = rustls::ClientConfig::builder().with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let stream = TcpStream::connect(link.address).await.unwrap();
    let name = ServerName::try_from(server_name("lkb")).unwrap();
    let refused = match tokio_rustls::TlsConnector::from(Arc::new(config)).connect(name, stream).await {
        Err(_) => true,
        Ok(stream) => {
            let handshake = hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
            let (mut sender, connection) = handshake.await.unwrap();
            tokio::spawn(connection);
            let request = http::Request::post("https://link/v1/poll").body(Full::new(Bytes::new())).unwrap();
            sender.send_request(request).await.is_err()
        }
    };
    assert!(refused, "a peer without a certificate was served");
    link.stop.cancel();
    tokio::time::timeout(Duration::from_secs(15), link.task).await.unwrap().unwrap();
    support::remove(&admin, "lkb").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn without_a_leaf_it_is_ready_until_there_is_something_to_serve() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let forget = || {
        let selector = format!("--selector={}", saatkond_operator::link::documents::selector());
        bed.kubectl(&["delete", "configmaps", "--namespace", support::SYSTEM, &selector]);
    };
    forget();
    let link = start(bed, authority(), tempfile::tempdir().unwrap(), None).await;
    bed.apply(&documents("lkc", 1));
    until("it misses its leaf", Duration::from_secs(10), || async {
        let list = link.readiness.list();
        if list.contains_key("the link's own leaf") { Ok(()) } else { Err(format!("{list:?}")) }
    })
    .await;
    forget();
    until("there is nothing to serve again", Duration::from_secs(10), || async {
        let list = link.readiness.list();
        if list.is_empty() { Ok(()) } else { Err(format!("{list:?}")) }
    })
    .await;
    link.stop.cancel();
    tokio::time::timeout(Duration::from_secs(15), link.task).await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_servers_status_it_may_change_the_receipts_alone() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let authority = authority();
    let leaf = issue(&authority, Usage::Authentication, "saatkond://LINK/GOV/1/ss1?use=authentication&issue=1", &[]);
    bed.apply(&documents("lkd", 1));
    register(bed, &admin, "lkd", &leaf.key).await;
    let link = Client::try_from(bed.account("saatkond-link").await).unwrap();
    let api: Api<SecurityServer> = Api::namespaced(link, "lkd-home");
    let patch = async |status: Value| {
        let params = PatchParams::apply("saatkond-link-test").force();
        let body = json!({"apiVersion": "saatkond.io/v1alpha1", "kind": "SecurityServer", "metadata": {"name": "ss1"}, "status": status});
        api.patch_status("ss1", &params, &Patch::Apply(body)).await
    };
    let key = json!([{"spkiSha256": "ab".repeat(32), "issueNumber": 9, "notAfter": "2030-01-01T00:00:00Z"}]);
    // A policy is in force some moments after it is stored.
    until("its own key is refused", Duration::from_secs(30), || async {
        match patch(json!({"registeredKeys": key})).await {
            Err(kube::Error::Api(status)) if status.message.contains("status.registeredKeys is the controller's") => {
                Ok(())
            }
            other => Err(format!("{other:?}")),
        }
    })
    .await;
    for refused in [json!({"issueNumber": 99}), json!({"replicas": 0}), json!({"identity": "EE/GOV/1/other"})] {
        let answer = patch(refused.clone()).await;
        assert!(
            matches!(&answer, Err(kube::Error::Api(status)) if status.is_forbidden() || status.code == 422),
            "{refused}: {answer:?}"
        );
    }
    let receipt = json!([{
        "podUid": POD, "incarnation": 1, "instanceVersion": 1, "serverVersion": 1, "bundleSequence": 1,
        "bundleHash": "00", "leafIssueNumber": 1, "leafSerial": "0a", "highestFormat": 1,
    }]);
    patch(json!({"processes": receipt})).await.unwrap();
}

/// What befalls the next write of a receipt, and how many there were.
#[derive(Default)]
struct Cut {
    next: Mutex<Option<Verdict>>,
    writes: AtomicUsize,
    died: Notify,
}

impl Fault for Cut {
    fn judge(&self, call: &Call) -> Verdict {
        if !call.is_write() {
            return Verdict::Pass;
        }
        self.writes.fetch_add(1, Ordering::SeqCst);
        self.next.lock().unwrap().take().unwrap_or(Verdict::Pass)
    }

    fn died(&self) {
        self.died.notify_one();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_receipt_whose_write_is_cut_is_stored_once_and_the_next_poll_is_answered() {
    let bed = bed();
    let _turn = bed.turn.lock().await;
    let admin = bed.admin().await;
    let authority = authority();
    let leaf = issue(&authority, Usage::Authentication, "saatkond://LINK/GOV/1/ss1?use=authentication&issue=1", &[]);
    bed.apply(&documents("lke", 9));
    register(bed, &admin, "lke", &leaf.key).await;
    let folder = own_leaf(&authority, "lke");
    let cut = Arc::new(Cut::default());
    // The key was registered before: a link that is ready knows it.
    let mut link = start(bed, authority, folder, Some(cut.clone())).await;
    for (version, verdict, carried_out) in [
        (1, Verdict::LoseAnswer, true),
        (2, Verdict::Answer(500), false),
        (3, Verdict::DieAfter, true),
        (4, Verdict::DieBefore, false),
    ] {
        let (standing, wanted) = (receipts(&admin, "lke").await, vec![(1, version)]);
        let mut sender = dial(&link, "lke", &leaf).await;
        *cut.next.lock().unwrap() = Some(verdict);
        if matches!(verdict, Verdict::DieAfter | Verdict::DieBefore) {
            let asked = tokio::spawn(async move { ask(&mut sender, &poll(Some(version), version, 0)).await });
            tokio::time::timeout(Duration::from_secs(10), cut.died.notified()).await.unwrap();
            assert!(!asked.is_finished(), "{verdict:?}: it was answered before anything was known to be stored");
            asked.abort();
            let Running { authority, _folder: folder, task, .. } = link;
            task.abort();
            let _ = task.await;
            link = start(bed, authority, folder, Some(cut.clone())).await;
        } else {
            let (status, refusal) = ask(&mut sender, &poll(Some(version), version, 0)).await;
            assert_eq!((status, refusal["reason"].as_str()), (503, Some("Unavailable")), "{verdict:?}");
        }
        let expected = if carried_out { &wanted } else { &standing };
        assert_eq!(receipts(&admin, "lke").await, *expected, "{verdict:?}");
        // The process states the same once more, as it does until it is answered.
        let (status, answer) = ask(&mut dial(&link, "lke", &leaf).await, &poll(Some(version), version, 0)).await;
        assert_eq!((status, answer["instanceVersion"].as_u64()), (200, Some(9)), "{verdict:?}: {answer}");
        assert_eq!(receipts(&admin, "lke").await, wanted, "{verdict:?}");
        let writes = if carried_out { 1 } else { 2 };
        assert_eq!(cut.writes.swap(0, Ordering::SeqCst), writes, "{verdict:?}: what stands is not written again");
    }
    link.stop.cancel();
    tokio::time::timeout(Duration::from_secs(15), link.task).await.unwrap().unwrap();
    support::remove(&admin, "lke").await;
}
