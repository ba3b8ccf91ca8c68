//! What the fleet's plan is made from: what people want, and what was seen.
//!
//! Owns the words of the API as types. Must never hold an API object: `operator/src/hub/parse.rs`
//! turns objects into these, once.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{ClusterName, DeploymentKey, EndpointName, RevisionName, StageName};
use crate::selector::{Labels, Selector};
use crate::summary::{Counts, Measures, Phase, Problem};
use crate::time::Timestamp;

/// Most entries that one assignment may hold (the CRD's bound on its list).
pub const ENTRIES_MAX: usize = 256;

/// Most bytes that one assignment's entries may take together, as JSON.
pub const ENTRIES_BYTES_MAX: u64 = 1024 * 1024;

/// How long a cluster may be silent before it is offline, where the policy does not say.
pub const OFFLINE_GRACE_SECONDS_DEFAULT: u32 = 300;

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
    pub target: Option<RevisionName>,
    /// The promoted revision: what a rollback goes to.
    pub current: Option<RevisionName>,
    /// What is known of each revision that `target`, `current` or any assignment names.
    pub revisions: BTreeMap<RevisionName, Revision>,
    /// Where it shall run.
    pub placement: Placement,
    /// How it rolls out; [`Policy::default`] when the deployment names none.
    pub policy: Policy,
    /// Nothing moves while true; failures are still noticed.
    pub paused: bool,
    /// The object is on its way out: every cluster removes it.
    pub deleting: bool,
    /// Deadline for stages that state none of their own, measured on the edge.
    pub progress_deadline_seconds: u32,
    /// The rollout's place, as persisted in status by an earlier plan.
    pub stage: Option<StageRecord>,
}

/// What the planner needs to know of a ModelRevision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Revision {
    /// Its fate so far.
    pub outcome: Outcome,
    /// Bytes of its largest resolved entry as JSON: its share of an assignment's bound.
    pub entry_bytes: u32,
    /// Why it failed, when it did, as persisted.
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
    /// Failed in a stage. For ever: only a new revision helps.
    Failed,
    /// Time, silence or blocks stopped it: a new attempt opens it again.
    Stopped,
}

/// Where a deployment runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Placement {
    /// Which clusters.
    pub clusters: Selector,
    /// At most so many of them: those that have it already, then by name.
    pub max_clusters: Option<u32>,
}

/// How a rollout goes through the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The stages, in order; clusters that none names form a last one.
    pub stages: Vec<Stage>,
    /// `nodes.maxUnavailable`: for the pacing inside each cluster.
    pub nodes_max_unavailable: Amount,
    /// What a silent cluster means.
    pub offline: Offline,
    /// What a failed stage means.
    pub on_failure: OnFailure,
}

impl Default for Policy {
    /// No policy: one stage, one cluster at a time, no failure allowed, everything goes back.
    fn default() -> Self {
        Self {
            stages: Vec::new(),
            nodes_max_unavailable: Amount::ONE,
            offline: Offline::default(),
            on_failure: OnFailure::RollbackAll,
        }
    }
}

/// One stage of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique in the policy.
    pub name: StageName,
    /// Which clusters it takes.
    pub members: Members,
    /// How many of its clusters may be on their way at once.
    pub max_concurrency: Amount,
    /// How many of its clusters may be unavailable at once; none: only `max_concurrency` bounds them.
    pub max_unavailable: Option<Amount>,
    /// How many of its clusters may fail before the rollout stops.
    pub max_failures: u32,
    /// How long all its clusters must be updated and ready before the next stage.
    pub bake_seconds: u32,
    /// How long a cluster may be without progress, measured on the edge.
    pub progress_deadline_seconds: Option<u32>,
}

/// Which clusters a stage takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Those that match and that no earlier stage took.
    Selector(Selector),
    /// So many of the placement that, with the earlier stages, this number is reached.
    Count(u32),
    /// So many that, with the earlier stages, this percentage of the placement is reached, rounded up.
    Percent(u32),
}

/// A budget: an absolute number, or a percentage that rounds down. Either is at least 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many percent of the group.
    Percent(u32),
}

impl Amount {
    /// One at a time: the default of every budget.
    pub const ONE: Self = Self::Count(1);

    /// The budget for a group of `total`: rounded down, at least 1.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        let exact = match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => {
                let percent = usize::try_from(percent.min(100)).unwrap_or(100);
                total.saturating_mul(percent) / 100
            }
        };
        exact.max(1)
    }
}

/// What a silent cluster means for a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// Whether it still counts.
    pub mode: OfflineMode,
    /// How long without a heartbeat before a cluster is offline.
    pub grace_seconds: u32,
}

impl Default for Offline {
    fn default() -> Self {
        Self {
            mode: OfflineMode::Exclude,
            grace_seconds: OFFLINE_GRACE_SECONDS_DEFAULT,
        }
    }
}

/// Whether an offline cluster still counts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OfflineMode {
    /// It leaves the budgets and the stage goes on without it.
    #[default]
    Exclude,
    /// It counts as unavailable, and the stage waits for it.
    Count,
}

/// What happens when a stage's failures exceed its allowance.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing moves any more, until the spec asks for another revision.
    Pause,
    /// Every cluster goes back to the promoted revision, or removes the model if there is none.
    #[default]
    RollbackAll,
}

/// A rollout's place, persisted in the deployment's status: what a planner needs after a crash.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StageRecord {
    /// The revision whose rollout this is (`status.updateRevision`).
    pub revision: RevisionName,
    /// The stage's name.
    pub name: StageName,
    /// The stage's place, from 0. Clusters of this and of earlier stages are released.
    pub index: u32,
    /// How many stages there are.
    pub of: u32,
    /// What goes on in it.
    pub phase: StagePhase,
    /// When the stage began.
    pub started: Timestamp,
    /// Since when all its clusters are updated and ready.
    pub bake_started: Option<Timestamp>,
    /// When the number of updated clusters last changed.
    pub last_progress: Timestamp,
    /// That number, to notice the change.
    pub clusters_updated: u32,
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
    /// The revision failed in this stage and nothing moves (`onFailure: Pause`).
    Failed,
    /// Time, silence or blocks stopped it, and nothing moves.
    Stopped,
    /// The revision failed in this stage and clusters go back (`onFailure: RollbackAll`).
    RollingBack,
    /// They went back.
    RolledBack,
}

/// Everything that was seen of the fleet.
///
/// # Assumptions
/// It includes the planner's own earlier writes: a caller whose cache lags must wait for it, or two
/// plans in a row could each spend the same budget on different clusters.
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
    pub connection: Connection,
    /// Its `spec.paused`: its entries stay as they are.
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

/// What a cluster's heartbeat says, judged by the observer's monotonic time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Connection {
    /// No session was ever there.
    NeverJoined,
    /// The last beat came so long ago. How long is too long is the policy's grace.
    Beat {
        /// Seconds since the heartbeat last changed.
        age_seconds: u64,
    },
}

impl Connection {
    /// A cluster that beat just now.
    pub const ALIVE: Self = Self::Beat { age_seconds: 0 };
}

/// One entry of an assignment, as far as planning goes.
///
/// The frozen content (package, runtime, health, overrides resolved) is looked up by `revision` when
/// the plan is applied.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The revision to run or to remove.
    pub revision: RevisionName,
    /// What to do.
    pub action: Action,
    /// The stage that gave it.
    pub stage: StageName,
    /// The endpoint name that it takes in the cluster.
    pub endpoint_name: EndpointName,
    /// `maxUnavailable` for the pacing of nodes.
    pub nodes_max_unavailable: Amount,
    /// Deadline without progress, measured on the edge.
    pub progress_deadline_seconds: u32,
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
    /// A report of another generation than the object's says nothing about the entries of today.
    pub observed_generation: u64,
    /// What it says per model. A model that is absent runs on no node of the cluster.
    pub models: BTreeMap<DeploymentKey, ModelReport>,
}

/// What a session says of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ModelReport {
    /// The revision that this is about.
    pub revision: RevisionName,
    /// The attempt at it.
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
