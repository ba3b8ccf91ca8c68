//! RolloutPolicy: in which stages a new revision reaches clusters, and what a failure means.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Condition, LabelSelector};
use crate::quantity::CountOrPercent;

/// In which stages a new revision reaches clusters, and what a failure means.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "RolloutPolicy",
    plural = "rolloutpolicies",
    shortname = "rpol",
    category = "rimward",
    namespaced,
    status = "RolloutPolicyStatus",
    derive = "PartialEq",
    doc = "In which stages a new revision reaches clusters, and what a failure means.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "OnFailure", type_ = "string", json_path = ".spec.onFailure"),
    printcolumn(
        name = "Message",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].message"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("!has(self.stages) || (self.stages.filter(s, has(s.clusters.count)).map(s, s.clusters.count).isSorted() && self.stages.all(s, !has(s.clusters.count) || self.stages.exists_one(t, has(t.clusters.count) && t.clusters.count == s.clusters.count)))")
        .message("counts of stages must grow from stage to stage: they include the clusters of earlier stages"),
    validation = Rule::new("!has(self.stages) || (self.stages.filter(s, has(s.clusters.percent)).map(s, s.clusters.percent).isSorted() && self.stages.all(s, !has(s.clusters.percent) || self.stages.exists_one(t, has(t.clusters.percent) && t.clusters.percent == s.clusters.percent)))")
        .message("percentages of stages must grow from stage to stage: they include the clusters of earlier stages"),
    validation = Rule::new("!has(self.stages) || self.stages.map(s, has(s.clusters.selector) && has(s.clusters.selector.matchExpressions) ? s.clusters.selector.matchExpressions.map(e, has(e.values) ? e.values.size() : 0).sum() : 0).sum() <= 1024")
        .message("matchExpressions of all stages together have at most 1024 values: an object must not outgrow what is stored"),
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutPolicySpec {
    /// How nodes within one cluster take a revision.
    #[serde(default)]
    pub nodes: NodePolicy,
    /// Stages, one after the other. Clusters that none of them names form a last stage.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["name"]))]
    pub stages: Vec<RolloutStage>,
    /// What happens when a stage has more failed clusters than it allows.
    #[serde(default)]
    pub on_failure: OnFailure,
    /// What a cluster that is not heard means for a rollout.
    #[serde(default)]
    pub offline: OfflinePolicy,
    /// What a cluster that refuses updates means for a rollout.
    #[serde(default)]
    pub hold: HoldPolicy,
    /// How clusters go back.
    #[serde(default)]
    pub rollback: RollbackPolicy,
}

/// How nodes within one cluster take a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePolicy {
    /// Nodes of one cluster that may be unavailable at once: a number, or a share rounded down, at least 1.
    pub max_unavailable: CountOrPercent,
    /// Nodes of one cluster that may reject a revision, or fall silent after they got it, before no further node of
    /// the cluster gets it.
    #[schemars(range(min = 0, max = 100_000))]
    pub max_failures: u32,
}

impl Default for NodePolicy {
    fn default() -> Self {
        Self {
            max_unavailable: CountOrPercent::Count(1),
            max_failures: 0,
        }
    }
}

/// One stage of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("!has(self.minProven) || !has(self.clusters.count) || type(self.minProven) != int || self.minProven <= self.clusters.count")
        .message("minProven is more than the stage's clusters.count, so the stage would never pass"),
    validation = Rule::new("!self.allowEmpty || has(self.clusters.selector)")
        .message("allowEmpty is for stages with clusters.selector: a count or a percentage is never empty by mistake"),
)]
#[serde(rename_all = "camelCase")]
pub struct RolloutStage {
    /// Name of the stage.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub name: String,
    /// Which clusters belong to the stage.
    pub clusters: StageClusters,
    /// Clusters that may be changing at once; absent: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_concurrency: Option<CountOrPercent>,
    /// Clusters of the stage that may be unavailable at once; absent: no limit of its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_unavailable: Option<CountOrPercent>,
    /// Failed clusters that the stage puts up with.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_failures: u32,
    /// Clusters of the stage that must be heard to run the revision before it passes: a number, or a share of those not
    /// skipped, rounded up, at least 1. Absent: all that are heard.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub min_proven: Option<CountOrPercent>,
    /// Lets the stage pass when no cluster belongs to it. Without, it waits: a misspelt label must not release to
    /// everyone.
    #[serde(default)]
    pub allow_empty: bool,
    /// How long all clusters of the stage must have been ready before the next stage begins; only seconds in which they
    /// were heard count.
    #[serde(default)]
    #[schemars(range(min = 0, max = 2_592_000))]
    pub bake_seconds: u32,
    /// Time one cluster may take; measured on the edge. Absent: the deployment's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 604_800))]
    pub progress_deadline_seconds: Option<u32>,
}

/// Which clusters belong to a stage: exactly one of the three.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("[has(self.selector), has(self.count), has(self.percent)].filter(x, x).size() == 1")
        .message("a stage takes exactly one of selector, count and percent"),
)]
#[serde(rename_all = "camelCase")]
pub struct StageClusters {
    /// Clusters of the placement with these labels that no earlier stage took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub selector: Option<LabelSelector>,
    /// As many clusters of the placement, earlier stages included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100_000))]
    pub count: Option<u32>,
    /// This share of the placement's clusters, rounded up, earlier stages included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percent: Option<u32>,
}

/// What a cluster that is not heard means for a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct OfflinePolicy {
    /// A cluster that was silent before it could have got the revision.
    pub before_update: BeforeUpdate,
    /// A cluster that fell silent after it may have got the revision.
    pub after_update: AfterUpdate,
    /// How long a cluster's heartbeat may stay away before it is silent, at least two heartbeats by the hub's
    /// `--heartbeat-seconds`; absent: as the hub's flag says, 300.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 10, max = 86_400))]
    pub grace_seconds: Option<u32>,
}

/// What a cluster means that was silent before it could have got the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum BeforeUpdate {
    /// The rollout goes on without it; on return it gets what is right by then, within its stage's budget.
    #[default]
    Skip,
    /// Its stage waits for it.
    Wait,
}

/// What a cluster means that fell silent after it may have got the revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum AfterUpdate {
    /// Its stage stands and says whom it waits for.
    #[default]
    Wait,
    /// It counts toward the stage's maxFailures.
    Fail,
    /// Its place is free again: for fleets where going dark is daily life. It is never a proof.
    Ignore,
}

/// What a cluster that refuses updates means for a rollout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("has(self.deadlineSeconds) == (self.mode != 'Respect')")
        .message("hold.deadlineSeconds is for the modes Fail and Ignore, and needed there"),
)]
#[serde(rename_all = "camelCase")]
pub struct HoldPolicy {
    /// What a hold does.
    #[serde(default)]
    pub mode: HoldMode,
    /// How long a hold is respected where the mode is Fail or Ignore: seconds of the rollout's attempt, as the
    /// hub's leaders counted them.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 60, max = 2_592_000))]
    pub deadline_seconds: Option<u32>,
}

/// What a hold does to a rollout. `spec.paused` of an EdgeCluster and a clash of identities are always respected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum HoldMode {
    /// A held cluster blocks no stage and counts as no failure, however long.
    #[default]
    Respect,
    /// After the deadline it counts toward the stage's maxFailures.
    Fail,
    /// After the deadline the hold is ignored and the cluster gets its update.
    Ignore,
}

/// How clusters go back.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RollbackPolicy {
    /// Clusters that may be going back at once: a number, or a share rounded down, at least 1. Inside a cluster they
    /// go node by node all the same.
    pub max_concurrency: CountOrPercent,
}

impl Default for RollbackPolicy {
    fn default() -> Self {
        Self {
            max_concurrency: CountOrPercent::Percent(100),
        }
    }
}

/// What happens when a stage fails.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum OnFailure {
    /// The rollout stands; every cluster keeps what it has until there is a new revision.
    Pause,
    /// Every cluster goes back to the promoted revision.
    #[default]
    RollbackAll,
}

/// Whether the policy can be used.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct RolloutPolicyStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
}
