//! Clients that ask models on real pods all the time, and what they lost.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use bytes::Bytes;
use rimward_e2e::digits::repository;
use rimward_e2e::load::{Client, Load, Plan, Report, any_inference};
use rimward_e2e::node::{Node, PAUSE};
use rimward_e2e::{Seen, wait_for};
use serde_json::json;

use crate::pods_world::{AGENTS, WITHIN, World};

/// From the last change until clients stop asking.
const SETTLED: Duration = Duration::from_secs(2);

impl World {
    /// Starts a pod on each node that does nothing; gives their networks, to ask from.
    pub(crate) async fn clients(&self) -> Result<Vec<PathBuf>> {
        for node in &self.cluster.nodes {
            let pod = json!({
                "apiVersion": "v1", "kind": "Pod",
                "metadata": {"name": format!("client-{}", node.name()), "namespace": "default"},
                "spec": {
                    "nodeName": node.name(),
                    "containers": [{"name": "pause", "image": PAUSE, "imagePullPolicy": "Never"}],
                },
            });
            self.kubectl.apply(&pod.to_string()).await?;
        }
        let mut networks = Vec::new();
        for node in &self.cluster.nodes {
            let name = format!("client-{}", node.name());
            let target = format!("pod/{name}");
            self.kubectl
                .wait(&target, "condition=Ready", WITHIN)
                .await?;
            let pod = self.kubectl.get_json(["pod", &name]).await?;
            let uid = pod["metadata"]["uid"].as_str().context("no uid")?;
            networks.push(Node::pod_network(uid)?);
        }
        Ok(networks)
    }

    /// Where a Service of the agents is asked for digits.
    pub(crate) async fn service(&self, name: &str) -> Result<String> {
        self.service_of(name, "digits").await
    }

    /// Where a Service of the agents is asked for a model.
    pub(crate) async fn service_of(&self, name: &str, model: &str) -> Result<String> {
        let service = self
            .kubectl
            .get_json(["service", name, "-n", AGENTS])
            .await?;
        let (address, port) = (
            &service["spec"]["clusterIP"],
            &service["spec"]["ports"][0]["port"],
        );
        let address = address.as_str().context("no clusterIP")?;
        Ok(format!("http://{address}:{port}/v2/models/{model}/infer"))
    }
}

/// Where clients ask.
#[derive(Clone, Copy)]
pub(crate) struct Door<'a> {
    pub(crate) name: &'static str,
    pub(crate) client: Client<'a>,
    pub(crate) url: &'a str,
}

impl<'a> Door<'a> {
    /// A door that is asked from a pod's network, over kept connections.
    pub(crate) const fn new(name: &'static str, from: &'a Path, url: &'a str) -> Self {
        let client = Client {
            network: Some(from),
            is_fresh: false,
        };
        Self { name, client, url }
    }

    /// The same, each request over a connection of its own.
    pub(crate) const fn fresh(mut self, name: &'static str) -> Self {
        self.name = name;
        self.client.is_fresh = true;
        self
    }
}

/// Clients that ask all the time, each at a door of its own.
pub(crate) struct Asking(Vec<(&'static str, Load)>);

impl Asking {
    /// Begins to ask 50 times a second at each door.
    pub(crate) fn start(doors: &[Door<'_>]) -> Result<Self> {
        let loads = doors
            .iter()
            .map(|door| Ok((door.name, load(door.client, door.url, 50, 4)?)));
        Ok(Self(loads.collect::<Result<_>>()?))
    }

    /// The same as [`Asking::stop`], and nothing may have been lost.
    pub(crate) async fn stop_whole(self, what: &str) -> Result<()> {
        let reports = self.stop(what).await?;
        reports.iter().try_for_each(Report::check_none_failed)
    }

    /// The same as [`Asking::stop`], where requests in hand may be lost: most are answered. How many depends on how
    /// busy the machine is, which is printed and not judged.
    pub(crate) async fn stop_nearly_whole(self, what: &str) -> Result<()> {
        let reports = self.stop(what).await?;
        for report in &reports {
            let (failed, total) = (report.failed, report.total);
            ensure!(
                total > 50 && failed * 5 <= total,
                "{what}: {failed} of {total} failed"
            );
        }
        Ok(())
    }

    /// Stops once all has settled, prints what was lost while `what` happened, and gives that in the doors' order.
    pub(crate) async fn stop(self, what: &str) -> Result<Vec<Report>> {
        tokio::time::sleep(SETTLED).await;
        // All at once: one that waits for its last answers is no reason for the others to go on.
        self.0.iter().for_each(|(_, load)| load.end());
        let mut reports = Vec::new();
        for (door, load) in self.0 {
            let report = tokio::task::spawn_blocking(move || load.stop()).await??;
            let why = report
                .failures
                .first()
                .map(|it| format!("; the first: {:?}", it.result));
            eprintln!(
                "    {what}; {door}: {} of {} failed, longest silence {:.2} s{}",
                report.failed,
                report.total,
                report.silence.as_secs_f64(),
                why.unwrap_or_default(),
            );
            reports.push(report);
        }
        Ok(reports)
    }
}

/// Asks until somebody answers; gives the revision that did.
pub(crate) async fn answering(network: Option<&Path>, url: &str) -> Result<String> {
    let what = format!("an answer of {url}");
    wait_for(&what, WITHIN, async || {
        let client = Client {
            network,
            is_fresh: true,
        };
        let load = load(client, url, 20, 1)?;
        tokio::time::sleep(Duration::from_millis(60)).await;
        let report = tokio::task::spawn_blocking(move || load.stop()).await??;
        Ok(match report.answered_by.first_key_value() {
            Some((revision, _)) => Seen::Done(revision.clone()),
            None => Seen::NotYet(format!("{:?}", report.failures.first())),
        })
    })
    .await
}

/// What clients would send all the time, from a pod's network or from this machine.
fn load(client: Client<'_>, url: &str, rate: u32, connections: usize) -> Result<Load> {
    let plan = Plan {
        url: url.to_owned(),
        bodies: vec![request()?],
        rate_per_second: rate,
        connections,
        timeout: Duration::from_secs(10),
        judge: any_inference,
    };
    Load::start_as(plan, client)
}

fn request() -> Result<Bytes> {
    let path = repository().join("examples/data/digit-request.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    ensure!(!text.is_empty(), "{} is empty", path.display());
    Ok(text.into())
}
