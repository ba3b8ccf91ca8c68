//! A node agent by itself: no Kubernetes, a folder of manifests, a real registry, real signatures.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::command::Line;
use rimward_e2e::device::{Device, Package, Source, Wanted};
use rimward_e2e::digits::{self, repository};
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::registry::{Kind, Registry};
use rimward_e2e::tamper::{Wrong, tamper};
use rimward_e2e::{Seen, Story, story, wait_for};
use serde_json::{Value, json};

const WITHIN: Duration = Duration::from_secs(90);

/// A device, and where it pulls from.
struct Alone {
    source: Source,
    device: Device,
}

impl Alone {
    async fn start(story: &Story, kind: Kind) -> Result<Self> {
        let registry = Registry::start(kind, &story.scratch().folder("registry")?).await?;
        let source = Source::of(registry, story.scratch()).await?;
        let device = Device::start("alone", story.scratch().folder("device")?, &source)?;
        Ok(Self { source, device })
    }

    /// A device that runs the good release as `digits-1` (or so), beside further signed releases.
    async fn settled(story: &Story, revision: &str, more: &[&str]) -> Result<(Self, Vec<Package>)> {
        let alone = Self::start(story, Kind::Referrers).await?;
        let mut packages = Vec::new();
        for (index, folder) in [GOOD].iter().chain(more).enumerate() {
            packages.push(alone.signed(folder, &format!("release-{index}")).await?);
        }
        alone.order(revision, &packages[0])?;
        alone.wait(revision, "Committed").await?;
        Ok((alone, packages))
    }

    async fn signed(&self, folder: &str, tag: &str) -> Result<Package> {
        self.source.release(folder, "digits", tag).await
    }

    fn order(&self, revision: &str, package: &Package) -> Result<()> {
        self.order_with(revision, package, json!({"probationSeconds": 1}))
    }

    fn order_with(&self, revision: &str, package: &Package, health: Value) -> Result<()> {
        self.device.order(&[Wanted {
            name: "digits",
            revision,
            package,
            health,
        }])
    }

    async fn wait(&self, revision: &str, state: &str) -> Result<Value> {
        self.device.wait("digits", revision, state).await
    }

    /// kill -9 of the agent, and its next start.
    fn restart(&self) -> Result<()> {
        self.device.agent.kill();
        self.device.agent.resume()
    }

    /// Waits until the status tells a problem with the trust file, or none; gives its words.
    async fn trust_problem(&self, expected: bool) -> Result<String> {
        let what = format!("a problem with the trust file: {expected}");
        wait_for(&what, WITHIN, async || {
            let report = self.device.report()?;
            let problem = report["trust"]["problem"].as_str();
            Ok(if problem.is_some() == expected {
                Seen::Done(problem.unwrap_or_default().to_owned())
            } else {
                Seen::NotYet(report.to_string())
            })
        })
        .await
    }

    fn url(&self) -> String {
        format!("http://{}/v2/models/digits/infer", self.device.host())
    }

    /// Which version answers now, waiting until one does.
    async fn answering(&self) -> Result<String> {
        let body = request()?;
        wait_for("an answer", WITHIN, async || {
            let client = rimward_e2e::http::client()?;
            let sent = client.post(self.url()).body(body.clone()).send().await?;
            if !sent.status().is_success() {
                return Ok(Seen::NotYet(format!("{}", sent.status())));
            }
            let answer: Value = serde_json::from_slice(&sent.bytes().await?)?;
            let version = answer["model_version"].as_str().unwrap_or_default();
            Ok(Seen::Done(version.to_owned()))
        })
        .await
    }

    /// What a camera would send all the time.
    fn load(&self, bodies: Vec<bytes::Bytes>) -> Result<Load> {
        Load::start(Plan {
            url: self.url(),
            bodies,
            rate_per_second: 50,
            connections: 8,
            timeout: Duration::from_secs(20),
            judge: any_inference,
        })
    }
}

fn request() -> Result<Vec<u8>> {
    let path = repository().join("examples/data/digit-request.json");
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

/// Every held-out digit as a request of its own.
fn every_digit() -> Result<Vec<bytes::Bytes>> {
    let held_out = digits::held_out()?;
    let requests = held_out
        .iter()
        .map(|digit| digits::request(digit).to_string().into());
    Ok(requests.collect())
}

const GOOD: &str = "examples/packages/digits-1.0.0";
const BETTER: &str = "examples/packages/digits-1.1.0";
const FLAKY: &str = "wasm-models/fixtures/flaky";
const WRONG: &str = "wasm-models/fixtures/wrong";
/// Right by its golden vectors; takes other tensors than the digits' clients send.
const RAW: &str = "wasm-models/fixtures/passthrough";

#[test]
fn a_wrong_model_is_refused_in_the_devices_words_while_the_good_one_serves() {
    story("agent-wrong", async |story: &Story| {
        let (alone, packages) = Alone::settled(story, "digits-1", &[WRONG]).await?;
        let model = alone.device.status("digits")?;
        ensure!(model["servingRevision"] == "digits-1", "{model}");
        alone.order("digits-2", &packages[1])?;
        let model = alone.wait("digits-2", "Rejected").await?;
        let message = model["message"].as_str().unwrap_or_default();
        ensure!(model["reason"] == "GoldenVectorMismatch", "{model}");
        ensure!(message.starts_with("golden vector "), "{model}");
        ensure!(
            message.contains("expected") && message.contains("got"),
            "{model}"
        );
        ensure!(model["lastGoodRevision"] == "digits-1", "{model}");
        ensure!(alone.answering().await? == "digits-1");

        alone.restart()?;
        ensure!(alone.answering().await? == "digits-1");
        alone.wait("digits-2", "Rejected").await?;
        Ok(())
    });
}

#[test]
fn a_package_over_the_limits_or_at_odds_with_its_golden_vectors_is_refused_by_name() {
    story("agent-packages", async |story: &Story| {
        let (alone, _) = Alone::settled(story, "digits-1", &[]).await?;
        let registry = alone.source.registry();
        for (wrong, reason, words) in [
            (
                Wrong::TooLarge,
                "PackageTooLarge",
                ["size: declares 9663676416 bytes", "at most 8589934592"],
            ),
            (
                Wrong::OtherShape,
                "GoldenVectorsInvalid",
                ["vectors[0].inputs[0].shape", "declares [-1, 16, 16]"],
            ),
        ] {
            let package = tamper(registry, "models/digits", "release-0", wrong).await?;
            alone.source.sign(&package).await?;
            let revision = format!("digits-{wrong:?}").to_lowercase();
            alone.order(&revision, &package)?;
            let model = alone.wait(&revision, "Rejected").await?;
            ensure!(model["reason"] == reason, "{model}");
            let message = model["message"].as_str().unwrap_or_default();
            for word in words {
                ensure!(message.contains(word), "{word:?}: {model}");
            }
            ensure!(model["servingRevision"] == "digits-1", "{model}");
            ensure!(alone.answering().await? == "digits-1");
        }
        Ok(())
    });
}

#[test]
fn a_package_signed_after_it_was_ordered_gets_installed() {
    story("agent-unsigned", async |story: &Story| {
        let alone = Alone::start(story, Kind::TagScheme).await?;
        let package = alone.source.push(GOOD, "digits", "good").await?;
        alone.order("digits-1", &package)?;
        let model = alone.wait("digits-1", "Blocked").await?;
        ensure!(model["reason"] == "SignatureMissing", "{model}");
        alone.source.sign(&package).await?;
        alone.wait("digits-1", "Committed").await?;
        ensure!(alone.answering().await? == "digits-1");
        Ok(())
    });
}

#[test]
fn a_device_that_starts_without_network_serves_what_it_committed() {
    story("agent-offline", async |story: &Story| {
        let (alone, _) = Alone::settled(story, "digits-1", &[]).await?;
        alone.source.registry().stop();
        alone.restart()?;
        ensure!(alone.answering().await? == "digits-1");
        let repository = format!("{}/models/digits", alone.source.registry().host());
        let absent = Package::new(&repository, &format!("sha256:{}", "0".repeat(64)));
        alone.order_with("digits-2", &absent, json!({}))?;
        alone.wait("digits-2", "Blocked").await?;
        ensure!(alone.answering().await? == "digits-1");
        Ok(())
    });
}

#[test]
fn killed_at_any_moment_of_a_change_the_agent_ends_where_it_was_going() {
    story("agent-killed", async |story: &Story| {
        let (alone, packages) = Alone::settled(story, "digits-0", &[BETTER]).await?;
        // Staging, preflight, loading, trial and commit all lie within the first three seconds.
        for round in 1..=10_u64 {
            let revision = format!("digits-{round}");
            alone.order(&revision, &packages[usize::try_from(round % 2)?])?;
            tokio::time::sleep(Duration::from_millis(round * 300)).await;
            alone.restart()?;
            let answering = alone.answering().await?;
            let before = format!("digits-{}", round - 1);
            ensure!(answering == revision || answering == before, "{answering}");
            alone.wait(&revision, "Committed").await?;
            ensure!(alone.answering().await? == revision);
        }
        Ok(())
    });
}

#[test]
fn swaps_and_replaced_hosts_under_load_lose_no_request() {
    story("agent-swaps", async |story: &Story| {
        let (alone, packages) = Alone::settled(story, "digits-0", &[BETTER]).await?;
        alone.answering().await?;
        let load = alone.load(vec![request()?.into()])?;
        for round in 1..=4_usize {
            // A planned replacement of the host, in the middle of it all.
            let agent = alone.device.agent.id().context("the agent does not run")?;
            Line::new(Path::new("/bin/kill"))
                .args(["-HUP", &agent.to_string()])
                .run()
                .await?;
            let revision = format!("digits-{round}");
            alone.order(&revision, &packages[round % 2])?;
            alone.wait(&revision, "Committed").await?;
        }
        let report = load.stop()?;
        report.check_none_failed()?;
        ensure!(report.answered_by.len() >= 4, "{:?}", report.answered_by);
        Ok(())
    });
}

#[test]
fn a_flaky_model_is_rolled_back_in_trial_and_costs_no_answer() {
    story("agent-flaky", async |story: &Story| {
        let (alone, packages) = Alone::settled(story, "digits-1", &[FLAKY]).await?;
        alone.answering().await?;
        // A flaky model fails only some of them.
        let load = alone.load(every_digit()?)?;
        let health = json!({"probationSeconds": 60, "minSamples": 50, "maxErrorPermille": 50});
        alone.order_with("digits-2", &packages[1], health)?;
        let model = alone.wait("digits-2", "RolledBack").await?;
        ensure!(model["reason"] == "TooManyErrors", "{model}");
        ensure!(model["verdict"]["errors"].as_i64() > Some(0), "{model}");
        ensure!(alone.answering().await? == "digits-1");
        let report = load.stop()?;
        report.check_none_failed()?;
        ensure!(report.answered_by.len() == 2, "{:?}", report.answered_by);
        Ok(())
    });
}

#[test]
fn a_model_that_refuses_what_its_clients_send_is_rolled_back_and_costs_no_answer() {
    story("agent-refusing", async |story: &Story| {
        let (alone, packages) = Alone::settled(story, "digits-1", &[RAW]).await?;
        alone.answering().await?;
        let load = alone.load(every_digit()?)?;
        let health = json!({"probationSeconds": 60, "minSamples": 50, "maxErrorPermille": 50});
        alone.order_with("digits-2", &packages[1], health)?;
        let model = alone.wait("digits-2", "RolledBack").await?;
        ensure!(model["reason"] == "TooManyErrors", "{model}");
        ensure!(alone.answering().await? == "digits-1");
        let report = load.stop()?;
        report.check_none_failed()?;
        ensure!(report.answered_by.len() == 1, "{:?}", report.answered_by);
        Ok(())
    });
}

#[test]
fn a_broken_trust_file_stops_what_is_new_and_nothing_that_serves() {
    story("agent-trust", async |story: &Story| {
        let (alone, packages) = Alone::settled(story, "digits-1", &[BETTER]).await?;
        let trust = alone.source.trust();
        let good = std::fs::read_to_string(trust)?;
        std::fs::write(trust, good.replace("authorities:", "authoritys:"))?;
        let words = alone.trust_problem(true).await?;
        ensure!(words.contains("trust.yaml"), "{words}");
        ensure!(words.contains("authoritys"), "{words}");
        ensure!(alone.answering().await? == "digits-1");

        alone.order("digits-2", &packages[1])?;
        let model = alone.wait("digits-2", "Blocked").await?;
        ensure!(model["reason"] == "TrustUnreadable", "{model}");
        ensure!(model["servingRevision"] == "digits-1", "{model}");
        ensure!(alone.answering().await? == "digits-1");

        std::fs::write(trust, good)?;
        alone.wait("digits-2", "Committed").await?;
        alone.trust_problem(false).await?;
        ensure!(alone.answering().await? == "digits-2");
        Ok(())
    });
}
