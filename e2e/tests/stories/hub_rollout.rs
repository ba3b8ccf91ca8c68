//! The hub carries a rollout through its stages, writes nothing when there is nothing to do, takes a bad revision
//! back, survives its leader, and takes away what was deleted.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::fleet::ACCOUNTS;
use rimward_e2e::{Seen, Story, story, wait_for};

use crate::hub_world::{Sessions, TEAM, WITHIN, World, cluster, deployment, model};
use crate::leader;

const CLUSTERS: [&str; 3] = ["a", "b", "c"];
const SPEC: &str = "placement: {clusterSelector: {}}, rolloutPolicyRef: {name: canary-first}";
const DIGITS: (&str, &str) = ("modeldeployment", "digits");

#[test]
fn a_rollout_goes_through_its_stages_and_a_bad_one_comes_back() {
    story("hub-rollout", async |story: &Story| {
        let world = World::start("hub-rollout-fleet").await?;
        let image = world.push("passthrough", "1.0.0").await?;
        let folder = story.scratch().path();
        let first = world.operator("first", folder).await?;
        for name in CLUSTERS {
            let ring = if name == "a" { "canary" } else { "main" };
            world.apply(&cluster(name, ring)).await?;
        }
        let sessions = Sessions::play(&world, &CLUSTERS).await?;
        world
            .apply(
                "{apiVersion: rimward.dev/v1alpha1, kind: RolloutPolicy, metadata: {name: canary-first},
                   spec: {stages: [{name: canary, clusters: {selector: {matchLabels: {ring: canary}}}, bakeSeconds: 2},
                                   {name: everyone, clusters: {percent: 100}, maxConcurrency: 1}]}}",
            )
            .await?;
        for name in ["one", "two", "three"] {
            world.apply(&model(name, "digits-raw", &image)).await?;
        }
        world.apply(&deployment("digits", "one", SPEC)).await?;
        let one = promoted(&world, None).await?;
        ensure!(
            generations(&world).await? == [2, 2, 2],
            "empty, then the revision"
        );
        world.steady().await?;

        // The leader dies in the middle of the next rollout; each assignment takes the revision once.
        let second = world.operator("second", folder).await?;
        let mark = world.fleet.hub.audit().mark()?;
        world.apply(&deployment("digits", "two", SPEC)).await?;
        wait_for("the canary to get it", WITHIN, async || {
            let generations = generations(&world).await?;
            Ok(if generations[0] == 3 {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{generations:?}"))
            })
        })
        .await?;
        first.service().kill();
        let two = promoted(&world, Some(&one)).await?;
        ensure!(generations(&world).await? == [3, 3, 3]);
        let mut given: Vec<_> = world
            .fleet
            .hub
            .audit()
            .writes_since(mark, ACCOUNTS)?
            .into_iter()
            .filter_map(|event| event.object_ref)
            .filter(|object| {
                object.resource == "clusterassignments" && object.subresource.is_empty()
            })
            .map(|object| object.name)
            .collect();
        given.sort();
        ensure!(given == CLUSTERS, "{given:?}");
        drop(first);

        rejected(&world, &sessions, &two).await?;
        world.steady().await?;
        removed(&world).await?;
        second.service().stop(Duration::from_secs(10));
        for (namespace, name) in [leader::HUB, ("rimward-system", "rimward-hub")] {
            let get = ["lease", name, "-n", namespace];
            let lease = world.kubectl.get_json(get).await?;
            ensure!(
                lease["spec"]["holderIdentity"] == "",
                "released on SIGTERM: {lease}"
            );
        }
        Ok(())
    });
}

/// Waits until a revision other than `before` is promoted everywhere.
async fn promoted(world: &World, before: Option<&str>) -> Result<String> {
    wait_for(
        "the revision to be promoted everywhere",
        WITHIN,
        async || {
            let object = world.get("modeldeployment", "digits").await?;
            let status = &object["status"];
            let current = status["currentRevision"].as_str().unwrap_or_default();
            let done = !current.is_empty()
                && Some(current) != before
                && status["progress"] == "3/3"
                && status["stage"]["phase"] == "Completed"
                && status["observedGeneration"] == object["metadata"]["generation"];
            Ok(if done {
                Seen::Done(current.to_owned())
            } else {
                Seen::NotYet(status.to_string())
            })
        },
    )
    .await
}

async fn generations(world: &World) -> Result<Vec<i64>> {
    let mut generations = Vec::new();
    for name in CLUSTERS {
        let assignment = world.kubectl.get_json(["clusterassignment", name]).await?;
        generations.push(
            assignment["metadata"]["generation"]
                .as_i64()
                .context("generation")?,
        );
    }
    Ok(generations)
}

async fn pause(world: &World, paused: bool) -> Result<()> {
    let patch = format!(r#"{{"spec":{{"paused":{paused}}}}}"#);
    world
        .kubectl
        .run([
            "patch",
            "modeldeployment",
            "digits",
            "-n",
            TEAM,
            "--type=merge",
            "-p",
            &patch,
        ])
        .await?;
    Ok(())
}

/// The canary rejects the third revision: it goes back, and no other cluster ever gets it.
async fn rejected(world: &World, sessions: &Sessions, two: &str) -> Result<()> {
    pause(world, true).await?;
    world.condition(DIGITS, "Paused", "True", "Paused").await?;
    let paused = format!("{SPEC}, paused: true");
    world.apply(&deployment("digits", "three", &paused)).await?;
    let three = wait_for("the third revision", WITHIN, async || {
        let list = world
            .kubectl
            .get_json(["modelrevisions", "-n", TEAM])
            .await?;
        let found = list["items"]
            .as_array()
            .into_iter()
            .flatten()
            .find_map(|revision| {
                (revision["spec"]["model"]["name"] == "three")
                    .then(|| revision["metadata"]["name"].clone())
            });
        Ok(match found.as_ref().and_then(|name| name.as_str()) {
            Some(name) => Seen::Done(name.to_owned()),
            None => Seen::NotYet(list.to_string()),
        })
    })
    .await?;
    ensure!(
        generations(world).await? == [3, 3, 3],
        "paused: nothing moves"
    );
    sessions.reject(&three);
    pause(world, false).await?;
    let message = world
        .condition(DIGITS, "Stalled", "True", "RevisionFailed")
        .await?;
    ensure!(message.contains(&three), "{message}");
    let message = world
        .condition(DIGITS, "Degraded", "True", "RevisionFailed")
        .await?;
    ensure!(
        message.contains("golden vector 3: expected 7, got 1"),
        "{message}"
    );
    wait_for("the canary to be back", WITHIN, async || {
        let status = world.get("modeldeployment", "digits").await?["status"].clone();
        Ok(if status["stage"]["phase"] == "RolledBack" {
            Seen::Done(())
        } else {
            Seen::NotYet(status.to_string())
        })
    })
    .await?;
    ensure!(
        generations(world).await? == [5, 3, 3],
        "there and back on the canary only"
    );
    let canary = world.kubectl.get_json(["clusterassignment", "a"]).await?;
    ensure!(canary["spec"]["models"][0]["revision"] == two);
    let failed = world.get("modelrevision", &three).await?;
    ensure!(failed["status"]["outcome"] == "Failed", "{failed}");
    let events = world
        .kubectl
        .get_json(["events.events.k8s.io", "-n", TEAM])
        .await?
        .to_string();
    for reason in [
        "RolloutStarted",
        "StageStarted",
        "StagePassed",
        "Promoted",
        "RevisionFailed",
        "RolledBack",
    ] {
        ensure!(events.contains(reason), "no event {reason}");
    }
    Ok(())
}

/// Deleting the deployment takes it off every cluster; deleting an EdgeCluster takes its assignment.
async fn removed(world: &World) -> Result<()> {
    world
        .kubectl
        .run(["delete", "modeldeployment", "digits", "-n", TEAM])
        .await?;
    for name in CLUSTERS {
        wait_for("the entry to go", WITHIN, async || {
            let assignment = world.kubectl.get_json(["clusterassignment", name]).await?;
            let models = &assignment["spec"]["models"];
            let none = models.as_array().is_none_or(Vec::is_empty);
            Ok(if none {
                Seen::Done(())
            } else {
                Seen::NotYet(models.to_string())
            })
        })
        .await?;
    }
    world.kubectl.run(["delete", "edgecluster", "b"]).await?;
    wait_for("the assignment to go", WITHIN, async || {
        let output = world
            .kubectl
            .output(["get", "clusterassignment", "b"])
            .await?;
        Ok(if output.stderr.contains("NotFound") {
            Seen::Done(())
        } else {
            Seen::NotYet(output.stdout)
        })
    })
    .await
}
