//! The OCI manifest of a package, parsed strictly: step 2 of the verification order.
//!
//! Owns which layers a package may have. Must never fetch: everything here is decided from the manifest's bytes
//! and a policy, so that a device knows every size before it asks for anything.

use std::collections::{BTreeMap, BTreeSet};

use rimward_core::ids::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::hash::sha256;
use crate::json::{self, JsonError, JsonLimits};
use crate::limits::Limits;
use crate::media;
use crate::package::path::{FilePath, FilePathError};
use crate::text::clip;

/// Something fetched by content: its type, digest and length.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// One of [`media`]'s constants.
    pub media_type: &'static str,
    /// SHA-256 of the bytes.
    pub digest: Digest,
    /// Length of the bytes.
    pub size_bytes: u64,
}

/// A layer that is one file of the package.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FileLayer {
    /// What to fetch.
    pub descriptor: Descriptor,
    /// Its path in the package.
    pub path: FilePath,
}

/// A package's manifest in which nothing is unknown.
///
/// Guarantees: sizes are within the policy; exactly one package description; at most one module and one file of
/// golden vectors; at least one weight file; no two layers with one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manifest {
    /// Digest of the manifest's own bytes: the package's identity.
    pub digest: Digest,
    /// The ModelPack config.
    pub config: Descriptor,
    /// Rimward's description of the package.
    pub package: Descriptor,
    /// The golden vectors.
    pub golden: Option<FileLayer>,
    /// The guest module; none means the built-in pass-through.
    pub module: Option<FileLayer>,
    /// The model files, at least one.
    pub weights: Vec<FileLayer>,
}

impl Manifest {
    /// Everything to fetch, in the manifest's order of meaning: config, package, golden, module, weights.
    pub fn blobs(&self) -> impl Iterator<Item = &Descriptor> {
        let files = self.golden.iter().chain(&self.module).chain(&self.weights);
        [&self.config, &self.package]
            .into_iter()
            .chain(files.map(|layer| &layer.descriptor))
    }

    /// The sum of all blobs, each digest counted once.
    #[must_use]
    pub fn total_bytes(&self) -> u64 {
        let unique: BTreeMap<Digest, u64> = self
            .blobs()
            .map(|blob| (blob.digest, blob.size_bytes))
            .collect();
        unique.values().sum()
    }

    /// The layer of a file with that digest, if the package has one.
    #[must_use]
    pub fn file(&self, digest: Digest) -> Option<&FileLayer> {
        self.golden
            .iter()
            .chain(&self.module)
            .chain(&self.weights)
            .find(|layer| layer.descriptor.digest == digest)
    }
}

/// Why a manifest was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ManifestError {
    /// The bytes are not those that the digest names.
    #[error("manifest: its bytes hash to {actual}, not to {expected}")]
    Digest {
        /// What was asked for.
        expected: Digest,
        /// What came.
        actual: Digest,
    },
    /// Longer than the policy allows.
    #[error("manifest: {bytes} bytes, at most {limit} are accepted")]
    TooLarge {
        /// Its length.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// A field with a value that is not accepted.
    #[error("manifest: field {field}: {message}")]
    Field {
        /// Path of the field.
        field: String,
        /// What is wrong.
        message: String,
    },
    /// A declared size over the policy.
    #[error("manifest: field {field}: declares {bytes} bytes, at most {limit} are accepted")]
    Size {
        /// Path of the field.
        field: String,
        /// What it declares.
        bytes: u64,
        /// The limit.
        limit: u64,
    },
}

#[derive(Deserialize)]
#[serde(
    rename_all = "camelCase",
    deny_unknown_fields,
    expecting = "a manifest"
)]
struct RawManifest {
    schema_version: u32,
    media_type: String,
    artifact_type: String,
    config: RawDescriptor,
    layers: Vec<RawDescriptor>,
    // For people and other tools: nothing is decided from them.
    #[serde(default, rename = "annotations")]
    _annotations: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct RawDescriptor {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
    // Known to OCI and refused by name, so that the message says why and not just "unknown".
    urls: Option<IgnoredAny>,
    data: Option<IgnoredAny>,
}

impl Manifest {
    /// Parses a manifest fetched as `digest`.
    ///
    /// # Errors
    /// [`ManifestError`], naming the field, the limit and the value. The digest is compared before any parsing.
    pub fn parse(digest: Digest, bytes: &[u8], limits: &Limits) -> Result<Self, ManifestError> {
        let length = bytes.len() as u64;
        if length > limits.manifest_bytes_max {
            return Err(ManifestError::TooLarge {
                bytes: length,
                limit: limits.manifest_bytes_max,
            });
        }
        let actual = sha256(bytes);
        if actual != digest {
            return Err(ManifestError::Digest {
                expected: digest,
                actual,
            });
        }
        let raw: RawManifest = json::parse("manifest", bytes, JsonLimits::small(length))?;
        let RawManifest {
            schema_version,
            media_type,
            artifact_type,
            config,
            layers,
            _annotations: _,
        } = raw;
        if schema_version != 2 {
            return Err(field(
                "schemaVersion",
                format!("is {schema_version}, not 2"),
            ));
        }
        expect("mediaType", &media_type, media::OCI_MANIFEST)?;
        expect("artifactType", &artifact_type, media::MODEL_MANIFEST)?;
        if layers.len() > limits.layers_max {
            return Err(field(
                "layers",
                format!("has {}, at most {}", layers.len(), limits.layers_max),
            ));
        }
        expect("config.mediaType", &config.media_type, media::MODEL_CONFIG)?;
        let config = descriptor(
            "config",
            &config,
            media::MODEL_CONFIG,
            limits.config_bytes_max,
        )?;
        let manifest = sort_layers(digest, config, &layers, limits)?;
        // Declared sizes are at most 64 bits each; summed in 128 so that no sum can wrap.
        let total: u128 = manifest
            .blobs()
            .map(|blob| u128::from(blob.size_bytes))
            .sum();
        if total > u128::from(limits.package_bytes_max) {
            return Err(ManifestError::Size {
                field: "layers".to_owned(),
                bytes: u64::try_from(total).unwrap_or(u64::MAX),
                limit: limits.package_bytes_max,
            });
        }
        Ok(manifest)
    }
}

fn sort_layers(
    digest: Digest,
    config: Descriptor,
    layers: &[RawDescriptor],
    limits: &Limits,
) -> Result<Manifest, ManifestError> {
    let (mut package, mut golden, mut module, mut weights) = (None, None, None, Vec::new());
    let mut paths = BTreeSet::new();
    for (index, raw) in layers.iter().enumerate() {
        let at = format!("layers[{index}]");
        let (media_type, limit) = match raw.media_type.as_str() {
            media::PACKAGE => (media::PACKAGE, limits.config_bytes_max),
            media::GOLDEN => (media::GOLDEN, limits.golden_bytes_max),
            media::WASM => (media::WASM, limits.module_bytes_max),
            media::WEIGHT_RAW => (media::WEIGHT_RAW, limits.weight_bytes_max),
            other => {
                return Err(field(
                    &format!("{at}.mediaType"),
                    format!("\"{}\" is no layer type of a package", clip(other, 100)),
                ));
            }
        };
        let descriptor = descriptor(&at, raw, media_type, limit)?;
        let path = file_path(&at, raw)?;
        if !paths.insert(path.as_str().to_lowercase()) {
            return Err(field(
                &format!("{at}.annotations[{}]", media::FILEPATH),
                format!("\"{path}\" is the path of an earlier layer too"),
            ));
        }
        let duplicate = |slot: bool| {
            if slot {
                Err(field(&at, format!("a second layer of type {media_type}")))
            } else {
                Ok(())
            }
        };
        match media_type {
            media::PACKAGE => {
                duplicate(package.is_some())?;
                package = Some(descriptor);
            }
            media::GOLDEN => {
                duplicate(golden.is_some())?;
                golden = Some(FileLayer { descriptor, path });
            }
            media::WASM => {
                duplicate(module.is_some())?;
                module = Some(FileLayer { descriptor, path });
            }
            _ => weights.push(FileLayer { descriptor, path }),
        }
    }
    if weights.is_empty() {
        return Err(field(
            "layers",
            format!("none of type {}", media::WEIGHT_RAW),
        ));
    }
    let package =
        package.ok_or_else(|| field("layers", format!("none of type {}", media::PACKAGE)))?;
    Ok(Manifest {
        digest,
        config,
        package,
        golden,
        module,
        weights,
    })
}

fn descriptor(
    at: &str,
    raw: &RawDescriptor,
    media_type: &'static str,
    limit: u64,
) -> Result<Descriptor, ManifestError> {
    if raw.urls.is_some() {
        return Err(field(
            &format!("{at}.urls"),
            "content from elsewhere is not accepted".to_owned(),
        ));
    }
    if raw.data.is_some() {
        return Err(field(
            &format!("{at}.data"),
            "embedded content is not accepted".to_owned(),
        ));
    }
    if raw.size > limit {
        return Err(ManifestError::Size {
            field: format!("{at}.size"),
            bytes: raw.size,
            limit,
        });
    }
    Ok(Descriptor {
        media_type,
        digest: raw.digest,
        size_bytes: raw.size,
    })
}

fn file_path(at: &str, raw: &RawDescriptor) -> Result<FilePath, ManifestError> {
    let name = format!("{at}.annotations[{}]", media::FILEPATH);
    let text = raw
        .annotations
        .get(media::FILEPATH)
        .ok_or_else(|| field(&name, "is missing".to_owned()))?;
    text.parse()
        .map_err(|error: FilePathError| field(&name, error.to_string()))
}

fn expect(name: &str, actual: &str, expected: &str) -> Result<(), ManifestError> {
    if actual == expected {
        return Ok(());
    }
    Err(field(
        name,
        format!("is \"{}\", not \"{expected}\"", clip(actual, 100)),
    ))
}

fn field(name: &str, message: String) -> ManifestError {
    ManifestError::Field {
        field: name.to_owned(),
        message,
    }
}
