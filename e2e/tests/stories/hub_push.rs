//! A Push cluster: the hub dials it with the kubeconfig of its Secret, and runs the very session that a Pull
//! cluster runs at home.

use anyhow::ensure;
use rimward_e2e::control_plane::Options;
use rimward_e2e::{Fleet, Seen, Story, story, wait_for};

use crate::hub_world::{Parts, WITHIN, World, deployment, model};

#[test]
fn the_hub_runs_the_session_of_a_push_cluster_with_its_kubeconfig_as_it_stands_until_it_is_taken_away()
 {
    story("hub-push", async |story: &Story| {
        let fleet = Fleet::start("hub-push-fleet", &["north"], Options::default()).await?;
        let world = World::on(Parts::Own(Box::new(fleet))).await?;
        let _operator = world.operator("hub", story.scratch().path()).await?;
        let north = world.fleet.edge("north")?;
        let edge = north.plane.kubectl()?;

        // As an account has it: certificates and token inside, no file named.
        let file = format!("--from-file=kubeconfig={}", north.operator.display());
        let secret = [
            "create",
            "secret",
            "generic",
            "north",
            "-n",
            "rimward-system",
            &file,
        ];
        world.kubectl.run(secret).await?;
        world
            .apply(
                "{apiVersion: rimward.dev/v1alpha1, kind: EdgeCluster, metadata: {name: north},
                   spec: {connection: {mode: Push, kubeconfigSecretRef: {name: north}}}}",
            )
            .await?;
        let object = ("edgecluster", "north");
        world
            .condition(object, "Ready", "True", "Connected")
            .await?;
        let uid = edge.get_json(["namespace", "kube-system"]).await?["metadata"]["uid"].clone();
        // The heartbeat alone makes a cluster Connected; who it is comes with its session's first report.
        wait_for("the cluster's UID to be pinned", WITHIN, async || {
            let status = world.get("edgecluster", "north").await?["status"].clone();
            Ok(if status["clusterUID"] == uid {
                Seen::Done(())
            } else {
                Seen::NotYet(status.to_string())
            })
        })
        .await?;

        let image = world.push("passthrough", "1.0.0").await?;
        world.apply(&model("good", "digits-raw", &image)).await?;
        let everywhere = "placement: {clusterSelector: {}}";
        world
            .apply(&deployment("digits", "good", everywhere))
            .await?;
        wait_for("the mirror to have the entry", WITHIN, async || {
            let mirror = edge.get_json(["clusterassignment", "north"]).await?;
            let name = &mirror["spec"]["models"][0]["name"];
            Ok(if name == "digits" {
                Seen::Done(())
            } else {
                Seen::NotYet(mirror.to_string())
            })
        })
        .await?;

        // Replaced under the running session: by one that cannot be used, and by one that can.
        let rotate = async |kubeconfig: &str| {
            let patch = serde_json::json!({"stringData": {"kubeconfig": kubeconfig}}).to_string();
            let patch = [
                "patch",
                "secret",
                "north",
                "-n",
                "rimward-system",
                "-p",
                &patch,
            ];
            world.kubectl.run(patch).await
        };
        let good = std::fs::read_to_string(&north.operator)?;
        rotate("nonsense: [").await?;
        world
            .condition(object, "Stalled", "True", "KubeconfigInvalid")
            .await?;
        rotate(&format!("# rotated\n{good}")).await?;
        world
            .condition(object, "Ready", "True", "Connected")
            .await?;

        world
            .kubectl
            .run(["delete", "secret", "north", "-n", "rimward-system"])
            .await?;
        let message = world
            .condition(object, "Stalled", "True", "KubeconfigInvalid")
            .await?;
        ensure!(
            message.contains("rimward-system/north does not exist"),
            "{message}"
        );
        // What was mirrored stays: a session that cannot be run is no order to remove.
        let mirror = edge.get_json(["clusterassignment", "north"]).await?;
        ensure!(mirror["spec"]["models"][0]["action"] == "Run", "{mirror}");
        Ok(())
    });
}
