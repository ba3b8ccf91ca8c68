//! What was off before a release came: a board of the canary, a whole canary site. Neither condemns a release, neither
//! passes one by its absence, and both get what is right when they are back.

use anyhow::{Result, ensure};
use rimward_e2e::simulated::Hub;
use rimward_e2e::{Story, story};

use crate::silence_world::{CALM, GRACE, Scene, by_label, canary_first, scene, unheard};

#[test]
fn a_board_that_was_off_before_delays_nobody_and_condemns_nothing() {
    story("board-off", async |_: &Story| {
        let hub = Hub::shared().await?;
        let policy = canary_first(&by_label(), 1);
        scene(&hub, "board-off", (3, 2), &policy, async |scene| {
            scene.sites.power(0, 1, false)?;
            scene
                .wait("a node that is not heard", |status| {
                    unheard(status, "nodes") == 1
                })
                .await?;
            scene.release("good").await?;
            let revision = scene.promoted(3).await?;
            let status = scene.status().await?;
            ensure!(status["nodes"]["updated"] == 5, "{status}");
            // Past the deadline of ten seconds nothing has failed after all.
            tokio::time::sleep(CALM).await;
            ensure!(scene.outcome(&revision).await? == "Promoted");
            scene.sites.power(0, 1, true)?;
            scene
                .wait("the board to have it too", |status| {
                    status["nodes"]["updated"] == 6
                })
                .await?;
            Ok(())
        })
        .await
    });
}

#[test]
fn a_canary_site_that_is_off_for_the_weekend_passes_nothing_and_goes_on_when_it_is_back() {
    story("weekend", async |_: &Story| {
        let hub = Hub::shared().await?;
        let policy = canary_first(&by_label(), 1);
        scene(&hub, "weekend", (4, 1), &policy, async |scene| {
            scene.cut(0);
            scene
                .wait("a canary that is not heard", |status| {
                    status["clusters"]["ready"] == 3
                })
                .await?;
            scene.release("monday").await?;
            let revision = scene.update().await?;
            let status = scene
                .wait("a reason", |status| status["waitingFor"].is_string())
                .await?;
            tokio::time::sleep(CALM).await;
            ensure!(
                scene.sites.exposed_to(&revision).is_empty(),
                "a stage nobody of which is heard does not pass: {status}"
            );
            scene.back();
            let promoted = scene.promoted(4).await?;
            ensure!(promoted == revision);
            went_in_order(scene, &revision)
        })
        .await
    });
}

#[test]
fn a_canary_site_that_goes_off_in_the_middle_of_its_bake_is_waited_for_and_counts_when_it_is_back()
{
    story("weekend-bake", async |_: &Story| {
        let hub = Hub::shared().await?;
        let policy = canary_first(&by_label(), 6);
        scene(&hub, "weekend-bake", (3, 1), &policy, async |scene| {
            scene.release("friday").await?;
            let revision = scene.update().await?;
            scene
                .wait("the bake", |status| status["stage"]["phase"] == "Baking")
                .await?;
            scene.cut(0);
            scene
                .wait("a suspect", |status| status["clusters"]["suspect"] == 1)
                .await?;
            tokio::time::sleep(GRACE).await;
            let exposed = scene.sites.exposed_to(&revision);
            ensure!(
                exposed == [0],
                "the next stage began on a memory: {exposed:?}"
            );
            scene.back();
            scene.promoted(3).await?;
            Ok(())
        })
        .await
    });
}

fn went_in_order(scene: &Scene<'_>, revision: &str) -> Result<()> {
    let mut exposed = scene.sites.exposed_to(revision);
    exposed.sort_unstable();
    ensure!(exposed == [0, 1, 2, 3], "{exposed:?}");
    Ok(())
}
