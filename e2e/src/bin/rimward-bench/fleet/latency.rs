//! From a spec that is applied to the order that its site sees, and to the go-ahead of its node, beside an object that
//! is written and seen.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rimward_e2e::{Seen, wait_for};

use super::orders::Orders;
use super::rig::{Rig, WITHIN, only_on};
use crate::report::Row;
use crate::rollout::watch_latency;
use crate::stats::{quantile, spread, time};

/// So many that two of them are above the p99, on either side.
const RELEASES: usize = 200;
const RAW_EACH: usize = 1;
/// The deployment that is released again and again, on one site.
const CALM: &str = "calm";

const WHY_SLOW: &str = "A release is several writes, each waiting for the one before: the spec, its ModelRevision, the \
    record of the stage, the order; a session then waits 50 ms for more news before it plans, and gives the go-ahead. \
    The raw side is one write.";

pub(super) async fn run(rig: &Rig) -> Result<Vec<Row>> {
    let mut raw = Vec::new();
    let mut releases = Releases::start(rig, 0).await?;
    for _ in 0..RELEASES {
        raw.extend(watch_latency(&rig.hub.client, RAW_EACH).await?);
        releases.one_more().await?;
    }
    let theirs = quantile(&raw, 990);
    let mut rows = Vec::new();
    for (what, took) in [
        ("spec to order", &releases.took),
        ("spec to go-ahead", &releases.took_to_node),
    ] {
        let ours = quantile(took, 990);
        rows.push(
            Row::new(format!("{what}, median"), spread(took, time)).beside(
                format!("raw watch {}", spread(&raw, time)),
                Some(quantile(took, 500) / quantile(&raw, 500)),
            ),
        );
        let row = Row::new(format!("{what}, p99 of {RELEASES}"), time(ours)).beside(
            format!("raw watch, p99 of {}: {}", raw.len(), time(theirs)),
            Some(ours / theirs),
        );
        rows.push(row.aim("≤ 100 ms", ours <= 1e5, WHY_SLOW));
    }
    Ok(rows)
}

/// Releases of a deployment of its own on one site.
pub(super) struct Releases<'a> {
    rig: &'a Rig,
    site: usize,
    revision: String,
    number: usize,
    /// Microseconds from before each spec was sent until its order was seen.
    pub(super) took: Vec<f64>,
    /// The same until the node had it: in memory, so no edge's API server is in it.
    pub(super) took_to_node: Vec<f64>,
}

impl<'a> Releases<'a> {
    /// The first one, which is not measured.
    pub(super) async fn start(rig: &'a Rig, site: usize) -> Result<Self> {
        rig.hub.deploy(CALM, "calm-first", &only_on(site)).await?;
        let revision = served(rig, site, None).await?;
        Ok(Self {
            rig,
            site,
            revision,
            number: 0,
            took: Vec::new(),
            took_to_node: Vec::new(),
        })
    }

    /// One more, which is over when the site serves it and the hub has said so.
    pub(super) async fn one_more(&mut self) -> Result<()> {
        self.number += 1;
        let orders = Orders::of(&self.rig.sites, CALM, &self.revision);
        let began = Instant::now();
        let release = format!("calm-{}-{}", self.site, self.number);
        self.rig
            .hub
            .deploy(CALM, &release, &only_on(self.site))
            .await?;
        let ways = orders.through(1).await?;
        let way = ways.first().context("nothing was seen")?;
        let since = |at: Instant| at.duration_since(began).as_secs_f64() * 1e6;
        self.took.push(since(way.seen));
        self.took_to_node.push(since(way.given));
        self.revision = served(self.rig, self.site, Some(&self.revision)).await?;
        self.rig.hub.promoted(CALM, 1, WITHIN).await?;
        tokio::time::sleep(Duration::from_millis(100)).await;
        Ok(())
    }
}

async fn served(rig: &Rig, site: usize, before: Option<&str>) -> Result<String> {
    wait_for("the site to serve it", WITHIN, async || {
        let serves = rig.sites.serves(site, rimward_e2e::simulated::TEAM, CALM)?;
        Ok(
            match serves.filter(|revision| Some(revision.as_str()) != before) {
                Some(revision) => Seen::Done(revision),
                None => Seen::NotYet("not yet".to_owned()),
            },
        )
    })
    .await
}
