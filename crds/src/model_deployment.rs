//! ModelDeployment: which model runs where, and how its revisions are rolled out.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Condition, LabelSelector, LocalObjectReference, Time};
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

/// The stage of a rollout and when it began: what a planner needs after a restart.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
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
    /// When it began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub started_time: Option<Time>,
    /// When its last cluster was ready and baking began.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub bake_started_time: Option<Time>,
    /// When a cluster last got further.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub last_progress_time: Option<Time>,
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
    /// Too many failures: the rollout stands.
    Failed,
    /// Clusters go back to the promoted revision.
    RollingBack,
    /// Everything is back on the promoted revision.
    RolledBack,
}

/// Clusters or nodes, counted by where they are.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ReadyCounts {
    /// Should run the model.
    pub desired: u32,
    /// Have taken the update revision.
    pub updated: u32,
    /// Serve the revision they should.
    pub ready: u32,
    /// Refuse an update for now.
    pub held: u32,
    /// Have not been heard of.
    pub offline: u32,
    /// Rejected the update revision or ran out of time.
    pub failed: u32,
    /// Went back to an earlier revision by themselves.
    pub rolled_back: u32,
}
