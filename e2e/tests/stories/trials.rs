//! Whom a trial blames, on a real device: not the candidate for a time limit that it keeps, for requests that nobody
//! can answer, or for an ignition that is switched off.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rimward_e2e::device::{Device, Package, Source, Wanted};
use rimward_e2e::digits;
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::{Value, json};

const GOOD: &str = "examples/packages/digits-1.0.0";
const TRAP: &str = "wasm-models/fixtures/trap";

const WITHIN: Duration = Duration::from_secs(90);
/// A batch of so many images takes a tenth of a second or more.
const IMAGES: usize = 1_500;

/// A device, and one package of which every revision here is made.
struct Bench {
    device: Device,
    package: Package,
    _source: Source,
}

impl Bench {
    async fn start(story: &Story, folder: &str) -> Result<Self> {
        let source = Source::start(story.scratch()).await?;
        let device = Device::start("alone", story.scratch().folder("device")?, &source)?;
        let package = source.release(folder, "digits", "release").await?;
        Ok(Self {
            device,
            package,
            _source: source,
        })
    }

    fn order(&self, revision: &str, health: Value, runtime: Value) -> Result<()> {
        let wanted = Wanted {
            name: "digits",
            revision,
            package: &self.package,
            health,
        };
        let mut entry = wanted.entry();
        entry["runtime"] = runtime;
        self.device.order_entries(vec![entry])
    }

    async fn wait(&self, revision: &str, state: &str) -> Result<Value> {
        self.device.wait("digits", revision, state).await
    }

    /// Sends one request; gives its status and who answered.
    async fn ask(&self, body: &Value) -> Result<(u16, String)> {
        let client = rimward_e2e::http::client()?;
        let url = format!("http://{}/v2/models/digits/infer", self.device.host());
        let answer = client.post(url).body(body.to_string()).send().await?;
        let by = answer.headers().get("rimward-model-version");
        let by = by.and_then(|it| it.to_str().ok()).unwrap_or_default();
        Ok((answer.status().as_u16(), by.to_owned()))
    }

    /// kill -9 of the agent, which its host does not outlive, and the next start: what a device sees of an ignition.
    fn ignition(&self) -> Result<()> {
        self.device.agent.kill();
        self.device.agent.resume()
    }

    /// Waits until this revision answers.
    async fn answers(&self, revision: &str, body: &Value) -> Result<()> {
        wait_for(&format!("{revision} to answer"), WITHIN, async || {
            Ok(match self.ask(body).await {
                Ok((200, by)) if by == revision => Seen::Done(()),
                other => Seen::NotYet(format!("{other:?}")),
            })
        })
        .await
    }

    /// Waits until the device says that the candidate is still on trial, for want of requests.
    async fn waits_for_samples(&self, revision: &str) -> Result<()> {
        let what = format!("{revision} to wait for requests");
        wait_for(&what, WITHIN, async || {
            let model = self.device.status("digits")?;
            let waits = model["revision"] == revision
                && model["state"] == "Trial"
                && model["reason"] == "TooFewSamples";
            Ok(if waits {
                Seen::Done(())
            } else {
                Seen::NotYet(model.to_string())
            })
        })
        .await
    }

    /// Waits until the candidate of that name has the traffic.
    async fn is_in_trial(&self, revision: &str) -> Result<()> {
        let path = format!(
            "http://{}/v2/models/digits/versions/{revision}",
            self.device.host()
        );
        let client = rimward_e2e::http::client()?;
        wait_for(
            &format!("{revision} to be loaded"),
            WITHIN,
            async || match client.get(&path).send().await {
                Ok(answer) if answer.status().is_success() => Ok(Seen::Done(())),
                other => {
                    let model = self.device.status("digits").unwrap_or_default();
                    ensure!(model["state"] != "RolledBack", "{model}");
                    Ok(Seen::NotYet(format!("{other:?}, {model}")))
                }
            },
        )
        .await
    }
}

#[test]
fn a_candidate_that_needs_two_thirds_of_its_time_limit_is_committed() {
    story("trial-limit", async |story: &Story| {
        let bench = Bench::start(story, GOOD).await?;
        let image: Vec<usize> = (0..IMAGES * 64).map(|pixel| pixel * 7 % 17).collect();
        let batch = json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [IMAGES, 8, 8], "data": image}]});
        let runtime = |milliseconds: u64| json!({"concurrency": 1, "memory": "512Mi", "timeoutMilliseconds": milliseconds});
        bench.order("digits-1", json!({"probationSeconds": 1}), runtime(600_000))?;
        bench.wait("digits-1", "Committed").await?;
        bench.answers("digits-1", &batch).await?;
        let mut took = Vec::new();
        for _ in 0..7 {
            let began = Instant::now();
            ensure!(bench.ask(&batch).await?.0 == 200);
            took.push(began.elapsed());
        }
        took.sort();
        let limit = u64::try_from(took[took.len() / 2].as_millis())? * 3 / 2;
        bench.order("digits-2", json!({"probationSeconds": 1}), runtime(limit))?;
        bench.wait("digits-2", "Committed").await?;

        // The same once more, on real requests. A machine that is busy makes some late; halved, the limit would
        // make all of them late.
        let health = json!({"probationSeconds": 3, "minSamples": 15, "maxErrorPermille": 400});
        bench.order("digits-3", health, runtime(limit))?;
        let mut by_candidate = 0;
        wait_for("digits-3 to be committed", WITHIN, async || {
            let (_, by) = bench.ask(&batch).await?;
            by_candidate += u32::from(by == "digits-3");
            let model = bench.device.status("digits")?;
            ensure!(model["state"] != "RolledBack", "limit {limit} ms: {model}");
            let done = model["revision"] == "digits-3" && model["state"] == "Committed";
            Ok(if done {
                Seen::Done(())
            } else {
                Seen::NotYet(model.to_string())
            })
        })
        .await?;
        ensure!(by_candidate > 5, "{by_candidate} answers by the candidate");
        Ok(())
    });
}

#[test]
fn a_poison_request_that_both_versions_fail_condemns_nobody() {
    story("trial-poison", async |story: &Story| {
        let bench = Bench::start(story, TRAP).await?;
        let some = json!({"config": {"trigger": "some"}});
        bench.order("digits-1", json!({"probationSeconds": 1}), some.clone())?;
        bench.wait("digits-1", "Committed").await?;
        let health = json!({"probationSeconds": 2, "minSamples": 50, "maxErrorPermille": 10});
        bench.order("digits-2", health, some)?;
        let held_out = digits::held_out()?;
        let (mut poison, mut requests) = (0, held_out.iter().cycle());
        let model = wait_for("a verdict", WITHIN, async || {
            let digit = requests.next().context("no digits")?;
            poison += u32::from(bench.ask(&digits::request(digit)).await?.0 == 500);
            let model = bench.device.status("digits")?;
            let is_over = matches!(model["state"].as_str(), Some("Committed" | "RolledBack"));
            Ok(if model["revision"] == "digits-2" && is_over {
                Seen::Done(model)
            } else {
                Seen::NotYet(model.to_string())
            })
        })
        .await?;
        ensure!(model["state"] == "Committed", "{model}");
        ensure!(model["verdict"]["errors"] == 0, "{model}");
        ensure!(poison > 1, "{poison} requests were poison");
        Ok(())
    });
}

#[test]
fn ten_ignitions_in_a_trial_lose_neither_the_release_nor_its_samples() {
    story("trial-ignition", async |story: &Story| {
        let bench = Bench::start(story, GOOD).await?;
        bench.order("digits-1", json!({"probationSeconds": 1}), json!({}))?;
        bench.wait("digits-1", "Committed").await?;
        let body = digits::request(&digits::held_out()?[0]);
        let health = json!({"probationSeconds": 1, "minSamples": 40, "maxErrorPermille": 10});
        bench.order("digits-2", health, json!({}))?;
        for ignition in 0..10 {
            bench.is_in_trial("digits-2").await?;
            // Some drives are over before there is anything to look at.
            if ignition % 2 == 0 {
                bench.answers("digits-2", &body).await?;
                tokio::time::sleep(Duration::from_millis(1_800)).await;
            }
            // Its probation is long over: what it waits for is said, up to the last drive.
            if ignition == 8 {
                bench.waits_for_samples("digits-2").await?;
            }
            if ignition == 9 {
                let model = bench.wait("digits-2", "Trial").await?;
                ensure!(model["servingRevision"] == "digits-2", "{model}");
            }
            bench.ignition()?;
        }
        bench.is_in_trial("digits-2").await?;
        bench.waits_for_samples("digits-2").await?;
        // Not enough by themselves: what the drives before showed counts too.
        for _ in 0..37 {
            bench.ask(&body).await?;
        }
        let model = bench.wait("digits-2", "Committed").await?;
        ensure!(model["verdict"]["samples"].as_i64() >= Some(40), "{model}");
        Ok(())
    });
}

#[test]
fn a_candidate_with_which_the_device_goes_down_at_each_start_is_rolled_back() {
    story("trial-boot-loop", async |story: &Story| {
        let bench = Bench::start(story, GOOD).await?;
        bench.order("digits-1", json!({"probationSeconds": 1}), json!({}))?;
        bench.wait("digits-1", "Committed").await?;
        let health = json!({"probationSeconds": 1, "minSamples": 40});
        bench.order("digits-2", health, json!({}))?;
        for _ in 0..12 {
            bench.is_in_trial("digits-2").await?;
            bench.ignition()?;
        }
        let model = bench.wait("digits-2", "RolledBack").await?;
        ensure!(model["reason"] == "StartsUsedUp", "{model}");
        let body = digits::request(&digits::held_out()?[0]);
        bench.answers("digits-1", &body).await
    });
}
