//! What a host or a preflight is told about one version of a deployment.
//!
//! Plain data, already parsed and bounded by the supervisor from a *verified* package.

use std::collections::BTreeMap;

pub use rimward_artifact::package::{Datatype, TensorSpec};
use serde::{Deserialize, Serialize};

/// The inference engines that a variant may ask for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Backend {
    /// rten, built in: ONNX on the CPU.
    Rten,
}

impl Backend {
    /// The name in objects and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Rten => "rten",
        }
    }
}

impl std::fmt::Display for Backend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name())
    }
}

/// The chosen variant of the package's model.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ModelVariant {
    /// The variant's name in the package.
    pub name: String,
    /// The file's format: `onnx`.
    pub format: String,
    /// What the package says of its numbers, such as `fp32`.
    pub precision: String,
    /// The engine to load it with.
    pub backend: Backend,
}

/// Bounds for one deployment's requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuntimeLimits {
    /// Linear memory of one guest instance.
    pub guest_memory_bytes_max: u64,
    /// Tensors that the host holds for one request, the guest's own and the answer's included.
    pub tensor_bytes_max: u64,
    /// Wall time of one request, queue included.
    pub timeout_milliseconds: u64,
    /// Requests in the sandbox at one time.
    pub concurrency: u32,
    /// Requests that may wait; more are answered 503 at once.
    pub queue: u32,
}

impl Default for RuntimeLimits {
    fn default() -> Self {
        Self {
            guest_memory_bytes_max: 64 << 20,
            tensor_bytes_max: 128 << 20,
            timeout_milliseconds: 5_000,
            concurrency: 1,
            queue: 64,
        }
    }
}

/// One version of a deployment, as a host or a preflight needs it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeploymentSpec {
    /// `<namespace>/<name>`.
    pub deployment: String,
    /// The model's name at the inference endpoint.
    pub endpoint: String,
    /// The revision: the model's version at the endpoint.
    pub revision: String,
    /// The package's own version, for metadata.
    pub package_version: String,
    /// The chosen variant.
    pub variant: ModelVariant,
    /// The endpoint's inputs.
    pub inputs: Vec<TensorSpec>,
    /// The endpoint's outputs.
    pub outputs: Vec<TensorSpec>,
    /// Bounds for its requests.
    pub limits: RuntimeLimits,
    /// `runtime.config`: handed to the module.
    pub config: BTreeMap<String, String>,
}

/// What really runs, as the backend reports it, never as asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct WhatRuns {
    /// The engine and its version, such as `rten 0.27.0`.
    pub backend: String,
    /// The device: `cpu`.
    pub device: String,
    /// The numbers computed with, such as `fp32`.
    pub precision: String,
    /// Memory that model and module hold, as far as the backend knows.
    pub memory_bytes: u64,
}

/// Identifies native code: what it was made from, by which engine, and its own bytes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct NativeCodeId {
    /// Sha256 of the module it was compiled from, `sha256:<hex>`.
    pub module_digest: String,
    /// The engine's compatibility hash, hex: other versions or settings give another.
    pub engine_hash: String,
    /// Sha256 of the native code, `sha256:<hex>`.
    pub code_digest: String,
}
