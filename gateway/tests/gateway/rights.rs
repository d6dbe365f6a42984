//! Services and access rights (checklist T100 to T126, T209, T210).

use crate::support::base::{BASE, call, mark};
use crate::support::http::{raw, request};

fn of(service: &str) -> String {
    format!("/r1/INST/GOV/100/PROV/{service}")
}

async fn kind(client: &str, method: &str, target: &str) -> String {
    let response = raw(BASE.client, &request(method, target, &[("X-Road-Client", client)], None)).await;
    match response.status {
        200 => "served".into(),
        _ => response.one("X-Road-Error").trim_start_matches("server.serverproxy.").to_owned(),
    }
}

async fn cons(method: &str, target: &str) -> String {
    kind("INST/GOV/200/CONS", method, target).await
}

#[tokio::test]
async fn t100_an_unknown_service_is_unknown_to_all() {
    assert_eq!(cons("GET", &of("none")).await, "unknown_service");
    assert_eq!(kind("INST/GOV/200/OTHER", "GET", &of("none")).await, "unknown_service");
}

#[tokio::test]
async fn t103_t104_t105_disabled_services() {
    let response = call("GET", &of("disabled"), &[], None).await;
    response.assert_error("server.serverproxy.service_disabled");
    assert!(response.text().contains("closed till 9"));
    assert_eq!(cons("GET", &of("disabled-quietly")).await, "service_disabled");
    let denied = call("GET", &of("disabled-and-denied"), &[], None).await;
    denied.assert_error("server.serverproxy.access_denied");
    assert!(!denied.text().contains("secret notice"));
}

#[tokio::test]
async fn t106_no_rights_no_call() {
    let mark = mark();
    assert_eq!(cons("GET", &format!("{}/{mark}", of("denied"))).await, "access_denied");
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t107_rights_are_not_inherited() {
    for client in ["INST/GOV/200/OTHER", "INST/GOV/200"] {
        assert_eq!(kind(client, "GET", &of("only-cons")).await, "access_denied", "{client}");
    }
    assert_eq!(cons("GET", &of("only-cons")).await, "served");
}

#[tokio::test]
async fn t108_t110_groups() {
    for service in ["global", "local"] {
        assert_eq!(cons("GET", &of(service)).await, "served", "{service}");
        assert_eq!(kind("INST/GOV/200/OTHER", "GET", &of(service)).await, "access_denied", "{service}");
    }
    // A local group of this code exists, but of another client.
    assert_eq!(cons("GET", "/r1/INST/GOV/%C3%96%C3%84/PROV/local").await, "access_denied");
}

#[tokio::test]
async fn t112_to_t120_t123_to_t125_endpoints() {
    for (method, path, expected) in [
        ("GET", "/pets/1", "served"),
        ("GET", "/pets/", "served"),
        ("POST", "/pets/1", "access_denied"),
        ("GET", "/pets", "access_denied"),
        ("GET", "/pets/1/photo", "access_denied"),
        ("DELETE", "/any/1/photo", "served"),
        ("GET", "/lower", "served"),
        ("GET", "/x", "served"),
        ("HEAD", "/x", "access_denied"),
        ("GET", "/x?y=/../z", "served"),
        ("GET", "/files/a.json", "served"),
        ("GET", "/ab", "access_denied"),
        ("GET", "/lit*", "served"),
        ("GET", "/litx", "access_denied"),
        ("GET", "/api/t%65st/foo", "served"),
        ("GET", "/api/test/foo/../bar", "access_denied"),
        ("GET", "/docs/a%20b", "served"),
        ("GET", "", "access_denied"),
    ] {
        let target = format!("{}{path}", of("endpoints"));
        let found = if method == "HEAD" {
            let head = call("HEAD", &target, &[], None).await;
            assert_eq!(head.status, 500);
            head.one("X-Road-Error").trim_start_matches("server.serverproxy.").to_owned()
        } else {
            cons(method, &target).await
        };
        assert_eq!(found, expected, "{method} {path}");
    }
    let response = call("GET", &format!("{}/docs/a%20b", of("endpoints")), &[], None).await;
    assert_eq!(response.json()["target"], "/v2/docs/a%20b");
}

#[tokio::test]
async fn t121_t122_nothing_reaches_what_is_not_public() {
    let mark = mark();
    for path in [
        "/public/%2e%2e/secret",
        "/public/..%2Fsecret",
        "/public/../secret",
        "/%2e%2e/secret",
        "/public/%3F/../secret",
        "/public/%23/../secret",
        "/public/..%5Csecret",
        "/public/%5C..%5Csecret",
        "/public/%00/../secret",
        "/public//../secret",
        "/public/..;/secret",
        "/public/%2e%2e;x/secret",
        "/%2Fsecret/public/x",
        "/public%2F..%2Fsecret",
        "//secret/public/x",
    ] {
        let target = format!("{}{path}?{mark}", of("endpoints"));
        let found = cons("GET", &target).await;
        assert!(found.ends_with("access_denied") || found.ends_with("internal_error"), "{path}: {found}");
    }
    assert!(BASE.system.asked(&mark).is_empty());
    // Twice encoded is not encoded: it is called as it was matched, below /public.
    let response = call("GET", &format!("{}/public/%252e%252e/secret", of("endpoints")), &[], None).await;
    assert_eq!(response.json()["target"], "/v2/public/%252e%252e/secret");
}

#[tokio::test]
async fn t121_a_right_on_the_whole_service_reaches_nothing_outside_of_it() {
    let mark = mark();
    for path in ["/../secret", "/%2e%2e/secret", "/..%2fsecret", "/x/..%5c..%5csecret"] {
        assert_eq!(cons("GET", &format!("{}{path}?{mark}", of("pets"))).await, "access_denied", "{path}");
    }
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t126_rights_add_up() {
    assert_eq!(cons("POST", &of("both")).await, "served");
}

#[tokio::test]
async fn t209_odd_paths() {
    let mark = mark();
    for (path, expected) in [
        ("//x", "access_denied"),
        ("/a%5Cb", "access_denied"),
        ("/a%00b", "access_denied"),
        ("/a%25b", "served"),
        ("/a%FFb", "served"),
    ] {
        assert_eq!(cons("GET", &format!("{}{path}?{mark}", of("pets"))).await, expected, "{path}");
    }
    assert!(cons("GET", &format!("{}/%u0041?{mark}", of("pets"))).await.ends_with("clientproxy.internal_error"));
    assert_eq!(BASE.system.asked(&mark).len(), 2);
}

#[tokio::test]
async fn t210_odd_queries_pass_as_they_are() {
    for query in ["a={b}", "a=%zz", "a=|^`[]'"] {
        let response = call("GET", &format!("{}?{query}", of("pets")), &[], None).await;
        assert_eq!(response.json()["target"], format!("/v2?{query}"));
    }
    let quoted = call("GET", &format!("{}?a=\"<>", of("pets")), &[], None).await;
    assert!(
        quoted.status == 200 && quoted.json()["target"] == "/v2?a=\"<>" || quoted.has("X-Road-Error"),
        "{quoted:?}"
    );
}
