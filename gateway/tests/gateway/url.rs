//! Targets and identifiers (checklist T001 to T019).

use crate::support::base::{BASE, CLIENT, PETS, call, echo, mark};
use crate::support::http::{raw, request};

async fn sees(target: &str, expected: &str) {
    assert_eq!(echo("GET", target, &[], None).await.1.target(), expected, "{target}");
}

#[tokio::test]
async fn t001_the_call_arrives_and_its_answer_comes_back() {
    let (_, echo) = echo("GET", &format!("{PETS}/1"), &[], None).await;
    assert_eq!((echo.0["method"].as_str(), echo.target()), (Some("GET"), "/v2/1"));
}

#[tokio::test]
async fn t002_the_query_is_untouched() {
    sees(&format!("{PETS}?a=1&a=2&b=%2F&&c"), "/v2?a=1&a=2&b=%2F&&c").await;
}

#[tokio::test]
async fn t003_no_path_adds_no_slash() {
    sees(PETS, "/v2").await;
}

#[tokio::test]
async fn t004_a_slash_stays_a_slash() {
    sees(&format!("{PETS}/"), "/v2/").await;
}

#[tokio::test]
async fn t005_a_slash_at_the_end_of_the_address_is_not_doubled() {
    sees("/r1/INST/GOV/100/PROV/slash/x", "/v2/x").await;
}

#[tokio::test]
async fn t006_an_address_without_path() {
    sees("/r1/INST/GOV/100/PROV/root?a=1", "/?a=1").await;
}

#[tokio::test]
async fn t007_a_code_with_an_encoded_slash() {
    sees("/r1/INST/GOV/100/PROV/BAR%2FSERVICE/x", "/v2/x").await;
}

#[tokio::test]
async fn t008_encoded_separators_are_none() {
    let mark = mark();
    let response = call("GET", &format!("/r1/INST%2FGOV%2F100%2FPROV%2Fpets/{mark}"), &[], None).await;
    response.assert_error("server.clientproxy.internal_error");
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t009_codes_are_utf8() {
    let (response, _) = echo("GET", "/r1/INST/GOV/%C3%96%C3%84/PROV/pets/1", &[], None).await;
    assert_eq!(response.one("x-road-service"), "INST/GOV/%C3%96%C3%84/PROV/pets");
}

#[tokio::test]
async fn t010_the_path_is_untouched() {
    sees(&format!("{PETS}/a%3Bb/%2F/c"), "/v2/a%3Bb/%2F/c").await;
}

#[tokio::test]
async fn t011_case_matters() {
    call("GET", "/r1/INST/GOV/100/PROV/Pets", &[], None).await.assert_error("server.serverproxy.unknown_service");
}

#[tokio::test]
async fn t012_four_segments_are_an_error() {
    call("GET", "/r1/INST/GOV/100/pets", &[], None).await.assert_error("server.clientproxy.internal_error");
}

#[tokio::test]
async fn t013_three_segments_are_an_error() {
    call("GET", "/r1/INST/GOV", &[], None).await.assert_error("server.clientproxy.internal_error");
}

#[tokio::test]
async fn t014_another_version_is_not_r1() {
    let mark = mark();
    let response = call("GET", &format!("/r2/INST/GOV/100/PROV/pets/{mark}"), &[], None).await;
    assert_eq!(response.status, 404);
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t015_bad_percent_encoding_in_an_identifier() {
    for segment in ["%zz", "PROV%"] {
        let target = format!("/r1/INST/GOV/100/{segment}/pets");
        call("GET", &target, &[], None).await.assert_error("server.clientproxy.internal_error");
    }
}

#[tokio::test]
async fn t016_raw_characters_in_an_identifier() {
    let mark = mark();
    let blank = call("GET", &format!("/r1/INST/GOV/100/PR OV/pets/{mark}"), &[], None).await;
    assert_eq!(blank.status / 100, 4);
    let quote = call("GET", &format!("/r1/INST/GOV/100/PR\"OV/pets/{mark}"), &[], None).await;
    quote.assert_error("server.clientproxy.internal_error");
    assert!(BASE.system.asked(&mark).is_empty());
}

#[tokio::test]
async fn t017_a_discouraged_character_is_served() {
    sees("/r1/INST/GOV/100/PROV/semi%3Bcolon/x", "/v2/x").await;
    sees("/r1/INST/GOV/100/PROV/semi;colon/x", "/v2/x").await;
}

#[tokio::test]
async fn t018_a_target_beyond_the_limit() {
    let mark = mark();
    let response = call("GET", &format!("{PETS}/{mark}?{}", "a".repeat(9000)), &[], None).await;
    assert_eq!(response.status, 414);
    assert!(BASE.system.asked(&mark).is_empty());
    sees(&format!("{PETS}/next"), "/v2/next").await;
}

#[tokio::test]
async fn t019_a_member_is_a_client() {
    let headers = [("X-Road-Client", "INST/GOV/200")];
    let response = raw(BASE.client, &request("GET", PETS, &headers, None)).await;
    assert_eq!((response.status, response.one("x-road-client").as_str()), (200, "INST/GOV/200"));
}

#[tokio::test]
async fn other_paths() {
    let get = async |target: &str| raw(BASE.client, &request("GET", target, &[CLIENT], None)).await;
    assert_eq!(get("/").await.status, 200);
    for target in ["/x", "/listClients", "/r1"] {
        let response = get(target).await;
        assert_eq!((response.status, response.json()["type"].as_str()), (404, Some("client.invalid_request")));
    }
    for target in ["/asic?queryId=1", "/verificationconf"] {
        let response = get(target).await;
        assert_eq!((response.status, response.one("Content-Type").as_str()), (404, "text/plain;charset=utf-8"));
    }
}
