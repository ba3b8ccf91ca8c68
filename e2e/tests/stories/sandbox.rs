//! Modules that misbehave on a real device: in preflight, in trial, and when their supervisor is killed.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::device::{Device, Package, Source, Wanted};
use rimward_e2e::digits;
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::{Value, json};

const GOOD: &str = "examples/packages/digits-1.0.0";
const TRAP: &str = "wasm-models/fixtures/trap";
const HANG: &str = "wasm-models/fixtures/hang";
const GREEDY: &str = "wasm-models/fixtures/greedy";

const WITHIN: Duration = Duration::from_secs(60);

/// A device that serves the good release as `digits-1`.
async fn serving(story: &Story) -> Result<(Source, Device)> {
    let source = Source::start(story.scratch()).await?;
    let device = Device::start("alone", story.scratch().folder("device")?, &source)?;
    let good = source.release(GOOD, "digits", "good").await?;
    device.order_entries(vec![entry("digits-1", &good, &json!({}), &json!({}))])?;
    device.wait("digits", "digits-1", "Committed").await?;
    Ok((source, device))
}

fn entry(revision: &str, package: &Package, config: &Value, runtime: &Value) -> Value {
    let wanted = Wanted {
        name: "digits",
        revision,
        package,
        health: match revision {
            "digits-1" => json!({"probationSeconds": 1}),
            _ => json!({"probationSeconds": 60, "minSamples": 20, "maxErrorPermille": 50}),
        },
    };
    let mut entry = wanted.entry();
    entry["runtime"] = runtime.clone();
    entry["runtime"]["config"] = config.clone();
    entry
}

#[test]
fn a_module_that_misbehaves_is_refused_in_preflight_or_rolled_back_in_trial_and_costs_no_answer() {
    story("sandbox", async |story: &Story| {
        let (source, device) = serving(story).await?;
        let trap = source.release(TRAP, "digits", "trap").await?;
        let hang = source.release(HANG, "digits", "hang").await?;
        let greedy = source.release(GREEDY, "digits", "greedy").await?;
        let held_out = digits::held_out()?;
        let bodies = held_out
            .iter()
            .map(|digit| digits::request(digit).to_string().into());
        let load = Load::start(Plan {
            url: format!("http://{}/v2/models/digits/infer", device.host()),
            bodies: bodies.collect(),
            rate_per_second: 20,
            connections: 8,
            timeout: Duration::from_secs(20),
            judge: any_inference,
        })?;
        let runtime = json!({"timeoutMilliseconds": 2_000});

        // On every request: preflight sees it.
        for (revision, package, reason) in [
            ("trap-1", &trap, "GuestTrapped"),
            ("hang-1", &hang, "TimedOut"),
            ("greedy-1", &greedy, "MemoryExceeded"),
        ] {
            device.order_entries(vec![entry(revision, package, &json!({}), &runtime)])?;
            let model = device.wait("digits", revision, "Rejected").await?;
            ensure!(model["reason"] == reason, "{model}");
            ensure!(model["lastGoodRevision"] == "digits-1", "{model}");
        }

        // On some real requests only: the trial does.
        for (revision, package, config) in [
            ("trap-2", &trap, json!({"trigger": "some"})),
            ("hang-2", &hang, json!({"trigger": "some"})),
            ("hang-3", &hang, json!({"trigger": "some", "in": "host"})),
            ("greedy-2", &greedy, json!({"trigger": "some"})),
            (
                "greedy-3",
                &greedy,
                json!({"trigger": "some", "of": "host"}),
            ),
        ] {
            device.order_entries(vec![entry(revision, package, &config, &runtime)])?;
            let model = device.wait("digits", revision, "RolledBack").await?;
            ensure!(model["reason"] == "TooManyErrors", "{model}");
            ensure!(model["servingRevision"] == "digits-1", "{model}");
        }

        let report = load.stop()?;
        report.check_none_failed()?;
        // What a candidate did not fail, it answered itself.
        ensure!(report.answered_by.len() > 1, "{:?}", report.answered_by);
        Ok(())
    });
}

/// Processes that have this one as their parent: id and command line.
fn children(parent: u32) -> Result<Vec<(u32, String)>> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir("/proc").context("/proc")?.flatten() {
        let name = entry.file_name();
        let Some(id) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        // Gone between the two looks: no child.
        let (Ok(stat), Ok(line)) = (
            std::fs::read_to_string(entry.path().join("stat")),
            std::fs::read_to_string(entry.path().join("cmdline")),
        ) else {
            continue;
        };
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        if after_name.split(' ').nth(1) == Some(parent.to_string().as_str()) {
            children.push((id, line.replace('\0', " ")));
        }
    }
    Ok(children)
}

/// A process that is dead counts as gone, whether or not anybody has taken note of it.
fn is_gone(process: u32) -> bool {
    let stat = std::fs::read_to_string(Path::new("/proc").join(process.to_string()).join("stat"));
    stat.map_or(true, |stat| stat.contains(") Z "))
}

#[test]
fn a_supervisor_that_is_killed_takes_its_host_and_its_preflight_with_it() {
    story("orphans", async |story: &Story| {
        let (source, device) = serving(story).await?;
        let hang = source.release(HANG, "digits", "hang").await?;
        // A preflight that would go on for minutes.
        let runtime = json!({"timeoutMilliseconds": 600_000});
        device.order_entries(vec![entry("hang-1", &hang, &json!({}), &runtime)])?;
        let agent = device.agent.id().context("the agent does not run")?;
        let both = wait_for("host and preflight", WITHIN, async || {
            let children = children(agent)?;
            let is_there = |what: &str| children.iter().any(|(_, line)| line.contains(what));
            Ok(if is_there(" host") && is_there(" preflight") {
                Seen::Done(children)
            } else {
                Seen::NotYet(format!("{children:?}"))
            })
        })
        .await?;
        device.agent.kill();
        wait_for("the children to be gone", WITHIN, async || {
            let left: Vec<_> = both.iter().filter(|(id, _)| !is_gone(*id)).collect();
            Ok(if left.is_empty() {
                Seen::Done(())
            } else {
                Seen::NotYet(format!("{left:?}"))
            })
        })
        .await
    });
}
