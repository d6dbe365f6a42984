//! What a gateway is told at its start. Everything else comes in signed documents.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use saatkond_pki::configuration_key::ConfigurationPublicKey;

/// Arguments of `saatkond gateway`. None of them is a secret.
#[derive(Debug, Clone, clap::Args)]
pub struct Settings {
    /// Directory of the mounted documents (the start copy): `instance.jws.gz` and `server.jws.gz`.
    #[arg(long, env = "SAATKOND_CONFIGURATION_DIR", default_value = "/etc/saatkond/configuration")]
    pub configuration_dir: PathBuf,
    /// Directory of the mounted identity: `identity.json`.
    #[arg(long, env = "SAATKOND_IDENTITY_DIR", default_value = "/etc/saatkond/identity")]
    pub identity_dir: PathBuf,
    /// Directory that outlives the container but not the pod: saved copies and the incarnation counter.
    #[arg(long, env = "SAATKOND_STATE_DIR", default_value = "/var/lib/saatkond")]
    pub state_dir: PathBuf,
    /// Directory for bodies that are too large for memory.
    #[arg(long, env = "SAATKOND_SPOOL_DIR", default_value = "/var/spool/saatkond")]
    pub spool_dir: PathBuf,
    /// Where information systems connect (plain HTTP).
    #[arg(long, env = "SAATKOND_CLIENT_ADDRESS", default_value = "0.0.0.0:8080")]
    pub client_address: SocketAddr,
    /// Where other security servers connect (mutual TLS).
    #[arg(long, env = "SAATKOND_SERVER_ADDRESS", default_value = "0.0.0.0:5500")]
    pub server_address: SocketAddr,
    /// Probes and metrics.
    #[arg(long, env = "SAATKOND_ADMIN_ADDRESS", default_value = "0.0.0.0:9090")]
    pub admin_address: SocketAddr,
    /// The UID of the pod.
    #[arg(long, env = "SAATKOND_POD_UID")]
    pub pod_uid: String,
    /// The operator's link, for example `https://saatkond-link.saatkond-system.svc:8443`.
    #[arg(long, env = "SAATKOND_LINK_URL")]
    pub link_url: url::Url,
    /// The name in the link's certificate, for example `ee.link.saatkond.internal`.
    #[arg(long, env = "SAATKOND_LINK_SERVER_NAME")]
    pub link_server_name: String,
    /// Ed25519 public keys (Base64, comma-separated) whose documents are trusted at the start.
    #[arg(long = "anchor-key", env = "SAATKOND_ANCHOR_KEY", value_delimiter = ',', required = true)]
    pub anchor_keys: Vec<ConfigurationPublicKey>,
    /// How often mounted files are read again, in milliseconds.
    #[arg(long, env = "SAATKOND_FILES_INTERVAL_MS", default_value = "2000", value_parser = milliseconds)]
    pub files_interval: Duration,
    /// How long to wait for any peer before serving without link and peers, in milliseconds.
    #[arg(long, env = "SAATKOND_ALONE_AFTER_MS", default_value = "60000", value_parser = milliseconds)]
    pub alone_after: Duration,
    /// How long a start waits for what the link has named and does not come (a document that this process must refuse, a leaf whose
    /// mount does not follow) before it asks peers, in milliseconds. The kubelet alone takes up to a minute.
    #[arg(long, env = "SAATKOND_BEHIND_AFTER_MS", default_value = "120000", value_parser = milliseconds)]
    pub behind_after: Duration,
    /// How long a message between gateways may stand still, read or sent, before it is given up, in milliseconds. While an information
    /// system works on a request, the timeout of its service holds.
    #[arg(long, env = "SAATKOND_PEER_SILENCE_MS", default_value = "120000", value_parser = milliseconds)]
    pub peer_silence: Duration,
    /// The memory that this process may use, in bytes. Unset: what its container may. Connections and bodies are bounded by it.
    #[arg(long, env = "SAATKOND_MEMORY_LIMIT")]
    pub memory_limit: Option<u64>,
    /// How long to go on accepting after SIGTERM while load balancers take this process out, in milliseconds.
    #[arg(long, env = "SAATKOND_DRAIN_DELAY_MS", default_value = "5000", value_parser = milliseconds)]
    pub drain_delay: Duration,
    /// The longest time that calls under way may take to end after that, in milliseconds.
    #[arg(long, env = "SAATKOND_DRAIN_BOUND_MS", default_value = "20000", value_parser = milliseconds)]
    pub drain_bound: Duration,
}

fn milliseconds(text: &str) -> Result<Duration, std::num::ParseIntError> {
    text.parse().map(Duration::from_millis)
}
