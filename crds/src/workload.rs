//! How one revision runs and how its health is judged: frozen in a ModelRevision, carried unchanged by
//! ClusterAssignment and EdgeNode.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use crate::quantity::MemoryQuantity;

/// A package by content: devices pull by digest only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PackageRef {
    /// Registry host and repository, without tag or digest.
    #[schemars(length(min = 1, max = 255))]
    pub repository: String,
    /// Digest of the package's manifest.
    #[schemars(length(max = 71), regex(pattern = "^sha256:[a-f0-9]{64}$"))]
    pub digest: String,
}

/// Limits under which a model runs on a node.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Runtime {
    /// Requests that may run at once on a node; more wait in a bounded queue.
    #[schemars(range(min = 1, max = 64))]
    pub concurrency: u32,
    /// Memory that one request may use in the sandbox, tensors held by the host included.
    pub memory: MemoryQuantity,
    /// Time one request may take, waiting included.
    #[schemars(range(min = 1, max = 600_000))]
    pub timeout_milliseconds: u32,
    /// Pairs handed to the module; at most 16, keys of 63 and values of 256 characters.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    #[schemars(schema_with = "crate::common::config_map")]
    pub config: BTreeMap<String, String>,
}

impl Default for Runtime {
    fn default() -> Self {
        Self {
            concurrency: 2,
            memory: MemoryQuantity::mebibytes(64),
            timeout_milliseconds: 2_000,
            config: BTreeMap::new(),
        }
    }
}

/// When a node takes a revision as good. Judged on the device, with or without a network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct Health {
    /// What the package's golden vectors mean in preflight.
    pub golden_vectors: GoldenVectors,
    /// How long a new revision is on trial before it is committed.
    #[schemars(range(min = 0, max = 86_400))]
    pub probation_seconds: u32,
    /// Requests that must have been judged before the trial can pass; 0 passes an idle one on liveness alone.
    #[schemars(range(min = 0, max = 1_000_000))]
    pub min_samples: u32,
    /// Share of failed requests, in thousandths, above which the trial fails.
    #[schemars(range(min = 0, max = 1_000))]
    pub max_error_permille: u32,
    /// 99th percentile of the time a request takes above which the trial fails; absent: not judged.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 600_000))]
    pub max_latency_p99_milliseconds: Option<u32>,
}

impl Default for Health {
    fn default() -> Self {
        Self {
            golden_vectors: GoldenVectors::Require,
            probation_seconds: 30,
            min_samples: 0,
            max_error_permille: 10,
            max_latency_p99_milliseconds: None,
        }
    }
}

/// What a package's golden vectors mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum GoldenVectors {
    /// A wrong answer, or a package without vectors, is refused.
    #[default]
    Require,
    /// Wrong answers are reported; the revision goes on.
    Report,
    /// They are not run.
    Ignore,
}
