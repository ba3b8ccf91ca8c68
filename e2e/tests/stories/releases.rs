//! What the stories of promises share: a system whose releases are packed and signed once, deployed again and
//! again as new revisions, and judged by how their rollouts end.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use hyper::StatusCode;
use rimward_e2e::control_plane::Options;
use rimward_e2e::digits::{self, Digit, repository};
use rimward_e2e::load::{Load, Plan, any_inference};
use rimward_e2e::system::{Mode, SiteSpec, System};
use rimward_e2e::{Seen, wait_for};
use serde_json::{Value, json};

pub(crate) const WITHIN: Duration = Duration::from_secs(120);

/// A version of the digits model, and the folder that it is packed from.
pub(crate) type Release = (&'static str, &'static str);

pub(crate) const GOOD: Release = ("1.0.0", "examples/packages/digits-1.0.0");
pub(crate) const BETTER: Release = ("1.1.0", "examples/packages/digits-1.1.0");
/// Its golden vectors are not what its model gives.
pub(crate) const WRONG: Release = ("1.2.0", "wasm-models/fixtures/wrong");
/// Fails three in ten real requests.
pub(crate) const FLAKY: Release = ("1.3.0", "wasm-models/fixtures/flaky");

/// A site of each mode, for stories that are about something else.
pub(crate) const SITES: [SiteSpec; 2] = [
    SiteSpec {
        name: "north",
        mode: Mode::Pull,
        labels: "ring=main",
        nodes: 1,
    },
    SiteSpec {
        name: "south",
        mode: Mode::Push,
        labels: "ring=main",
        nodes: 1,
    },
];

/// How a rollout ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    /// The new revision runs everywhere.
    Promoted(String),
    /// The new revision failed, and all is back on the one promoted before.
    RolledBack {
        failed: String,
        back_on: Option<String>,
    },
}

/// What a deployment asks for beside its model.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Order {
    pub(crate) release: Release,
    /// Makes a revision of its own even for a release that ran before.
    pub(crate) number: u32,
    pub(crate) min_samples: u32,
}

impl Order {
    /// A release on probation for one second, and for so many requests.
    pub(crate) fn new(release: Release, number: u32, min_samples: u32) -> Self {
        Self {
            release,
            number,
            min_samples,
        }
    }
}

/// Starts a system with its sites joined, and every release packed, signed and known to the hub.
pub(crate) async fn start(
    name: &str,
    sites: &[SiteSpec],
    options: Options,
    releases: &[Release],
) -> Result<System> {
    let mut system = System::start(name, sites, options).await?;
    for &site in sites {
        system.join(site, async |line| line.run().await).await?;
    }
    let registry = system.fleet.registry.host();
    for (version, folder) in releases {
        let tag = format!("models/digits:{version}");
        let image = system
            .package(&repository().join(folder), &registry, &tag, async |line| {
                line.run().await
            })
            .await?;
        system.fleet.cosign.sign(&image).await?;
        let spec = json!({"family": "digits", "version": version, "image": image});
        let model = object("Model", &format!("digits-{version}"), &spec);
        system.kubectl()?.apply(&model).await?;
    }
    for site in sites {
        let ready = site.nodes.to_string();
        system
            .wait_for_value(
                &["edgecluster", site.name],
                ".status.nodes.ready",
                &ready,
                WITHIN,
            )
            .await?;
    }
    Ok(system)
}

/// Applies a deployment on all clusters, as a person would.
pub(crate) async fn deploy(system: &System, name: &str, order: Order) -> Result<()> {
    let spec = json!({
        "modelRef": {"name": format!("digits-{}", order.release.0)},
        "placement": {"clusterSelector": {}},
        "runtime": {"concurrency": 2, "memory": "64Mi", "timeoutMilliseconds": 5000 + order.number},
        "health": {
            "probationSeconds": 1,
            "minSamples": order.min_samples,
            "maxErrorPermille": 50,
        },
    });
    let deployment = object("ModelDeployment", name, &spec);
    system.kubectl()?.apply(&deployment).await?;
    Ok(())
}

/// Waits until the rollout of a deployment as it stands now has ended.
pub(crate) async fn end_of_rollout(system: &System, name: &str) -> Result<End> {
    let kubectl = system.kubectl()?;
    wait_for(
        &format!("the rollout of {name} to end"),
        WITHIN,
        async || {
            let object = kubectl.get_json(["modeldeployment", name]).await?;
            let status = &object["status"];
            if status["observedGeneration"] != object["metadata"]["generation"] {
                return Ok(Seen::NotYet(status.to_string()));
            }
            let text = |value: &Value| value.as_str().map(str::to_owned);
            let (current, update) = (
                text(&status["currentRevision"]),
                text(&status["updateRevision"]),
            );
            Ok(match (status["stage"]["phase"].as_str(), current, update) {
                (Some("Completed"), Some(current), Some(update))
                    if current == update && is_true(status, "Ready") =>
                {
                    Seen::Done(End::Promoted(current))
                }
                (Some("RolledBack"), back_on, Some(failed)) if is_true(status, "Stalled") => {
                    Seen::Done(End::RolledBack { failed, back_on })
                }
                _ => Seen::NotYet(status.to_string()),
            })
        },
    )
    .await
}

/// Waits for the end of a rollout that must be good; gives the revision.
pub(crate) async fn promoted(system: &System, name: &str) -> Result<String> {
    match end_of_rollout(system, name).await? {
        End::Promoted(revision) => Ok(revision),
        end @ End::RolledBack { .. } => Err(anyhow::anyhow!("{name} was not promoted: {end:?}")),
    }
}

fn is_true(status: &Value, condition: &str) -> bool {
    let conditions = status["conditions"].as_array();
    conditions
        .into_iter()
        .flatten()
        .any(|found| found["type"] == condition && found["status"] == "True")
}

fn object(kind: &str, name: &str, spec: &Value) -> String {
    json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": kind, "metadata": {"name": name}, "spec": spec,
    })
    .to_string()
}

/// Digits whose right reading is beyond doubt, the same for all stories of this binary.
static CLEAR: OnceLock<Vec<Digit>> = OnceLock::new();

/// Deploys one good release after the other, and keeps the held-out digits that both read rightly: from then on
/// whoever reads one of them otherwise is no good version. Gives the revision that runs at the end.
pub(crate) async fn settle_on_clear_digits(system: &System, name: &str) -> Result<String> {
    let host = &system.nodes().next().context("no nodes")?.host;
    let client = reqwest::Client::new();
    let mut clear = digits::held_out()?;
    let mut revision = String::new();
    for (number, release) in [GOOD, BETTER].into_iter().enumerate() {
        deploy(system, name, Order::new(release, u32::try_from(number)?, 0)).await?;
        revision = promoted(system, name).await?;
        let mut right = Vec::new();
        for digit in clear {
            if digits::ask(&client, host, name, &digit).await?.label == digit.label {
                right.push(digit);
            }
        }
        clear = right;
    }
    ensure!(
        clear.len() > 250,
        "only {} digits are read rightly",
        clear.len()
    );
    let count = clear.len();
    ensure!(
        CLEAR.get_or_init(|| clear).len() == count,
        "the same releases read otherwise"
    );
    Ok(revision)
}

/// The digits of [`settle_on_clear_digits`]; none before it.
pub(crate) fn clear_digits() -> &'static [Digit] {
    CLEAR.get().map_or(&[], Vec::as_slice)
}

/// Open-loop load of the clear digits against one node: an answer is good if the digit is read rightly.
pub(crate) fn load(host: &str, name: &str, rate_per_second: u32) -> Result<Load> {
    let bodies = clear_digits()
        .iter()
        .map(|digit| digits::request(digit).to_string());
    Load::start(Plan {
        url: format!("http://{host}/v2/models/{name}/infer"),
        bodies: bodies.map(Bytes::from).collect(),
        rate_per_second,
        connections: 16,
        timeout: Duration::from_secs(20),
        judge: rightly,
    })
}

/// Any inference that reads the digit rightly; who gave it is its revision.
fn rightly(status: StatusCode, body: &[u8], index: u64) -> Result<String, String> {
    let revision = any_inference(status, body, index)?;
    let answer: Value = serde_json::from_slice(body).map_err(|error| error.to_string())?;
    let digits = clear_digits();
    let digit = &digits[usize::try_from(index).unwrap_or(0) % digits.len()];
    let label = label_of(&answer);
    if label == Some(digit.label) {
        Ok(revision)
    } else {
        Err(format!("{revision} reads a {} as {label:?}", digit.label))
    }
}

fn label_of(answer: &Value) -> Option<i64> {
    let mut outputs = answer["outputs"].as_array()?.iter();
    outputs.find(|output| output["name"] == "label")?["data"][0].as_i64()
}
