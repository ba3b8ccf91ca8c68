//! Why a cluster waits, as a type with words.
//!
//! Owns the sentences that status, events and `kubectl rimward explain` show. Decides nothing.

use thiserror::Error;

use crate::ids::{DeploymentKey, RevisionName, StageName};
use crate::summary::Problem;
use crate::time::Timestamp;

/// Why a cluster is not where the deployment's spec wants it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Waiting {
    /// A node rejected the revision, or its deadline ran out.
    #[error("failed on revision {revision}: {}", words(reason, problem.as_ref()))]
    Failed {
        /// The revision.
        revision: RevisionName,
        /// The cluster's verdict.
        reason: String,
        /// The worst problem, in the device's own words.
        problem: Option<Problem>,
    },
    /// The cluster goes back.
    #[error("going back from revision {from} to {to}, {updated} of {desired} nodes there")]
    RollingBack {
        /// The failed revision.
        from: RevisionName,
        /// The promoted one.
        to: RevisionName,
        /// Nodes that are there.
        updated: u32,
        /// Nodes in all.
        desired: u32,
    },
    /// The cluster went back, and stays there until a new revision comes.
    #[error("back on revision {on} since revision {failed} failed; waits for a new revision")]
    RolledBack {
        /// The failed revision.
        failed: RevisionName,
        /// What it runs.
        on: RevisionName,
    },
    /// Nothing runs, since the only revision failed.
    #[error("runs nothing: revision {failed} failed and no other was ever promoted")]
    NothingToRun {
        /// The failed revision.
        failed: RevisionName,
    },
    /// The revision failed elsewhere and the policy says to stop.
    #[error(
        "revision {failed} failed and the policy pauses; set modelRef back or ask for a new revision"
    )]
    Stopped {
        /// The failed revision.
        failed: RevisionName,
    },
    /// The endpoint name belongs to another deployment.
    #[error("its endpoint name is taken by deployment {by}")]
    EndpointNameTaken {
        /// The first deployment.
        by: DeploymentKey,
    },
    /// The assignment would grow over its bound.
    #[error("its assignment would grow over its bound")]
    AssignmentTooLarge,
    /// The deployment is paused.
    #[error("the deployment is paused")]
    DeploymentPaused,
    /// The EdgeCluster is paused.
    #[error("the cluster is paused")]
    ClusterPaused,
    /// The site holds updates.
    #[error("held by the site: {reason}")]
    Held {
        /// The annotation's text.
        reason: String,
    },
    /// No session was ever there.
    #[error("it never joined")]
    NeverJoined,
    /// No heartbeat.
    #[error("no heartbeat for more than {grace_seconds} s{}", if *excluded { ", left out of the budgets until it returns" } else { "" })]
    Silent {
        /// The policy's grace. (Not the silence's length: words that change by themselves would be
        /// written again and again.)
        grace_seconds: u32,
        /// Whether the rollout goes on without it.
        excluded: bool,
    },
    /// Some of its nodes hold.
    #[error("{held} of {desired} nodes are held{}", problem.as_ref().map(|p| format!("; {}: {}", p.node, p.message)).unwrap_or_default())]
    NodesHeld {
        /// Nodes that hold.
        held: u32,
        /// Nodes in all.
        desired: u32,
        /// The first of them.
        problem: Option<Problem>,
    },
    /// The cluster is on its way.
    #[error("updating to revision {revision}, {updated} of {desired} nodes{}", problem.as_ref().map(|p| format!("; {}: {}", p.node, p.message)).unwrap_or_default())]
    Updating {
        /// The revision.
        revision: RevisionName,
        /// Nodes that are there.
        updated: u32,
        /// Nodes in all.
        desired: u32,
        /// What the worst node says.
        problem: Option<Problem>,
    },
    /// All nodes have the revision, not all serve.
    #[error("{ready} of {desired} nodes ready on revision {revision}")]
    NotReady {
        /// The revision.
        revision: RevisionName,
        /// Nodes that serve.
        ready: u32,
        /// Nodes in all.
        desired: u32,
    },
    /// Its session has not yet told about the entry of today.
    #[error("its session has not reported on its entry yet")]
    NotReported,
    /// It is removing the model.
    #[error("removing the model, until its session confirms")]
    Removing,
    /// No free place among the clusters that may be on their way at once.
    #[error("stage {stage} updates {moving} of at most {max} clusters at once")]
    Concurrency {
        /// The stage.
        stage: StageName,
        /// On their way.
        moving: usize,
        /// Allowed.
        max: usize,
    },
    /// Too many clusters are unavailable.
    #[error("stage {stage} has {unavailable} of at most {max} clusters unavailable")]
    Unavailable {
        /// The stage.
        stage: StageName,
        /// Unavailable now.
        unavailable: usize,
        /// Allowed.
        max: usize,
    },
    /// Its stage has not begun.
    #[error("stage {stage} comes after stage {current}{}", until.map(|u| format!(", which bakes until {u}")).unwrap_or_default())]
    StageNotReached {
        /// Its stage.
        stage: StageName,
        /// Where the rollout is.
        current: StageName,
        /// When that stage's bake ends, if it bakes.
        until: Option<Timestamp>,
    },
    /// The model is not resolved.
    #[error("the model is not resolved to a revision yet")]
    NotResolved,
}

fn words(reason: &str, problem: Option<&Problem>) -> String {
    match problem {
        Some(problem) => format!(
            "node {}: {}: {}",
            problem.node, problem.reason, problem.message
        ),
        None => reason.to_owned(),
    }
}

impl Waiting {
    /// Sorts the most telling reason first: failures, then what somebody must do, then time.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Failed { .. } => 0,
            Self::NothingToRun { .. } | Self::Stopped { .. } => 1,
            Self::EndpointNameTaken { .. } | Self::AssignmentTooLarge => 2,
            Self::RollingBack { .. } => 3,
            Self::DeploymentPaused | Self::ClusterPaused => 4,
            Self::Held { .. } | Self::NodesHeld { .. } => 5,
            Self::Updating { .. } | Self::NotReady { .. } => 6,
            Self::NotReported | Self::NotResolved => 7,
            Self::Unavailable { .. } | Self::Concurrency { .. } => 8,
            Self::Removing => 9,
            Self::StageNotReached { .. } => 10,
            Self::Silent { .. } | Self::NeverJoined => 11,
            Self::RolledBack { .. } => 12,
        }
    }

    /// CamelCase reason, from a closed list.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "Failed",
            Self::RollingBack { .. } => "RollingBack",
            Self::RolledBack { .. } => "RolledBack",
            Self::NothingToRun { .. } => "NothingToRun",
            Self::Stopped { .. } => "RolloutStopped",
            Self::EndpointNameTaken { .. } => "EndpointNameTaken",
            Self::AssignmentTooLarge => "AssignmentTooLarge",
            Self::DeploymentPaused => "Paused",
            Self::ClusterPaused => "ClusterPaused",
            Self::Held { .. } => "Held",
            Self::NeverJoined => "NeverJoined",
            Self::Silent { .. } => "Offline",
            Self::NodesHeld { .. } => "NodesHeld",
            Self::Updating { .. } => "Updating",
            Self::NotReady { .. } => "NotReady",
            Self::NotReported => "NotReported",
            Self::Removing => "Removing",
            Self::Concurrency { .. } => "MaxConcurrency",
            Self::Unavailable { .. } => "MaxUnavailable",
            Self::StageNotReached { .. } => "StageNotReached",
            Self::NotResolved => "NotResolved",
        }
    }
}
