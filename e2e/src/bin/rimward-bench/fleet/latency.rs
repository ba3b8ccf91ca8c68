//! From a spec that is applied to the order that its site sees, beside an object that is written and seen.

use std::time::{Duration, Instant};

use anyhow::{Context as _, Result};
use rimward_e2e::{Seen, wait_for};

use super::orders::Orders;
use super::rig::{Rig, WITHIN, only_on};
use crate::report::Row;
use crate::rollout::watch_latency;
use crate::stats::{quantile, spread, time};

const RELEASES: usize = 60;
/// So that p99 means something on either side.
const RAW_EACH: usize = 5;
/// The deployment that is released again and again, on one site.
const CALM: &str = "calm";

const WHY_SLOW: &str = "A release is several writes, each waiting for the one before: the spec, its ModelRevision, the \
    record of the stage, the order. The raw side is one write.";

pub(super) async fn run(rig: &Rig) -> Result<Vec<Row>> {
    let mut raw = Vec::new();
    let mut releases = Releases::start(rig, 0).await?;
    for _ in 0..RELEASES {
        raw.extend(watch_latency(&rig.hub.client, RAW_EACH).await?);
        releases.one_more().await?;
    }
    let took = &releases.took;
    let (ours, theirs) = (quantile(took, 990), quantile(&raw, 990));
    Ok(vec![
        Row::new("spec to order, median", spread(took, time)).beside(
            format!("raw watch {}", spread(&raw, time)),
            Some(quantile(took, 500) / quantile(&raw, 500)),
        ),
        Row::new(format!("spec to order, p99 of {RELEASES}"), time(ours))
            .beside(format!("raw watch {}", time(theirs)), Some(ours / theirs))
            .aim("≤ 100 ms", ours <= 1e5, WHY_SLOW),
    ])
}

/// Releases of a deployment of its own on one site.
pub(super) struct Releases<'a> {
    rig: &'a Rig,
    site: usize,
    revision: String,
    number: usize,
    /// Microseconds from before each spec was sent until its order was seen.
    pub(super) took: Vec<f64>,
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
        let seen = orders.until(1).await?;
        let seen = seen.first().context("nothing was seen")?;
        self.took
            .push(seen.duration_since(began).as_secs_f64() * 1e6);
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
