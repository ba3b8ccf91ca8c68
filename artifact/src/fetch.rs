//! What a device does with a registry: fetch the small parts, verify them, and only then stream the layers.

use rimward_core::ids::Digest;
use thiserror::Error;

use crate::limits::Limits;
use crate::manifest::Manifest;
use crate::package::config::PackageConfig;
use crate::package::golden::GoldenVectors;
use crate::reference::{Reference, Repository};
use crate::registry::{BlobSink, Client, ClientError};
use crate::trust::TrustFile;
use crate::verify::{
    self, Disposition, Reason, Refusal, SignatureCandidate, SignatureSet, SignatureSource, Verified,
};

/// Sources of signatures, in the order they are asked.
const SOURCES: [SignatureSource; 3] = [
    SignatureSource::Referrers,
    SignatureSource::ReferrersTag,
    SignatureSource::SignatureTag,
];

/// A verified package, its layers not yet fetched. The byte fields are what a device stores verbatim.
#[derive(Debug, Clone)]
pub struct Fetched {
    /// The proof that layers may be fetched.
    pub manifest: Verified<Manifest>,
    /// What the package holds.
    pub config: Verified<PackageConfig>,
    /// The manifest as it came.
    pub manifest_bytes: Vec<u8>,
    /// The package config as it came.
    pub config_bytes: Vec<u8>,
    /// The good ones of its signatures, as they came.
    pub signatures: SignatureSet,
}

/// Why a package could not be had.
#[derive(Debug, Error)]
pub enum FetchError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] ClientError),
    /// Verification.
    #[error(transparent)]
    Refused(#[from] Refusal),
    /// Not found to be signed, but not all sources of signatures could be asked.
    #[error("{refusal}; not every source of signatures answered")]
    SignaturesUnavailable {
        /// What verification said with what was found.
        refusal: Refusal,
        /// The first source that failed.
        source: ClientError,
    },
}

impl FetchError {
    /// Blocked, or bad for good.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        match self {
            Self::Registry(_) | Self::SignaturesUnavailable { .. } => Disposition::Blocked,
            Self::Refused(refusal) => refusal.disposition(),
        }
    }

    /// The stable CamelCase reason.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Registry(error) => error.category(),
            Self::Refused(refusal) | Self::SignaturesUnavailable { refusal, .. } => {
                refusal.reason().as_str()
            }
        }
    }
}

/// Fetches manifest, signatures and package config, and verifies them; fetches no layer.
///
/// `stored` are signatures this device kept: tried before the network is asked. `floor` as in
/// [`verify::verify_config`].
///
/// # Errors
/// [`FetchError`].
pub async fn package(
    client: &Client,
    trust: &TrustFile,
    limits: &Limits,
    repository: &Repository,
    digest: Digest,
    stored: Option<SignatureSet>,
    floor: u64,
) -> Result<Fetched, FetchError> {
    let manifest_bytes = client
        .manifest(repository, digest, limits.manifest_bytes_max)
        .await?;
    // Said before signatures are looked for: what this refuses, no signature could mend.
    verify::check_manifest(trust, limits, digest, &manifest_bytes)?;
    let (manifest, signatures) = signed(
        client,
        trust,
        limits,
        repository,
        digest,
        &manifest_bytes,
        stored,
    )
    .await?;
    let config_bytes = client
        .blob_bytes(repository, &manifest.package, limits.config_bytes_max)
        .await?;
    let config = verify::verify_config(trust, limits, &manifest, &config_bytes, floor)?;
    Ok(Fetched {
        manifest,
        config,
        manifest_bytes,
        config_bytes,
        signatures,
    })
}

/// Asks one source of signatures after the other until the package is verified.
async fn signed(
    client: &Client,
    trust: &TrustFile,
    limits: &Limits,
    repository: &Repository,
    digest: Digest,
    manifest_bytes: &[u8],
    stored: Option<SignatureSet>,
) -> Result<(Verified<Manifest>, SignatureSet), FetchError> {
    let decide = |found: &[SignatureCandidate]| {
        verify::verify_package(trust, limits, repository, digest, manifest_bytes, found)
    };
    let good =
        |found: &[SignatureCandidate]| verify::good_signatures(trust, repository, digest, found);
    let mut found = stored.unwrap_or_default().candidates;
    let mut refusal = match decide(&found) {
        Ok(manifest) => return Ok((manifest, good(&found))),
        Err(refusal) => refusal,
    };
    if refusal.reason() == Reason::RepositoryNotTrusted {
        return Err(refusal.into());
    }
    // Stored ones were not enough: they make room for those that are published now.
    found.clear();
    let deadline = tokio::time::Instant::now() + client.signatures_deadline();
    let mut unavailable = None;
    for source in SOURCES {
        let search = client.signatures(repository, digest, source, &mut found);
        match tokio::time::timeout_at(deadline, search).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                unavailable.get_or_insert(error);
            }
            Err(_) => {
                unavailable.get_or_insert(ClientError::Timeout {
                    what: format!("signatures of {repository}@{digest}"),
                    seconds: client.signatures_deadline().as_secs(),
                });
            }
        }
        match decide(&found) {
            Ok(manifest) => return Ok((manifest, good(&found))),
            Err(next) => refusal = next,
        }
    }
    Err(match unavailable {
        Some(source) => FetchError::SignaturesUnavailable { refusal, source },
        None => refusal.into(),
    })
}

/// Fetches and checks the golden vectors of a verified package; none if it has none.
///
/// # Errors
/// [`FetchError`].
pub async fn golden(
    client: &Client,
    limits: &Limits,
    manifest: &Verified<Manifest>,
    config: &Verified<PackageConfig>,
) -> Result<Option<GoldenVectors>, FetchError> {
    let Some(layer) = &manifest.golden else {
        return Ok(None);
    };
    let bytes = client
        .blob_bytes(
            manifest.repository(),
            &layer.descriptor,
            limits.golden_bytes_max,
        )
        .await?;
    Ok(Some(verify::verify_golden(limits, config, &bytes)?))
}

/// Streams every blob of a verified package into a sink, smallest kinds first. Each is fetched once.
///
/// # Errors
/// [`FetchError::Registry`].
pub async fn layers<S: BlobSink>(
    client: &Client,
    manifest: &Verified<Manifest>,
    sink: &mut S,
) -> Result<(), FetchError> {
    let mut done = std::collections::BTreeSet::new();
    for blob in manifest.blobs() {
        if done.insert(blob.digest) {
            client.blob_to(manifest.repository(), blob, sink).await?;
        }
    }
    Ok(())
}

/// What the hub learns about a package. It has no keys: nothing here is verified, and nothing may run from it.
#[derive(Debug, Clone)]
pub struct Inspected {
    /// What the reference meant when asked.
    pub digest: Digest,
    /// Its layers.
    pub manifest: Manifest,
    /// What it holds.
    pub config: PackageConfig,
}

/// Why a package could not be inspected.
#[derive(Debug, Error)]
pub enum InspectError {
    /// The registry.
    #[error(transparent)]
    Registry(#[from] ClientError),
    /// Not a package, or over the limits.
    #[error(transparent)]
    Manifest(#[from] crate::manifest::ManifestError),
    /// A package whose description is wrong.
    #[error(transparent)]
    Config(#[from] crate::package::config::ConfigError),
    /// A package whose description disagrees with its manifest.
    #[error("{0}")]
    Files(String),
}

/// Resolves a reference and reads what the package says about itself.
///
/// # Errors
/// [`InspectError`].
pub async fn inspect(
    client: &Client,
    limits: &Limits,
    reference: &Reference,
) -> Result<Inspected, InspectError> {
    let repository = reference.repository();
    let digest = client.resolve(reference).await?;
    let bytes = client
        .manifest(repository, digest, limits.manifest_bytes_max)
        .await?;
    let manifest = Manifest::parse(digest, &bytes, limits)?;
    let bytes = client
        .blob_bytes(repository, &manifest.package, limits.config_bytes_max)
        .await?;
    let config = PackageConfig::parse(&bytes, limits.config_bytes_max)?;
    verify::files_agree(&manifest, &config).map_err(InspectError::Files)?;
    Ok(Inspected {
        digest,
        manifest,
        config,
    })
}
