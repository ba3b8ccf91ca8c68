//! What a fleet's plan says: entries, the rollout's next place, and reasons as types.
//!
//! Owns the vocabulary of answers. Decides nothing.

use std::collections::BTreeMap;

use super::because::Because;
use super::gate::GateWait;
use super::types::{Entry, Outcome, Standing};
use crate::ids::{ClusterName, DeploymentKey, EndpointName, RevisionName, StageName};
use crate::summary::{Counts, Problem};
use crate::time::Timestamp;

/// A plan: what changed, and the executor has no choices left.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// For each cluster whose assignment differs from what stands on the hub, its complete list of entries.
    pub clusters: BTreeMap<ClusterName, BTreeMap<DeploymentKey, Entry>>,
    /// For each deployment that was planned, what its status shall say.
    pub deployments: BTreeMap<DeploymentKey, DeploymentPlan>,
    /// When to plan again though nothing was seen to change (a bake or a grace runs out).
    pub wake_at: Option<Timestamp>,
}

/// What one deployment's status shall say.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeploymentPlan {
    /// What to persist.
    pub standing: Standing,
    /// Revisions whose fate changes with this plan.
    pub outcomes: BTreeMap<RevisionName, OutcomeChange>,
    /// The attempt at the revision of the rollout, to persist with it.
    pub attempt: Option<(RevisionName, u32)>,
    /// Its clusters. `ready` counts clusters that serve, whichever revision.
    pub clusters: Counts,
    /// Their nodes, summed over the reports that are about today's orders.
    pub nodes: Counts,
    /// Clusters that are not where the spec wants them.
    pub open: u32,
    /// The most telling of them, and why.
    pub first: Option<(ClusterName, Because)>,
    /// What the present stage as a whole waits for.
    pub gate: Option<GateWait>,
    /// Why the deployment as a whole cannot go on, worst first.
    pub refusals: Vec<Refusal>,
    /// What changes with this plan, for events: empty when there is nothing new.
    pub transitions: Vec<Transition>,
    /// Inputs of the conditions.
    pub conditions: Conditions,
}

impl DeploymentPlan {
    /// `status.progress`: updated of desired clusters.
    #[must_use]
    pub fn progress(&self) -> String {
        format!("{}/{}", self.clusters.updated, self.clusters.desired)
    }

    /// `status.waitingFor`: one sentence, the most telling reason first; none when nothing waits.
    #[must_use]
    pub fn waiting_for(&self) -> Option<String> {
        if let Some(refusal) = self.refusals.first() {
            return Some(refusal.to_string());
        }
        if let Some(gate) = self.gate.as_ref().filter(|gate| gate.needs_a_person()) {
            return Some(match (&self.first, gate) {
                (Some((cluster, Because::Suspect { .. })), GateWait::Suspects { .. }) => {
                    format!("{gate}; the first of them is cluster {cluster}")
                }
                _ => gate.to_string(),
            });
        }
        let telling =
            |(_, because): &&(ClusterName, Because)| self.gate.is_none() || !because.is_tolerated();
        let Some((cluster, first)) = self.first.as_ref().filter(telling) else {
            return self.gate.as_ref().map(ToString::to_string);
        };
        Some(match self.open.saturating_sub(1) {
            0 => format!("cluster {cluster}: {first}"),
            others => format!("cluster {cluster}: {first} (and {others} more waiting)"),
        })
    }
}

/// A revision's new fate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutcomeChange {
    /// The fate.
    pub outcome: Outcome,
    /// The stage in which it was decided.
    pub stage: StageName,
    /// CamelCase reason.
    pub reason: &'static str,
    /// One sentence, with the device's own words where there are any.
    pub message: String,
    /// What the failed clusters' nodes said, in the devices' own words; at most [`FAILURES_MAX`].
    pub problems: Vec<(ClusterName, Problem)>,
}

/// How many nodes' words a failed revision keeps.
pub const FAILURES_MAX: usize = 16;

/// Why a deployment cannot go on until somebody changes something.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, thiserror::Error)]
pub enum Refusal {
    /// Another deployment has the endpoint name on a cluster of the placement.
    #[error("endpoint name {endpoint} is taken by deployment {by} on cluster {cluster}")]
    EndpointNameTaken {
        /// The name.
        endpoint: EndpointName,
        /// The first deployment, which keeps it.
        by: DeploymentKey,
        /// The first cluster on which they meet.
        cluster: ClusterName,
    },
    /// A cluster's assignment would grow over its bound.
    #[error(
        "the assignment of cluster {cluster} would have more than {} entries or {} bytes",
        super::types::ENTRIES_MAX,
        super::ledger::ENTRIES_BYTES_MAX
    )]
    AssignmentTooLarge {
        /// The cluster.
        cluster: ClusterName,
    },
    /// No cluster matches the placement.
    #[error("the placement matches no cluster")]
    NoClusters,
    /// Time, silence or a person stopped the rollout.
    #[error("{message}")]
    Stopped {
        /// Whether a person did.
        aborted: bool,
        /// What happened, and what a person types.
        message: String,
    },
    /// A person chose another revision than the spec asks for.
    #[error(
        "revision {from} is undone: revision {to} runs until the spec asks for another one; to try it again type: kubectl rimward retry {deployment}"
    )]
    Undone {
        /// What the spec asks for.
        from: RevisionName,
        /// What runs.
        to: RevisionName,
        /// What a person types.
        deployment: crate::ids::DeploymentName,
    },
    /// The revision that the spec asks for failed before.
    #[error("revision {revision} failed and is not tried again, only a new revision is: {message}")]
    RevisionFailed {
        /// The revision.
        revision: RevisionName,
        /// Why it failed.
        message: String,
    },
}

impl Refusal {
    /// The condition's CamelCase reason, from a closed list.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::EndpointNameTaken { .. } => "EndpointNameTaken",
            Self::AssignmentTooLarge { .. } => "AssignmentTooLarge",
            Self::NoClusters => "NoClusters",
            Self::RevisionFailed { .. } => "RevisionFailed",
            Self::Stopped { aborted: true, .. } => "Aborted",
            Self::Stopped { aborted: false, .. } => "RolloutStopped",
            Self::Undone { .. } => "Undone",
        }
    }
}

/// Something that changes with a plan: one Kubernetes event each.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Transition {
    /// A rollout begins.
    #[error("rolling out revision {revision} in {stages} stage(s)")]
    RolloutStarted {
        /// The revision.
        revision: RevisionName,
        /// How many stages it will go through.
        stages: u32,
    },
    /// A stage begins.
    #[error("stage {stage} of revision {revision} begins with {clusters} cluster(s)")]
    StageStarted {
        /// The stage.
        stage: StageName,
        /// The revision.
        revision: RevisionName,
        /// How many clusters it has.
        clusters: u32,
    },
    /// All clusters of a stage are updated and ready; the bake begins.
    #[error("stage {stage} of revision {revision} bakes for {seconds} s")]
    BakeStarted {
        /// The stage.
        stage: StageName,
        /// The revision.
        revision: RevisionName,
        /// How long.
        seconds: u32,
    },
    /// A stage is done.
    #[error("stage {stage} of revision {revision} passed: {because}")]
    StagePassed {
        /// The stage.
        stage: StageName,
        /// The revision.
        revision: RevisionName,
        /// Why it may pass.
        because: PassedBecause,
    },
    /// A revision went through every stage.
    #[error("revision {revision} is promoted")]
    Promoted {
        /// The revision.
        revision: RevisionName,
    },
    /// A revision failed in a stage.
    #[error("revision {revision} failed in stage {stage}: {message}")]
    RevisionFailed {
        /// The revision.
        revision: RevisionName,
        /// The stage.
        stage: StageName,
        /// Why.
        message: String,
    },
    /// Nothing moves forward any more, as the policy says.
    #[error("rollout of revision {revision} paused; set modelRef back or ask for a new revision")]
    Paused {
        /// The revision.
        revision: RevisionName,
    },
    /// Time, silence or blocks stopped the rollout.
    #[error("rollout of revision {revision} stopped in stage {stage}: {message}")]
    Stopped {
        /// The revision.
        revision: RevisionName,
        /// The stage.
        stage: StageName,
        /// Why.
        message: String,
    },
    /// What stopped it is gone.
    #[error("rollout of revision {revision} goes on")]
    Resumed {
        /// The revision.
        revision: RevisionName,
    },
    /// A RolloutAction was decided.
    #[error("action {name} {}: {message}", if *applied { "applied" } else { "refused" })]
    ActionDecided {
        /// The action.
        name: String,
        /// It was done; else it was refused.
        applied: bool,
        /// One sentence.
        message: String,
    },
    /// Clusters go back.
    #[error("clusters go back from revision {revision} to {}", to.as_ref().map_or("nothing (no revision was ever promoted)", RevisionName::as_str))]
    RollbackStarted {
        /// The failed revision.
        revision: RevisionName,
        /// The promoted one.
        to: Option<RevisionName>,
    },
    /// All went back.
    #[error("all clusters that answer went back from revision {revision}")]
    RolledBack {
        /// The failed revision.
        revision: RevisionName,
    },
}

impl Transition {
    /// The event's CamelCase reason, from a closed list.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::RolloutStarted { .. } => "RolloutStarted",
            Self::StageStarted { .. } => "StageStarted",
            Self::BakeStarted { .. } => "BakeStarted",
            Self::StagePassed { .. } => "StagePassed",
            Self::Promoted { .. } => "Promoted",
            Self::RevisionFailed { .. } => "RevisionFailed",
            Self::Paused { .. } => "RolloutPaused",
            Self::Stopped { .. } => "RolloutStopped",
            Self::Resumed { .. } => "RolloutResumed",
            Self::ActionDecided { applied: true, .. } => "ActionApplied",
            Self::ActionDecided { applied: false, .. } => "ActionRefused",
            Self::RollbackStarted { .. } => "RollbackStarted",
            Self::RolledBack { .. } => "RolledBack",
        }
    }

    /// Whether the event is a warning.
    #[must_use]
    pub const fn is_warning(&self) -> bool {
        matches!(
            self,
            Self::RevisionFailed { .. }
                | Self::Paused { .. }
                | Self::Stopped { .. }
                | Self::RollbackStarted { .. }
                | Self::ActionDecided { applied: false, .. }
        )
    }
}

/// Why a stage passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PassedBecause {
    /// Its clusters are updated, ready and baked.
    #[error("its clusters are updated and ready")]
    Done,
    /// No cluster is in it, and its policy allows that.
    #[error("it has no clusters, which the policy allows")]
    Empty,
    /// Earlier stages took all the clusters that it would have.
    #[error("earlier stages took its clusters")]
    Reached,
    /// A person passed it.
    #[error("a person passed it")]
    ByPerson,
}

/// Inputs of a deployment's conditions. The hub adds `observedGeneration` and times.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Conditions {
    /// The promoted revision serves on every cluster that should have it and answers.
    pub available: Condition,
    /// Work is going on.
    pub reconciling: Condition,
    /// The spec is fully rolled out.
    pub ready: Condition,
    /// Somebody must change something.
    pub stalled: Condition,
    /// A rollback happened or a stage failed.
    pub degraded: Condition,
    /// Nothing moves because the spec says so.
    pub paused: Condition,
}

/// One condition.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Condition {
    /// Whether it holds.
    pub status: bool,
    /// CamelCase, from a closed list.
    pub reason: &'static str,
    /// One sentence.
    pub message: String,
}
