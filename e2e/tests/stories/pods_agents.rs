//! The agents' pods of real nodes: found, ended, and seen to be replaced.

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::node::Node;
use rimward_e2e::{Seen, wait_for};
use serde_json::{Value, json};

use crate::pods_world::{AGENTS, SYSTEM, WITHIN, World};

impl World {
    /// The agents' pods of a node, also those that end.
    async fn agent_pods(&self, node: &Node) -> Result<Vec<Value>> {
        let of = format!("--field-selector=spec.nodeName={}", node.name());
        let label = "-l=app.kubernetes.io/component=agent";
        let mut pods = self
            .kubectl
            .get_json(["pods", "-n", AGENTS, &of, label])
            .await?;
        Ok(pods["items"]
            .as_array_mut()
            .context("a list")?
            .drain(..)
            .collect())
    }

    /// The agent's pod of a node.
    pub(crate) async fn agent_pod(&self, node: &Node) -> Result<Value> {
        let mut pods = self.agent_pods(node).await?.into_iter();
        let pod = pods.find(|pod| pod["metadata"]["deletionTimestamp"].is_null());
        pod.context("no agent's pod")
    }

    /// Takes a pod away as a drain does.
    pub(crate) async fn evict(&self, pod: &str) -> Result<()> {
        let path = format!("/api/v1/namespaces/{AGENTS}/pods/{pod}/eviction");
        let eviction = json!({"apiVersion": "policy/v1", "kind": "Eviction",
            "metadata": {"name": pod, "namespace": AGENTS}});
        let line = self.kubectl.line(["create", "--raw", &path, "-f", "-"]);
        line.input(eviction.to_string()).run().await?;
        Ok(())
    }

    /// Waits until another agent's pod than this one is Ready on a node, and the only one there.
    pub(crate) async fn replaced(&self, node: &Node, old: &Value) -> Result<()> {
        let old = &old["metadata"]["uid"];
        wait_for("the next agent's pod", WITHIN, async || {
            let pods = self.agent_pods(node).await?;
            let [pod] = &pods[..] else {
                return Ok(Seen::NotYet(format!("{} pods", pods.len())));
            };
            Ok(if is_ready(pod) && pod["metadata"]["uid"] != *old {
                Seen::Done(())
            } else {
                Seen::NotYet(pod["status"].to_string())
            })
        })
        .await
    }

    /// Says of each pod of Rimward when it was made, scheduled, started and Ready, and how long its image took.
    pub(crate) async fn print_pods(&self) -> Result<()> {
        for namespace in [SYSTEM, AGENTS] {
            let pods = self.kubectl.get_json(["pods", "-n", namespace]).await?;
            for pod in pods["items"].as_array().into_iter().flatten() {
                let status = &pod["status"];
                let conditions = status["conditions"].as_array().into_iter().flatten();
                let ready = conditions.clone().find(|it| it["type"] == "Ready");
                let ready = ready.map_or("", |it| it["lastTransitionTime"].as_str().unwrap_or(""));
                eprintln!(
                    "    {}: made {}, container started {}, Ready {ready}",
                    pod["metadata"]["name"],
                    pod["metadata"]["creationTimestamp"],
                    status["containerStatuses"][0]["state"]["running"]["startedAt"],
                );
            }
            let events = self
                .kubectl
                .get_json(["events", "-n", namespace, "--field-selector=reason=Pulled"])
                .await?;
            for event in events["items"].as_array().into_iter().flatten() {
                eprintln!("    {}", event["message"].as_str().unwrap_or(""));
            }
        }
        Ok(())
    }
}

fn is_ready(pod: &Value) -> bool {
    let mut conditions = pod["status"]["conditions"].as_array().into_iter().flatten();
    conditions.any(|it| it["type"] == "Ready" && it["status"] == "True")
}

/// kill -9 of all of the agent's container at once.
pub(crate) fn kill_container(node: &Node, pod: &Value) -> Result<()> {
    let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
    let processes = node.processes_of_pod(uid, "rimward-node-agent");
    ensure!(!processes.is_empty(), "the agent has no process");
    for process in processes {
        // Those that are gone with the first of them cannot be killed any more.
        let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
    }
    Ok(())
}
