//! Every session's line breaks at once and is made again at once, while a revision is on its way to all of them.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::simulated::{Reach, TEAM};
use rimward_e2e::{Seen, wait_for};

use super::latency::Releases;
use super::rig::{EVERYWHERE, Rig, WITHIN, everywhere};
use crate::report::Row;
use crate::rollout::watch_latency;
use crate::stats::{quantile, spread, time};

/// How long the line is down: less than any grace, so nobody counts as silent.
const DOWN: Duration = Duration::from_secs(3);
/// For so long unrelated things are done in the storm.
const STORM: Duration = Duration::from_secs(10);
/// Releases of the unrelated deployment during the storm, at most.
const RELEASES_MAX: usize = 40;

/// For the revision of the storm to be everywhere.
const PROMOTED_WITHIN: Duration = Duration::from_secs(180);

/// How much longer an unrelated release may take in a storm than one write takes there.
const STORM_RATIO_MAX: f64 = 3.0;

const WHY_WAITS: &str = "A release is several writes, each waiting for the one before, and each waits in line with what \
    all sessions ask and write as they come back.";
const WHY_SLOW: &str = "All sessions, the API server and the hub share this machine's cores.";

pub(super) async fn run(rig: &Rig) -> Result<Vec<Row>> {
    let last = rig.sites.len() - 1;
    // The last site keeps its line: the unrelated deployment is there.
    let in_storm = |index: usize| index != last;
    let many = last;
    let mut releases = Releases::start(rig, last).await?;
    for _ in 0..10 {
        releases.one_more().await?;
    }
    let calm = std::mem::take(&mut releases.took);

    rig.sites.reach(in_storm, Reach::Offline);
    // Half of the time goes by before the spec, so that orders are written while nobody listens.
    tokio::time::sleep(DOWN / 2).await;
    rig.hub.deploy(EVERYWHERE, "storm", &everywhere()).await?;
    tokio::time::sleep(DOWN / 2).await;
    let before = counts(rig)?;
    let began = Instant::now();
    rig.sites.reach(in_storm, Reach::Connected);
    let back = async {
        wait_for("each session to be back", WITHIN, async || {
            // Each by itself: one that beats twice says nothing of another.
            let now = counts(rig)?;
            let pairs = now.iter().zip(&before).enumerate();
            let pairs = pairs.filter(|(site, _)| in_storm(*site));
            let away = pairs.filter(|(_, (now, before))| now.0 <= before.0 || now.1 <= before.1);
            Ok(match away.count() {
                0 => Seen::Done(()),
                some => Seen::NotYet(format!("{some} are not; {}", rig.sites.last_failure())),
            })
        })
        .await?;
        let back = began.elapsed().as_secs_f64();
        let all = rig.sites.len();
        let promoted = rig.hub.promoted(EVERYWHERE, all, PROMOTED_WITHIN).await;
        anyhow::Ok((back, promoted.map(|_| began.elapsed().as_secs_f64())))
    };
    let unrelated = async {
        while releases.took.len() < RELEASES_MAX && began.elapsed() < STORM {
            releases.one_more().await?;
        }
        anyhow::Ok(())
    };
    // One write after the other beside all that: what the API server itself takes in the storm.
    let raw = async {
        let mut raw = Vec::new();
        while began.elapsed() < STORM {
            raw.extend(watch_latency(&rig.hub.client, 1).await?);
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        anyhow::Ok(raw)
    };
    let (back, unrelated, raw) = tokio::join!(back, unrelated, raw);
    let raw = raw?;
    unrelated?;
    let (back, whole) = back?;
    // Counted whether or not the hub says that it is promoted.
    let lost = lost(rig, &asked_for(rig).await?).await?;
    ensure!(!releases.took.is_empty(), "no release during the storm");
    let storm = &releases.took;
    // Too few for a p99: the slowest is told.
    let slowest = quantile(storm, 1000);
    let raw_slowest = quantile(&raw, 1000);
    Ok(vec![
        Row::new(
            format!("reconnect storm: {many} sessions back (watch listed, heartbeat taken)"),
            time(back * 1e6),
        )
        .aim("≤ 10 s", back <= 10.0, WHY_SLOW),
        Row::new(
            "reconnect storm: the revision that was released meanwhile, promoted everywhere",
            match &whole {
                Ok(seconds) => time(seconds * 1e6),
                Err(error) => {
                    eprintln!("    {error:#}");
                    format!("not within {} s", PROMOTED_WITHIN.as_secs())
                }
            },
        )
        .aim("it is", whole.is_ok(), WHY_SLOW),
        Row::new(
            "reconnect storm: sites that do not serve it in the end",
            lost.to_string(),
        )
        .aim("0", lost == 0, "An update was lost."),
        Row::new(
            "reconnect storm: spec to order of an unrelated deployment, median",
            spread(storm, time),
        )
        .beside(
            format!("in calm {}", spread(&calm, time)),
            Some(quantile(storm, 500) / quantile(&calm, 500)),
        ),
        Row::new(
            format!("the same, the slowest of {}", storm.len()),
            time(slowest),
        )
        .beside(
            format!(
                "raw watch in the storm, the slowest of {}: {}",
                raw.len(),
                time(raw_slowest)
            ),
            Some(slowest / raw_slowest),
        )
        .aim(
            "≤ 3 × the raw one",
            slowest <= STORM_RATIO_MAX * raw_slowest,
            WHY_WAITS,
        ),
    ])
}

/// By site: lists of its watch, and heartbeats that were taken.
fn counts(rig: &Rig) -> Result<Vec<(u64, u64)>> {
    (0..rig.sites.len())
        .map(|site| rig.sites.listed_and_beat(site))
        .collect()
}

/// The revision that the deployment asks for.
async fn asked_for(rig: &Rig) -> Result<String> {
    let status = rig.hub.status(EVERYWHERE).await?;
    let revision = status["updateRevision"].as_str();
    Ok(revision.context("no revision")?.to_owned())
}

/// Sites that do not serve the revision in the end.
async fn lost(rig: &Rig, revision: &str) -> Result<usize> {
    let missing = || -> Result<usize> {
        let mut missing = 0;
        for index in 0..rig.sites.len() {
            missing += usize::from(
                rig.sites.serves(index, TEAM, EVERYWHERE)?.as_deref() != Some(revision),
            );
        }
        Ok(missing)
    };
    let all = wait_for(
        "every site to serve it",
        Duration::from_secs(30),
        async || {
            Ok(match missing()? {
                0 => Seen::Done(()),
                some => Seen::NotYet(format!("{some} do not")),
            })
        },
    );
    Ok(if all.await.is_ok() { 0 } else { missing()? })
}
