//! Leaves that somebody has minted with the key of the authority, once it is known that it is compromised.

use saatkond_gateway::frames::Event;
use saatkond_pki::certificate::CertificateFacts;
use saatkond_pki::pem;
use saatkond_wire::configuration::{AuthorityEntry, EmergencyEntry};
use saatkond_wire::identifier::ServerId;

use crate::support::eventually;
use crate::support::federation::{Site, authority, consumer, member};
use crate::support::pair::{PETS, Pair};
use crate::support::rogue::{Answer, Client, Leaf, authentication, rest, signed, signing};

fn key_of(leaf: &Leaf) -> String {
    key_of_pem(&leaf.0)
}

fn key_of_pem(certificate: &str) -> String {
    let der = pem::single(certificate, pem::CERTIFICATE).unwrap();
    CertificateFacts::parse(&der).unwrap().spki_sha256.to_string()
}

/// The keys of the leaves that a site really has.
fn keys_of(site: &Site) -> Vec<String> {
    let text = std::fs::read_to_string(site.dir.join("identity/identity.json")).unwrap();
    let identity: serde_json::Value = serde_json::from_str(&text).unwrap();
    let signing = identity["signing"].as_array().unwrap().iter().map(|it| &it["certificate"]);
    let all = signing.chain([&identity["authentication"]["certificate"]]);
    all.map(|certificate| key_of_pem(certificate.as_str().unwrap())).collect()
}

/// `also` are further keys of the first and of the second server.
async fn declare(pair: &mut Pair, compromised: u64, others: Vec<AuthorityEntry>, also: [Vec<String>; 2]) {
    let instance = &mut pair.federation.instance;
    instance.emergency = Some(EmergencyEntry { compromised_generations: vec![compromised] });
    instance.bundle_sequence += u64::from(!others.is_empty());
    instance.bundle.extend(others);
    let [of_ss1, of_ss2] = also;
    instance.servers[0].issued_keys = [keys_of(&pair.ss1), of_ss1].concat();
    instance.servers[1].issued_keys = [keys_of(&pair.ss2), of_ss2].concat();
    pair.publish();
    let version = pair.federation.instance.version;
    let knows = |site: &Site| site.gateway.as_ref().unwrap().context.state.at_hand().0 == version;
    eventually("both know", || (pair.ss1.metrics(), pair.ss2.metrics()), async || knows(&pair.ss1) && knows(&pair.ss2))
        .await;
}

fn is_good(answer: &Answer) -> bool {
    matches!(answer.events.as_slice(), [Event::Rest(_), .., Event::Signature(_)])
}

#[tokio::test]
async fn a_minted_leaf_is_refused_at_once_also_in_an_open_session_and_every_other_one_is_not() {
    let mut pair = Pair::start().await;
    let ss2 = ServerId { owner: member("200"), server_code: "SS2".into() };
    let own = &pair.federation.authority;
    let (minted, issued) = (authentication(own, &ss2), authentication(own, &ss2));
    let (minted_signer, issued_signer) = (signing(own, &member("200"), &ss2), signing(own, &member("200"), &ss2));
    let ask = rest("GET", PETS, &consumer());
    let (by_minted, by_issued) = (signed(&ask, b"", &minted_signer), signed(&ask, b"", &issued_signer));
    let address = pair.ss1.server_address;
    let mut open = Client::connect(address, Some(&minted)).await.unwrap();
    let mut good = Client::connect(address, Some(&issued)).await.unwrap();
    for session in [&mut open, &mut good] {
        assert!(is_good(&session.exchange(by_minted.clone()).await.unwrap()), "as long as nobody knows");
    }
    let known = vec![key_of(&issued), issued_signer.facts().spki_sha256.to_string()];
    let strayed = authentication(&pair.federation.authority, &ss2);
    declare(&mut pair, 1, Vec::new(), [vec![key_of(&strayed)], known]).await;

    // The session is told to end where the leaf is no longer trusted; what it still asks is refused.
    if let Ok(answer) = open.exchange(by_issued.clone()).await {
        assert_eq!(answer.fault(), "server.serverproxy.service_failed.ssl_authentication_failed.cert_validation");
    }
    let refused = async |leaf: &Leaf| match Client::connect(address, Some(leaf)).await {
        // With TLS 1.3 a client hears of it with the first answer.
        Ok(mut client) => client.exchange(by_issued.clone()).await.is_err(),
        Err(_) => true,
    };
    assert!(refused(&minted).await, "a new session");
    assert!(pair.ss1.metrics().contains("peers_refused_total{reason=\"not_issued\"}"), "{}", pair.ss1.metrics());
    assert!(refused(&strayed).await, "a key that was issued to another server is none of this one's");

    let mut good = Client::connect(address, Some(&issued)).await.unwrap();
    assert!(is_good(&good.exchange(by_issued.clone()).await.unwrap()));
    let answer = good.exchange(by_minted.clone()).await.unwrap();
    assert_eq!(answer.fault(), "server.serverproxy.signature_verification.cert_validation");
    // The gateways themselves go on as before.
    assert_eq!(pair.call(PETS).await.status, 200);
}

#[tokio::test]
async fn leaves_of_another_authority_need_not_be_listed_and_a_minted_one_cannot_pass_for_such() {
    let mut pair = Pair::start().await;
    let ss2 = ServerId { owner: member("200"), server_code: "SS2".into() };
    let next = authority(2);
    let entry = AuthorityEntry { generation: 2, certificate: next.certificate().to_pem() };
    declare(&mut pair, 1, vec![entry], [Vec::new(), Vec::new()]).await;
    let (leaf, signer) = (authentication(&next, &ss2), signing(&next, &member("200"), &ss2));
    let message = signed(&rest("GET", PETS, &consumer()), b"", &signer);
    let mut client = Client::connect(pair.ss1.server_address, Some(&leaf)).await.unwrap();
    assert!(is_good(&client.exchange(message.clone()).await.unwrap()));
    let minted = authentication(&pair.federation.authority, &ss2);
    let refused = match Client::connect(pair.ss1.server_address, Some(&minted)).await {
        Ok(mut client) => client.exchange(message).await.is_err(),
        Err(_) => true,
    };
    assert!(refused);
    assert_eq!(pair.call(PETS).await.status, 200);
}
