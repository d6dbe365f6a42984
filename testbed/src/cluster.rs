//! What can be asked of any Kubernetes that a kubeconfig leads to.

use std::{
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use crate::{
    Error, Layout, Result,
    credentials::{kubeconfig_text, write_secret},
    process::{run, run_with_input},
    wait,
};

/// A Kubernetes API, by its administrator's kubeconfig.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: PathBuf,
    kubectl: PathBuf,
}

impl Cluster {
    /// The cluster that `kubeconfig` leads to.
    pub fn new(layout: &Layout, kubeconfig: impl Into<PathBuf>) -> Result<Self> {
        Ok(Self { kubeconfig: kubeconfig.into(), kubectl: layout.tool("kubectl")? })
    }

    /// The administrator's kubeconfig.
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// `kubectl`, pointed at this cluster, nothing taken from the caller's own configuration.
    pub fn kubectl_command(&self) -> Command {
        let mut command = Command::new(&self.kubectl);
        command.env("KUBECONFIG", &self.kubeconfig).env("KUBERC", "off").env_remove("POD_NAMESPACE");
        command
    }

    /// Runs `kubectl` with these arguments and returns what it printed.
    pub fn kubectl(&self, arguments: &[&str]) -> Result<String> {
        run(self.kubectl_command().args(arguments))
    }

    /// Whether the API server says that it is ready.
    pub fn ready(&self) -> bool {
        self.kubectl(&["get", "--raw=/readyz", "--request-timeout=5s"]).is_ok()
    }

    /// Applies YAML or JSON.
    pub fn apply(&self, manifests: &str) -> Result<String> {
        let arguments = ["apply", "--server-side", "--force-conflicts", "--field-manager=saatkond-testbed", "-f", "-"];
        run_with_input(self.kubectl_command().args(arguments), manifests)
    }

    /// Waits until `kubectl` with these arguments prints `expected`; shows the last answer when it never does.
    pub fn wait_for(&self, arguments: &[&str], expected: &str, bound: Duration) -> Result<()> {
        let last = std::cell::RefCell::new(String::new());
        wait::until(
            &format!("kubectl {} says {expected:?}", arguments.join(" ")),
            bound,
            || format!("it said: {}", last.borrow()),
            || {
                let said = self.kubectl(arguments).unwrap_or_else(|error| error.to_string());
                let found = said.trim() == expected;
                *last.borrow_mut() = said;
                if !found {
                    wait::long_pause();
                }
                Ok(found.then_some(()))
            },
        )
    }

    /// Writes a kubeconfig for a ServiceAccount that exists: its rights are what its roles give it, and no more.
    pub fn service_account_kubeconfig(&self, namespace: &str, name: &str, path: &Path) -> Result<()> {
        let token = self.kubectl(&["create", "token", name, "--namespace", namespace, "--duration=24h"])?;
        let view = self.kubectl(&["config", "view", "--minify", "--flatten", "--raw", "--output=json"])?;
        let view: serde_json::Value =
            serde_json::from_str(&view).map_err(|source| Error::State { path: self.kubeconfig.clone(), source })?;
        let cluster = &view["clusters"][0]["cluster"];
        let text = kubeconfig_text(
            cluster["server"].as_str().unwrap_or_default(),
            cluster["certificate-authority-data"].as_str().unwrap_or_default(),
            &format!("system:serviceaccount:{namespace}:{name}"),
            &serde_json::json!({"token": token.trim()}),
        );
        write_secret(path, &text)
    }
}
