//! At rest Rimward writes nothing: one deployment Ready, one Stalled, requests answered all the time, operators that
//! look again every two seconds, and no write in any API server's audit log for a minute, Leases aside. In the rollout after
//! it the hub's leader dies, and each cluster is still ordered the revision once.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::audit::{Audit, Level};
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::ACCOUNTS;
use rimward_e2e::load::Load;
use rimward_e2e::system::System;
use rimward_e2e::{Story, story};

use crate::leader;
use crate::releases::{self, BETTER, End, GOOD, Order, SITES, WRONG};

/// Who must be seen renewing Leases in that minute, by API server: else the logs are not what they are taken for.
const SEEN: [(&str, &[&str]); 3] = [
    (
        "hub",
        &[
            "system:serviceaccount:rimward-system:rimward-hub",
            "system:serviceaccount:rimward-clusters:north",
        ],
    ),
    (
        "north",
        &[
            "system:serviceaccount:rimward-system:rimward-edge",
            "system:serviceaccount:rimward-agents:rimward-agent",
        ],
    ),
    (
        "south",
        &["system:serviceaccount:rimward-agents:rimward-agent"],
    ),
];
const RATE_PER_SECOND: u32 = 20;
/// What the end of a rollout leads to is written by then: nobody promises that the last status comes first.
const SETTLING: Duration = Duration::from_secs(10);
const MINUTE: Duration = Duration::from_secs(60);

#[test]
fn at_rest_nothing_is_written_and_a_leader_that_dies_orders_nothing_twice() {
    story("steady-state", async |_: &Story| {
        let options = Options {
            audit: Level::Request,
            ..Options::default()
        };
        let mut system = releases::start(
            "steady-state-fleet",
            &SITES,
            options,
            &[GOOD, BETTER, WRONG],
        )
        .await?;
        system.add_hub_replica(&[]).await?;
        let revision = releases::settle_on_clear_digits(&system, "digits").await?;
        releases::deploy(&system, "wrong", Order::new(WRONG, 0, 0)).await?;
        let end = releases::end_of_rollout(&system, "wrong").await?;
        ensure!(
            matches!(end, End::RolledBack { back_on: None, .. }),
            "{end:?}"
        );

        let loads: Vec<Load> = system
            .nodes()
            .map(|node| releases::load(&node.host, "digits", RATE_PER_SECOND))
            .collect::<Result<_>>()?;
        tokio::time::sleep(SETTLING).await;
        nothing_is_written(&system).await?;
        let next = leader::dies_in_a_rollout(&system, &revision).await?;
        for load in loads {
            let report = load.stop()?;
            report.check_none_failed()?;
            let known = [&revision, &next];
            ensure!(
                report.answered_by.keys().all(|who| known.contains(&who)),
                "{:?}",
                report.answered_by
            );
        }
        Ok(())
    });
}

/// For one minute no account of Rimward's sends a write to any API server, Leases aside.
async fn nothing_is_written(system: &System) -> Result<()> {
    let planes = || {
        std::iter::once(&system.fleet.hub).chain(system.fleet.edges.iter().map(|edge| &edge.plane))
    };
    let logs: Vec<(&str, Audit)> = planes()
        .map(|plane| (plane.name(), plane.audit()))
        .collect();
    let marks = logs
        .iter()
        .map(|(_, log)| log.mark())
        .collect::<Result<Vec<_>>>()?;
    tokio::time::sleep(MINUTE).await;
    for ((name, log), mark) in logs.into_iter().zip(marks) {
        let writes: Vec<String> = log
            .writes_since(mark, ACCOUNTS)?
            .iter()
            .map(ToString::to_string)
            .collect();
        ensure!(
            writes.is_empty(),
            "{name}: {} writes at rest: {writes:#?}",
            writes.len()
        );
        let renewing: BTreeSet<String> = log
            .since(mark)?
            .into_iter()
            .filter(|event| event.is_write() && event.resource() == "leases")
            .map(|event| event.user.username)
            .collect();
        let (_, expected) = SEEN
            .iter()
            .find(|(of, _)| *of == name)
            .context("an API server of the story")?;
        for account in *expected {
            ensure!(
                renewing.contains(*account),
                "{name}: no Lease of {account}, only of {renewing:?}"
            );
        }
    }
    Ok(())
}
