//! ClusterAssignment: everything that one cluster runs, self-contained.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Condition, LabelSelector, first_attempt, is_zero};
use crate::edge_cluster::{Capabilities, NodeSummary, Versions};
use crate::quantity::CountOrPercent;
use crate::workload::{Health, PackageRef, Runtime};

/// Everything that one cluster runs. Made by the hub, named like its EdgeCluster, mirrored into the cluster.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "ClusterAssignment",
    shortname = "casg",
    category = "rimward",
    status = "ClusterAssignmentStatus",
    derive = "PartialEq",
    doc = "Everything that one cluster runs. Made by the hub, named like its EdgeCluster, mirrored into the cluster.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.total"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct ClusterAssignmentSpec {
    /// One entry for each deployment that the cluster runs or should take away.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "name"]))]
    pub models: Vec<AssignedModel>,
}

/// What one cluster does with one deployment. Atomic, as every entry of such a list: managed fields name it, not what is
/// in it, which bounds them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct AssignedModel {
    /// Namespace of the ModelDeployment.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the ModelDeployment.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
    /// The model's name at the inference endpoint.
    #[schemars(length(min = 1, max = 63))]
    pub endpoint_name: String,
    /// Name of the ModelRevision.
    #[schemars(length(min = 1, max = 63))]
    pub revision: String,
    /// Which attempt at the revision this is: with a new number its deadlines begin anew.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Verdicts that devices gave under a lower attempt do not count any more; 0: all count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forget_verdicts_before: u32,
    /// The revision that this order took the place of: where the cluster goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 63))]
    pub replaces: Option<String>,
    /// The revision's package.
    pub package: PackageRef,
    /// Limits under which it runs.
    pub runtime: Runtime,
    /// When a node takes it as good.
    pub health: Health,
    /// Nodes it is for; absent: all.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_selector: Option<LabelSelector>,
    /// Nodes that may be unavailable at once.
    pub max_unavailable: CountOrPercent,
    /// Nodes that may be condemned or suspect before no further node gets its go-ahead.
    #[serde(default)]
    #[schemars(range(min = 0, max = 100_000))]
    pub max_failures: u32,
    /// Run it, or take it away.
    pub action: Action,
    /// The stage in which the cluster got the revision.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub stage: Option<String>,
    /// Time the cluster may take for the revision; measured on the edge.
    #[schemars(range(min = 10, max = 604_800))]
    pub progress_deadline_seconds: u32,
}

/// What a cluster or a node does with a deployment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Action {
    /// Run this revision.
    #[default]
    Run,
    /// Take the deployment away.
    Remove,
}

/// What the cluster's sync session reports.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ClusterAssignmentStatus {
    /// Generation of the hub's object that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready and Reconciling; Stalled when a node rejected a revision.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// UID of the cluster's kube-system namespace.
    #[serde(rename = "clusterUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub cluster_uid: Option<String>,
    /// Versions of what runs in the cluster.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<Versions>,
    /// Nodes that run an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeSummary>,
    /// What the nodes can do.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// One entry for each deployment that the cluster knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "name"]))]
    pub models: Vec<AssignedModelStatus>,
}

/// How one deployment fares in the cluster, summed over its nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct AssignedModelStatus {
    /// Namespace of the ModelDeployment.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the ModelDeployment.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
    /// The revision that this entry speaks of.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub revision: Option<String>,
    /// The attempt at it that this entry speaks of.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// Nodes, counted.
    #[serde(default)]
    pub nodes: NodeCounts,
    /// The revision that nodes go back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub last_good_revision: Option<String>,
    /// What is wrong, worst first, in the device's own words.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 5))]
    pub problems: Vec<NodeProblem>,
    /// How the revision is judged so far.
    #[serde(default)]
    pub verdict: ModelVerdict,
}

impl Default for AssignedModelStatus {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            name: String::new(),
            revision: None,
            attempt: first_attempt(),
            nodes: NodeCounts::default(),
            last_good_revision: None,
            problems: Vec::new(),
            verdict: ModelVerdict::default(),
        }
    }
}

/// Nodes of a cluster, counted for one deployment. The seven from `updated` to `rolledBack` add up to `desired`;
/// `ready` is beside them.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeCounts {
    /// Should run the deployment.
    pub desired: u32,
    /// Have committed the revision.
    pub updated: u32,
    /// Are on their way to it, or wait for their go-ahead.
    pub pending: u32,
    /// Refuse an update for now.
    pub held: u32,
    /// Are not heard, and were not before they could have got the revision: nothing waits for them.
    pub silent: u32,
    /// Fell silent after their go-ahead: they keep their place until they answer.
    pub suspect: u32,
    /// Rejected the revision and serve nothing in its stead.
    pub failed: u32,
    /// Rejected the revision and serve an earlier one.
    pub rolled_back: u32,
    /// Serve some good revision.
    pub ready: u32,
}

/// What is wrong on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeProblem {
    /// Name of the node.
    #[schemars(length(max = 253))]
    pub node: String,
    /// One word of the closed list.
    #[schemars(length(max = 64))]
    pub reason: String,
    /// The device's own words.
    #[schemars(length(max = 512))]
    pub message: String,
}

/// How a revision is judged in a cluster. Written when its phase changes, then frozen: traffic writes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelVerdict {
    /// How far the judgement is.
    pub phase: VerdictPhase,
    /// One word of the closed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// Requests judged.
    #[schemars(range(min = 0))]
    pub samples: i64,
    /// Of these, requests that failed.
    #[schemars(range(min = 0))]
    pub errors: i64,
    /// The highest 99th percentile of any node.
    #[schemars(range(min = 0))]
    pub latency_p99_microseconds: i64,
}

/// How far the judgement of a revision is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum VerdictPhase {
    /// Nothing has begun.
    #[default]
    Pending,
    /// Nodes fetch and check it.
    Staging,
    /// Nodes try it with real requests.
    Trial,
    /// All nodes took it.
    Passed,
    /// A node rejected it: its content is condemned.
    Failed,
    /// A node's time ran out, which says nothing about its content.
    TimedOut,
    /// Nodes refuse an update for now.
    Held,
}
