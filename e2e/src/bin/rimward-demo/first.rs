//! Clusters join; a model is packed, signed, and reaches every node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::digits::repository;

use crate::narrate::Narrator;
use crate::stage::{Ground, SITES, Stage};

const WITHIN: Duration = Duration::from_secs(120);

pub(crate) async fn clusters_join(narrator: &Narrator, stage: &mut Stage) -> Result<()> {
    let nodes = match &mut stage.ground {
        Ground::Processes(system) => {
            narrator.chapter("Two edge clusters join: north dials the hub, the hub dials south");
            for site in SITES {
                let typed = async |line| narrator.run(line).await;
                system.join(site, typed).await?;
            }
            "2"
        }
        Ground::Pods(pods) => {
            pods.a_release_is_made(narrator).await?;
            pods.helm_installs(narrator).await?;
            "1"
        }
    };
    let kubectl = stage.kubectl()?;
    for site in SITES {
        let available = ".status.conditions[?(@.type==\"Available\")].status";
        for (path, value) in [(available, "True"), (".status.nodes.ready", nodes)] {
            kubectl
                .wait_for_value(&["edgecluster", site.name], path, value, WITHIN)
                .await?;
        }
    }
    narrator
        .run(stage.kubectl()?.line(["get", "edgeclusters"]))
        .await?;
    narrator.held(&format!(
        "both joined, nodes that are ready in each: {nodes}"
    ));
    Ok(())
}

pub(crate) async fn a_model_is_packed_and_signed(narrator: &Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("A model becomes a package: one digest for model, module and golden vectors, signed with cosign");
    release(
        narrator,
        stage,
        "examples/packages/digits-1.0.0",
        "1.0.0",
        true,
    )
    .await?;
    let reference = format!("{}/models/digits:1.0.0", stage.registry());
    narrator.run(stage.verify(&reference)?).await?;
    narrator.held("a device that trusts this key would take it");
    Ok(())
}

/// Packs and pushes a folder, and signs it or not.
pub(crate) async fn release(
    narrator: &Narrator,
    stage: &Stage,
    folder: &str,
    version: &str,
    signed: bool,
) -> Result<()> {
    let folder = repository().join(folder);
    let reference = stage.package(narrator, &folder, version).await?;
    if signed {
        let sign = stage.cosign().sign_line(&reference);
        narrator.run(sign).await?;
    }
    Ok(())
}

pub(crate) async fn the_model_reaches_every_node(narrator: &Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("kubectl apply: first the canary cluster, then all");
    stage
        .apply(narrator, &["rollout-policy.yaml", "digits-1.0.0.yaml"])
        .await?;
    narrator
        .run(
            stage
                .rimward(&["status", "digits", "-w", "--timeout", "180s"])?
                .within(Duration::from_secs(240)),
        )
        .await?;
    narrator
        .run(
            stage
                .kubectl()?
                .line(["get", "modeldeployments,modelrevisions"]),
        )
        .await?;
    let revision = stage.promoted().await?;
    let tree = narrator.run(stage.rimward(&["get"])?).await?;
    ensure!(tree.contains(&revision), "`get` does not name {revision}");
    let digit = stage.digits.first().context("no digits")?;
    narrator.say("Any client of the Open Inference Protocol can ask now:");
    let node = stage.first_door()?;
    let body = rimward_e2e::digits::request(digit).to_string();
    narrator.say(&format!(
        "  $ curl http://{}/v2/models/digits/infer -d '{}…'",
        node.host,
        &body[..70.min(body.len())]
    ));
    stage
        .predictions(narrator, &revision, stage.digits.len())
        .await
}
