//! An agent that stands by: it serves what the holder of the folder has committed, and takes over when that lets go.
//!
//! Owns hosts of its own, and nothing durable. Must never write to the folder (what it reads through refuses to), never
//! stage, try or commit, and never report: all of that is the holder's, for as long as there is one. What it follows, where
//! it listens and how it takes over stand in files of their own.

mod follow;
mod socket;
mod succeed;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use rimward_artifact::registry::Client;
use rimward_core::ids::Digest;
use rimward_core::node::{Follower, Sight, Situation, Socket, Stand, stand};
use tokio::time::{Instant, MissedTickBehavior, interval};

use super::deployment::Task;
use super::native::NativeCache;
use super::open::{Ends, decode, stored_trust};
use super::record::DeviceRecord;
use super::trust::{self, Trust};
use super::{Config, Event, Handles, Numbers, Readiness, Supervisor, finish};
use crate::parse::Key;
use crate::store::{Lock, Reader};

/// How often the holder's record and lock are looked at; what it commits is followed within that, and loading.
const LOOK_PERIOD: Duration = Duration::from_millis(100);

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

    /// Tells a problem once, until there is another.
    fn tell(&mut self, problem: String) {
        if self.problem.as_ref() != Some(&problem) {
            tracing::warn!(problem, "standing by");
            self.problem = Some(problem);
        }
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
}
