//! The kubeconfig with which a pull cluster's session dials the hub, replaced under the running operator.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::rimward::Operator;
use rimward_e2e::{ControlPlane, Fleet, Kubectl, Seen, Story, story, wait_for};

use crate::edge_world::{account_of, add_cluster, apply_assignment, cluster_add, model};

const WITHIN: Duration = Duration::from_secs(60);
/// Where heartbeats, and the accounts of clusters, are on the hub.
const CLUSTERS: &str = "rimward-clusters";
/// Many heartbeats of one a second.
const CALM: Duration = Duration::from_secs(6);

#[test]
fn an_account_that_ends_is_replaced_under_the_running_session() {
    story("pull-credential", async |story: &Story| {
        let fleet = Fleet::start("pull-credential", &["west"], Options::default()).await?;
        let hub = fleet.hub.kubectl()?;
        let west = fleet.edge("west")?;
        let edge = west.plane.kubectl()?;
        let account = add_cluster(story, "west", &fleet.hub, &[&west.plane]).await?;
        apply_assignment(&hub, "west", &[model("digits", "digits-1", "Run")]).await?;
        let more = [
            "--heartbeat-seconds=1",
            "--resync-seconds=1",
            "--retry-seconds-max=1",
        ];
        let folder = story.scratch().path();
        let kubeconfig = account.kubeconfig();
        let operator = Operator::edge(
            "edge-west",
            folder,
            &west.operator,
            "west",
            kubeconfig,
            &more,
        )?;
        mirrored(&edge, "digits-1").await?;
        let process = operator.service().id();
        ensure!(process.is_some());
        goes_on_beating(&hub).await?;

        hub.run(["delete", "serviceaccount", "west", "-n", CLUSTERS])
            .await?;
        // A token that was taken is good for some seconds more.
        wait_for("heartbeats to end", WITHIN, async || {
            let before = beat(&hub).await?;
            tokio::time::sleep(CALM).await;
            Ok(if beat(&hub).await? == before {
                Seen::Done(())
            } else {
                Seen::NotYet("it beats".to_owned())
            })
        })
        .await?;
        apply_assignment(&hub, "west", &[model("digits", "digits-2", "Run")]).await?;

        let renewed = renewed(&fleet.hub, &folder.join("renewed.yaml")).await?;
        std::fs::rename(&renewed, kubeconfig)?;
        goes_on_beating(&hub).await?;
        mirrored(&edge, "digits-2").await?;
        ensure!(operator.service().id() == process, "it was started anew");
        operator.service().check_running()
    });
}

/// A new account for the cluster that is there: its kubeconfig.
async fn renewed(hub: &ControlPlane, out: &Path) -> Result<std::path::PathBuf> {
    cluster_add("west", hub, out)?.run().await?;
    account_of(out)
}

/// When the cluster's heartbeat was renewed last.
async fn beat(hub: &Kubectl) -> Result<String> {
    let lease = hub.get_json(["lease", "west", "-n", CLUSTERS]).await?;
    let renewed = lease["spec"]["renewTime"].as_str();
    Ok(renewed.unwrap_or_default().to_owned())
}

async fn goes_on_beating(hub: &Kubectl) -> Result<()> {
    let before = beat(hub).await?;
    wait_for("a heartbeat", WITHIN, async || {
        let now = beat(hub).await?;
        Ok(if now == before {
            Seen::NotYet(now)
        } else {
            Seen::Done(())
        })
    })
    .await
}

async fn mirrored(edge: &Kubectl, revision: &str) -> Result<()> {
    let what = format!("the mirror to have {revision}");
    wait_for(&what, WITHIN, async || {
        let mirror = edge.get_json(["clusterassignment", "west"]).await?;
        let stands = mirror["spec"]["models"][0]["revision"].as_str();
        let stands = stands.context("no entry")?;
        Ok(if stands == revision {
            Seen::Done(())
        } else {
            Seen::NotYet(stands.to_owned())
        })
    })
    .await
}
