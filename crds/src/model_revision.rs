//! ModelRevision: what one revision of a deployment is, frozen.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::Condition;
use crate::workload::{Health, PackageRef, Runtime};

/// What one revision of a deployment is, frozen. Made by the operator, owned by its deployment.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "ModelRevision",
    shortname = "mrev",
    category = "rimward",
    namespaced,
    status = "ModelRevisionStatus",
    derive = "PartialEq",
    doc = "What one revision of a deployment is, frozen. Made by the operator, owned by its deployment.",
    printcolumn(
        name = "Deployment",
        type_ = "string",
        json_path = ".spec.deploymentName"
    ),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.model.version"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.reason"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(validation = Rule::new("self == oldSelf").message("a ModelRevision never changes"))]
#[serde(rename_all = "camelCase")]
pub struct ModelRevisionSpec {
    /// The deployment that this is a revision of.
    #[schemars(length(min = 1, max = 52))]
    pub deployment_name: String,
    /// The model it runs.
    pub model: RevisionModel,
    /// Its package, by digest.
    pub package: PackageRef,
    /// Limits under which it runs.
    pub runtime: Runtime,
    /// When a node takes it as good.
    pub health: Health,
}

/// The model that a revision runs, for people to read.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionModel {
    /// Name of the Model.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Its family.
    #[schemars(length(max = 63))]
    pub family: String,
    /// Its version.
    #[schemars(length(max = 64))]
    pub version: String,
}

/// What became of a revision.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelRevisionStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready, Reconciling, Stalled.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Pending, Promoted, Failed or Stopped.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub outcome: Option<RevisionOutcome>,
    /// The attempt that ended so; absent: the first.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1))]
    pub attempt: Option<u32>,
    /// The stage it reached.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub stage: Option<String>,
    /// Why it failed, one word of the closed list.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// Why it failed, in the device's own words where a device said so.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 1024))]
    pub message: Option<String>,
    /// What nodes of the failed clusters reported when it failed: it stands here after they went back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub problems: Vec<RevisionProblem>,
}

/// Why a revision failed on one node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RevisionProblem {
    /// Name of the cluster.
    #[schemars(length(max = 253))]
    pub cluster: String,
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

/// What became of a revision.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum RevisionOutcome {
    /// Not decided yet.
    Pending,
    /// It went through all stages.
    Promoted,
    /// Its content was condemned; it goes nowhere any more.
    Failed,
    /// Time, silence or blocks stopped it; `retry` opens it again under a new attempt.
    Stopped,
}
