//! The report to a Kubernetes cluster: EdgeNode, its status, Lease and events.
//!
//! Owns every write of this agent. Writes on difference only; the Lease is the one thing renewed for
//! its own sake. While the API server is away it waits: nothing that serves depends on it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};
use rimward_crds::{EdgeNode, EdgeNodeStatus, direct};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval, sleep, timeout};

use super::Picture;
use super::events::Teller;
use super::status::status;
use crate::supervisor::Event;
use crate::watch::{self as reader, Seen};

/// Name under which this agent owns fields.
pub const FIELD_MANAGER: &str = "rimward-agent";
/// Where the Leases of nodes are.
pub const LEASE_NAMESPACE: &str = "rimward-nodes";
const RETRY: Duration = Duration::from_secs(3);
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// States pass quickly while a version changes; what lasts shorter than this is not written.
const SETTLE: Duration = Duration::from_millis(150);

/// Which cluster, and as which node.
#[derive(Debug, Clone)]
pub struct Cluster {
    /// Name of the node.
    pub node_name: String,
    /// Labels given on the command line.
    pub labels: BTreeMap<String, String>,
    /// Kubeconfig; the pod's account when absent.
    pub kubeconfig: Option<PathBuf>,
    /// Seconds between renewals of the Lease.
    pub lease_seconds: u32,
    /// Between full comparisons.
    pub resync: Duration,
}

/// Reports, and feeds orders to the supervisor, until the agent stops.
pub async fn run(
    cluster: Cluster,
    pictures: watch::Receiver<Picture>,
    events: mpsc::Sender<Event>,
) {
    let client = loop {
        match connect(&cluster).await {
            Ok(client) => break client,
            Err(error) => {
                tracing::warn!(error = format!("{error:#}"), "no way to the API server yet");
                sleep(RETRY).await;
            }
        }
    };
    let (seen_sender, seen) = watch::channel(Seen::Unknown);
    let writer = Writer {
        api: Api::all(client.clone()),
        teller: Teller::new(client.clone(), &cluster.node_name),
        client: client.clone(),
        cluster: cluster.clone(),
        pictures,
        seen,
        written: EdgeNodeStatus::default(),
        known: false,
    };
    let leases = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    tokio::join!(
        reader::run(client, &cluster.node_name, events, seen_sender),
        writer.run(),
        renew(leases, &cluster),
    );
}

async fn connect(cluster: &Cluster) -> anyhow::Result<Client> {
    let mut config = match &cluster.kubeconfig {
        Some(path) => {
            let read = Kubeconfig::read_from(path)
                .with_context(|| format!("kubeconfig {}", path.display()))?;
            direct::config(read, &KubeConfigOptions::default())
                .await
                .with_context(|| format!("kubeconfig {}", path.display()))?
        }
        None => {
            kube::Config::incluster().context("the pod's own account (or give --kubeconfig)")?
        }
    };
    config.connect_timeout = Some(Duration::from_secs(10));
    Client::try_from(config).context("Kubernetes client")
}

struct Writer {
    api: Api<EdgeNode>,
    client: Client,
    teller: Teller,
    cluster: Cluster,
    pictures: watch::Receiver<Picture>,
    seen: watch::Receiver<Seen>,
    /// What the server has, as far as is known.
    written: EdgeNodeStatus,
    known: bool,
}

impl Writer {
    async fn run(mut self) {
        let mut resync = interval(self.cluster.resync);
        resync.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let wait = match timeout(REQUEST_TIMEOUT * 3, self.write()).await {
                Ok(Ok(())) => None,
                Ok(Err(error)) => {
                    tracing::warn!(error = format!("{error:#}"), "status is not written");
                    Some(RETRY)
                }
                Err(_) => {
                    tracing::warn!("the API server does not answer");
                    Some(RETRY)
                }
            };
            if let Some(wait) = wait {
                sleep(wait).await;
                continue;
            }
            tokio::select! {
                changed = self.pictures.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                _ = self.seen.changed() => {}
                _ = resync.tick() => self.known = false,
            }
            sleep(SETTLE).await;
        }
    }

    /// Brings the server to the present picture; writes nothing where nothing differs.
    async fn write(&mut self) -> anyhow::Result<()> {
        let missing = match &*self.seen.borrow_and_update() {
            Seen::Unknown => false,
            Seen::Missing => true,
            Seen::There(node) => {
                self.written = node.status.clone().unwrap_or_default();
                false
            }
            Seen::Unreadable => false,
        };
        if missing || !self.known {
            self.ensure().await?;
            self.known = true;
        }
        let picture = self.pictures.borrow_and_update().clone();
        if picture == Picture::blank() {
            return Ok(());
        }
        let second = Timestamp::from_second(Timestamp::now().as_second())?;
        let now = status(&picture, &self.written.conditions, second);
        if now == self.written {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "EdgeNode",
            "status": &now,
        });
        let name = &self.cluster.node_name;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let node = self
            .api
            .patch_status(name, &params, &Patch::Apply(&patch))
            .await
            .with_context(|| format!("status of EdgeNode {name}"))?;
        let before = std::mem::replace(&mut self.written, now);
        self.teller.tell(&before, &self.written, &node).await;
        Ok(())
    }

    /// Makes the EdgeNode, or gives it its labels, where that differs.
    async fn ensure(&mut self) -> anyhow::Result<()> {
        let name = self.cluster.node_name.clone();
        let mut labels = reader::node_labels(&self.client, &name).await;
        labels.extend(self.cluster.labels.clone());
        let there = self
            .api
            .get_metadata_opt(&name)
            .await
            .with_context(|| format!("EdgeNode {name}"))?;
        let has = there
            .as_ref()
            .and_then(|node| node.metadata.labels.as_ref());
        let same = |has: &BTreeMap<String, String>| {
            labels
                .iter()
                .all(|(key, value)| has.get(key) == Some(value))
        };
        let differs = there.is_none() || !has.map_or(labels.is_empty(), same);
        if !differs {
            return Ok(());
        }
        let patch = json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "EdgeNode",
            "metadata": { "name": name, "labels": labels },
            "spec": {},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let node = self
            .api
            .patch(&name, &params, &Patch::Apply(&patch))
            .await
            .with_context(|| format!("EdgeNode {name}"))?;
        self.written = node.status.unwrap_or_default();
        Ok(())
    }
}

/// Renews the node's Lease for ever. Readers judge it by when it last changed, by their own clock.
async fn renew(leases: Api<Lease>, cluster: &Cluster) {
    let period = Duration::from_secs(cluster.lease_seconds.into());
    let mut last_warning: Option<Instant> = None;
    loop {
        let lease = Lease {
            metadata: ObjectMeta {
                name: Some(cluster.node_name.clone()),
                namespace: Some(LEASE_NAMESPACE.to_owned()),
                ..ObjectMeta::default()
            },
            spec: Some(LeaseSpec {
                holder_identity: Some(cluster.node_name.clone()),
                lease_duration_seconds: i32::try_from(cluster.lease_seconds.saturating_mul(4)).ok(),
                renew_time: Some(MicroTime(Timestamp::now())),
                ..LeaseSpec::default()
            }),
        };
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&lease);
        let renewed = timeout(
            REQUEST_TIMEOUT,
            leases.patch(&cluster.node_name, &params, &patch),
        );
        let problem = match renewed.await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => Some(error.to_string()),
            Err(_) => Some("no answer".to_owned()),
        };
        if let Some(problem) = problem
            && last_warning.is_none_or(|at| at.elapsed() > Duration::from_secs(60))
        {
            tracing::warn!(problem, "the Lease is not renewed");
            last_warning = Some(Instant::now());
        }
        sleep(period).await;
    }
}
