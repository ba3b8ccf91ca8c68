//! Memory of pods, as their kubelet counts it.

use std::time::Duration;

use anyhow::{Context as _, Result};
use rimward_e2e::installed::Place;
use rimward_e2e::{Seen, wait_for};
use serde_json::Value;

/// cAdvisor looks every ten seconds or so: the figures are of what is now after this.
const FRESH: Duration = Duration::from_secs(25);
const WITHIN: Duration = Duration::from_secs(120);

/// What one pod's container has, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) working_set: f64,
    pub(super) resident: f64,
}

/// Waits until the figures are new, then gives those of the pods whose names begin so.
pub(super) async fn memory<const N: usize>(
    place: &Place,
    prefixes: [&str; N],
) -> Result<[Memory; N]> {
    tokio::time::sleep(FRESH).await;
    let node = place.cluster.nodes.first().context("no node")?;
    let path = format!("/api/v1/nodes/{}/proxy/stats/summary", node.name());
    wait_for("the kubelet's figures of pods", WITHIN, async || {
        let text = place.kubectl.run(["get", "--raw", &path]).await?;
        let summary: Value = serde_json::from_str(&text)?;
        let found = prefixes.map(|prefix| of_pod(&summary, prefix));
        Ok(if found.iter().all(Option::is_some) {
            Seen::Done(found.map(|it| {
                it.unwrap_or(Memory {
                    working_set: 0.0,
                    resident: 0.0,
                })
            }))
        } else {
            Seen::NotYet(summary["pods"].to_string())
        })
    })
    .await
}

fn of_pod(summary: &Value, prefix: &str) -> Option<Memory> {
    let mut pods = summary["pods"].as_array()?.iter();
    let pod = pods.find(|pod| {
        let name = pod["podRef"]["name"].as_str();
        name.is_some_and(|name| name.starts_with(prefix))
    })?;
    let memory = &pod["containers"][0]["memory"];
    let bytes = |name: &str| memory[name].as_f64().filter(|bytes| *bytes > 0.0);
    Some(Memory {
        working_set: bytes("workingSetBytes")?,
        resident: bytes("rssBytes")?,
    })
}
