//! Silence that is the hub's own: it is away in the middle of a bake, or hears nobody at once. Neither passes nor
//! condemns anything.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::simulated::{Hub, QUICK, Reach};
use rimward_e2e::{Story, story};

use crate::silence_world::{CALM, WITHIN, by_label, canary_first, scene};

/// Ten minutes, shortened: longer than the whole bake.
const AWAY: Duration = Duration::from_secs(20);
/// Longer than the grace of ten seconds.
const BAKE_SECONDS: u32 = 15;

#[test]
fn a_hub_that_was_away_in_the_middle_of_a_bake_has_baked_nothing_meanwhile() {
    story("hub-away", async |_: &Story| {
        let hub = Hub::start("hub-away", Options::default(), QUICK).await?;
        let policy = canary_first(&by_label(), BAKE_SECONDS);
        scene(&hub, "hub-away", (3, 1), &policy, async |scene| {
            scene.release("good").await?;
            let revision = scene.update().await?;
            scene
                .wait("the bake", |status| status["stage"]["phase"] == "Baking")
                .await?;
            let began = Instant::now();
            tokio::time::sleep(Duration::from_secs(5)).await;
            hub.operator.service().kill();
            let baked = began.elapsed();
            tokio::time::sleep(AWAY).await;
            scene.only(&[0], &revision).await?;
            hub.operator.service().resume()?;
            let back = Instant::now();
            hub.operator.wait_until_ready(WITHIN).await?;
            while scene.sites.exposed_to(&revision).len() < 2 {
                ensure!(
                    back.elapsed() < WITHIN,
                    "it does not go on: {}",
                    scene.status().await?
                );
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let heard = baked + back.elapsed();
            ensure!(
                heard >= Duration::from_secs(u64::from(BAKE_SECONDS)),
                "the next stage began after {heard:?} in which the hub was there"
            );
            scene.promoted(3).await?;
            Ok(())
        })
        .await
    });
}

#[test]
fn a_hub_that_hears_next_to_nobody_at_once_doubts_itself_and_moves_nothing_until_they_are_back() {
    // All but two, of which one is the canary: its bake is over meanwhile, and there would be somebody to go on with.
    story("hub-deaf", async |_: &Story| {
        deaf("hub-deaf", |site| site >= 2).await
    });
}

#[test]
fn a_hub_that_loses_every_session_at_once_doubts_itself_and_moves_nothing_until_they_are_back() {
    story("hub-deaf-all", async |_: &Story| {
        deaf("hub-deaf-all", |_| true).await
    });
}

/// In the middle of a bake that is longer than the grace, the lines of these sites are cut.
async fn deaf(name: &'static str, cut: fn(usize) -> bool) -> Result<()> {
    let hub = Hub::start(name, Options::default(), QUICK).await?;
    let policy = canary_first(&by_label(), BAKE_SECONDS);
    scene(&hub, name, (12, 1), &policy, async |scene| {
        scene.release("good").await?;
        let revision = scene.update().await?;
        scene
            .wait("the bake", |status| status["stage"]["phase"] == "Baking")
            .await?;
        scene.sites.reach(cut, Reach::Offline);
        let status = scene
            .wait("the hub to doubt itself", |status| {
                let waits = status["waitingFor"].as_str().unwrap_or_default();
                waits.contains("doubt") || conditions_say(status, "HubDoubtsItself")
            })
            .await?;
        scene.only(&[0], &revision).await?;
        // The bake would be over.
        tokio::time::sleep(CALM).await;
        let still = scene.only(&[0], &revision).await;
        still.with_context(|| format!("while the hub doubted: {status}"))?;
        ensure!(scene.outcome(&revision).await? == "Pending");
        scene.back();
        let promoted = scene.promoted(12).await?;
        ensure!(promoted == revision);
        let last = scene.sites.name(11)?;
        let cluster = hub.kubectl.get_json(["edgecluster", last]).await?;
        let conditions = cluster["status"]["conditions"].as_array();
        let conditions = conditions.context("no conditions")?;
        ensure!(
            conditions
                .iter()
                .any(|it| it["type"] == "Available" && it["status"] == "True"),
            "{conditions:?}"
        );
        Ok(())
    })
    .await
}

fn conditions_say(status: &serde_json::Value, reason: &str) -> bool {
    let conditions = status["conditions"].as_array();
    conditions.is_some_and(|all| all.iter().any(|it| it["reason"] == reason))
}
