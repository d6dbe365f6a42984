//! Carrying plans out in the model world, each type destructured whole: a new field that nobody applies does not compile.

use std::sync::Arc;

use jiff::SignedDuration;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::{Resource, ResourceExt};
use saatkond_api::names::{annotation, ca_secret, finalizer};
use saatkond_api::v1alpha1::security_server::SecurityServerStatus;
use saatkond_domain::children::ChildKind;
use saatkond_domain::effects::{Deletion, FinalizerChange, LeafOrder};
use saatkond_domain::member::plan::{AppliedMember, MemberPlan};
use saatkond_domain::observed::{
    InstanceCopy, LeafFacts, NamespaceAccess, ObservedChild, ObservedStartCopy, Published, PublishedDocument, Stored,
};
use saatkond_domain::security_server::observed::{IdentityFacts, SigningFacts};
use saatkond_domain::security_server::plan::{AppliedSecurityServer, LeafPlan, SecurityServerPlan};
use saatkond_domain::trust_anchor::plan::{AppliedTrustAnchor, TrustAnchorPlan};
use saatkond_domain::{member, security_server, trust_anchor};
use saatkond_pki::configuration_key::ConfigurationKey;

use crate::world::{Crashed, World, authority_from, key};

impl World {
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
            relabel,
            create_authority,
            create_configuration_keys,
            publish,
            link_leaf,
            destroy_authority,
            decide_again,
            foreign: _,
            events: _,
            audit,
            next_check: _,
        } = plan.clone();
        assert!(!decide_again, "everything here is read live");
        assert!(relabel.is_empty(), "nobody takes labels off here");
        let (name, uid) = (seen.anchor.name_any(), seen.anchor.uid().unwrap());
        let mut applied = AppliedTrustAnchor::default();
        if change == FinalizerChange::Add {
            self.write(format!("patch TrustAnchor {name}"), |world| {
                Self::finalizer(&mut world.anchors, &uid, finalizer::TRUST_ANCHOR, change);
            })?;
        }
        if let Some(request) = create_authority {
            let certificate = authority_from(request.generation, request.lifetime.as_hours(), request.not_before);
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
                    intact: true,
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
        if let Some(deletion) = destroy_authority {
            self.write(format!("delete Secret {}", deletion.name), |world| {
                world.authorities.retain(|generation, _| ca_secret(&name, *generation) != deletion.name);
            })?;
        }
        self.on_record.extend(audit);
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
            pods,
            untold: _,
            identity,
            configuration,
            start_copy,
            children,
            endings,
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
        if let Some(pods) = pods {
            self.write(format!("count the pods of {name}"), |world| {
                world.servers[index].status.get_or_insert_default().pods = pods;
            })?;
        }
        for pod in endings.end {
            let now = self.now;
            self.write(format!("end {pod}"), |world| {
                let receipts = &mut world.servers[index].status.as_mut().unwrap().processes;
                receipts.iter_mut().filter(|it| it.pod_uid == pod).for_each(|it| it.ended_at = Some(Time(now)));
            })?;
        }
        for pod in endings.forget {
            self.write(format!("forget {pod}"), |world| {
                world.servers[index].status.as_mut().unwrap().processes.retain(|it| it.pod_uid != pod);
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
                labelled: true,
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
                    intact: true,
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
                match number(saatkond_api::names::annotation::SERVER_VERSION) {
                    Some(version) => copy.server_version = Some(version),
                    None => {
                        copy.instance = Some(InstanceCopy {
                            version: number(saatkond_api::names::annotation::INSTANCE_VERSION).unwrap(),
                            bundle_sequence: number(annotation::BUNDLE_SEQUENCE).unwrap(),
                            servers: note(saatkond_api::names::annotation::SERVERS).unwrap().parse().unwrap(),
                            written_at: note(saatkond_api::names::annotation::COPIED_AT).unwrap().parse().unwrap(),
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
        assert!(update.status.processes.is_empty() && update.status.pods.is_empty());
        let mut standing = seen.server.status.clone().unwrap_or_default();
        standing.processes.clear();
        standing.pods.clear();
        if standing != update.status {
            self.write(format!("patch SecurityServer/status {name}"), |world| {
                let status = world.servers[index].status.get_or_insert_default();
                let (processes, pods) = (std::mem::take(&mut status.processes), std::mem::take(&mut status.pods));
                *status = SecurityServerStatus { processes, pods, ..update.status };
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
}
