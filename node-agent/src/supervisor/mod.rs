//! The supervisor: one loop over one closed enum of events, running the machines' effects.
//!
//! Owns the store, the machines and the hosts. Must never decide how a deployment changes version
//! ([`rimward_core::node`] does), never talk to Kubernetes (watch and report do), and never let
//! anything run that was not verified on this device just before.

mod activate;
mod check;
mod deployment;
mod effects;
mod host;
mod native;
mod observe;
mod open;
mod orders;
mod record;
mod samples;
mod stage;
mod standby;
mod trust;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use rimward_artifact::Limits;
use rimward_artifact::registry::Client;
use rimward_core::ids::{Digest, RevisionName};
use rimward_core::node::Observation;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use activate::PreflightLimits;
pub use host::{Counts, Gauges};
pub use open::Handles;
pub use orders::{Covers, Orders, Refused};
pub use standby::Standby;
pub use trust::{Trust, watch as watch_trust};

use crate::facts::Facts;
use crate::handover::holder;
use crate::parse::Key;
use crate::proto::HostLimits;
use crate::proto::SlotId;
use crate::proto::spawn::Program;
use crate::report::Picture;
use crate::store::{Blobs, Lock, Slots, Versions};
use activate::NotActivated;
use deployment::{Deployment, Task};
use host::{Hosts, News, Prepared};
use native::NativeCache;
use record::DeviceRecord;
use stage::StageError;

/// Events waiting for the loop.
const EVENTS_MAX: usize = 256;
/// How long clients with idle connections are waited for when the agent stops.
const FINISH_GRACE: Duration = Duration::from_secs(3);
const TICK: Duration = Duration::from_millis(500);
/// How often the hosts are asked for counters: often while something is in trial.
const SAMPLE_PERIOD: Duration = Duration::from_secs(1);
const SAMPLE_PERIOD_IDLE: Duration = Duration::from_secs(15);

/// Everything that can happen to the supervisor.
#[derive(Debug)]
pub enum Event {
    /// The orders were read.
    Orders(Orders),
    /// The trust file's bytes changed.
    Trust(trust::Source),
    /// What is shown to registries, or who they are trusted to be, changed.
    Registry(Client),
    /// A staging task ended.
    Staged(Key, RevisionName, Result<Digest, StageError>),
    /// A preflight ended.
    Preflighted(Key, RevisionName, Result<(), NotActivated>),
    /// A version's files were verified for a host's slot.
    Prepared(u64, SlotId, Box<Result<Prepared, NotActivated>>),
    /// A host said something.
    Host(u64, News),
    /// Time passed.
    Tick,
    /// The site holds updates back by the file in the data folder, or lets them go.
    LocalHold(Option<String>),
    /// The host is to be replaced, without losing a request.
    ReplaceHost,
    /// The agent will stop soon: it is told as not ready, and serves on.
    Drain,
    /// The agent that holds the folder accepts no more connections.
    HolderLeaves,
    /// The agent is to stop.
    Stop,
}

/// What the supervisor is made from.
#[derive(Debug)]
pub struct Config {
    /// The store's folder.
    pub data_folder: PathBuf,
    /// The device's trust file.
    pub trust_file: PathBuf,
    /// Where the REST endpoint is to listen.
    pub listen: SocketAddr,
    /// The host and port that status names.
    pub advertise: String,
    /// What packages may contain.
    pub limits: Limits,
    /// Bounds of the host.
    pub host_limits: HostLimits,
    /// Bounds of a preflight.
    pub preflight_limits: PreflightLimits,
    /// The program that host and preflight are.
    pub program: Program,
}

/// The supervisor's counters, for metrics.
#[derive(Debug, Clone, Default)]
pub struct Numbers {
    /// The hosts' own.
    pub hosts: Gauges,
    /// Durable writes of the state record since start.
    pub puts: u64,
    /// Sequence number of the state record.
    pub seq: u64,
    /// Per deployment and revision.
    pub models: Vec<(String, String, Counts)>,
    /// When the supervisor's loop last came round; none before the first time.
    pub turned: Option<Instant>,
    /// Whether requests should be sent here, as far as the agent is concerned.
    pub readiness: Readiness,
    /// Whether another agent holds the data folder.
    pub is_standby: bool,
}

/// Whether requests should be sent to this node.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Readiness {
    /// What is committed is not loaded yet.
    #[default]
    Starting,
    /// Requests are answered, or wait for the next host.
    Ready,
    /// Another agent holds the data folder; whether this one could answer in its place, and in which words.
    Standby(bool, String),
    /// The agent will leave soon.
    Draining,
}

/// The supervisor.
#[derive(Debug)]
pub struct Supervisor {
    config: Config,
    facts: Facts,
    client: Client,
    blobs: Blobs,
    versions: Versions,
    slots: Option<Slots>,
    _store_lock: Arc<Lock>,
    cache: NativeCache,
    record: DeviceRecord,
    trust: Trust,
    deployments: BTreeMap<Key, Deployment>,
    orders: Orders,
    local_hold: Option<String>,
    refused: Vec<Refused>,
    hosts: Hosts,
    host_news: mpsc::Receiver<(u64, News)>,
    events: mpsc::Sender<Event>,
    incoming: mpsc::Receiver<Event>,
    picture: watch::Sender<Picture>,
    numbers: watch::Sender<Numbers>,
    /// Offers the listening socket to the agent that comes after this one.
    handover: Option<Task>,
    /// What a standby had found out before it took over.
    inherited: Vec<(Key, Observation)>,
    started: Instant,
    sampled: Instant,
    collect_wanted: bool,
    puts: u64,
    recompiled: std::collections::BTreeSet<Digest>,
    draining: bool,
    hurry: CancellationToken,
}

impl Supervisor {
    /// Runs until it is told to stop. Must be polled by a thread that outlives it (the main one):
    /// children die with the thread that started them.
    ///
    /// # Errors
    /// When the state record could not be made durable and nobody knows what is: the process must
    /// end and recover.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.handover = self.hosts.listener().map(|listener| {
            let (folder, listen) = (self.config.data_folder.clone(), self.config.listen);
            Task::spawn(holder::offer(folder, listener, listen))
        });
        self.keep_trust().await?;
        for (key, observation) in std::mem::take(&mut self.inherited) {
            self.observe(&key, observation).await?;
        }
        let mut tick = interval(TICK);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                // Hosts first: what they say of the present must not wait behind orders for later.
                biased;
                Some((generation, news)) = self.host_news.recv() => Event::Host(generation, news),
                Some(event) = self.incoming.recv() => event,
                _ = tick.tick() => Event::Tick,
            };
            if matches!(event, Event::Stop) {
                // First: whoever stops the agent may not wait for the rest.
                for key in self.keys() {
                    self.observe(&key, Observation::Stopping).await?;
                }
                tracing::info!("stopping");
                // Whoever stands by accepts from here on, whoever comes next finds the socket's queue.
                self.handover = None;
                finish(&mut self.hosts, &mut self.host_news, &self.hurry).await;
                return Ok(());
            }
            self.handle(event).await?;
            self.collect().await;
            self.reconcile_hosts();
            self.publish();
        }
    }

    async fn handle(&mut self, event: Event) -> anyhow::Result<()> {
        match event {
            // What began goes on; nothing more is begun.
            Event::Orders(_) if self.draining => Ok(()),
            Event::Orders(orders) => self.take_orders(orders).await,
            Event::Trust(source) => self.take_trust(source).await,
            Event::Registry(client) => {
                self.client = client;
                for key in self.keys() {
                    self.observe(&key, Observation::TrustChanged).await?;
                }
                Ok(())
            }
            Event::Staged(key, revision, result) => {
                self.observe(&key, effects::staged(revision, result)).await
            }
            Event::Preflighted(key, revision, result) => {
                let observation = effects::preflighted(revision, result);
                self.observe(&key, observation).await
            }
            Event::Prepared(generation, slot, result) => {
                self.take_prepared(generation, slot, *result).await
            }
            Event::Host(generation, news) => match self.hosts.news(generation, news) {
                Some(heard) => self.hear(heard).await,
                None => Ok(()),
            },
            Event::Tick => self.tick().await,
            Event::LocalHold(reason) => {
                self.local_hold = reason;
                self.hold_all().await
            }
            Event::ReplaceHost => {
                self.hosts.replace("asked for by signal");
                Ok(())
            }
            Event::Drain => {
                self.draining = true;
                self.hosts.drain();
                Ok(())
            }
            // It is its own holder.
            Event::HolderLeaves | Event::Stop => Ok(()),
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    async fn tick(&mut self) -> anyhow::Result<()> {
        let in_trial = self.deployments.values().any(Deployment::is_in_trial);
        let period = if in_trial {
            SAMPLE_PERIOD
        } else {
            SAMPLE_PERIOD_IDLE
        };
        if self.sampled.elapsed() >= period {
            self.sampled = Instant::now();
            self.hosts.ask_stats();
        }
        for key in self.keys() {
            self.observe(&key, Observation::Tick).await?;
        }
        Ok(())
    }
}

/// Lets requests in flight end, within a few seconds: whoever stops the agent waits for it.
async fn finish(
    hosts: &mut Hosts,
    host_news: &mut mpsc::Receiver<(u64, News)>,
    hurry: &CancellationToken,
) {
    let deadline = Instant::now() + FINISH_GRACE + Duration::from_secs(2);
    let mut left = hosts.finish(FINISH_GRACE);
    while left {
        let news = tokio::select! {
            news = tokio::time::timeout_at(deadline, host_news.recv()) => news,
            () = hurry.cancelled() => return,
        };
        match news {
            Ok(Some((generation, news))) => {
                hosts.news(generation, news);
                left = hosts.finish(FINISH_GRACE);
            }
            Ok(None) | Err(_) => return,
        }
    }
}
