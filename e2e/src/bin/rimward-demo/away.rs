//! The hub is stopped and an agent restarted: the models go on answering.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::digits::{accuracy, ask};
use rimward_e2e::{Seen, wait_for};

use crate::narrate::Narrator;
use crate::stage::Stage;

const WITHIN: Duration = Duration::from_secs(180);

pub(crate) async fn the_hub_goes_away(narrator: &Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("The hub goes away, the registry too, and a node restarts");
    let revision = stage.promoted().await?;
    stage.system.fleet.hub.stop_api_server();
    for operator in &stage.system.hub {
        operator.service().power_cut();
    }
    stage.system.fleet.registry.stop();
    narrator.held("hub API server, hub operator and registry stopped");
    let node = stage.system.nodes().next().context("no nodes")?;
    stage.system.fleet.edge("north")?.plane.stop_api_server();
    node.agent.power_cut();
    node.agent.resume()?;
    narrator.held(&format!(
        "{}: power cut and restart, its own API server gone as well",
        node.name
    ));
    let digit = stage.digits.first().context("no digits")?;
    let client = reqwest::Client::new();
    let answer = wait_for(
        "the restarted node to answer",
        Duration::from_secs(60),
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

/// What was stopped comes back, and nothing has to be mended by hand.
async fn everything_returns(narrator: &Narrator, stage: &Stage) -> Result<()> {
    let fleet = &stage.system.fleet;
    fleet.edge("north")?.plane.start_api_server().await?;
    fleet.hub.start_api_server().await?;
    fleet.registry.resume().await?;
    for operator in &stage.system.hub {
        operator.service().resume()?;
    }
    for site in &stage.system.sites {
        let path = ".status.conditions[?(@.type==\"Available\")].status";
        stage
            .system
            .wait_for_value(&["edgecluster", site.name], path, "True", WITHIN)
            .await?;
    }
    let ready = ".status.conditions[?(@.type==\"Ready\")].status";
    stage
        .system
        .wait_for_value(&["mdep", "digits"], ready, "True", WITHIN)
        .await?;
    narrator
        .held("hub, registry and north's API server are back; the deployment is Ready as before");
    Ok(())
}
