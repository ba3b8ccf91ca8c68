//! EdgeCluster: one edge site, as people declare it on the hub.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Condition, Time};

/// The annotation in which `kubectl rimward cluster add` notes when the credential that it made for a pulling cluster
/// ends, in RFC 3339: the hub never sees that credential.
pub const CREDENTIAL_EXPIRES: &str = "rimward.dev/credential-expires";

/// One edge cluster that models can be placed on. Its labels are what placements select.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "EdgeCluster",
    shortname = "ecl",
    category = "rimward",
    status = "EdgeClusterStatus",
    derive = "PartialEq",
    doc = "One edge cluster that models can be placed on. Its labels are what placements select.",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.connection.mode"),
    printcolumn(name = "Joined", type_ = "string", json_path = ".status.conditions[?(@.type=='Joined')].status"),
    printcolumn(name = "Available", type_ = "string", json_path = ".status.conditions[?(@.type=='Available')].status"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes.total"),
    printcolumn(name = "Reason", type_ = "string", json_path = ".status.conditions[?(@.type=='Ready')].reason"),
    printcolumn(name = "Age", type_ = "date", json_path = ".metadata.creationTimestamp"),
    validation = Rule::new("self.metadata.name.size() <= 63").message("an EdgeCluster's name has at most 63 characters"),
)]
#[serde(rename_all = "camelCase")]
pub struct EdgeClusterSpec {
    /// How hub and cluster reach each other.
    #[serde(default)]
    pub connection: Connection,
    /// A paused cluster is given no new revision; what it runs goes on.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub paused: bool,
}

/// How hub and cluster reach each other.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, KubeSchema)]
#[x_kube(
    validation = Rule::new("self.mode == 'Push' ? has(self.kubeconfigSecretRef) : !has(self.kubeconfigSecretRef)")
        .message("kubeconfigSecretRef is for mode Push, and needed there"),
)]
#[serde(rename_all = "camelCase")]
pub struct Connection {
    /// Pull: the cluster dials the hub. Push: the hub dials the cluster.
    #[serde(default)]
    pub mode: ConnectionMode,
    /// Where the hub finds the kubeconfig of a Push cluster: a Secret in the operator's own namespace.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_secret_ref: Option<SecretKeyReference>,
}

/// Who dials whom.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum ConnectionMode {
    /// The edge operator dials the hub.
    #[default]
    Pull,
    /// The hub operator dials the cluster's API server.
    Push,
}

/// Names one key of a Secret.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct SecretKeyReference {
    /// Name of the Secret.
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    /// Key within the Secret.
    #[serde(default = "kubeconfig_key")]
    #[schemars(length(min = 1, max = 253))]
    pub key: String,
}

fn kubeconfig_key() -> String {
    "kubeconfig".to_owned()
}

/// What the hub knows of the cluster.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct EdgeClusterStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Joined, Available, Held and CredentialExpiring; Ready, Reconciling and Stalled sum them up.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// UID of the cluster's kube-system namespace, pinned when it joined.
    #[serde(rename = "clusterUID", skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 64))]
    pub cluster_uid: Option<String>,
    /// Versions the cluster reported.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub versions: Option<Versions>,
    /// Nodes that run an agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub nodes: Option<NodeSummary>,
    /// What the cluster's nodes can do, summed.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub capabilities: Option<Capabilities>,
    /// When the credential between hub and cluster ends, as far as it says so itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub credential_expires_time: Option<Time>,
}

/// Versions of what runs in an edge cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Versions {
    /// Version of the sync session's binary.
    #[schemars(length(max = 64))]
    pub operator: String,
    /// Version of the cluster's API server.
    #[schemars(length(max = 64))]
    pub kubernetes: String,
}

/// How many nodes run an agent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct NodeSummary {
    /// Nodes with an EdgeNode.
    pub total: u32,
    /// Of these, nodes whose agent is alive and Ready.
    pub ready: u32,
}

/// What a cluster's nodes can do, as sets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Capabilities {
    /// Processor architectures, in Go's spelling (amd64, arm64).
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 8), inner(length(max = 32)))]
    pub architectures: Vec<String>,
    /// Inference backends.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), inner(length(max = 32)))]
    pub backends: Vec<String>,
}
