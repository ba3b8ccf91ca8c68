//! One deployment on one cluster: what can be said of it from the last observation.
//!
//! Owns the meaning of *fresh*, *moving*, *available*, *complete* and *failed*. Two readings of a report
//! exist on purpose: decisions use only fresh ones (of today's generation), words and sums also use
//! the last one about today's revision, so that another deployment's change does not make this
//! one's status flicker.

use super::types::{Action, Cluster, Connection, Deployment, Entry, ModelReport, OfflineMode};
use crate::ids::{ClusterName, DeploymentKey, RevisionName};
use crate::summary::Phase;

/// A deployment's view of one cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Site<'a> {
    pub(super) name: &'a ClusterName,
    pub(super) cluster: &'a Cluster,
    /// The entry as it stands.
    pub(super) entry: Option<&'a Entry>,
    /// The last report on this deployment, whatever it is about.
    pub(super) last: Option<&'a ModelReport>,
    /// The heartbeat is younger than the policy's grace.
    pub(super) alive: bool,
    /// Offline, and the policy leaves such out of the budgets.
    pub(super) excluded: bool,
    /// The policy's grace.
    pub(super) grace_seconds: u32,
}

impl<'a> Site<'a> {
    pub(super) fn new(
        name: &'a ClusterName,
        cluster: &'a Cluster,
        key: &DeploymentKey,
        deployment: &Deployment,
    ) -> Self {
        let offline = deployment.policy.offline;
        let alive = match cluster.connection {
            Connection::NeverJoined => false,
            Connection::Beat { age_seconds } => age_seconds < u64::from(offline.grace_seconds),
        };
        Self {
            name,
            cluster,
            entry: cluster.entries.get(key),
            last: cluster
                .report
                .as_ref()
                .and_then(|report| report.models.get(key)),
            alive,
            excluded: !alive && offline.mode == OfflineMode::Exclude,
            grace_seconds: offline.grace_seconds,
        }
    }

    /// A cluster's entry of a deployment that is no more.
    pub(super) fn orphan(name: &'a ClusterName, cluster: &'a Cluster, key: &DeploymentKey) -> Self {
        Self {
            name,
            cluster,
            entry: cluster.entries.get(key),
            last: cluster
                .report
                .as_ref()
                .and_then(|report| report.models.get(key)),
            alive: true,
            excluded: false,
            grace_seconds: 0,
        }
    }

    /// The revision that it is told to run.
    pub(super) fn running(&self) -> Option<&'a RevisionName> {
        self.entry
            .filter(|entry| entry.action == Action::Run)
            .map(|entry| &entry.revision)
    }

    pub(super) fn runs(&self, revision: &RevisionName) -> bool {
        self.running() == Some(revision)
    }

    /// The last report, if it is about the revision of the entry; maybe of an older generation.
    pub(super) fn about_entry(&self) -> Option<&'a ModelReport> {
        let running = self.running()?;
        self.last.filter(|report| &report.revision == running)
    }

    /// The last report, if it is about the entry of today.
    pub(super) fn fresh(&self) -> Option<&'a ModelReport> {
        let report = self.cluster.report.as_ref()?;
        (report.observed_generation == self.cluster.generation)
            .then(|| self.about_entry())
            .flatten()
    }

    /// The session has confirmed that nothing of the deployment runs there any more.
    pub(super) fn removal_confirmed(&self) -> bool {
        self.last.is_none()
            && self
                .cluster
                .report
                .as_ref()
                .is_some_and(|report| report.observed_generation == self.cluster.generation)
    }

    /// It was told to run something and is, for all we know, not yet there.
    pub(super) fn moving(&self) -> bool {
        if self.running().is_none() {
            return false;
        }
        !self.fresh().is_some_and(is_over)
    }

    /// It is on its way, and this is known: its last word is not that it arrived.
    ///
    /// A report that is merely old (another deployment's entry changed) leaves it open. Then the
    /// cluster counts as on its way, yet may not be sent elsewhere as if it were.
    pub(super) fn surely_moving(&self) -> bool {
        self.moving()
            && !self
                .running()
                .is_some_and(|revision| self.arrived(revision))
    }

    /// It takes a place in the budget of unavailable clusters.
    pub(super) fn unavailable(&self) -> bool {
        if self.running().is_none() {
            return false;
        }
        !self.alive || self.moving() || !self.fresh().is_some_and(|report| report.nodes.available())
    }

    /// By a fresh report it runs `revision` everywhere and serves.
    pub(super) fn complete(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.fresh().is_some_and(is_complete)
    }

    /// It is complete, and at least one node really runs the revision.
    pub(super) fn proves(&self, revision: &RevisionName) -> bool {
        self.complete(revision) && self.fresh().is_some_and(|report| report.nodes.updated > 0)
    }

    /// By its last word about `revision` it runs it everywhere and serves.
    pub(super) fn settled(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.about_entry().is_some_and(is_complete)
    }

    /// By its last word about `revision` its nodes need nothing more to be there (or refuse it).
    pub(super) fn arrived(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.about_entry().is_some_and(is_over)
    }

    /// By a fresh report it failed on `revision`.
    pub(super) fn failed(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.fresh().is_some_and(rejected)
    }

    /// By its last word it serves something good, whichever revision.
    pub(super) fn serving(&self) -> bool {
        self.last.is_some_and(|report| report.nodes.available())
    }
}

/// A node rejected the revision, or the deadline ran out.
pub(super) fn rejected(report: &ModelReport) -> bool {
    report.nodes.rejected() > 0 || report.phase == Phase::Failed
}

fn is_complete(report: &ModelReport) -> bool {
    !rejected(report) && report.nodes.complete()
}

/// Nothing more is under way: every node that answers has the revision, or it failed.
fn is_over(report: &ModelReport) -> bool {
    let expected = report.nodes.desired.saturating_sub(report.nodes.silent);
    let nobody = expected == 0 && report.nodes.desired > 0;
    rejected(report) || report.nodes.updated >= expected && !nobody
}
