//! What a rollout is about at the moment, and where each cluster should therefore be.
//!
//! Owns the goal of a target. Must never look at budgets: who is next is decided in `give`.

use super::doubt::Doubt;
use super::policy::{HoldMode, OnFailure};
use super::target::Sight;
use super::types::{Deployment, Outcome};
use crate::ids::RevisionName;

/// What may move.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Motion {
    /// Anything.
    #[default]
    Any,
    /// Only what goes back or away.
    BackOnly,
    /// Nothing.
    Frozen,
}

/// Which way a rollout goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Course {
    /// No revision is asked for, or none can be named yet.
    #[default]
    None,
    /// Stage by stage to the revision.
    Forward,
    /// The content was condemned and the policy pauses.
    Pause,
    /// The content was condemned, or a person took it back: to the promoted revision.
    Back,
    /// A person chose an earlier revision.
    Undone,
    /// The deployment is on its way out.
    Away,
}

/// What of a stage a person went on past.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Past {
    /// Suspects whose places are free again.
    pub(super) suspects: u32,
    /// Failures beyond the allowance.
    pub(super) failed: u32,
}

/// What every target of a deployment is judged by.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Context {
    /// The revision of the rollout: the spec's, or the one undone to.
    pub(super) update: Option<RevisionName>,
    pub(super) attempt: u32,
    pub(super) forget_verdicts_before: u32,
    pub(super) current: Option<RevisionName>,
    pub(super) course: Course,
    pub(super) motion: Motion,
    /// How many stages may have the revision.
    pub(super) released: usize,
    /// By stage: what a person went on past.
    pub(super) past: Vec<Past>,
    /// Holds have lasted for as long as the policy respects them.
    pub(super) hold_over: bool,
    /// The hub doubts its own ears.
    pub(super) doubt: Option<Doubt>,
    /// The leader has just begun, and listens before anything goes forward.
    pub(super) listening: bool,
    /// Time, silence or blocks stopped the rollout.
    pub(super) stopped: bool,
}

/// Where a cluster should be, by what is right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Goal<'a> {
    /// Where it is.
    Keep,
    /// On this revision.
    Run(&'a RevisionName),
    /// On this revision, which it goes back to.
    Back(&'a RevisionName),
    /// Without the deployment, since it is not in the placement.
    Leave,
    /// Without the deployment, since nothing good is to be lost.
    Gone,
}

impl Context {
    /// Where a cluster should be.
    pub(super) fn goal<'a>(&'a self, deployment: &Deployment, sight: &Sight<'_>) -> Goal<'a> {
        if self.course == Course::Away {
            return Goal::Gone;
        }
        let Some(place) = sight.target.place else {
            return Goal::Leave;
        };
        let running = sight.running();
        let outcome = |revision: &RevisionName| {
            let known = deployment.revisions.get(revision);
            known.map_or(Outcome::Pending, |known| known.outcome)
        };
        // To go to the promoted revision from one that never was is to go back.
        let to = |revision: &'a RevisionName| match running {
            Some(running) if running == revision => Goal::Run(revision),
            Some(running)
                if Some(revision) == self.current.as_ref()
                    && (self.course == Course::Undone || outcome(running) != Outcome::Promoted) =>
            {
                Goal::Back(revision)
            }
            _ => Goal::Run(revision),
        };
        let to_current = || self.current.as_ref().map(to);
        let stay = if running.is_some() {
            Goal::Keep
        } else {
            Goal::Gone
        };
        let Some(update) = self.update.as_ref() else {
            return match running {
                Some(_) => Goal::Keep,
                None => to_current().unwrap_or(Goal::Gone),
            };
        };
        match self.course {
            Course::Pause if sight.runs(update) => Goal::Keep,
            Course::Back if sight.runs(update) => to_current().unwrap_or(Goal::Gone),
            Course::Pause | Course::Back => to_current().unwrap_or(stay),
            Course::Undone => to(update),
            Course::None | Course::Forward | Course::Away => {
                if place < self.released {
                    return to(update);
                }
                let back = deployment.policy.on_failure == OnFailure::RollbackAll;
                match running.map(|running| (running, outcome(running))) {
                    None => to_current().unwrap_or(Goal::Gone),
                    Some((running, _)) if running == update => Goal::Keep,
                    Some((_, Outcome::Failed)) if back => to_current().unwrap_or(Goal::Gone),
                    // An old promoted revision: it was away when its successor came.
                    Some((_, Outcome::Promoted)) => to_current().unwrap_or(Goal::Keep),
                    Some((_, Outcome::Pending | Outcome::Failed | Outcome::Stopped)) => Goal::Keep,
                }
            }
        }
    }

    /// The revision went through every stage.
    pub(super) fn is_over(&self) -> bool {
        self.update.is_some() && self.update == self.current && self.course == Course::Forward
    }

    /// What a person went on past in a stage.
    pub(super) fn past(&self, place: usize) -> Past {
        self.past.get(place).copied().unwrap_or_default()
    }

    /// Whether the order is for today's attempt, or needs no other one.
    ///
    /// A cluster that has the revision needs no new attempt, and one that condemned it gets none unless
    /// its verdict is to be forgotten.
    pub(super) fn attempted(&self, sight: &Sight<'_>, revision: &RevisionName) -> bool {
        let Some(entry) = sight.entry() else {
            return true;
        };
        if self.update.as_ref() != Some(revision) || entry.attempt >= self.attempt {
            return true;
        }
        let spoken = sight.settled(revision)
            || sight.condemned(revision) && entry.attempt >= self.forget_verdicts_before;
        spoken && self.course != Course::Undone
    }

    /// Whether the hold annotation still keeps a cluster back.
    pub(super) fn respects_hold(&self, mode: HoldMode) -> bool {
        !(self.hold_over && mode == HoldMode::Ignore)
    }
}
