//! The hosts: the one that serves, the one that replaces it, and those that leave.
//!
//! Owns the listening sockets for life, restarts, and planned replacement as a lame duck. Must never
//! decide which version serves: it brings hosts to what the machines want.

mod news;
mod process;
mod slots;
mod totals;

use std::collections::BTreeMap;
use std::fs::File;
use std::net::TcpListener;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rimward_core::ids::RevisionName;
use rimward_core::node::Version;
use tokio::sync::mpsc;
use tokio::time::Instant;

pub(super) use process::{Link, News};
pub(super) use slots::{Prepare, Slot, Slots, Stage, Want};
pub use totals::Counts;

use self::totals::Totals;
use super::native::ModuleId;
use crate::parse::Key;
use crate::proto::flight;
use crate::proto::spawn::Program;
use crate::proto::{
    DeploymentSpec, FailReason, FdRole, HostLimits, NativeCodeId, SlotId, SlotStats, ToHost,
    WhatRuns,
};

/// A new host that has not everything loaded by then begins to listen all the same: what is loaded
/// must not wait for what is slow.
const LISTEN_AFTER: Duration = Duration::from_secs(15);
/// A planned replacement that is not complete by then is given up and tried again.
const REPLACE_TIMEOUT: Duration = Duration::from_secs(120);
/// Longer than clients keep idle connections for reuse.
const LAME_DUCK_GRACE: Duration = Duration::from_secs(30);
const RESTART_WAIT_MAX: Duration = Duration::from_secs(30);
/// A host that lived this long was no failed start.
const STEADY_AFTER: Duration = Duration::from_secs(20);

/// Something that the machines must hear.
#[derive(Debug)]
pub(super) enum Heard {
    /// A version can answer.
    Loaded(Slot),
    /// A version cannot be loaded.
    LoadFailed {
        /// The slot, already gone.
        slot: Slot,
        /// Why.
        reason: FailReason,
        /// In words.
        message: String,
    },
    /// What a version answered since the last look.
    Sampled {
        /// The slot.
        slot: Slot,
        /// Counters since it was loaded.
        stats: Box<SlotStats>,
        /// Counters at the look before.
        before: Box<SlotStats>,
    },
    /// The serving host is gone.
    Died(Death),
}

/// How the serving host ended.
#[derive(Debug)]
pub(super) struct Death {
    /// In words.
    pub words: String,
    /// It ended itself for what it held in memory.
    pub over_memory: bool,
    /// The versions that it was loading, or that were at work on a request.
    pub ran: Vec<(Key, Version)>,
}

/// A version whose files were verified, ready to be loaded.
#[derive(Debug)]
pub struct Prepared {
    /// The module that the native code was compiled from.
    pub module: ModuleId,
    /// What the host is told.
    pub spec: DeploymentSpec,
    /// What the native code is.
    pub native: NativeCodeId,
    /// The native code, sealed against change.
    pub code: OwnedFd,
    /// The model file.
    pub model: OwnedFd,
}

/// What the hosts last said about themselves.
#[derive(Debug, Clone, Copy, Default)]
pub struct Gauges {
    /// Requests in flight.
    pub inflight: u64,
    /// Open client connections.
    pub connections: u64,
    /// Threads given up on.
    pub written_off_threads: u64,
    /// Resident memory.
    pub resident_bytes: u64,
    /// Hosts that ended without being asked to.
    pub deaths: u64,
    /// Planned replacements.
    pub replacements: u64,
}

#[derive(Debug)]
struct Host {
    generation: u64,
    link: Link,
    started: Instant,
    ready: bool,
    listening: bool,
    slots: Slots,
    /// What it is at, for when it dies; none where the machine had no memory for it.
    flight: Option<File>,
}

impl Host {
    /// The versions that it was at work for when it last said so.
    fn ran(&self) -> Vec<(Key, Version)> {
        let busy = self.flight.as_ref().map(flight::read).unwrap_or_default();
        let slots = busy.into_iter().filter_map(|id| self.slots.get(id));
        slots
            .map(|slot| (slot.key.clone(), slot.version.clone()))
            .collect()
    }
}

/// A host that was told to leave.
#[derive(Debug)]
struct Leaving {
    link: Link,
    until: Instant,
    /// What it still answers with.
    slots: Slots,
}

/// The hosts of one agent.
#[derive(Debug)]
pub(super) struct Hosts {
    program: Program,
    limits: HostLimits,
    listener: Option<TcpListener>,
    accepts: bool,
    news: mpsc::Sender<(u64, News)>,
    generation: u64,
    serving: Option<Host>,
    replacing: Option<Host>,
    leaving: BTreeMap<u64, Leaving>,
    restart_at: Option<Instant>,
    restarts_in_a_row: u32,
    replace_wanted: Option<Instant>,
    gauges: Gauges,
    totals: Totals,
    draining: bool,
    has_listened: bool,
}

impl Hosts {
    /// Takes the listening socket for life, if there is one yet. No host runs before the first [`Hosts::reconcile`].
    #[must_use]
    pub(super) fn new(
        program: Program,
        limits: HostLimits,
        listener: Option<TcpListener>,
        news: mpsc::Sender<(u64, News)>,
    ) -> Self {
        Self {
            program,
            limits,
            listener,
            accepts: true,
            news,
            generation: 0,
            serving: None,
            replacing: None,
            leaving: BTreeMap::new(),
            restart_at: None,
            restarts_in_a_row: 0,
            replace_wanted: None,
            gauges: Gauges::default(),
            totals: Totals::default(),
            draining: false,
            has_listened: false,
        }
    }

    /// Takes the listening socket for life, where there was none.
    pub(super) fn listen(&mut self, listener: TcpListener) {
        self.listener.get_or_insert(listener);
    }

    /// The listening socket once more.
    #[must_use]
    pub(super) fn listener(&self) -> Option<TcpListener> {
        self.listener.as_ref()?.try_clone().ok()
    }

    /// Says whether hosts may accept connections. One that does already goes on.
    pub(super) fn let_accept(&mut self, accepts: bool) {
        self.accepts = accepts;
    }

    /// Whether a host was let at the listening socket since the agent started: before that nothing is answered, after
    /// it what comes while no host runs waits for the next one.
    #[must_use]
    pub(super) fn has_listened(&self) -> bool {
        self.has_listened
    }

    /// Tells clients that this node will leave soon; it serves on.
    pub(super) fn drain(&mut self) {
        self.draining = true;
        for host in self.serving.iter().chain(&self.replacing) {
            host.link.send(ToHost::Drain {}, Vec::new());
        }
    }

    /// What the hosts last said about themselves.
    #[must_use]
    pub(super) fn gauges(&self) -> Gauges {
        self.gauges
    }

    /// What really runs for a version in the serving host.
    #[must_use]
    pub(super) fn runs(&self, key: &Key, version: &Version) -> Option<(&Slot, &WhatRuns)> {
        let (_, slot) = self.serving.as_ref()?.slots.find(key, version)?;
        match &slot.stage {
            Stage::Loaded(runs) => Some((slot, runs)),
            Stage::Preparing | Stage::Loading | Stage::Unloading => None,
        }
    }

    /// Brings every host a step nearer to what is wanted. Gives what must be prepared, with the
    /// generation of the host it is for.
    pub(super) fn reconcile(&mut self, wants: &[Want]) -> Vec<(u64, Prepare)> {
        let now = Instant::now();
        self.start_missing(now);
        let mut prepares = Vec::new();
        for host in [&mut self.serving, &mut self.replacing]
            .into_iter()
            .flatten()
        {
            let (mut prepare, messages) = host.slots.reconcile(wants);
            prepares.extend(prepare.drain(..).map(|prepare| (host.generation, prepare)));
            for message in messages {
                host.link.send(message, Vec::new());
            }
            let complete = host.slots.is_complete(wants);
            let due = complete || host.started.elapsed() > LISTEN_AFTER;
            if let Some(listener) = &self.listener
                && self.accepts
                && host.ready
                && !host.listening
                && due
            {
                match listener.try_clone() {
                    Ok(listener) => {
                        let fds = vec![(FdRole::RestListener, OwnedFd::from(listener))];
                        host.link.send(ToHost::Listen {}, fds);
                        host.listening = true;
                        self.has_listened = true;
                    }
                    Err(error) => tracing::error!(%error, "cannot hand the listening socket over"),
                }
            }
        }
        self.promote(wants);
        self.end_overdue(now);
        prepares
    }

    fn start_missing(&mut self, now: Instant) {
        if self.serving.is_none() {
            if self.replacing.is_some() {
                self.serving = self.replacing.take();
            } else if self.restart_at.is_none_or(|at| now >= at) {
                self.serving = self.start(now);
            }
        }
        let replace = self.replace_wanted.is_some_and(|at| now >= at);
        if replace && self.replacing.is_none() && self.serving.is_some() {
            self.replace_wanted = None;
            self.replacing = self.start(now);
        }
    }

    fn start(&mut self, now: Instant) -> Option<Host> {
        self.generation += 1;
        match Link::start(&self.program, self.generation, self.news.clone()) {
            Ok(link) => {
                tracing::info!(pid = link.pid, "host started");
                let limits = self.limits;
                let flight = flight::file();
                if let Err(error) = &flight {
                    tracing::warn!(%error, "no flight recorder for the host");
                }
                let flight = flight.ok();
                let theirs = flight.as_ref().and_then(|file| file.try_clone().ok());
                let fds = theirs.map(|file| (FdRole::FlightRecorder, OwnedFd::from(file)));
                link.send(ToHost::Start { limits }, fds.into_iter().collect());
                if self.draining {
                    link.send(ToHost::Drain {}, Vec::new());
                }
                Some(Host {
                    generation: self.generation,
                    link,
                    started: now,
                    ready: false,
                    listening: false,
                    slots: Slots::default(),
                    flight,
                })
            }
            Err(error) => {
                tracing::error!(%error, "cannot start the host");
                self.wait_before_restart(now);
                None
            }
        }
    }

    fn wait_before_restart(&mut self, now: Instant) {
        let wait = match self.restarts_in_a_row {
            0 => Duration::ZERO,
            n => Duration::from_millis(250 << n.min(8)).min(RESTART_WAIT_MAX),
        };
        self.restarts_in_a_row = self.restarts_in_a_row.saturating_add(1);
        self.restart_at = Some(now + wait);
    }

    fn promote(&mut self, wants: &[Want]) {
        let complete = self.replacing.as_ref().is_some_and(|host| {
            let listens = host.listening || !self.accepts || self.listener.is_none();
            host.ready && listens && host.slots.is_complete(wants)
        });
        if !complete {
            return;
        }
        let old = std::mem::replace(&mut self.serving, self.replacing.take());
        if let Some(old) = old {
            self.gauges.replacements += 1;
            self.send_away(old, LAME_DUCK_GRACE, Duration::from_secs(10));
        }
    }

    /// Makes a host a lame duck; `patience` after its grace it is killed.
    fn send_away(&mut self, host: Host, grace: Duration, patience: Duration) {
        let grace_milliseconds = u64::try_from(grace.as_millis()).unwrap_or(u64::MAX);
        let Host {
            generation,
            link,
            slots,
            ..
        } = host;
        link.send(ToHost::LameDuck { grace_milliseconds }, Vec::new());
        let until = Instant::now() + grace + patience;
        self.leaving
            .insert(generation, Leaving { link, until, slots });
    }

    fn end_overdue(&mut self, now: Instant) {
        self.leaving.retain(|_, leaving| now < leaving.until);
        let stuck = self
            .replacing
            .as_ref()
            .is_some_and(|host| host.started.elapsed() > REPLACE_TIMEOUT);
        if stuck {
            tracing::warn!("the replacing host is not ready in time; it is given up");
            self.replacing = None;
            self.replace_wanted = Some(now + REPLACE_TIMEOUT);
        }
        let steady = self
            .serving
            .as_ref()
            .is_some_and(|host| host.started.elapsed() > STEADY_AFTER);
        if steady {
            self.restarts_in_a_row = 0;
        }
    }

    fn host(&mut self, generation: u64) -> Option<&mut Host> {
        [&mut self.serving, &mut self.replacing]
            .into_iter()
            .flatten()
            .find(|host| host.generation == generation)
    }

    /// Asks every host for its counters.
    pub(super) fn ask_stats(&self) {
        let hosts = self.serving.iter().chain(&self.replacing);
        let ready = hosts.filter(|host| host.ready).map(|host| &host.link);
        for link in ready.chain(self.leaving.values().map(|leaving| &leaving.link)) {
            link.send(ToHost::Stats {}, Vec::new());
        }
    }

    /// Asks for a planned replacement of the serving host.
    pub(super) fn replace(&mut self, why: &str) {
        if self.replacing.is_none() && self.replace_wanted.is_none() {
            tracing::warn!(why, "the host will be replaced");
            self.replace_wanted = Some(Instant::now());
        }
    }

    /// Lets the hosts finish what they have begun, for the agent's own end. True while one is left.
    pub(crate) fn finish(&mut self, grace: Duration) -> bool {
        self.replacing = None;
        if let Some(host) = self.serving.take() {
            self.send_away(host, grace, Duration::ZERO);
        }
        !self.leaving.is_empty()
    }

    /// The files of a slot are verified: loads it.
    pub(super) fn prepared(&mut self, generation: u64, id: SlotId, prepared: Prepared) {
        let Some(host) = self.host(generation) else {
            return;
        };
        let Some(slot) = host.slots.get_mut(id) else {
            return;
        };
        let Prepared {
            module,
            spec,
            native,
            code,
            model,
        } = prepared;
        slot.endpoint = Some(spec.endpoint.clone());
        slot.variant = Some(spec.variant.name.clone());
        slot.module = Some(module);
        slot.stage = Stage::Loading;
        let fds = vec![(FdRole::NativeCode, code), (FdRole::Model, model)];
        host.link.send(
            ToHost::Load {
                slot: id,
                spec: Box::new(spec),
                native,
            },
            fds,
        );
    }

    /// The files of a slot cannot be used. Gives the slot, if a host still waited for it; for a
    /// replacing host nothing is lost but the replacement.
    pub(super) fn not_prepared(&mut self, generation: u64, id: SlotId) -> Option<Slot> {
        let slot = self.host(generation)?.slots.remove(id)?;
        self.unless_replacing(generation, slot)
    }

    fn unless_replacing(&mut self, generation: u64, slot: Slot) -> Option<Slot> {
        let replacing = self.replacing.as_ref().map(|host| host.generation);
        if replacing == Some(generation) {
            tracing::warn!(deployment = %slot.key, "the replacing host cannot load what serves; it is given up");
            self.replacing = None;
            self.replace_wanted = Some(Instant::now() + REPLACE_TIMEOUT);
            return None;
        }
        Some(slot)
    }

    /// Counters of every version of the deployments that are here, since the agent started.
    pub(super) fn totals(&self) -> impl Iterator<Item = (&Key, &RevisionName, Counts)> {
        self.totals.iter()
    }

    /// A deployment is gone from the device.
    pub(super) fn forget(&mut self, key: &Key) {
        self.totals.forget(key);
    }

    /// Every slot of the serving host.
    pub(super) fn slots(&self) -> impl Iterator<Item = &Slot> {
        self.serving.iter().flat_map(|host| host.slots.iter())
    }
}
