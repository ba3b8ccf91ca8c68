//! Clusters join; a model is packed, signed, and reaches every node.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::digits::repository;

use crate::narrate::Narrator;
use crate::stage::{REGISTRY, SITES, Stage};

pub(crate) async fn clusters_join(narrator: &Narrator, stage: &mut Stage) -> Result<()> {
    narrator.chapter("Two edge clusters join: north dials the hub, the hub dials south");
    for site in SITES {
        stage
            .system
            .join(site, async |line| narrator.run(line).await)
            .await?;
    }
    for site in SITES {
        let path = ".status.conditions[?(@.type==\"Available\")].status";
        stage
            .system
            .wait_for_value(
                &["edgecluster", site.name],
                path,
                "True",
                Duration::from_secs(120),
            )
            .await?;
        stage
            .system
            .wait_for_value(
                &["edgecluster", site.name],
                ".status.nodes.ready",
                "2",
                Duration::from_secs(120),
            )
            .await?;
    }
    narrator
        .run(stage.kubectl()?.line(["get", "edgeclusters"]))
        .await?;
    narrator.held("both joined, two nodes each");
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
    let trust = stage.system.trust.display().to_string();
    let reference = format!("{REGISTRY}/models/digits:1.0.0");
    narrator
        .run(stage.rimward(&["verify", &reference, "--trust", &trust])?)
        .await?;
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
    let typed = async |line| narrator.run(line).await;
    let reference = stage
        .system
        .package(
            &folder,
            REGISTRY,
            &format!("models/digits:{version}"),
            typed,
        )
        .await?;
    if signed {
        let sign = stage.system.fleet.cosign.sign_line(&reference);
        narrator.run(sign).await?;
    }
    Ok(())
}

pub(crate) async fn the_model_reaches_every_node(narrator: &Narrator, stage: &Stage) -> Result<()> {
    narrator.chapter("kubectl apply: first the canary cluster, then all");
    narrator
        .run(stage.apply(&["rollout-policy.yaml", "digits-1.0.0.yaml"])?)
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
    let node = stage.system.nodes().next().context("no nodes")?;
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
