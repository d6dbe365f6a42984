//! A model of the cluster: what the operator writes, and what it sees of it. Keys are numbers, signatures are taken for
//! granted; certificates of authorities are real, since decisions read them.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock, Mutex};

use jiff::{SignedDuration, Timestamp};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use saatkond_api::conditions::{ConditionType, find};
use saatkond_api::names::{annotation, ca_secret, finalizer};
use saatkond_api::v1alpha1::security_server::ProcessReceipt;
use saatkond_api::{Member, SecurityServer, TrustAnchor};
use saatkond_domain::children::ChildKind;
use saatkond_domain::effects::{Deletion, Failure, FinalizerChange, LeafOrder};
use saatkond_domain::member::observed::ObservedMember;
use saatkond_domain::member::plan::{AppliedMember, MemberPlan};
use saatkond_domain::observed::{
    AdmissionPolicy, Candidate, DeploymentFacts, InstanceCopy, LeafFacts, NamespaceAccess, ObservedChild,
    ObservedDescription, ObservedNamespace, ObservedPod, ObservedStartCopy, Published, PublishedDocument, Stored,
};
use saatkond_domain::security_server::observed::{IdentityFacts, Issuer, ObservedSecurityServer, SigningFacts};
use saatkond_domain::security_server::plan::{AppliedSecurityServer, LeafPlan, SecurityServerPlan};
use saatkond_domain::settings::OperatorSettings;
use saatkond_domain::trust_anchor::observed::{
    ObservedAuthority, ObservedConfigurationKey, ObservedSigningKey, ObservedTrustAnchor,
};
use saatkond_domain::trust_anchor::plan::{AppliedTrustAnchor, TrustAnchorPlan};
use saatkond_domain::{member, names, security_server, trust_anchor};
use saatkond_pki::authority::{Authority, AuthorityCertificate, AuthoritySpec};
use saatkond_pki::configuration_key::{ConfigurationKey, ConfigurationPublicKey};
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
    counter: u64,
}

pub fn key<K: ResourceExt>(object: &K) -> Key {
    (object.namespace().unwrap_or_default(), object.name_any())
}

/// An authority's certificate. One for all tests of a process: making and reading it is the slow part.
pub fn authority(generation: u32, lifetime_hours: i64) -> AuthorityCertificate {
    static MADE: Mutex<BTreeMap<(u32, i64), AuthorityCertificate>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap();
    let fresh = || {
        let spec = AuthoritySpec {
            instance: "EE",
            generation,
            algorithm: Algorithm::EcdsaP256,
            not_before: at(START - 300),
            lifetime: SignedDuration::from_hours(lifetime_hours),
            serial: Serial::from_random([7; 16]),
        };
        Authority::create(&spec, &SystemKeys).unwrap().certificate().clone()
    };
    made.entry((generation, lifetime_hours)).or_insert_with(fresh).clone()
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
            terminating: false,
        };
        self.namespaces.insert(namespace.into(), seen);
    }

    pub fn later(&mut self, seconds: i64) {
        self.now = self.now.checked_add(SignedDuration::from_secs(seconds)).unwrap();
    }

    fn next(&mut self) -> u64 {
        self.counter += 1;
        self.counter
    }

    /// Counts a write and applies it, or crashes.
    fn write(&mut self, what: String, effect: impl FnOnce(&mut Self)) -> Result<(), Crashed> {
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
            published: self.instance.clone(),
            link_leaf: self.link_leaf.clone(),
            members: self.candidates(|member| member.spec.trust_anchor_ref.name == name),
            servers: self.servers.iter().cloned().map(Arc::new).collect(),
            server_documents_expire: self.configurations.values().filter_map(|it| Some(it.payload()?.expires_at)).min(),
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
            pods: Some(Self::pods(&server, deployed)),
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

    /// One pod a replica, as soon as there is a Deployment.
    fn pods(server: &SecurityServer, deployed: bool) -> Vec<ObservedPod> {
        let count = if deployed { server.spec.replicas } else { 0 };
        (0..count)
            .map(|n| ObservedPod {
                name: format!("{}-{n}", server.name_any()),
                uid: format!("{}-pod-{n}", server.uid().unwrap()),
                created: at(START),
                deleting: false,
            })
            .collect()
    }

    /// Every pod loads what is published and says so, as the link would write it.
    pub fn report(&mut self) {
        for index in 0..self.servers.len() {
            let seen = self.observe_server(index);
            let (Some(instance), Some(server), Some(facts)) =
                (seen.instance.payload(), seen.configuration.payload(), seen.identity.facts())
            else {
                continue;
            };
            let receipts = seen.pods.iter().flatten().map(|pod| ProcessReceipt {
                pod_uid: pod.uid.clone(),
                incarnation: 1,
                instance_version: instance.version,
                server_version: server.version,
                bundle_sequence: instance.bundle_sequence,
                bundle_hash: String::new(),
                leaf_issue_number: facts.issue_number,
                leaf_serial: facts.authentication.serial.clone(),
                oldest_session: None,
                highest_format: 1,
                reported_at: None,
            });
            let receipts = receipts.collect();
            self.servers[index].status.get_or_insert_default().processes = receipts;
        }
    }

    fn finalizer<K: ResourceExt>(objects: &mut Vec<K>, uid: &str, name: &str, change: FinalizerChange) {
        let Some(at) = objects.iter().position(|object| object.uid().as_deref() == Some(uid)) else { return };
        let finalizers = objects[at].finalizers_mut();
        match change {
            FinalizerChange::Keep => {}
            FinalizerChange::Add => finalizers.push(name.to_owned()),
            FinalizerChange::Remove => finalizers.retain(|it| it != name),
        }
        if objects[at].finalizers().is_empty() && objects[at].meta().deletion_timestamp.is_some() {
            objects.remove(at);
        }
    }

    /// One reconcile of a trust anchor.
    pub fn reconcile_anchor(&mut self, index: usize) -> Result<(), Crashed> {
        let seen = self.observe_anchor(index);
        let plan = trust_anchor::plan(&seen, self.now);
        assert!(!self.twice || plan == trust_anchor::plan(&seen, self.now), "the same input gives the same plan");
        assert!(plan.next_check >= self.now);
        let TrustAnchorPlan {
            finalizer: change,
            create_authority,
            create_configuration_keys,
            publish,
            link_leaf,
            foreign: _,
            events: _,
            next_check: _,
        } = plan.clone();
        let (name, uid) = (seen.anchor.name_any(), seen.anchor.uid().unwrap());
        let mut applied = AppliedTrustAnchor::default();
        if change == FinalizerChange::Add {
            self.write(format!("patch TrustAnchor {name}"), |world| {
                Self::finalizer(&mut world.anchors, &uid, finalizer::TRUST_ANCHOR, change);
            })?;
        }
        if let Some(request) = create_authority {
            let certificate = authority(request.generation, request.lifetime.as_hours());
            let generation = u64::from(request.generation);
            assert_eq!(request.meta.name.as_deref(), Some(&*ca_secret(&name, generation)));
            self.write(format!("create Secret {name}-ca-{generation}"), |world| {
                let before = world.authorities.insert(generation, certificate);
                assert!(before.is_none(), "never two authorities for one generation");
            })?;
        }
        for request in create_configuration_keys {
            let generation = request.generation;
            self.write(format!("create Secret {name}-configuration-{generation}"), |world| {
                let bytes = [u8::try_from(generation).unwrap(); 32];
                let public = ConfigurationKey::from_seed(&bytes).unwrap().public();
                assert!(world.configuration_keys.insert(generation, public).is_none());
            })?;
        }
        if let Some(publication) = publish {
            assert_eq!(publication.replaces, self.instance.replaces());
            self.write(format!("publish ConfigMap {name}-instance-configuration"), |world| {
                let before = world.instance.payload();
                assert!(before.is_none_or(|before| before.version < publication.payload.version), "versions rise");
                let resource_version = world.next().to_string();
                world.instance = Published::Valid(PublishedDocument {
                    payload: Arc::new(publication.payload),
                    key_generation: publication.key_generation,
                    resource_version,
                    uid: "instance-uid".into(),
                });
            })?;
            applied.published = true;
        }
        if let Some(request) = link_leaf {
            let leaf = self.issue(&request.leaf, request.generation, 0);
            let stored = leaf.clone();
            self.write("apply Secret saatkond-link-identity".into(), |world| {
                world.link_leaf = Stored::Present(stored);
            })?;
            applied.link_leaf = Some(leaf);
        }
        let update = trust_anchor::status(&seen, &plan, &applied, self.now);
        assert!(!self.twice || update == trust_anchor::status(&seen, &plan, &applied, self.now), "and the same status");
        if seen.anchor.status.as_ref() != Some(&update.status) {
            self.write(format!("patch TrustAnchor/status {name}"), |world| {
                world.anchors[index].status = Some(update.status);
            })?;
        }
        if change == FinalizerChange::Remove {
            self.write(format!("patch TrustAnchor {name}"), |world| {
                Self::finalizer(&mut world.anchors, &uid, finalizer::TRUST_ANCHOR, change);
            })?;
        }
        Ok(())
    }

    /// One reconcile of a member.
    pub fn reconcile_member(&mut self, index: usize) -> Result<(), Crashed> {
        let seen = self.observe_member(index);
        let plan = member::plan(&seen, self.now);
        assert!(!self.twice || plan == member::plan(&seen, self.now), "the same input gives the same plan");
        let MemberPlan { finalizer: change, events: _, next_check: _ } = plan;
        let (name, uid) = (seen.member.name_any(), seen.member.uid().unwrap());
        let denied = seen.namespace.access == NamespaceAccess::Denied;
        assert!(!denied || change == FinalizerChange::Keep || seen.member.meta().deletion_timestamp.is_some());
        if change == FinalizerChange::Add {
            self.write(format!("patch Member {name}"), |world| {
                Self::finalizer(&mut world.members, &uid, finalizer::MEMBER, change);
            })?;
        }
        let update = member::status(&seen, &AppliedMember::default(), self.now);
        if seen.member.status.as_ref() != Some(&update.status) {
            self.write(format!("patch Member/status {name}"), |world| {
                world.members[index].status = Some(update.status);
            })?;
        }
        if change == FinalizerChange::Remove {
            self.write(format!("patch Member {name}"), |world| {
                Self::finalizer(&mut world.members, &uid, finalizer::MEMBER, change);
            })?;
        }
        Ok(())
    }

    /// One reconcile of a security server.
    pub fn reconcile_server(&mut self, index: usize) -> Result<(), Crashed> {
        let seen = self.observe_server(index);
        let plan = security_server::plan(&seen, self.now);
        assert!(!self.twice || plan == security_server::plan(&seen, self.now), "the same input gives the same plan");
        assert!(plan.next_check >= self.now);
        let SecurityServerPlan {
            finalizer: change,
            identity,
            configuration,
            start_copy,
            children,
            forget,
            deletions,
            foreign: _,
            events: _,
            next_check: _,
        } = plan.clone();
        let (id, uid) = (key(&*seen.server), seen.server.uid().unwrap());
        let name = format!("{}/{}", id.0, id.1);
        let mut applied = AppliedSecurityServer::default();
        if change == FinalizerChange::Add {
            self.write(format!("patch SecurityServer {name}"), |world| {
                Self::finalizer(&mut world.servers, &uid, finalizer::SECURITY_SERVER, change);
            })?;
        }
        if let Some(plan) = identity {
            let standing = seen.identity.facts();
            let authentication = match &plan.authentication {
                LeafPlan::Keep => standing.unwrap().authentication.clone(),
                LeafPlan::Issue(order) => self.issue(order, plan.generation, plan.issue_number),
            };
            let mut signing = vec![];
            for (member, leaf) in &plan.signing {
                let kept = || standing.unwrap().signing.iter().find(|s| s.member == *member).unwrap().leaf.clone();
                let leaf = match leaf {
                    LeafPlan::Keep => kept(),
                    LeafPlan::Issue(order) => self.issue(order, plan.generation, plan.issue_number),
                };
                signing.push(SigningFacts { member: member.clone(), leaf });
            }
            let facts = IdentityFacts {
                resource_version: self.next().to_string(),
                issue_number: plan.issue_number,
                authentication,
                signing,
            };
            let stored = facts.clone();
            let place = id.clone();
            self.write(format!("write Secret {name}-identity"), |world| {
                world.identities.insert(place, Stored::Present(stored));
            })?;
            applied.identity = Some(facts);
        }
        if let Some(publication) = configuration {
            let place = id.clone();
            self.write(format!("publish ConfigMap {name}-server-configuration"), |world| {
                let resource_version = world.next().to_string();
                let document = PublishedDocument {
                    payload: Arc::new(publication.payload),
                    key_generation: publication.key_generation,
                    resource_version,
                    uid: "configuration-uid".into(),
                };
                world.configurations.insert(place, Published::Valid(document));
            })?;
            applied.configuration = true;
        }
        for (meta, what) in [(&start_copy.instance, "instance"), (&start_copy.server, "server")] {
            let Some(meta) = meta else { continue };
            let note = |key: &str| meta.annotations.as_ref().unwrap().get(key).cloned();
            let number = |key: &str| note(key).map(|text| text.parse::<u64>().unwrap());
            let (place, owner) = (id.clone(), uid.clone());
            self.write(format!("apply ConfigMap {name}-configuration ({what})"), |world| {
                let copy = world.copies.entry(place).or_insert(ObservedStartCopy {
                    uid: "copy-uid".into(),
                    controller: Some(owner),
                    instance: None,
                    server_version: None,
                    intact: true,
                });
                copy.intact = true;
                match number(names::SERVER_VERSION) {
                    Some(version) => copy.server_version = Some(version),
                    None => {
                        copy.instance = Some(InstanceCopy {
                            version: number(names::INSTANCE_VERSION).unwrap(),
                            bundle_sequence: number(annotation::BUNDLE_SEQUENCE).unwrap(),
                            written_at: note(names::COPIED_AT).unwrap().parse().unwrap(),
                        });
                    }
                }
            })?;
        }
        for child in children {
            let (place, owner) = (id.clone(), uid.clone());
            self.write(format!("apply {} {name}", child.kind()), |world| {
                let all = world.children.entry(place).or_default();
                all.retain(|it| (it.kind, it.name.as_str()) != (child.kind(), child.name()));
                all.push(ObservedChild {
                    kind: child.kind(),
                    name: child.name().to_owned(),
                    uid: "child-uid".into(),
                    controller: Some(owner),
                    applied_hash: Some(child.applied_hash().to_owned()),
                    intact: true,
                    deleting: false,
                });
            })?;
        }
        for pod in forget {
            self.write(format!("forget {pod}"), |world| {
                world.servers[index].status.as_mut().unwrap().processes.retain(|it| it.pod_uid != pod);
            })?;
        }
        for Deletion { kind, namespace, name, uid: _ } in deletions {
            assert_eq!((kind, &*namespace), (ChildKind::ConfigMap, "saatkond-system"));
            let place = id.clone();
            self.write(format!("delete ConfigMap {name}"), |world| {
                world.configurations.remove(&place);
            })?;
        }
        let update = security_server::status(&seen, &plan, &applied, self.now);
        assert!(
            !self.twice || update == security_server::status(&seen, &plan, &applied, self.now),
            "and the same status"
        );
        assert!(update.status.processes.is_empty());
        let mut standing = seen.server.status.clone().unwrap_or_default();
        let processes = std::mem::take(&mut standing.processes);
        if standing != update.status {
            self.write(format!("patch SecurityServer/status {name}"), |world| {
                let mut status = update.status;
                status.processes = processes;
                world.servers[index].status = Some(status);
            })?;
        }
        if change == FinalizerChange::Remove {
            let place = id.clone();
            self.write(format!("patch SecurityServer {name}"), |world| {
                Self::finalizer(&mut world.servers, &uid, finalizer::SECURITY_SERVER, change);
                // What the garbage collector does.
                world.children.remove(&place);
                world.copies.remove(&place);
                world.identities.remove(&place);
            })?;
        }
        Ok(())
    }

    /// What `pki::leaf::issue` would answer.
    fn issue(&mut self, order: &LeafOrder, generation: u64, issue_number: u64) -> LeafFacts {
        let serial = self.next();
        let ends = self.authorities[&generation].not_after().checked_sub(order.retirement).unwrap();
        let not_before = order.now.checked_sub(SignedDuration::from_mins(5)).unwrap();
        LeafFacts {
            uri: order.request.uri.clone(),
            dns_names: order.request.dns_names.clone(),
            issue_number,
            generation,
            serial: format!("{serial:032x}"),
            spki_sha256: format!("{serial:064x}"),
            algorithm: order.algorithm,
            not_before,
            not_after: not_before.checked_add(order.lifetime).unwrap().min(ends),
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

/// A failure as the operator would report it.
pub fn forbidden() -> Failure {
    Failure { reason: saatkond_api::conditions::Reason::Forbidden, message: "patch deployments ss1: forbidden".into() }
}
