//! Open-loop load at 200 requests a second on one node, by clients that keep connections alive and retry nothing,
//! while its model is replaced ten times and a flaky one is taken back in trial three times: no request fails, and
//! every answer is right.

use anyhow::{Result, ensure};
use rimward_e2e::control_plane::Options;
use rimward_e2e::system::{Mode, SiteSpec, System};
use rimward_e2e::{Story, story};

use crate::releases::{self, BETTER, End, FLAKY, GOOD, Order};

const SITE: SiteSpec = SiteSpec {
    name: "north",
    mode: Mode::Pull,
    labels: "ring=main",
    nodes: 1,
};
const RATE_PER_SECOND: u32 = 200;
const SWAPS: u32 = 10;
/// Of these rounds, a flaky release is tried after the swap.
const FLAKY_AFTER: [u32; 3] = [2, 5, 8];
/// How many requests a candidate must have answered before it is committed: a quarter of a second of them.
const MIN_SAMPLES: u32 = 50;

#[test]
fn ten_swaps_and_three_rollbacks_out_of_trial_cost_no_request() {
    story("swaps-under-load", async |_: &Story| {
        let releases = [GOOD, BETTER, FLAKY];
        let system = releases::start(
            "swaps-under-load-fleet",
            &[SITE],
            Options::default(),
            &releases,
        )
        .await?;
        let first = releases::settle_on_clear_digits(&system, "digits").await?;
        let host = &system.sites[0].nodes[0].host;
        let load = releases::load(host, "digits", RATE_PER_SECOND)?;
        let (good, flaky) = change_under_load(&system, first).await?;

        let report = load.stop()?;
        report.check_none_failed()?;
        let answered = &report.answered_by;
        for revision in &good {
            ensure!(
                answered.contains_key(revision),
                "{revision} never answered: {answered:?}"
            );
        }
        let by_good: u64 = good
            .iter()
            .filter_map(|revision| answered.get(revision))
            .sum();
        let by_flaky: u64 = flaky
            .iter()
            .filter_map(|revision| answered.get(revision))
            .sum();
        ensure!(
            by_good + by_flaky == report.total,
            "{} requests, answered by {answered:?}",
            report.total
        );
        ensure!(
            by_flaky > 0,
            "no flaky release was ever on trial: {answered:?}"
        );
        println!(
            "{} requests, none failed: {by_good} answered by {} good revisions, {by_flaky} rightly by a \
             candidate that was then taken back; p50 {:?} us, p99 {:?} us",
            report.total,
            good.len(),
            report.latency_microseconds(500),
            report.latency_microseconds(990),
        );
        Ok(())
    });
}

/// Makes all changes; gives the good revisions and those that were taken back.
async fn change_under_load(system: &System, first: String) -> Result<(Vec<String>, Vec<String>)> {
    let (mut good, mut flaky) = (vec![first], Vec::new());
    for round in 0..SWAPS {
        let release = if round % 2 == 0 { GOOD } else { BETTER };
        let number = 10 + 2 * round;
        releases::deploy(system, "digits", Order::new(release, number, MIN_SAMPLES)).await?;
        let revision = releases::promoted(system, "digits").await?;
        ensure!(!good.contains(&revision), "{revision} is not new");
        good.push(revision);
        if !FLAKY_AFTER.contains(&round) {
            continue;
        }
        releases::deploy(system, "digits", Order::new(FLAKY, number + 1, MIN_SAMPLES)).await?;
        match releases::end_of_rollout(system, "digits").await? {
            End::RolledBack { failed, back_on } => {
                ensure!(
                    back_on.as_ref() == good.last(),
                    "back on {back_on:?} of {good:?}"
                );
                flaky.push(failed);
            }
            end @ End::Promoted(_) => anyhow::bail!("the flaky release was promoted: {end:?}"),
        }
    }
    Ok((good, flaky))
}
