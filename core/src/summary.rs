//! Sums of status on the way up: nodes into a cluster, clusters into a deployment.
//!
//! Owns the arithmetic. Every level sends sums, never lists that grow with the fleet; ratios are made
//! from sums, never averaged.

use std::iter::Sum;
use std::ops::Add;

use serde::{Deserialize, Serialize};

/// How many nodes (or clusters) stand where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Meant to run the deployment, silent ones included.
    pub desired: u32,
    /// Committed to the revision that the entry names.
    pub updated: u32,
    /// On their way to it, or without a go-ahead.
    pub pending: u32,
    /// Refusing the update for now, by a hold.
    pub held: u32,
    /// Not heard, and not before they could have got the revision.
    pub silent: u32,
    /// Fell silent after they may have got the revision.
    pub suspect: u32,
    /// Rejected the revision and serve nothing in its stead.
    pub failed: u32,
    /// Rejected the revision and serve their last good one.
    pub rolled_back: u32,
    /// Serving a committed version, whichever it is: beside the others, which add up.
    pub ready: u32,
}

impl Counts {
    /// Nodes that rejected the revision, whatever they serve now.
    #[must_use]
    pub fn rejected(&self) -> u32 {
        self.failed.saturating_add(self.rolled_back)
    }

    /// What the columns add up to: as many as are desired.
    #[must_use]
    pub fn columns(&self) -> u32 {
        [
            self.updated,
            self.pending,
            self.held,
            self.silent,
            self.suspect,
            self.failed,
            self.rolled_back,
        ]
        .into_iter()
        .fold(0, u32::saturating_add)
    }

    /// What is left when `other`, which was added before, is taken away again.
    #[must_use]
    pub fn minus(self, other: Self) -> Self {
        let Self {
            desired,
            updated,
            pending,
            held,
            silent,
            suspect,
            failed,
            rolled_back,
            ready,
        } = other;
        Self {
            desired: self.desired.saturating_sub(desired),
            updated: self.updated.saturating_sub(updated),
            pending: self.pending.saturating_sub(pending),
            held: self.held.saturating_sub(held),
            silent: self.silent.saturating_sub(silent),
            suspect: self.suspect.saturating_sub(suspect),
            failed: self.failed.saturating_sub(failed),
            rolled_back: self.rolled_back.saturating_sub(rolled_back),
            ready: self.ready.saturating_sub(ready),
        }
    }

    /// These counts with whatever is nowhere else counted as pending.
    #[must_use]
    pub fn with_pending(self) -> Self {
        let elsewhere = [
            self.updated,
            self.held,
            self.silent,
            self.suspect,
            self.failed,
            self.rolled_back,
        ];
        let elsewhere = elsewhere.into_iter().fold(0, u32::saturating_add);
        Self {
            pending: self.desired.saturating_sub(elsewhere),
            ..self
        }
    }

    /// None is on its way, is still to get its go-ahead, or fell silent with the revision, and at
    /// least one is there, unless none is desired.
    ///
    /// Those that were silent before are left out, one dead device must not block a fleet, and so are
    /// held ones: both get what is right by then, within the budget. What was rejected is not judged here.
    #[must_use]
    pub fn settled(&self) -> bool {
        self.pending == 0 && self.suspect == 0 && (self.updated > 0 || self.desired == 0)
    }

    /// [`Self::settled`], all that are there serve, and none rejected the revision.
    ///
    /// The sums cannot tell who serves; a cluster's own word for it is [`Phase::Passed`].
    #[must_use]
    pub fn complete(&self) -> bool {
        self.settled() && self.rejected() == 0 && self.ready >= self.updated
    }

    /// All that answer serve something good, and at least one answers, unless none is desired.
    #[must_use]
    pub fn available(&self) -> bool {
        let expected = self.desired.saturating_sub(self.silent);
        self.ready >= expected && (expected > 0 || self.desired == 0)
    }
}

impl Add for Counts {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let Self {
            desired,
            updated,
            pending,
            held,
            silent,
            suspect,
            failed,
            rolled_back,
            ready,
        } = other;
        Self {
            desired: self.desired.saturating_add(desired),
            updated: self.updated.saturating_add(updated),
            pending: self.pending.saturating_add(pending),
            held: self.held.saturating_add(held),
            silent: self.silent.saturating_add(silent),
            suspect: self.suspect.saturating_add(suspect),
            failed: self.failed.saturating_add(failed),
            rolled_back: self.rolled_back.saturating_add(rolled_back),
            ready: self.ready.saturating_add(ready),
        }
    }
}

impl Sum for Counts {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

/// How far a revision's verdict is. Ordered from worst to best: a sum takes the least.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub enum Phase {
    /// Rejected: the content is condemned.
    Failed,
    /// A deadline ran out, which says nothing about the content.
    TimedOut,
    /// Refused for now by a hold.
    Held,
    /// No go-ahead yet.
    #[default]
    Pending,
    /// Being fetched, verified and tried in preflight.
    Staging,
    /// Serving on probation.
    Trial,
    /// Committed.
    Passed,
}

/// A verdict's measures, summed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Measures {
    /// Requests judged.
    pub samples: u64,
    /// Of these, failed.
    pub errors: u64,
    /// 99th percentile of latency; a group's is its members' maximum.
    pub latency_p99_microseconds: Option<u64>,
}

impl Add for Measures {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        let Self {
            samples,
            errors,
            latency_p99_microseconds,
        } = other;
        Self {
            samples: self.samples.saturating_add(samples),
            errors: self.errors.saturating_add(errors),
            latency_p99_microseconds: self.latency_p99_microseconds.max(latency_p99_microseconds),
        }
    }
}

impl Sum for Measures {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::default(), Add::add)
    }
}

/// How a node's problem ranks. Ordered: the worst comes first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The node rejected the revision and serves nothing.
    Failed,
    /// The node rejected the revision and serves its last good one.
    RolledBack,
    /// The node fell silent after the revision may have reached it.
    Suspect,
    /// The node's deadline ran out.
    TimedOut,
    /// The node cannot go on for now: fetch, space, a missing signature.
    Blocked,
    /// The node waits for something that only comes from outside: requests to be judged by.
    Waiting,
    /// The node is held.
    Held,
    /// The node is silent.
    Silent,
}

/// One node's problem, in the device's own words.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Problem {
    /// The node.
    pub node: crate::ids::NodeName,
    /// CamelCase reason, as the device gave it.
    pub reason: String,
    /// The device's sentence.
    pub message: String,
}

/// How many problems a cluster sends up.
pub const PROBLEMS_MAX: usize = 5;

/// Picks the worst problems, at most [`PROBLEMS_MAX`]: by severity, then by node name.
#[must_use]
pub fn worst_problems(mut all: Vec<(Severity, Problem)>) -> Vec<Problem> {
    all.sort();
    all.truncate(PROBLEMS_MAX);
    all.into_iter().map(|(_, problem)| problem).collect()
}
