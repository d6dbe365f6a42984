//! The files a region is configured by, and the objects that make it complete.

use std::{fs, net::Ipv4Addr, path::Path};

use super::{
    RegionConfig,
    init::{BIN, CONTAINERD, REGION},
};
use crate::{Result, credentials::Authority, error::Doing as _, layout::write_whole};

/// Writes keys, certificates, kubeconfigs and component configuration into the region's folder.
pub(super) fn write(folder: &Path, config: &RegionConfig) -> Result<()> {
    let pki = folder.join("pki");
    fs::create_dir_all(folder.join("logs/pods")).doing(|| format!("create {}", folder.display()))?;
    let address = config.address();
    let authority = Authority::create(&pki)?;
    let names = [
        "localhost",
        "kubernetes",
        "kubernetes.default",
        "kubernetes.default.svc",
        "kubernetes.default.svc.cluster.local",
    ];
    authority.server("api-server", &names, &[Ipv4Addr::LOCALHOST.into(), address.into(), config.service(1).into()])?;
    authority.server("kubelet", &[&config.name], &[address.into()])?;
    authority.client("kubelet-client", "kube-apiserver-kubelet-client", &["system:masters"])?;
    let url = format!("https://{address}:6443");
    let node = format!("system:node:{}", config.name);
    for (name, user, groups) in [
        ("kubelet", node.as_str(), &["system:nodes"][..]),
        ("controller-manager", "system:kube-controller-manager", &[]),
        ("scheduler", "system:kube-scheduler", &[]),
        ("proxy", "system:kube-proxy", &[]),
        ("region-controller", "saatkond:region-controller", &["system:masters"]),
    ] {
        authority.kubeconfig(&pki.join(format!("{name}.kubeconfig")), &url, user, groups)?;
    }
    authority.kubeconfig(&folder.join("kubeconfig"), &url, "admin", &["system:masters"])?;
    for (name, text) in [
        ("containerd.toml", containerd()),
        ("kubelet.yaml", kubelet(config)),
        ("kube-proxy.yaml", proxy(config)),
        ("cni/10-saatkond.conflist", cni(config)),
    ] {
        write_whole(&folder.join("config").join(name), text.as_bytes())?;
    }
    Ok(())
}

fn containerd() -> String {
    // The opt plugin would make a folder in the host's /opt.
    // restrict_oom_score_adj: some hosts drop the capability to lower a score, and then no sandbox would start.
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt"]

[grpc]
address = "{CONTAINERD}"

[plugins."io.containerd.cri.v1.images"]
snapshotter = "overlayfs"

# Ending a container would otherwise write the whole disk's unwritten data out first.
[plugins."io.containerd.snapshotter.v1.overlayfs"]
mount_options = ["volatile"]

[plugins."io.containerd.cri.v1.images".pinned_images]
sandbox = "saatkond.io/testbed/pause:1"

[plugins."io.containerd.cri.v1.runtime"]
restrict_oom_score_adj = true

[plugins."io.containerd.cri.v1.runtime".cni]
bin_dirs = ["/usr/lib/cni"]
conf_dir = "{REGION}/config/cni"

[plugins."io.containerd.cri.v1.runtime".containerd]
default_runtime_name = "runc"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins."io.containerd.cri.v1.runtime".containerd.runtimes.runc.options]
BinaryName = "{BIN}/runc"
SystemdCgroup = false
"#
    )
}

fn kubelet(config: &RegionConfig) -> String {
    format!(
        r#"apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: {address}
authentication:
  anonymous: {{enabled: false}}
  webhook: {{enabled: true}}
  x509: {{clientCAFile: {REGION}/pki/ca.crt}}
authorization: {{mode: Webhook}}
tlsCertFile: {REGION}/pki/kubelet.crt
tlsPrivateKeyFile: {REGION}/pki/kubelet.key
containerRuntimeEndpoint: unix://{CONTAINERD}
cgroupDriver: cgroupfs
cgroupRoot: /{cgroup}
failCgroupV1: false
enforceNodeAllocatable: []
failSwapOn: false
oomScoreAdj: 0
clusterDNS: ["{dns}"]
clusterDomain: cluster.local
resolvConf: /run/saatkond/resolv.conf
podLogsDir: {REGION}/logs/pods
volumePluginDir: /var/lib/kubelet/volumeplugins
serializeImagePulls: false
# Mounted Secrets and ConfigMaps are refreshed when a pod is. Most of the time of a test that replaces an authority is this.
syncFrequency: 10s
imageGCHighThresholdPercent: 100
# No pod goes because a build has filled the disk of the machine: 0% switches a threshold off.
evictionHard: {{memory.available: 50Mi, nodefs.available: 0%, nodefs.inodesFree: 0%, imagefs.available: 0%}}
"#,
        address = config.address(),
        cgroup = config.cgroup,
        dns = config.service(10),
    )
}

fn proxy(config: &RegionConfig) -> String {
    // The conntrack limits are the machine's, not the region's: zero leaves them alone.
    format!(
        r"apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: nftables
hostnameOverride: {name}
clientConnection: {{kubeconfig: {REGION}/pki/proxy.kubeconfig}}
clusterCIDR: {pods}
oomScoreAdj: 0
conntrack: {{maxPerCore: 0, min: 0, tcpEstablishedTimeout: 0s, tcpCloseWaitTimeout: 0s}}
",
        name = config.name,
        pods = config.pods(),
    )
}

fn cni(config: &RegionConfig) -> String {
    // ptp, not bridge: packets between two pods are routed, so NetworkPolicies see them.
    serde_json::json!({
        "cniVersion": "1.0.0",
        "name": "saatkond",
        "plugins": [{
            "type": "ptp",
            "ipMasq": false,
            "mtu": 1500,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": config.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
    .to_string()
}

/// The default StorageClass and cluster DNS.
pub(super) fn objects(config: &RegionConfig) -> String {
    OBJECTS.replace("DNS_ADDRESS", &config.service(10).to_string())
}

const OBJECTS: &str = include_str!("objects.yaml");
