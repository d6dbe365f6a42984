//! Keys that somebody has stolen, once the certificates for them are revoked.

use saatkond_gateway::frames::Event;
use saatkond_wire::identifier::ServerId;

use crate::support::eventually;
use crate::support::federation::{Site, consumer, member};
use crate::support::pair::{PETS, Pair};
use crate::support::rogue::{Client, numbered_authentication, numbered_signing, rest, signed};

/// Publishes that leaves of a server below this number are revoked, and waits until the provider's gateway knows.
async fn revoke_below(pair: &mut Pair, server: usize, lowest: u64) {
    pair.federation.instance.servers[server].lowest_issue_number = lowest;
    pair.publish();
    let version = pair.federation.instance.version;
    let knows = |site: &Site| site.gateway.as_ref().unwrap().context.state.at_hand().0 == version;
    eventually("both know", || (pair.ss1.metrics(), pair.ss2.metrics()), async || knows(&pair.ss1) && knows(&pair.ss2))
        .await;
}

#[tokio::test]
async fn a_stolen_key_is_refused_at_once_also_in_an_open_session() {
    let mut pair = Pair::start().await;
    let ss2 = ServerId { owner: member("200"), server_code: "SS2".into() };
    let (ask, own) = (rest("GET", PETS, &consumer()), &pair.federation.authority);
    let signers = [1, 2].map(|number| numbered_signing(own, &member("200"), &ss2, number));
    let leaves = [1, 2].map(|number| numbered_authentication(own, &ss2, number));
    let message = |number: usize| signed(&ask, b"", &signers[number - 1]);
    let address = pair.ss1.server_address;
    let client = async |number: usize| Client::connect(address, Some(&leaves[number - 1])).await.unwrap();
    let (mut stolen, mut fresh) = (client(1).await, client(2).await);
    for session in [&mut stolen, &mut fresh] {
        let answer = session.exchange(message(1)).await.unwrap();
        assert!(matches!(answer.events.as_slice(), [Event::Rest(_), .., Event::Signature(_)]), "{:?}", answer.events);
    }
    let mut again = client(1).await;
    revoke_below(&mut pair, 1, 2).await;

    for session in [&mut stolen, &mut again] {
        let answer = session.exchange(message(2)).await.unwrap();
        assert_eq!(answer.fault(), "server.serverproxy.service_failed.ssl_authentication_failed.cert_validation");
    }
    assert!(pair.ss1.metrics().contains("peers_refused_total{reason=\"revoked\"} 2"), "{}", pair.ss1.metrics());
    // A signature by a stolen key is none, whoever brings it.
    let answer = fresh.exchange(message(1)).await.unwrap();
    assert_eq!(answer.fault(), "server.serverproxy.signature_verification.cert_validation");
    let answer = fresh.exchange(message(2)).await.unwrap();
    assert!(matches!(answer.events.as_slice(), [Event::Rest(_), .., Event::Signature(_)]), "{:?}", answer.events);
}

#[tokio::test]
async fn a_provider_with_a_stolen_key_is_called_again_once_it_has_its_new_one() {
    let mut pair = Pair::start().await;
    assert_eq!(pair.call(PETS).await.status, 200);
    revoke_below(&mut pair, 0, 2).await;
    let asked = pair.system.asked("").len();
    let answer = pair.call(PETS).await;
    assert_eq!(answer.status, 500, "{}", answer.text());
    assert!(answer.text().contains("is revoked"), "{}", answer.text());
    assert_eq!(pair.system.asked("").len(), asked, "whoever has the key gets no request");
    pair.ss1.issue = 2;
    pair.federation.write_identity(&pair.ss1);
    let served = async || pair.call(PETS).await.status == 200;
    eventually("it is called again", || pair.ss1.metrics(), served).await;
}
