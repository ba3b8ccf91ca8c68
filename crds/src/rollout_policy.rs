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
}

/// How nodes within one cluster take a revision.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodePolicy {
    /// Nodes of one cluster that may be unavailable at once: a number, or a share rounded down, at least 1.
    pub max_unavailable: CountOrPercent,
}

impl Default for NodePolicy {
    fn default() -> Self {
        Self {
            max_unavailable: CountOrPercent::Count(1),
        }
    }
}

/// One stage of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
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
    /// How long all clusters of the stage must have been ready before the next stage begins.
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
