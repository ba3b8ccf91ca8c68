//! What the hub sees: every object of its kinds, from watches.
//!
//! Owns the caches. Only reads. One object that does not parse stops no other: it is in the cache as
//! invalid, with its name and what is wrong. Nothing is listed anew but by a watch that lost its place.

use std::collections::BTreeSet;
use std::fmt::Debug;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use futures::StreamExt as _;
use k8s_openapi::api::coordination::v1::Lease;
use kube::api::DynamicObject;
use kube::core::DeserializeGuard;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client, Resource, ResourceExt as _};
use rimward_crds::{
    ClusterAssignment, EdgeCluster, Model, ModelDeployment, ModelRevision, RolloutAction,
    RolloutPolicy,
};
use serde::de::DeserializeOwned;
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::feed::Feed;
use super::heartbeats::Heartbeats;
use crate::cache::{Cache, Guarded};
use crate::definitions::Gate;
use crate::metrics::{Kind, Metrics};
use crate::objects::{CLUSTERS_NAMESPACE, HUB_LEADER, ObjectKey};
use crate::pages::Pages;

/// One kind's objects.
pub(crate) struct Seen<K>(Vec<Guarded<K>>);

impl<K> Seen<K> {
    /// Those that parse.
    pub(crate) fn valid(&self) -> impl Iterator<Item = &K> {
        self.0.iter().filter_map(|object| object.0.as_ref().ok())
    }
}

/// A kind that the hub keeps in memory.
pub(crate) trait Watched: Sized {
    /// Names it.
    const KIND: Kind;

    /// Where its objects are.
    fn cache(caches: &Caches) -> &Cache<Self>;
}

macro_rules! watched {
    ($($kind:ident in $field:ident),* $(,)?) => {$(
        impl Watched for $kind {
            const KIND: Kind = Kind::$kind;

            fn cache(caches: &Caches) -> &Cache<Self> {
                &caches.$field
            }
        }
    )*};
}

watched! {
    EdgeCluster in edge_clusters,
    Model in models,
    ModelDeployment in deployments,
    RolloutPolicy in policies,
    ModelRevision in revisions,
    ClusterAssignment in assignments,
    RolloutAction in actions,
}

/// The caches, kept up to date by tasks that live as long as the [`JoinSet`] they were spawned on.
pub(crate) struct Caches {
    edge_clusters: Arc<Cache<EdgeCluster>>,
    models: Arc<Cache<Model>>,
    deployments: Arc<Cache<ModelDeployment>>,
    policies: Arc<Cache<RolloutPolicy>>,
    revisions: Arc<Cache<ModelRevision>>,
    assignments: Arc<Cache<ClusterAssignment>>,
    actions: Arc<Cache<RolloutAction>>,
    heartbeats: Arc<Mutex<Heartbeats>>,
    /// One for each watch: whether it has listed everything once.
    listed: Vec<watch::Receiver<bool>>,
    /// What changed: objects, and clusters (as their Leases) that joined, fell silent or returned.
    pub(crate) feed: Arc<Feed>,
}

impl Caches {
    /// Starts all watches.
    pub(crate) fn start(
        client: &Client,
        gate: &Gate,
        offline_grace_seconds: u32,
        metrics: &Arc<Metrics>,
        tasks: &mut JoinSet<()>,
    ) -> Self {
        let grace = Duration::from_secs(offline_grace_seconds.into());
        let heartbeats = Arc::new(Mutex::new(Heartbeats::new(grace)));
        let feed = Arc::new(Feed::default());
        let mut watches = Watches {
            client,
            gate,
            metrics,
            feed: &feed,
            listed: Vec::new(),
            tasks,
        };
        watches.hear(heartbeats.clone());
        Self {
            edge_clusters: watches.keep(),
            models: watches.keep(),
            deployments: watches.keep(),
            policies: watches.keep(),
            revisions: watches.keep(),
            assignments: watches.keep(),
            actions: watches.keep(),
            heartbeats,
            listed: watches.listed,
            feed,
        }
    }

    /// Caches that no watch fills.
    #[cfg(test)]
    pub(crate) fn unwatched() -> Self {
        fn empty<K: Watched + Resource>() -> Arc<Cache<K>> {
            Arc::new(Cache::new(K::KIND))
        }
        Self {
            edge_clusters: empty(),
            models: empty(),
            deployments: empty(),
            policies: empty(),
            revisions: empty(),
            assignments: empty(),
            actions: empty(),
            heartbeats: Arc::new(Mutex::new(Heartbeats::new(Duration::from_secs(300)))),
            listed: Vec::new(),
            feed: Arc::default(),
        }
    }

    /// Returns once every cache holds what the server had when asked.
    ///
    /// # Errors
    /// When a watch ended, which only a stop does.
    pub(crate) async fn wait_until_ready(&self) -> anyhow::Result<()> {
        for listed in &self.listed {
            listed.clone().wait_for(|listed| *listed).await?;
        }
        Ok(())
    }

    /// One object as it is seen now, or as we wrote it since; none when it is not there.
    pub(crate) fn get<K: Watched + Resource>(&self, key: &ObjectKey) -> Option<Guarded<K>> {
        K::cache(self).get(key)
    }

    /// Follows one object: how it stands now, and each time that it is another; none while it is not there.
    pub(crate) fn follow<K: Watched + Resource>(
        &self,
        key: &ObjectKey,
    ) -> watch::Receiver<Option<Guarded<K>>> {
        K::cache(self).follow(key)
    }

    /// All objects of a kind, by name.
    pub(crate) fn all<K: Watched + Resource>(&self) -> Seen<K> {
        Seen(K::cache(self).all())
    }

    /// Names of all objects.
    pub(crate) fn keys(&self) -> Vec<ObjectKey> {
        let mut keys = self.edge_clusters.keys();
        keys.extend(self.models.keys());
        keys.extend(self.deployments.keys());
        keys.extend(self.policies.keys());
        keys.extend(self.revisions.keys());
        keys.extend(self.assignments.keys());
        keys.extend(self.actions.keys());
        keys
    }

    /// The resource version in which an object is seen now; none when it is not seen.
    pub(crate) fn version(&self, key: &ObjectKey) -> Option<u128> {
        match key.kind {
            Kind::EdgeCluster => self.edge_clusters.version(key),
            Kind::Model => self.models.version(key),
            Kind::ModelDeployment => self.deployments.version(key),
            Kind::RolloutPolicy => self.policies.version(key),
            Kind::ModelRevision => self.revisions.version(key),
            Kind::ClusterAssignment => self.assignments.version(key),
            Kind::RolloutAction => self.actions.version(key),
            Kind::EdgeNode | Kind::Secret | Kind::Lease | Kind::Event => None,
        }
    }

    /// Lays an object that a write of ours was answered with over what is seen.
    pub(crate) fn wrote(&self, kind: Kind, object: DynamicObject) {
        let changed = match kind {
            Kind::EdgeCluster => wrote(&self.edge_clusters, object),
            Kind::Model => wrote(&self.models, object),
            Kind::ModelDeployment => wrote(&self.deployments, object),
            Kind::RolloutPolicy => wrote(&self.policies, object),
            Kind::ModelRevision => wrote(&self.revisions, object),
            Kind::ClusterAssignment => wrote(&self.assignments, object),
            Kind::RolloutAction => wrote(&self.actions, object),
            Kind::EdgeNode | Kind::Secret | Kind::Lease | Kind::Event => None,
        };
        // A revision is made on the way to what somebody asked for: the rest of that way is not kept waiting either.
        self.feed.note(changed, kind == Kind::ModelRevision);
    }

    /// Our own writes that no watch showed yet, and the versions they left.
    pub(crate) fn unshown(&self) -> Vec<(ObjectKey, u128)> {
        let mut unshown = self.edge_clusters.unshown();
        unshown.append(&mut self.models.unshown());
        unshown.append(&mut self.deployments.unshown());
        unshown.append(&mut self.policies.unshown());
        unshown.append(&mut self.revisions.unshown());
        unshown.append(&mut self.assignments.unshown());
        unshown.append(&mut self.actions.unshown());
        unshown
    }

    /// Takes what a server that was asked for an unshown object answered: see [`Cache::asked`].
    pub(crate) fn asked(&self, key: &ObjectKey, version: u128, answer: Option<DynamicObject>) {
        let changed = match key.kind {
            Kind::EdgeCluster => asked(&self.edge_clusters, key, version, answer),
            Kind::Model => asked(&self.models, key, version, answer),
            Kind::ModelDeployment => asked(&self.deployments, key, version, answer),
            Kind::RolloutPolicy => asked(&self.policies, key, version, answer),
            Kind::ModelRevision => asked(&self.revisions, key, version, answer),
            Kind::ClusterAssignment => asked(&self.assignments, key, version, answer),
            Kind::RolloutAction => asked(&self.actions, key, version, answer),
            Kind::EdgeNode | Kind::Secret | Kind::Lease | Kind::Event => None,
        };
        self.feed.mark(changed);
    }

    /// Sets the shortest silence that matters to anyone.
    pub(crate) fn set_patience(&self, patience: Duration) {
        lock(&self.heartbeats).set_patience(patience);
    }

    /// Reads the heartbeats.
    pub(crate) fn heartbeats<T>(&self, read: impl FnOnce(&Heartbeats) -> T) -> T {
        read(&lock(&self.heartbeats))
    }
}

fn lock(heartbeats: &Mutex<Heartbeats>) -> std::sync::MutexGuard<'_, Heartbeats> {
    heartbeats.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An object whose JSON does not even have our metadata is nothing that we wrote.
fn parsed<K: Resource + DeserializeOwned>(object: DynamicObject) -> Option<DeserializeGuard<K>> {
    let value = serde_json::to_value(object).ok()?;
    serde_json::from_value(value).ok()
}

fn wrote<K: Resource + DeserializeOwned>(
    cache: &Cache<K>,
    object: DynamicObject,
) -> Option<ObjectKey> {
    cache.wrote(parsed(object)?)
}

fn asked<K: Resource + DeserializeOwned>(
    cache: &Cache<K>,
    key: &ObjectKey,
    version: u128,
    answer: Option<DynamicObject>,
) -> Option<ObjectKey> {
    let answer = match answer {
        Some(object) => Some(parsed(object)?),
        None => None,
    };
    cache.asked(key, version, answer)
}

struct Watches<'a> {
    client: &'a Client,
    gate: &'a Gate,
    metrics: &'a Arc<Metrics>,
    feed: &'a Arc<Feed>,
    listed: Vec<watch::Receiver<bool>>,
    tasks: &'a mut JoinSet<()>,
}

impl Watches<'_> {
    /// Starts one watch that never ends and fills a cache.
    fn keep<K>(&mut self) -> Arc<Cache<K>>
    where
        K: Watched + Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned,
        K: Send + Sync + 'static,
    {
        let cache = Arc::new(Cache::new(K::KIND));
        let (kept, feed) = (cache.clone(), self.feed.clone());
        let api = Api::all(self.client.clone());
        let gate = self.gate.clone();
        self.follow(K::KIND, api, move |event: Option<Event<_>>| {
            if let Some(event) = event {
                if vanishes(K::KIND, &event) {
                    gate.doubt();
                }
                let asked = kept.is_asked(&event);
                feed.note(kept.apply(event), asked);
            }
            None
        });
        cache
    }

    /// Starts the watch of the heartbeats. Silence is told when its time has come, like anything else that changed.
    fn hear(&mut self, heartbeats: Arc<Mutex<Heartbeats>>) {
        let feed = self.feed.clone();
        let api = Api::namespaced(self.client.clone(), CLUSTERS_NAMESPACE);
        let mut named = None;
        self.follow(Kind::Lease, api, move |event| {
            let now = Instant::now();
            let mut beats = lock(&heartbeats);
            let mut turned = beats.fallen_silent(now);
            let news = event.and_then(|event| note(&mut beats, &mut named, &event, now));
            turned.extend(news.into_iter().flatten());
            let next = beats.next_silence();
            drop(beats);
            feed.mark(turned.into_iter().map(lease));
            next
        });
    }

    /// Follows one kind for ever, and says when it was listed: kube begins the watch again with a growing wait. `on`
    /// is told every event, and is asked anew at the time that it named last.
    fn follow<K>(
        &mut self,
        kind: Kind,
        api: Api<DeserializeGuard<K>>,
        mut on: impl FnMut(Option<Event<DeserializeGuard<K>>>) -> Option<Instant> + Send + 'static,
    ) where
        K: Resource<DynamicType = ()> + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    {
        let (done, listed) = watch::channel(false);
        self.listed.push(listed);
        let (metrics, gate) = (self.metrics.clone(), self.gate.clone());
        self.tasks.spawn(async move {
            let mut pages = Pages::default();
            let begin = |pages: Pages| {
                let config = pages.config(watcher::Config::default());
                Box::pin(watcher(api.clone(), config).default_backoff())
            };
            let mut stream = begin(pages);
            let mut next: Option<Instant> = None;
            loop {
                let wake = async {
                    match next {
                        Some(next) => tokio::time::sleep_until(next.into()).await,
                        None => std::future::pending().await,
                    }
                };
                let event = tokio::select! {
                    () = wake => None,
                    event = stream.next() => match event {
                        None => return,
                        Some(Ok(event)) => Some(event),
                        Some(Err(error)) => {
                            metrics.watch_failed(kind);
                            tracing::warn!(?kind, %error, "watch");
                            gate.doubt();
                            if pages.halved(&error) {
                                stream = begin(pages);
                            }
                            continue;
                        }
                    }
                };
                let all = matches!(event, Some(Event::InitDone));
                next = on(event);
                if all {
                    done.send_replace(true);
                }
            }
        });
    }
}

/// Whether an event says that something is not there any more from which orders follow, or begins to list anew: what was
/// there may have gone with its definition.
fn vanishes<K>(kind: Kind, event: &Event<K>) -> bool {
    match event {
        Event::Delete(_) => matches!(
            kind,
            Kind::EdgeCluster | Kind::ModelDeployment | Kind::ClusterAssignment
        ),
        Event::Init => true,
        _ => false,
    }
}

fn lease(cluster: String) -> ObjectKey {
    ObjectKey {
        kind: Kind::Lease,
        namespace: Some(CLUSTERS_NAMESPACE.to_owned()),
        name: cluster,
    }
}

/// Hands a Lease to the heartbeats; returns which clusters are news to a plan. `named` collects a whole list.
fn note(
    beats: &mut Heartbeats,
    named: &mut Option<BTreeSet<String>>,
    event: &Event<DeserializeGuard<Lease>>,
    now: Instant,
) -> Option<Vec<String>> {
    match event {
        // The leading hub's, which is no cluster's.
        Event::Apply(lease) | Event::InitApply(lease) | Event::Delete(lease)
            if lease.name_any() == HUB_LEADER =>
        {
            None
        }
        Event::Apply(lease) | Event::InitApply(lease) => {
            let name = lease.name_any();
            let parsed = lease.0.as_ref().ok();
            let renewed = parsed.and_then(|lease| lease.spec.as_ref()?.renew_time.clone());
            let news = beats.note(&name, renewed, now);
            if let Some(named) = named
                && matches!(event, Event::InitApply(_))
            {
                named.insert(name.clone());
            }
            news.then(|| vec![name])
        }
        Event::Delete(lease) => {
            let name = lease.name_any();
            beats.forget(&name).then(|| vec![name])
        }
        Event::Init => {
            *named = Some(BTreeSet::new());
            None
        }
        Event::InitDone => named.take().map(|named| beats.keep(&named)),
    }
}

#[cfg(test)]
#[path = "observe_tests.rs"]
mod tests;
