//! The federation that calls itself: four members, one of them a guest, and eight gateways.

use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};

use anyhow::Context as _;
use saatkond_e2e::{federation, install};
use saatkond_testbed::{Cluster, Layout};

/// The anchor of all.
pub const ANCHOR: &str = "ee";
/// Subsystem and service of every member.
const SUBSYSTEM: &str = "load";
const SERVICE: &str = "echo";

/// A member.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Member {
    /// Its namespace.
    pub namespace: &'static str,
    /// Its code, of class GOV.
    pub code: &'static str,
    /// The namespace of the server that serves it, if that is another member's.
    host: Option<&'static str>,
    /// Processes of its own server.
    gateways: u8,
    /// Where its information system listens.
    port: u16,
}

/// All of them.
pub const MEMBERS: [Member; 4] = [
    Member { namespace: "load-a", code: "81000001", host: None, gateways: 3, port: 18101 },
    Member { namespace: "load-b", code: "81000002", host: None, gateways: 3, port: 18102 },
    Member { namespace: "load-c", code: "81000003", host: None, gateways: 2, port: 18103 },
    Member { namespace: "load-d", code: "81000004", host: Some("load-a"), gateways: 0, port: 18104 },
];

/// How many gateways there are.
#[must_use]
pub fn gateways() -> usize {
    MEMBERS.iter().map(|member| usize::from(member.gateways)).sum()
}

/// Every member with every other.
#[must_use]
pub fn pairs() -> Vec<(Member, Member)> {
    let others = |from: Member| MEMBERS.into_iter().filter(move |to| *to != from).map(move |to| (from, to));
    MEMBERS.into_iter().flat_map(others).collect()
}

impl Member {
    /// The namespace of the server that serves it.
    #[must_use]
    pub fn server(self) -> &'static str {
        self.host.unwrap_or(self.namespace)
    }

    /// Where its information system listens on this address.
    #[must_use]
    pub fn address(self, node: IpAddr) -> SocketAddr {
        SocketAddr::new(node, self.port)
    }

    /// What it calls itself in `X-Road-Client`.
    #[must_use]
    pub fn client(self) -> String {
        format!("EE/GOV/{}/{SUBSYSTEM}", self.code)
    }

    /// Its service, as `X-Road-Service` names it.
    #[must_use]
    pub fn service(self) -> String {
        format!("{}/{SERVICE}", self.client())
    }

    fn manifests(self, node: IpAddr) -> String {
        let Self { namespace, code, .. } = self;
        let callers: Vec<_> = MEMBERS
            .iter()
            .filter(|other| **other != self)
            .map(|other| {
                format!("{{subject: {{memberClass: GOV, memberCode: '{}', subsystem: {SUBSYSTEM}}}}}", other.code)
            })
            .collect();
        let servers =
            self.host.map_or_else(String::new, |host| format!(", servers: [{{namespace: {host}, name: ss1}}]"));
        let mut yaml = format!(
            "---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: {namespace}, annotations: {{saatkond.io/member-identities: EE/GOV/{code}}}}}\n\
             ---\napiVersion: rbac.authorization.k8s.io/v1\nkind: RoleBinding\nmetadata: {{name: saatkond-member-namespace, namespace: {namespace}}}\n\
             roleRef: {{apiGroup: rbac.authorization.k8s.io, kind: ClusterRole, name: saatkond-member-namespace}}\n\
             subjects: [{{kind: ServiceAccount, name: saatkond-controller, namespace: {system}}}]\n\
             ---\napiVersion: saatkond.io/v1alpha1\nkind: Member\nmetadata: {{name: m, namespace: {namespace}}}\n\
             spec: {{trustAnchorRef: {{name: {ANCHOR}}}, memberClass: GOV, memberCode: '{code}', subsystems: [{{code: {SUBSYSTEM}, \
             connectionType: HTTP{servers}, services: [{{code: {SERVICE}, rest: {{url: 'http://{address}'}}, access: [{callers}]}}]}}]}}\n",
            system = install::NAMESPACE,
            address = self.address(node),
            callers = callers.join(", "),
        );
        if self.gateways > 0 {
            let guests = MEMBERS.iter().filter(|guest| guest.host == Some(namespace));
            let guests: Vec<_> =
                guests.map(|guest| format!("{{memberClass: GOV, memberCode: '{}'}}", guest.code)).collect();
            // Writing to a String cannot fail.
            let _ = write!(
                yaml,
                "---\napiVersion: saatkond.io/v1alpha1\nkind: SecurityServer\nmetadata: {{name: ss1, namespace: {namespace}}}\n\
                 spec: {{memberRef: {{name: m}}, serverCode: ss1, replicas: {}, guests: [{}]}}\n",
                self.gateways,
                guests.join(", ")
            );
        }
        yaml
    }
}

/// Declares it, with information systems at this address.
pub fn apply(layout: &Layout, cluster: &Cluster, node: IpAddr) -> anyhow::Result<()> {
    let anchor = layout.root().join("examples/federation/trust-anchor.yaml");
    cluster.apply(&fs::read_to_string(&anchor).with_context(|| format!("failed to read {}", anchor.display()))?)?;
    cluster.apply(&MEMBERS.map(|member| member.manifests(node)).concat())?;
    Ok(())
}

/// Waits until all of it is Ready.
pub fn until_ready(cluster: &Cluster) -> anyhow::Result<()> {
    federation::until_ready(cluster, |_, _, _| {})?;
    Ok(())
}

/// The address of a server's Service, where its members call.
pub fn entrance(cluster: &Cluster, namespace: &str) -> anyhow::Result<SocketAddr> {
    let field = "--output=jsonpath={.spec.clusterIP}";
    let address = cluster.kubectl(&["-n", namespace, "get", "service", "ss1", field])?;
    let address: IpAddr = address.trim().parse().with_context(|| format!("the Service in {namespace}: {address:?}"))?;
    Ok(SocketAddr::new(address, 80))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_has_the_size_that_it_should_have() {
        assert_eq!((MEMBERS.len(), gateways(), pairs().len()), (4, 8, 12));
        assert_eq!(MEMBERS.iter().filter(|member| member.host.is_some()).count(), 1);
    }
}
