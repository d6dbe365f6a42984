//! Who counts, and what each has stated: a rotation waits for nothing else.

use std::fmt;

use super::standing::{Phase, Standing};

/// A server that is registered, as a rotation sees it.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Server {
    /// Its namespace and name.
    pub name: (String, String),
    /// Issue number of the identity that is stored; 0 while there is none.
    pub issue_number: u64,
    /// The generations that issued the leaves of that identity.
    pub issuers: Vec<u64>,
    /// Its processes, pending and terminating ones among them.
    pub processes: Vec<Process>,
}

/// A process that counts: from its pod's creation until it has said goodbye or its container is known to have ended.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Process {
    /// UID of its pod.
    pub pod: String,
    /// Whether its pod object is gone without anyone having learnt that it ended: it may still run where nobody sees it.
    pub vanished: bool,
    /// What it has stated; `None` is never taken for anything but "has not loaded it".
    pub receipt: Option<Receipt>,
}

/// A process's statement of what it has loaded.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Receipt {
    /// Sequence of the bundle that it trusts.
    pub sequence: u64,
    /// Whether the bundle under that sequence is the published one.
    pub same_bundle: bool,
    /// Issue number of the leaves that it presents.
    pub issue_number: u64,
    /// The generations that issued the leaves, its own and its peers', of the sessions that it has open; `None` where it does not say.
    pub sessions: Option<Vec<u64>>,
}

/// What a rotation waits for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Blocker {
    /// Namespace and name of the server.
    pub server: (String, String),
    /// UID of the pod, where it is a process that blocks.
    pub pod: Option<String>,
    /// Why.
    pub obstacle: Obstacle,
}

/// Why a server or one of its processes blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Obstacle {
    /// It has not stated anything yet.
    NoReceipt,
    /// What it has stated is not the published sequence, or another bundle under it.
    OtherBundle,
    /// The server's leaves are not all issued anew.
    LeavesNotIssued,
    /// It presents leaves that are not the stored ones.
    OtherLeaf,
    /// It has a session open with a leaf of the old authority, or does not say.
    OldSession,
    /// Its pod is gone, and nobody knows whether it runs.
    Vanished,
}

impl fmt::Display for Obstacle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoReceipt => "has not stated anything yet",
            Self::OtherBundle => "has not stated that it trusts the published bundle",
            Self::LeavesNotIssued => "has certificates that are not issued anew yet",
            Self::OtherLeaf => "has not stated that it presents its new certificate",
            Self::OldSession => "has sessions open in which a certificate of the old authority is in use",
            Self::Vanished => {
                "has vanished without a word: its pod is gone, and nobody knows whether it still runs; once you know that it does not, \
                 name it in spec.rotation.excluded"
            }
        })
    }
}

impl fmt::Display for Blocker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (namespace, name) = &self.server;
        match self.pod.as_deref() {
            None => write!(f, "SecurityServer {namespace}/{name} {}", self.obstacle),
            Some("") => write!(f, "a pod of SecurityServer {namespace}/{name} {}", self.obstacle),
            Some(pod) => write!(f, "pod {pod} of SecurityServer {namespace}/{name} {}", self.obstacle),
        }
    }
}

/// Who holds up the phase that is published under `sequence`.
#[must_use]
pub fn blockers(standing: &Standing, sequence: u64, servers: &[Server]) -> Vec<Blocker> {
    let mut found = Vec::new();
    for server in servers {
        let mut block = |pod: Option<&Process>, obstacle| {
            found.push(Blocker { server: server.name.clone(), pod: pod.map(|pod| pod.pod.clone()), obstacle });
        };
        let switching = match standing.phase {
            Phase::Switching { old, .. } => Some(old),
            Phase::Stable | Phase::Announcing { .. } | Phase::Retiring { .. } | Phase::RollingBack { .. } => None,
        };
        // A server without an identity has presented nothing; the next that it gets is the new authority's.
        if switching.is_some() && server.issuers.iter().any(|issuer| *issuer != standing.signing) {
            block(None, Obstacle::LeavesNotIssued);
        }
        for process in &server.processes {
            if let Some(obstacle) = obstacle(process, sequence, server.issue_number, switching) {
                block(Some(process), obstacle);
            }
        }
    }
    found
}

fn obstacle(process: &Process, sequence: u64, issue_number: u64, switching_from: Option<u64>) -> Option<Obstacle> {
    let Some(receipt) = &process.receipt else {
        return Some(if process.vanished { Obstacle::Vanished } else { Obstacle::NoReceipt });
    };
    // Equal, not "at least": content can come back under a later sequence, and a statement about another time is none.
    let trusts = receipt.sequence == sequence && receipt.same_bundle;
    let of_old = |old: u64| receipt.sessions.as_ref().is_none_or(|open| open.contains(&old));
    let obstacle = if !trusts {
        Obstacle::OtherBundle
    } else if switching_from.is_some() && receipt.issue_number != issue_number {
        Obstacle::OtherLeaf
    } else if switching_from.is_some_and(of_old) {
        Obstacle::OldSession
    } else {
        return None;
    };
    Some(if process.vanished { Obstacle::Vanished } else { obstacle })
}
