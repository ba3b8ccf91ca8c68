//! The agent is replaced while it works: the next one stands by on the same host folder, and the folder and the listening
//! socket go from one to the other. Under load no request fails; what was begun goes on; who stands by writes nothing.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rimward_e2e::load::Report;
use rimward_e2e::ports::free_port;
use rimward_e2e::{Seen, Story, http, story, wait_for};
use rustix::process::Signal;
use serde_json::json;

use crate::handover_world::{BETTER, HANG, WITHIN, World, snapshot, stop};

const RATE_PER_SECOND: u32 = 200;
/// At this rate every failure of a gap of two seconds is kept word by word.
const SLOW_PER_SECOND: u32 = 50;
/// How long a standby is watched for writing.
const WATCHED: Duration = Duration::from_secs(3);

/// From the first failed request to the last, in words.
fn gap(report: &Report) -> String {
    let due = |place: Option<&rimward_e2e::load::Outcome>| place.map(|it| it.due);
    let (first, last) = (due(report.failures.first()), due(report.failures.last()));
    let between = last.zip(first).map(|(last, first)| last - first);
    format!(
        "{} of {} requests failed, over {:?}; slowest answer {:?} us",
        report.failed,
        report.total,
        between.unwrap_or_default(),
        report.latency_microseconds(1000)
    )
}

#[test]
fn five_upgrades_and_a_way_back_by_handover_cost_no_request() {
    story("handover-upgrades", async |story: &Story| {
        let mut world = World::settled(story, &[BETTER]).await?;
        let load = world.load(RATE_PER_SECOND)?;
        let mut longest = Duration::ZERO;
        for round in 1..=6_usize {
            longest = longest.max(world.hand_over(true).await?);
            // Whoever took over follows orders and reports.
            world.order(round + 1, round % 2, json!({"probationSeconds": 1}))?;
            world.wait(round + 1, "Committed").await?;
        }
        let report = load.stop()?;
        println!(
            "six handovers under load: {}; the longest took {longest:?}",
            gap(&report)
        );
        report.check_none_failed()?;
        ensure!(report.answered_by.len() == 7, "{:?}", report.answered_by);

        // For comparison: without an agent that stands by.
        let load = world.load(SLOW_PER_SECOND)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        stop(world.holder())?;
        world.holder().resume()?;
        world.answers(&world.device.host(), 7).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!("one restart without a standby: {}", gap(&load.stop()?));
        Ok(())
    });
}

#[test]
fn a_holder_that_is_killed_costs_only_what_it_had_in_hand() {
    story("handover-kill", async |story: &Story| {
        let mut world = World::settled(story, &[BETTER]).await?;
        let next = world.next().await?;
        let load = world.load(SLOW_PER_SECOND)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let took = world.hand_over_to(next, false).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        let report = load.stop()?;
        println!(
            "holder killed, standby had the folder in {took:?}: {}",
            gap(&report)
        );
        // One at a time on each connection; what waits in the socket is answered by the next.
        ensure!(
            report.failed <= 8,
            "{}: {:#?}",
            gap(&report),
            report.failures
        );
        world.order(2, 1, json!({"probationSeconds": 1}))?;
        world.wait(2, "Committed").await?;

        // For comparison: killed and started again.
        let load = world.load(SLOW_PER_SECOND)?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        world.holder().kill();
        world.holder().resume()?;
        world.answers(&world.device.host(), 2).await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
        println!(
            "killed and started again, no standby: {}",
            gap(&load.stop()?)
        );
        Ok(())
    });
}

#[test]
fn what_the_holder_had_begun_goes_on_under_the_next_agent() {
    story("handover-middle", async |story: &Story| {
        let mut world = World::settled(story, &[BETTER, HANG]).await?;
        let mut serves = 1;
        for (orderly, number) in [(true, 10), (false, 20)] {
            staging(&mut world, number, serves, orderly).await?;
            preflight(&mut world, number + 1, number, orderly).await?;
            trial(&mut world, number + 2, number, orderly).await?;
            serves = number + 2;
        }
        Ok(())
    });
}

/// In the middle of staging: the registry does not answer.
async fn staging(world: &mut World, number: usize, serves: usize, orderly: bool) -> Result<()> {
    world.source.registry().freeze(true);
    world.order(number, 1, json!({"probationSeconds": 1}))?;
    world.wait(number, "Staging").await?;
    world.hand_over(orderly).await?;
    world.answers(&world.device.host(), serves).await?;
    world.source.registry().freeze(false);
    world.wait(number, "Committed").await?;
    world.answers(&world.device.host(), number).await?;
    Ok(())
}

/// In the middle of a preflight, which hangs: the next agent runs it again, and it ends as it would have.
async fn preflight(world: &mut World, number: usize, serves: usize, orderly: bool) -> Result<()> {
    let next = world.next().await?;
    world.order(number, 2, json!({"probationSeconds": 1}))?;
    world.wait(number, "Preflight").await?;
    world.hand_over_to(next, orderly).await?;
    world.answers(&world.device.host(), serves).await?;
    let model = world.wait(number, "Rejected").await?;
    ensure!(
        model["servingRevision"] == format!("digits-{serves}"),
        "{model}"
    );
    Ok(())
}

/// In the middle of a trial that waits for requests: it goes on, and an orderly end counts as no start.
async fn trial(world: &mut World, number: usize, serves: usize, orderly: bool) -> Result<()> {
    let next = world.next().await?;
    let health = json!({"probationSeconds": 1, "minSamples": 30});
    world.order(number, 0, health)?;
    world.wait(number, "Trial").await?;
    let before = trial_counts(world).await?;
    world.hand_over_to(next, orderly).await?;
    let after = trial_counts(world).await?;
    let lost = u64::from(!orderly);
    ensure!(
        after == (before.0, before.1 + lost),
        "orderly {orderly}: tries left and starts lost were {before:?}, are {after:?}"
    );
    ensure!(world.record()?["good"][0]["revision"] == format!("digits-{serves}"));
    let load = world.load(SLOW_PER_SECOND)?;
    world.wait(number, "Committed").await?;
    load.stop()?.check_none_failed()
}

/// What the record says of the trial that goes on: tries left and starts lost.
async fn trial_counts(world: &World) -> Result<(u64, u64)> {
    wait_for("a trial on record", WITHIN, async || {
        let record = world.record()?;
        let trial = &record["attempt"]["stage"]["trial"];
        let counts = (trial["triesLeft"].as_u64(), trial["lost"].as_u64());
        Ok(match counts {
            (Some(tries_left), Some(lost)) => Seen::Done((tries_left, lost)),
            _ => Seen::NotYet(record.to_string()),
        })
    })
    .await
}

#[test]
fn who_stands_by_writes_nothing_and_follows_what_the_holder_commits_and_what_is_revoked() {
    story("handover-standby", async |story: &Story| {
        let mut world = World::settled(story, &[BETTER]).await?;
        // One on the holder's socket, one on a socket of its own, as in another pod.
        let shared = world.next().await?;
        let own = format!("127.0.0.1:{}", free_port()?);
        let beside = world.start_next(&[format!("--listen={own}")])?;
        beside.wait(true).await?;
        ensure!(beside.metric("rimward_agent_standby").await? == 1.0);
        world.answers(&own, 1).await?;

        // A holder that is frozen writes nothing, and holds the folder still.
        world.holder().signal(Signal::STOP);
        let before = snapshot(&world.device.data())?;
        ensure!(before.len() > 10, "{before:?}");
        let third = world.start_next(&[format!("--listen=127.0.0.1:{}", free_port()?)])?;
        third.wait(true).await?;
        tokio::time::sleep(WATCHED).await;
        world.answers(&own, 1).await?;
        stop(&third.service)?;
        shared.service.kill();
        let after = snapshot(&world.device.data())?;
        for (path, found) in &after {
            ensure!(before.get(path) == Some(found), "{path} is now {}", found.0);
        }
        ensure!(before.len() == after.len(), "something is gone");
        world.holder().signal(Signal::CONT);

        world.order(2, 1, json!({"probationSeconds": 1}))?;
        world.wait(2, "Committed").await?;
        let took = world.answers(&own, 2).await?;
        println!("a standby answered with what the holder had committed within {took:?}");
        ensure!(took < Duration::from_secs(20), "{took:?}");
        revoke(&world, 1)?;
        world.answers(&own, 1).await?;
        world.answers(&world.device.host(), 1).await?;
        Ok(())
    });
}

/// Revokes a package by the device's trust file.
fn revoke(world: &World, package: usize) -> Result<()> {
    let trust = world.source.trust();
    let digest = world.packages[package].digest();
    let text = std::fs::read_to_string(trust)?;
    Ok(std::fs::write(
        trust,
        format!("{text}revokedDigests: [\"{digest}\"]\n"),
    )?)
}

#[test]
fn an_agent_that_is_told_to_leave_is_not_ready_at_once_and_serves_on_for_as_long_as_it_was_told() {
    story("handover-drain", async |story: &Story| {
        let mut world = World::settled(story, &[]).await?;
        let drain = Duration::from_secs(4);
        let next = world.start_next(&[format!("--drain-seconds={}", drain.as_secs())])?;
        next.wait(true).await?;
        world.hand_over_to(next, true).await?;
        let holder = world.holder.as_ref().context("a holder")?;
        let load = world.load(SLOW_PER_SECOND)?;
        tokio::time::sleep(Duration::from_secs(1)).await;

        let told = Instant::now();
        holder.service.signal(Signal::TERM);
        wait_for(
            "the protocol to say that it is not ready, and the probe that it still answers",
            drain / 2,
            async || {
                let (code, words) = holder.readiness().await?;
                let url = format!("http://{}/v2/health/ready", world.device.host());
                let protocol = http::client()?.get(url).send().await?.status().as_u16();
                Ok(
                    if (code, protocol) == (200, 503) && words.contains("draining") {
                        Seen::Done(())
                    } else {
                        Seen::NotYet(format!("{code} {words} {protocol}"))
                    },
                )
            },
        )
        .await?;
        tokio::time::sleep(drain.saturating_sub(told.elapsed() + Duration::from_millis(500))).await;
        let report = load.stop()?;
        report.check_none_failed()?;
        let ended = holder.service.stop(WITHIN).context("it ended early")?;
        ensure!(
            told.elapsed() >= drain - Duration::from_millis(500),
            "{:?}",
            told.elapsed()
        );
        // `stop` was the second signal.
        ensure!(ended.success(), "{ended}");
        ensure!(
            told.elapsed() < drain + Duration::from_secs(6),
            "{:?}",
            told.elapsed()
        );
        Ok(())
    });
}
