//! How a supervisor begins: the record is read, machines recover, and nothing runs yet.
//!
//! Owns what both ways have in common: a start with the folder's lock, and a standby that gets it later. Must never
//! write more than opening a store does.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use rimward_artifact::registry::Client;
use rimward_artifact::trust::{TRUST_BYTES_MAX, TrustFile};
use rimward_core::node::{Observation, State};
use tokio::sync::{mpsc, watch};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::deployment::Deployment;
use super::host::{Hosts, News};
use super::native::NativeCache;
use super::orders::Orders;
use super::record::DeviceRecord;
use super::trust::{self, Trust};
use super::{Config, EVENTS_MAX, Event, Numbers, Supervisor};
use crate::facts::Facts;
use crate::parse::Key;
use crate::report::Picture;
use crate::store::{Blobs, Found, Lock, RealDisk, Store};

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

/// The supervisor's own ends, and what changes no more with who holds the folder.
#[derive(Debug)]
pub(super) struct Ends {
    pub(super) config: Config,
    pub(super) facts: Facts,
    pub(super) client: Client,
    pub(super) hosts: Hosts,
    pub(super) host_news: mpsc::Receiver<(u64, News)>,
    pub(super) events: mpsc::Sender<Event>,
    pub(super) incoming: mpsc::Receiver<Event>,
    pub(super) picture: watch::Sender<Picture>,
    pub(super) numbers: watch::Sender<Numbers>,
    pub(super) draining: bool,
    pub(super) hurry: CancellationToken,
}

impl Ends {
    pub(super) fn new(
        config: Config,
        client: Client,
        listener: Option<TcpListener>,
    ) -> (Self, Handles) {
        let (events, incoming) = mpsc::channel(EVENTS_MAX);
        let (news, host_news) = mpsc::channel(EVENTS_MAX);
        let (picture, picture_seen) = watch::channel(Picture::blank());
        let (numbers, numbers_seen) = watch::channel(Numbers::default());
        let hurry = CancellationToken::new();
        let handles = Handles {
            events: events.clone(),
            picture: picture_seen,
            numbers: numbers_seen,
            hurry: hurry.clone(),
        };
        let ends = Self {
            facts: Facts::read(&config.data_folder),
            hosts: Hosts::new(config.program.clone(), config.host_limits, listener, news),
            config,
            client,
            host_news,
            events,
            incoming,
            picture,
            numbers,
            draining: false,
            hurry,
        };
        (ends, handles)
    }
}

/// A store that is this agent's, and what its record says.
#[derive(Debug)]
pub(super) struct Recovered {
    store: Store,
    pub(super) cache: NativeCache,
    record: DeviceRecord,
    machines: BTreeMap<Key, State>,
}

impl Recovered {
    /// Opens the store of a folder whose lock is held.
    ///
    /// # Errors
    /// When store, record or cache cannot be opened: an agent that does not know its device's state must not go on.
    pub(super) fn open(folder: &Path, lock: Arc<Lock>, boot_id: &str) -> anyhow::Result<Self> {
        let at = folder.display();
        let opened = Store::open_locked(Arc::new(RealDisk), folder, lock)
            .with_context(|| format!("store {at}"))?;
        if opened.slots_damaged > 0 {
            tracing::warn!(
                slots_damaged = opened.slots_damaged,
                "a state slot holds no valid record; the other one is used"
            );
        }
        let record = decode(opened.found.as_ref()).with_context(|| format!("store {at}"))?;
        let cache = NativeCache::open(folder).with_context(|| format!("native code in {at}"))?;
        let mut machines = BTreeMap::new();
        for (key, record) in &record.deployments {
            let key: Key = key.parse().context("state record")?;
            machines.insert(key, State::recover(record.clone(), boot_id));
        }
        Ok(Self {
            store: opened.store,
            cache,
            record,
            machines,
        })
    }
}

/// Reads a record, or begins one.
///
/// # Errors
/// As [`DeviceRecord::decode`], with the record's number.
pub(super) fn decode(found: Option<&Found>) -> anyhow::Result<DeviceRecord> {
    match found {
        Some(found) => {
            DeviceRecord::decode(&found.bytes).with_context(|| format!("record {}", found.seq))
        }
        None => Ok(DeviceRecord::default()),
    }
}

/// The last trust file that was in force, as it is stored: the fallback for when the file itself cannot be read.
pub(super) fn stored_trust(record: &DeviceRecord, blobs: &Blobs) -> Option<Arc<TrustFile>> {
    let bytes = blobs.read(record.trust?, TRUST_BYTES_MAX);
    TrustFile::parse(&bytes.ok()?).ok().map(Arc::new)
}

impl Supervisor {
    /// Recovers a folder whose lock is held; nothing runs yet.
    ///
    /// # Errors
    /// When store, record or cache cannot be opened: an agent that does not know its device's state
    /// must not go on.
    pub fn open(
        config: Config,
        client: Client,
        lock: Arc<Lock>,
        listener: TcpListener,
    ) -> anyhow::Result<(Self, Handles)> {
        let (ends, handles) = Ends::new(config, client, Some(listener));
        let folder = &ends.config.data_folder;
        let recovered = Recovered::open(folder, lock, &ends.facts.boot_id)?;
        let stored = stored_trust(&recovered.record, &recovered.store.blobs);
        let source = trust::read(&ends.config.trust_file);
        let trust = trust::judge(&ends.config.trust_file, &source, stored);
        let supervisor = Self::begin(ends, recovered, trust, Vec::new());
        Ok((supervisor, handles))
    }

    /// Goes on from what was recovered, with hosts that may be running already.
    pub(super) fn begin(
        ends: Ends,
        recovered: Recovered,
        trust: Trust,
        inherited: Vec<(Key, Observation)>,
    ) -> Self {
        let Ends {
            config,
            facts,
            client,
            hosts,
            host_news,
            events,
            incoming,
            picture,
            numbers,
            draining,
            hurry,
        } = ends;
        let Recovered {
            store,
            cache,
            record,
            machines,
        } = recovered;
        let Store {
            blobs,
            versions,
            slots,
            lock,
        } = store;
        let deployments = machines.into_iter();
        let now = Instant::now();
        Self {
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
            deployments: deployments
                .map(|(key, machine)| (key, Deployment::new(machine)))
                .collect(),
            orders: Orders::default(),
            local_hold: None,
            refused: Vec::new(),
            hosts,
            host_news,
            events,
            incoming,
            picture,
            numbers,
            handover: None,
            inherited,
            started: now,
            sampled: now,
            collect_wanted: true,
            puts: 0,
            recompiled: BTreeSet::new(),
            draining,
            hurry,
        }
    }
}
