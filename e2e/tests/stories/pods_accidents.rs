//! Accidents of real nodes: what serves goes on serving, and what was on its way ends where it was going.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::Value;

use crate::pods_agents::kill_container;
use crate::pods_asking::{Asking, Door, answering};
use crate::pods_node::is_possible;
use crate::pods_world::{AGENTS, WITHIN, World};

#[test]
fn accidents_of_nodes_stop_nothing_that_serves() {
    if !is_possible("pods-accidents") {
        return;
    }
    story("pods-accidents", async |story: &Story| {
        let mut world = World::start(story).await?;
        // The first node's host folder is a small disk of its own.
        let disk = "mkdir -p /var/lib/rimward && mount -t tmpfs -o size=256m,mode=755 disk /var/lib/rimward";
        world.cluster.nodes[0]
            .line("sh")
            .args(["-c", disk])
            .run()
            .await?;
        world.install().await?;
        for version in ["1.0.0", "1.1.0"] {
            world.release(version).await?;
        }
        let clients = world.clients().await?;
        world.deploy("1.0.0", 1).await?;
        let revision = world.promoted().await?;
        world.clock.part("digits 1.0.0 on both nodes");
        let local = world.service("rimward-agent-local").await?;
        let any = world.service("rimward-agent").await?;
        ensure!(answering(Some(&clients[0]), &local).await? == revision);
        print_memory(&world).await?;

        let own = Door::new("through the own node's", &clients[0], &local);
        let doors = [own, own.fresh("the same, each by a new connection")];
        hub_away(&mut world, &doors).await?;
        full_disk(&mut world, &doors).await?;
        killed_midway(&mut world).await?;
        let doors = [Door::new("through the Service", &clients[0], &any)];
        evicted(&mut world, &doors).await?;
        node_removed(&mut world, &doors).await
    });
}

/// Kubelet and containerd are killed and started again while no API server answers, and the agent's image goes from the
/// node: nobody who asks notices.
async fn hub_away(world: &mut World, doors: &[Door<'_>]) -> Result<()> {
    let asking = Asking::start(doors)?;
    let node = &world.cluster.nodes[0];
    world.cluster.plane.stop_api_server();
    node.kubelet().power_cut();
    node.containerd().power_cut();
    tokio::time::sleep(Duration::from_secs(2)).await;
    node.containerd().resume()?;
    node.revive_kubelet(None).await?;
    let images = wait_for("containerd to be back", WITHIN, async || {
        let images = node.ctr().args(["images", "ls", "-q"]).run().await?;
        Ok(Seen::Done(images))
    })
    .await?;
    let agents: Vec<&str> = images
        .lines()
        .filter(|name| name.contains("rimward-node-agent"))
        .collect();
    ensure!(!agents.is_empty(), "{images}");
    node.ctr()
        .args(["images", "rm", "--sync"])
        .args(&agents)
        .run()
        .await?;
    // Long enough for a kubelet to do what it does at a start.
    tokio::time::sleep(Duration::from_secs(5)).await;
    world.registry.stop();
    world.cluster.plane.start_api_server().await?;
    node.wait_until_ready(&world.cluster.plane).await?;
    asking
        .stop_whole("API server away, kubelet and containerd killed, image gone")
        .await?;
    world.registry.resume().await?;
    world
        .clock
        .part("API server away, kubelet and containerd killed, image gone");
    Ok(())
}

/// The host folder's disk is full when a release comes: it is told, what serves goes on, and once there is room the
/// release comes by itself.
async fn full_disk(world: &mut World, doors: &[Door<'_>]) -> Result<()> {
    let asking = Asking::start(doors)?;
    let node = &world.cluster.nodes[0];
    let sh = async |script: &str| node.line("sh").args(["-c", script]).run().await;
    sh("dd if=/dev/zero of=/var/lib/rimward/filler bs=1M 2>&1; df /var/lib/rimward").await?;
    world.deploy("1.1.0", 2).await?;
    let said = wait_for("the full disk to be told", WITHIN, async || {
        let model = world.on_node(node).await?;
        let words = model.to_string();
        Ok(if words.contains("stay free") {
            Seen::Done(words)
        } else {
            Seen::NotYet(words)
        })
    })
    .await?;
    eprintln!("    full disk: {said}");
    sh("rm /var/lib/rimward/filler").await?;
    world.promoted().await?;
    asking.stop_whole("disk full, then room again").await?;
    world.clock.part("disk full, then room again");
    Ok(())
}

/// The agent dies at any moment of a change, in the ways that pods die.
async fn killed_midway(world: &mut World) -> Result<()> {
    for round in 0_u32..6 {
        let version = ["1.0.0", "1.1.0"][usize::try_from(round % 2)?];
        world.deploy(version, 10 + round).await?;
        tokio::time::sleep(Duration::from_millis(u64::from(round) * 400)).await;
        let node = &world.cluster.nodes[0];
        let pod = world.agent_pod(node).await?;
        let name = pod["metadata"]["name"].as_str().context("no name")?;
        match round % 3 {
            0 => kill_container(node, &pod)?,
            1 => {
                let delete = [
                    "delete",
                    "pod",
                    name,
                    "-n",
                    AGENTS,
                    "--grace-period=0",
                    "--force",
                ];
                world.kubectl.run(delete).await?;
            }
            _ => world.evict(name).await?,
        }
        world.promoted().await?;
    }
    world
        .clock
        .part("six changes, the agent killed, deleted and evicted in the middle");
    Ok(())
}

/// A node runs short of memory, by its kubelet's word, and throws the agent out.
async fn evicted(world: &mut World, doors: &[Door<'_>]) -> Result<()> {
    let asking = Asking::start(doors)?;
    let node = &world.cluster.nodes[1];
    let pod = world.agent_pod(node).await?;
    let name = pod["metadata"]["name"]
        .as_str()
        .context("no name")?
        .to_owned();
    node.kubelet().power_cut();
    node.revive_kubelet(Some("99%".to_owned())).await?;
    // The pod itself is gone soon: a DaemonSet tidies up what failed.
    let said = wait_for("the agent to be evicted", WITHIN, async || {
        let selector = format!("--field-selector=reason=Evicted,involvedObject.name={name}");
        let events = world
            .kubectl
            .get_json(["events", "-n", AGENTS, &selector])
            .await?;
        Ok(match events["items"][0]["message"].as_str() {
            Some(message) => Seen::Done(message.to_owned()),
            None => Seen::NotYet(events.to_string()),
        })
    })
    .await?;
    eprintln!("    evicted: {said}");
    // Said before it is done: a kubelet that is killed between the two leaves the pod alone.
    wait_for("the evicted pod to end", WITHIN, async || {
        let pod = world
            .kubectl
            .output(["get", "pod", &name, "-n", AGENTS])
            .await?;
        Ok(if pod.stderr.contains("NotFound") {
            Seen::Done(())
        } else {
            Seen::NotYet(pod.stdout)
        })
    })
    .await?;
    node.kubelet().power_cut();
    node.revive_kubelet(None).await?;
    world.replaced(node, &pod).await?;
    asking
        .stop_nearly_whole("the agent evicted for memory")
        .await?;
    world.clock.part("the agent evicted for memory, and back");
    Ok(())
}

/// A node is drained and removed: its EdgeNode goes with it, and the fleet counts one less.
async fn node_removed(world: &mut World, doors: &[Door<'_>]) -> Result<()> {
    let asking = Asking::start(doors)?;
    let name = world.cluster.nodes[1].name().to_owned();
    let drain = [
        "drain",
        &name,
        "--ignore-daemonsets",
        "--delete-emptydir-data",
        "--force",
    ];
    world.kubectl.run(drain).await?;
    drop(world.cluster.nodes.remove(1));
    world.kubectl.run(["delete", "node", &name]).await?;
    wait_for("the node's EdgeNode to go", WITHIN, async || {
        let output = world.kubectl.output(["get", "edgenode", &name]).await?;
        Ok(if output.stderr.contains("NotFound") {
            Seen::Done(())
        } else {
            Seen::NotYet(output.stdout)
        })
    })
    .await?;
    wait_for("the fleet to count one node", WITHIN, async || {
        let object = world
            .kubectl
            .get_json(["modeldeployment", "digits"])
            .await?;
        let nodes = &object["status"]["nodes"];
        Ok(if nodes["desired"] == 1 && nodes["ready"] == 1 {
            Seen::Done(())
        } else {
            Seen::NotYet(nodes.to_string())
        })
    })
    .await?;
    asking
        .stop_nearly_whole("a node drained and removed")
        .await?;
    world
        .clock
        .part("a node drained and removed, its EdgeNode gone");
    Ok(())
}

/// The agent's memory as its kubelet sees it.
async fn print_memory(world: &World) -> Result<()> {
    for node in &world.cluster.nodes {
        let path = format!("/api/v1/nodes/{}/proxy/stats/summary", node.name());
        wait_for("the kubelet's figures of the agent", WITHIN, async || {
            let text = world.kubectl.run(["get", "--raw", &path]).await?;
            let summary: Value = serde_json::from_str(&text)?;
            let pods = summary["pods"].as_array().into_iter().flatten();
            let agents = pods
                .clone()
                .filter(|pod| pod["podRef"]["namespace"] == AGENTS);
            for memory in agents.map(|pod| &pod["containers"][0]["memory"]) {
                if memory["workingSetBytes"].as_u64() > Some(0) {
                    let name = node.name();
                    eprintln!("    agent's memory on {name} as the kubelet sees it: {memory}");
                    return Ok(Seen::Done(()));
                }
            }
            Ok(Seen::NotYet(summary["pods"].to_string()))
        })
        .await?;
    }
    Ok(())
}
