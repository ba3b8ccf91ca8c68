//! ModelDeployment: which model runs where, and how its revisions are rolled out.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Condition, LabelSelector, LocalObjectReference, Time, first_attempt, is_zero};
use crate::quantity::CountOrPercent;
use crate::rollout_action::ActionOutcome;
use crate::workload::{Health, Runtime};

/// A model placed on edge clusters under one endpoint name.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "ModelDeployment",
    shortname = "mdep",
    category = "rimward",
    namespaced,
    status = "ModelDeploymentStatus",
    derive = "PartialEq",
    doc = "A model placed on edge clusters under one endpoint name.",
    printcolumn(name = "Model", type_ = "string", json_path = ".spec.modelRef.name"),
    printcolumn(name = "Ready", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].status"),
    printcolumn(name = "Progress", type_ = "string", json_path = ".status.progress"),
    printcolumn(name = "Stage", type_ = "string", json_path = ".status.stage.name"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Waiting", type_ = "string", json_path = ".status.waitingFor", priority = 1),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 52").message("a ModelDeployment's name has at most 52 characters"),
)]
#[serde(rename_all = "camelCase")]
pub struct ModelDeploymentSpec {
    /// The Model to run, in the same namespace.
    pub model_ref: LocalObjectReference,
    /// The model's name at the inference endpoint; the deployment's name if absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub endpoint_name: Option<String>,
    /// Which clusters and nodes the model is for.
    pub placement: Placement,
    /// The policy by which new revisions roll out, in the same namespace. None: one cluster at a time, no failure
    /// allowed, everything rolled back at the first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rollout_policy_ref: Option<LocalObjectReference>,
    /// Limits under which the model runs on a node.
    #[serde(default)]
    pub runtime: Runtime,
    /// When a node takes a revision as good.
    #[serde(default)]
    pub health: Health,
    /// Finished revisions that are kept besides the running ones.
    #[serde(default = "history")]
    #[schemars(range(min = 1, max = 100))]
    pub revision_history_limit: u32,
    /// Time one cluster may take for a new revision where the policy's stage does not say; measured on the edge.
    #[serde(default = "deadline")]
    #[schemars(range(min = 10, max = 604_800))]
    pub progress_deadline_seconds: u32,
    /// The floor of Available: clusters that must serve, a number, or a share rounded up, of the clusters that
    /// are heard. Absent: as many as the policy's budgets leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_available: Option<CountOrPercent>,
    /// Stops the rollout where it stands; what runs goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

fn history() -> u32 {
    10
}

fn deadline() -> u32 {
    600
}

/// Which clusters and nodes a model is for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Placement {
    /// Selects EdgeClusters by label; absent selects none, `{}` all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster_selector: Option<LabelSelector>,
    /// Selects nodes within a cluster by label; absent or `{}` takes all of them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Takes at most this many clusters, in order of their names.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub max_clusters: Option<u32>,
}

/// How far a deployment is.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelDeploymentStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Available, Reconciling, Ready, Stalled, Degraded, Paused.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// The promoted revision.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub current_revision: Option<String>,
    /// The revision that was promoted before the current one: where `Undo` goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub previous_revision: Option<String>,
    /// The revision being rolled out, or the promoted one.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub update_revision: Option<String>,
    /// Clusters that run the update revision, of those the placement takes: `2/3`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub progress: Option<String>,
    /// The stage the rollout is in.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub stage: Option<StageStatus>,
    /// Verdicts that devices gave under an attempt lower than this do not count any more; absent: all count.
    #[serde(skip_serializing_if = "is_zero")]
    pub forget_verdicts_before: u32,
    /// What runs instead of what the spec asks for, until the spec asks for something else.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub undo: Option<UndoStatus>,
    /// Actions that were decided and whose own status does not say so yet: with it, each is applied exactly once.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["uid"]))]
    pub actions: Vec<DecidedAction>,
    /// Clusters, counted.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub clusters: Option<ReadyCounts>,
    /// Nodes, counted from what clusters report.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<ReadyCounts>,
    /// What the rollout waits for, in one sentence; absent when it waits for nothing.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub waiting_for: Option<String>,
}

/// What runs instead of what the spec asks for.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct UndoStatus {
    /// Name of the revision that the spec asks for.
    #[schemars(length(max = 63))]
    pub from: String,
    /// Name of the revision that runs instead.
    #[schemars(length(max = 63))]
    pub to: String,
}

/// An action that was decided, written together with its effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DecidedAction {
    /// UID of the RolloutAction.
    #[schemars(length(min = 1, max = 64))]
    pub uid: String,
    /// Its name.
    #[schemars(length(max = 253))]
    pub name: String,
    /// What was decided.
    pub outcome: ActionOutcome,
    /// The decision in a sentence.
    #[schemars(length(max = 1024))]
    pub message: String,
}

/// The stage of a rollout and the time it used: what a planner needs after a restart.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct StageStatus {
    /// Name of the stage.
    #[schemars(length(max = 63))]
    pub name: String,
    /// Its place, from 1.
    pub index: u32,
    /// How many stages there are.
    pub of: u32,
    /// What is going on in it.
    pub phase: StagePhase,
    /// Which attempt at the revision this is, from 1.
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Seconds that were heard since all of its clusters were ready: what the bake time is measured in.
    #[serde(skip_serializing_if = "is_zero")]
    pub baked_seconds: u32,
    /// Seconds of the attempt, as leaders of the hub counted them, where a hold has a deadline.
    #[serde(skip_serializing_if = "is_zero")]
    pub elapsed_seconds: u32,
    /// Stages that a person went on past, and past how many of their clusters: whoever falls silent or fails there later
    /// counts all the same.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 17), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["stage"]))]
    pub passed: Vec<PassedStage>,
    /// A person said that the hub shall not doubt its ears while this attempt goes on.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub doubt_overruled: bool,
    /// A person took the revision back.
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    pub aborted: bool,
    /// When it began; to be read by people, nothing is decided by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_time: Option<Time>,
    /// When a cluster last got further; to be read by people, nothing is decided by it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
}

/// A stage that a person went on past.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PassedStage {
    /// Name of the stage.
    #[schemars(length(max = 63))]
    pub stage: String,
    /// Clusters that had fallen silent after they were given the revision: their places are free again.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub suspects: u32,
    /// Clusters that had failed beyond the stage's allowance.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub failed: u32,
}

impl Default for StageStatus {
    fn default() -> Self {
        Self {
            name: String::new(),
            index: 0,
            of: 0,
            phase: StagePhase::default(),
            attempt: first_attempt(),
            baked_seconds: 0,
            elapsed_seconds: 0,
            passed: Vec::new(),
            doubt_overruled: false,
            aborted: false,
            started_time: None,
            last_progress_time: None,
        }
    }
}

/// What is going on in a stage. That someone paused the deployment is a condition beside it: the place of the
/// rollout is kept for the time after.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum StagePhase {
    /// Clusters take the revision.
    #[default]
    Progressing,
    /// All have it; the bake time runs.
    Baking,
    /// The last stage is over.
    Completed,
    /// More clusters condemned the revision than the stage allows: the rollout stands, and the content is final.
    Failed,
    /// Time, silence or blocks stopped it: nothing moves, and `retry` opens it again.
    Stopped,
    /// Clusters go back to the promoted revision.
    RollingBack,
    /// Everything is back on the promoted revision.
    RolledBack,
}

/// Clusters or nodes, counted by where they are. The seven from `updated` to `rolledBack` add up to `desired`; `ready`
/// is beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadyCounts {
    /// Should run the model.
    pub desired: u32,
    /// Have taken the update revision.
    pub updated: u32,
    /// Are on their way to it, or wait for their turn.
    pub pending: u32,
    /// Refuse an update for now.
    pub held: u32,
    /// Are not heard, and were not before they could have got the update revision: nothing waits for them.
    pub silent: u32,
    /// Fell silent after they may have got the update revision: they keep their place until they answer.
    pub suspect: u32,
    /// Rejected the update revision or ran out of time.
    pub failed: u32,
    /// Had the update revision and went back to an earlier one.
    pub rolled_back: u32,
    /// Serve the revision they should.
    pub ready: u32,
}
