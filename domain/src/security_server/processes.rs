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
    let observed = seen.iter().map(|pod| CountedPod {
        uid: pod.uid.clone(),
        name: pod.name.clone(),
        vanished_at: None,
        restarts: restarts(Some(pod), standing.iter().find(|known| known.uid == pod.uid)),
    });
    let stated = receipts.iter().map(|receipt| CountedPod {
        uid: receipt.pod_uid.clone(),
        name: String::new(),
        vanished_at: None,
        restarts: 0,
    });
    let mut all: Vec<CountedPod> = Vec::new();
    for pod in observed.chain(standing.iter().cloned()).chain(stated) {
        if all.iter().any(|other| other.uid == pod.uid) {
            continue;
        }
        let object = object(seen, &pod.uid);
        let known = standing.iter().find(|other| other.uid == pod.uid);
        let receipt = receipts.iter().find(|it| it.pod_uid == pod.uid);
        // One that has ended stands here until its receipt says so: whoever has not seen the end would else find the receipt alone.
        if is_over(object, known, receipt) && receipt.is_none_or(|it| it.ended_at.is_some()) {
            continue;
        }
        if object.is_some_and(|object| !object.gone || object.ended) {
            all.push(pod);
            continue;
        }
        // Its receipt goes before it does. What states something after that runs, and is not forgotten again.
        if excluded.pods.contains(&pod.uid) && (known.is_none() || receipt.is_none()) {
            continue;
        }
        let vanished_at = known.and_then(|known| known.vanished_at.clone()).unwrap_or_else(|| Time(whole_seconds(now)));
        all.push(CountedPod { vanished_at: Some(vanished_at), ..pod });
    }
    all.sort_by(|a, b| (&a.name, &a.uid).cmp(&(&b.name, &b.uid)));
    all
}

/// The same as `status.pods` holds it, and the UIDs of those that find no room there.
#[must_use]
pub fn kept(mut counted: Vec<CountedPod>) -> (Vec<CountedPod>, Vec<String>) {
    if counted.len() <= MAX_PODS {
        return (counted, Vec::new());
    }
    // Those that exist are seen again; one that has vanished is known from here alone.
    counted.sort_by_key(|pod| pod.vanished_at.is_none());
    let left_out = counted.split_off(MAX_PODS);
    (counted, left_out.into_iter().map(|pod| pod.uid).collect())
}

/// Pods that a person has excluded as vanished and whose processes have stated something since.
#[must_use]
pub fn excluded_alive(server: &SecurityServer, seen: &[ObservedPod], excluded: &Excluded) -> Vec<String> {
    let Some(status) = &server.status else { return Vec::new() };
    let receipts = status.processes.iter().filter(|it| it.ended_at.is_none() && excluded.pods.contains(&it.pod_uid));
    let is_gone = |pod: &str| object(seen, pod).is_none_or(|object| object.gone && !object.ended);
    let is_known = |pod: &str| status.pods.iter().any(|known| known.uid == pod);
    receipts.map(|it| it.pod_uid.clone()).filter(|pod| is_gone(pod) && !is_known(pod)).collect()
}

fn object<'a>(seen: &'a [ObservedPod], pod: &str) -> Option<&'a ObservedPod> {
    seen.iter().find(|seen| seen.uid == pod)
}

/// Whether the process in a pod has ended and none is started in it any more.
///
/// A goodbye is of one start of the container. That in a pod that stays says nothing of the next one, nor does that of an earlier start:
/// a process counts its starts in a volume of its pod, so its number is never above the kubelet's by more than one. What the kubelet said
/// stands in the status, for whoever has not seen the pod.
fn is_over(object: Option<&ObservedPod>, known: Option<&CountedPod>, receipt: Option<&ProcessReceipt>) -> bool {
    let stays = object.is_some_and(|it| !it.deleting && !it.gone);
    let goodbye = receipt.filter(|it| it.ended_at.is_some() && it.incarnation > restarts(object, known));
    object.is_some_and(|it| it.ended) || (goodbye.is_some() && !stays)
}

/// How often a pod's container has been started again, as far as anybody has seen: a kubelet that gives a pod up may report none.
fn restarts(object: Option<&ObservedPod>, known: Option<&CountedPod>) -> u64 {
    object.map_or(0, |it| it.restarts).max(known.map_or(0, |it| it.restarts))
}

/// The process's receipt; one of a process that has ended is none.
#[must_use]
pub fn receipt<'a>(receipts: &'a [ProcessReceipt], pod: &str) -> Option<&'a ProcessReceipt> {
    receipts.iter().find(|receipt| receipt.pod_uid == pod && receipt.ended_at.is_none())
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
        let object = object(seen, pod);
        let known = status.pods.iter().find(|known| known.uid == *pod);
        let over = is_over(object, known, Some(receipt));
        if receipt.ended_at.is_some() {
            // A container was started after this goodbye: if its pod vanishes, that was not of the process in it.
            if !over || (known.is_none() && object.is_none_or(|it| it.ended || it.gone)) {
                endings.forget.push(pod.clone());
            }
        } else if over {
            endings.end.push(pod.clone());
        } else if object.is_none_or(|it| it.gone) && known.is_some() && excluded.pods.contains(pod) {
            endings.forget.push(pod.clone());
        }
    }
    endings
}
