//! What the hub keeps within bounds: how many old revisions a deployment has, and how large an assignment gets.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::{Seen, wait_for};
use serde_json::{Value, json};

use crate::hub_world::{TEAM, WITHIN, World, deployment};

/// A revision's age is known by the second.
const ANOTHER_SECOND: Duration = Duration::from_millis(1_100);
/// With the largest node selector that the schema allows, four of five deployments fit into an assignment's 640 KiB.
const FAT: usize = 5;

/// Old revisions go beyond `revisionHistoryLimit`, but none that a cluster's assignment names. `frozen` is a cluster
/// that can be paused, `moving` is one that goes on.
pub(crate) async fn history(world: &World, moving: &str, frozen: &str) -> Result<()> {
    let object = ("modeldeployment", "history");
    let mut revisions = Vec::new();
    for number in 1..=5 {
        if number == 3 {
            pause(world, frozen, true).await?;
        }
        let more = format!(
            "placement: {{clusterSelector: {{}}}}, revisionHistoryLimit: 1, runtime: {{timeoutMilliseconds: {}}}",
            1_000 + number
        );
        world.apply(&deployment("history", "good", &more)).await?;
        let known = revisions.clone();
        let revision = wait_for("the next revision to arrive", WITHIN, async || {
            let running = world.running(moving, "history").await?;
            Ok(match running {
                Some(running) if !known.contains(&running) => Seen::Done(running),
                running => Seen::NotYet(format!("{running:?}")),
            })
        })
        .await?;
        revisions.push(revision);
        if number < 3 {
            world
                .condition(object, "Ready", "True", "RolledOut")
                .await?;
        }
        tokio::time::sleep(ANOTHER_SECOND).await;
    }
    let of = |numbers: &[usize]| -> Vec<String> {
        let of = |number: &usize| revisions[number - 1].clone();
        numbers.iter().map(of).collect()
    };
    // One beyond those in use: the second stands on the paused cluster (which blocks no promotion), the fifth is the
    // newest, and of the others the one that an undo goes to stays.
    left(world, of(&[2, 4, 5])).await?;
    let standing = world.running(frozen, "history").await?;
    ensure!(standing.as_ref() == Some(&revisions[1]), "{standing:?}");

    pause(world, frozen, false).await?;
    world
        .condition(object, "Ready", "True", "RolledOut")
        .await?;
    left(world, of(&[4, 5])).await?;
    let standing = world.running(frozen, "history").await?;
    ensure!(standing.as_ref() == Some(&revisions[4]), "{standing:?}");
    Ok(())
}

/// A deployment whose entry has no room on a cluster says so, names the cluster, costs no other its place, and
/// gets in once there is room. `cluster` is the only one of its ring.
pub(crate) async fn too_large(world: &World, ring: &str, cluster: &str) -> Result<()> {
    let values: Vec<String> = (0..64).map(|number| format!("{number:063}")).collect();
    let terms: Vec<Value> = (0..32)
        .map(|number| json!({"key": format!("k{number}"), "operator": "In", "values": values}))
        .collect();
    let placement = json!({
        "clusterSelector": {"matchLabels": {"ring": ring}},
        "nodeSelector": {"matchExpressions": terms},
    });
    let more = format!("placement: {placement}");
    let name = |number: usize| format!("fat-{number}");
    for number in 1..=FAT {
        world
            .apply(&deployment(&name(number), "good", &more))
            .await?;
    }
    let last = name(FAT);
    let last = ("modeldeployment", last.as_str());
    let message = world
        .condition(last, "Stalled", "True", "AssignmentTooLarge")
        .await?;
    ensure!(message.contains(cluster), "{message}");
    for number in 1..FAT {
        let name = name(number);
        let object = ("modeldeployment", name.as_str());
        world
            .condition(object, "Ready", "True", "RolledOut")
            .await?;
    }
    ensure!(world.running(cluster, last.1).await?.is_none());

    delete(world, &[name(1)]).await?;
    world.condition(last, "Ready", "True", "RolledOut").await?;
    ensure!(world.running(cluster, last.1).await?.is_some());
    let rest: Vec<String> = (2..=FAT).map(name).collect();
    delete(world, &rest).await
}

/// Deletes deployments, and waits until nothing is left of them.
async fn delete(world: &World, names: &[String]) -> Result<()> {
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let line = [&["delete", "modeldeployment", "-n", TEAM], &names[..]].concat();
    world.kubectl.run(line).await?;
    wait_for("their entries to go", WITHIN, async || {
        let list = world.kubectl.get_json(["clusterassignments"]).await?;
        let left: Vec<&str> = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .filter_map(|assignment| assignment["spec"]["models"].as_array())
            .flatten()
            .filter_map(|model| model["name"].as_str())
            .filter(|name| names.contains(name))
            .collect();
        Ok(if left.is_empty() {
            Seen::Done(())
        } else {
            Seen::NotYet(format!("{left:?}"))
        })
    })
    .await
}

/// Waits until just these revisions of the deployment `history` are left.
async fn left(world: &World, mut expected: Vec<String>) -> Result<()> {
    expected.sort();
    wait_for("old revisions to go", WITHIN, async || {
        let list = world
            .kubectl
            .get_json(["modelrevisions", "-n", TEAM])
            .await?;
        let mut left: Vec<String> = list["items"]
            .as_array()
            .context("a list")?
            .iter()
            .filter(|revision| revision["spec"]["deploymentName"] == "history")
            .filter_map(|revision| revision["metadata"]["name"].as_str().map(str::to_owned))
            .collect();
        left.sort();
        // One that is gone by mistake does not come back.
        let gone = expected.iter().find(|name| !left.contains(name));
        Ok(match gone {
            Some(gone) => Seen::Never(format!("{gone} is gone: {left:?}")),
            None if left == expected => Seen::Done(()),
            None => Seen::NotYet(format!("{left:?}")),
        })
    })
    .await
}

async fn pause(world: &World, cluster: &str, paused: bool) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"paused":{paused}}}}}"#);
    world
        .kubectl
        .run([
            "patch",
            "edgecluster",
            cluster,
            "--type=merge",
            "-p",
            &patch,
        ])
        .await?;
    Ok(())
}
