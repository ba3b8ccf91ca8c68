//! Releases that must not stay: one answers wrongly, one fails in use, one is not signed.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::digits::repository;
use rimward_e2e::{Seen, wait_for};

use crate::first::release;
use crate::narrate::Narrator;
use crate::stage::Stage;
use crate::upgrade::RATE;

const WITHIN: Duration = Duration::from_secs(240);

pub(crate) async fn a_wrong_release_stops_in_preflight(
    narrator: &Narrator,
    stage: &Stage,
) -> Result<()> {
    narrator.chapter(
        "A release that answers wrongly: its own golden vectors stop it on the first canary node",
    );
    let good = stage.promoted().await?;
    let south = generation(stage, "south").await?;
    release(narrator, stage, "wasm-models/fixtures/wrong", "1.2.0", true).await?;
    stage.apply(narrator, &["digits-1.2.0-wrong.yaml"]).await?;
    fails_for(narrator, stage, "golden vector").await?;
    narrator.held("`explain` ends in the device's own words");
    stopped_on_the_canary(narrator, stage, "1.2.0", south).await?;
    back_on(narrator, stage, &good).await
}

pub(crate) async fn a_flaky_release_is_taken_back_by_the_nodes(
    narrator: &Narrator,
    stage: &Stage,
) -> Result<()> {
    narrator.chapter("A release that passes its golden vectors and fails in use: the nodes take it back themselves");
    let good = stage.promoted().await?;
    let south = generation(stage, "south").await?;
    release(narrator, stage, "wasm-models/fixtures/flaky", "1.3.0", true).await?;
    let load = stage.load(RATE)?;
    stage.apply(narrator, &["digits-1.3.0-flaky.yaml"]).await?;
    fails_for(narrator, stage, "TooManyErrors").await?;
    narrator.held("`explain` names the error rate");
    stage.none_lost(narrator, load)?;
    narrator.held("what the candidate failed, the previous revision answered");
    stopped_on_the_canary(narrator, stage, "1.3.0", south).await?;
    back_on(narrator, stage, &good).await
}

pub(crate) async fn an_unsigned_release_is_refused(
    narrator: &Narrator,
    stage: &Stage,
) -> Result<()> {
    narrator.chapter("A release that nobody signed: no device installs it, until somebody does");
    let good = stage.promoted().await?;
    let folder = stage.scratch().join("digits-1.4.0");
    another_version(
        &repository().join("examples/packages/digits-1.1.0"),
        &folder,
        "1.4.0",
    )?;
    let reference = stage.package(narrator, &folder, "1.4.0").await?;
    let verify = narrator.show(stage.verify(&reference)?).await?;
    ensure!(
        !verify.status.success(),
        "`verify` took an unsigned package"
    );
    stage
        .apply(narrator, &["digits-1.4.0-unsigned.yaml"])
        .await?;
    wait_for(
        "`explain` to name the missing signature",
        WITHIN,
        async || {
            let explained = stage.rimward(&["explain", "digits"])?.run().await?;
            Ok(if explained.contains("SignatureMissing") {
                Seen::Done(())
            } else {
                Seen::NotYet(explained)
            })
        },
    )
    .await?;
    narrator.run(stage.rimward(&["explain", "digits"])?).await?;
    stage.predictions(narrator, &good, 20).await?;
    narrator.held("refused for want of a signature; the previous revision goes on serving");

    narrator.say("Blocked is not bad. Somebody signs it:");
    let load = stage.load(RATE)?;
    let sign = stage.cosign().sign_line(&reference);
    narrator.run(sign).await?;
    narrator
        .run(
            stage
                .rimward(&["status", "digits", "-w", "--timeout", "300s"])?
                .within(WITHIN * 2),
        )
        .await?;
    stage.none_lost(narrator, load)?;
    let signed = stage.promoted().await?;
    ensure!(signed != good, "the signed release was not promoted");
    stage.predictions(narrator, &signed, 20).await
}

/// Waits until the rollout failed, and `explain` says so in these words.
async fn fails_for(narrator: &Narrator, stage: &Stage, words: &str) -> Result<()> {
    let status = narrator
        .show(
            stage
                .rimward(&["status", "digits", "-w", "--timeout", "240s"])?
                .within(WITHIN * 2),
        )
        .await?;
    ensure!(
        !status.status.success(),
        "`status` must tell that the rollout failed by its exit code"
    );
    narrator.held("`status` ends with a code other than 0");
    let explained = narrator.run(stage.rimward(&["explain", "digits"])?).await?;
    ensure!(
        explained.contains(words),
        "`explain` does not say {words:?}, the device's own reason"
    );
    Ok(())
}

/// How often the hub has changed what it asks of that cluster.
async fn generation(stage: &Stage, cluster: &str) -> Result<i64> {
    let assignment = stage
        .kubectl()?
        .get_json(["clusterassignment", cluster])
        .await?;
    assignment["metadata"]["generation"]
        .as_i64()
        .with_context(|| format!("ClusterAssignment {cluster} has no generation"))
}

/// One canary node tried the release and refused it; its neighbour and the other cluster were never asked to.
async fn stopped_on_the_canary(
    narrator: &Narrator,
    stage: &Stage,
    version: &str,
    south_before: i64,
) -> Result<()> {
    let revisions = stage.kubectl()?.get_json(["modelrevisions"]).await?;
    let bad = revisions["items"]
        .as_array()
        .into_iter()
        .flatten()
        .find(|revision| revision["spec"]["model"]["version"] == version)
        .with_context(|| format!("no ModelRevision of version {version}"))?;
    ensure!(
        bad["status"]["outcome"] == "Failed",
        "the revision of {version} did not fail: {}",
        bad["status"]
    );
    let nodes: Vec<_> = bad["status"]["problems"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|problem| (problem["cluster"].as_str(), problem["node"].as_str()))
        .collect();
    ensure!(
        matches!(nodes[..], [(Some("north"), Some(_))]),
        "more or others than one canary node refused {version}: {nodes:?}"
    );
    ensure!(
        generation(stage, "south").await? == south_before,
        "south was given {version}"
    );
    narrator.held("one canary node refused it; no other node was ever given it");
    Ok(())
}

/// The good revision is the promoted one still, and every node answers with it.
async fn back_on(narrator: &Narrator, stage: &Stage, good: &str) -> Result<()> {
    let promoted = stage.promoted().await?;
    ensure!(promoted == good, "the bad release was promoted: {promoted}");
    stage.predictions(narrator, good, 50).await
}

/// Copies a package's folder with another version, and the release counter that goes with it.
fn another_version(from: &std::path::Path, to: &std::path::Path, version: &str) -> Result<()> {
    std::fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for entry in std::fs::read_dir(from).with_context(|| format!("reading {}", from.display()))? {
        let entry = entry?;
        std::fs::copy(entry.path(), to.join(entry.file_name()))?;
    }
    let path = to.join("rimward.yaml");
    let text = std::fs::read_to_string(&path)?;
    let text: String = text
        .lines()
        .map(|line| match line.split_once(':') {
            Some(("version", _)) => format!("version: {version}\n"),
            Some(("releaseCounter", _)) => "releaseCounter: 8\n".to_owned(),
            _ => format!("{line}\n"),
        })
        .collect();
    Ok(std::fs::write(&path, text)?)
}
