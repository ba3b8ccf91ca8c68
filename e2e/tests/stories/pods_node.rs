//! Real nodes by themselves: what a cluster of this harness is good for.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::ensure;
use rimward_e2e::node::{self, Cluster, Network, PAUSE};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::json;

const WITHIN: Duration = Duration::from_secs(120);

/// Real nodes take root. A machine where tests run without it leaves these stories out, and says so.
pub(crate) fn is_possible(name: &str) -> bool {
    if !node::is_root() {
        eprintln!(
            "story {name} is left out: real nodes need root (network namespaces, control groups)"
        );
    }
    node::is_root()
}

#[test]
fn a_restricted_pod_runs_on_each_of_two_real_nodes() {
    if !is_possible("pods-node") {
        return;
    }
    story("pods-node", async |story: &Story| {
        let began = Instant::now();
        let network = Network::start(story.scratch().path()).await?;
        let folder = story.scratch().path();
        let cluster = Cluster::start("edge", folder, network, 2, node::Options::default()).await?;
        eprintln!(
            "two nodes Ready after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        let kubectl = cluster.plane.kubectl()?;
        let labels = json!({"app": "pause"});
        let pod = json!({
            "securityContext": {
                "runAsNonRoot": true, "runAsUser": 65535,
                "seccompProfile": {"type": "RuntimeDefault"},
            },
            "automountServiceAccountToken": true,
            "containers": [{
                "name": "pause",
                "image": PAUSE,
                "imagePullPolicy": "Never",
                "securityContext": {
                    "allowPrivilegeEscalation": false, "readOnlyRootFilesystem": true,
                    "capabilities": {"drop": ["ALL"]},
                },
                "resources": {"limits": {"memory": "32Mi"}},
            }],
        });
        let restricted = json!({"pod-security.kubernetes.io/enforce": "restricted"});
        for object in [
            json!({"apiVersion": "v1", "kind": "Namespace",
                "metadata": {"name": "pods", "labels": restricted}}),
            json!({"apiVersion": "apps/v1", "kind": "DaemonSet",
                "metadata": {"name": "pause", "namespace": "pods"},
                "spec": {"selector": {"matchLabels": labels}, "template": {
                    "metadata": {"labels": labels}, "spec": pod}}}),
        ] {
            kubectl.apply(&object.to_string()).await?;
        }
        let status = "jsonpath={.status.numberReady}";
        wait_for("a pod on each node", WITHIN, async || {
            let ready = kubectl
                .run(["get", "daemonset", "pause", "-n", "pods", "-o", status])
                .await?;
            Ok(if ready == "2" {
                Seen::Done(())
            } else {
                Seen::NotYet(ready)
            })
        })
        .await?;
        eprintln!("a pod on each after {:.1} s", began.elapsed().as_secs_f64());
        let pods = kubectl.get_json(["pods", "-n", "pods"]).await?;
        for (index, node) in cluster.nodes.iter().enumerate() {
            let process = node.line("ps").args(["ax", "-o", "uid,args"]).run().await?;
            ensure!(process.contains("65535 /pause"), "{process}");
            let address = pods["items"][index]["status"]["podIP"].to_string();
            ensure!(address.starts_with("\"198.19."), "{address}");
        }
        // What pods are told to ask leads to the API server.
        let service = kubectl.get_json(["service", "kubernetes"]).await?;
        ensure!(service["spec"]["clusterIP"] == "10.43.0.1", "{service}");
        // cAdvisor has its first figures only after some seconds.
        wait_for("figures of pods", WITHIN, async || {
            let path = "/api/v1/nodes/edge-1/proxy/stats/summary";
            let summary = kubectl.run(["get", "--raw", path]).await?;
            Ok(
                if summary.contains("workingSetBytes") && summary.contains("pause") {
                    Seen::Done(())
                } else {
                    Seen::NotYet(summary)
                },
            )
        })
        .await?;
        eprintln!(
            "figures of pods after {:.1} s",
            began.elapsed().as_secs_f64()
        );
        let processes = cluster.nodes[0].pod_processes();
        ensure!(!processes.is_empty(), "no pod has a process");
        drop(cluster);
        eprintln!("all gone after {:.1} s", began.elapsed().as_secs_f64());
        for id in processes {
            ensure!(
                !Path::new(&format!("/proc/{id}")).exists(),
                "process {id} of a pod stayed"
            );
        }
        Ok(())
    });
}
