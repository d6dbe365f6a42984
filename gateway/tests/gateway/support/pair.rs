//! A pair of gateways of a test's own, to be changed by it.

use super::federation::{Federation, Site, consumer, provider, whole};
use super::http::{Response, raw, request};
use super::information_system::InformationSystem;

pub struct Pair {
    pub federation: Federation,
    /// The provider's server.
    pub ss1: Site,
    /// The consumer's server.
    pub ss2: Site,
    pub system: InformationSystem,
}

pub const PETS: &str = "/r1/INST/GOV/100/PROV/pets";

impl Pair {
    /// Declared, not started.
    pub async fn declare() -> Self {
        let system = InformationSystem::start().await;
        let mut federation = Federation::new();
        let mut ss1 = federation.site("100", "SS1", &[provider()]);
        let ss2 = federation.site("200", "SS2", &[consumer()]);
        let url = format!("http://{}/v2", system.address);
        ss1.service(&provider(), "pets", &url, vec![whole(consumer())]);
        Self { federation, ss1, ss2, system }
    }

    pub async fn start() -> Self {
        let mut pair = Self::declare().await;
        pair.federation.start(&mut pair.ss1).await;
        pair.federation.start(&mut pair.ss2).await;
        pair
    }

    pub async fn call(&self, target: &str) -> Response {
        raw(self.ss2.client, &request("GET", target, &[("X-Road-Client", "INST/GOV/200/CONS")], None)).await
    }

    pub async fn post(&self, target: &str, body: &[u8]) -> Response {
        raw(self.ss2.client, &request("POST", target, &[("X-Road-Client", "INST/GOV/200/CONS")], Some(body))).await
    }

    /// Publishes the instance configuration, as changed by the test, by the mounts of both.
    pub fn publish(&mut self) {
        self.federation.instance.version += 1;
        self.federation.write_instance(&self.ss1);
        self.federation.write_instance(&self.ss2);
    }
}
