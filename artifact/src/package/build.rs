//! Builds a package from a folder: the same folder gives the same digest, on any machine at any time.
//!
//! Refuses here whatever a device would refuse later. Model files are hashed while read and pushed from disk,
//! never held in memory.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use bytes::Bytes;
use rimward_core::ids::Digest;
use serde::Serialize;
use thiserror::Error;

use super::config::{ConfigError, GoldenRef, Module, PackageConfig, Variant};
use super::golden::{GoldenError, GoldenVectors};
use super::modelpack;
use super::path::FilePath;
use super::source::{SOURCE_BYTES_MAX, SOURCE_FILE, Source};
use crate::hash::{Hasher, sha256};
use crate::limits::Limits;
use crate::manifest::{Manifest, ManifestError};
use crate::media;
use crate::reference::Reference;
use crate::registry::{BlobSource, Client, ClientError};
use crate::verify;

/// Where Rimward's description lies among the package's files.
const PACKAGE_FILE: &str = "rimward-package.json";
/// First bytes of every WebAssembly module and component.
const WASM_MAGIC: &[u8] = b"\0asm";
const READ_BYTES: usize = 256 << 10;

/// A package, ready to be pushed or written as an OCI layout.
#[derive(Debug, Clone)]
pub struct BuiltPackage {
    /// The package's identity.
    pub digest: Digest,
    /// The manifest's bytes.
    pub manifest_bytes: Vec<u8>,
    /// What the package holds.
    pub config: PackageConfig,
    /// Everything the manifest names, in its order, config first.
    pub blobs: Vec<BuiltBlob>,
}

/// One blob of a built package.
#[derive(Debug, Clone)]
pub struct BuiltBlob {
    /// Its media type.
    pub media_type: &'static str,
    /// SHA-256 of its bytes.
    pub digest: Digest,
    /// Their number.
    pub size_bytes: u64,
    /// Its path in the package; none for the ModelPack config.
    pub path: Option<String>,
    /// Its bytes.
    pub source: BlobSource,
}

/// Why a folder is no package.
#[derive(Debug, Error)]
pub enum BuildError {
    /// A file could not be read.
    #[error("{path}: cannot be read")]
    Read {
        /// The file, as `rimward.yaml` names it.
        path: String,
        /// Why.
        source: io::Error,
    },
    /// A file that is not a plain file inside the folder, or over a limit, or of the wrong kind.
    #[error("{path}: {message}")]
    File {
        /// The file, as `rimward.yaml` names it.
        path: String,
        /// What is wrong.
        message: String,
    },
    /// `rimward.yaml` is not what it should be.
    #[error("{SOURCE_FILE}: {0}")]
    Source(String),
    /// Tensors, counts or names that a device would refuse.
    #[error("{SOURCE_FILE}")]
    Config(#[from] ConfigError),
    /// Golden vectors that a device would refuse.
    #[error("{path}")]
    Golden {
        /// The file.
        path: String,
        /// What is wrong.
        source: GoldenError,
    },
    /// A manifest that a device would refuse.
    #[error("the package")]
    Manifest(#[from] ManifestError),
    /// Parts that disagree: a fault of this builder.
    #[error("the package is not whole: {0}")]
    Inconsistent(String),
}

/// Builds the package of a folder.
///
/// # Errors
/// [`BuildError`], naming the file, the field, the limit and the value.
pub fn build(dir: &Path, limits: &Limits) -> Result<BuiltPackage, BuildError> {
    let name: FilePath = SOURCE_FILE
        .parse()
        .map_err(|_| BuildError::Inconsistent(SOURCE_FILE.to_owned()))?;
    let source = Source::parse(&read(dir, &name, SOURCE_BYTES_MAX)?)?;
    let mut files = Files {
        dir,
        seen: BTreeMap::new(),
    };
    let mut blobs = Vec::new();

    let module = match &source.module {
        Some(module) => {
            let blob = files.blob(&module.file, media::WASM, limits.module_bytes_max)?;
            check_magic(dir, &module.file)?;
            let digest = blob.digest;
            blobs.push(blob);
            Some(Module {
                file: module.file.clone(),
                digest,
                stateless: module.stateless,
            })
        }
        None => None,
    };
    let mut weights = BTreeMap::new();
    let mut variants = Vec::with_capacity(source.variants.len());
    for variant in &source.variants {
        let blob = files.blob(&variant.file, media::WEIGHT_RAW, limits.weight_bytes_max)?;
        variants.push(Variant {
            name: variant.name.clone(),
            file: variant.file.clone(),
            digest: blob.digest,
            format: variant.format.clone(),
            precision: variant.precision.clone(),
            requires: variant.requires.clone(),
        });
        weights.insert(variant.file.clone(), blob);
    }
    blobs.extend(weights.into_values());

    let mut config = PackageConfig {
        family: source.family,
        version: source.version,
        release_counter: source.release_counter,
        module,
        variants,
        inputs: source.inputs,
        outputs: source.outputs,
        golden_vectors: None,
        lineage: source.lineage,
        metrics: source.metrics,
    };
    config.check()?;
    if let Some(golden) = &source.golden_vectors {
        let bytes = read(dir, &golden.file, limits.golden_bytes_max)?;
        let vectors =
            GoldenVectors::parse(&bytes, &config, limits.golden_bytes_max).map_err(|source| {
                BuildError::Golden {
                    path: golden.file.to_string(),
                    source,
                }
            })?;
        let blob = in_memory(media::GOLDEN, Some(golden.file.as_str()), bytes);
        config.golden_vectors = Some(GoldenRef {
            file: golden.file.clone(),
            digest: blob.digest,
            count: u32::try_from(vectors.vectors.len()).unwrap_or(u32::MAX),
        });
        blobs.insert(0, blob);
    }
    assemble(config, blobs, limits)
}

/// Writes config and manifest around the files, and reads them back as a device would.
fn assemble(
    config: PackageConfig,
    files: Vec<BuiltBlob>,
    limits: &Limits,
) -> Result<BuiltPackage, BuildError> {
    let json = |error: serde_json::Error| BuildError::Inconsistent(error.to_string());
    let package_bytes = serde_json::to_vec(&config).map_err(json)?;
    PackageConfig::parse(&package_bytes, limits.config_bytes_max)?;
    let mut layers = vec![in_memory(media::PACKAGE, Some(PACKAGE_FILE), package_bytes)];
    layers.extend(files);
    let digests: Vec<Digest> = layers.iter().map(|layer| layer.digest).collect();
    let model_config = modelpack::write(&config, &digests).map_err(json)?;
    let model_config = in_memory(media::MODEL_CONFIG, None, model_config);
    let manifest_bytes = serde_json::to_vec(&RawManifest {
        schema_version: 2,
        media_type: media::OCI_MANIFEST,
        artifact_type: media::MODEL_MANIFEST,
        config: RawDescriptor::of(&model_config),
        layers: layers.iter().map(RawDescriptor::of).collect(),
    })
    .map_err(json)?;
    let digest = sha256(&manifest_bytes);
    let manifest = Manifest::parse(digest, &manifest_bytes, limits)?;
    verify::files_agree(&manifest, &config).map_err(BuildError::Inconsistent)?;
    layers.insert(0, model_config);
    Ok(BuiltPackage {
        digest,
        manifest_bytes,
        config,
        blobs: layers,
    })
}

impl BuiltPackage {
    /// Pushes blobs, then the manifest: by its digest, and by the reference's tag if it has one.
    ///
    /// `progress` is told before each blob, with its index.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::Refused`] if the reference names another digest.
    pub async fn push(
        &self,
        client: &Client,
        reference: &Reference,
        mut progress: impl FnMut(usize, &BuiltBlob),
    ) -> Result<(), ClientError> {
        if let Some(named) = reference.digest()
            && named != self.digest
        {
            return Err(ClientError::Refused {
                what: reference.to_string(),
                message: format!("the package is {}", self.digest),
            });
        }
        let repository = reference.repository();
        for (index, blob) in self.blobs.iter().enumerate() {
            progress(index, blob);
            client
                .push_blob(repository, blob.digest, blob.size_bytes, &blob.source)
                .await?;
        }
        let name = match reference.tag() {
            Some(tag) => tag.to_owned(),
            None => self.digest.to_string(),
        };
        client
            .push_manifest(repository, &name, &self.manifest_bytes)
            .await
    }
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RawManifest<'a> {
    schema_version: u32,
    media_type: &'a str,
    artifact_type: &'a str,
    config: RawDescriptor<'a>,
    layers: Vec<RawDescriptor<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RawDescriptor<'a> {
    media_type: &'a str,
    digest: Digest,
    size: u64,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    annotations: BTreeMap<&'a str, &'a str>,
}

impl<'a> RawDescriptor<'a> {
    fn of(blob: &'a BuiltBlob) -> Self {
        Self {
            media_type: blob.media_type,
            digest: blob.digest,
            size: blob.size_bytes,
            annotations: blob
                .path
                .iter()
                .map(|path| (media::FILEPATH, path.as_str()))
                .collect(),
        }
    }
}

fn in_memory(media_type: &'static str, path: Option<&str>, bytes: Vec<u8>) -> BuiltBlob {
    BuiltBlob {
        media_type,
        digest: sha256(&bytes),
        size_bytes: bytes.len() as u64,
        path: path.map(str::to_owned),
        source: BlobSource::Bytes(Bytes::from(bytes)),
    }
}

/// The folder's files, each hashed once.
struct Files<'a> {
    dir: &'a Path,
    seen: BTreeMap<FilePath, (Digest, u64)>,
}

impl Files<'_> {
    fn blob(
        &mut self,
        path: &FilePath,
        media_type: &'static str,
        bytes_max: u64,
    ) -> Result<BuiltBlob, BuildError> {
        let place = plain_file(self.dir, path, bytes_max)?;
        let (digest, size_bytes) = match self.seen.get(path) {
            Some(known) => *known,
            None => {
                let known = hash_file(&place, path)?;
                self.seen.insert(path.clone(), known);
                known
            }
        };
        Ok(BuiltBlob {
            media_type,
            digest,
            size_bytes,
            path: Some(path.to_string()),
            source: BlobSource::File(place),
        })
    }
}

/// The place of a file inside the folder: no component is a symlink, and it is a plain file within the limit.
fn plain_file(dir: &Path, path: &FilePath, bytes_max: u64) -> Result<PathBuf, BuildError> {
    let file = |message: String| BuildError::File {
        path: path.to_string(),
        message,
    };
    let mut place = dir.to_owned();
    let mut metadata = None;
    for component in path.as_str().split('/') {
        place.push(component);
        let found = std::fs::symlink_metadata(&place).map_err(|source| BuildError::Read {
            path: path.to_string(),
            source,
        })?;
        if found.is_symlink() {
            return Err(file(format!(
                "\"{component}\" is a symbolic link; a package holds files only"
            )));
        }
        metadata = Some(found);
    }
    let metadata = metadata
        .filter(std::fs::Metadata::is_file)
        .ok_or_else(|| file("is no plain file".to_owned()))?;
    let bytes = metadata.len();
    if bytes == 0 {
        return Err(file("is empty".to_owned()));
    }
    if bytes > bytes_max {
        return Err(file(format!(
            "has {bytes} bytes, at most {bytes_max} are accepted"
        )));
    }
    Ok(place)
}

fn read(dir: &Path, path: &FilePath, bytes_max: u64) -> Result<Vec<u8>, BuildError> {
    let place = plain_file(dir, path, bytes_max)?;
    let unreadable = |source| BuildError::Read {
        path: path.to_string(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(place).map_err(unreadable)?;
    // One byte more than allowed shows a file that grew after it was measured.
    file.take(bytes_max + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > bytes_max {
        return Err(BuildError::File {
            path: path.to_string(),
            message: format!("grew past {bytes_max} bytes"),
        });
    }
    Ok(bytes)
}

fn hash_file(place: &Path, path: &FilePath) -> Result<(Digest, u64), BuildError> {
    let unreadable = |source| BuildError::Read {
        path: path.to_string(),
        source,
    };
    let mut file = File::open(place).map_err(unreadable)?;
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; READ_BYTES];
    loop {
        let length = file.read(&mut buffer).map_err(unreadable)?;
        if length == 0 {
            break;
        }
        hasher.update(&buffer[..length]);
    }
    let bytes = hasher.bytes();
    Ok((hasher.finish(), bytes))
}

fn check_magic(dir: &Path, path: &FilePath) -> Result<(), BuildError> {
    let mut start = [0; 4];
    let opened =
        File::open(dir.join(path.as_str())).and_then(|mut file| file.read_exact(&mut start));
    match opened {
        Ok(()) if start == WASM_MAGIC => Ok(()),
        Ok(()) => Err(BuildError::File {
            path: path.to_string(),
            message: "is no WebAssembly: it does not start with \\0asm".to_owned(),
        }),
        Err(source) if source.kind() == io::ErrorKind::UnexpectedEof => Err(BuildError::File {
            path: path.to_string(),
            message: "is no WebAssembly: shorter than 4 bytes".to_owned(),
        }),
        Err(source) => Err(BuildError::Read {
            path: path.to_string(),
            source,
        }),
    }
}
