//! Model: one immutable version of a model, by reference to its signed package.

use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::common::{Condition, LocalObjectReference};

/// One immutable version of a model.
#[derive(CustomResource, Clone, Debug, PartialEq, Serialize, Deserialize, KubeSchema)]
#[kube(
    group = "rimward.dev",
    version = "v1alpha1",
    kind = "Model",
    shortname = "rmodel",
    category = "rimward",
    namespaced,
    status = "ModelStatus",
    derive = "PartialEq",
    doc = "One immutable version of a model: a signed package in a registry.",
    printcolumn(name = "Family", type_ = "string", json_path = ".spec.family"),
    printcolumn(name = "Version", type_ = "string", json_path = ".spec.version"),
    printcolumn(
        name = "Ready",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].status"
    ),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.conditions[?(@.type=='Ready')].reason"
    ),
    printcolumn(
        name = "Digest",
        type_ = "string",
        json_path = ".status.digest",
        priority = 1
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[x_kube(
    validation = Rule::new("self.family == oldSelf.family").message("family never changes: make another Model"),
    validation = Rule::new("self.version == oldSelf.version").message("version never changes: make another Model"),
    validation = Rule::new("self.image == oldSelf.image").message("image never changes: make another Model"),
)]
#[serde(rename_all = "camelCase")]
pub struct ModelSpec {
    /// Family of the model; must equal the package's.
    #[schemars(
        length(min = 1, max = 63),
        regex(pattern = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
    )]
    pub family: String,
    /// Semantic version; must equal the package's.
    #[schemars(
        length(min = 5, max = 64),
        regex(
            pattern = r"^(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})\.(0|[1-9][0-9]{0,8})(-(0|[1-9][0-9]{0,8}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*)(\.(0|[1-9][0-9]{0,8}|[0-9]*[a-zA-Z-][0-9a-zA-Z-]*))*)?(\+[0-9a-zA-Z-]+(\.[0-9a-zA-Z-]+)*)?$"
        )
    )]
    pub version: String,
    /// The package: an OCI artifact, `host/repository:tag` or `host/repository@sha256:…`. A tag is resolved once.
    #[schemars(length(min = 3, max = 512))]
    pub image: String,
    /// A Secret of type `kubernetes.io/dockerconfigjson` with which the hub reads the registry. Devices have
    /// credentials of their own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pull_secret_ref: Option<LocalObjectReference>,
}

/// What the package's own config says, once resolved.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ModelStatus {
    /// Generation of the spec that this status speaks of.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub observed_generation: Option<i64>,
    /// Resolved and Ready; Reconciling and Stalled while or when it cannot be resolved.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<Condition>,
    /// Registry host and repository of the package.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 255))]
    pub repository: Option<String>,
    /// Digest of the package's manifest; never changes once resolved.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 71))]
    pub digest: Option<String>,
    /// Sum of the package's layers in bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub size_bytes: Option<i64>,
    /// Counter against putting an older release in a newer one's place.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 0))]
    pub release_counter: Option<i64>,
    /// Variants of the model in the package.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub variants: Vec<VariantInfo>,
    /// Input tensors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub inputs: Vec<TensorInfo>,
    /// Output tensors.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 64))]
    pub outputs: Vec<TensorInfo>,
}

/// One variant of a model in its package.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct VariantInfo {
    /// Name of the variant.
    #[schemars(length(max = 63))]
    pub name: String,
    /// File format, such as onnx.
    #[schemars(length(max = 32))]
    pub format: String,
    /// Numeric precision, such as fp32.
    #[schemars(length(max = 32))]
    pub precision: String,
}

/// Name, type and shape of one tensor.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct TensorInfo {
    /// Name of the tensor.
    #[schemars(length(max = 128))]
    pub name: String,
    /// Datatype of the Open Inference Protocol, such as FP32.
    #[schemars(length(max = 16))]
    pub datatype: String,
    /// Dimensions, -1 where any size fits.
    #[schemars(length(max = 16))]
    pub shape: Vec<i64>,
}
