//! Peers that are not what they should be, on port 5500 and behind it; and several servers of one provider (checklist T038, T060,
//! T061, T071, T072, T099, T160 to T162, T166, T170).

use http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use saatkond_gateway::frames::{Event, fault_frame, frame};
use saatkond_gateway::request::hash::request_hash;
use saatkond_gateway::request::headers::Line;
use saatkond_gateway::request::rest_part::{AnswerPart, RequestPart};
use saatkond_pki::authority::Authority;
use saatkond_pki::digest::sha512;
use saatkond_pki::leaf::Usage;
use saatkond_wire::exchange::{CONTENT_TYPE, EXCHANGE_PATH, Fault, INSTANCE_CONFIGURATION_PATH, Kind};
use saatkond_wire::identifier::ServerId;
use saatkond_wire::leaf_name::LeafName;
use tokio::net::{TcpListener, TcpStream};

use crate::support::eventually;
use crate::support::federation::{Federation, authority, consumer, issue, member, provider, whole};
use crate::support::http::{raw, request};
use crate::support::information_system::InformationSystem;
use crate::support::log::Log;
use crate::support::pair::{PETS, Pair};
use crate::support::rogue::{
    Client, Leaf, TurnsAway, authentication, batched, rest, serve, signed, signed_answer, signing, turn_away, unsigned,
};

fn server(owner: &str, code: &str) -> ServerId {
    ServerId { owner: member(owner), server_code: code.into() }
}

/// All refusals of peers that were counted.
fn refused_so_far(metrics: &str) -> usize {
    let lines = metrics.lines().filter(|line| line.starts_with("saatkond_gateway_peers_refused_total"));
    lines.map(|line| line.rsplit(' ').next().unwrap().parse::<usize>().unwrap()).sum()
}

fn leaf_at(authority: &Authority, usage: Usage, name: &LeafName, now: Timestamp) -> Leaf {
    let dns: &[&str] = if usage == Usage::Signing { &[] } else { &["x.example"] };
    issue(authority, usage, name, dns, now, SignedDuration::from_mins(4))
}

#[tokio::test]
async fn bad_certificates_are_refused_with_a_reason_that_is_counted() {
    let log = Log::default();
    let _guard = log.start();
    let pair = Pair::start().await;
    let (own, foreign) = (&pair.federation.authority, authority(7));
    let now = Timestamp::now();
    let name = LeafName::Authentication { server: server("200", "SS2"), issue: 1 };
    let signing_name = LeafName::Signing { member: member("200"), server: server("200", "SS2"), issue: 1 };
    let odd = issue(
        own,
        Usage::Authentication,
        &LeafName::Link { instance: "INST".into() },
        &[],
        now,
        SignedDuration::from_hours(1),
    );
    let cases: Vec<(&str, Leaf)> = vec![
        ("expired", leaf_at(own, Usage::Authentication, &name, now - SignedDuration::from_mins(6))),
        ("not_yet_valid", leaf_at(own, Usage::Authentication, &name, now + SignedDuration::from_mins(60))),
        ("unknown_issuer", leaf_at(&foreign, Usage::Authentication, &name, now)),
        ("wrong_purpose", leaf_at(own, Usage::Signing, &signing_name, now)),
        ("wrong_purpose", leaf_at(own, Usage::Link, &LeafName::Link { instance: "INST".into() }, now)),
        ("no_name", odd),
        ("self_signed", self_signed("x", &name.to_string())),
    ];
    let warnings = || log.warnings_but("saatkond_gateway::link");
    let (mut counted_so_far, mut lines) = (0, warnings().len());
    for (reason, leaf) in cases {
        let message =
            signed(&rest("GET", PETS, &consumer()), b"", &signing(own, &member("200"), &server("200", "SS2")));
        // With TLS 1.3 the client learns of the refusal when it first reads.
        let refused = match Client::connect(pair.ss1.server_address, Some(&leaf)).await {
            Ok(mut client) => client.exchange(message).await.is_err(),
            Err(_) => true,
        };
        assert!(refused, "{reason}");
        let counted = format!("peers_refused_total{{reason=\"{reason}\"}}");
        let metrics = || pair.ss1.metrics();
        eventually(reason, metrics, async || pair.ss1.metrics().contains(&counted)).await;
        // Once, with the reason, in the metrics and in the log.
        counted_so_far += 1;
        eventually(reason, metrics, async || refused_so_far(&pair.ss1.metrics()) >= counted_so_far).await;
        let refusals = warnings();
        assert!(refusals[lines..].len() == 1 && refusals[lines].contains(reason), "{reason}: {refusals:?}");
        lines = refusals.len();
    }
    let refused = match Client::connect(pair.ss1.server_address, None).await {
        Ok(mut client) => client.exchange(Vec::new()).await.is_err(),
        Err(_) => true,
    };
    assert!(refused, "no certificate");
    let metrics = || pair.ss1.metrics();
    let counted = async || pair.ss1.metrics().contains("peers_refused_total{reason=\"no_certificate\"} 1");
    eventually("no certificate", metrics, counted).await;
    assert_eq!(refused_so_far(&pair.ss1.metrics()), counted_so_far + 1, "{}", pair.ss1.metrics());
    assert!(pair.system.asked("").is_empty());
    assert_eq!(pair.call(PETS).await.status, 200, "and the good peer is served");
}

/// Made by OpenSSL, which no project code has had a hand in.
fn self_signed(common_name: &str, uri: &str) -> Leaf {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name).to_str().unwrap().to_owned();
    let status = std::process::Command::new("openssl")
        .args(["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "1"])
        .args(["-subj", &format!("/CN={common_name}"), "-addext", &format!("subjectAltName=URI:{uri}")])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-addext", "keyUsage=digitalSignature"])
        .args(["-addext", "extendedKeyUsage=serverAuth,clientAuth", "-keyout", &path("key"), "-out", &path("crt")])
        .stderr(std::process::Stdio::null())
        .status()
        .expect("the openssl program is needed");
    assert!(status.success());
    let read = |name| std::fs::read_to_string(path(name)).unwrap();
    (read("crt"), saatkond_pki::key::KeyPair::from_pkcs8_pem(&read("key")).unwrap())
}

#[tokio::test]
async fn openssl_agrees_about_port_5500() {
    let pair = Pair::start().await;
    let address = pair.ss1.server_address.to_string();
    let run = async |more: Vec<String>| {
        let mut command = tokio::process::Command::new("openssl");
        command.args(["s_client", "-connect", &address, "-alpn", "h2", "-tls1_3", "-brief"]).args(more);
        let output = command.stdin(std::process::Stdio::null()).output().await.expect("the openssl program is needed");
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
    };
    let directory = tempfile::tempdir().unwrap();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        std::fs::write(&path, text).unwrap();
        path.to_str().unwrap().to_owned()
    };
    let bundle = file("ca", &pair.federation.authority.certificate().to_pem());
    let (leaf, key) = authentication(&pair.federation.authority, &server("200", "SS2"));
    let (leaf, key) = (file("crt", &leaf), file("key", &key.to_pkcs8_pem()));
    let trusted = run(vec!["-CAfile".into(), bundle, "-cert".into(), leaf, "-key".into(), key]).await;
    assert!(trusted.contains("Verification: OK") && trusted.contains("TLSv1.3"), "{trusted}");
    let mut command = tokio::process::Command::new("openssl");
    command.args(["s_client", "-connect", &address, "-tls1_2"]).stdin(std::process::Stdio::null());
    assert!(!command.output().await.unwrap().status.success(), "TLS 1.2 is not spoken between gateways");
}

#[tokio::test]
async fn t099_t170_what_a_peer_may_not_say() {
    let log = Log::default();
    let _guard = log.start();
    let mut pair = Pair::declare().await;
    let other = pair.federation.site("300", "SS3", &[]);
    pair.federation.instance.members.push(saatkond_wire::configuration::MemberEntry {
        member_class: "GOV".into(),
        member_code: "300".into(),
        name: None,
        subsystems: Vec::new(),
    });
    pair.federation.start(&mut pair.ss1).await;
    let own = &pair.federation.authority;
    let (ss2, ss3) = (server("200", "SS2"), other.id.clone());
    let signer = signing(own, &member("200"), &ss2);
    let ask = rest("GET", PETS, &consumer());
    let good = signed(&ask, b"", &signer);
    let address = pair.ss1.server_address;
    let fault = async |leaf: Leaf, message: Vec<u8>| {
        let mut client = Client::connect(address, Some(&leaf)).await.unwrap();
        client.exchange(message).await.unwrap().fault().replace("server.serverproxy.", "")
    };
    let ok = authentication(own, &ss2);
    let mut client = Client::connect(address, Some(&ok)).await.unwrap();
    assert!(matches!(
        client.exchange(good.clone()).await.unwrap().events.as_slice(),
        [Event::Rest(_), .., Event::Signature(_)]
    ));

    let unregistered = authentication(own, &server("200", "GONE"));
    assert_eq!(fault(unregistered, good.clone()).await, "service_failed.ssl_authentication_failed");
    assert_eq!(fault(authentication(own, &ss3), good.clone()).await, "service_failed.ssl_authentication_failed");
    assert!(pair.ss1.metrics().contains("peers_refused_total{reason=\"unregistered\"} 1"));
    assert!(pair.ss1.metrics().contains("peers_refused_total{reason=\"not_serving\"} 1"));
    for reason in ["unregistered", "not_serving"] {
        let warnings = log.warnings_but("saatkond_gateway::link");
        assert!(warnings.iter().any(|line| line.contains(&format!("reason=\"{reason}\""))), "{reason}: {warnings:#?}");
    }

    let nowhere = rest("GET", "/r1/INST/GOV/100/LONELY/x", &consumer());
    let cases: Vec<(&str, Vec<u8>)> = vec![
        ("service_failed.unknown_member", signed(&nowhere, b"", &signer)),
        ("missing_signature", unsigned(&ask, b"")),
        ("missing_rest", frame(Kind::Signature, b"x").to_vec()),
        ("missing_rest", Vec::new()),
        ("mime_parsing_failed", vec![9, 9, 9, 9, 9, 9]),
        ("mime_parsing_failed", [good.clone(), vec![1]].concat()),
        (
            "signature_verification.malformed_signature",
            [unsigned(&ask, b""), frame(Kind::Signature, b"junk").to_vec()].concat(),
        ),
        ("signature_verification.invalid_signature_value", {
            let mut message = signed(&ask, b"body", &signer);
            let at = message.windows(4).position(|window| window == b"body").unwrap();
            message[at] = b'B';
            message
        }),
        ("signature_verification.incorrect_certificate", signed(&ask, b"", &signing(own, &member("100"), &ss2))),
        ("signature_verification.incorrect_certificate", signed(&ask, b"", &signing(own, &member("200"), &ss3))),
        ("signature_verification.cert_validation", signed(&ask, b"", &signing(&authority(9), &member("200"), &ss2))),
        ("service_failed.internal_error", signed(b"GET\r\nnonsense\r\n", b"", &signer)),
        ("service_failed.internal_error", signed(b"\xff", b"", &signer)),
        ("service_failed.internal_error", {
            let mut with = ask.to_vec();
            with.extend_from_slice(b"Host:evil\r\n");
            signed(&with, b"", &signer)
        }),
    ];
    for (expected, message) in cases {
        assert_eq!(fault(authentication(own, &ss2), message).await, expected);
    }
    let wrong = client.send("POST", EXCHANGE_PATH, "text/plain", good.clone()).await.unwrap();
    assert_eq!(wrong.fault(), "server.serverproxy.invalid_content_type");
    let wrong = client.send("PUT", EXCHANGE_PATH, CONTENT_TYPE, good).await.unwrap();
    assert_eq!(wrong.fault(), "server.serverproxy.invalid_http_method");
    assert_eq!(client.send("POST", "/", CONTENT_TYPE, Vec::new()).await.unwrap().status, StatusCode::NOT_FOUND);
    assert_eq!(client.send("GET", INSTANCE_CONFIGURATION_PATH, "", Vec::new()).await.unwrap().status, StatusCode::OK);
    assert_eq!(pair.system.asked("").len(), 1, "the one good message, and none of the others");
}

/// An honest answer to a REST part, before a test spoils it.
fn honest(rest: &[u8]) -> AnswerPart {
    let part = RequestPart::decode(rest).unwrap();
    let value = |name: &str| part.headers.iter().rev().find(|line| line.is(name)).unwrap().value.clone();
    let headers = vec![
        Line::new("x-road-id", value("x-road-id")),
        Line::new("x-road-client", consumer().to_string()),
        Line::new("x-road-service", format!("{}/pets", provider())),
        Line::new("x-road-request-id", value("x-road-request-id")),
        Line::new("x-road-request-hash", request_hash(&sha512(rest), None)),
    ];
    AnswerPart { status: 200, reason: "OK".into(), headers }
}

#[tokio::test]
async fn t060_t061_answers_that_lie() {
    let mut pair = Pair::declare().await;
    pair.federation.start(&mut pair.ss2).await;
    let own = &pair.federation.authority;
    let ss1 = server("100", "SS1");
    let signer = signing(own, &member("100"), &ss1);
    let (elsewhere, not_his) = (signing(&authority(5), &member("100"), &ss1), signing(own, &member("200"), &ss1));
    let fault = Fault { kind: "Server.ServerProxy.AccessDenied".into(), message: "old".into(), detail: "id".into() };
    // Which lie is told stands in the path of the request.
    let answer = move |rest: &[u8]| {
        let path = RequestPart::decode(rest).unwrap().path;
        let lie = path.rsplit('/').next().unwrap().to_owned();
        let mut part = honest(rest);
        if let Some(line) = part.headers.iter_mut().find(|line| line.is(&lie)) {
            line.value = "other".into();
        }
        if lie == "twice" {
            part.headers.push(part.headers[0].clone());
        }
        if lie == "hop" {
            part.headers.push(Line::new("Connection", "close"));
        }
        if let Some(status) = lie.strip_prefix("with-body-") {
            part.status = status.parse().unwrap();
        }
        let part = part.encode();
        let long = vec![b'x'; 3 << 20];
        let body = match lie.as_str() {
            "honest-long" => signed_answer(&part, &long, &signer),
            "unsigned" => unsigned(&part, b"good"),
            "unsigned-long" | "with-body-204" | "with-body-304" => unsigned(&part, &long),
            "batched" => batched(&part, b"good", &signer, true),
            "batched-other" => batched(&part, b"good", &signer, false),
            "batched-foreign" => batched(&part, b"good", &elsewhere, true),
            "foreign" => signed_answer(&part, b"good", &elsewhere),
            "digested-as-request" => signed(&part, b"good", &signer),
            "not-his" => signed_answer(&part, b"good", &not_his),
            "altered" => {
                let mut message = signed_answer(&part, b"good", &signer);
                let at = message.windows(4).position(|window| window == b"good").unwrap();
                message[at] = b'G';
                message
            }
            "altered-long" => {
                let mut message = signed_answer(&part, &long, &signer);
                let at = message.len() / 2;
                message[at] = b'y';
                message
            }
            "empty" => Vec::new(),
            "garbage" => vec![7; 100],
            "old-fault" => fault_frame(&fault).to_vec(),
            "late-fault" => [unsigned(&part, &long), fault_frame(&fault).to_vec()].concat(),
            _ => signed_answer(&part, b"good", &signer),
        };
        let status = if lie == "status" { StatusCode::BAD_GATEWAY } else { StatusCode::OK };
        (status, if lie == "kind" { "text/html" } else { CONTENT_TYPE }, body)
    };
    serve(pair.ss1.server_address, &authentication(own, &ss1), answer).await;
    let call = async |lie: &str| pair.call(&format!("{PETS}/{lie}")).await;
    assert_eq!(call("honest").await.text(), "good");
    assert_eq!(call("batched").await.text(), "good");
    assert_eq!(call("honest-long").await.body.len(), 3 << 20);
    for (lie, expected) in [
        ("x-road-id", "inconsistent_response"),
        ("x-road-client", "inconsistent_response"),
        ("x-road-service", "inconsistent_response"),
        ("x-road-request-id", "inconsistent_response"),
        ("x-road-request-hash", "inconsistent_response"),
        ("twice", "inconsistent_response"),
        ("hop", "mime_parsing_failed"),
        ("unsigned", "missing_signature"),
        ("foreign", "signature_verification.cert_validation"),
        ("batched-foreign", "signature_verification.cert_validation"),
        ("batched-other", "signature_verification.invalid_signature_value"),
        ("digested-as-request", "signature_verification.invalid_signature_value"),
        ("not-his", "signature_verification.incorrect_certificate"),
        ("altered", "signature_verification.invalid_signature_value"),
        ("empty", "missing_rest"),
        ("garbage", "mime_parsing_failed"),
        ("status", "http_error"),
        ("kind", "invalid_content_type"),
        ("with-body-204", "mime_parsing_failed"),
        ("with-body-304", "mime_parsing_failed"),
    ] {
        call(lie).await.assert_error(&format!("server.clientproxy.{expected}"));
    }
    // What has no body is complete with its head: nothing of it is shown before the evidence.
    for (lie, expected) in [("unsigned", "mime_parsing_failed"), ("unsigned-long", "mime_parsing_failed")] {
        let head = request("HEAD", &format!("{PETS}/{lie}"), &[("X-Road-Client", "INST/GOV/200/CONS")], None);
        let response = raw(pair.ss2.client, &head).await;
        let expected = format!("server.clientproxy.{expected}");
        assert_eq!((response.status, response.one("X-Road-Error")), (500, expected), "{lie}: {response:?}");
    }
    // T097: the spelling of servers before 7.8.
    let old = call("old-fault").await;
    assert_eq!((old.status, old.one("X-Road-Error").as_str()), (500, "Server.ServerProxy.AccessDenied"));
    for lie in ["unsigned-long", "altered-long", "late-fault"] {
        let response = call(lie).await;
        assert!(!response.is_complete && response.body.len() < 3 << 20, "{lie}: {} bytes", response.body.len());
    }
}

#[tokio::test]
async fn t038_t160_t161_t162_t166_several_servers_of_one_provider() {
    let system = InformationSystem::start().await;
    let mut federation = Federation::new();
    let mut sites = Vec::new();
    for code in ["A", "B"] {
        let mut site = federation.site("100", code, &[provider()]);
        let url = format!("http://{}/{code}", system.address);
        site.service(&provider(), "pets", &url, vec![whole(consumer())]);
        sites.push(site);
    }
    let mut ss2 = federation.site("200", "SS2", &[consumer()]);
    for site in sites.iter_mut().chain([&mut ss2]) {
        federation.start(site).await;
    }
    let (a, b) = (0, 1);
    let client = ss2.client;
    let call = async |path: &str, pinned: Option<&str>| {
        let mut headers = vec![("X-Road-Client", "INST/GOV/200/CONS")];
        headers.extend(pinned.map(|server| ("X-Road-Security-Server", server)));
        raw(client, &request("GET", &format!("{PETS}{path}"), &headers, None)).await
    };
    let target = async |pinned: Option<&str>| call("", pinned).await.json()["target"].as_str().unwrap().to_owned();
    for _ in 0..4 {
        assert_eq!(target(Some("INST/GOV/100/B")).await, "/B");
    }
    let mut seen: Vec<_> = [target(None).await, target(None).await].into();
    seen.sort();
    assert_eq!(seen, ["/A", "/B"], "load is spread");
    // One breaks off after it has the request: nobody else is asked.
    let broken = call("/half", None).await;
    broken.assert_error("server.serverproxy.io_error");
    assert_eq!(system.asked("/half").len(), 1);
    sites[a].stop().await;
    for _ in 0..6 {
        assert_eq!(target(None).await, "/B", "the other answers in the same call");
    }
    let pinned = call("", Some("INST/GOV/100/A")).await;
    pinned.assert_error("server.clientproxy.network_error");
    sites[b].stop().await;
    call("", None).await.assert_error("server.clientproxy.network_error");
}

#[tokio::test]
async fn a_request_that_a_server_has_not_taken_is_taken_by_another() {
    let system = InformationSystem::start().await;
    let mut federation = Federation::new();
    let away = federation.site("100", "A", &[provider()]);
    let mut there = federation.site("100", "B", &[provider()]);
    there.service(&provider(), "pets", &format!("http://{}/B", system.address), vec![whole(consumer())]);
    let mut ss2 = federation.site("200", "SS2", &[consumer()]);
    federation.start(&mut there).await;
    federation.start(&mut ss2).await;
    let client = ss2.client;
    let call = async |path: &str, pinned: Option<&str>| {
        let mut headers = vec![("X-Road-Client", "INST/GOV/200/CONS")];
        headers.extend(pinned.map(|server| ("X-Road-Security-Server", server)));
        raw(client, &request("POST", &format!("{PETS}{path}"), &headers, Some(b"body"))).await
    };
    let leaf = authentication(&federation.authority, &away.id);
    // What the first may have acted on goes to nobody else.
    let rogue = turn_away(away.server_address, &leaf, TurnsAway::Broken).await;
    let before = system.asked("/broken").len();
    let answers = [call("/broken", None).await, call("/broken", None).await];
    let failed: Vec<_> = answers.iter().filter(|answer| answer.status != 200).collect();
    assert_eq!((failed.len(), system.asked("/broken").len() - before), (1, 1), "{answers:?}");
    failed[0].assert_error("server.clientproxy.io_error");
    rogue.abort();
    let _ = rogue.await;
    for how in [TurnsAway::Refused, TurnsAway::Leaving] {
        let rogue = turn_away(away.server_address, &leaf, how).await;
        // Each begins with another server.
        for _ in 0..4 {
            let answer = call("", None).await;
            assert_eq!((answer.status, answer.json()["target"].as_str()), (200, Some("/B")), "{how:?}: {answer:?}");
        }
        let pinned = call("/pinned", Some("INST/GOV/100/A")).await;
        assert!(pinned.has("X-Road-Error") && system.asked("/pinned").is_empty(), "{how:?}: {pinned:?}");
        rogue.abort();
        let _ = rogue.await;
    }
}

#[tokio::test]
async fn t071_t072_t074_bounds_of_a_message() {
    let mut pair = Pair::declare().await;
    pair.ss1.server.limits.max_body_bytes = Some(1 << 20);
    pair.federation.start(&mut pair.ss1).await;
    pair.federation.start(&mut pair.ss2).await;
    assert_eq!(pair.post(&format!("{PETS}/fits"), &vec![b'x'; 1 << 20]).await.status, 200);
    let refused = pair.post(&format!("{PETS}/too-long"), &vec![b'x'; (1 << 20) + 1]).await;
    refused.assert_error("server.serverproxy.logging_failed");
    assert!(pair.system.asked("/too-long").is_empty());
    let answer = pair.call(&format!("{PETS}/bytes/{}", (1 << 20) + 1)).await;
    assert!(answer.has("X-Road-Error") || !answer.is_complete, "{}", answer.body.len());

    pair.ss1.server.limits.max_body_bytes = None;
    pair.ss1.server.version += 1;
    pair.federation.write_server(&pair.ss1);
    pair.ss2.server.limits.max_body_bytes = Some(1000);
    pair.ss2.server.version += 1;
    pair.federation.write_server(&pair.ss2);
    let metrics = || (pair.ss1.metrics(), pair.ss2.metrics());
    let both = async || metrics().0.contains("server_version 2") && metrics().1.contains("server_version 2");
    eventually("both have the new bounds", metrics, both).await;
    let own = pair.post(&format!("{PETS}/too-long"), &vec![b'x'; 1001]).await;
    own.assert_error("server.clientproxy.io_error");
    assert!(own.text().contains("logging_failed"));
    pair.call(&format!("{PETS}/bytes/1001")).await.assert_error("server.clientproxy.logging_failed");
}

/// Behind one address there may be several processes, and one that is gone must fail no call that another one can take.
#[tokio::test]
async fn where_no_further_connection_can_be_made_an_open_one_serves() {
    let mut pair = Pair::declare().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    pair.federation.instance.servers.iter_mut().find(|server| server.server_code == "SS1").unwrap().address =
        listener.local_addr().unwrap().to_string();
    pair.federation.start(&mut pair.ss1).await;
    let provider = pair.ss1.server_address;
    let accepting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut behind = TcpStream::connect(provider).await.unwrap();
            tokio::spawn(async move { tokio::io::copy_bidirectional(&mut stream, &mut behind).await });
        }
    });
    pair.federation.start(&mut pair.ss2).await;
    assert_eq!(pair.call(PETS).await.status, 200);
    accepting.abort();
    assert!(accepting.await.unwrap_err().is_cancelled(), "nobody listens there any more");
    for _ in 0..12 {
        assert_eq!(pair.call(PETS).await.status, 200);
    }
}
