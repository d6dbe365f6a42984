//! Who keeps a place, and for how long: connections, exchanges and memory come back when nobody waits for an answer any more, and whoever
//! stalls keeps nobody else out.

use std::time::Duration;

use bytes::Bytes;
use futures_util::{StreamExt as _, stream};
use http::StatusCode;
use saatkond_gateway::frames::{Event, frame};
use saatkond_wire::exchange::{CONTENT_TYPE, EXCHANGE_PATH, Kind};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

use crate::support::eventually;
use crate::support::federation::{consumer, member, provider, whole};
use crate::support::http::request;
use crate::support::pair::{PETS, Pair};
use crate::support::rogue::{Client, authentication, rest, signed, signing};

/// A pair whose service may take for ever.
async fn patient() -> Pair {
    let mut pair = Pair::declare().await;
    let url = format!("http://{}/v2", pair.system.address);
    pair.ss1.service(&provider(), "patient", &url, vec![whole(consumer())]).timeout_seconds = 0;
    pair
}

async fn none_is_under_way(pair: &Pair) {
    let metrics = || (pair.ss1.metrics(), pair.ss2.metrics());
    let none = |metrics: &str, side: &str| metrics.contains(&format!("in_flight{{side=\"{side}\"}} 0"));
    let free = async || none(&pair.ss1.metrics(), "server") && none(&pair.ss2.metrics(), "client");
    eventually("none is under way", metrics, free).await;
}

/// Also: exchanges beyond what fits into a server's memory, or beyond one peer's half of it, are refused before they are taken.
#[tokio::test]
async fn callers_that_hang_up_give_their_places_back() {
    let mut pair = patient().await;
    pair.federation.start_with(&mut pair.ss1, |settings| settings.memory_limit = Some(4 << 20)).await;
    pair.federation.start(&mut pair.ss2).await;
    let places = pair.ss1.gateway.as_ref().unwrap().context.capacity.exchanges / 2;
    let headers = [("X-Road-Client", "INST/GOV/200/CONS")];
    let mut callers = Vec::new();
    for number in 0..places {
        let mut caller = TcpStream::connect(pair.ss2.client).await.unwrap();
        // Some with a body that is read while the request is handled.
        let body = (number % 2 == 1).then(|| vec![b'x'; 100_000]);
        let target = "/r1/INST/GOV/100/PROV/patient/silent";
        caller.write_all(&request("POST", target, &headers, body.as_deref())).await.unwrap();
        callers.push(caller);
    }
    let metrics = || (pair.ss1.metrics(), pair.ss2.metrics());
    let asked = async || pair.system.asked("/silent").len() == places;
    eventually("all are under way", || pair.system.asked("/silent").len(), asked).await;
    pair.call(PETS).await.assert_error("server.clientproxy.io_error");
    let refused = "peers_refused_total{reason=\"too_many_exchanges_of_one_peer\"} 3";
    assert!(pair.ss1.metrics().contains(refused), "{:?}", metrics());
    // Whoever presents another leaf has a half of his own.
    let leaf = authentication(&pair.federation.authority, &pair.ss2.id);
    let credential = signing(&pair.federation.authority, &member("200"), &pair.ss2.id);
    let mut other = Client::connect(pair.ss1.server_address, Some(&leaf)).await.unwrap();
    let answer = other.exchange(signed(&rest("GET", PETS, &consumer()), b"", &credential)).await.unwrap();
    assert!(matches!(answer.events.last(), Some(Event::Signature(_))), "{answer:?}");
    drop(callers);
    none_is_under_way(&pair).await;
    let counted = format!("exchanges_total{{side=\"client\",outcome=\"caller_gone\"}} {places}");
    assert!(pair.ss2.metrics().contains(&counted), "{}", pair.ss2.metrics());
    assert_eq!(pair.call(PETS).await.status, 200);
}

/// The provider's server has passed a part on and waits for more when its receiver goes.
#[tokio::test]
async fn an_answer_that_has_stopped_keeps_no_place_when_nobody_waits_for_it() {
    let mut pair = patient().await;
    pair.federation.start(&mut pair.ss1).await;
    pair.federation.start(&mut pair.ss2).await;
    let mut callers = Vec::new();
    for _ in 0..4 {
        let mut caller = TcpStream::connect(pair.ss2.client).await.unwrap();
        let headers = [("X-Road-Client", "INST/GOV/200/CONS")];
        caller.write_all(&request("GET", "/r1/INST/GOV/100/PROV/patient/stuck", &headers, None)).await.unwrap();
        callers.push(caller);
    }
    // A part has passed the provider's server: from then on it is another task there that waits.
    let held = || pair.ss2.gateway.as_ref().unwrap().context.held.total();
    eventually("a part of each is held", held, async || held() > 4 * 100_000).await;
    drop(callers);
    none_is_under_way(&pair).await;
}

/// Whoever has no certificate keeps nobody out who has one.
#[tokio::test]
async fn connections_that_say_nothing_give_way_to_peers() {
    let mut pair = Pair::declare().await;
    pair.federation.start_with(&mut pair.ss1, |settings| settings.memory_limit = Some(4 << 20)).await;
    pair.federation.start(&mut pair.ss2).await;
    let places = pair.ss1.gateway.as_ref().unwrap().context.capacity.peers;
    let mut silent = Vec::new();
    for _ in 0..3 * places {
        silent.push(TcpStream::connect(pair.ss1.server_address).await.unwrap());
    }
    assert_eq!(pair.call(PETS).await.status, 200);
    let metrics = pair.ss1.metrics();
    assert!(metrics.contains("peers_refused_total{reason=\"too_many_handshakes\"}"), "{metrics}");
}

/// A long answer that its receiver does not take: the place, the connection to the information system and the memory are given back.
#[tokio::test]
async fn a_peer_that_stops_reading_is_given_up() {
    let mut pair = Pair::declare().await;
    pair.federation.start_with(&mut pair.ss1, |settings| settings.peer_silence = Duration::from_millis(500)).await;
    let (own, ss2) = (&pair.federation.authority, pair.ss2.id.clone());
    let credential = signing(own, &member("200"), &ss2);
    let leaf = authentication(own, &ss2);
    let mut client = Client::connect(pair.ss1.server_address, Some(&leaf)).await.unwrap();
    let much = format!("{PETS}/bytes/{}", 32 << 20);
    let message = signed(&rest("GET", &much, &consumer()), b"", &credential);
    let unread = client.begin("POST", EXCHANGE_PATH, CONTENT_TYPE, message).await.unwrap();
    assert_eq!(unread.status(), StatusCode::OK);
    let metrics = || pair.ss1.metrics();
    let given_up = async || metrics().contains("in_flight{side=\"server\"} 0");
    assert!(!given_up().await, "the answer is on its way: {}", metrics());
    eventually("the answer is given up", metrics, given_up).await;
    assert!(metrics().contains("exchanges_total{side=\"server\",outcome=\"io_error\"} 1"), "{}", metrics());
    // The same connection serves on.
    drop(unread);
    let answer = client.exchange(signed(&rest("GET", PETS, &consumer()), b"", &credential)).await.unwrap();
    assert_eq!(answer.status, StatusCode::OK);
    assert!(matches!(answer.events.last(), Some(Event::Signature(_))), "{answer:?}");
}

/// Nothing is known of whoever has not said yet what it wants: a byte now and then keeps no place.
#[tokio::test]
async fn a_rest_part_that_comes_byte_by_byte_is_not_waited_for() {
    let mut pair = Pair::declare().await;
    pair.federation.start_with(&mut pair.ss1, |settings| settings.peer_silence = Duration::from_millis(500)).await;
    let leaf = authentication(&pair.federation.authority, &pair.ss2.id);
    let mut client = Client::connect(pair.ss1.server_address, Some(&leaf)).await.unwrap();
    let bytes = frame(Kind::Rest, &rest("GET", PETS, &consumer()));
    // Each byte comes well within the bound of a silence, all of them in some 20 s.
    let pace = Duration::from_millis(100);
    let drops = stream::iter(bytes.to_vec()).then(move |byte| async move {
        tokio::time::sleep(pace).await;
        Bytes::copy_from_slice(&[byte])
    });
    let answer = client.exchange_streamed(drops);
    let answer = tokio::time::timeout(Duration::from_secs(5), answer).await.expect("it is still waited for").unwrap();
    assert_eq!(answer.fault(), "server.serverproxy.service_failed.io_error");
}
