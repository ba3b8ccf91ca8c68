//! What the holder has committed, followed: read, checked, and loaded into hosts of this agent's own.
//!
//! Owns which version of each deployment answers here. Must never judge one: that is the holder's.

use std::collections::BTreeMap;

use anyhow::Context;
use rimward_core::node::{Problem, Reason, Sight, Version};

use super::super::activate::{Activate, NotActivated, reason};
use super::super::check::{Checker, Floors};
use super::super::host::{Heard, Slot, Want};
use super::super::observe::prepare_slot;
use super::super::open::{decode, stored_trust};
use super::super::record::DeviceRecord;
use super::super::trust;
use super::Standby;
use crate::parse::Key;
use crate::proto::FailReason;

impl Standby {
    pub(super) fn hear(&mut self, heard: Heard) {
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

    pub(super) fn pass_over(&mut self, slot: &Slot, error: NotActivated) {
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

    /// Goes after what the holder has put since the last look. With the lock it is the last record there is.
    pub(super) fn follow(&mut self) {
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

    pub(super) fn take_record(&mut self, record: DeviceRecord) -> anyhow::Result<()> {
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

    pub(super) fn take_trust(&mut self, source: &trust::Source) {
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

    pub(super) fn see(&mut self, key: &Key, sight: Sight) {
        let now = self.now();
        if let Some(follower) = self.followers.get_mut(key) {
            *follower = std::mem::take(follower).see(sight, now);
        }
    }

    pub(super) fn see_all(&mut self, sight: &Sight) {
        for key in self.keys() {
            self.see(&key, sight.clone());
        }
    }

    fn keys(&self) -> Vec<Key> {
        self.followers.keys().cloned().collect()
    }

    fn now(&self) -> u64 {
        u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX)
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

    pub(super) fn reconcile_hosts(&mut self) {
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

    /// What is still to come before everything committed answers here.
    pub(super) fn to_come(&self) -> Result<(), String> {
        for (key, follower) in &self.followers {
            follower
                .is_caught_up()
                .map_err(|why| format!("{key}: {why}"))?;
        }
        Ok(())
    }
}
