//! The base set-up of the conformance checklist, running once for all tests that change nothing of it.

use std::net::SocketAddr;
use std::sync::LazyLock;

use saatkond_wire::configuration::{AccessRight, GroupEntry, Subject};
use serde_json::Value;

use super::federation::{Federation, consumer, endpoints, member, provider, whole};
use super::http::{self, Response, request};
use super::information_system::InformationSystem;
use super::rogue::{Leaf, authentication};

pub struct Base {
    /// Where callers connect.
    pub client: SocketAddr,
    /// The provider's port for other servers.
    pub server: SocketAddr,
    pub system: InformationSystem,
    /// A leaf of the consumer's server.
    pub leaf: Leaf,
}

pub const CLIENT: (&str, &str) = ("X-Road-Client", "INST/GOV/200/CONS");
pub const PETS: &str = "/r1/INST/GOV/100/PROV/pets";

pub static BASE: LazyLock<Base> = LazyLock::new(|| {
    let (sender, receiver) = std::sync::mpsc::channel();
    // A runtime of its own: each test has another one that ends with it.
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        runtime.block_on(async {
            let base = start().await;
            sender.send(base).unwrap();
            std::future::pending::<()>().await;
        });
    });
    receiver.recv().unwrap()
});

async fn start() -> Base {
    let system = InformationSystem::start().await;
    let is = format!("http://{}", system.address);
    let mut federation = Federation::new();
    let foreign = member("ÖÄ").subsystem("PROV");
    let mut ss1 = federation.site("100", "SS1", &[provider(), foreign.clone()]);
    let mut clients = vec![consumer(), member("200").subsystem("OTHER"), member("200").subsystem("sub/system")];
    let mut ss2 = federation.site("200", "SS2", &clients);
    clients.push(member("200").client());
    let everybody = || clients.iter().cloned().map(whole).collect::<Vec<_>>();
    let me = || vec![whole(consumer())];
    let v2 = format!("{is}/v2");
    ss1.service(&provider(), "pets", &v2, everybody());
    ss1.service(&provider(), "slash", &format!("{v2}/"), me());
    ss1.service(&provider(), "root", &is, me());
    ss1.service(&provider(), "BAR/SERVICE", &v2, me());
    ss1.service(&provider(), "semi;colon", &v2, me());
    ss1.service(&foreign, "pets", &v2, me());
    ss1.service(&provider(), "closed", "http://127.0.0.1:1/", me());
    ss1.service(&provider(), "unknown-host", "http://no-such-host.invalid/", me());
    ss1.service(&provider(), "no-address", "", me());
    ss1.service(&provider(), "quick", &v2, me()).timeout_seconds = 1;
    ss1.service(&provider(), "disabled", &v2, me()).disabled = Some("closed till 9".into());
    ss1.service(&provider(), "disabled-quietly", &v2, me()).disabled = Some(String::new());
    ss1.service(&provider(), "disabled-and-denied", &v2, vec![]).disabled = Some("secret notice".into());
    ss1.service(&provider(), "denied", &v2, vec![]);
    ss1.service(&provider(), "only-cons", &v2, me());
    let group = |subject| vec![AccessRight { subject, endpoints: None }];
    ss1.service(&provider(), "global", &v2, group(Subject::GlobalGroup("friends".into())));
    ss1.service(&provider(), "local", &v2, group(Subject::LocalGroup("locals".into())));
    ss1.service(&foreign, "local", &v2, group(Subject::LocalGroup("locals".into())));
    ss1.service(
        &provider(),
        "endpoints",
        &v2,
        vec![endpoints(
            consumer(),
            &[
                ("GET", "/pets/*"),
                ("*", "/any/**"),
                ("get", "/lower"),
                ("GET", "/x"),
                ("GET", "/files/*.json"),
                ("GET", "/a?b"),
                ("GET", "/lit\\*"),
                ("GET", "/public/**"),
                ("GET", "/api/test/*"),
                ("GET", "/docs/*"),
            ],
        )],
    );
    ss1.service(&provider(), "both", &v2, vec![endpoints(consumer(), &[("GET", "/x")]), whole(consumer())]);
    let locals = GroupEntry { code: "locals".into(), members: vec![consumer()] };
    ss1.server.clients.iter_mut().find(|client| client.id == provider()).unwrap().local_groups = vec![locals];
    federation.instance.global_groups = vec![GroupEntry { code: "friends".into(), members: vec![consumer()] }];
    federation.start(&mut ss1).await;
    federation.start(&mut ss2).await;
    let leaf = authentication(&federation.authority, &ss2.id);
    let base = Base { client: ss2.client, server: ss1.server_address, system, leaf };
    // Lives as long as the process.
    std::mem::forget((federation, ss1, ss2));
    base
}

/// Calls the base's consumer server as `CONS`, with more headers.
pub async fn call(method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> Response {
    let mut all = vec![CLIENT];
    all.extend_from_slice(headers);
    http::raw(BASE.client, &request(method, target, &all, body)).await
}

/// What the information system says it was asked, from an answer of its echo.
#[derive(Debug)]
pub struct Echo(pub Value);

pub async fn echo(method: &str, target: &str, headers: &[(&str, &str)], body: Option<&[u8]>) -> (Response, Echo) {
    let response = call(method, target, headers, body).await;
    assert_eq!(response.status, 200, "{response:?}");
    let echo = Echo(response.json());
    (response, echo)
}

impl Echo {
    pub fn target(&self) -> &str {
        self.0["target"].as_str().unwrap()
    }

    pub fn all(&self, name: &str) -> Vec<String> {
        let headers = self.0["headers"].as_array().unwrap().iter();
        let named = headers.filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
        named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
    }

    pub fn one(&self, name: &str) -> String {
        let all = self.all(name);
        assert_eq!(all.len(), 1, "{name}: {self:?}");
        all[0].clone()
    }
}

/// A path segment that no other test uses, to look for in what the information system was asked.
pub fn mark() -> String {
    format!("mark-{}", uuid::Uuid::new_v4())
}
