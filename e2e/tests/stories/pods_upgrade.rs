//! The chart is upgraded to its next version and rolled back, in the middle of a rollout: pods are others, the fleet is
//! the same, and whoever asks does not notice.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::simulated::{Plan, Sites, Timing};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::{Value, json};

use crate::leader::{EDGE, HUB, holder, orders};
use crate::pods_asking::{Asking, Door, answering};
use crate::pods_charts::{Release, release};
use crate::pods_models::{object, spec};
use crate::pods_node::is_possible;
use crate::pods_world::{AGENTS, SYSTEM, WITHIN, World};

/// The value that only the new chart has.
const KEY: &str = "newKey";
/// The deployment in the middle of its rollout, and the one that is where it is to be.
const MOVING: &str = "moving";
const SETTLED: &str = "settled";

#[test]
fn a_chart_is_upgraded_and_rolled_back_in_a_rollout_and_the_fleet_stays_as_it_is() {
    if !is_possible("pods-upgrade") {
        return;
    }
    story("pods-upgrade", async |story: &Story| {
        let mut world = World::start(story).await?;
        let old = release(&world, "0.1.0", None).await?;
        let new = release(&world, "0.1.1", Some(KEY)).await?;
        ensure!(old.agent != new.agent && old.operator != new.operator);
        world
            .clock
            .part("two releases of the chart in the registry");

        // As the install guide says for one machine.
        let install = ["--create-namespace"];
        world.helm("install", &old.chart, &install, &[]).await?;
        world.join("here", &["--labels", "ring=canary"]).await?;
        let how = ["--reset-then-reuse-values"];
        let trust = [world.trust_flag()];
        let trust = trust.each_ref().map(String::as_str);
        world.helm("upgrade", &old.chart, &how, &trust).await?;
        world
            .clock
            .part("chart 0.1.0: helm install, cluster add, helm upgrade");

        // A second site, so that a rollout has somewhere to go yet.
        let plan = Plan {
            canaries: 0,
            nodes: 2,
            prefix: "far-".to_owned(),
            timing: Timing {
                heartbeat: Duration::from_secs(1),
                retry_max: Duration::from_secs(1),
                staging: Duration::from_millis(300),
                trial: Duration::from_millis(300),
                ..Timing::default()
            },
            ..Plan::default()
        };
        let sites = Sites::start(&world.cluster.plane, &plan).await?;
        sites.wait_until_joined(WITHIN).await?;
        let (settled, second) = in_the_middle_of_a_rollout(&world).await?;
        world
            .clock
            .part("one deployment settled, one between two stages");

        let clients = world.clients().await?;
        let at_settled = world.service_of("rimward-agent-local", SETTLED).await?;
        let at_moving = world.service_of("rimward-agent", MOVING).await?;
        let at_own = world.service_of("rimward-agent-local", MOVING).await?;
        for (url, revision) in [(&at_settled, &settled), (&at_moving, &second)] {
            ensure!(answering(Some(&clients[0]), url).await? == *revision);
        }
        let doors = [
            Door::new("settled, own node", &clients[0], &at_settled),
            Door::new("moving, any node", &clients[1], &at_moving),
            Door::new("", &clients[0], &at_own).fresh("moving, own node, new connections"),
        ];
        let known = [settled, second.clone()];

        pods_are_of(&world, &old, &Value::Null).await?;
        let run = ["--reset-then-reuse-values"];
        let upgrade = async || world.helm("upgrade", &new.chart, &run, &[]).await.map(drop);
        unchanged(&world, &doors, &known, "helm upgrade to 0.1.1", upgrade).await?;
        pods_are_of(&world, &new, &json!("of the new chart")).await?;
        let rollback = async || world.rollback().await;
        unchanged(&world, &doors, &known, "helm rollback to 0.1.0", rollback).await?;
        pods_are_of(&world, &old, &Value::Null).await?;
        upgrade().await?;
        pods_are_of(&world, &new, &json!("of the new chart")).await?;
        world
            .clock
            .part("helm upgrade, helm rollback, helm upgrade");

        // Under the new chart the rollout goes on to its end, and orders the site that was to come and no other.
        let log = world.cluster.plane.audit();
        let mark = log.mark()?;
        world
            .kubectl
            .run(["rimward", "promote", MOVING, "--stage", "gate"])
            .await?;
        ensure!(world.promoted_as(MOVING).await? == second);
        wait_for("the far site to serve it", WITHIN, async || {
            let serves = sites.serves(0, "default", MOVING)?;
            Ok(if serves.as_ref() == Some(&second) {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{serves:?}"))
            })
        })
        .await?;
        let given = orders(&log, mark, "clusterassignments")?;
        ensure!(
            matches!(&given[..], [(name, _)] if name == sites.name(0)?),
            "{given:#?}"
        );
        world.clock.part("the rollout goes on to its end");
        Ok(())
    });
}

/// One deployment is everywhere; another is on its canary, the stage after it waits for a person. Gives the revisions
/// that this cluster serves of them.
async fn in_the_middle_of_a_rollout(world: &World) -> Result<(String, String)> {
    for version in ["1.0.0", "1.1.0"] {
        world.release(version).await?;
    }
    let ring = |ring: &str| json!({"selector": {"matchLabels": {"ring": ring}}});
    // Nobody is in the gate, so it waits until somebody lets it pass.
    let stages = json!({"stages": [
        {"name": "canary", "clusters": ring("canary")},
        {"name": "gate", "clusters": ring("gate")},
    ]});
    world
        .kubectl
        .apply(&object("RolloutPolicy", "careful", &stages))
        .await?;
    world.order(SETTLED, &spec("1.0.0", 1)).await?;
    world.order(MOVING, &spec("1.0.0", 2)).await?;
    let settled = world.promoted_as(SETTLED).await?;
    let first = world.promoted_as(MOVING).await?;
    let mut next = spec("1.1.0", 3);
    next["rolloutPolicyRef"] = json!({"name": "careful"});
    world.order(MOVING, &next).await?;
    let second = wait_for("the rollout to wait after its canary", WITHIN, async || {
        let object = world.kubectl.get_json(["modeldeployment", MOVING]).await?;
        let status = &object["status"];
        let update = status["updateRevision"].as_str().unwrap_or_default();
        let waits = status["stage"]["name"] == "gate" && status["progress"] == "1/2";
        Ok(if waits && update != first {
            Seen::Done(update.to_owned())
        } else {
            Seen::NotYet(status.to_string())
        })
    })
    .await?;
    Ok((settled, second))
}

/// Nothing of the fleet changes while helm does something, and nobody who asks loses anything.
async fn unchanged(
    world: &World,
    doors: &[Door<'_>],
    known: &[String],
    what: &str,
    run: impl AsyncFn() -> Result<()>,
) -> Result<()> {
    let log = world.cluster.plane.audit();
    let before = fleet(world).await?;
    let mut pods = Vec::new();
    for node in &world.cluster.nodes {
        pods.push(world.agent_pod(node).await?);
    }
    let leaders = [
        holder(&world.kubectl, HUB).await?,
        holder(&world.kubectl, EDGE).await?,
    ];
    let mark = log.mark()?;
    let asking = Asking::start(doors)?;
    run().await.context(what.to_owned())?;
    for (node, pod) in world.cluster.nodes.iter().zip(&pods) {
        world.replaced(node, pod).await?;
    }
    others_lead(world, &leaders).await?;
    let reports = asking.stop(what).await?;
    for report in &reports {
        report.check_none_failed()?;
        let answered = &report.answered_by;
        ensure!(
            answered.len() == 1 && known.iter().any(|it| answered.contains_key(it)),
            "{what}: answered by {answered:?}, and not by one of {known:?} alone"
        );
    }
    let after = fleet(world).await?;
    ensure!(before.len() == after.len(), "{what}: {after:#?}");
    for (before, after) in before.iter().zip(&after) {
        ensure!(before == after, "{what}: {before:#?} became {after:#?}");
    }
    for kind in KINDS {
        let given = orders(&log, mark, kind)?;
        ensure!(given.is_empty(), "{what}: {kind} were written: {given:#?}");
    }
    Ok(())
}

/// Other operators than before lead, and have looked at everything: what they had meant to change is written by then.
async fn others_lead(world: &World, before: &[String]) -> Result<()> {
    for lease in [HUB, EDGE] {
        wait_for("the next operators to lead", WITHIN, async || {
            let holder = holder(&world.kubectl, lease).await?;
            Ok(
                if ["", "nobody"].contains(&holder.as_str()) || before.contains(&holder) {
                    Seen::NotYet(holder)
                } else {
                    Seen::Done(())
                },
            )
        })
        .await?;
    }
    // Two resyncs.
    tokio::time::sleep(Duration::from_secs(4)).await;
    Ok(())
}

/// Kinds whose objects say what is to run where.
const KINDS: [&str; 7] = [
    "modeldeployments",
    "models",
    "modelrevisions",
    "rolloutpolicies",
    "clusterassignments",
    "edgeclusters",
    "edgenodes",
];

/// What is to run and what runs: every object as it is ordered, and what deployments and nodes say of it.
async fn fleet(world: &World) -> Result<Vec<Value>> {
    let mut all = Vec::new();
    for kind in KINDS {
        let list = world.kubectl.get_json([kind]).await?;
        for object in list["items"].as_array().context("a list")? {
            let (metadata, status) = (&object["metadata"], &object["status"]);
            let models = status["models"].as_array().into_iter().flatten();
            let models = models.map(|model| {
                let keys = [
                    "name",
                    "revision",
                    "attempt",
                    "state",
                    "servingRevision",
                    "lastGoodRevision",
                    "verdict",
                ];
                let of_node = |key: &str| (key.to_owned(), model[key].clone());
                keys.map(of_node).into_iter().collect::<Value>()
            });
            let mut seen = json!({
                "kind": kind, "name": metadata["name"], "uid": metadata["uid"],
                "generation": metadata["generation"], "spec": object["spec"],
            });
            if kind == "edgenodes" {
                seen["models"] = models.collect();
            }
            if kind == "modeldeployments" {
                for key in ["currentRevision", "updateRevision", "stage", "progress"] {
                    seen[key] = status[key].clone();
                }
                // A node whose agent changes may count as not ready for a moment, and as ready again: that is no order.
                if let Some(stage) = seen["stage"].as_object_mut() {
                    stage.remove("lastProgressTime");
                }
            }
            all.push(seen);
        }
    }
    Ok(all)
}

/// Every pod of Rimward runs the images of a release, by their digests as the kubelet pulled them.
async fn pods_are_of(world: &World, release: &Release, key: &Value) -> Result<()> {
    let what = format!("pods of {}", release.version);
    wait_for(&what, WITHIN, async || {
        let mut pods = Vec::new();
        for (namespace, digest) in [(SYSTEM, &release.operator), (AGENTS, &release.agent)] {
            let list = world.kubectl.get_json(["pods", "-n", namespace]).await?;
            for pod in list["items"].as_array().context("a list")? {
                // One that was asked to end may take its time.
                if pod["metadata"]["deletionTimestamp"].is_null() {
                    pods.push((pod.clone(), digest));
                }
            }
        }
        let is_new = |(pod, digest): &(Value, &String)| {
            let images = pod["status"]["containerStatuses"].as_array();
            let mut images = images.into_iter().flatten();
            let annotation = &pod["metadata"]["annotations"][format!("test/{KEY}")];
            images.clone().count() == 1
                && images.all(|it| {
                    let image = it["imageID"].as_str().unwrap_or_default();
                    image.ends_with(digest.as_str()) && it["ready"] == true
                })
                && (pod["metadata"]["namespace"] == SYSTEM || annotation == key)
        };
        Ok(if pods.len() == 4 && pods.iter().all(is_new) {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{} pods: {pods:#?}", pods.len()))
        })
    })
    .await
}
