//! Who has not confirmed that it refuses a server's revoked certificates, and by when it must.

use std::sync::Arc;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt;
use saatkond_api::SecurityServer;
use saatkond_api::v1alpha1::trust_anchor::RevocationStatus;
use saatkond_wire::configuration::{InstanceConfiguration, ServerEntry};

use super::build::Registrations;
use super::observed::ObservedTrustAnchor;
use crate::security_server::processes::{Excluded, counted, receipt};

/// The longest list of revocations; the newest stay.
const MAX_REVOCATIONS: usize = 100;
/// The longest list of those who have not confirmed one.
pub(super) const MAX_WAITING: usize = 20;

/// What the status says of them. `standing` is what it said before: in which document a revocation was first seen, which no document
/// tells.
#[must_use]
pub(super) fn revocations(
    seen: &ObservedTrustAnchor,
    document: &InstanceConfiguration,
    registrations: &Registrations,
    standing: &[RevocationStatus],
    now: Timestamp,
) -> Vec<RevocationStatus> {
    let Registrations { servers, registered, members: _ } = registrations;
    let published = |entry: &ServerEntry| {
        let same = |other: &&ServerEntry| {
            (&other.member_class, &other.member_code, &other.server_code)
                == (&entry.member_class, &entry.member_code, &entry.server_code)
        };
        document.servers.iter().find(same).map_or(0, |entry| entry.lowest_issue_number)
    };
    let mut all: Vec<_> = servers
        .iter()
        .zip(registered)
        .filter_map(|(entry, server)| {
            // Declared and not published yet is refused by nobody.
            let lowest = published(entry);
            let up_to_issue_number = i64::try_from(lowest.checked_sub(1)?).unwrap_or(i64::MAX);
            let (namespace, name) = (server.namespace().unwrap_or_default(), server.name_any());
            let known = standing.iter().find(|it| {
                (it.namespace == namespace && it.name == name) && it.up_to_issue_number == up_to_issue_number
            });
            let instance_version = known.map_or(document.version, |known| known.instance_version);
            let (processes, waiting) = unconfirmed(seen, registered, instance_version, now);
            Some(RevocationStatus {
                namespace,
                name,
                up_to_issue_number,
                instance_version,
                confirmed: format!("{}/{processes}", processes - waiting.len()),
                waiting_for: waiting.into_iter().take(MAX_WAITING).collect(),
                // Every earlier document was signed earlier, and ends no later than this one.
                refused_by: known.map_or(Time(document.expires_at), |known| known.refused_by.clone()),
            })
        })
        .collect();
    all.sort_by(|a, b| {
        b.instance_version.cmp(&a.instance_version).then_with(|| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)))
    });
    all.truncate(MAX_REVOCATIONS);
    all
}

/// How many processes there are, and those that have not stated this version or a later one.
pub(super) fn unconfirmed(
    seen: &ObservedTrustAnchor,
    servers: &[Arc<SecurityServer>],
    version: u64,
    now: Timestamp,
) -> (usize, Vec<String>) {
    let (mut processes, mut waiting) = (0, Vec::new());
    for server in servers {
        let place = (server.namespace().unwrap_or_default(), server.name_any());
        let pods = seen.pods.get(&place).map(Vec::as_slice).unwrap_or_default();
        let receipts = server.status.as_ref().map(|status| status.processes.as_slice()).unwrap_or_default();
        for pod in counted(server, pods, &Excluded::of(&seen.anchor, server, now), now) {
            processes += 1;
            if receipt(receipts, &pod.uid).is_none_or(|receipt| receipt.instance_version < version) {
                waiting.push(format!("pod {} of SecurityServer {}/{}", pod.uid, place.0, place.1));
            }
        }
    }
    (processes, waiting)
}
