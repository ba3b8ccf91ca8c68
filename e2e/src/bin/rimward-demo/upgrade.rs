//! A better release rolls out while cameras keep asking.

use std::time::Duration;

use anyhow::{Result, ensure};

use crate::first::release;
use crate::narrate::Narrator;
use crate::stage::Stage;

/// Requests a second and node: enough for a trial of 50 requests in a few seconds.
pub(crate) const RATE: u32 = 25;

pub(crate) async fn a_better_release_rolls_out_under_load(
    narrator: &Narrator,
    stage: &Stage,
) -> Result<()> {
    narrator.chapter("A better release, on trial with real requests, node by node");
    let before = stage.promoted().await?;
    release(
        narrator,
        stage,
        "examples/packages/digits-1.1.0",
        "1.1.0",
        true,
    )
    .await?;
    narrator.say(&format!(
        "Cameras at all {} nodes keep asking, {RATE} requests a second each.",
        stage.doors().len()
    ));
    let load = stage.load(RATE)?;
    stage.apply(narrator, &["digits-1.1.0.yaml"]).await?;
    narrator
        .run(
            stage
                .rimward(&["status", "digits", "-w", "--timeout", "240s"])?
                .within(Duration::from_secs(300)),
        )
        .await?;
    stage.none_lost(narrator, load)?;
    let after = stage.promoted().await?;
    ensure!(after != before, "still on {before}");
    stage
        .predictions(narrator, &after, stage.digits.len())
        .await
}
