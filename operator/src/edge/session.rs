//! A sync session: one edge cluster's link to its hub, the same code for pull and for push.
//!
//! Owns the mirror, EdgeNode specs, the assignment's status and the cluster's heartbeat. It wires
//! watches, heartbeat and the loop observe → parse → plan → apply → status together; decisions are
//! `rimward_core::cluster::plan`'s. A hub that is away, for whatever reason, changes nothing here.

use std::future::Future;
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::coordination::v1::Lease;
use kube::runtime::reflector;
use kube::runtime::watcher::{Config, Event};
use kube::{Api, Client, ResourceExt as _};
use rimward_core::ids::ClusterName;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::link::Link;
use super::liveness::{Liveness, Sight};
use super::observe::{Assignment, Node, Observed};
use super::reconcile::{Reconciler, Surroundings};
use super::status::Facts;
use super::told::{self, Told};
use super::unsettled::Unsettled;
use super::watch::{Reach, Watching};
use crate::definitions::Gate;
use crate::election::Leadership;
use crate::metrics::{Kind, Metrics};
use crate::objects::{EDGE_LEADER, NODES_NAMESPACE};
use crate::probes::Readiness;

/// Field manager of everything that a session writes.
pub(crate) const FIELD_MANAGER: &str = "rimward-sync";

/// How long one request to an API server may take.
pub(crate) const REQUEST_SECONDS_MAX: u64 = 10;

/// Events within this time become one plan.
const SETTLE: Duration = Duration::from_millis(50);

/// How a session behaves.
#[derive(Clone, Debug)]
pub(crate) struct SessionOptions {
    /// Who holds the cluster's Lease: names the process that runs the session.
    pub(crate) holder: String,
    /// Seconds between two heartbeats, at least 1.
    pub(crate) heartbeat_seconds: u32,
    /// Everything is planned again at least this often, in seconds; at least 1.
    pub(crate) resync_seconds: u32,
    /// A node whose Lease did not change for so long is silent; at least 1.
    pub(crate) node_silence_seconds: u32,
    /// The longest wait before an API server that is away is tried again, in seconds; at least 1.
    pub(crate) retry_seconds_max: u32,
    /// Told once everything of the edge cluster's own was listed; the hub has no part in it.
    pub(crate) readiness: Readiness,
    /// Where the session counts.
    pub(crate) metrics: Arc<Metrics>,
    /// Asked before each write.
    pub(crate) leadership: Leadership,
    /// Whether the edge cluster has the definitions that are needed: told when something of its own vanished.
    pub(crate) definitions: Gate,
}

/// A node's silence is this many looks long: so a process that did not run for a part of it knows that.
const LOOKS_PER_SILENCE: u32 = 8;

/// Why a session cannot run.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SessionError {
    /// An option that must be at least 1 is 0.
    #[error("session option {0} must be at least 1")]
    Zero(&'static str),
}

/// Runs the session of `cluster` until `shutdown`.
///
/// `hub` and `edge` may be one cluster. Neither needs to answer: the session waits for both, and paces
/// nodes from the mirror while the hub is away. `told`: how it hears of its assignment, where it runs on the hub;
/// without, it has a watch of its own. `unsettled`: what earlier sessions of this process wrote without an answer, and
/// what this one leaves, however it ends.
///
/// # Errors
/// [`SessionError`] when the options make no sense; nothing that a network does ends a session.
pub(crate) async fn run(
    hub: Client,
    told: Option<Told>,
    edge: Client,
    cluster: ClusterName,
    options: SessionOptions,
    unsettled: &mut Unsettled,
    shutdown: CancellationToken,
) -> Result<(), SessionError> {
    for (name, value) in [
        ("heartbeat_seconds", options.heartbeat_seconds),
        ("resync_seconds", options.resync_seconds),
        ("node_silence_seconds", options.node_silence_seconds),
        ("retry_seconds_max", options.retry_seconds_max),
    ] {
        if value == 0 {
            return Err(SessionError::Zero(name));
        }
    }
    let seconds = |number: u32| Duration::from_secs(u64::from(number));
    let silence = seconds(options.node_silence_seconds);
    let liveness = Mutex::new(Liveness::new(silence, Instant::now()));
    let facts = Mutex::new(Facts::default());
    let (wake, hub_back) = (Notify::new(), Notify::new());
    let (leases_again, never) = (Notify::new(), Notify::new());
    let hub_away = AtomicBool::new(false);
    let watching = Watching {
        metrics: options.metrics.clone(),
        retry_max: seconds(options.retry_seconds_max),
        shutdown: shutdown.clone(),
    };
    let link = Link {
        hub: hub.clone(),
        edge: edge.clone(),
        cluster: &cluster,
        holder: &options.holder,
        beat_seconds: options.heartbeat_seconds,
        retry_max: watching.retry_max,
        metrics: &options.metrics,
        facts: &facts,
        hub_away: &hub_away,
        hub_back: &hub_back,
        wake: &wake,
    };

    // The account may list and watch its own assignment only: the field selector is what allows it.
    let own = Config::default().fields(&format!("metadata.name={cluster}"));
    let (hub_store, mut hub_writer) = reflector::store::<Assignment>();
    let (edge_store, mut edge_writer) = reflector::store::<Assignment>();
    let (node_store, mut node_writer) = reflector::store::<Node>();
    let (hub_reach, edge_reach) = (Reach::default(), Reach::default());
    let (node_reach, lease_reach) = (Reach::default(), Reach::that_lists_anew());
    let mut on_hub = |event| {
        hub_writer.apply_watcher_event(&event);
        wake.notify_one();
    };
    let (on_hub_api, own_on_hub) = (Api::all(hub.clone()), own.clone());
    let watch_hub = async {
        match told {
            Some(told) => told::follow(told, &shutdown, on_hub).await,
            None => {
                let kind = Kind::ClusterAssignment;
                let (reach, again) = (&hub_reach, &hub_back);
                let on = |news: Option<_>| news.into_iter().for_each(&mut on_hub);
                let watch = watching.follow(kind, on_hub_api, own_on_hub, reach, again, on);
                watch.await;
            }
        }
    };
    let watch_mirror = watching.follow(
        Kind::ClusterAssignment,
        Api::all(edge.clone()),
        own,
        &edge_reach,
        &never,
        |news| {
            doubts(&options.definitions, news.as_ref());
            if let Some(event) = news {
                edge_writer.apply_watcher_event(&event);
                wake.notify_one();
            }
        },
    );
    let watch_nodes = watching.follow(
        Kind::EdgeNode,
        Api::all(edge.clone()),
        Config::default(),
        &node_reach,
        &never,
        |news| {
            doubts(&options.definitions, news.as_ref());
            if let Some(event) = news {
                node_writer.apply_watcher_event(&event);
                wake.notify_one();
            }
        },
    );
    let watch_leases = watching.follow::<Lease>(
        Kind::Lease,
        Api::namespaced(edge.clone(), NODES_NAMESPACE),
        Config::default(),
        &lease_reach,
        &leases_again,
        |news| {
            let now = Instant::now();
            let mut liveness = liveness.lock().unwrap_or_else(PoisonError::into_inner);
            let (lease, sight) = match news {
                None => return liveness.deaf(now),
                // Begun, not answered yet.
                Some(Event::Init) => return,
                Some(Event::InitDone | Event::Delete(_)) => return liveness.listens(now),
                // The leading operator's, which is no node's.
                Some(Event::InitApply(lease) | Event::Apply(lease))
                    if lease.name_any() == EDGE_LEADER =>
                {
                    return liveness.listens(now);
                }
                Some(Event::InitApply(lease)) => (lease, Sight::Listed),
                Some(Event::Apply(lease)) => (lease, Sight::Watched),
            };
            liveness.listens(now);
            let renewed = lease.0.as_ref().ok().and_then(renew_time);
            if liveness.saw(&lease.name_any(), renewed, sight, now) {
                wake.notify_one();
            }
        },
    );
    let listen = async {
        let every = silence / LOOKS_PER_SILENCE;
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = tokio::time::sleep(every) => {}
            }
            let mut liveness = liveness.lock().unwrap_or_else(PoisonError::into_inner);
            if liveness.quiet(Instant::now()) {
                leases_again.notify_one();
            }
        }
    };
    let reconcile = async {
        let resync = seconds(options.resync_seconds);
        let surroundings = Surroundings {
            cluster: &cluster,
            metrics: &options.metrics,
            leadership: &options.leadership,
            hub_away: &hub_away,
            patience: resync,
            retry_max: watching.retry_max,
        };
        let mut reconciler = Reconciler::new(hub, edge, surroundings, unsettled);
        loop {
            if edge_reach.listed() && node_reach.listed() {
                options.readiness.set();
                let observed = Observed::new(&hub_store, &edge_store, &node_store);
                let facts = facts.lock().unwrap_or_else(PoisonError::into_inner).clone();
                let started = Instant::now();
                let next = reconciler.reconcile(observed, &facts, &liveness).await;
                options.metrics.planned(started.elapsed().as_secs_f64());
                let wait = next.map_or(resync, |next| next.min(resync));
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = wake.notified() => tokio::time::sleep(SETTLE).await,
                    () = tokio::time::sleep(wait) => {}
                }
            } else {
                tokio::select! {
                    () = shutdown.cancelled() => return,
                    () = wake.notified() => {}
                }
            }
        }
    };
    tracing::info!(%cluster, "session begins");
    tokio::join!(
        link.run(&shutdown),
        watch_hub,
        watch_mirror,
        watch_nodes,
        watch_leases,
        listen,
        reconcile
    );
    tracing::info!(%cluster, "session ends");
    Ok(())
}

/// A watch that broke off, begins anew or shows an end: what was there may have gone with its definition.
fn doubts<K>(definitions: &Gate, news: Option<&Event<K>>) {
    if matches!(news, None | Some(Event::Init | Event::Delete(_))) {
        definitions.doubt();
    }
}

fn renew_time(lease: &Lease) -> Option<String> {
    let renewed = lease.spec.as_ref()?.renew_time.as_ref()?;
    Some(renewed.0.to_string())
}

/// Bounds one request in time; none when it took too long.
pub(crate) async fn bounded<T>(request: impl Future<Output = T>) -> Option<T> {
    let longest = Duration::from_secs(REQUEST_SECONDS_MAX);
    tokio::time::timeout(longest, request).await.ok()
}
