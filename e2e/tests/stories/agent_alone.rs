//! A node agent by itself: no Kubernetes, a folder of manifests, a real registry, real signatures.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rimward_e2e::command::Line;
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::ports::free_port;
use rimward_e2e::registry::{Kind, Registry};
use rimward_e2e::rimward;
use rimward_e2e::service::Service;
use rimward_e2e::{Cosign, Seen, Story, story, wait_for};
use serde_json::Value;

const WITHIN: Duration = Duration::from_secs(90);

/// An agent on a device of its own, with the registry that it pulls from.
struct Device {
    folder: PathBuf,
    registry: Registry,
    cosign: Cosign,
    agent: Service,
    port: u16,
}

fn repository() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

impl Device {
    async fn start(story: &Story, kind: Kind) -> Result<Self> {
        let folder = story.scratch().folder("device")?;
        let registry = Registry::start(kind, &story.scratch().folder("registry")?).await?;
        let cosign = Cosign::generate(&story.scratch().folder("keys")?).await?;
        let pem = std::fs::read_to_string(cosign.public_key())?;
        let pem: String = pem.lines().map(|line| format!("      {line}\n")).collect();
        let trust = format!(
            "apiVersion: rimward.dev/v1alpha1\nkind: TrustFile\nauthorities:\n- name: acme\n  \
             repositories: [\"{}/models/**\"]\n  keys:\n  - name: ci\n    pem: |\n{pem}",
            registry.host()
        );
        std::fs::write(folder.join("trust.yaml"), trust)?;
        std::fs::create_dir_all(folder.join("manifests"))?;
        let port = free_port()?;
        let path = |name: &str| folder.join(name).display().to_string();
        let arguments = [
            "--node-name=alone".to_owned(),
            format!("--data-dir={}", path("data")),
            format!("--trust={}", path("trust.yaml")),
            format!("--manifests={}", path("manifests")),
            format!("--listen=127.0.0.1:{port}"),
        ];
        let agent = rimward::agent("alone", &story.scratch().folder("agent")?, &arguments)?;
        Ok(Self {
            folder,
            registry,
            cosign,
            agent,
            port,
        })
    }

    /// Packages a folder of the repository and pushes it; gives its digest.
    async fn push(&self, package: &str, tag: &str) -> Result<String> {
        let target = format!("{}/models/digits:{tag}", self.registry.host());
        let folder = repository().join(package).display().to_string();
        let said = Line::new(&rimward::binary("kubectl-rimward")?)
            .args(["package", &folder, "--push", &target])
            .run()
            .await?;
        let at = said
            .find("sha256:")
            .context("no digest in what package says")?;
        Ok(said[at..].chars().take(71).collect())
    }

    async fn sign(&self, digest: &str) -> Result<()> {
        let reference = format!("{}/models/digits@{digest}", self.registry.host());
        self.cosign.sign(&reference).await
    }

    async fn signed(&self, package: &str, tag: &str) -> Result<String> {
        let digest = self.push(package, tag).await?;
        self.sign(&digest).await?;
        Ok(digest)
    }

    /// Orders a revision as a person would: by replacing a file.
    fn order(&self, revision: &str, digest: &str, health: &str) -> Result<()> {
        let text = format!(
            "apiVersion: rimward.dev/v1alpha1\nkind: EdgeNode\nmetadata: {{name: alone}}\nspec:\n  \
             models:\n  - namespace: shop\n    name: digits\n    endpointName: digits\n    \
             revision: {revision}\n    package: {{repository: {}/models/digits, digest: \
             \"{digest}\"}}\n    health: {{{health}}}\n",
            self.registry.host()
        );
        let manifests = self.folder.join("manifests");
        std::fs::write(manifests.join(".next"), text)?;
        Ok(std::fs::rename(
            manifests.join(".next"),
            manifests.join("node.yaml"),
        )?)
    }

    /// Waits until the deployment stands so with that revision; gives its status.
    async fn wait(&self, revision: &str, state: &str) -> Result<Value> {
        let path = self.folder.join("data/status.yaml");
        let what = format!("{revision} to be {state}");
        wait_for(&what, WITHIN, async || {
            let text = std::fs::read_to_string(&path)?;
            let status: Value = serde_yaml::from_str(&text)?;
            let model = status["models"][0].clone();
            Ok(
                if model["revision"] == revision && model["state"] == state {
                    Seen::Done(model)
                } else {
                    Seen::NotYet(text)
                },
            )
        })
        .await
    }

    /// Waits until the status tells a problem with the trust file, or none; gives its words.
    async fn trust_problem(&self, expected: bool) -> Result<String> {
        let path = self.folder.join("data/status.yaml");
        let what = format!("a problem with the trust file: {expected}");
        wait_for(&what, WITHIN, async || {
            let text = std::fs::read_to_string(&path)?;
            let status: Value = serde_yaml::from_str(&text)?;
            let problem = status["trust"]["problem"].as_str();
            Ok(if problem.is_some() == expected {
                Seen::Done(problem.unwrap_or_default().to_owned())
            } else {
                Seen::NotYet(text)
            })
        })
        .await
    }

    fn url(&self) -> String {
        format!("http://127.0.0.1:{}/v2/models/digits/infer", self.port)
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
}

fn request() -> Result<Vec<u8>> {
    let path = repository().join("examples/data/digit-request.json");
    std::fs::read(&path).with_context(|| format!("cannot read {}", path.display()))
}

const GOOD: &str = "examples/packages/digits-1.0.0";
const BETTER: &str = "examples/packages/digits-1.1.0";
const FLAKY: &str = "wasm-models/fixtures/flaky";
const WRONG: &str = "wasm-models/fixtures/wrong";

#[test]
fn a_wrong_model_is_refused_in_the_devices_words_while_the_good_one_serves() {
    story("agent-wrong", async |story: &Story| {
        let device = Device::start(story, Kind::Referrers).await?;
        let good = device.signed(GOOD, "good").await?;
        device.order("digits-1", &good, "probationSeconds: 1")?;
        let model = device.wait("digits-1", "Committed").await?;
        ensure!(model["servingRevision"] == "digits-1", "{model}");
        let wrong = device.signed(WRONG, "wrong").await?;
        device.order("digits-2", &wrong, "probationSeconds: 1")?;
        let model = device.wait("digits-2", "Rejected").await?;
        let message = model["message"].as_str().unwrap_or_default();
        ensure!(model["reason"] == "GoldenVectorMismatch", "{model}");
        ensure!(message.starts_with("golden vector "), "{model}");
        ensure!(
            message.contains("expected") && message.contains("got"),
            "{model}"
        );
        ensure!(model["lastGoodRevision"] == "digits-1", "{model}");
        ensure!(device.answering().await? == "digits-1");

        device.agent.kill();
        device.agent.resume()?;
        ensure!(device.answering().await? == "digits-1");
        device.wait("digits-2", "Rejected").await?;
        Ok(())
    });
}

#[test]
fn a_package_signed_after_it_was_ordered_gets_installed() {
    story("agent-unsigned", async |story: &Story| {
        let device = Device::start(story, Kind::TagScheme).await?;
        let good = device.push(GOOD, "good").await?;
        device.order("digits-1", &good, "probationSeconds: 1")?;
        let model = device.wait("digits-1", "Blocked").await?;
        ensure!(model["reason"] == "SignatureMissing", "{model}");
        device.sign(&good).await?;
        device.wait("digits-1", "Committed").await?;
        ensure!(device.answering().await? == "digits-1");
        Ok(())
    });
}

#[test]
fn a_device_that_starts_without_network_serves_what_it_committed() {
    story("agent-offline", async |story: &Story| {
        let device = Device::start(story, Kind::Referrers).await?;
        let good = device.signed(GOOD, "good").await?;
        device.order("digits-1", &good, "probationSeconds: 1")?;
        device.wait("digits-1", "Committed").await?;
        device.registry.stop();
        device.agent.kill();
        device.agent.resume()?;
        ensure!(device.answering().await? == "digits-1");
        device.order("digits-2", &format!("sha256:{}", "0".repeat(64)), "")?;
        device.wait("digits-2", "Blocked").await?;
        ensure!(device.answering().await? == "digits-1");
        Ok(())
    });
}

#[test]
fn killed_at_any_moment_of_a_change_the_agent_ends_where_it_was_going() {
    story("agent-killed", async |story: &Story| {
        let device = Device::start(story, Kind::Referrers).await?;
        let digests = [
            device.signed(GOOD, "good").await?,
            device.signed(BETTER, "better").await?,
        ];
        device.order("digits-0", &digests[0], "probationSeconds: 1")?;
        device.wait("digits-0", "Committed").await?;
        // Staging, preflight, loading, trial and commit all lie within the first three seconds.
        for round in 1..=10_u64 {
            let revision = format!("digits-{round}");
            let digest = &digests[usize::try_from(round % 2)?];
            device.order(&revision, digest, "probationSeconds: 1")?;
            tokio::time::sleep(Duration::from_millis(round * 300)).await;
            device.agent.kill();
            device.agent.resume()?;
            let answering = device.answering().await?;
            let before = format!("digits-{}", round - 1);
            ensure!(answering == revision || answering == before, "{answering}");
            device.wait(&revision, "Committed").await?;
            ensure!(device.answering().await? == revision);
        }
        Ok(())
    });
}

#[test]
fn swaps_and_replaced_hosts_under_load_lose_no_request() {
    story("agent-swaps", async |story: &Story| {
        let device = Device::start(story, Kind::Referrers).await?;
        let digests = [
            device.signed(GOOD, "good").await?,
            device.signed(BETTER, "better").await?,
        ];
        device.order("digits-0", &digests[0], "probationSeconds: 1")?;
        device.wait("digits-0", "Committed").await?;
        device.answering().await?;
        let load = Load::start(Plan {
            url: device.url(),
            bodies: vec![request()?.into()],
            rate_per_second: 50,
            connections: 8,
            timeout: Duration::from_secs(20),
            judge: any_inference,
        })?;
        for round in 1..=4_usize {
            // A planned replacement of the host, in the middle of it all.
            let agent = device.agent.id().context("the agent does not run")?;
            Line::new(Path::new("/bin/kill"))
                .args(["-HUP", &agent.to_string()])
                .run()
                .await?;
            let revision = format!("digits-{round}");
            device.order(&revision, &digests[round % 2], "probationSeconds: 1")?;
            device.wait(&revision, "Committed").await?;
        }
        let report = load.stop()?;
        report.check_none_failed()?;
        ensure!(report.answered_by.len() >= 4, "{:?}", report.answered_by);
        Ok(())
    });
}

/// Every held-out digit as a request of its own: a flaky model fails only some of them.
fn requests() -> Result<Vec<bytes::Bytes>> {
    let path = repository().join("examples/data/digits-heldout.json");
    let held: Value = serde_json::from_slice(&std::fs::read(&path)?)?;
    let digits = held["digits"].as_array().context("no held-out digits")?;
    let request = |digit: &Value| {
        let input = serde_json::json!({
            "name": "image", "datatype": "UINT8", "shape": [1, 8, 8], "data": digit["image"],
        });
        serde_json::to_vec(&serde_json::json!({ "inputs": [input] })).map(bytes::Bytes::from)
    };
    Ok(digits.iter().map(request).collect::<Result<_, _>>()?)
}

#[test]
fn a_flaky_model_is_rolled_back_in_trial_and_costs_no_answer() {
    story("agent-flaky", async |story: &Story| {
        let device = Device::start(story, Kind::Referrers).await?;
        let good = device.signed(GOOD, "good").await?;
        device.order("digits-1", &good, "probationSeconds: 1")?;
        device.wait("digits-1", "Committed").await?;
        device.answering().await?;
        let load = Load::start(Plan {
            url: device.url(),
            bodies: requests()?,
            rate_per_second: 50,
            connections: 8,
            timeout: Duration::from_secs(20),
            judge: any_inference,
        })?;
        let flaky = device.signed(FLAKY, "flaky").await?;
        let health = "probationSeconds: 60, minSamples: 50, maxErrorPermille: 50";
        device.order("digits-2", &flaky, health)?;
        let model = device.wait("digits-2", "RolledBack").await?;
        ensure!(model["reason"] == "TooManyErrors", "{model}");
        ensure!(model["verdict"]["errors"].as_i64() > Some(0), "{model}");
        ensure!(device.answering().await? == "digits-1");
        let report = load.stop()?;
        report.check_none_failed()?;
        ensure!(report.answered_by.len() == 2, "{:?}", report.answered_by);
        Ok(())
    });
}

#[test]
fn a_broken_trust_file_stops_what_is_new_and_nothing_that_serves() {
    story("agent-trust", async |story: &Story| {
        let device = Device::start(story, Kind::Referrers).await?;
        let digests = [
            device.signed(GOOD, "good").await?,
            device.signed(BETTER, "better").await?,
        ];
        device.order("digits-1", &digests[0], "probationSeconds: 1")?;
        device.wait("digits-1", "Committed").await?;
        let trust = device.folder.join("trust.yaml");
        let good = std::fs::read_to_string(&trust)?;
        std::fs::write(&trust, good.replace("authorities:", "authoritys:"))?;
        let words = device.trust_problem(true).await?;
        ensure!(words.contains("trust.yaml"), "{words}");
        ensure!(words.contains("authoritys"), "{words}");
        ensure!(device.answering().await? == "digits-1");

        device.order("digits-2", &digests[1], "probationSeconds: 1")?;
        let model = device.wait("digits-2", "Blocked").await?;
        ensure!(model["reason"] == "TrustUnreadable", "{model}");
        ensure!(model["servingRevision"] == "digits-1", "{model}");
        ensure!(device.answering().await? == "digits-1");

        std::fs::write(&trust, good)?;
        device.wait("digits-2", "Committed").await?;
        device.trust_problem(false).await?;
        ensure!(device.answering().await? == "digits-2");
        Ok(())
    });
}
