//! An agent that stands by: it serves what the holder of the folder has committed, and takes over when that lets go.
//!
//! Owns hosts of its own, and nothing durable. Must never write to the folder (what it reads through refuses to), never
//! stage, try or commit, and never report: all of that is the holder's, for as long as there is one.

use std::collections::{BTreeMap, BTreeSet};
use std::net::TcpListener;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rimward_artifact::registry::Client;
use rimward_core::ids::Digest;
use rimward_core::node::{
    Follower, Observation, Problem, Reason, Sight, Situation, Socket, Stand, Version, stand,
};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::activate::{Activate, NotActivated, reason};
use super::check::{Checker, Floors};
use super::deployment::Task;
use super::host::{Heard, Slot, Want};
use super::native::NativeCache;
use super::observe::prepare_slot;
use super::open::{Ends, Recovered, decode, stored_trust};
use super::record::DeviceRecord;
use super::trust::{self, Trust};
use super::{Config, Event, Handles, Numbers, Readiness, Supervisor, finish};
use crate::handover::join::join;
use crate::parse::Key;
use crate::proto::FailReason;
use crate::store::{Lock, OpenError, Reader};

/// How often the holder's record and lock are looked at; what it commits is followed within that, and loading.
const LOOK_PERIOD: Duration = Duration::from_millis(100);
/// How often a socket is asked for, where there is none yet.
const SOCKET_PERIOD: Duration = Duration::from_millis(500);
/// How long the address may still be in use once the holder is gone: its host dies a moment after it.
const IN_USE_WITHIN: Duration = Duration::from_secs(10);
/// Between two tries to take over a folder that does not let itself be opened.
const TAKE_OVER_PERIOD: Duration = Duration::from_secs(5);

/// The standby.
#[derive(Debug)]
pub struct Standby {
    ends: Ends,
    reader: Reader,
    cache: NativeCache,
    record: DeviceRecord,
    seq: u64,
    trust: Trust,
    followers: BTreeMap<Key, Follower>,
    socket: Socket,
    asked_at: Option<Instant>,
    holder_accepts: bool,
    /// Notices when the holder accepts no more.
    conversation: Option<Task>,
    lock: Option<(Arc<Lock>, Instant)>,
    retry_at: Option<Instant>,
    /// Once ready it stays so: what is committed later is loaded while what was answers.
    was_ready: bool,
    /// What keeps it from following or taking over, to be told once.
    problem: Option<String>,
    started: Instant,
    recompiled: BTreeSet<Digest>,
}

impl Standby {
    /// Reads what the folder's holder has committed; nothing runs yet.
    ///
    /// # Errors
    /// When the record is not one that this agent understands, or there is no memory for keys.
    pub fn open(config: Config, client: Client) -> anyhow::Result<(Self, Handles)> {
        let folder = config.data_folder.clone();
        let mut reader = Reader::open(&folder);
        let news = reader
            .news()
            .with_context(|| format!("store {}", folder.display()))?;
        let found = news.flatten();
        let record =
            decode(found.as_ref()).with_context(|| format!("store {}", folder.display()))?;
        let cache = NativeCache::read(&folder).context("native code")?;
        let stored = stored_trust(&record, &reader.blobs);
        let source = trust::read(&config.trust_file);
        let trust = trust::judge(&config.trust_file, &source, stored);
        let (ends, handles) = Ends::new(config, client, None);
        let mut standby = Self {
            ends,
            reader,
            cache,
            record: DeviceRecord::default(),
            seq: found.map_or(0, |found| found.seq),
            trust,
            followers: BTreeMap::new(),
            socket: Socket::None,
            asked_at: None,
            holder_accepts: true,
            conversation: None,
            lock: None,
            retry_at: None,
            was_ready: false,
            problem: None,
            started: Instant::now(),
            recompiled: BTreeSet::new(),
        };
        standby.take_record(record)?;
        Ok((standby, handles))
    }

    /// Stands by until the folder is its own, or it is told to stop: then there is no supervisor. Must be polled by a
    /// thread that outlives it, as [`Supervisor::run`].
    ///
    /// # Errors
    /// When the holder is gone, and the address to listen on is still somebody else's.
    pub async fn run(mut self) -> anyhow::Result<Option<Supervisor>> {
        let mut tick = interval(LOOK_PERIOD);
        tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let event = tokio::select! {
                biased;
                Some((generation, news)) = self.ends.host_news.recv() => Event::Host(generation, news),
                Some(event) = self.ends.incoming.recv() => event,
                _ = tick.tick() => Event::Tick,
            };
            if matches!(event, Event::Stop) {
                let Ends {
                    hosts,
                    host_news,
                    hurry,
                    ..
                } = &mut self.ends;
                tracing::info!("stopping; another agent holds the folder");
                finish(hosts, host_news, hurry).await;
                return Ok(None);
            }
            self.handle(event);
            self.look_at_lock();
            self.follow();
            self.find_socket().await?;
            let stand = self.stand();
            self.ends.hosts.let_accept(stand.accepts);
            self.reconcile_hosts();
            self.was_ready |= stand.is_ready;
            self.publish();
            if stand.takes_over
                && let Some(recovered) = self.recover()
            {
                return Ok(Some(self.take_over(recovered)));
            }
        }
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
    }

    fn see(&mut self, key: &Key, sight: Sight) {
        let now = self.now();
        if let Some(follower) = self.followers.get_mut(key) {
            *follower = std::mem::take(follower).see(sight, now);
        }
    }

    fn see_all(&mut self, sight: &Sight) {
        for key in self.keys() {
            self.see(&key, sight.clone());
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.followers.keys().cloned().collect()
    }

    fn handle(&mut self, event: Event) {
        match event {
            Event::Tick => self.see_all(&Sight::Tick),
            Event::Trust(source) => self.take_trust(&source),
            Event::Registry(client) => self.ends.client = client,
            Event::Prepared(generation, id, result) => match *result {
                Ok(prepared) => self.ends.hosts.prepared(generation, id, prepared),
                Err(error) => {
                    if let Some(slot) = self.ends.hosts.not_prepared(generation, id) {
                        self.pass_over(&slot, error);
                    }
                }
            },
            Event::Host(generation, news) => {
                if let Some(heard) = self.ends.hosts.news(generation, news) {
                    self.hear(heard);
                }
            }
            Event::ReplaceHost => self.ends.hosts.replace("asked for by signal"),
            Event::Drain => {
                self.ends.draining = true;
                self.ends.hosts.drain();
            }
            Event::HolderLeaves => {
                tracing::info!("the holder accepts no more connections; this agent does");
                self.holder_accepts = false;
            }
            // The holder's: orders are read by it, and it stages and tries by them.
            Event::Orders(_)
            | Event::LocalHold(_)
            | Event::Staged(..)
            | Event::Preflighted(..)
            | Event::Stop => {}
        }
    }

    fn hear(&mut self, heard: Heard) {
        match heard {
            Heard::Loaded(slot) => self.see(&slot.key, Sight::Loaded(slot.version.revision)),
            Heard::LoadFailed {
                slot,
                reason: FailReason::NativeCodeRefused,
                message,
            } if self.recompiled.insert(slot.version.install) => {
                tracing::info!(deployment = %slot.key, message, "native code is compiled for this agent");
                if let Some(module) = slot.module {
                    self.cache.forget(module);
                }
            }
            Heard::LoadFailed {
                slot,
                reason: failed,
                message,
            } => {
                let problem = Problem::new(Reason::new(reason(failed)), message);
                self.pass_over(&slot, NotActivated::Failed(problem));
            }
            Heard::Died(_) => self.see_all(&Sight::HostDied),
            // A judgement is the holder's.
            Heard::Sampled { .. } => {}
        }
    }

    fn pass_over(&mut self, slot: &Slot, error: NotActivated) {
        let revision = slot.version.revision.clone();
        tracing::warn!(deployment = %slot.key, %revision, ?error, "committed, and not loaded here");
        let sight = match error {
            NotActivated::Unsound(problem) => Sight::Unsound(revision, problem),
            NotActivated::Failed(problem)
            | NotActivated::Unavailable(problem)
            | NotActivated::Interrupted(problem) => Sight::CannotRun(revision, problem),
        };
        self.see(&slot.key, sight);
    }

    /// Takes the folder's lock once its holder is gone, however it went.
    fn look_at_lock(&mut self) {
        if self.lock.is_some() {
            return;
        }
        match Lock::take_over(&self.ends.config.data_folder) {
            Ok(lock) => {
                tracing::info!("the folder's holder is gone; this agent takes over");
                self.lock = Some((Arc::new(lock), Instant::now()));
            }
            Err(OpenError::Locked) => {}
            Err(error) => self.tell(format!(
                "the folder's lock: {}",
                super::check::words(&error)
            )),
        }
    }

    /// Goes after what the holder has put since the last look. With the lock it is the last record there is.
    fn follow(&mut self) {
        let outcome = match self.reader.news() {
            Ok(None) => return,
            Ok(Some(found)) => {
                self.seq = found.as_ref().map_or(0, |found| found.seq);
                decode(found.as_ref()).and_then(|record| self.take_record(record))
            }
            Err(error) => Err(error.into()),
        };
        match outcome {
            Ok(()) => self.problem = None,
            Err(error) => self.tell(format!("the holder's record cannot be followed: {error:#}")),
        }
    }

    fn take_record(&mut self, record: DeviceRecord) -> anyhow::Result<()> {
        let now = self.now();
        let mut followers = BTreeMap::new();
        for (key, record) in &record.deployments {
            let key: Key = key.parse().context("state record")?;
            let follower = self.followers.get(&key).cloned().unwrap_or_default();
            followers.insert(
                key,
                follower.see(Sight::Committed(record.good.clone()), now),
            );
        }
        self.followers = followers;
        self.record = record;
        if self.trust.in_force.is_none() {
            self.trust.in_force = stored_trust(&self.record, &self.reader.blobs);
        }
        Ok(())
    }

    fn take_trust(&mut self, source: &trust::Source) {
        let last = self.trust.in_force.clone();
        self.trust = trust::judge(&self.ends.config.trust_file, source, last);
        tracing::info!(problem = ?self.trust.problem, "the trust file changed");
        self.see_all(&Sight::TrustChanged);
        let Ok(checker) = self.checker() else { return };
        for (key, follower) in self.followers.clone() {
            for version in follower.committed() {
                if let Err(problem) = checker.papers(&key, version) {
                    self.see(&key, Sight::Unsound(version.revision.clone(), problem));
                }
            }
        }
    }

    fn checker(&self) -> Result<Checker, Problem> {
        Ok(Checker {
            blobs: self.reader.blobs.clone(),
            versions: self.reader.versions.clone(),
            trust: self.trust.for_stored()?,
            limits: self.ends.config.limits,
            floors: Floors::of(&self.record),
        })
    }

    fn activate(&self, key: &Key, version: &Version) -> Result<Activate, Problem> {
        Ok(Activate {
            checker: self.checker()?,
            cache: self.cache.clone(),
            program: self.ends.config.program.clone(),
            limits: self.ends.config.preflight_limits,
            key: key.clone(),
            version: version.clone(),
        })
    }

    /// Gets a listening socket: the holder's own where both are in one network, else one of its own.
    ///
    /// # Errors
    /// When the holder is gone, and the address is still in use.
    async fn find_socket(&mut self) -> anyhow::Result<()> {
        let since_asked = self.asked_at.map(|at| at.elapsed());
        if self.socket != Socket::None || since_asked.is_some_and(|since| since < SOCKET_PERIOD) {
            return Ok(());
        }
        self.asked_at = Some(Instant::now());
        let listen = self.ends.config.listen;
        let joined = match &self.lock {
            None => join(&self.ends.config.data_folder, listen).await,
            Some(_) => Err(anyhow::anyhow!("the holder is gone")),
        };
        let why_not = match joined {
            Ok(joined) => match &joined.listener {
                Ok(listener) => {
                    self.ends
                        .hosts
                        .listen(listener.try_clone().context("listening socket")?);
                    self.socket = Socket::Shared;
                    tracing::info!(%listen, "standing by on the holder's own socket");
                    let events = self.ends.events.clone();
                    self.conversation = Some(Task::spawn(async move {
                        joined.holder_leaves().await;
                        let _ = events.send(Event::HolderLeaves).await;
                    }));
                    return Ok(());
                }
                Err(why_not) => why_not.clone(),
            },
            Err(error) => format!("{error:#}"),
        };
        match TcpListener::bind(listen) {
            Ok(listener) => {
                tracing::info!(%listen, why_not, "standing by on a socket of its own");
                self.ends.hosts.listen(listener);
                self.socket = Socket::Own;
                Ok(())
            }
            Err(error) => {
                let gone_for = self.lock.as_ref().map(|(_, since)| since.elapsed());
                if gone_for.is_some_and(|since| since > IN_USE_WITHIN) {
                    return Err(error).with_context(|| format!("listen on {listen} (--listen)"));
                }
                self.tell(format!(
                    "listen on {listen}: {error}; its holder gives no socket: {why_not}"
                ));
                Ok(())
            }
        }
    }

    /// Tells a problem once, until there is another.
    fn tell(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(problem, "standing by");
            self.problem = Some(problem);
        }
    }

    /// What is still to come before everything committed answers here.
    fn to_come(&self) -> Result<(), String> {
        for (key, follower) in &self.followers {
            follower
                .is_caught_up()
                .map_err(|why| format!("{key}: {why}"))?;
        }
        Ok(())
    }

    fn stand(&self) -> Stand {
        let since = self
            .lock
            .as_ref()
            .map_or(Duration::ZERO, |(_, since)| since.elapsed());
        stand(Situation {
            socket: self.socket,
            holder_accepts: self.holder_accepts,
            has_lock: self.lock.is_some(),
            is_caught_up: self.to_come().is_ok(),
            has_lock_for: u64::try_from(since.as_millis()).unwrap_or(u64::MAX),
        })
    }

    fn reconcile_hosts(&mut self) {
        let wants: Vec<Want> = self
            .followers
            .iter()
            .map(|(key, follower)| Want {
                key: key.clone(),
                serving: follower.serving(),
            })
            .collect();
        for (generation, prepare) in self.ends.hosts.reconcile(&wants) {
            let activate = self.activate(&prepare.key, &prepare.version);
            prepare_slot(activate, generation, prepare.slot, self.ends.events.clone());
        }
    }

    fn publish(&self) {
        let folder = self.ends.config.data_folder.display();
        let standing = format!("standing by: another agent holds {folder}");
        let words = match (self.to_come(), self.socket, &self.problem) {
            (_, Socket::None, Some(problem)) => format!("{standing}; {problem}"),
            (Err(why), _, _) => format!("{standing}; {why}"),
            (Ok(()), _, Some(problem)) => format!("{standing}; {problem}"),
            (Ok(()), _, None) => standing,
        };
        let hosts = &self.ends.hosts;
        let totals = hosts.totals();
        self.ends.numbers.send_replace(Numbers {
            hosts: hosts.gauges(),
            puts: 0,
            seq: self.seq,
            models: totals
                .map(|(key, revision, counts)| (key.to_string(), revision.to_string(), counts))
                .collect(),
            turned: Some(Instant::now()),
            readiness: if self.ends.draining {
                Readiness::Draining
            } else {
                Readiness::Standby(self.was_ready, words)
            },
            is_standby: true,
        });
    }

    /// Opens the folder as its holder. What cannot be opened is tried again: what serves goes on serving.
    fn recover(&mut self) -> Option<Recovered> {
        let (lock, _) = self.lock.as_ref()?;
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let config = &self.ends.config;
        let boot_id = &self.ends.facts.boot_id;
        match Recovered::open(&config.data_folder, Arc::clone(lock), boot_id) {
            Ok(recovered) => Some(recovered),
            Err(error) => {
                self.retry_at = Some(Instant::now() + TAKE_OVER_PERIOD);
                self.tell(format!("cannot take over: {error:#}"));
                None
            }
        }
    }

    fn take_over(self, recovered: Recovered) -> Supervisor {
        recovered.cache.adopt(&self.cache);
        let unsound = self.followers.iter().flat_map(|(key, follower)| {
            follower.unsound().map(|(revision, problem)| {
                let observation = Observation::Unsound(revision.clone(), problem.clone());
                (key.clone(), observation)
            })
        });
        let unsound = unsound.collect();
        tracing::info!("took over");
        Supervisor::begin(self.ends, recovered, self.trust, unsound)
    }
}
