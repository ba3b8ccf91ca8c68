//! What the programs of a node are told.
//!
//! Owns the text of their configuration files. They find each other at the places that a real machine has
//! (`/run`, `/var/lib`), which are the node's own in there.

use std::path::Path;

use serde_json::{Value, json};

use super::image::PAUSE;

/// Where containerd listens, in there.
pub(crate) const CONTAINERD: &str = "/run/containerd/containerd.sock";

/// containerd's, with a folder of the node for its network and registry settings.
pub(crate) fn containerd(folder: &Path, snapshotter: &str) -> String {
    let folder = folder.display();
    format!(
        r#"version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
[grpc]
address = "{CONTAINERD}"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{PAUSE}"
# A harness without CAP_SYS_RESOURCE may lower no score.
restrict_oom_score_adj = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "{snapshotter}"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "/usr/lib/cni"
conf_dir = "{folder}/cni"
[plugins."io.containerd.grpc.v1.cri".registry]
config_path = "{folder}/registries"
"#
    )
}

/// That a registry is asked over plain HTTP.
pub(crate) fn plain_http(registry: &str) -> String {
    format!(
        "server = \"http://{registry}\"\n[host.\"http://{registry}\"]\ncapabilities = [\"pull\", \"resolve\"]\n"
    )
}

/// The pods' network: an address of the node's subnet each, and ports of the node that lead to them.
pub(crate) fn cni(pods: &str) -> Value {
    json!({
        "cniVersion": "0.4.0",
        "name": "pods",
        "plugins": [
            {
                "type": "ptp",
                "ipMasq": false,
                "ipam": {
                    "type": "host-local",
                    "ranges": [[{"subnet": pods}]],
                    "routes": [{"dst": "0.0.0.0/0"}],
                },
            },
            {"type": "portmap", "capabilities": {"portMappings": true}, "snat": true},
        ],
    })
}

/// What a kubelet is told beside its flags.
#[derive(Debug)]
pub(crate) struct Kubelet<'a> {
    pub(crate) authority: &'a Path,
    pub(crate) group: &'a str,
    pub(crate) resolver: &'a Path,
    pub(crate) dns: Option<String>,
    /// Below how much memory pods are evicted; never, without.
    pub(crate) evict_below: Option<String>,
}

impl Kubelet<'_> {
    pub(crate) fn config(&self) -> Value {
        let evict = self.evict_below.as_ref();
        json!({
            "apiVersion": "kubelet.config.k8s.io/v1beta1",
            "kind": "KubeletConfiguration",
            "authentication": {
                "anonymous": {"enabled": false},
                "webhook": {"enabled": true},
                "x509": {"clientCAFile": self.authority},
            },
            "authorization": {"mode": "Webhook"},
            "containerRuntimeEndpoint": format!("unix://{CONTAINERD}"),
            "cgroupDriver": "cgroupfs",
            "cgroupRoot": format!("/{}", self.group),
            "failCgroupV1": false,
            "failSwapOn": false,
            "evictionHard": evict.map_or_else(|| json!({}), |below| json!({"memory.available": below})),
            "evictionPressureTransitionPeriod": "5s",
            // The machine's disk is not the node's to tidy up.
            "imageGCHighThresholdPercent": 100,
            "clusterDomain": "cluster.local",
            "clusterDNS": self.dns.iter().collect::<Vec<_>>(),
            "resolvConf": self.resolver,
            "maxPods": 40,
        })
    }
}

/// kube-proxy's.
pub(crate) fn proxy(name: &str, kubeconfig: &Path, pods: &str) -> Value {
    json!({
        "apiVersion": "kubeproxy.config.k8s.io/v1alpha1",
        "kind": "KubeProxyConfiguration",
        "mode": "iptables",
        "hostnameOverride": name,
        "clientConnection": {"kubeconfig": kubeconfig},
        "clusterCIDR": pods,
        // The kernel's table of connections belongs to the whole machine.
        "conntrack": {"maxPerCore": 0, "min": 0, "tcpEstablishedTimeout": "0s", "tcpCloseWaitTimeout": "0s"},
    })
}

/// CoreDNS's: Services by their names, nothing of the world outside.
pub(crate) fn dns(address: std::net::Ipv4Addr, kubeconfig: &Path) -> String {
    let kubeconfig = kubeconfig.display();
    format!(
        ".:53 {{\n  bind {address}\n  errors\n  kubernetes cluster.local in-addr.arpa {{\n    kubeconfig \
         {kubeconfig}\n    ttl 2\n  }}\n}}\n"
    )
}
