//! A release that silences each site that gets it, and one that silences each node: neither goes further than its
//! first place, whichever way the canary is chosen.

use anyhow::{Result, ensure};
use serde_json::json;

use crate::silence_world::{CALM, Scene, by_label, canary_first, on_the_shared_hub};

/// So long that no stage passes by it within a story.
const HOUR_SECONDS: u32 = 3600;

#[test]
fn a_release_that_silences_every_site_it_reaches_stops_at_its_canary_chosen_by_count() {
    let policy = canary_first(&json!({"count": 1}), HOUR_SECONDS);
    on_the_shared_hub("silencer-count", (10, 1), &policy, stops_at_one);
}

#[test]
fn a_release_that_silences_every_site_it_reaches_stops_at_its_canary_chosen_by_label() {
    let policy = canary_first(&by_label(), HOUR_SECONDS);
    on_the_shared_hub("silencer-label", (10, 1), &policy, stops_at_one);
}

/// Each site that gets the release is never heard again.
async fn stops_at_one(scene: &Scene<'_>) -> Result<()> {
    scene
        .sites
        .change_faults(|faults| faults.silences_site.push("deadly".to_owned()));
    scene.release("deadly").await?;
    let revision = scene.update().await?;
    let status = scene
        .wait("a suspect", |status| status["clusters"]["suspect"] == 1)
        .await?;
    let waits = status["waitingFor"].as_str().unwrap_or_default().to_owned();
    ensure!(
        waits.contains("fell silent") && waits.contains("kubectl rimward promote"),
        "says what it waits for, and what to type: {waits}"
    );
    tokio::time::sleep(CALM).await;
    scene.only(&[0], &revision).await?;
    let status = scene.status().await?;
    ensure!(status["stage"]["name"] == "canary", "{status}");
    ensure!(
        scene.outcome(&revision).await? != "Failed",
        "silence condemns nothing"
    );
    Ok(())
}

#[test]
fn a_release_that_silences_every_node_it_reaches_stops_at_the_first_node_of_the_first_site() {
    let policy = canary_first(&by_label(), HOUR_SECONDS);
    on_the_shared_hub("silencer-nodes", (3, 3), &policy, async |scene| {
        scene
            .sites
            .change_faults(|faults| faults.silences_node.push("deadly".to_owned()));
        scene.release("deadly").await?;
        let revision = scene.update().await?;
        scene
            .wait("a suspect node", |status| status["nodes"]["suspect"] == 1)
            .await?;
        tokio::time::sleep(CALM).await;
        scene.only(&[0], &revision).await?;
        let status = scene.status().await?;
        ensure!(
            status["nodes"]["suspect"] == 1,
            "one node of nine is lost, no more: {status}"
        );
        Ok(())
    });
}
