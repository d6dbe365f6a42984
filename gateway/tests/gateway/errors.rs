//! Errors (checklist T081 to T099).

use std::time::{Duration, Instant};

use crate::support::base::{PETS, call};

const MISSING: &str = "/r1/INST/GOV/100/PROV/none";

fn of(service: &str) -> String {
    format!("/r1/INST/GOV/100/PROV/{service}")
}

#[tokio::test]
async fn t081_t082_the_information_systems_errors_are_its_own() {
    let response = call("GET", &format!("{PETS}/status/405"), &[], None).await;
    assert_eq!(
        (response.status, response.text().as_str(), response.has("X-Road-Error")),
        (405, r#"{"own":"405"}"#, false)
    );
    let response = call("GET", &format!("{PETS}/status/500"), &[], None).await;
    assert_eq!((response.status, response.has("X-Road-Error")), (500, false));
}

#[tokio::test]
async fn t083_nobody_listens() {
    call("GET", &of("closed"), &[], None).await.assert_error("server.serverproxy.network_error");
}

#[tokio::test]
async fn t084_no_such_host() {
    call("GET", &of("unknown-host"), &[], None).await.assert_error("server.serverproxy.unknown_host");
}

#[tokio::test]
async fn t085_silence() {
    let started = Instant::now();
    call("GET", &format!("{}/silent", of("quick")), &[], None).await.assert_error("server.serverproxy.io_error");
    assert!(
        (Duration::from_millis(900)..Duration::from_secs(4)).contains(&started.elapsed()),
        "{:?}",
        started.elapsed()
    );
}

#[tokio::test]
async fn t086_slow_is_not_silent() {
    let response = call("GET", &format!("{}/drip", of("quick")), &[], None).await;
    assert_eq!(response.text(), "drips");
}

#[tokio::test]
async fn t087_broken_off() {
    for path in ["half", "garbage"] {
        let response = call("GET", &format!("{PETS}/{path}"), &[], None).await;
        response.assert_error("server.serverproxy.io_error");
    }
}

#[tokio::test]
async fn t087_a_long_answer_that_breaks_off_is_never_complete() {
    let response = call("GET", &format!("{PETS}/half-of-much"), &[], None).await;
    assert_eq!(response.status, 200);
    assert!(!response.is_complete && response.body.len() < 3_000_000, "{} bytes", response.body.len());
}

#[tokio::test]
async fn t089_t090_the_form_of_an_error() {
    let response = call("GET", MISSING, &[], None).await;
    let json = response.json();
    let mut keys: Vec<_> = json.as_object().unwrap().keys().cloned().collect();
    keys.sort();
    assert_eq!(keys, ["detail", "message", "type"]);
    json["detail"].as_str().unwrap().parse::<uuid::Uuid>().unwrap();
    assert_eq!(response.one("X-Road-Error"), json["type"].as_str().unwrap());
}

#[tokio::test]
async fn t091_to_t094_the_kind_of_an_error() {
    for (accept, kind) in [
        (None, "application/json"),
        (Some("text/xml"), "text/xml;charset=utf-8"),
        (Some("text/*"), "text/xml;charset=utf-8"),
        (Some("application/xml;q=0.1, application/json"), "application/xml;charset=utf-8"),
        (Some("*/*"), "application/json"),
        (Some("foo"), "application/json"),
    ] {
        let headers: Vec<_> = accept.iter().map(|value| ("Accept", *value)).collect();
        let response = call("GET", MISSING, &headers, None).await;
        assert_eq!(response.one("Content-Type"), kind, "{accept:?}");
        if kind.contains("xml") {
            let text = response.text();
            assert!(text.contains("<error><type>server.serverproxy.unknown_service</type><message>"), "{text}");
        }
    }
}

#[tokio::test]
async fn t095_whatever_is_in_the_message() {
    let target = format!("{PETS}%22%3C%26%0A");
    call("GET", &target, &[], None).await.assert_error("server.serverproxy.unknown_service");
    let xml = call("GET", &target, &[("Accept", "text/xml")], None).await.text();
    assert_eq!(xml.matches('<').count(), 9, "{xml}");
}

#[tokio::test]
async fn t096_t098_errors_of_the_provider_pass_as_they_are() {
    let response = call("GET", MISSING, &[("X-Road-Id", "mine")], None).await;
    response.assert_error("server.serverproxy.unknown_service");
    assert!(response.json()["message"].as_str().unwrap().contains("INST/GOV/100/PROV/none"));
}

#[tokio::test]
async fn t213_after_an_error_the_connection_can_be_used() {
    use crate::support::base::{BASE, CLIENT};
    use crate::support::http::{read, request};
    use tokio::io::AsyncWriteExt as _;
    let mut stream = tokio::net::TcpStream::connect(BASE.client).await.unwrap();
    for accept in ["application/json", "text/xml"] {
        stream.write_all(&request("GET", MISSING, &[CLIENT, ("Accept", accept)], None)).await.unwrap();
        assert_eq!(read(&mut stream, false).await.unwrap().status, 500);
    }
    stream.write_all(&request("GET", PETS, &[CLIENT], None)).await.unwrap();
    assert_eq!(read(&mut stream, false).await.unwrap().status, 200);
}

#[tokio::test]
async fn t214_long_headers_of_the_information_system() {
    let response = call("GET", &format!("{PETS}/long-headers"), &[], None).await;
    assert_eq!((response.status, response.one("X-Long-19").len()), (200, 1000));
    call("GET", &format!("{PETS}/too-long-headers"), &[], None).await.assert_error("server.serverproxy.io_error");
}

#[tokio::test]
async fn t159_a_provider_that_nobody_serves() {
    for target in ["/r1/INST/GOV/999/X/y", "/r1/INST/GOV/100/LONELY/y", "/r1/XX/GOV/100/PROV/pets"] {
        call("GET", target, &[], None).await.assert_error("server.clientproxy.unknown_member");
    }
}

#[tokio::test]
async fn a_service_without_address() {
    call("GET", &of("no-address"), &[], None).await.assert_error("server.serverproxy.service_missing_url");
}

#[tokio::test]
async fn t157_metadata_services_are_services_that_are_not_offered() {
    for (method, service) in
        [("GET", "listMethods"), ("GET", "allowedMethods"), ("GET", "getOpenAPI"), ("POST", "listMethods")]
    {
        call(method, &of(service), &[], None).await.assert_error("server.serverproxy.unknown_service");
    }
}

#[tokio::test]
async fn t013_t020_by_the_document() {
    use crate::support::http::{raw, request};
    use crate::support::pair::Pair;
    let mut pair = Pair::declare().await;
    pair.ss2.server.error_profile = saatkond_wire::configuration::ErrorProfile::Document;
    pair.federation.start(&mut pair.ss1).await;
    pair.federation.start(&mut pair.ss2).await;
    let client = ("X-Road-Client", "INST/GOV/200/CONS");
    for (target, headers, status, kind) in [
        ("/r1/INST/GOV", vec![client], 400, "client.bad_request"),
        (PETS, vec![], 400, "client.bad_request"),
        (PETS, vec![("X-Road-Client", "INST/GOV")], 400, "client.bad_request"),
        (PETS, vec![("X-Road-Client", "INST/GOV/200/NOBODY")], 500, "server.clientproxy.unknown_member"),
        (MISSING, vec![client], 500, "server.serverproxy.unknown_service"),
    ] {
        let response = raw(pair.ss2.client, &request("GET", target, &headers, None)).await;
        assert_eq!((response.status, response.one("X-Road-Error").as_str()), (status, kind), "{target}");
    }
}
