//! The hub is stopped and an agent restarted: the models go on answering.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::digits::{accuracy, ask};
use rimward_e2e::system::System;
use rimward_e2e::{Seen, wait_for};

use crate::narrate::Narrator;
use crate::pods::Pods;
use crate::stage::{Ground, SITES, Stage};

const WITHIN: Duration = Duration::from_secs(180);

pub(crate) async fn the_hub_goes_away(narrator: &Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("The hub goes away, the registry too, and a node restarts");
    let revision = stage.promoted().await?;
    let node = stage.first_door()?;
    let restarts_within = match &stage.ground {
        Ground::Processes(system) => {
            processes_go_away(narrator, system)?;
            Duration::from_secs(60)
        }
        Ground::Pods(pods) => {
            pods.go_away(narrator).await?;
            Pods::restart_within()
        }
    };
    let digit = stage.digits.first().context("no digits")?;
    let client = reqwest::Client::new();
    let answer = wait_for(
        "the restarted node to answer",
        restarts_within,
        async || Ok(Seen::Done(ask(&client, &node.host, "digits", digit).await?)),
    )
    .await?;
    ensure!(
        answer.revision == revision,
        "answered by {}, not {revision}",
        answer.revision
    );
    let (right, of) = accuracy(&node.host, "digits", &stage.digits).await?;
    narrator.held(&format!(
        "{} still predicts with {revision}: {right} of {of} right",
        node.name
    ));
    stage.predictions(narrator, &revision, 50).await?;
    everything_returns(narrator, stage).await
}

fn processes_go_away(narrator: &Narrator, system: &System) -> Result<()> {
    system.fleet.hub.stop_api_server();
    for operator in &system.hub {
        operator.service().power_cut();
    }
    system.fleet.registry.stop();
    narrator.held("hub API server, hub operator and registry stopped");
    let node = system.nodes().next().context("no nodes")?;
    system.fleet.edge("north")?.plane.stop_api_server();
    node.agent.power_cut();
    node.agent.resume()?;
    narrator.held(&format!(
        "{}: power cut and restart, its own API server gone as well",
        node.name
    ));
    Ok(())
}

/// What was stopped comes back, and nothing has to be mended by hand.
async fn everything_returns(narrator: &Narrator, stage: &Stage) -> Result<()> {
    match &stage.ground {
        Ground::Processes(system) => {
            let fleet = &system.fleet;
            fleet.edge("north")?.plane.start_api_server().await?;
            fleet.hub.start_api_server().await?;
            fleet.registry.resume().await?;
            for operator in &system.hub {
                operator.service().resume()?;
            }
        }
        Ground::Pods(pods) => pods.come_back().await?,
    }
    let kubectl = stage.kubectl()?;
    let is = |condition: &str| format!(".status.conditions[?(@.type==\"{condition}\")].status");
    for site in SITES {
        kubectl
            .wait_for_value(
                &["edgecluster", site.name],
                &is("Available"),
                "True",
                WITHIN,
            )
            .await?;
    }
    kubectl
        .wait_for_value(&["mdep", "digits"], &is("Ready"), "True", WITHIN)
        .await?;
    narrator
        .held("hub, registry and north's API server are back; the deployment is Ready as before");
    Ok(())
}
