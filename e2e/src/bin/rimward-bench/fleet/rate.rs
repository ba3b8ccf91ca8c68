//! One revision to every site, by the hub and by the bare writer in turn.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::bare::Bare;
use super::orders::Orders;
use super::rig::{EVERYWHERE, Rig, everywhere};
use crate::report::Row;
use crate::stats::{count, median, spread, time};

const REPEATS: usize = 5;

const WHY_SLOW: &str = "Rate counts from the moment the new spec was acknowledged, so the hub's reaction, its \
    ModelRevision and the record of the stage are in it, and sessions' reports are written and read on the same \
    cores.";

pub(super) async fn run(rig: &Rig) -> Result<Vec<Row>> {
    let sites = rig.sites.len();
    let mut revision = rig.settled(EVERYWHERE).await?;
    let (mut hub, mut bare) = (Vec::new(), Vec::new());
    let (mut whole, mut after_first) = (Vec::new(), Vec::new());
    for repeat in 0..REPEATS {
        let orders = Orders::of(&rig.sites, EVERYWHERE, &revision);
        rig.hub
            .deploy(EVERYWHERE, &format!("hub-{repeat}"), &everywhere())
            .await?;
        let began = Instant::now();
        let seen = orders.until(sites).await?;
        let took = last(&seen, began)?;
        hub.push(sites as f64 / took);
        whole.push(took * 1e6);
        let first = seen.iter().min().context("no site")?;
        after_first.push(sites as f64 / (took - first.duration_since(began).as_secs_f64()));
        rig.settled(EVERYWHERE).await?;

        bare.extend(rig.without_hub(async || by_hand(rig).await).await?);
        revision = rig.settled(EVERYWHERE).await?;
    }
    let ratio = median(&hub) / median(&bare);
    Ok(vec![
        Row::new(
            format!("one revision to {sites} sites: orders per second"),
            spread(&hub, count),
        )
        .beside(format!("bare writer {}", spread(&bare, count)), Some(ratio))
        .aim("≥ 80 % of the bare writer's rate", ratio >= 0.8, WHY_SLOW),
        Row::new(
            "the same from the first order on",
            spread(&after_first, count),
        )
        .beside(
            "bare writer, as above",
            Some(median(&after_first) / median(&bare)),
        ),
        Row::new(
            "the same as a time, spec to the last order",
            spread(&whole, time),
        ),
    ])
}

/// Writes another revision over what stands, and then what stood, each as one sample.
async fn by_hand(rig: &Rig) -> Result<Vec<f64>> {
    let bare = Bare::read(rig).await?;
    let stood = bare.revision()?;
    let mut other = stood.clone();
    let end = if other.pop() == Some('x') { 'y' } else { 'x' };
    other.push(end);
    let mut rates = Vec::new();
    for (before, revision) in [(&stood, &other), (&other, &stood)] {
        let orders = Orders::of(&rig.sites, EVERYWHERE, before);
        let began = Instant::now();
        let (written, seen) = tokio::join!(bare.write(revision), orders.until(rig.sites.len()));
        written?;
        rates.push(rig.sites.len() as f64 / last(&seen?, began)?);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(rates)
}

/// Seconds until the last of them.
fn last(seen: &[Instant], began: Instant) -> Result<f64> {
    let last = seen.iter().max().context("no site")?;
    Ok(last.duration_since(began).as_secs_f64())
}
