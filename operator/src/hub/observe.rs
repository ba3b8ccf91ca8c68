//! What the hub sees: every object of its kinds, from watches.
//!
//! Owns the caches. Only reads. One object that does not parse stops no other: it is in the cache as
//! invalid, with its name and what is wrong.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::watcher::{self, Event};
use kube::runtime::{WatchStreamExt as _, watcher as watch_stream};
use kube::{Api, Client, Resource, ResourceExt as _};
use rimward_crds::{
    ClusterAssignment, EdgeCluster, Model, ModelDeployment, ModelRevision, RolloutPolicy,
};
use serde::de::DeserializeOwned;
use tokio::sync::Notify;
use tokio::task::JoinSet;

use super::heartbeats::Heartbeats;
use crate::metrics::{Kind, Metrics};
use crate::objects::{self, CLUSTERS_NAMESPACE};

/// One kind's objects.
pub(crate) struct Seen<K>(Vec<Arc<DeserializeGuard<K>>>);

impl<K> Seen<K> {
    /// Those that parse.
    pub(crate) fn valid(&self) -> impl Iterator<Item = &K> {
        self.0.iter().filter_map(|object| object.0.as_ref().ok())
    }

    /// Those that do not.
    pub(crate) fn invalid(&self) -> impl Iterator<Item = &InvalidObject> {
        self.0.iter().filter_map(|object| object.0.as_ref().err())
    }
}

/// Everything seen, at one moment.
pub(crate) struct Snapshot {
    pub(crate) edge_clusters: Seen<EdgeCluster>,
    pub(crate) models: Seen<Model>,
    pub(crate) deployments: Seen<ModelDeployment>,
    pub(crate) policies: Seen<RolloutPolicy>,
    pub(crate) revisions: Seen<ModelRevision>,
    pub(crate) assignments: Seen<ClusterAssignment>,
}

/// Names one object of the hub's kinds.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct ObjectKey {
    /// Its kind.
    pub(crate) kind: Kind,
    /// Its namespace; none where the kind has none.
    pub(crate) namespace: Option<String>,
    /// Its name.
    pub(crate) name: String,
}

impl ObjectKey {
    /// Names an object.
    pub(crate) fn of<K: Resource>(kind: Kind, object: &K) -> Self {
        Self {
            kind,
            namespace: object.meta().namespace.clone(),
            name: object.name_any(),
        }
    }
}

type Cache<K> = Store<DeserializeGuard<K>>;

/// The caches, kept up to date by tasks that live as long as the [`JoinSet`] they were spawned on.
pub(crate) struct Caches {
    edge_clusters: Cache<EdgeCluster>,
    models: Cache<Model>,
    deployments: Cache<ModelDeployment>,
    policies: Cache<RolloutPolicy>,
    revisions: Cache<ModelRevision>,
    assignments: Cache<ClusterAssignment>,
    leases: Cache<Lease>,
    heartbeats: Arc<Mutex<Heartbeats>>,
    /// Notified when anything changed that a plan may depend on. One permit: changes coalesce.
    pub(crate) changed: Arc<Notify>,
}

impl Caches {
    /// Starts all watches.
    pub(crate) fn start(
        client: &Client,
        offline_grace_seconds: u32,
        metrics: &Arc<Metrics>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let changed = Arc::new(Notify::new());
        let grace = Duration::from_secs(offline_grace_seconds.into());
        let heartbeats = Arc::new(Mutex::new(Heartbeats::new(grace)));
        let mut watches = Watches {
            metrics,
            changed: &changed,
            tasks,
        };
        let beats = heartbeats.clone();
        let leases = watches.spawn(
            Kind::Lease,
            Api::namespaced(client.clone(), CLUSTERS_NAMESPACE),
            move |event| note(&beats, event),
        );
        Self {
            edge_clusters: watches.spawn(Kind::EdgeCluster, Api::all(client.clone()), |_| true),
            models: watches.spawn(Kind::Model, Api::all(client.clone()), |_| true),
            deployments: watches.spawn(Kind::ModelDeployment, Api::all(client.clone()), |_| true),
            policies: watches.spawn(Kind::RolloutPolicy, Api::all(client.clone()), |_| true),
            revisions: watches.spawn(Kind::ModelRevision, Api::all(client.clone()), |_| true),
            assignments: watches.spawn(Kind::ClusterAssignment, Api::all(client.clone()), |_| true),
            leases,
            heartbeats,
            changed,
        }
    }

    /// Returns once every cache holds what the server had when asked.
    ///
    /// # Errors
    /// When a watch ended, which only a stop does.
    pub(crate) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        let Self {
            edge_clusters,
            models,
            deployments,
            policies,
            revisions,
            assignments,
            leases,
            heartbeats: _,
            changed: _,
        } = self;
        edge_clusters.wait_until_ready().await?;
        models.wait_until_ready().await?;
        deployments.wait_until_ready().await?;
        policies.wait_until_ready().await?;
        revisions.wait_until_ready().await?;
        assignments.wait_until_ready().await?;
        leases.wait_until_ready().await?;
        Ok(())
    }

    /// Everything as it is seen now.
    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            edge_clusters: Seen(self.edge_clusters.state()),
            models: Seen(self.models.state()),
            deployments: Seen(self.deployments.state()),
            policies: Seen(self.policies.state()),
            revisions: Seen(self.revisions.state()),
            assignments: Seen(self.assignments.state()),
        }
    }

    /// The resource version in which an object is seen now; none when it is not seen.
    pub(crate) fn version(&self, key: &ObjectKey) -> Option<u128> {
        let ObjectKey {
            kind,
            namespace,
            name,
        } = key;
        let namespace = namespace.as_deref();
        match kind {
            Kind::EdgeCluster => version(&self.edge_clusters, namespace, name),
            Kind::Model => version(&self.models, namespace, name),
            Kind::ModelDeployment => version(&self.deployments, namespace, name),
            Kind::RolloutPolicy => version(&self.policies, namespace, name),
            Kind::ModelRevision => version(&self.revisions, namespace, name),
            Kind::ClusterAssignment => version(&self.assignments, namespace, name),
            Kind::Lease => version(&self.leases, namespace, name),
            Kind::EdgeNode | Kind::Event => None,
        }
    }

    /// Reads the heartbeats.
    pub(crate) fn heartbeats<T>(&self, read: impl FnOnce(&Heartbeats) -> T) -> T {
        read(
            &self
                .heartbeats
                .lock()
                .unwrap_or_else(PoisonError::into_inner),
        )
    }
}

fn version<K>(cache: &Cache<K>, namespace: Option<&str>, name: &str) -> Option<u128>
where
    K: Resource<DynamicType = ()> + Clone + 'static,
{
    let mut reference = ObjectRef::new(name);
    if let Some(namespace) = namespace {
        reference = reference.within(namespace);
    }
    objects::version(&*cache.get(&reference)?)
}

/// Hands a Lease to the heartbeats; says whether that is news to a plan.
fn note(heartbeats: &Mutex<Heartbeats>, event: &Event<DeserializeGuard<Lease>>) -> bool {
    let mut heartbeats = heartbeats.lock().unwrap_or_else(PoisonError::into_inner);
    match event {
        Event::Apply(lease) | Event::InitApply(lease) => {
            let renewed = lease
                .0
                .as_ref()
                .ok()
                .and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
            heartbeats.note(&lease.name_any(), renewed, Instant::now())
        }
        Event::Delete(lease) => heartbeats.forget(&lease.name_any()),
        Event::Init => false,
        Event::InitDone => true,
    }
}

struct Watches<'a> {
    metrics: &'a Arc<Metrics>,
    changed: &'a Arc<Notify>,
    tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    /// Starts one watch that never ends: kube begins it again with a growing wait.
    fn spawn<K>(
        &mut self,
        kind: Kind,
        api: Api<DeserializeGuard<K>>,
        mut news: impl FnMut(&Event<DeserializeGuard<K>>) -> bool + Send + 'static,
    ) -> Cache<K>
    where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (reader, writer) = reflector::store();
        let (metrics, changed) = (self.metrics.clone(), self.changed.clone());
        self.tasks.spawn(async move {
            let stream = watch_stream(api, watcher::Config::default())
                .default_backoff()
                .reflect(writer);
            let mut stream = std::pin::pin!(stream);
            while let Some(event) = stream.next().await {
                match event {
                    Ok(event) => {
                        if news(&event) {
                            changed.notify_one();
                        }
                    }
                    Err(error) => {
                        metrics.watch_failed(kind);
                        tracing::warn!(?kind, %error, "watch");
                    }
                }
            }
        });
        reader
    }
}

/// Groups revisions by namespace and deployment name.
pub(crate) fn by_deployment(
    revisions: &Seen<ModelRevision>,
) -> BTreeMap<(String, String), BTreeMap<String, ModelRevision>> {
    let mut grouped: BTreeMap<_, BTreeMap<_, _>> = BTreeMap::new();
    for revision in revisions.valid() {
        let key = (
            revision.namespace().unwrap_or_default(),
            revision.spec.deployment_name.clone(),
        );
        grouped
            .entry(key)
            .or_default()
            .insert(revision.name_any(), revision.clone());
    }
    grouped
}
