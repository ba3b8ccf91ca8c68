//! One revision to every site, by the hub and by the bare writer in turn.

use std::time::Instant;

use anyhow::{Context as _, Result};

use super::bare::Bare;
use super::orders::Orders;
use super::rig::{EVERYWHERE, Rig, everywhere};
use crate::report::Row;
use crate::stats::{count, median, spread, time};

const REPEATS: usize = 5;

const WHY_SLOW: &str = "Rate counts from before the new spec is sent, so the spec's own write, the hub's reaction, its \
    ModelRevision and the record of the stage are in it, and sessions' reports are written and read on the same \
    cores.";

pub(super) async fn run(rig: &Rig) -> Result<Vec<Row>> {
    let sites = rig.sites.len();
    let mut revision = rig.settled(EVERYWHERE).await?;
    let (mut hub, mut whole, mut after_first) = (Vec::new(), Vec::new(), Vec::new());
    let mut bare = Bared::default();
    for repeat in 0..REPEATS {
        let orders = Orders::of(&rig.sites, EVERYWHERE, &revision);
        let began = Instant::now();
        rig.hub
            .deploy(EVERYWHERE, &format!("hub-{repeat}"), &everywhere())
            .await?;
        let seen = orders.until(sites).await?;
        let took = last(&seen, began)?;
        hub.push(sites as f64 / took);
        whole.push(took * 1e6);
        after_first.push(between(&seen)?);
        rig.settled(EVERYWHERE).await?;

        let by_hand = rig.without_hub(async || by_hand(rig).await).await?;
        bare.whole.extend(by_hand.whole);
        bare.after_first.extend(by_hand.after_first);
        revision = rig.settled(EVERYWHERE).await?;
    }
    let ratio = median(&hub) / median(&bare.whole);
    Ok(vec![
        Row::new(
            format!("one revision to {sites} sites: orders per second"),
            spread(&hub, count),
        )
        .beside(
            format!("bare writer {}", spread(&bare.whole, count)),
            Some(ratio),
        )
        .aim("≥ 80 % of the bare writer's rate", ratio >= 0.8, WHY_SLOW),
        Row::new(
            "the same from the first order on",
            spread(&after_first, count),
        )
        .beside(
            format!("bare writer {}", spread(&bare.after_first, count)),
            Some(median(&after_first) / median(&bare.after_first)),
        ),
        Row::new(
            "the same as a time, spec to the last order",
            spread(&whole, time),
        ),
    ])
}

/// Orders per second of the bare writer, from its first request on and from the first order on.
#[derive(Default)]
struct Bared {
    whole: Vec<f64>,
    after_first: Vec<f64>,
}

/// Writes another revision over what stands, and then what stood, each as one sample.
async fn by_hand(rig: &Rig) -> Result<Bared> {
    let bare = Bare::read(rig).await?;
    let stood = bare.revision()?;
    // Changes nothing, and opens its connections: the hub has had its own for long.
    bare.write(&stood).await?;
    let mut other = stood.clone();
    let end = if other.pop() == Some('x') { 'y' } else { 'x' };
    other.push(end);
    let mut rates = Bared::default();
    for (before, revision) in [(&stood, &other), (&other, &stood)] {
        let orders = Orders::of(&rig.sites, EVERYWHERE, before);
        let began = Instant::now();
        let (written, seen) = tokio::join!(bare.write(revision), orders.until(rig.sites.len()));
        written?;
        let seen = seen?;
        rates
            .whole
            .push(rig.sites.len() as f64 / last(&seen, began)?);
        rates.after_first.push(between(&seen)?);
        tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    }
    Ok(rates)
}

/// Orders per second from the first to the last: one gap less than there are orders.
fn between(seen: &[Instant]) -> Result<f64> {
    let (first, last) = (seen.iter().min(), seen.iter().max());
    let (first, last) = first.zip(last).context("no site")?;
    let gaps = seen.len().saturating_sub(1) as f64;
    Ok(gaps / last.duration_since(*first).as_secs_f64())
}

/// Seconds until the last of them.
fn last(seen: &[Instant], began: Instant) -> Result<f64> {
    let last = seen.iter().max().context("no site")?;
    Ok(last.duration_since(began).as_secs_f64())
}
