//! Why a cluster is not where it should be, as a type with words.
//!
//! Owns the sentences that status, events and `kubectl rimward explain` show, with what a person can type.
//! Decides nothing.

use thiserror::Error;

use super::policy::AfterUpdate;
use crate::ids::{DeploymentKey, DeploymentName, RevisionName, StageName};
use crate::summary::Problem;

/// How a rollout stands to the stage of a suspect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SuspectPlace {
    /// It is in it, or all stages are released.
    Present,
    /// It is not there yet: the policy was edited after the cluster was given the revision.
    Ahead,
    /// It is past it.
    Passed,
    /// A person went on past so many suspects of it.
    GonePast(u32),
}

/// Why a cluster is not where the deployment's spec wants it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Because {
    /// A node condemned the revision.
    #[error("failed on revision {revision}: {}", words(reason, problem.as_ref()))]
    Failed {
        /// The revision.
        revision: RevisionName,
        /// The cluster's verdict.
        reason: String,
        /// The worst problem, in the device's own words.
        problem: Option<Problem>,
    },
    /// Its progress deadline ran out.
    #[error("revision {revision} is not there in time: {}; it goes on trying, and counts once it is done; for a new attempt type: kubectl rimward retry {deployment}", words(reason, problem.as_ref()))]
    TimedOut {
        /// The revision.
        revision: RevisionName,
        /// The cluster's verdict.
        reason: String,
        /// The worst problem, in the device's own words.
        problem: Option<Problem>,
        /// What a person types.
        deployment: DeploymentName,
    },
    /// It fell silent after the revision may have reached it.
    #[error("fell silent after it was given revision {revision}; {}", suspect(*after, *place, deployment))]
    Suspect {
        /// The revision.
        revision: RevisionName,
        /// What the policy says of such.
        after: AfterUpdate,
        /// How the rollout stands to its stage.
        place: SuspectPlace,
        /// What a person types.
        deployment: DeploymentName,
    },
    /// This leader has not heard it yet.
    #[error("not heard since the hub began to listen")]
    Unheard,
    /// The hub has just begun.
    #[error(
        "the hub began to lead a moment ago and listens to the fleet before anything goes forward"
    )]
    Listening,
    /// The hub doubts its own ears.
    #[error(
        "{silent} of {of} clusters fell silent at once, so the hub doubts its own ears and moves nothing; to go on all the same type: kubectl rimward promote {deployment}"
    )]
    Doubt {
        /// Clusters that fell silent.
        silent: u32,
        /// Clusters heard before.
        of: u32,
        /// What a person types.
        deployment: DeploymentName,
    },
    /// It left the placement, and goes when its turn comes.
    #[error("leaves the placement; {removing} of at most {max} clusters remove the model at once")]
    RemovalPaced {
        /// Removing now.
        removing: u32,
        /// Allowed.
        max: usize,
    },
    /// It waits for its turn to go back.
    #[error("waits to go back; {moving} of at most {max} clusters go back at once")]
    RollbackPaced {
        /// Going back now.
        moving: u32,
        /// Allowed.
        max: usize,
    },
    /// It has the revision, and holds its proof back only for its nodes' silence.
    #[error("{silent} of {desired} nodes are silent{}", problem.as_ref().map(|p| format!("; {}: {}", p.node, p.message)).unwrap_or_default())]
    NodesSilent {
        /// Silent or suspect nodes.
        silent: u32,
        /// Nodes in all.
        desired: u32,
        /// The first of them.
        problem: Option<Problem>,
    },
    /// Its session answers, and none of its nodes was heard since its order came.
    #[error("none of its {desired} nodes is heard{}", if *awaited { ", its stage waits for them" } else { ", left out of the budgets until one returns" })]
    NodesAway {
        /// Nodes in all.
        desired: u32,
        /// Whether the policy waits for them.
        awaited: bool,
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
    /// The content was condemned elsewhere and the policy says to pause.
    #[error(
        "revision {failed} failed and the policy pauses; set modelRef back or ask for a new revision"
    )]
    Paused {
        /// The failed revision.
        failed: RevisionName,
    },
    /// Time, silence or something in the way stopped the rollout elsewhere.
    #[error(
        "the rollout of revision {revision} stopped in stage {stage}; type: kubectl rimward retry {deployment} (a new attempt), promote (go on), abort (take it back)"
    )]
    Stopped {
        /// The revision.
        revision: RevisionName,
        /// Where.
        stage: StageName,
        /// What a person types.
        deployment: DeploymentName,
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
    #[error("no heartbeat for more than {grace_seconds} s{}", if *awaited { ", its stage waits for it" } else { ", left out of the budgets until it returns" })]
    Silent {
        /// The policy's grace. (Not the silence's length: words that change by themselves would be
        /// written again and again.)
        grace_seconds: u32,
        /// Whether the policy waits for it.
        awaited: bool,
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
        moving: u32,
        /// Allowed.
        max: usize,
    },
    /// Too many clusters are unavailable.
    #[error("stage {stage} has {unavailable} of at most {max} clusters unavailable")]
    Unavailable {
        /// The stage.
        stage: StageName,
        /// Unavailable now.
        unavailable: u32,
        /// Allowed.
        max: usize,
    },
    /// Its stage has not begun.
    #[error("stage {stage} comes after stage {current}")]
    StageNotReached {
        /// Its stage.
        stage: StageName,
        /// Where the rollout is.
        current: StageName,
    },
    /// The model is not resolved.
    #[error("the model is not resolved to a revision yet")]
    NotResolved,
}

fn suspect(after: AfterUpdate, place: SuspectPlace, deployment: &DeploymentName) -> String {
    let means = match (after, place) {
        (AfterUpdate::Ignore, _) => return "the policy ignores that".to_owned(),
        (AfterUpdate::Fail, SuspectPlace::Present | SuspectPlace::Passed) => "it counts as failed",
        (AfterUpdate::Wait, SuspectPlace::Present) => "its stage waits for it",
        (AfterUpdate::Wait | AfterUpdate::Fail, SuspectPlace::Ahead) => {
            return "its stage has not begun, and looks at it then".to_owned();
        }
        (AfterUpdate::Wait, SuspectPlace::Passed) => {
            return "its stage is passed, and no longer waits for it".to_owned();
        }
        (AfterUpdate::Wait | AfterUpdate::Fail, SuspectPlace::GonePast(count)) => {
            return format!("a person went on past {count} such clusters of its stage");
        }
    };
    format!("{means}; to go on without it type: kubectl rimward promote {deployment}")
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

impl Because {
    /// Sorts the most telling reason first: failures, then what somebody must do, then time.
    #[must_use]
    pub const fn rank(&self) -> u8 {
        match self {
            Self::Failed { .. } => 0,
            Self::TimedOut { .. }
            | Self::Suspect {
                place: SuspectPlace::Present,
                ..
            } => 1,
            Self::NothingToRun { .. } | Self::Paused { .. } | Self::Stopped { .. } => 2,
            Self::Doubt { .. } => 3,
            Self::EndpointNameTaken { .. } | Self::AssignmentTooLarge => 4,
            Self::RollingBack { .. } => 5,
            Self::DeploymentPaused | Self::ClusterPaused => 6,
            Self::Held { .. } | Self::NodesHeld { .. } => 7,
            Self::Updating { .. } | Self::NotReady { .. } | Self::NodesSilent { .. } => 8,
            Self::NotReported | Self::NotResolved | Self::Unheard | Self::Listening => 9,
            Self::Unavailable { .. } | Self::Concurrency { .. } | Self::RollbackPaced { .. } => 10,
            Self::Removing | Self::RemovalPaced { .. } => 11,
            Self::StageNotReached { .. } => 12,
            Self::Silent { .. }
            | Self::NeverJoined
            | Self::NodesAway { .. }
            | Self::Suspect {
                place: SuspectPlace::Ahead | SuspectPlace::Passed | SuspectPlace::GonePast(_),
                ..
            } => 13,
            Self::RolledBack { .. } => 14,
        }
    }

    /// Whether a deployment can be ready all the same.
    #[must_use]
    pub const fn is_tolerated(&self) -> bool {
        matches!(
            self,
            Self::Silent { awaited: false, .. }
                | Self::NodesAway { awaited: false, .. }
                | Self::NeverJoined
        )
    }

    /// CamelCase reason, from a closed list.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Failed { .. } => "Failed",
            Self::TimedOut { .. } => "TimedOut",
            Self::Suspect { .. } => "Suspect",
            Self::Unheard | Self::Listening => "Unheard",
            Self::Doubt { .. } => "HubDoubtsItself",
            Self::RemovalPaced { .. } => "RemovalPaced",
            Self::RollbackPaced { .. } => "RollbackPaced",
            Self::NodesSilent { .. } | Self::NodesAway { .. } => "NodesSilent",
            Self::RollingBack { .. } => "RollingBack",
            Self::RolledBack { .. } => "RolledBack",
            Self::NothingToRun { .. } => "NothingToRun",
            Self::Paused { .. } => "RevisionFailed",
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
