//! Every name that saatkond.io puts on objects: labels, annotations, finalizers, field managers, fixed object names.
//!
//! Names that depend on an object (`<server>-identity`) are built here too, from parts whose lengths admission bounds;
//! where a bound could still be exceeded, `saatkond-domain` shortens with a hash.

/// API group of all kinds.
pub const GROUP: &str = "saatkond.io";
/// API version of all kinds.
pub const VERSION: &str = "v1alpha1";
/// `apiVersion` of all kinds.
pub const API_VERSION: &str = "saatkond.io/v1alpha1";
/// Category of all kinds: `kubectl get saatkond -A`.
pub const CATEGORY: &str = "saatkond";

/// Labels.
pub mod label {
    /// The recommended label of who manages an object; always [`super::MANAGED_BY`] on ours.
    pub const MANAGED_BY: &str = "app.kubernetes.io/managed-by";
    /// The recommended label of the application's name; always `saatkond` on ours.
    pub const NAME: &str = "app.kubernetes.io/name";
    /// The recommended label of the part an object plays: one of [`super::component`].
    pub const COMPONENT: &str = "app.kubernetes.io/component";
    /// The recommended label of the instance: the SecurityServer's name on its children.
    pub const INSTANCE: &str = "app.kubernetes.io/instance";
    /// Name of the TrustAnchor that an object belongs to.
    pub const TRUST_ANCHOR: &str = "saatkond.io/trust-anchor";
    /// Name of the SecurityServer that an object belongs to.
    pub const SECURITY_SERVER: &str = "saatkond.io/security-server";
    /// Namespace of the SecurityServer that an object belongs to, on objects in the operator's namespace: an owner
    /// reference cannot cross namespaces.
    pub const SECURITY_SERVER_NAMESPACE: &str = "saatkond.io/security-server-namespace";
    /// Generation of an authority or a configuration key, on the Secret that holds it.
    pub const GENERATION: &str = "saatkond.io/generation";
    /// What a Secret or ConfigMap of ours holds: one of [`super::role`].
    pub const ROLE: &str = "saatkond.io/role";
}

/// Value of [`label::MANAGED_BY`] and name of the application.
pub const MANAGED_BY: &str = "saatkond";

/// Values of [`label::COMPONENT`].
pub mod component {
    /// A gateway's objects.
    pub const SECURITY_SERVER: &str = "security-server";
    /// The operator's controller.
    pub const CONTROLLER: &str = "controller";
    /// The link endpoint.
    pub const LINK: &str = "link";
}

/// Values of [`label::ROLE`].
pub mod role {
    /// A Secret with one generation of a certificate authority.
    pub const AUTHORITY: &str = "authority";
    /// A Secret with one generation of a configuration key.
    pub const CONFIGURATION_KEY: &str = "configuration-key";
    /// A Secret with a security server's certificates and keys.
    pub const IDENTITY: &str = "identity";
    /// The Secret with the link's own certificates and keys.
    pub const LINK_IDENTITY: &str = "link-identity";
    /// A ConfigMap with an instance configuration.
    pub const INSTANCE_CONFIGURATION: &str = "instance-configuration";
    /// A ConfigMap with a server configuration.
    pub const SERVER_CONFIGURATION: &str = "server-configuration";
    /// A ConfigMap with the copies that a gateway starts from.
    pub const START_COPY: &str = "start-copy";
}

/// Annotations.
pub mod annotation {
    /// On a namespace: the member identities that it may claim, comma separated, each `instance/class/code`. Set by
    /// the governing authority. See [`crate::admission`].
    pub const MEMBER_IDENTITIES: &str = "saatkond.io/member-identities";
    /// On any object of ours: `"true"` stops changes that the spec asks for, never renewals, receipts or deregistration.
    pub const PAUSED: &str = "saatkond.io/paused";
    /// On children: SHA-256 of what was applied, by which drift is found without comparing fields.
    pub const APPLIED_HASH: &str = "saatkond.io/applied-hash";
    /// On ConfigMaps that hold documents: version of the document.
    pub const DOCUMENT_VERSION: &str = "saatkond.io/document-version";
    /// On ConfigMaps that hold an instance configuration: its bundle sequence.
    pub const BUNDLE_SEQUENCE: &str = "saatkond.io/bundle-sequence";
    /// On ConfigMaps that hold an instance configuration: when it was signed (RFC 3339).
    pub const SIGNED_AT: &str = "saatkond.io/signed-at";
    /// On a ConfigMap with a document: until when the document is accepted (RFC 3339).
    pub const EXPIRES_AT: &str = "saatkond.io/expires-at";
    /// On a start copy: version of the instance configuration in it.
    pub const INSTANCE_VERSION: &str = "saatkond.io/instance-version";
    /// On a start copy: version of the server configuration in it.
    pub const SERVER_VERSION: &str = "saatkond.io/server-version";
    /// On a start copy: how many security servers the instance configuration in it lists, of whom a gateway that starts
    /// without the link can ask for a newer one.
    pub const SERVERS: &str = "saatkond.io/servers";
    /// On a start copy: when the instance configuration in it was written (RFC 3339).
    pub const COPIED_AT: &str = "saatkond.io/copied-at";
    /// On an identity Secret: the highest issue number in it.
    pub const ISSUE_NUMBER: &str = "saatkond.io/issue-number";
}

/// Value of [`annotation::PAUSED`] that pauses.
pub const PAUSED_VALUE: &str = "true";

/// Finalizers.
pub mod finalizer {
    /// On a Member: it is taken out of the instance configuration before it goes.
    pub const MEMBER: &str = "saatkond.io/member-cleanup";
    /// On a SecurityServer: it is taken out of the instance configuration before its pods go.
    pub const SECURITY_SERVER: &str = "saatkond.io/security-server-cleanup";
    /// On a TrustAnchor: it stays while members refer to it.
    pub const TRUST_ANCHOR: &str = "saatkond.io/trust-anchor-cleanup";
}

/// Field managers of server-side apply: one for each set of objects that one piece of code applies.
pub mod manager {
    /// The controller's children of a TrustAnchor.
    pub const TRUST_ANCHOR: &str = "saatkond.io/trust-anchor";
    /// The controller's children of a SecurityServer.
    pub const SECURITY_SERVER: &str = "saatkond.io/security-server";
    /// The instance configuration in a start copy.
    pub const INSTANCE_COPY: &str = "saatkond.io/security-server-instance-copy";
    /// The server configuration in a start copy.
    pub const SERVER_COPY: &str = "saatkond.io/security-server-server-copy";
    /// Status that the controller writes.
    pub const STATUS: &str = "saatkond.io/status";
    /// The list of pods in the status of a SecurityServer, which the controller writes by itself.
    pub const COUNTED_PODS: &str = "saatkond.io/counted-pods";
    /// Finalizers that the controller sets.
    pub const FINALIZER: &str = "saatkond.io/finalizer";
    /// What `kubectl saatkond` writes.
    pub const PLUGIN: &str = "saatkond.io/plugin";

    /// The link's manager for one process's receipt: one a process, so that receipts do not erase each other.
    #[must_use]
    pub fn link(pod_uid: &str) -> String {
        format!("saatkond.io/link-{pod_uid}")
    }
}

/// Name of the ClusterRole that carries the operator's rights in a member's namespace.
pub const MEMBER_NAMESPACE_ROLE: &str = "saatkond-member-namespace";
/// Name of the RoleBinding in a member's namespace that gives the operator those rights.
pub const MEMBER_NAMESPACE_BINDING: &str = "saatkond-member-namespace";
/// Name of the ValidatingAdmissionPolicy that guards [`annotation::MEMBER_IDENTITIES`], and of its binding.
pub const ADMISSION_POLICY: &str = "saatkond-member-identities";
/// The verb on a TrustAnchor that lets its holder set [`annotation::MEMBER_IDENTITIES`].
pub const ADMIT_VERB: &str = "admit";
/// ServiceAccount of the operator's controller.
pub const CONTROLLER_SERVICE_ACCOUNT: &str = "saatkond-controller";
/// ServiceAccount of the link.
pub const LINK_SERVICE_ACCOUNT: &str = "saatkond-link";
/// Deployment and Service of the link.
pub const LINK: &str = "saatkond-link";
/// Secret with the link's certificates and keys: an entry `<anchor>.json` for each trust anchor.
pub const LINK_IDENTITY_SECRET: &str = "saatkond-link-identity";
/// Lease of the controller's leader.
pub const LEADER_LEASE: &str = "saatkond-controller";
/// Port of the link.
pub const LINK_PORT: u16 = 8443;

/// Entries of Secrets and ConfigMaps.
pub mod entry {
    /// An authority's certificate, PEM.
    pub const CA_CERTIFICATE: &str = "tls.crt";
    /// An authority's private key, PKCS#8 PEM.
    pub const CA_KEY: &str = "tls.key";
    /// A configuration key, PKCS#8 PEM.
    pub const CONFIGURATION_KEY: &str = "configuration.key";
    /// A security server's certificates and keys.
    pub const IDENTITY: &str = "identity.json";
    /// A signed instance configuration, gzip.
    pub const INSTANCE_CONFIGURATION: &str = "instance.jws.gz";
    /// A signed server configuration, gzip.
    pub const SERVER_CONFIGURATION: &str = "server.jws.gz";
}

/// Secret with one generation of a trust anchor's authority, in the operator's namespace.
#[must_use]
pub fn ca_secret(anchor: &str, generation: u64) -> String {
    format!("{anchor}-ca-{generation}")
}

/// Secret with one generation of a trust anchor's configuration key, in the operator's namespace.
#[must_use]
pub fn configuration_key_secret(anchor: &str, generation: u64) -> String {
    format!("{anchor}-configuration-{generation}")
}

/// ConfigMap with a trust anchor's instance configuration, in the operator's namespace.
#[must_use]
pub fn instance_configuration_config_map(anchor: &str) -> String {
    format!("{anchor}-instance-configuration")
}

/// Name by which the link's certificate knows itself; never resolved.
#[must_use]
pub fn link_server_name(anchor: &str) -> String {
    format!("{anchor}.link.saatkond.internal")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn field_managers_fit() {
        let uid = "01234567-89ab-cdef-0123-456789abcdef";
        assert!(manager::link(uid).len() <= 128, "the API server refuses longer field managers");
        assert_ne!(manager::link("a"), manager::link("b"));
    }

    #[test]
    fn names_of_an_anchor_do_not_meet() {
        assert_eq!(ca_secret("ee", 1), "ee-ca-1");
        assert_ne!(ca_secret("ee", 1), configuration_key_secret("ee", 1));
    }
}
