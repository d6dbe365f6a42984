//! The way to the cluster, and its errors in one line.

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};

/// A client, and the namespace of the context it was made from.
pub struct Cluster {
    /// For all requests.
    pub client: kube::Client,
    /// Where a verb looks unless told otherwise.
    pub namespace: String,
}

/// Connects as kubectl would: by `KUBECONFIG` or `~/.kube/config`, else as the pod that this runs in.
pub async fn connect(context: Option<String>) -> anyhow::Result<Cluster> {
    // One provider for the whole project; a second one linked by chance must not be picked silently.
    // An error means that one is installed already, which is all that is wanted.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = match context {
        None => {
            kube::Config::infer().await.context("failed to find a cluster: neither a kubeconfig nor a pod's token")?
        }
        Some(context) => {
            let options = KubeConfigOptions { context: Some(context), ..KubeConfigOptions::default() };
            let kubeconfig = Kubeconfig::read().context("failed to read the kubeconfig")?;
            kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.context("failed to use the context")?
        }
    };
    let namespace = config.default_namespace.clone();
    let client = kube::Client::try_from(config).context("failed to make a client")?;
    Ok(Cluster { client, namespace })
}

/// The HTTP status and message of an answer of the API server that is an error.
pub fn api_status(error: &kube::Error) -> Option<(u16, &str)> {
    match error {
        kube::Error::Api(status) => Some((status.code, &status.message)),
        _ => None,
    }
}

/// Whether the API server understood the request and refused it: missing rights, admission, a conflict.
pub fn is_refusal(error: &anyhow::Error) -> bool {
    error.chain().any(|cause| {
        cause
            .downcast_ref::<kube::Error>()
            .and_then(api_status)
            .is_some_and(|(code, _)| matches!(code, 403 | 404 | 409 | 422))
    })
}

/// An error and its causes in one line; a cause that its parent already quotes is left out.
pub fn chain(error: &anyhow::Error) -> String {
    let mut text = String::new();
    for cause in error.chain() {
        // The API server's own sentence says it all; kube would add the status it came in.
        let refused = cause.downcast_ref::<kube::Error>().and_then(api_status);
        let next = refused.map_or_else(|| cause.to_string(), |(_, message)| message.to_owned());
        if text.is_empty() {
            text = next;
        } else if !text.ends_with(&next) {
            text = format!("{text}: {next}");
        }
        if refused.is_some() {
            break;
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(code: u16) -> anyhow::Error {
        let status: kube::core::Status =
            serde_json::from_value(serde_json::json!({"code": code, "message": "no", "status": "Failure"})).unwrap();
        anyhow::Error::new(kube::Error::Api(Box::new(status))).context("failed to try")
    }

    #[test]
    fn an_error_is_one_line() {
        assert_eq!(chain(&refused(403)), "failed to try: no");
        assert_eq!(chain(&anyhow::anyhow!("a: b").context("b").context("c")), "c: b: a: b");
    }

    #[test]
    fn a_refusal_is_told_from_a_failure() {
        assert!(is_refusal(&refused(403)));
        assert!(!is_refusal(&refused(500)));
        assert!(!is_refusal(&anyhow::anyhow!("other")));
    }
}
