//! Who counts: the processes of which "every process has stated it" speaks.
//!
//! A process counts from its pod's creation, or from its first statement, until it has said goodbye or the kubelet has reported that
//! its container has ended. Pending and terminating ones count. A pod object that is gone without either says nothing about the process: it
//! was deleted by force, say, and its node is out of reach. Who takes that for an end retires an authority that somebody still uses
//! (design §6, "acks on monotone versions").

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::v1alpha1::security_server::{CountedPod, ProcessReceipt};
use saatkond_api::{SecurityServer, TrustAnchor};

use crate::observed::ObservedPod;
use crate::schedule::whole_seconds;

/// The longest list of pods that is kept.
pub const MAX_PODS: usize = 100;

/// What a person has said of a server's processes.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Excluded {
    /// No process of the server is waited for.
    pub all: bool,
    /// UIDs of pods that are not waited for; where they have vanished they are forgotten.
    pub pods: Vec<String>,
}

impl Excluded {
    /// What the anchor says of a server now.
    #[must_use]
    pub fn of(anchor: &TrustAnchor, server: &SecurityServer, now: Timestamp) -> Self {
        let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
        let said = anchor.spec.rotation.iter().flat_map(|rotation| &rotation.excluded);
        let said = said.filter(|it| it.server.namespace == namespace && it.server.name == name && it.until.0 > now);
        let mut excluded = Self::default();
        for exclusion in said {
            match &exclusion.process {
                Some(pod) => excluded.pods.push(pod.clone()),
                None => excluded.all = true,
            }
        }
        excluded
    }

    /// Whether the process of this pod is waited for.
    #[must_use]
    pub fn waits_for(&self, pod: &str) -> bool {
        !self.all && !self.pods.iter().any(|excluded| excluded == pod)
    }
}

/// The pods of a server whose processes count, given those that were seen.
#[must_use]
pub fn counted(server: &SecurityServer, seen: &[ObservedPod], excluded: &Excluded, now: Timestamp) -> Vec<CountedPod> {
    let status = server.status.as_ref();
    let standing = status.map(|status| status.pods.as_slice()).unwrap_or_default();
    let receipts = status.map(|status| status.processes.as_slice()).unwrap_or_default();
    // A process that has ended in a pod that stays is started again in it: that one has stated nothing.
    // One that has ended stands here until its receipt says so: whoever has not seen the end would else find the receipt alone.
    let is_noted = |pod: &ObservedPod| receipts.iter().all(|it| it.pod_uid != pod.uid || it.ended_at.is_some());
    let is_over = |pod: &ObservedPod| {
        if pod.ended { is_noted(pod) } else { pod.deleting && has_ended(receipts, &pod.uid) }
    };
    let present = seen.iter().filter(|pod| !is_over(pod));
    let present = present.map(|pod| CountedPod { uid: pod.uid.clone(), name: pod.name.clone(), vanished_at: None });
    let known = standing.iter().cloned();
    let stated = receipts.iter().map(|receipt| CountedPod {
        uid: receipt.pod_uid.clone(),
        name: String::new(),
        vanished_at: None,
    });
    let mut all: Vec<CountedPod> = present.collect();
    for pod in known.chain(stated) {
        let is_known = all.iter().any(|other| other.uid == pod.uid) || seen.iter().any(|other| other.uid == pod.uid);
        if is_known || has_ended(receipts, &pod.uid) || excluded.pods.contains(&pod.uid) {
            continue;
        }
        let vanished_at = pod.vanished_at.unwrap_or_else(|| Time(whole_seconds(now)));
        all.push(CountedPod { vanished_at: Some(vanished_at), ..pod });
    }
    all.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    all
}

/// The process's receipt; one of a process that has ended is none.
#[must_use]
pub fn receipt<'a>(receipts: &'a [ProcessReceipt], pod: &str) -> Option<&'a ProcessReceipt> {
    receipts.iter().find(|receipt| receipt.pod_uid == pod && receipt.ended_at.is_none())
}

fn has_ended(receipts: &[ProcessReceipt], pod: &str) -> bool {
    receipts.iter().any(|receipt| receipt.pod_uid == pod && receipt.ended_at.is_some())
}

/// What becomes of receipts whose process has ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Endings {
    /// UIDs of pods whose end is to be written into their receipt.
    pub end: Vec<String>,
    /// UIDs of pods whose receipt is to be taken out.
    pub forget: Vec<String>,
}

/// An end goes through three writes: into the receipt, out of `status.pods`, and the receipt goes. What is known of the end must stand
/// in one place at least until nothing mentions the process any more: whoever is started anew in between has not seen the pod end, and
/// would hold up every change of the authority for it.
#[must_use]
pub fn endings(server: &SecurityServer, seen: &[ObservedPod], excluded: &Excluded) -> Endings {
    let Some(status) = &server.status else { return Endings::default() };
    let mut endings = Endings::default();
    for receipt in &status.processes {
        let pod = &receipt.pod_uid;
        let object = seen.iter().find(|seen| seen.uid == *pod);
        let vanished_and_excluded = object.is_none() && excluded.pods.contains(pod);
        let over = object.is_none_or(|object| object.ended);
        if receipt.ended_at.is_some() && object.is_some_and(|object| !object.ended && !object.deleting) {
            // Its container is started again in a pod that stays: if that pod vanishes, this goodbye was not of the process in it.
            endings.forget.push(pod.clone());
        } else if receipt.ended_at.is_none() && !vanished_and_excluded {
            if object.is_some_and(|object| object.ended) {
                endings.end.push(pod.clone());
            }
        } else if over && !status.pods.iter().any(|counted| counted.uid == *pod) {
            endings.forget.push(pod.clone());
        }
    }
    endings
}
