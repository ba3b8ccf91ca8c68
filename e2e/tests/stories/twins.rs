//! Two edge clusters under one name, as when a disk was copied with its credential: the hub names both, gives the name
//! nothing new, and what the first one runs stays.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::fleet::Edge;
use rimward_e2e::rimward::Operator;
use rimward_e2e::{Fleet, Kubectl, Seen, Story, story, wait_for};

use crate::edge_world;
use crate::hub_world::{Parts, WITHIN, World, deployment, model};

const TWIN: (&str, &str) = ("edgecluster", "twin");
const EVERYWHERE: &str = "placement: {clusterSelector: {}}";
const RESYNC_SECONDS: u64 = 2;
/// Long enough for many answers to each other's reports, were they given.
const BOTH: Duration = Duration::from_secs(6);
/// Several plans of a hub that plans every second.
const CALM: Duration = Duration::from_secs(3);

#[test]
fn a_second_cluster_under_one_name_is_named_and_changes_nothing() {
    story("twins", async |story: &Story| {
        let fleet = Fleet::shared().await?;
        let world = World::on(Parts::Shared(fleet)).await?;
        let folder = story.scratch().path();
        let _operator = world.operator("hub", folder).await?;
        let (north, south) = (fleet.edge("north")?, fleet.edge("south")?);
        let planes = [&north.plane, &south.plane];
        let account = edge_world::add_cluster(story, TWIN.1, &fleet.hub, &planes).await?;

        let first = session(north, folder, account.kubeconfig())?;
        world.condition(TWIN, "Ready", "True", "Connected").await?;
        let uids = (uid(north).await?, uid(south).await?);
        wait_for("the first one's UID to be pinned", WITHIN, async || {
            let pinned = world.get(TWIN.0, TWIN.1).await?["status"]["clusterUID"].clone();
            Ok(if pinned == uids.0 {
                Seen::Done(())
            } else {
                Seen::NotYet(pinned.to_string())
            })
        })
        .await?;
        let image = world.push("passthrough", "1.0.0").await?;
        world.apply(&model("good", "digits-raw", &image)).await?;
        world
            .apply(&deployment("digits", "good", EVERYWHERE))
            .await?;
        let mirror = north.plane.kubectl()?;
        wait_for("the first one's order", WITHIN, async || {
            let names = names(&mirror).await?;
            Ok(if names == ["digits"] {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{names:?}"))
            })
        })
        .await?;

        // Both at once.
        let second = session(south, folder, account.kubeconfig())?;
        let message = world
            .condition(TWIN, "Stalled", "True", "IdentityConflict")
            .await?;
        for uid in [&uids.0, &uids.1] {
            ensure!(message.contains(uid), "{message}");
        }
        ensure!(message.contains("delete and add"), "{message}");
        they_do_not_answer_each_other(&world).await?;

        // The second one alone: nothing new is given to that name, and what is said of it stays the first one's.
        first.service().kill();
        world
            .condition(TWIN, "Stalled", "True", "IdentityConflict")
            .await?;
        wait_for("the second one's report to stand", WITHIN, async || {
            let assignment = world.get("clusterassignment", TWIN.1).await?;
            let uid = &assignment["status"]["clusterUID"];
            Ok(if *uid == uids.1 {
                Seen::Done(())
            } else {
                Seen::NotYet(uid.to_string())
            })
        })
        .await?;
        world
            .condition(TWIN, "Stalled", "True", "IdentityConflict")
            .await?;
        let later = format!("{EVERYWHERE}, endpointName: later");
        world.apply(&deployment("later", "good", &later)).await?;
        let object = ("modeldeployment", "later");
        let message = world
            .condition(object, "Ready", "False", "ClusterPaused")
            .await?;
        ensure!(message.contains(TWIN.1), "{message}");
        tokio::time::sleep(CALM).await;
        let given = names(&world.kubectl).await?;
        ensure!(given == ["digits"], "{given:?}");
        let standing = names(&mirror).await?;
        ensure!(standing == ["digits"], "{standing:?}");
        let object = world.get(TWIN.0, TWIN.1).await?;
        ensure!(object["status"]["clusterUID"] == uids.0, "{object}");

        // The first one is back, the second one gone.
        second.service().kill();
        first.service().resume()?;
        world.condition(TWIN, "Ready", "True", "Connected").await?;
        wait_for("what waited to be given", WITHIN, async || {
            let names = names(&mirror).await?;
            Ok(if names == ["digits", "later"] {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{names:?}"))
            })
        })
        .await
    });
}

/// Each may write over the other once in a resync; the hub's own status goes with that.
async fn they_do_not_answer_each_other(world: &World) -> Result<()> {
    let audit = world.fleet.hub.audit();
    let (mark, began) = (audit.mark()?, Instant::now());
    tokio::time::sleep(BOTH).await;
    let reports = audit
        .writes_since(mark, "system:serviceaccount:rimward-clusters:twin")?
        .len();
    let resyncs = began.elapsed().as_secs() / RESYNC_SECONDS + 2;
    let most = usize::try_from(2 * resyncs)?;
    ensure!(reports <= most, "{reports} reports, at most {most} are due");
    Ok(())
}

fn session(edge: &Edge, folder: &Path, hub: &Path) -> Result<Operator> {
    let resync = format!("--resync-seconds={RESYNC_SECONDS}");
    let more = [
        "--heartbeat-seconds=1",
        "--retry-seconds-max=1",
        "--lease-seconds=3",
        &resync,
    ];
    let name = format!("session-{}", edge.plane.name());
    Operator::edge(&name, folder, &edge.operator, TWIN.1, hub, &more)
}

async fn uid(edge: &Edge) -> Result<String> {
    let namespace = edge.plane.kubectl()?;
    let namespace = namespace.get_json(["namespace", "kube-system"]).await?;
    let uid = namespace["metadata"]["uid"].as_str();
    Ok(uid.context("a namespace without UID")?.to_owned())
}

/// Which deployments the assignment of that name has on this cluster, all to be run.
async fn names(cluster: &Kubectl) -> Result<Vec<String>> {
    let object = cluster.get_json(["clusterassignment", TWIN.1]).await?;
    let models = object["spec"]["models"].as_array().into_iter().flatten();
    let mut names: Vec<String> = models
        .filter(|model| model["action"] == "Run")
        .filter_map(|model| model["name"].as_str().map(str::to_owned))
        .collect();
    names.sort();
    Ok(names)
}
