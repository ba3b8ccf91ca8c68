//! A hub at rest: what it costs per site, and what a restart writes.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use rimward_e2e::fleet::ACCOUNTS;

use super::rig::{Rig, WITHIN, everywhere};
use crate::processes::{memory, processor_microseconds};
use crate::report::Row;
use crate::stats::{count, megabytes, time};

/// Deployments on every site, the first one included.
const DEPLOYMENTS: usize = 20;
/// Longer than a heartbeat, so that each site has its share in it.
const WINDOW: Duration = Duration::from_secs(32);
/// After a restart: longer than a heartbeat, so that every site was heard by the new leader.
const CALM: Duration = Duration::from_secs(35);

/// Between two looks whether a hub that was started anew has planned.
const LOOK_EVERY: Duration = Duration::from_millis(20);

const WHY_WRITES: &str = "Something is written again, or turns and turns back, while a new leader gets to know the \
    fleet.";

/// Processor time and memory of the hub operator while nothing happens but heartbeats.
pub(super) async fn idle(rig: &Rig) -> Result<Vec<Row>> {
    let id = rig.process()?;
    let deployments = deployments(rig).await?;
    let (began, before) = (Instant::now(), processor_microseconds(id)?);
    tokio::time::sleep(WINDOW).await;
    let used = processor_microseconds(id)? - before;
    let seconds = began.elapsed().as_secs_f64();
    let sites = rig.sites.len() as f64;
    let memory = memory(id)?;
    let units = sites * deployments as f64;
    let what = format!("at rest, {} sites × {deployments}", count(sites));
    Ok(vec![
        Row::new(
            format!("{what}: processor time of the hub, per site and minute"),
            time(used / seconds * 60.0 / sites),
        )
        .beside(
            format!("{:.2} % of a core in all", used / seconds / 1e4),
            None,
        ),
        Row::new(
            format!("{what}: memory of the hub (anonymous), per site"),
            format!("{:.1} KiB", memory.anonymous / sites / 1024.0),
        )
        .beside(
            format!(
                "{} in all, {:.1} KiB per site × deployment; RSS {}",
                megabytes(memory.anonymous),
                memory.anonymous / units / 1024.0,
                megabytes(memory.resident)
            ),
            None,
        ),
    ])
}

async fn deployments(rig: &Rig) -> Result<usize> {
    let list = rig
        .hub
        .kubectl
        .get_json(["modeldeployments", "-n", rimward_e2e::simulated::TEAM])
        .await?;
    let items = list["items"].as_array().map_or(0, Vec::len);
    // The one that is on one site alone is none of a size.
    Ok(items.saturating_sub(1).max(1))
}

/// Brings the deployments on every site to 20.
pub(super) async fn more_deployments(rig: &Rig) -> Result<()> {
    let names: Vec<String> = (1..DEPLOYMENTS)
        .map(|number| format!("model-{number}"))
        .collect();
    for name in &names {
        rig.hub.deploy(name, "first", &everywhere()).await?;
    }
    for name in &names {
        rig.settled(name).await?;
    }
    Ok(())
}

/// Kills the hub and starts it again with nothing to do.
pub(super) async fn restart(rig: &Rig) -> Result<Vec<Row>> {
    let audit = rig.hub.plane.audit();
    let service = rig.hub.operator.service();
    service.kill();
    let mark = audit.mark()?;
    let began = Instant::now();
    service.resume()?;
    // Until it listens there is no answer.
    while !rig.has_planned().await.unwrap_or(false) {
        ensure!(began.elapsed() < WITHIN, "the hub does not lead");
        tokio::time::sleep(LOOK_EVERY).await;
    }
    let took = began.elapsed().as_secs_f64();
    tokio::time::sleep(CALM).await;
    let writes = audit.writes_since(mark, ACCOUNTS)?;
    let mut by_kind: BTreeMap<String, usize> = BTreeMap::new();
    for write in &writes {
        let object = write.object_ref.clone().unwrap_or_default();
        *by_kind
            .entry(format!(
                "{} {}{}",
                write.verb,
                object.resource,
                suffix(&object.subresource)
            ))
            .or_default() += 1;
    }
    let example = writes.first().map(ToString::to_string);
    if let Some(example) = &example {
        eprintln!("    a write after the restart: {example}");
    }
    let what = format!(
        "restart with {} sites × {DEPLOYMENTS}",
        count(rig.sites.len() as f64)
    );
    let kinds = by_kind
        .iter()
        .map(|(kind, number)| format!("{number} {kind}"));
    let kinds = kinds.collect::<Vec<_>>().join(", ");
    // It comes back under its own name, so it need not wait for the old Lease to end.
    Ok(vec![
        Row::new(
            format!("{what}: started anew to its first plan"),
            time(took * 1e6),
        )
        .beside(
            format!(
                "by its metrics page, asked every {} ms",
                LOOK_EVERY.as_millis()
            ),
            None,
        ),
        Row::new(
            format!("{what}: writes in the {} s after", CALM.as_secs()),
            writes.len().to_string(),
        )
        .beside(kinds, None)
        .aim("0: nothing changed", writes.is_empty(), WHY_WRITES),
    ])
}

fn suffix(subresource: &str) -> String {
    if subresource.is_empty() {
        String::new()
    } else {
        format!("/{subresource}")
    }
}
