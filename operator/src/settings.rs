//! The operator's command line. Everything can come from the environment too, as the chart gives it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, ValueEnum};
use saatkond_domain::settings::OperatorSettings;

use crate::context::Pace;
use crate::queue::Backoff;
use crate::watches::WatchSettings;

/// Which part of the operator a process is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Role {
    /// Decides and writes; one of its replicas leads.
    Controller,
    /// Answers gateways; all of its replicas work.
    Link,
}

/// Settings of `saatkond operator`.
#[derive(Debug, Clone, Args)]
pub struct Settings {
    /// Which part of the operator this process is.
    #[arg(long, env = "SAATKOND_ROLE", value_enum, default_value = "controller")]
    pub role: Role,
    /// The operator's own namespace: keys and canonical documents live there.
    #[arg(long, env = "POD_NAMESPACE", default_value = "saatkond-system")]
    pub namespace: String,
    /// Unique name of this process among its replicas: its pod's name.
    #[arg(long, env = "POD_NAME", default_value = "")]
    pub identity: String,
    /// Where /livez, /readyz and /metrics are served.
    #[arg(long, env = "SAATKOND_HEALTH_ADDRESS", default_value = "0.0.0.0:9090")]
    pub health_address: SocketAddr,
    /// Image of the gateways: the operator's own.
    #[arg(long, env = "SAATKOND_IMAGE", default_value = "")]
    pub image: String,
    /// imagePullPolicy of the gateways.
    #[arg(long, env = "SAATKOND_IMAGE_PULL_POLICY", default_value = "IfNotPresent",
        value_parser = ["Always", "IfNotPresent", "Never"])]
    pub image_pull_policy: String,
    /// Secrets in each member's namespace with which the image is pulled, comma separated.
    #[arg(long, env = "SAATKOND_IMAGE_PULL_SECRETS", value_delimiter = ',')]
    pub image_pull_secrets: Vec<String>,
    /// Where gateways reach the link. Default: the Service of the chart.
    #[arg(long, env = "SAATKOND_LINK_URL")]
    pub link_url: Option<String>,
    /// RUST_LOG of the gateways.
    #[arg(long, env = "SAATKOND_GATEWAY_LOG", default_value = "info")]
    pub gateway_log: String,
    /// Seconds for which a Lease that is not renewed keeps other replicas away.
    #[arg(long, env = "SAATKOND_LEASE_SECONDS", default_value_t = 15, value_parser = clap::value_parser!(u32).range(3..=300))]
    pub lease_seconds: u32,
    /// Reconciles at once.
    #[arg(long, env = "SAATKOND_CONCURRENCY", default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=256))]
    pub concurrency: u32,
    /// Milliseconds for which changes of one object are gathered before it is looked at.
    #[arg(long, env = "SAATKOND_DEBOUNCE_MILLISECONDS", default_value_t = 100, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub debounce_milliseconds: u32,
    /// The same for trust anchors.
    #[arg(long, env = "SAATKOND_ANCHOR_DEBOUNCE_MILLISECONDS", default_value_t = 500, value_parser = clap::value_parser!(u32).range(0..=60_000))]
    pub anchor_debounce_milliseconds: u32,
    /// The longest time that a failing object waits, in seconds.
    #[arg(long, env = "SAATKOND_LONGEST_BACKOFF_SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub longest_backoff_seconds: u32,
    /// Seconds after which the API server ends a watch; one that is silent for 5 more counts as broken.
    #[arg(long, env = "SAATKOND_WATCH_SECONDS", default_value_t = 290, value_parser = clap::value_parser!(u32).range(5..=290))]
    pub watch_seconds: u32,
    /// Where the link listens.
    #[arg(long, env = "SAATKOND_LINK_ADDRESS", default_value = "0.0.0.0:8443")]
    pub link_address: SocketAddr,
    /// Where the Secret saatkond-link-identity is mounted.
    #[arg(long, env = "SAATKOND_LINK_IDENTITY", default_value = "/etc/saatkond/link")]
    pub link_identity: PathBuf,
    /// Seconds for which work under way may go on after SIGTERM.
    #[arg(long, env = "SAATKOND_GRACE_SECONDS", default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=600))]
    pub grace_seconds: u32,
}

impl Settings {
    /// What shows in the objects that are made.
    #[must_use]
    pub fn operator(&self) -> OperatorSettings {
        OperatorSettings {
            namespace: self.namespace.clone(),
            image: self.image.clone(),
            image_pull_policy: self.image_pull_policy.clone(),
            image_pull_secrets: self.image_pull_secrets.iter().filter(|name| !name.is_empty()).cloned().collect(),
            link_url: self.link_url.clone().unwrap_or_else(|| {
                format!(
                    "https://{}.{}.svc:{}",
                    saatkond_api::names::LINK,
                    self.namespace,
                    saatkond_api::names::LINK_PORT
                )
            }),
            gateway_log: self.gateway_log.clone(),
        }
    }

    /// How soon things are done.
    #[must_use]
    pub fn pace(&self) -> Pace {
        Pace {
            concurrency: self.concurrency as usize,
            debounce: Duration::from_millis(self.debounce_milliseconds.into()),
            anchor_debounce: Duration::from_millis(self.anchor_debounce_milliseconds.into()),
            backoff: Backoff {
                longest: Duration::from_secs(self.longest_backoff_seconds.into()),
                ..Backoff::default()
            },
            ..Pace::default()
        }
    }

    /// How watches are opened.
    #[must_use]
    pub fn watches(&self) -> WatchSettings {
        WatchSettings { timeout: self.watch_seconds, ..WatchSettings::default() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Command {
        #[command(flatten)]
        settings: Settings,
    }

    fn parse(arguments: &[&str]) -> Result<Settings, clap::Error> {
        Command::try_parse_from([&["operator"], arguments].concat()).map(|command| command.settings)
    }

    #[test]
    fn the_link_is_where_the_chart_puts_it_unless_told_otherwise() {
        let operator = parse(&["--namespace=trust"]).unwrap().operator();
        assert_eq!(operator.link_url, "https://saatkond-link.trust.svc:8443");
        let operator = parse(&["--link-url=https://elsewhere:1"]).unwrap().operator();
        assert_eq!(operator.link_url, "https://elsewhere:1");
    }

    #[test]
    fn what_would_not_work_is_refused_at_the_start() {
        for argument in ["--lease-seconds=1", "--concurrency=0", "--image-pull-policy=never", "--role=agent"] {
            assert!(parse(&[argument]).is_err(), "{argument}");
        }
        assert_eq!(parse(&["--role=link"]).unwrap().role, Role::Link);
    }
}
