//! What was off before a release came: a board of the canary, a whole canary site. Neither condemns a release, neither
//! passes one by its absence, and both get what is right when they are back.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::simulated::{Came, SeenOrder};

use crate::silence_world::{CALM, GRACE, by_label, canary_first, on_the_shared_hub, unheard};

#[test]
fn a_board_that_was_off_before_delays_nobody_and_condemns_nothing() {
    let policy = canary_first(&by_label(), 1);
    on_the_shared_hub("board-off", (3, 2), &policy, async |scene| {
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
    });
}

#[test]
fn a_canary_site_that_is_off_for_the_weekend_passes_nothing_and_goes_on_when_it_is_back() {
    let policy = canary_first(&by_label(), 1);
    on_the_shared_hub("weekend", (4, 1), &policy, async |scene| {
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
        ensure!(scene.ordered(&revision).await?.is_empty(), "{status}");
        let noted = scene.sites.note_orders();
        scene.back();
        let promoted = scene.promoted(4).await?;
        ensure!(promoted == revision);
        went_in_order(&noted.take(), &revision)
    });
}

#[test]
fn a_canary_site_that_goes_off_in_the_middle_of_its_bake_is_waited_for_and_counts_when_it_is_back()
{
    let policy = canary_first(&by_label(), 6);
    on_the_shared_hub("weekend-bake", (3, 1), &policy, async |scene| {
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
        scene
            .only(&[0], &revision)
            .await
            .context("the next stage began on a memory")?;
        scene.back();
        scene.promoted(3).await?;
        Ok(())
    });
}

/// The canary's node had it before any other site saw an order for it.
fn went_in_order(seen: &[SeenOrder], revision: &str) -> Result<()> {
    let about = |it: &&SeenOrder| it.entries.iter().any(|(_, _, named)| named == revision);
    let ways: Vec<_> = seen
        .iter()
        .filter(about)
        .map(|it| (it.site, it.came))
        .collect();
    let canary = [(0, Came::ToSession), (0, Came::ToNode)];
    ensure!(ways.starts_with(&canary), "{ways:?}");
    let sites: BTreeSet<usize> = ways.iter().map(|(site, _)| *site).collect();
    ensure!(sites == BTreeSet::from([0, 1, 2, 3]), "{ways:?}");
    Ok(())
}
