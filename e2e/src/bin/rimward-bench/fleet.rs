//! A whole fleet: the planner by itself, and a hub with simulated sites on a real API server.
//!
//! Owns which sizes are measured. Each part is a file; what sites are is `rimward_e2e::simulated`'s.

mod bare;
mod latency;
mod orders;
pub(crate) mod planner;
mod rate;
mod rest;
mod rig;
mod storm;

use anyhow::{Context as _, Result};

use crate::report::{Row, Section};
use rig::Rig;

/// Sites of the short run.
const SHORT: &[usize] = &[100];
/// Sites with `--long`.
const LONG: &[usize] = &[100, 1000];

/// Measures; `long` adds the big fleets.
pub(crate) async fn run(long: bool) -> Result<Vec<Section>> {
    let section = planner::run().await.context("the planner by itself")?;
    // Told as each ends: what fails later loses nothing.
    eprintln!("{}", section.page());
    let mut sections = vec![section];
    for sites in if long { LONG } else { SHORT } {
        let section = hub(*sites).await;
        let section = section.with_context(|| format!("a fleet of {sites}"))?;
        eprintln!("{}", section.page());
        sections.push(section);
    }
    Ok(sections)
}

/// One hub with so many sites, from one measurement to the next.
async fn hub(sites: usize) -> Result<Section> {
    let rig = Rig::start(sites).await?;
    let mut rows = told(rate::run(&rig).await?);
    rows.extend(told(latency::run(&rig).await?));
    rows.extend(told(rest::idle(&rig).await?));
    rest::more_deployments(&rig).await?;
    rows.extend(told(rest::idle(&rig).await?));
    rows.extend(told(rest::restart(&rig).await?));
    rows.extend(told(storm::run(&rig).await?));
    Ok(Section {
        title: match sites {
            100 => "A hub with 100 sites",
            _ => "A hub with 1,000 sites",
        },
        how: format!(
            "A real API server on kine and SQLite, the hub operator, and the sync sessions of {sites} sites in the \
             measuring process: each with its own watch and its own user, heartbeats every {} s, one node in memory \
             that needs no time. Everything shares this machine's cores. A rollout goes to all sites at once \
             (`maxConcurrency: 100%`); it is over when each site's own watch has seen its order. The bare writer \
             sends the same objects by the same kind of request, {} at once, under the hub's account, while the hub \
             is stopped, over connections that are open; it names no version, so that the API server need not compare \
             one, which the hub does. The two take turns. *Order*: the site's session has seen it. *Go-ahead*: its node \
             has it in its spec.",
            rig::HEARTBEAT.as_secs(),
            bare::WRITES_AT_ONCE,
        ),
        beside: "beside",
        rows,
        notes: vec![format!(
            "Sessions sent {} heartbeats and {} reports; {} of their requests failed.",
            rig.count(|counted| &counted.beats),
            rig.count(|counted| &counted.reports),
            rig.count(|counted| &counted.failures),
        )],
    })
}

/// Tells rows as they are found.
fn told(rows: Vec<Row>) -> Vec<Row> {
    for row in &rows {
        eprintln!("    {}", row.line());
    }
    rows
}
