//! A model of the cluster: what the operator writes, and what it sees of it. Keys are numbers, signatures are taken for
//! granted; certificates of authorities are real, since decisions read them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use saatkond_api::conditions::{ConditionType, find};
use saatkond_api::v1alpha1::security_server::ProcessReceipt;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_domain::children::ChildKind;
use saatkond_domain::effects::Failure;
use saatkond_domain::member::observed::ObservedMember;
use saatkond_domain::observed::{
    AdmissionPolicy, Candidate, DeploymentFacts, LeafFacts, NamespaceAccess, ObservedChild, ObservedDescription,
    ObservedNamespace, ObservedPod, ObservedStartCopy, Published, Stored,
};
use saatkond_domain::security_server::observed::{IdentityFacts, Issuer, ObservedSecurityServer};
use saatkond_domain::settings::OperatorSettings;
use saatkond_domain::trust_anchor::audit::Record;
use saatkond_domain::trust_anchor::build::bundle_hash;
use saatkond_domain::trust_anchor::observed::{
    ObservedAuthority, ObservedConfigurationKey, ObservedSigningKey, ObservedTrustAnchor,
};
use saatkond_pki::authority::{Authority, AuthorityCertificate, AuthoritySpec};
use saatkond_pki::configuration_key::ConfigurationPublicKey;
use saatkond_pki::key::{Algorithm, SystemKeys};
use saatkond_pki::serial::Serial;
use saatkond_wire::configuration::{InstanceConfiguration, ServerConfiguration};

use crate::fixtures::{self, START, at};

type Key = (String, String);

/// The process ends at this write.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Crash {
    /// The write is not sent.
    Before(usize),
    /// The write is applied, its answer is lost.
    After(usize),
}

#[derive(Debug)]
pub struct Crashed;

#[derive(Debug, Clone)]
pub struct World {
    pub now: Timestamp,
    pub settings: Arc<OperatorSettings>,
    pub policy: AdmissionPolicy,
    pub anchors: Vec<TrustAnchor>,
    pub members: Vec<Member>,
    pub servers: Vec<SecurityServer>,
    pub namespaces: BTreeMap<String, ObservedNamespace>,
    pub descriptions: BTreeMap<(String, String), ObservedDescription>,
    pub authorities: BTreeMap<u64, AuthorityCertificate>,
    pub configuration_keys: BTreeMap<u64, ConfigurationPublicKey>,
    pub instance: Published<InstanceConfiguration>,
    pub link_leaf: Stored<LeafFacts>,
    pub configurations: BTreeMap<Key, Published<ServerConfiguration>>,
    pub identities: BTreeMap<Key, Stored<IdentityFacts>>,
    pub copies: BTreeMap<Key, ObservedStartCopy>,
    pub children: BTreeMap<Key, Vec<ObservedChild>>,
    /// Every write, as `verb kind name`.
    pub log: Vec<String>,
    pub crash: Option<Crash>,
    /// Whether every decision is taken twice and compared.
    pub twice: bool,
    /// A server whose processes say nothing new.
    pub silent: Option<usize>,
    /// What trust anchors put on record.
    pub on_record: Vec<Record>,
    counter: u64,
}

pub fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// The certificate of an authority that was made before the world began.
pub fn authority(generation: u32, lifetime_hours: i64) -> AuthorityCertificate {
    authority_from(generation, lifetime_hours, at(START - 300))
}

/// An authority's certificate. One for all tests of a process: making and reading it is the slow part.
pub fn authority_from(generation: u32, lifetime_hours: i64, not_before: Timestamp) -> AuthorityCertificate {
    type Made = BTreeMap<(u32, i64, Timestamp), AuthorityCertificate>;
    static MADE: Mutex<Made> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let fresh = || {
        let spec = AuthoritySpec {
            instance: "EE",
            generation,
            algorithm: Algorithm::EcdsaP256,
            not_before,
            lifetime: SignedDuration::from_hours(lifetime_hours),
            serial: Serial::from_random([7; 16]),
        };
        Authority::create(&spec, &SystemKeys).unwrap().certificate().clone()
    };
    made.entry((generation, lifetime_hours, not_before)).or_insert_with(fresh).clone()
}

impl World {
    /// A federation of three members and two servers, as just applied by a user.
    pub fn federation() -> Self {
        let mut world = Self::empty();
        world.anchors.push(fixtures::anchor());
        for (member, identity) in [
            (fixtures::provider(), "EE/GOV/70000001"),
            (fixtures::consumer(), "EE/GOV/70000002"),
            (fixtures::guest(), "EE/COM/1"),
        ] {
            world.admit(&member.namespace().unwrap(), Some(identity));
            world.members.push(member);
        }
        world.servers.extend([fixtures::provider_server(), fixtures::consumer_server()]);
        world.descriptions.insert(
            ("persons-openapi".into(), "openapi.yaml".into()),
            ObservedDescription::Read { version: Some("3.0.3".into()), has_paths: true },
        );
        world
    }

    pub fn empty() -> Self {
        Self {
            now: at(START),
            settings: Arc::new(fixtures::settings()),
            policy: AdmissionPolicy::Installed,
            anchors: vec![],
            members: vec![],
            servers: vec![],
            namespaces: BTreeMap::new(),
            descriptions: BTreeMap::new(),
            authorities: BTreeMap::new(),
            configuration_keys: BTreeMap::new(),
            instance: Published::Absent,
            link_leaf: Stored::Absent,
            configurations: BTreeMap::new(),
            identities: BTreeMap::new(),
            copies: BTreeMap::new(),
            children: BTreeMap::new(),
            log: vec![],
            crash: None,
            twice: true,
            silent: None,
            on_record: Vec::new(),
            counter: 0,
        }
    }

    /// The federation as it stands when everything is done.
    pub fn steady() -> Self {
        static STEADY: LazyLock<World> = LazyLock::new(|| {
            let mut world = World::federation();
            world.settle();
            world.log.clear();
            world
        });
        STEADY.clone()
    }

    pub fn admit(&mut self, namespace: &str, identities: Option<&str>) {
        let seen = ObservedNamespace {
            name: namespace.into(),
            identities: identities.map(Into::into),
            access: NamespaceAccess::Granted,
            operator: "saatkond-system".into(),
            terminating: false,
        };
        self.namespaces.insert(namespace.into(), seen);
    }

    pub fn later(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    pub fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Counts a write and applies it, or crashes.
    pub fn write(&mut self, what: String, effect: impl FnOnce(&mut Self)) -> Result<(), Crashed> {
        let number = self.log.len();
        if self.crash == Some(Crash::Before(number)) {
            self.crash = None;
            return Err(Crashed);
        }
        self.log.push(what);
        effect(self);
        if self.crash == Some(Crash::After(number)) {
            self.crash = None;
            return Err(Crashed);
        }
        Ok(())
    }

    fn candidates<'a>(&'a self, pick: impl Fn(&Member) -> bool + 'a) -> Vec<Candidate> {
        self.members
            .iter()
            .filter(|member| pick(member))
            .map(|member| Candidate {
                member: Arc::new(member.clone()),
                namespace: self.namespaces.get(&member.namespace().unwrap()).cloned().map(Arc::new),
            })
            .collect()
    }

    pub fn observe_anchor(&self, index: usize) -> ObservedTrustAnchor {
        let anchor = self.anchors[index].clone();
        let others = self.anchors.iter().filter(|other| other.uid() != anchor.uid());
        let name = anchor.name_any();
        ObservedTrustAnchor {
            others: others.cloned().map(Arc::new).collect(),
            settings: Arc::clone(&self.settings),
            policy: self.policy,
            authorities: self
                .authorities
                .iter()
                .map(|(generation, certificate)| ObservedAuthority {
                    generation: *generation,
                    uid: format!("ca-{generation}"),
                    secret: Stored::Present(certificate.clone()),
                })
                .collect(),
            signing_key: ObservedSigningKey::NotNamed,
            configuration_keys: self
                .configuration_keys
                .iter()
                .map(|(generation, key)| ObservedConfigurationKey {
                    generation: *generation,
                    secret: Stored::Present(*key),
                })
                .collect(),
            unlabelled: Vec::new(),
            published: self.instance.clone(),
            link_leaf: self.link_leaf.clone(),
            members: self.candidates(|member| member.spec.trust_anchor_ref.name == name),
            servers: self.servers.iter().cloned().map(Arc::new).collect(),
            pods: (0..self.servers.len()).map(|at| (key(&self.servers[at]), self.pods_of(at))).collect(),
            live: true,
            server_documents_expire: self
                .configurations
                .iter()
                .filter_map(|(place, it)| Some((place.clone(), it.payload()?.expires_at)))
                .collect(),
            anchor: Arc::new(anchor),
        }
    }

    pub fn observe_member(&self, index: usize) -> ObservedMember {
        let member = self.members[index].clone();
        let anchor = self.anchors.iter().find(|anchor| anchor.name_any() == member.spec.trust_anchor_ref.name);
        let (class, code, uid) = (&member.spec.member_class, &member.spec.member_code, member.uid());
        let rivals = self.candidates(|other| {
            other.spec.member_class == *class && other.spec.member_code == *code && other.uid() != uid
        });
        ObservedMember {
            namespace: Arc::new(self.namespaces[&member.namespace().unwrap()].clone()),
            policy: self.policy,
            anchor: anchor.cloned().map(Arc::new),
            instance: self.instance.clone(),
            rivals,
            servers: self.servers.iter().cloned().map(Arc::new).collect(),
            hosts: self.members.iter().filter(|other| other.uid() != uid).cloned().map(Arc::new).collect(),
            descriptions: self.descriptions.clone(),
            member: Arc::new(member),
        }
    }

    pub fn observe_server(&self, index: usize) -> ObservedSecurityServer {
        let server = self.servers[index].clone();
        let key = key(&server);
        let owner = self
            .members
            .iter()
            .find(|m| m.namespace() == server.namespace() && m.name_any() == server.spec.member_ref.name);
        let anchor = owner.and_then(|o| self.anchors.iter().find(|a| a.name_any() == o.spec.trust_anchor_ref.name));
        let wanted = |class: &str, code: &str| {
            let guests = server.spec.guests.iter();
            owner.is_some_and(|o| o.spec.member_class == *class && o.spec.member_code == *code)
                || guests.clone().any(|g| g.member_class == *class && g.member_code == *code)
        };
        let signing = self.instance.payload().map_or(1, |document| document.signing_generation);
        let replicas = server.spec.replicas;
        let deployed = self.children.get(&key).is_some_and(|all| all.iter().any(|c| c.kind == ChildKind::Deployment));
        ObservedSecurityServer {
            settings: Arc::clone(&self.settings),
            namespace: Arc::new(self.namespaces[&key.0].clone()),
            owner: owner.cloned().map(Arc::new),
            anchor: anchor.cloned().map(Arc::new),
            neighbours: self
                .servers
                .iter()
                .filter(|other| other.namespace() == server.namespace() && other.uid() != server.uid())
                .cloned()
                .map(Arc::new)
                .collect(),
            members: self.candidates(|m| wanted(&m.spec.member_class, &m.spec.member_code)),
            instance: self.instance.clone(),
            issuer: self.authorities.get(&signing).map(|certificate| Issuer {
                generation: signing,
                not_before: certificate.not_before(),
                not_after: certificate.not_after(),
                certificate: certificate.sha256(),
            }),
            configuration_key: self.configuration_keys.keys().next().copied(),
            identity: self.identities.get(&key).cloned().unwrap_or(Stored::Absent),
            configuration: self.configurations.get(&key).cloned().unwrap_or(Published::Absent),
            start_copy: self.copies.get(&key).cloned(),
            children: self.children.get(&key).cloned().unwrap_or_default(),
            pods: Self::pods(&server, deployed),
            deployment: deployed.then_some(DeploymentFacts {
                observed: true,
                replicas,
                updated: replicas,
                ready: replicas,
                message: None,
            }),
            server: Arc::new(server),
        }
    }

    fn pods_of(&self, index: usize) -> Vec<ObservedPod> {
        let server = &self.servers[index];
        let children = self.children.get(&key(server));
        Self::pods(server, children.is_some_and(|all| all.iter().any(|child| child.kind == ChildKind::Deployment)))
    }

    /// One pod a replica, as soon as there is a Deployment.
    fn pods(server: &SecurityServer, deployed: bool) -> Vec<ObservedPod> {
        let count = if deployed { server.spec.replicas } else { 0 };
        (0..count)
            .map(|n| ObservedPod {
                name: format!("{}-{n}", server.name_any()),
                uid: format!("{}-pod-{n}", server.uid().unwrap()),
                deleting: false,
                gone: false,
                ended: false,
                restarts: 0,
            })
            .collect()
    }

    /// Every pod loads what is published and says so, as the link would write it.
    pub fn report(&mut self) {
        for index in (0..self.servers.len()).filter(|index| self.silent != Some(*index)) {
            let seen = self.observe_server(index);
            let (Some(instance), Some(server), Some(facts)) =
                (seen.instance.payload(), seen.configuration.payload(), seen.identity.facts())
            else {
                continue;
            };
            let receipts = seen.pods.iter().map(|pod| ProcessReceipt {
                pod_uid: pod.uid.clone(),
                incarnation: 1,
                instance_version: instance.version,
                server_version: server.version,
                bundle_sequence: instance.bundle_sequence,
                bundle_hash: bundle_hash(instance),
                leaf_issue_number: facts.issue_number,
                leaf_serial: facts.authentication.serial.clone(),
                old_sessions: Some(vec![]),
                started_alone: None,
                ended_at: None,
                highest_format: 1,
                reported_at: None,
            });
            let receipts = receipts.collect();
            self.servers[index].status.get_or_insert_default().processes = receipts;
        }
    }

    /// One reconcile of everything. Whether anything was written, or the process died.
    pub fn round(&mut self) -> Result<bool, Crashed> {
        let before = self.log.len();
        // From the end: an object may go.
        for index in (0..self.anchors.len()).rev() {
            self.reconcile_anchor(index)?;
        }
        for index in (0..self.members.len()).rev() {
            self.reconcile_member(index)?;
        }
        for index in (0..self.servers.len()).rev() {
            self.reconcile_server(index)?;
        }
        self.report();
        Ok(self.log.len() > before)
    }

    /// Reconciles until nothing is written any more. A crash only costs a round.
    pub fn settle(&mut self) {
        for _ in 0..30 {
            if let Ok(false) = self.round() {
                return;
            }
        }
        panic!("no steady state; the last writes were {:#?}", &self.log[self.log.len().saturating_sub(12)..]);
    }

    pub fn delete_member(&mut self, index: usize) {
        self.members[index].meta_mut().deletion_timestamp = Some(Time(self.now));
    }

    pub fn delete_server(&mut self, index: usize) {
        self.servers[index].meta_mut().deletion_timestamp = Some(Time(self.now));
    }

    pub fn document(&self) -> &InstanceConfiguration {
        self.instance.payload().expect("published")
    }

    /// Every object that is not Ready, with its reason and message.
    pub fn unready(&self) -> Vec<String> {
        let anchors = self.anchors.iter().map(|it| (it.name_any(), it.status.as_ref().map(|s| &s.conditions)));
        let members = self.members.iter().map(|it| (it.name_any(), it.status.as_ref().map(|s| &s.conditions)));
        let servers = self.servers.iter().map(|it| (it.name_any(), it.status.as_ref().map(|s| &s.conditions)));
        anchors
            .chain(members)
            .chain(servers)
            .filter_map(|(name, conditions)| {
                let ready = conditions.and_then(|all| find(all, ConditionType::Ready));
                match ready {
                    Some(ready) if ready.status == "True" => None,
                    Some(ready) => Some(format!("{name}: {} {}", ready.reason, ready.message)),
                    None => Some(format!("{name}: no condition")),
                }
            })
            .collect()
    }
}

/// A younger server of the same owner with the same code, ready to follow: its finalizer is set.
pub fn younger_twin(server: &SecurityServer) -> SecurityServer {
    let mut twin = server.clone();
    twin.metadata.name = Some("younger".into());
    twin.metadata.uid = Some("younger-uid".into());
    twin.metadata.creation_timestamp = Some(Time(at(START)));
    twin.status = None;
    twin
}

/// A failure as the operator would report it.
pub fn forbidden() -> Failure {
    Failure { reason: saatkond_api::conditions::Reason::Forbidden, message: "patch deployments ss1: forbidden".into() }
}
