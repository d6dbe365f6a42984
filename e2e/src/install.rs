//! Saatkond in a region: images, then the chart.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use saatkond_testbed::{Cluster, KUBECONFIGS, LOADING, Layout, Region};
use serde_json::Value;

/// Where the operator runs.
pub const NAMESPACE: &str = "saatkond-system";
/// The image that `make image` builds.
pub const IMAGE: &str = "saatkond:dev";

/// What `make image` builds, by the names that the chart and the example use.
const BUILT: [(&str, &str); 2] = [(IMAGE, "saatkond.tar"), ("saatkond-person-register:dev", "person-register.tar")];
/// The image of the testbed that the example uses.
const POSTGRES: (&str, &str) = ("saatkond.io/testbed/postgres:17", "postgres.tar");

/// The archives that `make image` writes, and those of the testbed that the example uses.
fn archives(layout: &Layout) -> anyhow::Result<Vec<PathBuf>> {
    let mut archives = Vec::new();
    for (_, file) in BUILT {
        let path = layout.root().join("target/images").join(file);
        if !path.exists() {
            bail!("{} is not there: run `make image` first", path.display());
        }
        archives.push(path);
    }
    archives.push(layout.image(POSTGRES.1)?);
    Ok(archives)
}

/// Which images a cluster that existed before must have, and where they are: nobody here can load them.
fn expected_images(layout: &Layout, region: &str) -> String {
    let mut text = format!(
        "Region {region} is a cluster that {KUBECONFIGS} names. Its nodes must have these images by these names, those \
         that are built here anew after each `make image`:\n"
    );
    for (name, file) in BUILT {
        // Writing to a String cannot fail.
        let _ = writeln!(text, "  {name:<32} {}", layout.root().join("target/images").join(file).display());
    }
    // Its own build takes root and Debian, which may be just what there is not.
    let postgres = layout.image(POSTGRES.1).map_or_else(
        |_| {
            format!(
                "not built here: `testbed/install.sh regions` does, as root and without {KUBECONFIGS}. An image with \
                 PostgreSQL 17, its user postgres as 999, and curl takes its place"
            )
        },
        |path| path.display().to_string(),
    );
    let _ = writeln!(text, "  {:<32} {postgres}", POSTGRES.0);
    let _ = write!(text, "What loads an archive: {LOADING}");
    text
}

/// Loads the images and installs the chart, or upgrades to what is built now; returns when both are
/// ready. Into a cluster that existed before nothing is loaded: it is said what must be there.
pub fn install(layout: &Layout, region: &Region) -> anyhow::Result<()> {
    if region.is_external() {
        eprintln!("{}", expected_images(layout, region.name()));
    } else {
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
        let rollout = cluster.kubectl(&["-n", NAMESPACE, "rollout", "status", deployment, "--timeout=120s"]);
        rollout.map_err(|error| with_missing_images(cluster, error.into()))?;
    }
    Ok(())
}

/// The error, with the images that pods wait for in vain: where nothing is loaded by us, that is the likely reason, and
/// a wait that is over does not tell it.
pub fn with_missing_images(cluster: &Cluster, error: anyhow::Error) -> anyhow::Error {
    let said = cluster.kubectl(&["get", "pods", "--all-namespaces", "--output=json"]).unwrap_or_default();
    let missing = missing_images(&serde_json::from_str(&said).unwrap_or_default());
    if missing.is_empty() {
        return error;
    }
    error.context(format!("images that do not come to the nodes of the cluster:\n  {}", missing.join("\n  ")))
}

fn missing_images(pods: &Value) -> Vec<String> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut missing = Vec::new();
    for pod in pods["items"].as_array().into_iter().flatten() {
        let statuses = ["initContainerStatuses", "containerStatuses"].map(|field| pod["status"][field].as_array());
        for status in statuses.into_iter().flatten().flatten() {
            let reason = text(&status["state"]["waiting"]["reason"]);
            if ["ErrImagePull", "ImagePullBackOff", "ErrImageNeverPull"].contains(&reason.as_str()) {
                let (namespace, name) = (text(&pod["metadata"]["namespace"]), text(&pod["metadata"]["name"]));
                missing.push(format!("{} for pod {namespace}/{name}: {reason}", text(&status["image"])));
            }
        }
    }
    missing
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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_cluster_that_existed_before_is_told_its_images() {
        let checkout = tempfile::tempdir().unwrap();
        let layout = Layout::at(checkout.path());
        let said = expected_images(&layout, "home");
        let root = layout.root().display();
        for expected in [
            "Region home is a cluster that SAATKOND_REGION_KUBECONFIGS names.".to_owned(),
            format!("  saatkond:dev                     {root}/target/images/saatkond.tar\n"),
            format!("  saatkond-person-register:dev     {root}/target/images/person-register.tar\n"),
            "  saatkond.io/testbed/postgres:17  not built here".to_owned(),
            "PostgreSQL 17, its user postgres as 999, and curl".to_owned(),
            "`kind load image-archive FILE`".to_owned(),
        ] {
            assert!(said.contains(&expected), "{expected:?} is not in {said}");
        }
        let archive = layout.root().join("target/tools/images/postgres.tar");
        std::fs::create_dir_all(archive.parent().unwrap()).unwrap();
        std::fs::write(&archive, "").unwrap();
        let said = expected_images(&layout, "home");
        assert!(said.contains(&format!("  saatkond.io/testbed/postgres:17  {}\n", archive.display())), "{said}");
    }

    #[test]
    fn images_that_pods_wait_for_are_named() {
        let pod = |name: &str, field: &str, reason: &str| {
            json!({
                "metadata": {"namespace": "n", "name": name},
                "status": {field: [{"image": "saatkond:dev", "state": {"waiting": {"reason": reason}}}]},
            })
        };
        let pods = json!({"items": [
            pod("a", "containerStatuses", "ImagePullBackOff"),
            pod("b", "initContainerStatuses", "ErrImageNeverPull"),
            pod("c", "containerStatuses", "CrashLoopBackOff"),
            {"metadata": {"namespace": "n", "name": "d"}, "status": {"phase": "Pending"}},
        ]});
        let expected = ["saatkond:dev for pod n/a: ImagePullBackOff", "saatkond:dev for pod n/b: ErrImageNeverPull"];
        assert_eq!(missing_images(&pods), expected);
        assert_eq!(missing_images(&Value::Null), [""; 0]);
    }
}
