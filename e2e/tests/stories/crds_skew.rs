//! Definitions that are older than Rimward, newer, gone or made anew under it: nothing is written that an API server
//! would drop half of, nobody's models are removed, devices answer all the time, and all goes on by itself.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::audit::Level;
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::{ACCOUNTS, repository_root};
use rimward_e2e::load::Load;
use rimward_e2e::rimward::Operator;
use rimward_e2e::system::System;
use rimward_e2e::{ControlPlane, Kubectl, Seen, Story, story, wait_for};
use serde_json::{Value, json};

use crate::releases::{self, BETTER, GOOD, Order, SITES};

const WITHIN: Duration = Duration::from_secs(120);
/// Several resyncs and looks: what has not happened by then does not happen by itself.
const CALM: Duration = Duration::from_secs(12);
const RATE_PER_SECOND: u32 = 10;
/// A deployment that somebody deletes.
const EXTRA: &str = "extra";

#[test]
fn whatever_becomes_of_the_definitions_devices_serve_and_nothing_is_lost() {
    story("crds-skew", async |_: &Story| {
        let options = Options {
            audit: Level::Request,
            ..Options::default()
        };
        let name = "crds-skew-fleet";
        let system = releases::start(name, &SITES, options, &[GOOD, BETTER]).await?;
        let first = releases::settle_on_clear_digits(&system, "digits").await?;
        let loads: Vec<Load> = system
            .nodes()
            .map(|node| releases::load(&node.host, "digits", RATE_PER_SECOND))
            .collect::<Result<_>>()?;

        let mut known = BTreeSet::from([first]);
        known.insert(older(&system).await?);
        known.insert(newer(&system).await?);
        deployments_go_with_their_definition(&system).await?;
        known.insert(all_but_the_clusters_go(&system).await?);
        the_edge_loses_its_nodes(&system, "north").await?;
        the_edge_loses_its_nodes(&system, "south").await?;
        the_clusters_go(&system).await?;

        for load in loads {
            let report = load.stop()?;
            report.check_none_failed()?;
            let answered: BTreeSet<String> = report.answered_by.keys().cloned().collect();
            ensure!(answered.is_subset(&known), "{answered:?} of {known:?}");
        }
        Ok(())
    });
}

/// The hub's definition of assignments is of another time, and lacks a field.
async fn older(system: &System) -> Result<String> {
    let (plane, hub) = (&system.fleet.hub, &system.hub[0]);
    let path = repository_root().join("crds/yaml/clusterassignments.yaml");
    let mut older: Value = serde_yaml::from_str(&std::fs::read_to_string(path)?)?;
    older["metadata"]["annotations"]["rimward.dev/crd-revision"] = json!("0");
    let fields = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties/models/items/properties";
    let fields = older.pointer_mut(fields).context("fields of an entry")?;
    let fields = fields.as_object_mut().context("fields of an entry")?;
    fields.remove("stage").context("the field stage")?;
    install(&plane.kubectl()?, &older).await?;
    let sentence = "clusterassignments.rimward.dev has revision 0; revision 1 is needed";
    unready(hub, sentence).await?;

    let mark = plane.audit().mark()?;
    releases::deploy(system, "digits", Order::new(GOOD, 7, 0)).await?;
    tokio::time::sleep(CALM).await;
    // Nor does another start of it.
    hub.service().kill();
    hub.service().resume()?;
    tokio::time::sleep(CALM).await;
    unready(hub, sentence).await?;
    let writes = plane.audit().writes_since(mark, ACCOUNTS)?;
    let writes: Vec<String> = writes.iter().map(ToString::to_string).collect();
    ensure!(writes.is_empty(), "written meanwhile: {writes:#?}");
    let log = std::fs::read_to_string(hub.service().log())?;
    let lines = log.lines().filter(|line| line.contains(sentence)).count();
    ensure!(lines == 2, "one line for each start, not {lines}");

    current(plane).await?;
    let revision = releases::promoted(system, "digits").await?;
    for site in SITES {
        let object = plane
            .kubectl()?
            .get_json(["clusterassignment", site.name])
            .await?;
        let entry = &object["spec"]["models"][0];
        ensure!(
            entry["revision"] == *revision && entry["stage"].is_string(),
            "{entry}"
        );
    }
    Ok(revision)
}

/// The definitions are of a later version than the operator: it goes on, with one line.
async fn newer(system: &System) -> Result<String> {
    let (plane, hub) = (&system.fleet.hub, &system.hub[0]);
    let all = "crd/clusterassignments.rimward.dev";
    let newer = "rimward.dev/crd-revision=99";
    plane
        .kubectl()?
        .run(["annotate", "--overwrite", all, newer])
        .await?;
    wait_for("a line about it", WITHIN, async || {
        let log = std::fs::read_to_string(hub.service().log())?;
        let lines = log
            .lines()
            .filter(|line| line.contains("has revision 99"))
            .count();
        Ok(match lines {
            0 => Seen::NotYet("none".to_owned()),
            1 => Seen::Done(()),
            _ => Seen::Never(format!("{lines} lines")),
        })
    })
    .await?;
    releases::deploy(system, "digits", Order::new(BETTER, 8, 0)).await?;
    let revision = releases::promoted(system, "digits").await?;
    ensure!(hub.probe("/readyz").await? == 200);
    current(plane).await?;
    Ok(revision)
}

/// All ModelDeployments are deleted with their definition, which is made again: no site is told to remove a model.
async fn deployments_go_with_their_definition(system: &System) -> Result<()> {
    let (plane, hub) = (&system.fleet.hub, &system.hub[0]);
    let kubectl = plane.kubectl()?;
    releases::deploy(system, EXTRA, Order::new(GOOD, 1, 0)).await?;
    releases::promoted(system, EXTRA).await?;
    let deployments = saved(&kubectl, "modeldeployments").await?;
    let before = orders(system).await?;
    kubectl
        .run(["delete", "crd", "modeldeployments.rimward.dev"])
        .await?;
    unready(hub, "modeldeployments.rimward.dev is missing").await?;
    current(plane).await?;
    hub.wait_until_ready(WITHIN).await?;
    tokio::time::sleep(CALM).await;
    // Nor does a leader that never saw them.
    hub.service().kill();
    hub.service().resume()?;
    hub.wait_until_ready(WITHIN).await?;
    tokio::time::sleep(CALM).await;
    ensure!(
        orders(system).await? == before,
        "{before:#?} became {:#?}",
        orders(system).await?
    );
    for deployment in &deployments {
        install(&kubectl, deployment).await?;
    }
    for name in ["digits", EXTRA] {
        releases::promoted(system, name).await?;
    }
    deleted_by_somebody(system).await
}

/// Every definition of the hub but that of EdgeCluster is deleted while it runs, and it is started again without them.
async fn all_but_the_clusters_go(system: &System) -> Result<String> {
    let (plane, hub) = (&system.fleet.hub, &system.hub[0]);
    let kubectl = plane.kubectl()?;
    let mut objects = saved(&kubectl, "models").await?;
    objects.append(&mut saved(&kubectl, "modeldeployments").await?);
    let nodes = node_orders(system).await?;
    let kinds = [
        "clusterassignments",
        "modeldeployments",
        "modelrevisions",
        "models",
        "rolloutactions",
        "rolloutpolicies",
    ];
    let names = kinds.map(|kind| format!("{kind}.rimward.dev"));
    let delete = ["delete", "crd"].into_iter();
    let delete = delete.chain(names.iter().map(String::as_str));
    kubectl.run(delete).await?;
    unready(hub, "rolloutpolicies.rimward.dev is missing").await?;
    hub.service().kill();
    hub.service().resume()?;
    unready(hub, "rolloutpolicies.rimward.dev is missing").await?;
    tokio::time::sleep(CALM).await;
    hub.service().check_running()?;
    ensure!(hub.probe("/healthz").await? == 200);
    ensure!(node_orders(system).await? == nodes, "{nodes:#?}");
    current(plane).await?;
    hub.wait_until_ready(WITHIN).await?;
    for object in &objects {
        install(&kubectl, object).await?;
    }
    releases::promoted(system, "digits").await
}

/// With the definition of EdgeCluster every site's account on the hub goes, as with an EdgeCluster that is deleted:
/// somebody has to add them again. Until then they serve what they have.
async fn the_clusters_go(system: &System) -> Result<()> {
    let (plane, hub) = (&system.fleet.hub, &system.hub[0]);
    let before = node_orders(system).await?;
    let delete = ["delete", "crd", "edgeclusters.rimward.dev"];
    plane.kubectl()?.run(delete).await?;
    unready(hub, "edgeclusters.rimward.dev is missing").await?;
    tokio::time::sleep(CALM).await;
    current(plane).await?;
    hub.wait_until_ready(WITHIN).await?;
    tokio::time::sleep(CALM).await;
    ensure!(node_orders(system).await? == before, "{before:#?}");
    Ok(())
}

/// An edge cluster loses the definition of EdgeNode, and every EdgeNode with it.
async fn the_edge_loses_its_nodes(system: &System, name: &str) -> Result<()> {
    let plane = &system.fleet.edge(name)?.plane;
    let kubectl = plane.kubectl()?;
    let site = system.sites.iter().find(|site| site.name == name);
    let site = site.context("the site")?;
    let before = node_orders(system).await?;
    let gone = "edgenodes.rimward.dev is missing";
    kubectl
        .run(["delete", "crd", "edgenodes.rimward.dev"])
        .await?;
    match site.operators.first() {
        Some(operator) => unready(operator, gone).await?,
        None => told_on_the_hub(system, name, "False", "DefinitionsUnfit", gone).await?,
    }
    tokio::time::sleep(CALM).await;
    let agent = &site.nodes[0].agent;
    agent.check_running()?;
    let log = std::fs::read_to_string(agent.log())?;
    let lines = log.lines().filter(|line| line.contains(gone)).count();
    ensure!(
        (1..=2).contains(&lines),
        "{lines} lines of the agent's log say so"
    );
    current(plane).await?;
    wait_for("the nodes to have their orders again", WITHIN, async || {
        let now = node_orders(system).await?;
        Ok(if now == before {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{now:?}, not {before:?}"))
        })
    })
    .await?;
    told_on_the_hub(system, name, "True", "Connected", "").await?;
    releases::promoted(system, "digits").await?;
    Ok(())
}

/// A deployment that somebody deletes is removed, also after that.
async fn deleted_by_somebody(system: &System) -> Result<()> {
    let kubectl = system.kubectl()?;
    kubectl.run(["delete", "modeldeployment", EXTRA]).await?;
    wait_for("the model to go", WITHIN, async || {
        let (mut all, mut nodes) = (orders(system).await?, node_orders(system).await?);
        all.append(&mut nodes);
        Ok(if all.iter().any(|entry| entry.contains(EXTRA)) {
            Seen::NotYet(format!("{all:?}"))
        } else {
            Seen::Done(())
        })
    })
    .await
}

/// Waits until a replica is not ready, and says why.
async fn unready(operator: &Operator, why: &str) -> Result<()> {
    wait_for(&format!("/readyz to say {why:?}"), WITHIN, async || {
        operator.service().check_running()?;
        let said = operator.says("/readyz").await;
        Ok(match said {
            Ok((503, words)) if words.contains(why) && words.contains("kubectl apply") => {
                Seen::Done(())
            }
            other => Seen::NotYet(format!("{other:?}")),
        })
    })
    .await
}

async fn told_on_the_hub(
    system: &System,
    cluster: &str,
    ready: &str,
    reason: &str,
    words: &str,
) -> Result<()> {
    let kubectl = system.kubectl()?;
    wait_for(&format!("{cluster} to be {reason}"), WITHIN, async || {
        let object = kubectl.get_json(["edgecluster", cluster]).await?;
        let conditions = object["status"]["conditions"].as_array();
        let found = conditions
            .into_iter()
            .flatten()
            .find(|it| it["type"] == "Ready");
        let found = found.cloned().unwrap_or_default();
        let message = found["message"].as_str().unwrap_or_default();
        let so = found["status"] == ready && found["reason"] == reason;
        Ok(if so && message.contains(words) {
            Seen::Done(())
        } else {
            Seen::NotYet(found.to_string())
        })
    })
    .await
}

/// Applies the definitions of this version, as whoever is told to does.
async fn current(plane: &ControlPlane) -> Result<()> {
    let files = repository_root().join("crds/yaml").display().to_string();
    let apply = ["apply", "--server-side", "--force-conflicts", "-f", &files];
    plane.kubectl()?.run(apply).await?;
    Ok(())
}

/// Every object of a kind, as its owner has it in Git.
async fn saved(kubectl: &Kubectl, kind: &str) -> Result<Vec<Value>> {
    let list = kubectl.get_json([kind, "-A"]).await?;
    let items = list["items"].as_array().context("a list")?;
    Ok(items
        .iter()
        .map(|item| {
            let of = |field: &str| item["metadata"][field].clone();
            json!({
                "apiVersion": item["apiVersion"], "kind": item["kind"], "spec": item["spec"],
                "metadata": {"name": of("name"), "namespace": of("namespace"), "labels": of("labels")},
            })
        })
        .collect())
}

async fn install(kubectl: &Kubectl, object: &Value) -> Result<()> {
    let line = kubectl.line(["apply", "--server-side", "--force-conflicts", "-f", "-"]);
    line.input(object.to_string()).run().await?;
    Ok(())
}

/// What every site is ordered: cluster, model, revision, action.
async fn orders(system: &System) -> Result<Vec<String>> {
    entries(&system.kubectl()?, "clusterassignments").await
}

/// What every node is ordered.
async fn node_orders(system: &System) -> Result<Vec<String>> {
    let mut all = Vec::new();
    for edge in &system.fleet.edges {
        all.append(&mut of_nodes(&edge.plane).await?);
    }
    Ok(all)
}

async fn of_nodes(plane: &ControlPlane) -> Result<Vec<String>> {
    entries(&plane.kubectl()?, "edgenodes").await
}

async fn entries(kubectl: &Kubectl, kind: &str) -> Result<Vec<String>> {
    let list = kubectl.get_json([kind]).await?;
    let items = list["items"].as_array().context("a list")?;
    let mut all = Vec::new();
    for item in items {
        let models = item["spec"]["models"].as_array();
        for model in models.into_iter().flatten() {
            let name = &item["metadata"]["name"];
            let (of, revision, action) = (&model["name"], &model["revision"], &model["action"]);
            all.push(format!("{name} {of} {revision} {action}"));
        }
    }
    all.sort();
    Ok(all)
}
