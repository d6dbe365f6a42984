//! Saatkond in a region: images, then the chart.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use saatkond_testbed::{Layout, Region};

/// Where the operator runs.
pub const NAMESPACE: &str = "saatkond-system";
/// The image that `make image` builds.
pub const IMAGE: &str = "saatkond:dev";

/// The archives that `make image` writes, and those of the testbed that the example uses.
fn archives(layout: &Layout) -> anyhow::Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for name in ["saatkond.tar", "person-register.tar"] {
        let path = layout.root().join("target/images").join(name);
        if !path.exists() {
            bail!("{} is not there: run `make image` first", path.display());
        }
        archives.push(path);
    }
    archives.push(layout.image("postgres.tar")?);
    Ok(archives)
}

/// Loads the images and installs the chart, or upgrades to what is built now; returns when both are
/// ready.
pub fn install(layout: &Layout, region: &Region) -> anyhow::Result<()> {
    // A cluster that existed before has its own way to images; there they are expected to be.
    if !is_external() {
        for archive in archives(layout)? {
            load_once(region, &archive).with_context(|| format!("failed to load {}", archive.display()))?;
        }
    }
    let cluster = region.cluster();
    // The strictest level that Kubernetes knows: a pod of ours that needs more is not made, and the wait below fails.
    cluster.apply(&format!(
        "apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {NAMESPACE}\n  labels: {{pod-security.kubernetes.io/enforce: restricted}}\n"
    ))?;
    let before = cluster.kubectl(&["-n", NAMESPACE, "get", "deployments", "-o", "name"])?;
    let chart =
        ["upgrade", "--install", "saatkond", "charts/saatkond", "--namespace", NAMESPACE, "--set", "image.tag=dev"];
    helm(layout, region, &chart)?;
    // The tag stays the same while the image changes: only new pods run what was built now.
    for deployment in before.lines() {
        cluster.kubectl(&["-n", NAMESPACE, "rollout", "restart", deployment])?;
    }
    // The link too: without a trust anchor it has nothing to serve, and must not hold up an installation.
    for deployment in ["deployment/saatkond-controller", "deployment/saatkond-link"] {
        cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", deployment, "--timeout=120s"])?;
    }
    Ok(())
}

/// Loads an image unless the region has this very file already: the larger ones take half a minute. What was loaded is
/// noted in the region's folder, which goes with the region.
fn load_once(region: &Region, archive: &Path) -> anyhow::Result<()> {
    let whole = archive.canonicalize()?;
    let metadata = whole.metadata()?;
    let what = format!("{} {} {:?}", whole.display(), metadata.len(), metadata.modified()?);
    let name = archive.file_name().context("an archive without a name")?;
    let note = region.folder().join("loaded").join(name);
    if std::fs::read_to_string(&note).is_ok_and(|loaded| loaded == what) {
        return Ok(());
    }
    region.load_image(archive)?;
    std::fs::create_dir_all(region.folder().join("loaded"))?;
    std::fs::write(&note, what)?;
    Ok(())
}

/// Whether the regions are clusters that existed before.
pub fn is_external() -> bool {
    std::env::var_os("SAATKOND_REGION_KUBECONFIGS").is_some()
}

/// Runs the testbed's Helm against the region.
pub fn helm(layout: &Layout, region: &Region, arguments: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(layout.tool("helm")?)
        .args(arguments)
        .current_dir(layout.root())
        .env("KUBECONFIG", region.kubeconfig())
        .output()
        .context("failed to start helm")?;
    if !output.status.success() {
        bail!("helm {} failed: {}", arguments.join(" "), String::from_utf8_lossy(&output.stderr).trim());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
