//! Doing what the machines ask for, and turning outcomes into observations.
//!
//! Owns the order in which effects are done. A write whose outcome is unknown ends the process.

use std::collections::BTreeSet;
use std::time::SystemTime;

use anyhow::Context;
use rimward_artifact::manifest::Manifest;
use rimward_core::ids::{Digest, RevisionName};
use rimward_core::node::{
    Attempt, Effect, Observation, Problem, Reason, Record, Report, Standing, Target,
};

use super::activate::{Activate, NotActivated};
use super::check::{Checker, Floors, file, words};
use super::deployment::{Deployment, Task};
use super::stage::{Stage, StageError};
use super::{Event, Supervisor};
use crate::parse::Key;
use crate::store::PutError;

pub(super) fn staged(revision: RevisionName, result: Result<Digest, StageError>) -> Observation {
    match result {
        Ok(install) => Observation::Staged(revision, install),
        Err(StageError::Blocked(problem)) => Observation::StageBlocked(revision, problem),
        Err(StageError::Refused(problem)) => Observation::StageRefused(revision, problem),
    }
}

pub(super) fn preflighted(revision: RevisionName, result: Result<(), NotActivated>) -> Observation {
    match result {
        Ok(()) => Observation::PreflightPassed(revision),
        Err(NotActivated::Failed(problem)) => Observation::PreflightFailed(revision, problem),
        Err(NotActivated::Unavailable(problem)) => Observation::PreflightBlocked(revision, problem),
        Err(NotActivated::Interrupted(problem)) => {
            Observation::PreflightInterrupted(revision, problem)
        }
        Err(NotActivated::Unsound(problem)) => Observation::Unsound(revision, problem),
    }
}

/// Deployment folder and package folder of each version.
type Folders = BTreeSet<(String, String)>;

/// One line per turn of a deployment, in the words of its status.
fn log_turn(key: &Key, before: &Report, now: &Report) {
    if (before.standing, &before.revision) == (now.standing, &now.revision) {
        return;
    }
    let revision = now.revision.as_ref().map(ToString::to_string);
    let reason = now.problem.as_ref().map(|it| it.reason.as_str());
    let words = now.problem.as_ref().map(|it| it.message.as_str());
    let standing = now.standing;
    match standing {
        Standing::Blocked | Standing::Rejected | Standing::RolledBack => {
            tracing::warn!(deployment = %key, revision, ?standing, reason, words, "turned");
        }
        Standing::Pending
        | Standing::Staging
        | Standing::Preflight
        | Standing::Trial
        | Standing::Ready
        | Standing::Held
        | Standing::Removed => {
            tracing::info!(deployment = %key, revision, ?standing, "turned");
        }
    }
}

impl Supervisor {
    /// Moves one machine and does what it asks for, until it asks for nothing more.
    pub(super) async fn observe(
        &mut self,
        key: &Key,
        observation: Observation,
    ) -> anyhow::Result<()> {
        let mut next = Some(observation);
        while let Some(observation) = next.take() {
            let now = self.now();
            let Some(deployment) = self.deployments.get_mut(key) else {
                return Ok(());
            };
            if observation != Observation::Tick {
                tracing::debug!(deployment = %key, ?observation, "observed");
            }
            let before = deployment.machine.report();
            let asked = deployment.step(observation, now);
            log_turn(key, &before, &deployment.machine.report());
            for effect in asked {
                match effect {
                    Effect::Put(record) => next = Some(self.put(key, record).await?),
                    Effect::Note(record) => {
                        // What fails is logged there; the next write says the same again.
                        let _: Observation = self.put(key, record).await?;
                    }
                    Effect::Stage(target) => next = self.stage(key, &target),
                    Effect::CancelStaging => self.cancel_staging(key),
                    Effect::Preflight(attempt) => next = self.preflight(key, &attempt),
                    Effect::CancelPreflight => self.cancel_preflight(key),
                    Effect::Collect => self.collect_wanted = true,
                }
            }
        }
        Ok(())
    }

    /// Makes one deployment's record durable, with everything else that is.
    async fn put(&mut self, key: &Key, record: Record) -> anyhow::Result<Observation> {
        let before = self.record.clone();
        self.record.deployments.insert(key.to_string(), record);
        match self.put_device().await? {
            None => Ok(Observation::Persisted),
            Some(problem) => {
                self.record = before;
                Ok(Observation::PersistFailed(problem))
            }
        }
    }

    /// Makes the device's record durable; gives the problem where nothing durable changed.
    ///
    /// # Errors
    /// Where it is not known what is durable.
    pub(super) async fn put_device(&mut self) -> anyhow::Result<Option<Problem>> {
        self.record.saw_clock(SystemTime::now());
        let bytes = self.record.encode().context("state record")?;
        let mut slots = self.slots.take().context("state slots are in use")?;
        let (slots, result) = tokio::task::spawn_blocking(move || {
            let result = slots.put(&bytes);
            (slots, result)
        })
        .await
        .context("state record")?;
        self.slots = Some(slots);
        self.puts += 1;
        match result {
            Ok(()) => Ok(None),
            Err(PutError::Unknown(error)) => {
                Err(error).context("the state record may or may not be durable")
            }
            Err(error @ PutError::Untouched(_)) => {
                let words = words(&error);
                tracing::error!(error = words, "state record");
                Ok(Some(Problem::new(Reason::STATE_UNWRITABLE, words)))
            }
        }
    }

    pub(super) fn checker(
        &self,
        trust: std::sync::Arc<rimward_artifact::trust::TrustFile>,
    ) -> Checker {
        Checker {
            blobs: self.blobs.clone(),
            versions: self.versions.clone(),
            trust,
            limits: self.config.limits,
            floors: Floors::of(&self.record),
        }
    }

    fn stage(&mut self, key: &Key, target: &Target) -> Option<Observation> {
        let revision = target.revision.clone();
        let trust = match self.trust.for_new() {
            Ok(trust) => trust,
            Err(problem) => return Some(Observation::StageBlocked(revision, problem)),
        };
        let checker = self.checker(trust);
        let (client, device) = (self.client.clone(), self.facts.device.clone());
        let events = self.events.clone();
        let deployment = self.deployments.get_mut(key)?;
        let source = deployment.source.clone()?;
        let stage = Stage {
            client,
            checker,
            device,
            key: key.clone(),
            repository: source.repository,
            package: target.package,
            entry: source.entry,
        };
        let key = key.clone();
        deployment.staging = Some(Task::spawn(async move {
            let result = stage.run().await;
            if let Err(error) = &result {
                tracing::warn!(deployment = %key, %revision, ?error, "not staged");
            }
            let _ = events.send(Event::Staged(key, revision, result)).await;
        }));
        None
    }

    fn cancel_staging(&mut self, key: &Key) {
        if let Some(deployment) = self.deployments.get_mut(key) {
            deployment.staging = None;
        }
    }

    fn preflight(&mut self, key: &Key, attempt: &Attempt) -> Option<Observation> {
        let revision = attempt.target.revision.clone();
        let activate = match self.activate(key, &attempt.candidate()) {
            Ok(activate) => activate,
            Err(problem) => return Some(Observation::PreflightBlocked(revision, problem)),
        };
        let events = self.events.clone();
        let deployment = self.deployments.get_mut(key)?;
        let key = key.clone();
        deployment.preflight = Some(Task::spawn(async move {
            let result = activate.preflight().await;
            if let Err(error) = &result {
                tracing::warn!(deployment = %key, %revision, ?error, "preflight not passed");
            }
            let event = Event::Preflighted(key, revision, result);
            let _ = events.send(event).await;
        }));
        None
    }

    fn cancel_preflight(&mut self, key: &Key) {
        if let Some(deployment) = self.deployments.get_mut(key) {
            deployment.preflight = None;
        }
    }

    pub(super) fn activate(
        &self,
        key: &Key,
        version: &rimward_core::node::Version,
    ) -> Result<Activate, Problem> {
        Ok(Activate {
            checker: self.checker(self.trust.for_stored()?),
            cache: self.cache.clone(),
            program: self.config.program.clone(),
            limits: self.config.preflight_limits,
            key: key.clone(),
            version: version.clone(),
        })
    }

    /// Deletes what no record names, when it is wanted and nothing is on its way in.
    pub(super) async fn collect(&mut self) {
        let staging = self.deployments.values().any(Deployment::is_staging);
        if !self.collect_wanted || staging {
            return;
        }
        self.collect_wanted = false;
        let Some((blobs, folders)) = self.roots() else {
            return;
        };
        let (store, versions, cache) = (
            self.blobs.clone(),
            self.versions.clone(),
            self.cache.clone(),
        );
        let removed = tokio::task::spawn_blocking(move || {
            let removed = store.retain(|digest| blobs.contains(&digest))?;
            versions.retain(|deployment, package| {
                folders.contains(&(deployment.to_owned(), package.to_owned()))
            })?;
            let kept: BTreeSet<String> = blobs.iter().map(Digest::hex).collect();
            cache.retain(|stem| kept.contains(stem));
            Ok::<_, std::io::Error>(removed)
        })
        .await;
        match removed {
            Ok(Ok(0)) => {}
            Ok(Ok(removed)) => tracing::info!(removed, "blobs that nothing needs are deleted"),
            Ok(Err(error)) => tracing::warn!(%error, "cannot delete what nothing needs"),
            Err(error) => tracing::warn!(%error, "cannot delete what nothing needs"),
        }
    }

    /// Blobs and version folders that the durable record needs; `None` where a manifest cannot be
    /// read, and nothing may be deleted.
    fn roots(&self) -> Option<(BTreeSet<Digest>, Folders)> {
        let mut blobs: BTreeSet<Digest> = self.record.trust.into_iter().collect();
        let mut folders = BTreeSet::new();
        for (key, record) in &self.record.deployments {
            let key: Key = key.parse().ok()?;
            for version in record.roots() {
                blobs.insert(version.install);
                folders.insert((key.folder(), version.package.hex()));
                let files = self.versions.get(&key.folder(), version.package).ok()?;
                let (_, bytes) = files.iter().find(|(name, _)| name == file::MANIFEST)?;
                let manifest = Manifest::parse(version.package, bytes, &self.config.limits).ok()?;
                blobs.extend(manifest.blobs().map(|blob| blob.digest));
            }
        }
        Some((blobs, folders))
    }
}
