//! Request headers, response headers and the hash (checklist T020 to T064).

use saatkond_gateway::request::hash::request_hash;
use saatkond_pki::digest::sha512;

use crate::support::base::{BASE, CLIENT, PETS, call, echo, mark};
use crate::support::http::{raw, request};

const FIVE: [&str; 5] = ["x-road-id", "x-road-client", "x-road-service", "x-road-request-id", "x-road-request-hash"];

async fn with(headers: &[(&str, &str)]) -> crate::support::http::Response {
    raw(BASE.client, &request("GET", PETS, headers, None)).await
}

#[tokio::test]
async fn t020_no_client() {
    with(&[]).await.assert_error("server.clientproxy.invalid_client_identifier");
}

#[tokio::test]
async fn t021_header_names_have_no_case() {
    for name in ["x-road-client", "X-ROAD-CLIENT"] {
        assert_eq!(with(&[(name, CLIENT.1)]).await.status, 200);
    }
}

#[tokio::test]
async fn t022_the_last_client_counts() {
    let response = with(&[CLIENT, ("x-road-client", "INST/GOV/200/OTHER")]).await;
    assert_eq!(response.one("x-road-client"), "INST/GOV/200/OTHER");
    let two = [CLIENT, ("X-Road-Client", "INST/GOV/200/OTHER")];
    let only = raw(BASE.client, &request("GET", "/r1/INST/GOV/100/PROV/only-cons", &two, None)).await;
    only.assert_error("server.serverproxy.access_denied");
}

#[tokio::test]
async fn t023_a_client_of_two_or_five_parts() {
    for client in ["INST/GOV", "INST/GOV/200/CONS/x"] {
        with(&[("X-Road-Client", client)]).await.assert_error("server.clientproxy.internal_error");
    }
}

#[tokio::test]
async fn t024_a_client_code_with_a_slash() {
    let response = with(&[("X-Road-Client", "INST/GOV/200/sub%2Fsystem")]).await;
    assert_eq!((response.status, response.one("x-road-client").as_str()), (200, "INST/GOV/200/sub%2Fsystem"));
}

#[tokio::test]
async fn t025_a_client_that_is_not_registered_here() {
    for client in ["INST/GOV/200/NOBODY", "INST/GOV/100/PROV", "XX/GOV/200/CONS"] {
        with(&[("X-Road-Client", client)]).await.assert_error("server.clientproxy.unknown_member");
    }
}

#[tokio::test]
async fn t027_t028_an_id_is_made() {
    let (response, echo) = echo("GET", PETS, &[], None).await;
    let id = response.one("x-road-id");
    assert_eq!(id, echo.one("x-road-id"));
    let uuid = id.strip_prefix("INST-").unwrap().parse::<uuid::Uuid>().unwrap();
    assert_eq!(uuid.get_version_num(), 4);
}

#[tokio::test]
async fn t029_the_callers_id_is_kept() {
    let (response, echo) = echo("GET", PETS, &[("X-Road-Id", "abc")], None).await;
    assert_eq!((response.one("x-road-id"), echo.one("X-Road-Id")), ("abc".into(), "abc".into()));
}

#[tokio::test]
async fn t030_an_id_may_be_used_twice() {
    let (first, _) = echo("GET", PETS, &[("X-Road-Id", "twice")], None).await;
    let (second, _) = echo("GET", PETS, &[("X-Road-Id", "twice")], None).await;
    for name in ["x-road-request-id", "x-road-request-hash"] {
        assert_ne!(first.one(name), second.one(name));
    }
}

#[tokio::test]
async fn t031_the_last_id_counts() {
    let (response, _) = echo("GET", PETS, &[("X-Road-Id", "one"), ("X-Road-Id", "two")], None).await;
    assert_eq!(response.one("x-road-id"), "two");
}

#[tokio::test]
async fn t032_request_ids_are_the_servers() {
    let (response, echo) = echo("GET", PETS, &[("X-Road-Request-Id", "mine")], None).await;
    let id = response.one("x-road-request-id");
    assert_eq!(id, echo.one("x-road-request-id"));
    id.parse::<uuid::Uuid>().unwrap();
}

#[tokio::test]
async fn t033_a_request_hash_does_not_travel() {
    let (_, echo) = echo("GET", PETS, &[("X-Road-Request-Hash", "h")], None).await;
    assert!(echo.all("x-road-request-hash").is_empty());
}

#[tokio::test]
async fn t034_to_t036_user_issue_and_party_travel() {
    for party in ["COM/777", "777"] {
        let headers = [("X-Road-UserId", "EE123"), ("X-Road-Issue", "I-1"), ("X-Road-Represented-Party", party)];
        let (_, echo) = echo("GET", PETS, &headers, None).await;
        for (name, value) in headers {
            assert_eq!(echo.one(name), value);
        }
    }
}

#[tokio::test]
async fn t037_a_party_of_three_parts() {
    let response = call("GET", PETS, &[("X-Road-Represented-Party", "INST/COM/777")], None).await;
    response.assert_error("server.clientproxy.internal_error");
}

#[tokio::test]
async fn t039_t040_a_pinned_server_that_cannot_be() {
    for server in ["INST/GOV/100/NONE", "INST/GOV/200/SS2"] {
        let response = call("GET", PETS, &[("X-Road-Security-Server", server)], None).await;
        response.assert_error("server.clientproxy.invalid_security_server");
    }
    assert_eq!(call("GET", PETS, &[("X-Road-Security-Server", "INST/GOV/100/SS1")], None).await.status, 200);
}

#[tokio::test]
async fn t041_a_pinned_id_of_three_parts() {
    let response = call("GET", PETS, &[("X-Road-Security-Server", "INST/GOV/SS1")], None).await;
    response.assert_error("server.clientproxy.internal_error");
}

#[tokio::test]
async fn t042_other_headers_travel_in_order() {
    let headers = [("X-Custom", "1"), ("Authorization", "Bearer t"), ("X-Custom", "2"), ("Cookie", "c=1")];
    let (_, echo) = echo("GET", PETS, &headers, None).await;
    assert_eq!(echo.all("X-Custom"), ["1", "2"]);
    assert_eq!((echo.one("Authorization"), echo.one("Cookie")), ("Bearer t".into(), "c=1".into()));
}

#[tokio::test]
async fn t043_t044_t050_what_stays_behind() {
    let headers = [
        ("Connection", "X-Secret"),
        ("X-Secret", "1"),
        ("Keep-Alive", "5"),
        ("TE", "trailers"),
        ("Trailer", "x"),
        ("Upgrade", "h2c"),
        ("Proxy-Authorization", "b"),
        ("User-Agent", "cli"),
    ];
    let (_, echo) = echo("GET", PETS, &headers, None).await;
    for name in ["X-Secret", "Keep-Alive", "TE", "Trailer", "Upgrade", "Proxy-Authorization", "Connection"] {
        assert!(echo.all(name).is_empty(), "{name}: {echo:?}");
    }
    assert_eq!(echo.one("Host"), BASE.system.address.to_string());
    assert_ne!(echo.one("User-Agent"), "cli");
    assert!(echo.all("Accept-Encoding").is_empty(), "nothing is added that the caller did not ask for");
}

#[tokio::test]
async fn t045_t046_content_type_is_the_callers() {
    let kind = "application/json; charset=utf-8";
    let (_, with) = echo("POST", PETS, &[("Content-Type", kind)], Some(b"{}")).await;
    assert_eq!((with.one("Content-Type").as_str(), with.0["body"].as_str()), (kind, Some("{}")));
    let (_, without) = echo("POST", PETS, &[], Some(b"{}")).await;
    assert!(without.all("Content-Type").is_empty());
}

#[tokio::test]
async fn t047_accept_is_the_callers() {
    let (_, with) = echo("GET", PETS, &[("Accept", "application/xml")], None).await;
    assert_eq!(with.one("Accept"), "application/xml");
    assert!(echo("GET", PETS, &[], None).await.1.all("Accept").is_empty());
}

#[tokio::test]
async fn t048_expect_is_answered_here() {
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    let mut stream = tokio::net::TcpStream::connect(BASE.client).await.unwrap();
    let head = request("POST", PETS, &[CLIENT, ("Expect", "100-continue"), ("Content-Length", "2")], None);
    stream.write_all(&head).await.unwrap();
    let mut interim = [0; 25];
    stream.read_exact(&mut interim).await.unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100 Continue\r\n\r\n");
    stream.write_all(b"{}").await.unwrap();
    let response = crate::support::http::read(&mut stream, false).await.unwrap();
    let echo = crate::support::base::Echo(response.json());
    assert!(echo.all("Expect").is_empty() && echo.0["body"] == "{}", "{echo:?}");
}

#[tokio::test]
async fn t049_cache_headers_pass() {
    let response = call("GET", &format!("{PETS}/cache"), &[("Cache-Control", "no-cache")], None).await;
    assert_eq!((response.one("Cache-Control"), response.one("ETag")), ("no-store".into(), "\"1\"".into()));
    let asked = BASE.system.asked("/cache");
    assert!(asked.iter().all(|asked| asked.all("Cache-Control") == ["no-cache"]), "{asked:?}");
}

#[tokio::test]
async fn t051_t052_t053_what_a_success_carries() {
    let (response, _) = echo("GET", PETS, &[], None).await;
    for name in FIVE {
        response.one(name);
    }
    assert!(!response.has("X-Road-Error"));
    assert_eq!(response.one("x-road-client"), "INST/GOV/200/CONS");
    assert_eq!(response.one("x-road-service"), "INST/GOV/100/PROV/pets");
}

#[tokio::test]
async fn t054_t055_an_information_system_cannot_speak_for_the_servers() {
    let response = call("GET", &format!("{PETS}/fake"), &[], None).await;
    assert_eq!(response.status, 200);
    for name in FIVE {
        assert_ne!(response.one(name), "fake");
    }
    assert!(!response.has("X-Road-Error"));
}

#[tokio::test]
async fn t056_t057_hop_by_hop_headers_stay_behind_and_date_passes() {
    let response = call("GET", &format!("{PETS}/fake"), &[], None).await;
    for name in ["Server", "Keep-Alive"] {
        assert!(!response.has(name), "{response:?}");
    }
    assert_eq!(response.one("Date"), "Mon, 01 Jan 2001 00:00:00 GMT");
}

/// What the rule of gateway.md 4 gives for a request whose lines are all known to the test.
fn hash(head: &str, body: Option<&[u8]>) -> String {
    request_hash(&sha512(head.as_bytes()), body.map(sha512).as_ref())
}

#[tokio::test]
async fn t059_the_hash_can_be_computed_again() {
    let headers = [CLIENT, ("X-Road-Id", "msg-42"), ("Content-Type", "application/json")];
    let body = br#"{"name":"Siddu"}"#;
    let response = raw(BASE.client, &request("POST", &format!("{PETS}/a%20b?x=1"), &headers, Some(body))).await;
    let id = response.one("x-road-request-id");
    let part = format!(
        "POST\r\n{PETS}/a%20b?x=1\r\nX-Road-Client:INST/GOV/200/CONS\r\nX-Road-Id:msg-42\r\n\
         Content-Type:application/json\r\nx-road-request-id:{id}\r\n"
    );
    assert_eq!(response.one("x-road-request-hash"), hash(&part, Some(body)));
}

#[tokio::test]
async fn t062_no_byte_is_no_body() {
    let response = call("POST", PETS, &[("X-Road-Id", "e")], Some(b"")).await;
    let id = response.one("x-road-request-id");
    let part =
        format!("POST\r\n{PETS}\r\nX-Road-Client:INST/GOV/200/CONS\r\nX-Road-Id:e\r\nx-road-request-id:{id}\r\n");
    assert_eq!(response.one("x-road-request-hash"), hash(&part, None));
}

#[tokio::test]
async fn t063_cookies_are_nobodys_memory() {
    let response = call("GET", &format!("{PETS}/cookie"), &[], None).await;
    assert_eq!(response.all("Set-Cookie"), ["a=1", "b=2"]);
    assert!(echo("GET", PETS, &[], None).await.1.all("Cookie").is_empty());
}

#[tokio::test]
async fn t064_codings_pass_untouched() {
    let response = call("GET", &format!("{PETS}/gzip"), &[("Accept-Encoding", "gzip")], None).await;
    assert_eq!(response.one("Content-Encoding"), "gzip");
    assert_eq!(response.body, b"\x1f\x8b not really gzip");
}

#[tokio::test]
async fn t211_an_empty_id_is_refused_before_the_call() {
    let mark = mark();
    let response = call("GET", &format!("{PETS}/{mark}"), &[("X-Road-Id", "")], None).await;
    response.assert_error("server.clientproxy.internal_error");
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t212_header_bytes_survive() {
    let mark = mark();
    call("GET", &format!("{PETS}/{mark}"), &[("X-Name", "Ä\u{80}ö")], None).await;
    let asked = BASE.system.asked(&mark);
    let value = &asked[0].headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("x-name")).unwrap().1;
    assert_eq!(value, "Ä\u{80}ö".as_bytes());
}
