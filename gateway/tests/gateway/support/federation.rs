//! An authority, members, security servers with their documents and leaves, and gateways that run on them.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, AtomicU64, Ordering};
use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use saatkond_gateway::Settings;
use saatkond_gateway::run::Gateway;
use saatkond_pki::authority::{Authority, AuthoritySpec};
use saatkond_pki::configuration_key::ConfigurationKey;
use saatkond_pki::key::{Algorithm, KeyPair, KeySource as _, SystemKeys};
use saatkond_pki::leaf::{self, LeafRequest, Terms, Usage};
use saatkond_pki::serial::Serial;
use saatkond_wire::configuration::{AccessRight, Endpoint, Subject};
use saatkond_wire::configuration::{
    AuthorityEntry, ClientEntry, ConfigurationKeyEntry, ConfigurationKeys, ConnectionType, ErrorProfile,
    InstanceConfiguration, Limits, MemberEntry, ServedClient, ServerConfiguration, ServerEntry, ServiceDescription,
    ServiceEntry, SubsystemEntry,
};
use saatkond_wire::document;
use saatkond_wire::identifier::{ClientId, MemberId, ServerId};
use saatkond_wire::identity::{Credential, Identity, SecretText, SigningIdentity};
use saatkond_wire::leaf_name::LeafName;
use tempfile::TempDir;

use super::eventually;

static SERIALS: AtomicU64 = AtomicU64::new(1);

pub const INSTANCE: &str = "INST";

pub fn member(code: &str) -> MemberId {
    MemberId { instance: INSTANCE.into(), member_class: "GOV".into(), member_code: code.into() }
}

pub fn provider() -> ClientId {
    member("100").subsystem("PROV")
}

pub fn consumer() -> ClientId {
    member("200").subsystem("CONS")
}

pub struct Federation {
    pub authority: Authority,
    pub generation: u32,
    pub key: ConfigurationKey,
    pub instance: InstanceConfiguration,
    root: TempDir,
}

pub fn authority(generation: u32) -> Authority {
    let spec = AuthoritySpec {
        instance: INSTANCE,
        generation,
        algorithm: Algorithm::EcdsaP256,
        not_before: Timestamp::now() - SignedDuration::from_mins(10),
        lifetime: SignedDuration::from_hours(1000),
        serial: serial(),
    };
    Authority::create(&spec, &SystemKeys).unwrap()
}

fn serial() -> Serial {
    let mut bytes = [7; 16];
    bytes[8..].copy_from_slice(&SERIALS.fetch_add(1, Ordering::Relaxed).to_be_bytes());
    Serial::from_random(bytes)
}

/// A leaf with its key. `now` may lie in the past or future.
pub fn issue(
    authority: &Authority,
    usage: Usage,
    name: &LeafName,
    dns: &[&str],
    now: Timestamp,
    life: SignedDuration,
) -> (String, KeyPair) {
    let key = SystemKeys.generate(Algorithm::EcdsaP256).unwrap();
    let request = LeafRequest {
        usage,
        common_name: "test".into(),
        uri: name.to_string(),
        dns_names: dns.iter().map(|name| (*name).to_owned()).collect(),
    };
    let terms = Terms { now, lifetime: life, retirement: SignedDuration::ZERO, serial: serial() };
    (leaf::issue(authority, &request, key.public(), &terms).unwrap().pem, key)
}

impl Federation {
    pub fn new() -> Self {
        let (authority, key, next_key) =
            (authority(1), ConfigurationKey::generate().unwrap(), ConfigurationKey::generate().unwrap());
        let now = Timestamp::now();
        let entry = |code: &str, subsystems: &[&str]| MemberEntry {
            member_class: "GOV".into(),
            member_code: code.into(),
            name: None,
            subsystems: subsystems.iter().map(|code| SubsystemEntry { code: (*code).into(), name: None }).collect(),
        };
        let instance = InstanceConfiguration {
            format: document::FORMAT,
            instance: INSTANCE.into(),
            trust_anchor: "inst".into(),
            version: 1,
            bundle_sequence: 1,
            signed_at: now,
            expires_at: now + SignedDuration::from_hours(100),
            bundle: vec![AuthorityEntry { generation: 1, certificate: authority.certificate().to_pem() }],
            signing_generation: 1,
            rotation: None,
            emergency: None,
            configuration_keys: ConfigurationKeys {
                current: ConfigurationKeyEntry { generation: 1, key: key.public() },
                next: ConfigurationKeyEntry { generation: 2, key: next_key.public() },
            },
            members: vec![
                entry("100", &["PROV", "LONELY"]),
                entry("200", &["CONS", "OTHER", "sub/system"]),
                entry("ÖÄ", &["PROV"]),
            ],
            servers: Vec::new(),
            global_groups: Vec::new(),
        };
        Self { authority, generation: 1, key, instance, root: TempDir::new().unwrap() }
    }

    /// Registers a server. `clients` are served besides the owner.
    pub fn site(&mut self, owner: &str, code: &str, clients: &[ClientId]) -> Site {
        let dir = self.root.path().join(format!("{owner}-{code}-{}", SERIALS.fetch_add(1, Ordering::Relaxed)));
        for name in ["configuration", "identity", "state", "spool"] {
            std::fs::create_dir_all(dir.join(name)).unwrap();
        }
        let ports = [free_port(), free_port(), free_port()];
        let id = ServerId { owner: member(owner), server_code: code.into() };
        self.instance.servers.push(ServerEntry {
            member_class: "GOV".into(),
            member_code: owner.into(),
            server_code: code.into(),
            address: ports[1].to_string(),
            clients: clients
                .iter()
                .map(|client| ServedClient {
                    member_class: client.member.member_class.clone(),
                    member_code: client.member.member_code.clone(),
                    subsystem: client.subsystem.clone(),
                })
                .collect(),
            lowest_issue_number: 0,
            issued_keys: Vec::new(),
        });
        let mut members: Vec<_> = clients.iter().map(|client| client.member.clone()).chain([member(owner)]).collect();
        members.sort();
        members.dedup();
        let all = clients.iter().cloned().chain([member(owner).client()]);
        let server = ServerConfiguration {
            format: document::FORMAT,
            server: id.clone(),
            version: 1,
            signed_at: Timestamp::now(),
            expires_at: Timestamp::now() + SignedDuration::from_hours(100),
            error_profile: ErrorProfile::XRoad78,
            clients: all
                .map(|id| ClientEntry {
                    id,
                    connection_type: ConnectionType::Http,
                    services: Vec::new(),
                    local_groups: Vec::new(),
                })
                .collect(),
            limits: Limits { max_body_bytes: None, spool_bytes: 512 << 20 },
        };
        Site {
            id,
            dir,
            client: ports[0],
            server_address: ports[1],
            admin: ports[2],
            server,
            members,
            issue: 1,
            gateway: None,
        }
    }

    pub fn packed_instance(&self) -> Vec<u8> {
        document::sign(&self.instance, &self.key).unwrap().packed
    }

    pub fn packed_server(&self, site: &Site) -> Vec<u8> {
        document::sign(&site.server, &self.key).unwrap().packed
    }

    pub fn write_instance(&self, site: &Site) {
        replace(&site.dir.join("configuration/instance.jws.gz"), &self.packed_instance());
    }

    pub fn write_server(&self, site: &Site) {
        replace(&site.dir.join("configuration/server.jws.gz"), &self.packed_server(site));
    }

    pub fn identity(&self, site: &Site) -> Identity {
        Self::identity_by(site, &self.authority, self.generation, Timestamp::now(), SignedDuration::from_hours(100))
    }

    /// Issued at `now`, which may lie in the past.
    pub fn identity_by(
        site: &Site,
        authority: &Authority,
        generation: u32,
        now: Timestamp,
        life: SignedDuration,
    ) -> Identity {
        let credential = |(certificate, key): (String, KeyPair)| Credential {
            issue_number: site.issue,
            generation: generation.into(),
            certificate,
            key: SecretText::new(key.to_pkcs8_pem().to_string()),
        };
        let name = LeafName::Authentication { server: site.id.clone(), issue: site.issue };
        let authentication = credential(issue(authority, Usage::Authentication, &name, &["ss.example"], now, life));
        let signing = site.members.iter().map(|member| {
            let name = LeafName::Signing { member: member.clone(), server: site.id.clone(), issue: site.issue };
            let credential = credential(issue(authority, Usage::Signing, &name, &[], now, life));
            SigningIdentity { member: member.clone(), credential }
        });
        let signing = signing.collect();
        Identity {
            format: document::FORMAT,
            server: site.id.clone(),
            issue_number: site.issue,
            authentication,
            signing,
        }
    }

    pub fn write_identity(&self, site: &Site) {
        site.write_identity(&self.identity(site));
    }

    /// Writes all files of a site and starts its gateway, which serves when this returns.
    pub async fn start(&self, site: &mut Site) {
        self.start_with(site, |_| ()).await;
    }

    /// The same, by settings that a test changes.
    pub async fn start_with(&self, site: &mut Site, change: impl FnOnce(&mut Settings)) {
        self.write_instance(site);
        self.write_server(site);
        self.write_identity(site);
        let mut settings = self.settings(site);
        change(&mut settings);
        site.start(settings).await;
    }

    pub fn settings(&self, site: &Site) -> Settings {
        Settings {
            configuration_dir: site.dir.join("configuration"),
            identity_dir: site.dir.join("identity"),
            state_dir: site.dir.join("state"),
            spool_dir: site.dir.join("spool"),
            client_address: site.client,
            server_address: site.server_address,
            admin_address: site.admin,
            pod_uid: format!("pod-{}", site.id.server_code),
            // Nobody listens there: the gateway starts by the rule for a silent link.
            link_url: "https://127.0.0.1:1".parse().unwrap(),
            link_server_name: "inst.link.saatkond.internal".into(),
            anchor_keys: vec![self.key.public()],
            files_interval: Duration::from_millis(50),
            alone_after: Duration::ZERO,
            behind_after: Duration::from_hours(1),
            peer_silence: Duration::from_mins(2),
            memory_limit: Some(256 << 20),
            drain_delay: Duration::ZERO,
            drain_bound: Duration::from_secs(5),
        }
    }
}

pub fn replace(path: &std::path::Path, bytes: &[u8]) {
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).unwrap();
    std::fs::rename(new, path).unwrap();
}

/// A port that stays free until a gateway takes it. Not one that the kernel picks: from its range (32768 and up) it also
/// serves outgoing connections, and the port just found free could be some client's before the gateway listens.
pub fn free_port() -> SocketAddr {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    // Another thousand for each process, so that two runs at a time do not meet.
    let first = 10_000 + u16::try_from(std::process::id() % 20).unwrap() * 1_000;
    let mut ports = std::iter::repeat_with(|| first + NEXT.fetch_add(1, Ordering::Relaxed) % 1_000).take(1_000);
    let port = ports.find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).unwrap();
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// A security server.
pub struct Site {
    pub id: ServerId,
    pub dir: PathBuf,
    pub client: SocketAddr,
    pub server_address: SocketAddr,
    pub admin: SocketAddr,
    pub server: ServerConfiguration,
    pub members: Vec<MemberId>,
    pub issue: u64,
    pub gateway: Option<Arc<Gateway>>,
}

impl Site {
    pub fn write_identity(&self, identity: &Identity) {
        replace(&self.dir.join("identity/identity.json"), &serde_json::to_vec(identity).unwrap());
    }

    pub async fn start(&mut self, settings: Settings) {
        let gateway = Arc::new(Gateway::new(settings).unwrap());
        let serving = gateway.clone();
        tokio::spawn(async move { serving.serve().await.unwrap() });
        let context = gateway.context.clone();
        self.gateway = Some(gateway);
        let state = || (context.state.at_hand(), saatkond_gateway::probes::not_ready(&context));
        eventually("the gateway serves", state, async || context.is_serving.load(Ordering::Acquire)).await;
    }

    pub async fn stop(&mut self) {
        if let Some(gateway) = self.gateway.take() {
            gateway.drain().await;
        }
    }

    pub fn metrics(&self) -> String {
        self.gateway.as_ref().unwrap().context.metrics.text()
    }

    /// Adds a service to one of the clients.
    pub fn service(&mut self, client: &ClientId, code: &str, url: &str, access: Vec<AccessRight>) -> &mut ServiceEntry {
        let entry = self.server.clients.iter_mut().find(|entry| entry.id == *client).unwrap();
        entry.services.push(ServiceEntry {
            code: code.into(),
            description: ServiceDescription::Rest,
            url: url.into(),
            timeout_seconds: 60,
            disabled: None,
            access,
        });
        entry.services.last_mut().unwrap()
    }
}

pub fn whole(subject: ClientId) -> AccessRight {
    AccessRight { subject: Subject::Client(subject), endpoints: None }
}

pub fn endpoints(subject: ClientId, endpoints: &[(&str, &str)]) -> AccessRight {
    let endpoint = |(method, path): &(&str, &str)| Endpoint { method: (*method).into(), path: (*path).into() };
    AccessRight { subject: Subject::Client(subject), endpoints: Some(endpoints.iter().map(endpoint).collect()) }
}
