//! `rimward.yaml`: what an author writes beside the module and the model files.
//!
//! ```yaml
//! apiVersion: rimward.dev/v1alpha1
//! kind: Package
//! family: digits
//! version: 1.0.0
//! releaseCounter: 1
//! module: {file: module.wasm, stateless: false}       # optional: built-in pass-through
//! variants:
//! - name: fp32
//!   file: model.onnx
//!   format: onnx
//!   precision: fp32
//!   requires: {backends: [rten, onnxruntime]}          # any of; optional architectures, accelerator
//! inputs:  [{name: image, datatype: UINT8, shape: [-1, 8, 8]}]
//! outputs: [{name: probabilities, datatype: FP32, shape: [-1, 10]}]
//! goldenVectors: {file: golden.json}
//! metrics: [{name: accuracy, value: "0.981", dataset: sklearn-digits-heldout}]
//! lineage: {parent: "digits 0.9.0", relation: RetrainedFrom}
//! ```

use semver::Version;
use serde::Deserialize;

use super::build::BuildError;
use super::config::{Lineage, Metric, Requires};
use super::names::Label;
use super::path::FilePath;
use super::tensor::TensorSpec;
use crate::text::clip;

/// The file's name in the folder.
pub const SOURCE_FILE: &str = "rimward.yaml";
/// Its length.
pub(super) const SOURCE_BYTES_MAX: u64 = 256 << 10;

#[derive(Debug, Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a package's description"
)]
pub(super) struct Source {
    pub(super) api_version: String,
    pub(super) kind: String,
    pub(super) family: Label,
    pub(super) version: Version,
    pub(super) release_counter: u64,
    pub(super) module: Option<SourceModule>,
    pub(super) variants: Vec<SourceVariant>,
    pub(super) inputs: Vec<TensorSpec>,
    pub(super) outputs: Vec<TensorSpec>,
    pub(super) golden_vectors: Option<SourceGolden>,
    #[serde(default)]
    pub(super) metrics: Vec<Metric>,
    pub(super) lineage: Option<Lineage>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SourceModule {
    pub(super) file: FilePath,
    #[serde(default)]
    pub(super) stateless: bool,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SourceVariant {
    pub(super) name: Label,
    pub(super) file: FilePath,
    pub(super) format: Label,
    pub(super) precision: Label,
    pub(super) requires: Requires,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct SourceGolden {
    pub(super) file: FilePath,
}

impl Source {
    pub(super) fn parse(bytes: &[u8]) -> Result<Self, BuildError> {
        let yaml = serde_yaml::Deserializer::from_slice(bytes);
        let source: Self = serde_path_to_error::deserialize(yaml).map_err(|error| {
            BuildError::Source(format!(
                "field {}: {}",
                clip(&error.path().to_string(), 120),
                clip(&error.inner().to_string(), 300)
            ))
        })?;
        for (field, actual, expected) in [
            ("apiVersion", &source.api_version, "rimward.dev/v1alpha1"),
            ("kind", &source.kind, "Package"),
        ] {
            if actual != expected {
                return Err(BuildError::Source(format!(
                    "field {field}: is \"{}\", not \"{expected}\"",
                    clip(actual, 60)
                )));
            }
        }
        Ok(source)
    }
}
