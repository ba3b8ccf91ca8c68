//! A hub with one pull and one push cluster, a real agent in each: a model arrives, a wrong one is refused
//! and explained, and models are taken away: leaving a placement, deleting a deployment while a cluster is
//! offline, deleting a cluster.

use std::time::Duration;

use anyhow::{Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::digits;
use rimward_e2e::fleet::repository_root;
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::ports::free_port;
use rimward_e2e::rimward::{self, Operator, binary};
use rimward_e2e::service::Service;
use rimward_e2e::{Fleet, Kubectl, Seen, Story, command::Line, story, wait_for};
use serde_json::{Value, json};

use crate::edge_world::account_of;

/// A release whose golden vectors its model does not give.
const WRONG: (&str, &str) = ("1.2.0", "wasm-models/fixtures/wrong");

const WITHIN: Duration = Duration::from_secs(90);
/// Long enough for a wrong order to arrive: many plans of operators that plan every second.
const CALM: Duration = Duration::from_secs(4);

#[test]
fn models_go_from_clusters_that_answer_later_from_others_and_not_from_those_that_left() {
    story("edge-fleet", async |story: &Story| {
        let fleet = Fleet::start("edge-fleet", &["north", "south"], Options::default()).await?;
        let (north, host) = start_agent(&fleet, "north")?;
        let (south, _) = start_agent(&fleet, "south")?;
        tell(story, &fleet, &host).await?;
        [north, south].iter().try_for_each(Service::check_running)
    });
}

/// `host` is where the node of north answers.
async fn tell(story: &Story, fleet: &Fleet, host: &str) -> Result<()> {
    let hub = fleet.hub.kubectl()?;
    let (north, south) = (
        &fleet.edge("north")?.plane.kubectl()?,
        &fleet.edge("south")?.plane.kubectl()?,
    );
    let folder = story.scratch().path();
    let out = |name: &str| folder.join(name).display().to_string();
    let kubeconfig = fleet.hub.kubeconfig().display().to_string();
    let cli = async |arguments: &[&str]| -> Result<String> {
        let line = Line::new(&binary("kubectl-rimward")?);
        line.args([arguments, &["--kubeconfig", &kubeconfig]].concat())
            .run()
            .await
    };

    // One cluster dials the hub, the hub dials the other.
    let (server, file) = (fleet.hub.server(), out("north.yaml"));
    cli(&[
        "cluster",
        "add",
        "north",
        "--server",
        &server,
        "--out",
        &file,
        "--labels",
        "site=port",
    ])
    .await?;
    let account = account_of(file.as_ref())?;
    let edge = fleet.edge("south")?;
    let (server, file) = (edge.plane.server(), out("south.yaml"));
    let push = edge.operator.display().to_string();
    cli(&[
        "cluster",
        "add",
        "south",
        "--push",
        &push,
        "--server",
        &server,
        "--out",
        &file,
        "--labels",
        "site=port",
    ])
    .await?;
    south.run(["apply", "--server-side", "-f", &file]).await?;
    let often = [
        "--resync-seconds=1",
        "--heartbeat-seconds=1",
        "--retry-seconds-max=1",
        "--node-silence-seconds=20",
    ];
    let registry = format!("--plain-http={}", fleet.registry.host());
    let operator = Operator::hub(
        "hub",
        folder,
        &fleet.hub_operator,
        &[&often[..], &[&registry]].concat(),
    )?;
    operator.wait_until_ready(WITHIN).await?;
    let account = account.display().to_string();
    let session = Operator::edge(
        "edge-north",
        folder,
        &fleet.edge("north")?.operator,
        "north",
        account.as_ref(),
        &often,
    )?;

    for (name, version, package) in [
        ("digits-1", "1.0.0", "examples/packages/digits-1.0.0"),
        ("digits-2", WRONG.0, WRONG.1),
    ] {
        let image = release(fleet, package, version).await?;
        let spec = json!({"family": "digits", "version": version, "image": image});
        hub.apply(&object("Model", name, spec).to_string()).await?;
    }
    let deployment = object(
        "ModelDeployment",
        "digits",
        json!({
            "modelRef": {"name": "digits-1"},
            "placement": {"clusterSelector": {"matchLabels": {"site": "port"}}},
        "health": {"probationSeconds": 1},
        }),
    );
    hub.apply(&deployment.to_string()).await?;
    cli(&["status", "digits", "-w", "--timeout", "90s"]).await?;
    for edge in [north, south] {
        ensure!(actions(edge).await? == ["Run"]);
    }
    let tree = cli(&["get", "digits"]).await?;
    ensure!(
        tree.contains("Ready") && tree.contains("2/2 clusters"),
        "{tree}"
    );

    // An agent reports; it gives no orders, not even to itself.
    let agent = Kubectl::new(&fleet.edge("north")?.agent)?;
    let empty = r#"{"spec":{"models":[]}}"#;
    let order = ["patch", "edgenode", "n1", "--type=merge", "-p", empty];
    let denied = agent.output(order).await?.refusal()?;
    ensure!(
        denied.contains("an agent may not write the spec"),
        "{denied}"
    );

    node_made_anew(north, host).await?;

    // A wrong release goes no further than the first node, and the device says why.
    let wrong = deployment.to_string().replace("digits-1", "digits-2");
    hub.apply(&wrong).await?;
    let line = Line::new(&binary("kubectl-rimward")?);
    let status = [
        "status",
        "digits",
        "-w",
        "--timeout",
        "90s",
        "--kubeconfig",
        &kubeconfig,
    ];
    let failed = line.args(status).output().await?;
    ensure!(failed.status.code() == Some(1), "{}", failed.stdout);
    let why = cli(&["explain", "digits"]).await?;
    ensure!(why.contains("GoldenVectorMismatch: golden vector"), "{why}");
    hub.apply(&deployment.to_string()).await?;
    cli(&["status", "digits", "-w", "--timeout", "90s"]).await?;

    // A cluster that leaves the placement, and comes back.
    hub.run(["label", "edgecluster", "south", "site=hill", "--overwrite"])
        .await?;
    is_gone(&hub, "south", south).await?;
    ensure!(actions(north).await? == ["Run"]);
    hub.run(["label", "edgecluster", "south", "site=port", "--overwrite"])
        .await?;
    wait_for("south to have it again", WITHIN, async || {
        has(south, &["Run"]).await
    })
    .await?;

    // Deleting a deployment waits for nobody; who is offline hears of it on return.
    session.service().kill();
    hub.run(["delete", "modeldeployment", "digits", "--timeout=30s"])
        .await?;
    is_gone(&hub, "south", south).await?;
    tokio::time::sleep(CALM).await;
    ensure!(actions(north).await? == ["Run"]);
    let waiting = hub.get_json(["clusterassignment", "north"]).await?;
    ensure!(
        waiting["spec"]["models"][0]["action"] == "Remove",
        "{waiting}"
    );
    session.service().resume()?;
    is_gone(&hub, "north", north).await?;

    // A cluster that is deleted keeps what it runs, and its account is worth nothing any more.
    hub.apply(&deployment.to_string()).await?;
    cli(&["status", "digits", "-w", "--timeout", "90s"]).await?;
    let site = Kubectl::new(account.as_ref())?;
    site.run(["get", "clusterassignment", "north"]).await?;
    hub.run(["delete", "edgecluster", "north"]).await?;
    wait_for("the account to end", WITHIN, async || {
        let answer = site.output(["get", "clusterassignment", "north"]).await?;
        Ok(
            if answer.stderr.contains("Unauthorized") || answer.stderr.contains("must be logged in")
            {
                Seen::Done(())
            } else {
                Seen::NotYet(answer.stderr)
            },
        )
    })
    .await?;
    tokio::time::sleep(CALM).await;
    for edge in [north, south] {
        ensure!(actions(edge).await? == ["Run"]);
    }
    session.service().check_running()?;
    operator.service().check_running()
}

/// Somebody deletes the EdgeNode: it is made anew, without orders at first, and what serves goes on serving.
async fn node_made_anew(north: &Kubectl, host: &str) -> Result<()> {
    let digits = digits::held_out()?;
    let requests = digits
        .iter()
        .map(|digit| digits::request(digit).to_string().into());
    let load = Load::start(Plan {
        url: format!("http://{host}/v2/models/digits/infer"),
        bodies: requests.collect(),
        rate_per_second: 20,
        connections: 4,
        timeout: Duration::from_secs(20),
        judge: any_inference,
    })?;
    let before = north.get_json(["edgenode", "n1"]).await?;
    north.run(["delete", "edgenode", "n1"]).await?;
    wait_for("the node to be made anew", WITHIN, async || {
        let node = north.get_json(["edgenode", "n1"]).await?;
        let model = &node["status"]["models"][0];
        let again = node["metadata"]["uid"] != before["metadata"]["uid"]
            && node["spec"]["models"] == before["spec"]["models"]
            && model["state"] == "Committed"
            && model["revision"] == before["status"]["models"][0]["revision"];
        Ok(if again {
            Seen::Done(())
        } else {
            Seen::NotYet(node.to_string())
        })
    })
    .await?;
    let report = load.stop()?;
    report.check_none_failed()?;
    ensure!(report.answered_by.len() == 1, "{:?}", report.answered_by);
    Ok(())
}

/// One agent of a cluster, under the cluster's own account for agents, and where it answers.
fn start_agent(fleet: &Fleet, cluster: &str) -> Result<(Service, String)> {
    let folder = fleet.scratch.folder(&format!("agent-{cluster}"))?;
    let pem = std::fs::read_to_string(fleet.cosign.public_key())?;
    let pem: String = pem.lines().map(|line| format!("      {line}\n")).collect();
    let trust = format!(
        "apiVersion: rimward.dev/v1alpha1\nkind: TrustFile\nauthorities:\n- name: acme\n  \
         repositories: [\"{}/models/**\"]\n  keys:\n  - name: ci\n    pem: |\n{pem}",
        fleet.registry.host()
    );
    std::fs::write(folder.join("trust.yaml"), trust)?;
    let path = |name: &str| folder.join(name).display().to_string();
    let host = format!("127.0.0.1:{}", free_port()?);
    let arguments = [
        "--node-name=n1".to_owned(),
        format!("--data-dir={}", path("data")),
        format!("--trust={}", path("trust.yaml")),
        format!("--kubeconfig={}", fleet.edge(cluster)?.agent.display()),
        format!("--listen={host}"),
        "--lease-seconds=1".to_owned(),
    ];
    let agent = rimward::agent(&format!("agent-{cluster}"), &folder, &arguments)?;
    Ok((agent, host))
}

/// Packages, pushes and signs; gives the image's reference.
async fn release(fleet: &Fleet, package: &str, version: &str) -> Result<String> {
    let image = format!("{}/models/digits:{version}", fleet.registry.host());
    let package = repository_root().join(package).display().to_string();
    let line = Line::new(&binary("kubectl-rimward")?);
    let said = line
        .args(["package", &package, "--push", &image])
        .run()
        .await?;
    fleet.cosign.sign(said.trim()).await?;
    Ok(image)
}

/// Waits until a cluster's node has nothing, and the hub has dropped the entry.
async fn is_gone(hub: &Kubectl, cluster: &str, edge: &Kubectl) -> Result<()> {
    wait_for(
        &format!("the model to be gone from {cluster}"),
        WITHIN,
        async || {
            let assignment = hub.get_json(["clusterassignment", cluster]).await?;
            let left = assignment["spec"]["models"].as_array().map_or(0, Vec::len);
            let actions = actions(edge).await?;
            Ok(if left == 0 && actions.is_empty() {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{left} entries, {actions:?}"))
            })
        },
    )
    .await
}

async fn has(edge: &Kubectl, wanted: &[&str]) -> Result<Seen<()>> {
    let actions = actions(edge).await?;
    Ok(if actions == wanted {
        Seen::Done(())
    } else {
        Seen::NotYet(format!("{actions:?}"))
    })
}

/// What the node is ordered, entry by entry.
async fn actions(edge: &Kubectl) -> Result<Vec<String>> {
    let node = edge.get_json(["edgenode", "n1"]).await?;
    let empty = Vec::new();
    let models = node["spec"]["models"].as_array().unwrap_or(&empty);
    Ok(models
        .iter()
        .filter_map(|model| model["action"].as_str().map(str::to_owned))
        .collect())
}

fn object(kind: &str, name: &str, spec: Value) -> Value {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    })
}
