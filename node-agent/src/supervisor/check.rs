//! The offline check of a stored version: step 8 of verification, before it is compiled or loaded.
//!
//! Owns the way from an install order in the store to verified files. Must never use the network,
//! nor hand out a file whose hash it did not just compute.

use std::fs::File;
use std::os::fd::OwnedFd;
use std::sync::Arc;

use rimward_artifact::Limits;
use rimward_artifact::manifest::Manifest;
use rimward_artifact::package::PackageConfig;
use rimward_artifact::reference::Repository;
use rimward_artifact::trust::TrustFile;
use rimward_artifact::verify::{self, Refusal, SignatureSet, Verified};
use rimward_core::ids::Digest;
use rimward_core::node::{Problem, Reason, Version};

use super::record::DeviceRecord;
use crate::parse::{Install, Key, limits};
use crate::proto::{Backend, DeploymentSpec, ModelVariant};
use crate::store::{BlobError, Blobs, Versions};

/// Names of the files in a version's folder.
pub(super) mod file {
    /// The manifest.
    pub(crate) const MANIFEST: &str = "manifest.json";
    /// The package config.
    pub(crate) const CONFIG: &str = "package.json";
    /// The signatures.
    pub(crate) const SIGNATURES: &str = "signatures.json";
}

/// Longest install order.
const INSTALL_BYTES_MAX: u64 = 256 << 10;

/// Release floors as the device remembers them.
#[derive(Debug, Clone, Default)]
pub(super) struct Floors(std::collections::BTreeMap<String, u64>);

impl Floors {
    /// Takes them out of the record.
    #[must_use]
    pub(super) fn of(record: &DeviceRecord) -> Self {
        Self(record.release_floors.clone())
    }

    /// The floor of a family; 0 for none.
    #[must_use]
    pub(super) fn floor(&self, family: &str) -> u64 {
        self.0.get(family).copied().unwrap_or(0)
    }
}

/// A stored version that passed, with its papers.
#[derive(Debug)]
pub(super) struct Papers {
    /// The order it was installed by.
    pub install: Install,
    /// The manifest.
    pub manifest: Verified<Manifest>,
    /// The package config.
    pub config: Verified<PackageConfig>,
}

/// Verified files, opened for reading, at their beginning.
#[derive(Debug)]
pub(super) struct Files {
    /// Digest and bytes of the module; none for the built-in one.
    pub module: Option<(Digest, OwnedFd)>,
    /// The chosen variant's model file.
    pub model: OwnedFd,
    /// The golden vectors, if the package has any.
    pub golden_vectors: Option<OwnedFd>,
}

/// Turns a refusal into the machine's words; the reason is verification's own.
#[must_use]
pub(super) fn problem(refusal: &Refusal) -> Problem {
    told(refusal.reason().as_str(), &refusal.to_string())
}

/// A problem whose reason stands beside its words, and so is not repeated in them.
pub(super) fn told(reason: &'static str, words: &str) -> Problem {
    let bare = words
        .strip_prefix(reason)
        .and_then(|rest| rest.strip_prefix(": "));
    Problem::new(Reason::new(reason), bare.unwrap_or(words))
}

fn corrupt(what: impl AsRef<str>) -> Problem {
    Problem::new(Reason::CORRUPT, what)
}

fn blob_problem(error: &BlobError) -> Problem {
    corrupt(words(error))
}

/// An error with its causes, in one line.
#[must_use]
pub(super) fn words(error: &dyn std::error::Error) -> String {
    let mut words = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        words.push_str(": ");
        words.push_str(&error.to_string());
        cause = error.source();
    }
    words
}

/// Where the stored parts are, and what they are checked against.
#[derive(Debug, Clone)]
pub(super) struct Checker {
    /// The blobs.
    pub blobs: Blobs,
    /// The verbatim files.
    pub versions: Versions,
    /// The trust in force.
    pub trust: Arc<TrustFile>,
    /// What a package may contain.
    pub limits: Limits,
    /// Release floors.
    pub floors: Floors,
}

impl Checker {
    /// Checks the papers of a stored version: signatures, revocation, floors, and that they belong
    /// to what the state record names. Reads no large file.
    ///
    /// # Errors
    /// The problem, in the words of status.
    pub(super) fn papers(&self, key: &Key, version: &Version) -> Result<Papers, Problem> {
        let install = self
            .blobs
            .read(version.install, INSTALL_BYTES_MAX)
            .map_err(|error| blob_problem(&error))?;
        let install: Install = serde_json::from_slice(&install)
            .map_err(|error| corrupt(format!("install order {}: {error}", version.install)))?;
        let repository: Repository = install
            .entry
            .package
            .repository
            .parse()
            .map_err(|error| corrupt(format!("install order {}: {error}", version.install)))?;
        let files = self
            .versions
            .get(&key.folder(), version.package)
            .map_err(|error| corrupt(format!("files of {}: {error}", version.package)))?;
        let bytes = |name: &str| {
            files
                .iter()
                .find(|(had, _)| had == name)
                .map(|(_, bytes)| bytes.as_slice())
                .ok_or_else(|| corrupt(format!("files of {}: {name} is missing", version.package)))
        };
        let signatures = SignatureSet::parse(bytes(file::SIGNATURES)?)
            .map_err(|error| corrupt(format!("files of {}: {error}", version.package)))?;
        let manifest = verify::verify_package(
            &self.trust,
            &self.limits,
            &repository,
            version.package,
            bytes(file::MANIFEST)?,
            &signatures.candidates,
        )
        .map_err(|refusal| problem(&refusal))?;
        let config_bytes = bytes(file::CONFIG)?;
        let config = self
            .config(&manifest, config_bytes)
            .map_err(|refusal| problem(&refusal))?;
        Ok(Papers {
            install,
            manifest,
            config,
        })
    }

    /// Verifies a package config against the floors of trust file and device.
    ///
    /// # Errors
    /// As [`verify::verify_config`].
    pub(super) fn config(
        &self,
        manifest: &Verified<Manifest>,
        bytes: &[u8],
    ) -> Result<Verified<PackageConfig>, Refusal> {
        let config = verify::verify_config(&self.trust, &self.limits, manifest, bytes, 0)?;
        // The family is known only now; with it, the device's own floor.
        let floor = self.floors.floor(config.family.as_str());
        verify::verify_config(&self.trust, &self.limits, manifest, bytes, floor)
    }

    /// Hashes and opens the files that a version needs.
    ///
    /// # Errors
    /// The problem, in the words of status.
    pub(super) fn files(&self, papers: &Papers) -> Result<Files, Problem> {
        let open = |digest: Digest| -> Result<OwnedFd, Problem> {
            let file: File = self
                .blobs
                .verified(digest)
                .map_err(|error| blob_problem(&error))?;
            Ok(file.into())
        };
        let config = &papers.config;
        let module = match &config.module {
            Some(module) => Some((module.digest, open(module.digest)?)),
            None => None,
        };
        let variant = self.variant(papers)?;
        let golden_vectors = match &config.golden_vectors {
            Some(golden) => Some(open(golden.digest)?),
            None => None,
        };
        Ok(Files {
            module,
            model: open(variant.digest)?,
            golden_vectors,
        })
    }

    fn variant<'a>(
        &self,
        papers: &'a Papers,
    ) -> Result<&'a rimward_artifact::package::config::Variant, Problem> {
        papers
            .config
            .variants
            .iter()
            .find(|variant| variant.name.as_str() == papers.install.variant)
            .ok_or_else(|| {
                corrupt(format!(
                    "install order: the package has no variant {}",
                    papers.install.variant
                ))
            })
    }

    /// What a host or a preflight is told of the version.
    ///
    /// # Errors
    /// [`Reason::NO_VARIANT_FITS`] when this agent has no such engine (any more).
    pub(super) fn spec(&self, key: &Key, papers: &Papers) -> Result<DeploymentSpec, Problem> {
        let variant = self.variant(papers)?;
        let backend = match papers.install.backend.as_str() {
            "rten" => Backend::Rten,
            other => {
                return Err(Problem::new(
                    Reason::NO_VARIANT_FITS,
                    format!("this agent has no backend {other}"),
                ));
            }
        };
        let entry = &papers.install.entry;
        Ok(DeploymentSpec {
            deployment: key.to_string(),
            endpoint: entry.endpoint_name.clone(),
            revision: entry.revision.clone(),
            package_version: papers.config.version.to_string(),
            variant: ModelVariant {
                name: variant.name.to_string(),
                format: variant.format.to_string(),
                precision: variant.precision.to_string(),
                backend,
            },
            inputs: papers.config.inputs.clone(),
            outputs: papers.config.outputs.clone(),
            limits: limits(&entry.runtime),
            config: entry.runtime.config.clone(),
        })
    }
}
