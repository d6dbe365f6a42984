//! Methods, bodies, redirects (checklist T065 to T080).

use crate::support::base::{BASE, CLIENT, PETS, call, echo, mark};
use crate::support::http::{raw, request};
use crate::support::information_system::pattern;

#[tokio::test]
async fn t065_eight_methods_are_carried() {
    for method in ["GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"] {
        let mark = mark();
        let response = call(method, &format!("{PETS}/{mark}"), &[], None).await;
        assert_eq!(response.status, 200, "{method}");
        let asked = BASE.system.asked(&mark);
        assert_eq!(asked.iter().map(|asked| asked.method.as_str()).collect::<Vec<_>>(), [method]);
    }
}

#[tokio::test]
async fn t066_other_methods_are_not() {
    let mark = mark();
    for method in ["FOO", "get", "PROPFIND"] {
        let response = call(method, &format!("{PETS}/{mark}"), &[], None).await;
        response.assert_error("server.clientproxy.internal_error");
    }
    assert_eq!(call("CONNECT", &format!("{PETS}/{mark}"), &[], None).await.status, 400);
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t067_t215_head_has_no_body_and_no_length_of_nothing() {
    let response = call("HEAD", &format!("{PETS}/length"), &[], None).await;
    assert_eq!(response.status, 200);
    assert!(!response.has("Content-Length"));
    response.one("x-road-request-hash");
}

#[tokio::test]
async fn t068_a_large_request_arrives_whole() {
    let (mark, body) = (mark(), pattern(3_000_000));
    let response = call("POST", &format!("{PETS}/sink/{mark}"), &[], Some(&body)).await;
    assert_eq!(response.status, 200);
    let asked = BASE.system.asked(&mark);
    assert_eq!(
        (asked[0].all("Content-Length"), asked[0].all("x-sunk")),
        (vec!["3000000".into()], vec!["3000000".into()])
    );
}

#[tokio::test]
async fn t068_bodies_of_every_interesting_length() {
    for length in [1, 65_535, 65_536, 65_537, 262_144, 300_001] {
        let (mark, body) = (mark(), pattern(length));
        let response = call("POST", &format!("{PETS}/{mark}"), &[], Some(&body)).await;
        assert_eq!(response.json()["length"], length);
        assert!(BASE.system.asked(&mark)[0].body == body[..length.min(100_000)]);
    }
}

#[tokio::test]
async fn t069_a_chunked_request_has_a_length_at_the_end() {
    let chunked = b"5;x=y\r\nhello\r\n1\r\n!\r\n0\r\nX-Trailer: 1\r\n\r\n";
    let mut bytes = request("POST", PETS, &[CLIENT, ("Transfer-Encoding", "chunked")], None);
    bytes.extend_from_slice(chunked);
    let response = raw(BASE.client, &bytes).await;
    let echo = crate::support::base::Echo(response.json());
    assert_eq!((echo.0["body"].as_str(), echo.one("Content-Length").as_str()), (Some("hello!"), "6"));
    assert!(echo.all("Transfer-Encoding").is_empty() && echo.all("X-Trailer").is_empty());
}

#[tokio::test]
async fn t070_answers_of_every_interesting_length() {
    for length in [0, 1, 65_536, 65_537, 1 << 20, (1 << 20) + 1, 5_000_000] {
        let response = call("GET", &format!("{PETS}/bytes/{length}"), &[], None).await;
        assert!(response.is_complete && response.body == pattern(length), "{length}: {} bytes", response.body.len());
    }
}

#[tokio::test]
async fn t075_redirects_are_the_callers() {
    let response = call("GET", &format!("{PETS}/status/302"), &[], None).await;
    assert_eq!((response.status, response.one("Location").as_str()), (302, "http://elsewhere/x"));
}

#[tokio::test]
async fn t076_answers_without_body() {
    for status in [204, 304] {
        let response = call("GET", &format!("{PETS}/status/{status}"), &[], None).await;
        assert_eq!((response.status, response.body.len()), (status, 0));
        assert!(!response.has("Content-Length") && !response.has("Transfer-Encoding"));
    }
}

#[tokio::test]
async fn t077_multipart_is_opaque() {
    let body = b"--b\r\nContent-Disposition: form-data; name=\"f\"\r\n\r\n\0\x01\r\n--b--\r\n";
    let mark = mark();
    call("POST", &format!("{PETS}/{mark}"), &[("Content-Type", "multipart/form-data; boundary=b")], Some(body)).await;
    let asked = &BASE.system.asked(&mark)[0];
    assert_eq!(asked.body, body);
    assert_eq!(asked.all("Content-Type"), ["multipart/form-data; boundary=b"]);
}

#[tokio::test]
async fn t078_a_body_goes_along_with_delete() {
    assert_eq!(echo("DELETE", PETS, &[], Some(b"{}")).await.1.0["body"], "{}");
    assert_eq!(echo("GET", PETS, &[], Some(b"{}")).await.1.0["body"], "", "and with GET it does not");
    assert_eq!(echo("POST", PETS, &[], None).await.1.one("Content-Length"), "0");
}

#[tokio::test]
async fn t079_nothing_is_cached() {
    let mark = mark();
    for _ in 0..2 {
        call("GET", &format!("{PETS}/{mark}"), &[], None).await;
    }
    assert_eq!(BASE.system.asked(&mark).len(), 2);
}

#[tokio::test]
async fn t080_cors_is_not_ours() {
    let headers = [("Origin", "https://x"), ("Access-Control-Request-Method", "GET")];
    let (response, echo) = echo("OPTIONS", PETS, &headers, None).await;
    assert_eq!(echo.one("Origin"), "https://x");
    assert!(!response.headers.iter().any(|(name, _)| name.to_ascii_lowercase().starts_with("access-control")));
}

#[tokio::test]
async fn a_chunked_answer_arrives_and_its_trailers_do_not() {
    let response = call("GET", &format!("{PETS}/chunks"), &[], None).await;
    assert_eq!((response.text().as_str(), response.has("Trailer"), response.has("X-T")), ("abcde", false, false));
}
