//! What a person can do about a rollout that stands: `Retry` after a registry outage, `Promote` past a suspect.

use std::time::Duration;

use anyhow::{Context as _, ensure};
use serde_json::json;

use crate::silence_world::{by_label, canary_first, on_the_shared_hub};

#[test]
fn a_registry_outage_longer_than_every_deadline_condemns_nothing_and_a_retry_ends_as_if_it_had_not_been()
 {
    let policy = canary_first(&by_label(), 1);
    on_the_shared_hub("registry-away", (3, 2), &policy, async |scene| {
        scene
            .sites
            .change_faults(|faults| faults.blocked.push("unlucky".to_owned()));
        scene.release("unlucky").await?;
        let revision = scene.update().await?;
        let status = scene
            .wait("the rollout to stop", |status| {
                status["stage"]["phase"] == "Stopped"
            })
            .await?;
        ensure!(scene.outcome(&revision).await? == "Stopped", "{status}");
        let waits = status["waitingFor"].as_str().unwrap_or_default();
        ensure!(waits.contains("retry"), "says what to type: {waits}");

        scene.sites.change_faults(|faults| faults.blocked.clear());
        let refused = scene.act("Promote", &json!({"stage": "nowhere"})).await?;
        ensure!(refused["outcome"] == "Refused", "{refused}");
        let applied = scene.act("Retry", &json!({"revision": revision})).await?;
        ensure!(applied["outcome"] == "Applied", "{applied}");
        ensure!(scene.promoted(3).await? == revision);
        let status = scene.status().await?;
        ensure!(status["stage"]["attempt"] == 2, "{status}");
        Ok(())
    });
}

#[test]
fn a_person_may_go_on_past_a_suspect_and_the_suspect_gets_what_is_right_when_it_is_back() {
    let policy = canary_first(&by_label(), 3600);
    on_the_shared_hub("past-suspect", (4, 1), &policy, async |scene| {
        scene.release("good").await?;
        let revision = scene.update().await?;
        scene
            .wait("the canary to have it", |status| {
                status["clusters"]["updated"] == 1
            })
            .await?;
        scene.cut(0);
        scene
            .wait("a suspect", |status| status["clusters"]["suspect"] == 1)
            .await?;
        tokio::time::sleep(Duration::from_secs(3)).await;
        scene.only(&[0], &revision).await?;
        let applied = scene
            .act("Promote", &json!({"stage": "canary", "revision": revision}))
            .await?;
        ensure!(applied["outcome"] == "Applied", "{applied}");
        scene.served(&[1, 2, 3], &revision).await?;
        // What is right goes on while it is away: it gets that, and not what it missed.
        scene.release("better").await?;
        let better = scene
            .wait("the release after it", |status| {
                let update = &status["updateRevision"];
                update.is_string() && *update != revision.as_str()
            })
            .await?["updateRevision"]
            .as_str()
            .context("no revision")?
            .to_owned();
        let applied = scene
            .act("Promote", &json!({"stage": "canary", "revision": better}))
            .await?;
        ensure!(applied["outcome"] == "Applied", "{applied}");
        scene.served(&[1, 2, 3], &better).await?;
        ensure!(!scene.sites.exposed_to(&better).contains(&0), "it is away");
        scene.back();
        ensure!(scene.promoted(4).await? == better);
        scene.served(&[0], &better).await?;
        Ok(())
    });
}
