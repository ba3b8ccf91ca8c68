//! What the fleet's plan is made from: what people want, what earlier plans persisted, and what was
//! seen of clusters.
//!
//! Owns the words of the API as types. Must never hold an API object: `operator/src/hub/parse.rs`
//! turns objects into these, once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use super::action::{ActionRequest, Decided};
use super::policy::{Amount, Policy};
use crate::ids::{ClusterName, DeploymentKey, EndpointName, RevisionName, StageName};
use crate::selector::{Labels, Selector};
use crate::summary::{Counts, Measures, Phase, Problem};
use crate::time::Timestamp;

/// Most entries that one assignment may hold (the CRD's bound on its list).
pub const ENTRIES_MAX: usize = 256;

/// Everything that people want of the fleet.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Desired {
    /// Every ModelDeployment that exists and could be read.
    pub deployments: BTreeMap<DeploymentKey, Deployment>,
    /// Deployments that exist but could not be parsed: what clusters run of them stays as it is.
    pub unreadable: BTreeSet<DeploymentKey>,
}

/// One ModelDeployment, with its policy and the history of its rollout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deployment {
    /// The model's name at the inference endpoint.
    pub endpoint_name: EndpointName,
    /// When the object was made: the elder of two claimants keeps an endpoint name.
    pub created: Timestamp,
    /// The revision that the spec asks for; none while its model is not resolved.
    pub update: Option<RevisionName>,
    /// What is known of each revision that `update`, `standing` or any assignment names.
    pub revisions: BTreeMap<RevisionName, Revision>,
    /// Where it shall run.
    pub placement: Placement,
    /// How it rolls out; [`Policy::default`] when the deployment names none.
    pub policy: Policy,
    /// Clusters that must serve for the deployment to be available; none: what the budgets allow.
    pub min_available: Option<Amount>,
    /// Nothing moves while true; failures are still noticed.
    pub paused: bool,
    /// The object is on its way out: every cluster removes it.
    pub deleting: bool,
    /// Deadline for stages that state none of their own, measured on the edge.
    pub progress_deadline_seconds: u32,
    /// What earlier plans persisted in the object's status.
    pub standing: Standing,
    /// RolloutActions that have no outcome yet, in any order.
    pub actions: Vec<ActionRequest>,
}

/// What a deployment's plans persist in its status: all that a planner needs after a crash.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// The promoted revision: what a rollback goes to.
    pub current: Option<RevisionName>,
    /// The one promoted before it: what an undo goes to.
    pub previous: Option<RevisionName>,
    /// The rollout's place.
    pub stage: Option<StageRecord>,
    /// A person chose another revision than the spec asks for.
    pub undo: Option<Undo>,
    /// Verdicts that devices gave under an earlier attempt than this are forgotten.
    pub forget_verdicts_before: u32,
    /// RolloutActions that were decided and whose own status does not say so yet.
    pub decided: Vec<Decided>,
}

/// An undo in force: until the spec asks for something else than `from`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Undo {
    /// What the spec asked for when it was undone.
    pub from: RevisionName,
    /// What runs in its stead.
    pub to: RevisionName,
}

/// What the planner needs to know of a ModelRevision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Its fate so far.
    pub outcome: Outcome,
    /// Bytes of its largest resolved entry as JSON: its share of an assignment's bound.
    pub entry_bytes: u32,
    /// The highest attempt at it, from 1; 0 when there was none.
    pub attempt: u32,
    /// Why it failed or stopped, when it did, as persisted.
    pub message: String,
}

/// A revision's fate.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Outcome {
    /// On its way, or superseded on its way.
    #[default]
    Pending,
    /// Went through all its stages once.
    Promoted,
    /// Its content was condemned. For ever: only a new revision helps.
    Failed,
    /// Time, silence, something in the way or a person stopped it; `retry` opens it again.
    Stopped,
}

/// Where a deployment runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Which clusters.
    pub clusters: Selector,
    /// At most so many of them: those that have it already, then those that were taken before, then by name.
    pub max_clusters: Option<u32>,
}

/// A rollout's place, persisted in the deployment's status.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The revision whose rollout this is (`status.updateRevision`).
    pub revision: RevisionName,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// The stage's name.
    pub name: StageName,
    /// The stage's place, from 0. Clusters of this and of earlier stages are released.
    pub index: u32,
    /// How many stages there are.
    pub of: u32,
    /// What goes on in it.
    pub phase: StagePhase,
    /// Heard seconds of the stage's bake, as far as they were persisted.
    pub baked_seconds: u32,
    /// Seconds of the rollout that the hub's leaders counted, as far as they were persisted.
    pub elapsed_seconds: u32,
    /// Stages that a person went on past, each once.
    pub passed: Vec<Passed>,
    /// A person took the rollout back.
    pub aborted: bool,
    /// A person said to go on though the hub doubts its own ears.
    pub doubt_overruled: bool,
}

/// That a person went on past a stage, and past how many of its clusters: whoever falls silent or fails later is
/// waited for, and counted, all the same (but one that does so while the hub does not look, and another one returns).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Passed {
    /// The stage.
    pub stage: StageName,
    /// Suspects whose places are free again.
    pub suspects: u32,
    /// Clusters that failed beyond the stage's allowance for another reason than condemned content.
    pub failed: u32,
}

/// What goes on in a stage.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum StagePhase {
    /// Clusters are getting the revision.
    Progressing,
    /// All have it and are ready; time must pass.
    Baking,
    /// The revision went through every stage.
    Completed,
    /// The content was condemned in this stage and nothing moves forward (`onFailure: Pause`).
    Failed,
    /// Time, silence or something in the way: nothing moves forward.
    Stopped,
    /// Clusters go back.
    RollingBack,
    /// They went back.
    RolledBack,
}

/// Everything that was seen of the fleet.
///
/// # Assumptions
/// It includes the planner's own earlier writes: a caller whose cache lags lays them over it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Every EdgeCluster, with its assignment.
    pub clusters: BTreeMap<ClusterName, Cluster>,
}

/// One EdgeCluster and its assignment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    /// EdgeCluster's labels.
    pub labels: Labels,
    /// What its heartbeat says.
    pub connection: ConnectionState,
    /// Its `spec.paused`, or its identity is contested: its entries stay as they are.
    pub paused: bool,
    /// The reason in its hold annotation: it takes no update for now.
    pub held: Option<String>,
    /// Generation of the assignment object; 0 when there is none yet.
    pub generation: u64,
    /// The assignment's entries, as they stand on the hub.
    pub entries: BTreeMap<DeploymentKey, Entry>,
    /// The session's last report; none before the first.
    pub report: Option<Report>,
}

/// What is known of a cluster's heartbeat, judged by the present leader's monotonic time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnectionState {
    /// No session was ever there.
    NeverJoined,
    /// Its Lease has not changed since the leader began to watch it: it proves nothing.
    Unheard {
        /// When the leader first saw it.
        since: Timestamp,
    },
    /// Its Lease changed under the leader's eyes.
    Heard {
        /// When it last did.
        at: Timestamp,
    },
    /// An earlier leader called it silent, and it has not been heard since.
    Silent,
}

/// How a cluster sounds, by one policy's grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hearing {
    /// No session was ever there.
    NeverJoined,
    /// Neither heard nor silent yet.
    Unheard,
    /// It was heard within the grace.
    Heard,
    /// It was not.
    Silent,
}

impl ConnectionState {
    /// Judges by a grace.
    #[must_use]
    pub fn hearing(self, grace_seconds: u32, now: Timestamp) -> Hearing {
        match self {
            Self::NeverJoined => Hearing::NeverJoined,
            Self::Silent => Hearing::Silent,
            Self::Unheard { since } | Self::Heard { at: since }
                if now.seconds_since(since) >= u64::from(grace_seconds) =>
            {
                Hearing::Silent
            }
            Self::Unheard { .. } => Hearing::Unheard,
            Self::Heard { .. } => Hearing::Heard,
        }
    }

    /// When [`Self::hearing`] turns to silence, if nothing is heard.
    #[must_use]
    pub fn turns_silent_at(self, grace_seconds: u32) -> Option<Timestamp> {
        match self {
            Self::Unheard { since } | Self::Heard { at: since } => {
                Some(since.plus_seconds(grace_seconds))
            }
            Self::NeverJoined | Self::Silent => None,
        }
    }
}

/// One entry of an assignment, as far as planning goes.
///
/// The frozen content (package, runtime, health, overrides resolved) is looked up by `revision` when
/// the plan is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The revision to run or to remove.
    pub revision: RevisionName,
    /// Which attempt at it, from 1.
    pub attempt: u32,
    /// Devices forget verdicts on the revision that they gave under an earlier attempt than this.
    pub forget_verdicts_before: u32,
    /// What to do.
    pub action: Action,
    /// The revision that this order took the place of: the cluster may have it until it says otherwise.
    pub replaces: Option<RevisionName>,
    /// The stage that gave it.
    pub stage: StageName,
    /// The endpoint name that it takes in the cluster.
    pub endpoint_name: EndpointName,
    /// `maxUnavailable` for the pacing of nodes.
    pub nodes_max_unavailable: Amount,
    /// Nodes that may be condemned or suspect before go-aheads stop.
    pub nodes_max_failures: u32,
    /// How long a node may take, measured on the edge.
    pub progress_deadline_seconds: u32,
}

impl Entry {
    /// Whether it is about the revision: to run it, to remove it, or as what it took the place of.
    pub(super) fn names(&self, revision: &RevisionName) -> bool {
        &self.revision == revision || self.replaces.as_ref() == Some(revision)
    }

    /// Whether both are one order to the cluster; what else differs takes effect by itself.
    #[must_use]
    pub fn same_order(&self, other: &Self) -> bool {
        self.revision == other.revision
            && self.attempt == other.attempt
            && self.action == other.action
    }
}

/// What an entry asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Action {
    /// Run the revision.
    Run,
    /// Remove the model; the entry goes when the session confirms.
    Remove,
}

/// A session's report.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Generation of the hub's assignment that the session had acted on.
    ///
    /// A report of an earlier generation than that of an order says nothing about the order.
    pub observed_generation: u64,
    /// What it says per model. A model that is absent runs on no node of the cluster.
    pub models: BTreeMap<DeploymentKey, ModelReport>,
}

/// What a session says of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelReport {
    /// The revision that this is about.
    pub revision: RevisionName,
    /// The attempt that it is about.
    pub attempt: u32,
    /// Its nodes.
    pub nodes: Counts,
    /// How far the cluster's verdict is.
    pub phase: Phase,
    /// The verdict's reason, CamelCase; empty when there is none.
    pub reason: String,
    /// The verdict's measures.
    pub measures: Measures,
    /// The worst problems, in the devices' own words.
    pub problems: Vec<Problem>,
    /// What the cluster's nodes would go back to.
    pub last_good: Option<RevisionName>,
}
