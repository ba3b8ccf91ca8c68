//! Turning what orders, trust and hosts say into observations, and the machines into a picture.
//!
//! Owns no decision: each event is translated and handed to the machines it concerns.

use std::collections::BTreeMap;

use rimward_core::node::{
    Attempt, Blame, Observation, Order, Phase, Problem, Reason, Scene, State, Version, blame,
};

use super::activate::{Activate, NotActivated, reason};
use super::deployment::{Deployment, Source};
use super::host::{Death, Heard, Prepared, Slot, Want};
use super::orders::{Covers, Orders, sort};
use super::{Event, Numbers, Readiness, Supervisor, samples, trust};
use tokio::sync::mpsc;
use tokio::time::Instant;

use crate::parse::Key;
use crate::proto::{FailReason, SlotId, SlotStats};
use crate::report::picture::{self, Picture, Running};

/// Whom a host's death is laid at, as a deployment with this candidate sees it.
fn laid_at(death: &Death, key: &Key, candidate: Option<&Version>) -> Blame {
    let is_candidate = |(of, version): &(Key, Version)| of == key && Some(version) == candidate;
    blame(Scene {
        candidate_ran: death.ran.iter().any(is_candidate),
        another_ran: !death.ran.iter().all(is_candidate),
        over_memory: death.over_memory,
    })
}

/// Verifies a version's files for a host's slot, beside everything else.
pub(super) fn prepare_slot(
    activate: Result<Activate, Problem>,
    generation: u64,
    slot: SlotId,
    events: mpsc::Sender<Event>,
) {
    tokio::task::spawn(async move {
        let result = match activate {
            Ok(activate) => activate.prepare().await,
            Err(problem) => Err(NotActivated::Unsound(problem)),
        };
        let event = Event::Prepared(generation, slot, Box::new(result));
        let _ = events.send(event).await;
    });
}

impl Supervisor {
    pub(super) fn keys(&self) -> Vec<Key> {
        self.deployments.keys().cloned().collect()
    }

    /// Why the site holds updates back, if it does.
    fn held(&self) -> Option<String> {
        self.local_hold.clone().or_else(|| self.orders.hold.clone())
    }

    pub(super) async fn hold_all(&mut self) -> anyhow::Result<()> {
        let held = self.held().is_some();
        for key in self.keys() {
            self.observe(&key, Observation::Held(held)).await?;
        }
        Ok(())
    }

    pub(super) async fn take_orders(&mut self, orders: Orders) -> anyhow::Result<()> {
        if orders.problem.is_some() {
            // What could not be read is no order to remove anything.
            self.orders.problem = orders.problem;
            return Ok(());
        }
        if orders.covers == Covers::Nothing {
            self.orders.problem = None;
            return Ok(());
        }
        let sorted = sort(&orders.models, &self.owners(&orders));
        for (key, parsed) in &sorted.orders {
            let deployment = self.deployments.entry(key.clone()).or_insert_with(|| {
                let record = self.record.deployments.get(&key.to_string());
                let record = record.cloned().unwrap_or_default();
                Deployment::new(State::recover(record, self.facts.boot_id.clone()))
            });
            deployment.source = Some(Source {
                entry: parsed.entry.clone(),
                repository: parsed.repository.clone(),
            });
        }
        self.refused.clone_from(&sorted.refused);
        let covers = orders.covers;
        self.orders = orders;
        let held = self.held().is_some();
        for key in self.keys() {
            self.observe(&key, Observation::Held(held)).await?;
            if let Some(order) = sorted.told(&key, covers) {
                self.observe(&key, Observation::Ordered(order)).await?;
            }
        }
        Ok(())
    }

    /// Which deployment has which endpoint name. One that these orders remove by not naming it has
    /// none any more; one of before a restart that nobody ordered since has what it serves.
    fn owners(&self, orders: &Orders) -> BTreeMap<String, Key> {
        let stays = |key: &Key| {
            let named = || {
                let mut models = orders.models.iter();
                models.any(|it| it.namespace == key.namespace() && it.name == key.name())
            };
            let deployment = self.deployments.get(key);
            let removed = deployment.is_some_and(|it| *it.machine.order() == Order::Remove);
            named() || (orders.covers != Covers::Node && !removed)
        };
        let served = self.hosts.slots().filter_map(|slot| {
            let endpoint = slot.endpoint.as_ref()?;
            Some((endpoint.clone(), slot.key.clone()))
        });
        let ordered = self.deployments.iter().filter_map(|(key, deployment)| {
            let source = deployment.source.as_ref()?;
            Some((source.entry.endpoint_name.clone(), key.clone()))
        });
        served
            .chain(ordered)
            .filter(|(_, key)| stays(key))
            .collect()
    }

    /// Remembers the trust file in force, for a start at which the file cannot be read.
    pub(super) async fn keep_trust(&mut self) -> anyhow::Result<()> {
        let Some(trust) = self.trust.in_force.clone() else {
            return Ok(());
        };
        if self.trust.problem.is_some() || self.record.trust == Some(trust.digest()) {
            return Ok(());
        }
        let Ok(bytes) = trust::read(&self.config.trust_file).bytes else {
            return Ok(());
        };
        let blobs = self.blobs.clone();
        let kept = tokio::task::spawn_blocking(move || blobs.put(&bytes)).await?;
        match kept {
            Ok(digest) if digest == trust.digest() => {
                self.record.trust = Some(digest);
                self.put_device().await?;
            }
            // Changed again while it was read: the watch will say so.
            Ok(_) => {}
            Err(error) => tracing::warn!(%error, "cannot keep a copy of the trust file"),
        }
        Ok(())
    }

    pub(super) async fn take_trust(&mut self, source: trust::Source) -> anyhow::Result<()> {
        let last = self.trust.in_force.clone();
        self.trust = trust::judge(&self.config.trust_file, &source, last);
        match &self.trust.problem {
            None => tracing::info!("the trust file changed"),
            Some(problem) => tracing::error!(problem = problem.message, "the trust file changed"),
        }
        self.keep_trust().await?;
        let mut rose = false;
        for key in self.keys() {
            self.observe(&key, Observation::TrustChanged).await?;
            rose |= self.check_papers(&key).await?;
        }
        if rose {
            // A floor that a restart forgets would let an older release in.
            self.put_device().await?;
        }
        Ok(())
    }

    /// Checks everything of a deployment that may run against the trust in force; says whether a
    /// release floor rose.
    async fn check_papers(&mut self, key: &Key) -> anyhow::Result<bool> {
        let mut rose = false;
        let (Some(deployment), Ok(trust)) = (self.deployments.get(key), self.trust.for_stored())
        else {
            return Ok(rose);
        };
        let versions: Vec<Version> = deployment.machine.record().roots().collect();
        let checker = self.checker(trust);
        for version in versions {
            match checker.papers(key, &version) {
                Ok(papers) => {
                    let repository = papers.manifest.repository();
                    let floor = checker.trust.release_floor(repository, &papers.config);
                    let family = papers.config.family.as_str();
                    rose |= self.record.raise_floor(family, floor);
                }
                Err(problem) => {
                    let observation = Observation::Unsound(version.revision, problem);
                    self.observe(key, observation).await?;
                }
            }
        }
        Ok(rose)
    }

    pub(super) async fn hear(&mut self, heard: Heard) -> anyhow::Result<()> {
        match heard {
            Heard::Loaded(slot) => {
                let observation = Observation::Loaded(slot.version.revision);
                self.observe(&slot.key, observation).await
            }
            Heard::LoadFailed {
                slot,
                reason: FailReason::NativeCodeRefused,
                message,
            } if self.recompiled.insert(slot.version.install) => {
                // Compiled by another release of this agent: it is compiled again, once.
                tracing::info!(deployment = %slot.key, message, "native code is compiled again");
                if let Some(module) = slot.module {
                    self.cache.forget(module);
                }
                Ok(())
            }
            Heard::LoadFailed {
                slot,
                reason: failed,
                message,
            } => {
                tracing::warn!(deployment = %slot.key, revision = %slot.version.revision, ?failed, message, "not loaded");
                let problem = Problem::new(Reason::new(reason(failed)), message);
                let observation = Observation::LoadFailed(slot.version.revision, problem);
                self.observe(&slot.key, observation).await
            }
            Heard::Sampled {
                slot,
                stats,
                before,
            } => self.sampled(&slot, &stats, &before).await,
            Heard::Died(death) => {
                for key in self.keys() {
                    let Some(deployment) = self.deployments.get(&key) else {
                        continue;
                    };
                    let candidate = deployment.machine.candidate().map(Attempt::candidate);
                    let blame = laid_at(&death, &key, candidate.as_ref());
                    if deployment.is_on_trial() {
                        tracing::info!(deployment = %key, ?blame, ran = ?death.ran, "the host died during a trial");
                    }
                    let problem = Problem::new(Reason::HOST_DIED, &death.words);
                    let observation = Observation::HostDied(problem, blame);
                    self.observe(&key, observation).await?;
                }
                Ok(())
            }
        }
    }

    async fn sampled(
        &mut self,
        slot: &Slot,
        stats: &SlotStats,
        before: &SlotStats,
    ) -> anyhow::Result<()> {
        let samples = samples::between(before, stats);
        if samples.requests == 0 && samples.errors == 0 {
            return Ok(());
        }
        let observation = Observation::Sampled(slot.version.revision.clone(), samples);
        self.observe(&slot.key, observation).await
    }

    pub(super) async fn take_prepared(
        &mut self,
        generation: u64,
        id: SlotId,
        result: Result<Prepared, NotActivated>,
    ) -> anyhow::Result<()> {
        let error = match result {
            Ok(prepared) => {
                self.hosts.prepared(generation, id, prepared);
                return Ok(());
            }
            Err(error) => error,
        };
        let Some(slot) = self.hosts.not_prepared(generation, id) else {
            return Ok(());
        };
        tracing::warn!(deployment = %slot.key, revision = %slot.version.revision, ?error, "not prepared");
        let revision = slot.version.revision;
        let observation = match error {
            // Neither its bytes' nor the machine's trouble is a failed start.
            NotActivated::Unsound(problem)
            | NotActivated::Unavailable(problem)
            | NotActivated::Interrupted(problem) => Observation::Unsound(revision, problem),
            NotActivated::Failed(problem) => Observation::LoadFailed(revision, problem),
        };
        self.observe(&slot.key, observation).await
    }

    fn wants(&self) -> Vec<Want> {
        self.deployments
            .iter()
            .map(|(key, deployment)| Want {
                key: key.clone(),
                serving: deployment.machine.serving(),
            })
            .collect()
    }

    /// Brings the hosts nearer to what the machines want.
    pub(super) fn reconcile_hosts(&mut self) {
        let wants = self.wants();
        for (generation, prepare) in self.hosts.reconcile(&wants) {
            let activate = self.activate(&prepare.key, &prepare.version);
            prepare_slot(activate, generation, prepare.slot, self.events.clone());
        }
    }

    /// Publishes picture and numbers where they differ.
    pub(super) fn publish(&mut self) {
        self.forget_removed();
        let now = self.paint();
        self.picture.send_if_modified(|last| {
            let changed = *last != now;
            if changed {
                *last = now;
            }
            changed
        });
        let numbers = Numbers {
            hosts: self.hosts.gauges(),
            puts: self.puts,
            seq: self.slots.as_ref().map_or(0, crate::store::Slots::seq),
            models: self
                .hosts
                .totals()
                .map(|(key, revision, counts)| (key.to_string(), revision.to_string(), counts))
                .collect(),
            turned: Some(Instant::now()),
            readiness: match (self.draining, self.hosts.has_listened()) {
                (true, _) => Readiness::Draining,
                (false, true) => Readiness::Ready,
                (false, false) => Readiness::Starting,
            },
            is_standby: false,
        };
        self.numbers.send_replace(numbers);
    }

    /// Drops deployments of which nothing is left, and that nobody orders.
    fn forget_removed(&mut self) {
        let ordered = |key: &Key| {
            self.orders
                .models
                .iter()
                .any(|entry| entry.namespace == key.namespace() && entry.name == key.name())
        };
        let gone: Vec<Key> = self
            .deployments
            .iter()
            .filter(|(key, deployment)| {
                let machine = &deployment.machine;
                *machine.order() == Order::Remove
                    && *machine.phase() == Phase::Settled
                    && machine.record().is_removed()
                    && !ordered(key)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for key in gone {
            self.deployments.remove(&key);
            self.hosts.forget(&key);
        }
    }

    fn paint(&self) -> Picture {
        let mut models: Vec<_> = self
            .deployments
            .iter()
            .map(|(key, deployment)| {
                let report = deployment.machine.report();
                let running = self.running(key, deployment);
                picture::model(key.namespace(), key.name(), &report, running)
            })
            .collect();
        // An order that cannot be followed is told first; what runs is still in the words.
        let refused = self.refused.iter().map(picture::refused);
        models = refused.chain(models).collect();
        picture::picture(
            &self.facts,
            &self.trust,
            self.orders.generation,
            models,
            self.held(),
            self.orders.problem.as_deref(),
        )
    }

    fn running(&self, key: &Key, deployment: &Deployment) -> Running {
        let Some(version) = deployment.machine.serving().active else {
            return Running::default();
        };
        let Some((slot, runs)) = self.hosts.runs(key, &version) else {
            return Running::default();
        };
        Running {
            revision: Some(version.revision.to_string()),
            variant: slot.variant.clone(),
            backend: Some(format!(
                "{}/{}/{}",
                runs.backend, runs.device, runs.precision
            )),
            endpoint: slot
                .endpoint
                .as_ref()
                .map(|name| format!("http://{}/v2/models/{name}", self.config.advertise)),
        }
    }
}
