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
mod orders;
mod record;
mod samples;
mod stage;
mod trust;

use std::collections::BTreeMap;
use std::net::TcpListener;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rimward_artifact::Limits;
use rimward_artifact::registry::Client;
use rimward_artifact::trust::TrustFile;
use rimward_core::ids::{Digest, RevisionName};
use rimward_core::node::{Observation, State};
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

pub use activate::PreflightLimits;
pub use host::{Counts, Gauges};
pub use orders::{Covers, Orders, Refused};
pub use trust::{Trust, watch as watch_trust};

use crate::facts::Facts;
use crate::parse::Key;
use crate::proto::HostLimits;
use crate::proto::SlotId;
use crate::proto::spawn::Program;
use crate::report::Picture;
use crate::store::{Blobs, RealDisk, Slots, Store, Versions};
use activate::NotActivated;
use deployment::Deployment;
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
    /// The REST endpoint, already listening.
    pub listener: TcpListener,
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
}

/// Whether requests should be sent to this node.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Readiness {
    /// What is committed is not loaded yet.
    #[default]
    Starting,
    /// Requests are answered, or wait for the next host.
    Ready,
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
    _store_lock: Arc<crate::store::Lock>,
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
    started: Instant,
    sampled: Instant,
    collect_wanted: bool,
    puts: u64,
    recompiled: std::collections::BTreeSet<Digest>,
    draining: bool,
    hurry: CancellationToken,
}

/// The supervisor's ends for the other tasks.
#[derive(Debug, Clone)]
pub struct Handles {
    /// Where events go.
    pub events: mpsc::Sender<Event>,
    /// The node as it is.
    pub picture: watch::Receiver<Picture>,
    /// Counters.
    pub numbers: watch::Receiver<Numbers>,
    /// Cancelled by whoever will not wait for clients when the agent stops.
    pub hurry: CancellationToken,
}

impl Supervisor {
    /// Opens the store and recovers; nothing runs yet.
    ///
    /// # Errors
    /// When store, record or cache cannot be opened: an agent that does not know its device's state
    /// must not go on.
    pub fn open(config: Config, client: Client) -> anyhow::Result<(Self, Handles)> {
        let folder = config.data_folder.display();
        let opened = Store::open(Arc::new(RealDisk), &config.data_folder)
            .with_context(|| format!("store {folder}"))?;
        if opened.slots_damaged > 0 {
            tracing::warn!(
                slots_damaged = opened.slots_damaged,
                "a state slot holds no valid record; the other one is used"
            );
        }
        let record = match &opened.found {
            Some(found) => DeviceRecord::decode(&found.bytes)
                .with_context(|| format!("store {folder}, record {}", found.seq))?,
            None => DeviceRecord::default(),
        };
        let Store {
            blobs,
            versions,
            slots,
            lock,
        } = opened.store;
        let cache = NativeCache::open(&config.data_folder)
            .with_context(|| format!("native code in {folder}"))?;
        let facts = Facts::read(&config.data_folder);
        // The stored copy is only the fallback; the file itself is what counts.
        let stored_trust = record.trust.and_then(|digest| {
            let bytes = blobs.read(digest, rimward_artifact::trust::TRUST_BYTES_MAX);
            TrustFile::parse(&bytes.ok()?).ok().map(Arc::new)
        });
        let source = trust::read(&config.trust_file);
        let trust = trust::judge(&config.trust_file, &source, stored_trust);
        let (events, incoming) = mpsc::channel(EVENTS_MAX);
        let (news, host_news) = mpsc::channel(EVENTS_MAX);
        let listener = config.listener.try_clone().context("listening socket")?;
        let hosts = Hosts::new(config.program.clone(), config.host_limits, listener, news);
        let (picture, picture_seen) = watch::channel(Picture::blank());
        let (numbers, numbers_seen) = watch::channel(Numbers::default());
        let mut deployments = BTreeMap::new();
        for (key, record) in &record.deployments {
            let key: Key = key.parse().context("state record")?;
            let machine = State::recover(record.clone(), facts.boot_id.clone());
            deployments.insert(key, Deployment::new(machine));
        }
        let now = Instant::now();
        let supervisor = Self {
            config,
            facts,
            client,
            blobs,
            versions,
            slots: Some(slots),
            _store_lock: lock,
            cache,
            record,
            trust,
            deployments,
            orders: Orders::default(),
            local_hold: None,
            refused: Vec::new(),
            hosts,
            host_news,
            events: events.clone(),
            incoming,
            picture,
            numbers,
            started: now,
            sampled: now,
            collect_wanted: true,
            puts: 0,
            recompiled: std::collections::BTreeSet::new(),
            draining: false,
            hurry: CancellationToken::new(),
        };
        let handles = Handles {
            events,
            picture: picture_seen,
            numbers: numbers_seen,
            hurry: supervisor.hurry.clone(),
        };
        Ok((supervisor, handles))
    }

    /// Runs until it is told to stop. Must be polled by a thread that outlives it (the main one):
    /// children die with the thread that started them.
    ///
    /// # Errors
    /// When the state record could not be made durable and nobody knows what is: the process must
    /// end and recover.
    pub async fn run(mut self) -> anyhow::Result<()> {
        self.keep_trust().await?;
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
                self.finish().await;
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
            Event::Stop => Ok(()),
        }
    }

    /// Lets requests in flight end, within a few seconds: whoever stops the agent waits for it.
    async fn finish(&mut self) {
        tracing::info!("stopping");
        let deadline = Instant::now() + FINISH_GRACE + Duration::from_secs(2);
        let mut left = self.hosts.finish(FINISH_GRACE);
        while left {
            let news = tokio::select! {
                news = tokio::time::timeout_at(deadline, self.host_news.recv()) => news,
                () = self.hurry.cancelled() => return,
            };
            match news {
                Ok(Some((generation, news))) => {
                    self.hosts.news(generation, news);
                    left = self.hosts.finish(FINISH_GRACE);
                }
                Ok(None) | Err(_) => return,
            }
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
