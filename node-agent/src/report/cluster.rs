//! The report to a Kubernetes cluster: EdgeNode, its status, Lease and events.
//!
//! Owns every write of this agent. Writes on difference only; the Lease is the one thing renewed for
//! its own sake. While the API server is away it waits: nothing that serves depends on it.

use std::collections::{BTreeMap, BTreeSet};
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
    // Its own retries of 429 and 503 take minutes; whoever asks here tries again by itself.
    config.default_retry = false;
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

    /// Makes the EdgeNode, or gives it its labels, where that differs. While either cannot be read,
    /// nothing is written.
    async fn ensure(&mut self) -> anyhow::Result<()> {
        let name = self.cluster.node_name.clone();
        let there = self
            .api
            .get_metadata_opt(&name)
            .await
            .with_context(|| format!("EdgeNode {name}"))?;
        let of_node = reader::node_labels(&self.client, &name)
            .await
            .with_context(|| format!("labels of Node {name}"))?;
        let mut labels = match (of_node, &there) {
            (Some(labels), _) => labels,
            // A Node that may not be read says nothing, so what it said before stands.
            (None, Some(there)) => own_labels(&there.metadata),
            (None, None) => BTreeMap::new(),
        };
        labels.extend(self.cluster.labels.clone());
        if there.is_some_and(|there| has_just(&there.metadata, &labels)) {
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

/// Whether the object has these labels, and none else from this agent.
fn has_just(there: &ObjectMeta, labels: &BTreeMap<String, String>) -> bool {
    let has = |(key, value)| there.labels.as_ref().and_then(|has| has.get(key)) == Some(value);
    let wanted: BTreeSet<&str> = labels.keys().map(String::as_str).collect();
    applied_labels(there) == wanted && labels.iter().all(has)
}

/// The labels that this agent applied, as they are now.
fn own_labels(there: &ObjectMeta) -> BTreeMap<String, String> {
    let own = applied_labels(there);
    let labels = there.labels.iter().flatten();
    labels
        .filter(|(key, _)| own.contains(key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect()
}

/// The keys of the labels that this agent applied, by the server's own record of who owns which field.
fn applied_labels(there: &ObjectMeta) -> BTreeSet<&str> {
    let entries = there.managed_fields.iter().flatten();
    entries
        .filter(|entry| {
            entry.manager.as_deref() == Some(FIELD_MANAGER)
                && entry.operation.as_deref() == Some("Apply")
                && entry.subresource.as_deref().unwrap_or_default().is_empty()
        })
        .filter_map(|entry| entry.fields_v1.as_ref())
        .filter_map(|fields| fields.0.pointer("/f:metadata/f:labels")?.as_object())
        .flat_map(|labels| labels.keys())
        .filter_map(|key| key.strip_prefix("f:"))
        .collect()
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake_api::FakeApi;

    fn labels(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        pairs
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect()
    }

    /// A writer as it is at the agent's start, with these labels from the command line.
    fn writer(api: &FakeApi, given: &[(&str, &str)]) -> Writer {
        let client = api.client();
        Writer {
            api: Api::all(client.clone()),
            teller: Teller::new(client.clone(), "node-1"),
            client,
            cluster: Cluster {
                node_name: "node-1".to_owned(),
                labels: labels(given),
                kubeconfig: None,
                lease_seconds: 10,
                resync: Duration::from_secs(600),
            },
            pictures: watch::channel(Picture::blank()).1,
            seen: watch::channel(Seen::Unknown).1,
            written: EdgeNodeStatus::default(),
            known: false,
        }
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_read_keeps_its_labels() {
        let api = FakeApi::start().await;
        api.lock().node_labels = labels(&[("zone", "a")]);
        writer(&api, &[]).ensure().await.unwrap();
        assert_eq!(api.lock().edge_labels(), labels(&[("zone", "a")]));
        let mut changed = writer(&api, &[("tier", "edge")]);
        for code in [401, 429, 500, 503] {
            api.lock().node = code;
            changed.ensure().await.expect_err("the Node is unknown");
            assert_eq!(api.lock().writes.len(), 1, "{code}");
        }
        let both = labels(&[("tier", "edge"), ("zone", "a")]);
        // An API server that starts forbids all until it has read its roles.
        api.lock().node = 403;
        changed.ensure().await.unwrap();
        assert_eq!(api.lock().edge_labels(), both);
        api.lock().node = 404;
        changed.ensure().await.unwrap();
        assert_eq!(api.lock().edge_labels(), labels(&[("tier", "edge")]));
    }

    #[tokio::test]
    async fn a_node_that_cannot_be_read_is_tried_again_soon() {
        let api = FakeApi::start().await;
        api.lock().node = 500;
        api.lock().node_labels = labels(&[("zone", "a")]);
        let mut writer = writer(&api, &[]);
        // A watch that has not spoken, and a picture that never changes: only the retry goes on.
        let (_seen, seen) = watch::channel(Seen::Unknown);
        let (_pictures, pictures) = watch::channel(Picture::blank());
        (writer.seen, writer.pictures) = (seen, pictures);
        let steps = async {
            api.until(|state| state.node_reads >= 1).await;
            assert!(api.lock().writes.is_empty());
            api.lock().node = 200;
            api.until(|state| !state.writes.is_empty()).await;
            assert_eq!(api.lock().edge_labels(), labels(&[("zone", "a")]));
        };
        tokio::select! {
            () = writer.run() => unreachable!("it writes for ever"),
            () = steps => {}
        }
    }

    #[tokio::test]
    async fn labels_that_are_gone_from_the_node_go_and_nothing_is_written_twice() {
        let api = FakeApi::start().await;
        api.lock().node_labels = labels(&[("zone", "a"), ("gpu", "yes")]);
        let mut first = writer(&api, &[("tier", "edge")]);
        let mut writes = 0;
        let mut look = async |writer: &mut Writer, more: usize, want: &[(&str, &str)]| {
            for _ in 0..3 {
                writer.ensure().await.unwrap();
            }
            writes += more;
            assert_eq!(api.lock().edge_labels(), labels(want));
            assert_eq!(api.lock().writes.len(), writes);
        };
        let all = [("gpu", "yes"), ("tier", "edge"), ("zone", "a")];
        look(&mut first, 1, &all).await;
        // Somebody else's label is neither a difference nor taken away.
        api.lock().label_by_hand("owner", "ann");
        look(
            &mut first,
            0,
            &[
                ("gpu", "yes"),
                ("owner", "ann"),
                ("tier", "edge"),
                ("zone", "a"),
            ],
        )
        .await;
        api.lock().node_labels.remove("gpu");
        look(
            &mut first,
            1,
            &[("owner", "ann"), ("tier", "edge"), ("zone", "a")],
        )
        .await;
        // After a start, with nothing remembered.
        look(
            &mut writer(&api, &[("tier", "edge")]),
            0,
            &[("owner", "ann"), ("tier", "edge"), ("zone", "a")],
        )
        .await;
        api.lock().node_labels.clear();
        look(&mut writer(&api, &[]), 1, &[("owner", "ann")]).await;
    }
}
