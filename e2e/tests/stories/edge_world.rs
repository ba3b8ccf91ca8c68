//! What the stories of edge clusters share: joining by the real command line, and nodes that the story itself plays
//! at the EdgeNode's contract, so that the session alone is told about.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::rimward::binary;
use rimward_e2e::{ControlPlane, Kubectl, Seen, Story, command::Line};
use serde_json::{Value, json};

/// Adds a cluster as a user does, and applies the file in each of `edges`, one as a rule; returns kubectl as the
/// cluster's account on the hub.
pub(crate) async fn add_cluster(
    story: &Story,
    name: &str,
    hub: &ControlPlane,
    edges: &[&ControlPlane],
) -> Result<Kubectl> {
    let out = story.scratch().path().join(format!("{name}.yaml"));
    let cli = Line::new(&binary("kubectl-rimward")?);
    let kubeconfig = hub.kubeconfig().display().to_string();
    let file = out.display().to_string();
    let arguments = ["cluster", "add", name, "--kubeconfig", &kubeconfig];
    let refused = cli
        .args([&arguments[..], &["--out", &file]].concat())
        .output()
        .await?
        .refusal()?;
    ensure!(refused.contains("give --server URL"), "{refused}");
    ensure!(!out.exists());

    let said = cluster_add(name, hub, &out)?.run().await?;
    let account = account_of(&out)?;
    let token = std::fs::read_to_string(&account)?;
    let token = token.split("token: ").nth(1).context("a token")?;
    ensure!(!said.contains(token.trim()), "the terminal shows the token");
    ensure!(std::fs::metadata(&out)?.permissions().mode() & 0o777 == 0o600);
    for edge in edges {
        edge.kubectl()?
            .run(["apply", "--server-side", "-f", &file])
            .await?;
    }
    Kubectl::new(&account)
}

/// `kubectl rimward cluster add`, with all that it needs.
pub(crate) fn cluster_add(name: &str, hub: &ControlPlane, out: &Path) -> Result<Line> {
    let (kubeconfig, server) = (hub.kubeconfig().display().to_string(), hub.server());
    let out = out.display().to_string();
    let (from, to) = (["--kubeconfig", &kubeconfig], ["--out", &out]);
    let cli = Line::new(&binary("kubectl-rimward")?).args(["cluster", "add", name]);
    Ok(cli
        .args(from)
        .args(to)
        .args(["--server", &server, "--labels", "tier=canary"]))
}

/// Takes the hub's kubeconfig out of the file for the edge, as a pod gets it from the Secret.
pub(crate) fn account_of(file: &Path) -> Result<PathBuf> {
    let text = std::fs::read_to_string(file)?;
    let secret = text
        .split("---\n")
        .filter_map(|document| serde_yaml::from_str::<Value>(document).ok())
        .find(|document| document["kind"] == "Secret")
        .context("no Secret in the file")?;
    let kubeconfig = secret["stringData"]["kubeconfig"]
        .as_str()
        .context("no kubeconfig in the Secret")?;
    let path = file.with_extension("kubeconfig");
    std::fs::write(&path, kubeconfig)?;
    Ok(path)
}

pub(crate) fn model(name: &str, revision: &str, action: &str) -> Value {
    json!({
        "namespace": "team", "name": name, "endpointName": name, "revision": revision,
        "package": {"repository": "r.example/m", "digest": format!("sha256:{}", "0".repeat(64))},
        "runtime": {}, "health": {}, "maxUnavailable": 1, "action": action,
        "progressDeadlineSeconds": 600,
    })
}

pub(crate) fn committed(name: &str, revision: &str) -> Value {
    json!({
        "namespace": "team", "name": name, "revision": revision, "state": "Committed",
        "servingRevision": revision, "lastGoodRevision": revision,
    })
}

pub(crate) async fn apply_assignment(hub: &Kubectl, name: &str, models: &[Value]) -> Result<()> {
    let object = json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment",
        "metadata": {"name": name}, "spec": {"models": models},
    });
    hub.apply(&object.to_string()).await?;
    Ok(())
}

/// Renews nodes' Leases as their agents would, until it is dropped. A node of which no beat is heard gets nothing:
/// that a Lease, or its absence, is seen for the first time proves nothing any more.
pub(crate) struct Beats(tokio::task::JoinHandle<()>);

impl Beats {
    pub(crate) fn of(edge: &Kubectl, nodes: &[&str]) -> Self {
        let edge = edge.clone();
        let nodes: Vec<String> = nodes.iter().map(|node| (*node).to_owned()).collect();
        Self(tokio::spawn(async move {
            for beat in 0_u64.. {
                let leases = nodes.iter().map(|node| {
                    let time = format!("2001-01-01T00:{:02}:{:02}.000000Z", beat / 60 % 60, beat % 60);
                    format!(
                        "{{apiVersion: coordination.k8s.io/v1, kind: Lease, metadata: {{name: {node}, \
                         namespace: rimward-nodes}}, spec: {{holderIdentity: {node}, renewTime: \"{time}\"}}}}\n---\n"
                    )
                });
                // Its API server may be away just now.
                let _ = edge.apply(&leases.collect::<String>()).await;
                tokio::time::sleep(Duration::from_secs(1)).await;
            }
        }))
    }
}

impl Drop for Beats {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Reports for a node as its agent would, about the spec that stands there now.
pub(crate) async fn report(edge: &Kubectl, node: &str, models: Value) -> Result<()> {
    let object = edge.get_json(["edgenode", node]).await?;
    let status = json!({"status": {
        "observedGeneration": object["metadata"]["generation"], "models": models,
    }});
    let patch = status.to_string();
    edge.run([
        "patch",
        "edgenode",
        node,
        "--subresource=status",
        "--type=merge",
        "-p",
        &patch,
    ])
    .await?;
    Ok(())
}

/// One field of every node's entry for a model, in order of the nodes' names.
pub(crate) async fn entries(edge: &Kubectl, name: &str, field: &str) -> Result<Vec<String>> {
    let list = edge.get_json(["edgenodes"]).await?;
    let items = list["items"].as_array().context("a list")?;
    Ok(items
        .iter()
        .filter_map(|node| node["spec"]["models"].as_array())
        .flatten()
        .filter(|model| model["name"] == name)
        .filter_map(|model| model[field].as_str().map(str::to_owned))
        .collect())
}

pub(crate) async fn nodes_with(edge: &Kubectl, revision: &str) -> Result<Vec<String>> {
    let list = edge.get_json(["edgenodes"]).await?;
    let items = list["items"].as_array().context("a list")?;
    Ok(items
        .iter()
        .filter(|node| {
            let models = node["spec"]["models"].as_array();
            models.is_some_and(|it| it.iter().any(|model| model["revision"] == revision))
        })
        .filter_map(|node| node["metadata"]["name"].as_str().map(str::to_owned))
        .collect())
}

pub(crate) async fn given(edge: &Kubectl, revision: &str, count: usize) -> Result<Seen<()>> {
    let nodes = nodes_with(edge, revision).await?;
    Ok(if nodes.len() == count {
        Seen::Done(())
    } else {
        Seen::NotYet(format!("{nodes:?} have {revision}"))
    })
}
