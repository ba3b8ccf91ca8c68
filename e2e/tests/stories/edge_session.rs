//! A pull cluster's session on real API servers: what its account may do, how it paces nodes, and what it
//! does while the hub is away. The nodes are EdgeNodes whose status the story writes: pacing is all that
//! is told here.

use std::cmp::Ordering;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::audit::Event;
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::ACCOUNTS;
use rimward_e2e::rimward::{Operator, binary};
use rimward_e2e::{ControlPlane, Fleet, Kubectl, Seen, Story, command::Line, story, wait_for};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(60);
/// Long enough for a wrong write to happen: many plans of a session that is asked to plan every second.
const CALM: Duration = Duration::from_secs(4);
const NODES: [&str; 3] = ["n1", "n2", "n3"];

#[test]
fn a_session_paces_nodes_with_the_hub_or_without_and_an_absence_is_no_order() {
    story("edge-session", async |story: &Story| {
        let fleet = Fleet::start("edge-session", &["west"], Options::default()).await?;
        let hub = fleet.hub.kubectl()?;
        let west = &fleet.edge("west")?.plane;
        let edge = west.kubectl()?;
        let account = add_cluster(story, &fleet.hub, west).await?;

        apply_assignment(&hub, "west", &[model("digits", "digits-1", "Run")]).await?;
        apply_assignment(&hub, "east", &[]).await?;
        check_rights(&account).await?;

        for node in NODES {
            edge.apply(&format!(
                "{{apiVersion: rimward.dev/v1alpha1, kind: EdgeNode, metadata: {{name: {node}}}, spec: {{}}}}"
            ))
            .await?;
        }
        let folder = story.scratch().path();
        let more = [
            "--node-silence-seconds=600",
            "--heartbeat-seconds=1",
            "--resync-seconds=1",
            "--retry-seconds-max=1",
        ];
        let operator = Operator::edge(
            "edge-west",
            folder,
            &fleet.edge("west")?.operator,
            "west",
            account.kubeconfig(),
            &more,
        )?;
        operator.wait_until_ready(WITHIN).await?;

        // One node at a time, each only after the one before has committed.
        let text = "the first go-ahead";
        wait_for(text, WITHIN, async || given(&edge, "digits-1", 1).await).await?;
        tokio::time::sleep(CALM).await;
        ensure!(nodes_with(&edge, "digits-1").await? == ["n1"]);
        report(&edge, "n1", json!([committed("digits", "digits-1")])).await?;
        wait_for("the second", WITHIN, async || {
            given(&edge, "digits-1", 2).await
        })
        .await?;

        // One rejecting node stops them, and its own words arrive on the hub.
        let rejected = json!([{
            "namespace": "team", "name": "digits", "revision": "digits-1", "state": "Rejected",
            "reason": "GoldenVectorMismatch", "message": "golden vector 3: expected 7, got 1",
        }]);
        report(&edge, "n2", rejected).await?;
        wait_for("the device's words on the hub", WITHIN, async || {
            let status = hub.get_json(["clusterassignment", "west"]).await?;
            let problem = &status["status"]["models"][0]["problems"][0];
            Ok(
                if problem["message"] == "golden vector 3: expected 7, got 1" {
                    Seen::Done(())
                } else {
                    Seen::NotYet(status["status"].to_string())
                },
            )
        })
        .await?;
        // From here on nothing happens: nothing is written, heartbeats and leadership aside.
        tokio::time::sleep(CALM).await;
        let marks = (fleet.hub.audit().mark()?, west.audit().mark()?);
        tokio::time::sleep(CALM).await;
        ensure!(nodes_with(&edge, "digits-1").await? == ["n1", "n2"]);
        for (plane, mark) in [(&fleet.hub, marks.0), (west, marks.1)] {
            let writes = plane.audit().writes_since(mark, ACCOUNTS)?;
            ensure!(writes.is_empty(), "{}: {writes:?}", plane.name());
            let events = plane.audit().since(mark)?;
            let beats =
                |it: &Event| it.resource() == "leases" && it.user.username.starts_with(ACCOUNTS);
            ensure!(events.iter().any(beats), "{}: no beat", plane.name());
        }

        // A second model; then the hub goes, and the session is killed and starts without it.
        let models = [
            model("digits", "digits-1", "Run"),
            model("tide", "tide-1", "Run"),
        ];
        apply_assignment(&hub, "west", &models).await?;
        wait_for("the mirror", WITHIN, async || {
            given(&edge, "tide-1", 1).await
        })
        .await?;
        fleet.hub.stop_api_server();
        operator.service().kill();
        operator.service().resume()?;
        for (nodes, node) in [(2, "n1"), (3, "n2")] {
            let own = if node == "n1" {
                json!([committed("digits", "digits-1"), committed("tide", "tide-1")])
            } else {
                json!([committed("tide", "tide-1")])
            };
            report(&edge, node, own).await?;
            wait_for("pacing without a hub", WITHIN, async || {
                given(&edge, "tide-1", nodes).await
            })
            .await?;
        }
        fleet.hub.start_api_server().await?;
        wait_for("the sums on the hub", WITHIN, async || {
            let status = hub.get_json(["clusterassignment", "west"]).await?;
            let models = status["status"]["models"].as_array();
            let tide = models.and_then(|it| it.iter().find(|it| it["name"] == "tide"));
            Ok(match tide {
                Some(tide) if tide["nodes"]["updated"] == 2 => Seen::Done(()),
                _ => Seen::NotYet(status["status"].to_string()),
            })
        })
        .await?;

        // An order to remove is one, and confirmed node by node.
        let models = [model("tide", "tide-1", "Remove")];
        apply_assignment(&hub, "west", &models).await?;
        wait_for("the order to remove", WITHIN, async || {
            let ordered = entries(&edge, "tide", "action").await?;
            Ok(if ordered == ["Remove", "Remove", "Remove"] {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{ordered:?}"))
            })
        })
        .await?;
        for node in NODES {
            report(&edge, node, json!([])).await?;
        }
        wait_for("the confirmation", WITHIN, async || {
            let status = hub.get_json(["clusterassignment", "west"]).await?;
            let left = status["status"]["models"].as_array().map_or(0, Vec::len);
            let current =
                status["status"]["observedGeneration"] == status["metadata"]["generation"];
            Ok(if left == 0 && current {
                Seen::Done(())
            } else {
                Seen::NotYet(status["status"].to_string())
            })
        })
        .await?;

        // An assignment that vanishes orders nothing.
        apply_assignment(&hub, "west", &[model("digits", "digits-1", "Run")]).await?;
        wait_for("the entry again", WITHIN, async || {
            let mirror = edge.get_json(["clusterassignment", "west"]).await?;
            Ok(if mirror["spec"]["models"][0]["name"] == "digits" {
                Seen::Done(())
            } else {
                Seen::NotYet(mirror["spec"].to_string())
            })
        })
        .await?;
        hub.run(["delete", "clusterassignment", "west"]).await?;
        tokio::time::sleep(CALM).await;
        let mirror = edge.get_json(["clusterassignment", "west"]).await?;
        ensure!(mirror["spec"]["models"][0]["action"] == "Run", "{mirror}");
        Ok(())
    });
}

#[test]
fn a_cluster_that_is_its_own_hub_has_no_mirror_and_a_deadline_survives_a_restart() {
    story("edge-solo", async |story: &Story| {
        let fleet = Fleet::start("edge-solo", &[], Options::default()).await?;
        let hub = fleet.hub.kubectl()?;
        let account = add_cluster(story, &fleet.hub, &fleet.hub).await?;
        let mut slow = model("digits", "digits-1", "Run");
        slow["progressDeadlineSeconds"] = json!(24);
        apply_assignment(&hub, "west", &[slow]).await?;
        hub.apply(
            "{apiVersion: rimward.dev/v1alpha1, kind: EdgeNode, metadata: {name: n1}, spec: {}}",
        )
        .await?;
        let operator = Operator::edge(
            "edge-solo",
            story.scratch().path(),
            &fleet.hub.kubeconfig(),
            "west",
            account.kubeconfig(),
            &[
                "--resync-seconds=1",
                "--heartbeat-seconds=1",
                "--node-silence-seconds=600",
            ],
        )?;
        wait_for("the go-ahead", WITHIN, async || {
            given(&hub, "digits-1", 1).await
        })
        .await?;

        // The node never reports: its time is counted, and a session that is killed does not give it back.
        let used = async || -> Result<u64> {
            let object = hub.get_json(["clusterassignment", "west"]).await?;
            let text = object["metadata"]["annotations"]["rimward.dev/progress"].as_str();
            let ledger: Value = serde_json::from_str(text.unwrap_or("{}"))?;
            Ok(ledger["team/digits"]["usedSeconds"].as_u64().unwrap_or(0))
        };
        let before = wait_for("time to be used up", WITHIN, async || {
            let used = used().await?;
            Ok(if used >= 9 {
                Seen::Done(used)
            } else {
                Seen::NotYet(used.to_string())
            })
        })
        .await?;
        operator.service().kill();
        operator.service().resume()?;
        wait_for("the count to go on", WITHIN, async || {
            let used = used().await?;
            Ok(match used.cmp(&before) {
                Ordering::Less => Seen::Never(format!("{before} s became {used}")),
                Ordering::Equal => Seen::NotYet(used.to_string()),
                Ordering::Greater => Seen::Done(()),
            })
        })
        .await?;
        wait_for("the deadline", WITHIN, async || {
            let object = hub.get_json(["clusterassignment", "west"]).await?;
            let verdict = &object["status"]["models"][0]["verdict"];
            Ok(if verdict["reason"] == "ProgressDeadlineExceeded" {
                Seen::Done(())
            } else {
                Seen::NotYet(verdict.to_string())
            })
        })
        .await?;
        let object = hub.get_json(["clusterassignment", "west"]).await?;
        let annotations = &object["metadata"]["annotations"];
        ensure!(
            annotations["rimward.dev/hub-generation"].is_null(),
            "{annotations}"
        );
        ensure!(
            object["metadata"]["generation"] == 1,
            "its spec was written: {object}"
        );
        Ok(())
    });
}

/// Adds the cluster as a user does; returns kubectl as the cluster's account on the hub.
async fn add_cluster(story: &Story, hub: &ControlPlane, edge: &ControlPlane) -> Result<Kubectl> {
    let out = story.scratch().path().join("west.yaml");
    let cli = Line::new(&binary("kubectl-rimward")?);
    let kubeconfig = hub.kubeconfig().display().to_string();
    let name = out.display().to_string();
    let arguments = ["cluster", "add", "west", "--kubeconfig", &kubeconfig];
    let refused = cli
        .args([&arguments[..], &["--out", &name]].concat())
        .output()
        .await?
        .refusal()?;
    ensure!(refused.contains("give --server URL"), "{refused}");
    ensure!(!out.exists());

    let server = hub.server();
    let more = [
        "--out",
        &name,
        "--server",
        &server,
        "--labels",
        "tier=canary",
    ];
    let cli = Line::new(&binary("kubectl-rimward")?);
    let said = cli.args([&arguments[..], &more[..]].concat()).run().await?;
    let account = account_of(&out)?;
    let token = std::fs::read_to_string(&account)?;
    let token = token.split("token: ").nth(1).context("a token")?;
    ensure!(!said.contains(token.trim()), "the terminal shows the token");
    ensure!(std::fs::metadata(&out)?.permissions().mode() & 0o777 == 0o600);
    edge.kubectl()?
        .run(["apply", "--server-side", "-f", &name])
        .await?;
    Kubectl::new(&account)
}

/// Takes the hub's kubeconfig out of the file for the edge, as a pod gets it from the Secret.
fn account_of(file: &Path) -> Result<PathBuf> {
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

/// A site reads its own orders and cannot rewrite them.
async fn check_rights(account: &Kubectl) -> Result<()> {
    let own = ["get", "clusterassignment", "west"];
    account.run(own).await?;
    account
        .run([
            "get",
            "clusterassignment",
            "--field-selector=metadata.name=west",
        ])
        .await?;
    let spec = r#"{"spec":{"models":[]}}"#;
    let refused: [&[&str]; 7] = [
        &[
            "patch",
            "clusterassignment",
            "west",
            "--type=merge",
            "-p",
            spec,
        ],
        &["get", "clusterassignment", "east"],
        &["get", "clusterassignments"],
        &["delete", "clusterassignment", "west"],
        &["get", "leases", "-n", "rimward-clusters"],
        &["get", "lease", "east", "-n", "rimward-clusters"],
        &["get", "namespace", "kube-system"],
    ];
    for line in refused {
        let why = account.output(line).await?.refusal()?;
        ensure!(why.contains("Forbidden"), "{line:?}: {why}");
    }
    Ok(())
}

fn model(name: &str, revision: &str, action: &str) -> Value {
    json!({
        "namespace": "team", "name": name, "endpointName": name, "revision": revision,
        "package": {"repository": "r.example/m", "digest": format!("sha256:{}", "0".repeat(64))},
        "runtime": {}, "health": {}, "maxUnavailable": 1, "action": action,
        "progressDeadlineSeconds": 600,
    })
}

fn committed(name: &str, revision: &str) -> Value {
    json!({
        "namespace": "team", "name": name, "revision": revision, "state": "Committed",
        "servingRevision": revision, "lastGoodRevision": revision,
    })
}

async fn apply_assignment(hub: &Kubectl, name: &str, models: &[Value]) -> Result<()> {
    let object = json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment",
        "metadata": {"name": name}, "spec": {"models": models},
    });
    hub.apply(&object.to_string()).await?;
    Ok(())
}

/// Reports for a node as its agent would, about the spec that stands there now.
async fn report(edge: &Kubectl, node: &str, models: Value) -> Result<()> {
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
async fn entries(edge: &Kubectl, name: &str, field: &str) -> Result<Vec<String>> {
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

async fn nodes_with(edge: &Kubectl, revision: &str) -> Result<Vec<String>> {
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

async fn given(edge: &Kubectl, revision: &str, count: usize) -> Result<Seen<()>> {
    let nodes = nodes_with(edge, revision).await?;
    Ok(if nodes.len() == count {
        Seen::Done(())
    } else {
        Seen::NotYet(format!("{nodes:?} have {revision}"))
    })
}
