//! The first quarter of an hour on real nodes: helm puts Rimward there, a signed model answers at every door, and
//! agents are deleted, upgraded and rolled back while clients ask.

use anyhow::{Result, ensure};
use rimward_e2e::{Story, story};

use crate::pods_asking::{Asking, Door, answering};
use crate::pods_node::is_possible;
use crate::pods_world::{AGENTS, SYSTEM, World};

#[test]
fn helm_puts_rimward_on_real_nodes_and_a_model_answers_at_every_door() {
    if !is_possible("pods-install") {
        return;
    }
    story("pods-install", async |story: &Story| {
        let mut world = World::start(story).await?;
        world.install().await?;
        world.release("1.0.0").await?;
        world.clock.part("digits 1.0.0 packed and signed");
        let clients = world.clients().await?;
        world.clock.part("two pods that ask");
        world.deploy("1.0.0", 1).await?;
        let any = world.service("rimward-agent").await?;
        let revision = answering(Some(&clients[0]), &any).await?;
        world
            .clock
            .part("apply to first prediction, through the Service");
        ensure!(world.promoted().await? == revision);
        world.clock.part("promoted on both nodes");
        let local = world.service("rimward-agent-local").await?;
        for client in &clients {
            ensure!(answering(Some(client), &local).await? == revision);
        }
        world
            .clock
            .part("asked through the Service of the own node, on both");

        let node = &world.cluster.nodes[0];
        let own = Door::new("through the own node's", &clients[0], &local);
        let doors = [
            Door::new("through the Service", &clients[1], &any),
            own,
            own.fresh("the same, each by a new connection"),
        ];
        let asking = Asking::start(&doors)?;
        let pod = world.agent_pod(node).await?;
        let name = pod["metadata"]["name"].as_str().unwrap_or_default();
        world
            .kubectl
            .run(["delete", "pod", name, "-n", AGENTS])
            .await?;
        world.replaced(node, &pod).await?;
        // A deleted pod's successor is made after it, not before: while a busy node starts it, and has none of its own that
        // answers, the kernel drops the first packets of new connections to the own node's Service.
        asking.stop_nearly_whole("the agent's pod deleted").await?;
        world.clock.part("the agent's pod deleted");

        let asking = Asking::start(&doors)?;
        let pod = world.agent_pod(node).await?;
        world.upgrade("agent.podAnnotations.note=two").await?;
        world.replaced(node, &pod).await?;
        asking.stop_whole("helm upgrade").await?;
        world.clock.part("helm upgrade");

        let asking = Asking::start(&doors)?;
        let pod = world.agent_pod(node).await?;
        world.rollback().await?;
        world.replaced(node, &pod).await?;
        asking.stop_whole("helm rollback").await?;
        world.clock.part("helm rollback");

        let test = ["test", "rimward", "-n", SYSTEM, "--timeout=120s", "--logs"];
        let said = world.helm.run(test).await?;
        ensure!(said.contains("Succeeded"), "{said}");
        // What the pod printed: the model's answer.
        ensure!(said.contains(&revision) && said.contains("label"), "{said}");
        world.clock.part("helm test");

        port_of_the_nodes(&mut world, &revision).await
    });
}

/// A port of the nodes leads to the agent, from outside.
async fn port_of_the_nodes(world: &mut World, revision: &str) -> Result<()> {
    let node = &world.cluster.nodes[0];
    let pod = world.agent_pod(node).await?;
    world.upgrade("agent.inference.hostPort=18080").await?;
    world.replaced(node, &pod).await?;
    for node in &world.cluster.nodes {
        let url = format!("http://{}:18080/v2/models/digits/infer", node.address());
        ensure!(answering(None, &url).await? == revision);
    }
    world
        .clock
        .part("helm upgrade to a port of the nodes, asked from outside");
    Ok(())
}
