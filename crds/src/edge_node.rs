//! EdgeNode: what one node runs (spec, by the sync session) and how it fares (status, by its agent).

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::cluster_assignment::Action;
use crate::common::{Condition, first_attempt, is_zero};
use crate::workload::{Health, PackageRef, Runtime};

/// What one node runs and how it fares. Made by its agent, named after the Node.
#[derive(CustomResource, Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "EdgeNode",
    shortname = "enode",
    category = "rimward",
    status = "EdgeNodeStatus",
    derive = "PartialEq",
    doc = "What one node runs and how it fares. Made by its agent, named after the Node.",
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(name = "Arch", type_ = "string", json_path = ".status.architecture"),
    printcolumn(name = "Agent", type_ = "string", json_path = ".status.agentVersion"),
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
pub struct EdgeNodeSpec {
    /// What the node has the go-ahead to run: the whole entry, so that the node needs no other object.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "name"]))]
    pub models: Vec<NodeModel>,
}

/// What one node does with one deployment.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NodeModel {
    /// Namespace of the ModelDeployment.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the ModelDeployment.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
    /// The model's name at the inference endpoint.
    #[schemars(length(min = 1, max = 63))]
    pub endpoint_name: String,
    /// Name of the revision that the node may run.
    #[schemars(length(min = 1, max = 63))]
    pub revision: String,
    /// Which attempt at the revision this is. A committed one needs nothing but the new number, a blocked one is
    /// tried again at once.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// The device's own verdicts that it gave under a lower attempt do not count any more; 0: all count.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub forget_verdicts_before: u32,
    /// The revision's package.
    pub package: PackageRef,
    /// Limits under which it runs.
    #[serde(default)]
    pub runtime: Runtime,
    /// When the node takes it as good.
    #[serde(default)]
    pub health: Health,
    /// Run it, or take it away.
    #[serde(default)]
    pub action: Action,
}

/// How the node fares.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeNodeStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Ready and Held.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Processor architecture in Go's spelling (amd64, arm64).
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 32))]
    pub architecture: Option<String>,
    /// Inference backends that can be used on this node.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub backends: Vec<BackendStatus>,
    /// Memory of the node in bytes: its capacity, not what is free.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub memory_bytes: Option<i64>,
    /// Size of the file system that holds the store, in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub disk_bytes: Option<i64>,
    /// Version of the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub agent_version: Option<String>,
    /// What the device's trust file says, in short.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub trust: Option<TrustSummary>,
    /// One entry for each deployment that the node knows.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 256), extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["namespace", "name"]))]
    pub models: Vec<NodeModelStatus>,
}

/// One inference backend, as it is.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct BackendStatus {
    /// Name of the backend, such as rten.
    #[schemars(length(max = 32))]
    pub name: String,
    /// Its version.
    #[schemars(length(max = 64))]
    pub version: String,
    /// Devices that it can run on.
    #[schemars(length(max = 16), inner(length(max = 64)))]
    pub devices: Vec<String>,
}

/// What the device's trust file says, in short.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TrustSummary {
    /// Names of the authorities.
    #[schemars(length(max = 32), inner(length(max = 128)))]
    pub signers: Vec<String>,
    /// Why the trust file cannot be used; absent when it can.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub problem: Option<String>,
}

/// How one deployment fares on the node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
#[schemars(extend("x-kubernetes-map-type" = "atomic"))]
pub struct NodeModelStatus {
    /// Namespace of the ModelDeployment.
    #[schemars(length(min = 1, max = 63))]
    pub namespace: String,
    /// Name of the ModelDeployment.
    #[schemars(length(min = 1, max = 52))]
    pub name: String,
    /// The revision that `state` speaks of: the one the node has the go-ahead for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub revision: Option<String>,
    /// The attempt at it that the node was told of last.
    #[serde(default = "first_attempt")]
    #[schemars(range(min = 1))]
    pub attempt: u32,
    /// How far the node is with it.
    #[serde(default)]
    pub state: NodeModelState,
    /// One word of the closed list.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub reason: Option<String>,
    /// The device's own words.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 512))]
    pub message: Option<String>,
    /// The revision that answers requests now.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub serving_revision: Option<String>,
    /// The variant of the package that runs.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub variant: Option<String>,
    /// Backend, device and precision that really run, such as `rten/cpu/fp32`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128))]
    pub backend: Option<String>,
    /// Where the model answers, such as `http://10.0.0.7:8080/v2/models/digits`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 256))]
    pub endpoint: Option<String>,
    /// The last revision that was committed here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 63))]
    pub last_good_revision: Option<String>,
    /// How the revision was judged; written when its phase changes, then frozen.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub verdict: Option<NodeModelVerdict>,
}

impl Default for NodeModelStatus {
    fn default() -> Self {
        Self {
            namespace: String::new(),
            name: String::new(),
            revision: None,
            attempt: first_attempt(),
            state: NodeModelState::default(),
            reason: None,
            message: None,
            serving_revision: None,
            variant: None,
            backend: None,
            endpoint: None,
            last_good_revision: None,
            verdict: None,
        }
    }
}

/// How far a node is with a revision.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum NodeModelState {
    /// Nothing has begun.
    #[default]
    Pending,
    /// The package is being fetched and verified.
    Staging,
    /// A bounded child compiles it and runs the golden vectors.
    Preflight,
    /// It answers requests, on trial.
    Trial,
    /// It is committed.
    Committed,
    /// It cannot be had for now (fetch, space, signature) and is tried again.
    Blocked,
    /// It was refused in preflight; the node never runs it.
    Rejected,
    /// It was tried and failed; the node went back.
    RolledBack,
    /// The node refuses an update for now.
    Held,
    /// The deployment was taken away.
    Removed,
}

/// How a revision was judged on the node.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeModelVerdict {
    /// Requests judged.
    #[schemars(range(min = 0))]
    pub samples: i64,
    /// Of these, requests that failed.
    #[schemars(range(min = 0))]
    pub errors: i64,
    /// 99th percentile of the time a request took.
    #[schemars(range(min = 0))]
    pub latency_p99_microseconds: i64,
}
