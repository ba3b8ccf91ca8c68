//! What one deployment's machine tells upwards: state, reason and the device's own words.
//!
//! Owns the mapping from state to report. Must never say of anything that it is done before it is
//! durable.

use super::record::{Attempt, AttemptStage, Judged, Problem, Reason};
use super::state::{Order, Phase, State};
use crate::ids::RevisionName;

/// Where a deployment stands on this device.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Standing {
    /// Nothing has begun yet.
    Pending,
    /// The package is being fetched and verified.
    Staging,
    /// Something that may pass by itself is in the way; it is tried again.
    Blocked,
    /// Golden vectors are being run beside the current version.
    Preflight,
    /// The candidate has the traffic and is watched.
    Trial,
    /// The ordered revision is committed and serves.
    Ready,
    /// The ordered revision was rejected on this device before it had traffic.
    Rejected,
    /// The ordered revision failed in trial; the device went back.
    RolledBack,
    /// The site holds the update back.
    Held,
    /// The deployment is being, or has been, taken off.
    Removed,
}

/// The report of one deployment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// The revision that the standing speaks of.
    pub revision: Option<RevisionName>,
    /// Which attempt at it, where that is known: a device that was started anew has not heard yet.
    pub attempt: Option<u32>,
    /// Where it stands.
    pub standing: Standing,
    /// Why, when something is wrong.
    pub problem: Option<Problem>,
    /// The committed revision that serves or would be gone back to.
    pub last_good: Option<RevisionName>,
    /// The last trial's outcome, if it was about this revision.
    pub judged: Option<Judged>,
}

impl State {
    /// Makes the report of the present state.
    #[must_use]
    pub fn report(&self) -> Report {
        let revision = match &self.order {
            Order::Run(target) => Some(target.revision.clone()),
            Order::Unknown => self
                .record
                .attempt
                .as_ref()
                .map(|attempt| attempt.target.revision.clone())
                .or_else(|| self.record.good.first().map(|good| good.revision.clone())),
            Order::Remove => None,
        };
        let attempt = match &self.order {
            Order::Run(target) => Some(target.attempt),
            Order::Unknown => self.candidate().map(|attempt| attempt.target.attempt),
            Order::Remove => None,
        };
        let (standing, problem) = self.standing(revision.as_ref());
        let judged = self
            .record
            .judged
            .clone()
            .filter(|judged| Some(&judged.revision) == revision.as_ref());
        Report {
            standing,
            problem,
            last_good: self.current().map(|version| version.revision.clone()),
            judged,
            revision,
            attempt,
        }
    }

    fn standing(&self, revision: Option<&RevisionName>) -> (Standing, Option<Problem>) {
        if self.order == Order::Remove {
            let failed = match &self.phase {
                Phase::Saving { failed, .. } => failed.as_ref().map(|(_, why)| why.clone()),
                Phase::Settled
                | Phase::Staging(_)
                | Phase::Waiting { .. }
                | Phase::Preflight
                | Phase::Starting
                | Phase::Trial { .. } => None,
            };
            return (Standing::Removed, failed);
        }
        match &self.phase {
            Phase::Settled => self.settled(revision),
            Phase::Staging(_) => (Standing::Staging, None),
            Phase::Waiting { problem, .. } => (Standing::Blocked, Some(problem.clone())),
            Phase::Preflight => (Standing::Preflight, None),
            Phase::Trial { too_few: true, .. } => (Standing::Trial, self.too_few_samples()),
            Phase::Starting | Phase::Trial { too_few: false, .. } => (Standing::Trial, None),
            Phase::Saving {
                failed: Some((_, problem)),
                ..
            } => (Standing::Blocked, Some(problem.clone())),
            // Not durable yet: still what it was before.
            Phase::Saving {
                candidate_serves: true,
                failed: None,
                ..
            } => (Standing::Trial, None),
            Phase::Saving {
                candidate_serves: false,
                failed: None,
                ..
            } => match self.record.attempt.as_ref().map(|attempt| &attempt.stage) {
                None => (Standing::Staging, None),
                Some(AttemptStage::Staged) => (Standing::Preflight, None),
                Some(AttemptStage::Trial { .. }) => (Standing::Trial, None),
            },
        }
    }

    /// Why a trial goes on past its probation. Says no running number: each request would make it another status.
    fn too_few_samples(&self) -> Option<Problem> {
        let health = &self.candidate()?.target.health;
        let message = format!(
            "its probation of {} s is over, but of at least {} requests that its policy wants to see fewer were judged: \
             the trial goes on until there are as many",
            health.probation_seconds, health.samples_min
        );
        Some(Problem::new(Reason::TOO_FEW_SAMPLES, message))
    }

    fn settled(&self, revision: Option<&RevisionName>) -> (Standing, Option<Problem>) {
        let Some(revision) = revision else {
            return (Standing::Pending, None);
        };
        if let Some(bad) = self.record.why_bad(revision) {
            let standing = if bad.in_trial {
                Standing::RolledBack
            } else {
                Standing::Rejected
            };
            return (standing, Some(bad.problem.clone()));
        }
        if self.current().is_some_and(|it| &it.revision == revision) {
            return (Standing::Ready, None);
        }
        if self.held {
            return (Standing::Held, None);
        }
        (Standing::Pending, self.unsound.get(revision).cloned())
    }

    /// The candidate that is being attempted, if any.
    #[must_use]
    pub fn candidate(&self) -> Option<&Attempt> {
        self.record.attempt.as_ref()
    }
}
