//! Rimward's description of a package: media type `application/vnd.rimward.package.v1+json`.

use std::collections::BTreeSet;

use rimward_core::ids::Digest;
use semver::Version;
use serde::{Deserialize, Serialize};
use thiserror::Error;

use super::names::{Label, TensorName};
use super::path::FilePath;
use super::tensor::TensorSpec;
use crate::json::{self, JsonError, JsonLimits};
use crate::text::clip;

/// Variants of one package.
pub const VARIANTS_MAX: usize = 16;
/// Inputs, and outputs, of one package.
pub const TENSORS_MAX: usize = 32;
/// Metrics of one package.
pub const METRICS_MAX: usize = 32;
/// Backends, and architectures, that one variant names.
pub const REQUIREMENTS_MAX: usize = 8;
/// Characters of free text: a data set, a lineage parent.
pub const TEXT_CHARACTERS_MAX: usize = 256;
/// Characters of a version.
pub const VERSION_CHARACTERS_MAX: usize = 64;

/// What a package holds and what it asks of a device. Signed with the package: its digest is in the manifest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PackageConfig {
    /// The model's family, a DNS-1123 label: what release floors and lineage go by.
    pub family: Label,
    /// Semantic version.
    pub version: Version,
    /// Counts releases of the family; a device refuses one below its floor (anti-rollback).
    pub release_counter: u64,
    /// The guest module; none means the built-in pass-through.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<Module>,
    /// Model files, each for other devices. In order of the author's preference.
    pub variants: Vec<Variant>,
    /// What the endpoint takes.
    pub inputs: Vec<TensorSpec>,
    /// What the endpoint answers.
    pub outputs: Vec<TensorSpec>,
    /// Inputs with their right answers, tried before the package serves.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub golden_vectors: Option<GoldenRef>,
    /// What this model was made from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub lineage: Option<Lineage>,
    /// What its author measured.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub metrics: Vec<Metric>,
}

/// The guest module.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Module {
    /// Its path in the package.
    pub file: FilePath,
    /// Digest of its layer.
    pub digest: Digest,
    /// The module keeps nothing between requests, so an instance may be used again.
    #[serde(default)]
    pub stateless: bool,
}

/// One model file and the devices it is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Variant {
    /// Unique in the package.
    pub name: Label,
    /// Its path in the package.
    pub file: FilePath,
    /// Digest of its layer.
    pub digest: Digest,
    /// File format, such as `onnx`.
    pub format: Label,
    /// Number format of the weights, such as `fp32` or `int8`.
    pub precision: Label,
    /// What a device must have.
    pub requires: Requires,
}

/// What a device must have for a variant.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Requires {
    /// Any one of these engines, such as `rten` or `onnxruntime`. At least one.
    pub backends: Vec<Label>,
    /// Any one of these, in Kubernetes' names (`amd64`, `arm64`); empty means any.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub architectures: Vec<Label>,
    /// This accelerator; none means none is needed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub accelerator: Option<Label>,
}

/// Where the golden vectors are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GoldenRef {
    /// Their path in the package.
    pub file: FilePath,
    /// Digest of their layer.
    pub digest: Digest,
    /// How many there are.
    pub count: u32,
}

/// How a model came from another.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lineage {
    /// The parent: a reference or a name, at most 256 characters.
    pub parent: String,
    /// How.
    pub relation: Relation,
}

/// How a model came from its parent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the names say it")]
pub enum Relation {
    QuantizedFrom,
    PrunedFrom,
    DistilledFrom,
    RetrainedFrom,
    FineTunedFrom,
}

/// One number that the author measured. Text, so that nobody rounds it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metric {
    /// What was measured, such as `accuracy`.
    pub name: TensorName,
    /// A decimal number, at most 32 characters.
    pub value: String,
    /// On what data.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dataset: Option<String>,
}

/// Why a package's description was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ConfigError {
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field with a value that is not accepted.
    #[error("package config: field {field}: {message}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        message: String,
    },
}

impl PackageConfig {
    /// Parses and checks a description of at most `bytes_max` bytes.
    ///
    /// # Errors
    /// [`ConfigError`], naming the field, the limit and the value.
    pub fn parse(bytes: &[u8], bytes_max: u64) -> Result<Self, ConfigError> {
        let config: Self = json::parse("package config", bytes, JsonLimits::small(bytes_max))?;
        config.check()?;
        Ok(config)
    }

    /// Checks what the types cannot: counts, lengths, unique names.
    pub(crate) fn check(&self) -> Result<(), ConfigError> {
        let Self {
            family: _,
            version,
            release_counter: _,
            module: _,
            variants,
            inputs,
            outputs,
            golden_vectors: _,
            lineage,
            metrics,
        } = self;
        let version_characters = version.to_string().len();
        if version_characters > VERSION_CHARACTERS_MAX {
            return Err(field(
                "version",
                format!("has {version_characters} characters, at most {VERSION_CHARACTERS_MAX}"),
            ));
        }
        count("variants", variants.len(), 1, VARIANTS_MAX)?;
        unique(
            "variants",
            variants.iter().map(|variant| variant.name.as_str()),
        )?;
        for (index, variant) in variants.iter().enumerate() {
            let at = format!("variants[{index}].requires");
            let Requires {
                backends,
                architectures,
                accelerator: _,
            } = &variant.requires;
            count(
                &format!("{at}.backends"),
                backends.len(),
                1,
                REQUIREMENTS_MAX,
            )?;
            count(
                &format!("{at}.architectures"),
                architectures.len(),
                0,
                REQUIREMENTS_MAX,
            )?;
        }
        for (name, tensors) in [("inputs", inputs), ("outputs", outputs)] {
            count(name, tensors.len(), 1, TENSORS_MAX)?;
            unique(name, tensors.iter().map(|tensor| tensor.name.as_str()))?;
            for (index, tensor) in tensors.iter().enumerate() {
                if let Some(problem) = tensor.problem() {
                    return Err(field(&format!("{name}[{index}].shape"), problem));
                }
            }
        }
        if let Some(lineage) = lineage {
            text("lineage.parent", &lineage.parent)?;
        }
        count("metrics", metrics.len(), 0, METRICS_MAX)?;
        for (index, metric) in metrics.iter().enumerate() {
            let number = metric.value.parse::<f64>().is_ok_and(f64::is_finite);
            if !number || metric.value.len() > 32 {
                return Err(field(
                    &format!("metrics[{index}].value"),
                    format!(
                        "\"{}\" is no number of at most 32 characters",
                        clip(&metric.value, 40)
                    ),
                ));
            }
            if let Some(dataset) = &metric.dataset {
                text(&format!("metrics[{index}].dataset"), dataset)?;
            }
        }
        Ok(())
    }
}

fn count(name: &str, actual: usize, min: usize, max: usize) -> Result<(), ConfigError> {
    if (min..=max).contains(&actual) {
        return Ok(());
    }
    Err(field(
        name,
        format!("has {actual} entries, {min} to {max} are accepted"),
    ))
}

fn text(name: &str, value: &str) -> Result<(), ConfigError> {
    let characters = value.chars().count();
    if (1..=TEXT_CHARACTERS_MAX).contains(&characters) && !value.chars().any(char::is_control) {
        return Ok(());
    }
    Err(field(
        name,
        format!("must be 1 to {TEXT_CHARACTERS_MAX} printable characters, has {characters}"),
    ))
}

fn unique<'a>(name: &str, values: impl Iterator<Item = &'a str>) -> Result<(), ConfigError> {
    let mut seen = BTreeSet::new();
    for (index, value) in values.enumerate() {
        if !seen.insert(value) {
            return Err(field(
                &format!("{name}[{index}].name"),
                format!("\"{value}\" is the name of an earlier one too"),
            ));
        }
    }
    Ok(())
}

fn field(name: &str, message: String) -> ConfigError {
    ConfigError::Field {
        field: name.to_owned(),
        message,
    }
}
