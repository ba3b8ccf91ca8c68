//! The hub operator is replaced in the middle of a rollout, as `helm upgrade` does it: the new pod is up before the old
//! one ends, with one replica and with two. No cluster is ordered anything twice, and nothing is written that a steady
//! fleet would not have. What is played is the sites; the hub is real.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use rimward_e2e::audit::{Level, Mark};
use rimward_e2e::control_plane::Options;
use rimward_e2e::fleet::ACCOUNTS;
use rimward_e2e::rimward::Operator;
use rimward_e2e::simulated::{Hub, Plan, QUICK, Sites, TEAM, Timing, object};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::json;

use crate::leader::{HUB, each_ordered_once, holder, leads, orders};

const WITHIN: Duration = Duration::from_secs(120);
/// Several resyncs and renewals.
const CALM: Duration = Duration::from_secs(8);
const SITES: usize = 6;

#[test]
fn an_operator_that_is_replaced_in_a_rollout_orders_nothing_twice_and_writes_nothing_more() {
    story("operator-replaced", async |story: &Story| {
        let options = Options {
            audit: Level::Request,
            ..Options::default()
        };
        let hub = Hub::start("operator-replaced-hub", options, QUICK).await?;
        let plan = Plan {
            sites: SITES,
            nodes: 2,
            timing: Timing {
                heartbeat: Duration::from_secs(1),
                retry_max: Duration::from_secs(1),
                staging: Duration::from_millis(300),
                trial: Duration::from_millis(300),
                ..Timing::default()
            },
            ..Plan::default()
        };
        let sites = Sites::start(&hub.plane, &plan).await?;
        sites.wait_until_joined(WITHIN).await?;
        let stages = json!({"stages": [
            {"name": "canary", "clusters": {"count": 1}, "bakeSeconds": 2},
            {"name": "everyone", "clusters": {"percent": 100}, "maxConcurrency": 1},
        ]});
        hub.apply(&object("RolloutPolicy", "slow", &stages)).await?;
        release(&hub, "first").await?;
        hub.promoted("digits", SITES, WITHIN).await?;

        let folder = story.scratch().path();
        // At rest: the new one is up, the old one ends.
        let next = new_version(&hub, folder, "next", "--resync-seconds=7").await?;
        let mark = settled_mark(&hub).await?;
        replaced(&hub, &hub.operator, "next").await?;
        tokio::time::sleep(CALM).await;
        ensure_no_writes(&hub, mark)?;

        // One replica, in a rollout.
        let mark = hub.plane.audit().mark()?;
        release(&hub, "second").await?;
        until_ordered(&hub, mark, 2).await?;
        let after = new_version(&hub, folder, "after", "--resync-seconds=60").await?;
        replaced(&hub, &next, "after").await?;
        ordered_once(&hub, mark).await?;

        // Two replicas, one after the other.
        let beside = new_version(&hub, folder, "beside", "--resync-seconds=60").await?;
        let mark = hub.plane.audit().mark()?;
        release(&hub, "third").await?;
        until_ordered(&hub, mark, 1).await?;
        let newer = new_version(&hub, folder, "newer", "--resync-seconds=9").await?;
        after.service().stop(Duration::from_secs(30));
        until_ordered(&hub, mark, 3).await?;
        let newest = new_version(&hub, folder, "newest", "--resync-seconds=9").await?;
        beside.service().stop(Duration::from_secs(30));
        ordered_once(&hub, mark).await?;
        let leader = holder(&hub.kubectl, HUB).await?;
        ensure!(["newer", "newest"].contains(&leader.as_str()), "{leader}");
        for replica in [&newer, &newest] {
            ensure!(replica.probe("/readyz").await? == 200);
        }
        Ok(())
    });
}

async fn release(hub: &Hub, name: &str) -> Result<()> {
    let policy = json!({"rolloutPolicyRef": {"name": "slow"}});
    hub.deploy("digits", name, &policy).await
}

/// Another pod: the same program under another name, with other flags.
async fn new_version(hub: &Hub, folder: &Path, name: &str, flag: &str) -> Result<Operator> {
    let hosts = hub.registry.plain_http_flags();
    let hosts = hosts.each_ref().map(String::as_str);
    let flags = [QUICK, &[flag], &hosts[..]].concat();
    let operator = Operator::hub(name, folder, &hub.account, &flags)?;
    operator.wait_until_ready(WITHIN).await?;
    Ok(operator)
}

/// The old pod is asked to stop, and the new one leads at once.
async fn replaced(hub: &Hub, old: &Operator, new: &str) -> Result<()> {
    let began = Instant::now();
    let status = old.service().stop(Duration::from_secs(30));
    let status = status.context("it ran")?;
    ensure!(status.success(), "{status}");
    let ended = began.elapsed();
    wait_for("the new one to lead", WITHIN, async || {
        leads(&hub.kubectl, HUB, new).await
    })
    .await?;
    println!(
        "ended after {ended:?}, {new} leads {:?} after SIGTERM",
        began.elapsed()
    );
    Ok(())
}

/// What earlier rollouts lead to is written by then.
async fn settled_mark(hub: &Hub) -> Result<Mark> {
    tokio::time::sleep(CALM).await;
    hub.plane.audit().mark()
}

fn ensure_no_writes(hub: &Hub, mark: Mark) -> Result<()> {
    let writes = hub.plane.audit().writes_since(mark, ACCOUNTS)?;
    let words: Vec<String> = writes.iter().map(ToString::to_string).collect();
    ensure!(words.is_empty(), "{words:#?}");
    Ok(())
}

async fn until_ordered(hub: &Hub, mark: Mark, sites: usize) -> Result<()> {
    wait_for(&format!("{sites} orders"), WITHIN, async || {
        let given = orders(&hub.plane.audit(), mark, "clusterassignments")?.len();
        Ok(if given < sites {
            Seen::NotYet(format!("{given}"))
        } else if given < SITES {
            Seen::Done(())
        } else {
            Seen::Never("the rollout is over".to_owned())
        })
    })
    .await
}

/// The rollout ends well, each site was ordered once, one stage after the other, and then nothing is written.
async fn ordered_once(hub: &Hub, mark: Mark) -> Result<()> {
    let revision = hub.promoted("digits", SITES, WITHIN).await?;
    each_ordered_once(&hub.plane.audit(), mark, SITES, &revision)?;
    // Its revision was made once, and judged once.
    let writes = hub.plane.audit().writes_since(mark, ACCOUNTS)?;
    let of_revision =
        |it: &&rimward_e2e::audit::Event| it.resource() == "modelrevisions" && it.verb == "create";
    ensure!(writes.iter().filter(of_revision).count() == 1);
    let refused = writes.iter().find(|it| it.code() == 403);
    ensure!(refused.is_none(), "{refused:?}");
    let calm = settled_mark(hub).await?;
    tokio::time::sleep(CALM).await;
    ensure_no_writes(hub, calm)?;
    let get = ["modelrevisions", "-n", TEAM];
    let list = hub.kubectl.get_json(get).await?;
    let outcome = list["items"].as_array().into_iter().flatten();
    let outcome = outcome.filter(|it| it["metadata"]["name"] == *revision);
    ensure!(
        outcome
            .into_iter()
            .all(|it| it["status"]["outcome"] == "Promoted"),
        "{list}"
    );
    Ok(())
}
