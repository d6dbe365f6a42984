//! What was done to the authority and the certificates of an instance, for whoever has to answer for it later.
//!
//! Each record follows from two documents, the one before and the one that takes its place, both signed: it says nothing that they do not.

use std::fmt;

use jiff::Timestamp;
use saatkond_api::TrustAnchor;
use saatkond_pki::authority::AuthorityCertificate;
use saatkond_wire::configuration::{InstanceConfiguration, ServerEntry};

use crate::rotation::{Phase, Standing};

/// What was done.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Act {
    /// An authority was made. Nobody trusts it yet.
    Prepare,
    /// It is trusted beside the one that issues.
    Announce,
    /// It issues in the place of the other.
    Switch,
    /// The other is no longer trusted.
    Retire,
    /// A change was taken back: the one that was there before issues, or is trusted, again.
    Cancel,
    /// Every process has stated what the last step waited for.
    Complete,
    /// The key of an authority was deleted.
    Destroy,
    /// Certificates of a server are refused.
    Revoke,
    /// An authority is compromised: of its certificates those alone are accepted that the operator has issued.
    Taint,
}

impl fmt::Display for Act {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Prepare => "prepare",
            Self::Announce => "announce",
            Self::Switch => "switch",
            Self::Retire => "retire",
            Self::Cancel => "cancel",
            Self::Complete => "complete",
            Self::Destroy => "destroy",
            Self::Revoke => "revoke",
            Self::Taint => "taint",
        })
    }
}

/// One act.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// What was done.
    pub act: Act,
    /// The authority that it was done to, or the server's identifier with the highest number that is revoked.
    pub subject: String,
    /// The request that it serves; empty where it serves none.
    pub request: String,
    /// The generation that issues.
    pub signing_generation: u64,
    /// The authorities that are trusted: generation and serial number, `2:7f03…`.
    pub trusted: Vec<String>,
    /// Sequence of the bundle.
    pub bundle_sequence: u64,
    /// Version of the instance configuration.
    pub instance_version: u64,
    /// Whom a person has excluded from what is waited for: `namespace/name`, or with the UID of a pod behind another slash.
    pub excluded: Vec<String>,
}

impl fmt::Display for Record {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { act, subject, request, signing_generation, trusted, bundle_sequence, .. } = self;
        write!(
            f,
            "{act} {subject}: generation {signing_generation} issues, {} trusted, sequence {bundle_sequence}",
            trusted.join(" ")
        )?;
        if !request.is_empty() {
            write!(f, ", request {request:?}")?;
        }
        if !self.excluded.is_empty() {
            write!(f, ", without {}", self.excluded.join(" "))?;
        }
        Ok(())
    }
}

/// What publishing `after` in the place of `before` does.
#[must_use]
pub fn records(
    anchor: &TrustAnchor,
    before: &InstanceConfiguration,
    after: &InstanceConfiguration,
    now: Timestamp,
) -> Vec<Record> {
    let mut records: Vec<_> =
        step(before, after).into_iter().map(|(act, of)| record(anchor, after, act, of, now)).collect();
    let tainted = |document: &InstanceConfiguration| {
        document.emergency.as_ref().map(|it| it.compromised_generations.clone()).unwrap_or_default()
    };
    let before_it = tainted(before);
    let new = tainted(after).into_iter().filter(|generation| !before_it.contains(generation));
    records.extend(new.map(|generation| record(anchor, after, Act::Taint, authority(generation), now)));
    for entry in &after.servers {
        let same = |other: &&ServerEntry| {
            (&other.member_class, &other.member_code, &other.server_code)
                == (&entry.member_class, &entry.member_code, &entry.server_code)
        };
        let standing = before.servers.iter().find(same).map_or(0, |entry| entry.lowest_issue_number);
        if entry.lowest_issue_number > standing {
            let subject = format!("{} up to {}", entry.id(&after.instance), entry.lowest_issue_number - 1);
            records.push(record(anchor, after, Act::Revoke, subject, now));
        }
    }
    records
}

/// The record of an act that is no publication, while `document` is published.
#[must_use]
pub fn beside(
    anchor: &TrustAnchor,
    document: &InstanceConfiguration,
    act: Act,
    generation: u64,
    now: Timestamp,
) -> Record {
    record(anchor, document, act, authority(generation), now)
}

fn authority(generation: u64) -> String {
    format!("authority {generation}")
}

/// What becomes of which authority.
fn step(before: &InstanceConfiguration, after: &InstanceConfiguration) -> Option<(Act, String)> {
    let (from, to) = (Standing::of(before)?, Standing::of(after)?);
    if (from.phase, from.signing) == (to.phase, to.signing) {
        return None;
    }
    let (act, of) = match (from.phase, to.phase) {
        (_, Phase::Announcing { next }) => (Act::Announce, next),
        (Phase::Retiring { .. }, Phase::Switching { old, .. }) => (Act::Cancel, old),
        (_, Phase::Switching { returning: true, .. }) => (Act::Cancel, to.signing),
        (_, Phase::Switching { returning: false, .. }) => (Act::Switch, to.signing),
        (_, Phase::Retiring { old, .. }) => (Act::Retire, old),
        (_, Phase::RollingBack { withdrawn }) => (Act::Cancel, withdrawn),
        (_, Phase::Stable) => (Act::Complete, to.signing),
    };
    Some((act, authority(of)))
}

fn record(anchor: &TrustAnchor, document: &InstanceConfiguration, act: Act, subject: String, now: Timestamp) -> Record {
    let serial =
        |pem: &str| AuthorityCertificate::from_pem(pem).map(|it| it.facts().serial.clone()).unwrap_or_default();
    let excluded = anchor.spec.rotation.iter().flat_map(|rotation| &rotation.excluded).filter(|it| it.until.0 > now);
    Record {
        act,
        subject,
        request: document.rotation.as_ref().and_then(|it| it.requests.last().cloned()).unwrap_or_default(),
        signing_generation: document.signing_generation,
        trusted: document.bundle.iter().map(|it| format!("{}:{}", it.generation, serial(&it.certificate))).collect(),
        bundle_sequence: document.bundle_sequence,
        instance_version: document.version,
        excluded: excluded
            .map(|it| {
                let process = it.process.as_ref().map(|pod| format!("/{pod}")).unwrap_or_default();
                format!("{}/{}{process}", it.server.namespace, it.server.name)
            })
            .collect(),
    }
}
