//! What the operator was started with, as far as decisions depend on it.

/// Settings of the running operator that show in the objects it makes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperatorSettings {
    /// The operator's own namespace: authorities, configuration keys and canonical documents live there.
    pub namespace: String,
    /// Image of the gateways: the operator's own.
    pub image: String,
    /// `imagePullPolicy` of the gateways: `Always`, `IfNotPresent` or `Never`.
    pub image_pull_policy: String,
    /// Names of the Secrets in each member's namespace with which the image is pulled; usually none.
    pub image_pull_secrets: Vec<String>,
    /// Where gateways reach the link, for example `https://saatkond-link.saatkond-system.svc:8443`.
    pub link_url: String,
    /// Value of `RUST_LOG` in the gateways, for example `info`.
    pub gateway_log: String,
}
