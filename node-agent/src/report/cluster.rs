//! The report to a Kubernetes cluster: EdgeNode, its status, Lease and events.
//!
//! Owns every write of this agent. Writes on difference only, by what is watched; the Lease is the one thing renewed
//! for its own sake. While the API server is away it waits: nothing that serves depends on it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::{Lease, LeaseSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, OwnerReference};
use k8s_openapi::jiff::Timestamp;
use kube::api::{ObjectMeta, Patch, PatchParams};
use kube::{Api, Client};
use rimward_crds::{EdgeNode, EdgeNodeStatus};
use serde_json::json;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep, timeout};

use super::Picture;
use super::access::{Access, Refusals};
use super::events::Teller;
use super::status::status;
use crate::definition::Definition;
use crate::supervisor::Event;
use crate::watch::{self as reader, NodeSeen, Seen};

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
}

/// Reports, and feeds orders to the supervisor, until the agent stops; with another client once there are other
/// credentials that the server takes.
pub async fn run(
    cluster: Cluster,
    pictures: watch::Receiver<Picture>,
    events: mpsc::Sender<Event>,
) {
    let access = Access::new(cluster.kubeconfig.clone(), &cluster.node_name);
    through(access, cluster, pictures, events).await;
}

async fn through(
    access: Access,
    cluster: Cluster,
    pictures: watch::Receiver<Picture>,
    events: mpsc::Sender<Event>,
) {
    let (mut client, mut made) = access.first().await;
    loop {
        let refusals = access.refusals();
        tokio::select! {
            next = access.next(&made) => (client, made) = next,
            () = serve(client.clone(), &cluster, pictures.clone(), events.clone(), refusals) => return,
        }
    }
}

async fn serve(
    client: Client,
    cluster: &Cluster,
    pictures: watch::Receiver<Picture>,
    events: mpsc::Sender<Event>,
    refusals: Refusals,
) {
    let (seen_sender, seen) = watch::channel(Seen::Unknown);
    let (node_sender, node) = watch::channel(NodeSeen::Unknown);
    let definition = Definition::new(client.clone());
    let writer = Writer {
        api: Api::all(client.clone()),
        teller: Teller::new(client.clone(), &cluster.node_name),
        cluster: cluster.clone(),
        pictures,
        seen,
        node,
        there: There::Unknown,
        written: EdgeNodeStatus::default(),
        refusals: refusals.clone(),
        definition: definition.clone(),
        told: None,
    };
    let leases = Api::namespaced(client.clone(), LEASE_NAMESPACE);
    let name = &cluster.node_name;
    let on_error = |error: &kube::runtime::watcher::Error| refusals.look_at(error);
    tokio::join!(
        reader::run(
            client.clone(),
            &definition,
            name,
            events,
            seen_sender,
            on_error
        ),
        reader::node(client, name, node_sender),
        writer.run(),
        renew(leases, cluster, &refusals),
    );
}

/// The EdgeNode on the server, as far as is known.
enum There {
    Unknown,
    Missing,
    Object(Box<ObjectMeta>),
}

struct Writer {
    api: Api<EdgeNode>,
    teller: Teller,
    cluster: Cluster,
    pictures: watch::Receiver<Picture>,
    seen: watch::Receiver<Seen>,
    node: watch::Receiver<NodeSeen>,
    there: There,
    /// The status that the server has, as far as is known.
    written: EdgeNodeStatus,
    refusals: Refusals,
    definition: Definition,
    /// Why nothing could be written last: told once.
    told: Option<String>,
}

impl Writer {
    async fn run(mut self) {
        loop {
            match timeout(REQUEST_TIMEOUT * 3, self.write()).await {
                Ok(Ok(())) => self.told = None,
                Ok(Err(error)) => {
                    self.refusals.look_at(error.as_ref());
                    let error = format!("{error:#}");
                    if self.told.as_ref() == Some(&error) {
                        tracing::debug!(error, "status is not written, still");
                    } else {
                        tracing::warn!(error, "status is not written");
                        self.told = Some(error);
                    }
                    sleep(RETRY).await;
                    continue;
                }
                Err(_) => {
                    tracing::warn!("the API server does not answer");
                    sleep(RETRY).await;
                    continue;
                }
            }
            tokio::select! {
                changed = self.pictures.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
                changed = self.seen.changed() => {
                    if changed.is_err() {
                        return;
                    }
                    // Waking takes the change; `look` is the one to act on it.
                    self.seen.mark_changed();
                }
                changed = self.node.changed() => {
                    if changed.is_err() {
                        return;
                    }
                }
            }
            sleep(SETTLE).await;
        }
    }

    /// Brings the server to the present picture; writes nothing where nothing differs.
    async fn write(&mut self) -> anyhow::Result<()> {
        self.look();
        self.ensure().await?;
        if matches!(self.there, There::Unknown | There::Missing) {
            return Ok(());
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
        self.definition.allows().await?;
        let node = self
            .api
            .patch_status(name, &params, &Patch::Apply(&patch))
            .await
            .with_context(|| format!("status of EdgeNode {name}"))?;
        let before = std::mem::replace(&mut self.written, now);
        self.teller.tell(&before, &self.written, &node).await;
        Ok(())
    }

    /// Takes what was watched since the last look. A change that comes later is looked at then.
    fn look(&mut self) {
        // What this writer wrote itself is newer than what it saw before.
        if !self.seen.has_changed().unwrap_or(false) && !matches!(self.there, There::Unknown) {
            return;
        }
        match &*self.seen.borrow_and_update() {
            Seen::Unknown => {}
            Seen::Missing => self.there = There::Missing,
            Seen::There(node) => {
                self.written = node.status.clone().unwrap_or_default();
                self.there = There::Object(Box::new(node.metadata.clone()));
            }
            Seen::Unreadable(metadata) => self.there = There::Object(metadata.clone()),
        }
    }

    /// Makes the EdgeNode, or gives it its labels and its owner, where that differs. While it is not known whether
    /// there is one, or what the Node is, nothing is written.
    async fn ensure(&mut self) -> anyhow::Result<()> {
        let node = self.node.borrow_and_update().clone();
        let there = match &self.there {
            There::Unknown => return Ok(()),
            There::Missing => None,
            There::Object(metadata) => Some(metadata),
        };
        let (mut labels, owner) = match (node, there) {
            (NodeSeen::Unknown, _) => return Ok(()),
            (NodeSeen::There { uid, labels }, _) => (labels, Some(self.owner(uid))),
            (NodeSeen::Missing, _) | (NodeSeen::Forbidden, None) => (BTreeMap::new(), None),
            // A Node that may not be read says nothing, so what it said before stands.
            (NodeSeen::Forbidden, Some(there)) => {
                (own_labels(there), owners(there).next().cloned())
            }
        };
        labels.extend(self.cluster.labels.clone());
        let is_so =
            |there: &ObjectMeta| has_just(there, &labels) && owners(there).eq(owner.as_ref());
        if there.is_some_and(|there| is_so(there)) {
            return Ok(());
        }
        let name = &self.cluster.node_name;
        let mut metadata = json!({ "name": name, "labels": labels });
        if let Some(owner) = owner {
            metadata["ownerReferences"] = json!([owner]);
        }
        let patch = json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "EdgeNode",
            "metadata": metadata,
            "spec": {},
        });
        let params = PatchParams::apply(FIELD_MANAGER).force();
        self.definition.allows().await?;
        let node = self
            .api
            .patch(name, &params, &Patch::Apply(&patch))
            .await
            .with_context(|| format!("EdgeNode {name}"))?;
        self.written = node.status.unwrap_or_default();
        self.there = There::Object(Box::new(node.metadata));
        Ok(())
    }

    /// The Node as the owner: what is said of a node goes with it. It holds nobody back from deleting the Node.
    fn owner(&self, uid: String) -> OwnerReference {
        OwnerReference {
            api_version: "v1".to_owned(),
            kind: "Node".to_owned(),
            name: self.cluster.node_name.clone(),
            uid,
            ..OwnerReference::default()
        }
    }
}

/// The Nodes that own the object; one of a Node that is gone is among them until the object goes too.
fn owners(there: &ObjectMeta) -> impl Iterator<Item = &OwnerReference> {
    let all = there.owner_references.iter().flatten();
    all.filter(|owner| owner.kind == "Node" && owner.api_version == "v1")
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

/// The node's Lease as of `now`, by whatever the clock says: its readers look whether it changes, not what it says.
fn lease(cluster: &Cluster, now: Timestamp) -> Lease {
    Lease {
        metadata: ObjectMeta {
            name: Some(cluster.node_name.clone()),
            namespace: Some(LEASE_NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        spec: Some(LeaseSpec {
            holder_identity: Some(cluster.node_name.clone()),
            lease_duration_seconds: i32::try_from(cluster.lease_seconds.saturating_mul(4)).ok(),
            renew_time: Some(MicroTime(now)),
            ..LeaseSpec::default()
        }),
    }
}

/// Renews the node's Lease for ever. Readers judge it by when it last changed, by their own clock.
async fn renew(leases: Api<Lease>, cluster: &Cluster, refusals: &Refusals) {
    let period = Duration::from_secs(cluster.lease_seconds.into());
    let mut last_warning: Option<Instant> = None;
    loop {
        let lease = lease(cluster, Timestamp::now());
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(&lease);
        let renewed = timeout(
            REQUEST_TIMEOUT,
            leases.patch(&cluster.node_name, &params, &patch),
        );
        let problem = match renewed.await {
            Ok(Ok(_)) => None,
            Ok(Err(error)) => {
                refusals.look_at(&error);
                Some(error.to_string())
            }
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
#[path = "cluster_tests.rs"]
mod tests;
