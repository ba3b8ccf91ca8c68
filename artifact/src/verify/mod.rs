//! Verification: may this package run here? Pure functions over bytes, no clock, no I/O.
//!
//! The same functions decide at download, at activation (offline, over the stored bytes) and in the CLI. Only
//! they make a [`Verified`], and only a `Verified` manifest's layers are ever fetched, compiled or loaded.
//!
//! Order, as in the design: manifest bytes → revocation → signatures and threshold → config → floor. A bad
//! signature never hides a good one; no good one means refused.

use std::ops::Deref;

use rimward_core::ids::Digest;

use crate::hash::sha256;
use crate::limits::Limits;
use crate::manifest::{Manifest, ManifestError};
use crate::package::config::PackageConfig;
use crate::package::golden::GoldenVectors;
use crate::reference::Repository;
use crate::trust::TrustFile;

mod bundle;
mod candidate;
mod files;
mod refusal;
mod signers;
mod simple;

pub use candidate::{
    CANDIDATE_BYTES_MAX, CANDIDATES_MAX, CandidateFormat, SignatureCandidate, SignatureSet,
    SignatureSetError, SignatureSource,
};
pub(crate) use files::agree as files_agree;
pub use refusal::{CandidateReport, Disposition, Reason, Refusal, Step};
pub use signers::Signer;

/// Proof that a value passed verification: nothing outside this module can make one.
#[derive(Debug, Clone, PartialEq)]
pub struct Verified<T> {
    value: T,
    repository: Repository,
    signers: Vec<Signer>,
}

impl<T> Verified<T> {
    /// The repository it was verified for.
    pub fn repository(&self) -> &Repository {
        &self.repository
    }

    /// Whose signatures satisfied the trust file.
    pub fn signers(&self) -> &[Signer] {
        &self.signers
    }

    /// The value alone; the proof is gone.
    pub fn into_inner(self) -> T {
        self.value
    }
}

impl<T> Deref for Verified<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.value
    }
}

/// Decides whether the package with that digest may be fetched and run, from its manifest and signatures.
///
/// # Errors
/// [`Refusal`]: which step failed, a stable reason, and why each candidate was not enough.
pub fn verify_package(
    trust: &TrustFile,
    limits: &Limits,
    repository: &Repository,
    digest: Digest,
    manifest_bytes: &[u8],
    signatures: &[SignatureCandidate],
) -> Result<Verified<Manifest>, Refusal> {
    let manifest = check_manifest(trust, limits, digest, manifest_bytes)?;
    let signers = signers::satisfy(trust, repository, digest, signatures)?;
    Ok(Verified {
        value: manifest,
        repository: repository.clone(),
        signers,
    })
}

/// What of the candidates a device stores: those that are good, at most one a trusted key.
///
/// Bad ones are whatever anybody pushed; kept, they would fill the device and hide the good ones from it.
pub fn good_signatures(
    trust: &TrustFile,
    repository: &Repository,
    digest: Digest,
    candidates: &[SignatureCandidate],
) -> SignatureSet {
    SignatureSet {
        candidates: signers::good(trust, repository, digest, candidates),
    }
}

/// A version's bytes as a device stored them beside its blobs.
#[derive(Debug, Clone, Copy)]
pub struct Stored<'a> {
    /// The manifest.
    pub manifest: &'a [u8],
    /// A [`SignatureSet`].
    pub signatures: &'a [u8],
    /// The package config.
    pub config: &'a [u8],
}

/// Decides again, offline, from what was stored: done at each activation, since a key, a package or a floor may have
/// changed, or the bytes may have rotted. The blobs' own hashes are the store's to check.
///
/// # Errors
/// [`Refusal`], as [`verify_package`] and [`verify_config`].
pub fn verify_stored(
    trust: &TrustFile,
    limits: &Limits,
    repository: &Repository,
    digest: Digest,
    stored: Stored<'_>,
    floor: u64,
) -> Result<(Verified<Manifest>, Verified<PackageConfig>), Refusal> {
    let signatures = SignatureSet::parse(stored.signatures)
        .map_err(|error| Refusal::new(Reason::SignatureInvalid, error.to_string()))?;
    let manifest = verify_package(
        trust,
        limits,
        repository,
        digest,
        stored.manifest,
        &signatures.candidates,
    )?;
    let config = verify_config(trust, limits, &manifest, stored.config, floor)?;
    Ok((manifest, config))
}

/// Step 2 and revocation alone, without signatures: what can be said before looking for them.
///
/// Gives a plain [`Manifest`], which nothing may act on but `fetch` and the CLI's report.
///
/// # Errors
/// [`Refusal`] with a manifest reason or [`Reason::RevokedDigest`].
pub fn check_manifest(
    trust: &TrustFile,
    limits: &Limits,
    digest: Digest,
    manifest_bytes: &[u8],
) -> Result<Manifest, Refusal> {
    let manifest = Manifest::parse(digest, manifest_bytes, limits).map_err(|error| {
        let reason = match &error {
            ManifestError::Digest { .. } => Reason::ManifestDigestMismatch,
            ManifestError::TooLarge { .. } | ManifestError::Size { .. } => Reason::PackageTooLarge,
            ManifestError::Json(_) | ManifestError::Field { .. } => Reason::ManifestInvalid,
        };
        Refusal::new(reason, error.to_string())
    })?;
    let revoked = std::iter::once(digest)
        .chain(manifest.blobs().map(|blob| blob.digest))
        .find(|digest| trust.is_revoked_digest(*digest));
    if let Some(revoked) = revoked {
        let what = if revoked == digest { "package" } else { "file" };
        return Err(Refusal::new(
            Reason::RevokedDigest,
            format!("{what} {revoked} is in the trust file's revokedDigests"),
        ));
    }
    Ok(manifest)
}

/// Checks the package's description: that the manifest names these bytes, that they are right in themselves and
/// agree with the manifest's files, and that the release is not below a floor.
///
/// `floor` is what the device remembers beside the trust file; 0 for none.
///
/// # Errors
/// [`Refusal`] with a config reason or [`Reason::BelowReleaseFloor`].
pub fn verify_config(
    trust: &TrustFile,
    limits: &Limits,
    manifest: &Verified<Manifest>,
    config_bytes: &[u8],
    floor: u64,
) -> Result<Verified<PackageConfig>, Refusal> {
    let actual = sha256(config_bytes);
    if actual != manifest.package.digest {
        return Err(Refusal::new(
            Reason::ConfigDigestMismatch,
            format!(
                "package config: its bytes hash to {actual}, the manifest names {}",
                manifest.package.digest
            ),
        ));
    }
    let invalid = |message: String| Refusal::new(Reason::ConfigInvalid, message);
    let config = PackageConfig::parse(config_bytes, limits.config_bytes_max)
        .map_err(|error| invalid(error.to_string()))?;
    files_agree(manifest, &config).map_err(invalid)?;
    let floor = floor.max(trust.release_floor(&manifest.repository, &config));
    if config.release_counter < floor {
        return Err(Refusal::new(
            Reason::BelowReleaseFloor,
            format!(
                "{} {} has releaseCounter {}, the floor is {floor}",
                config.family, config.version, config.release_counter
            ),
        ));
    }
    Ok(Verified {
        value: config,
        repository: manifest.repository.clone(),
        signers: manifest.signers.clone(),
    })
}

/// Checks the golden vectors' bytes against the manifest and the package's tensors.
///
/// # Errors
/// [`Refusal`] with a golden reason.
pub fn verify_golden(
    limits: &Limits,
    config: &Verified<PackageConfig>,
    bytes: &[u8],
) -> Result<GoldenVectors, Refusal> {
    let Some(golden) = &config.golden_vectors else {
        return Err(Refusal::new(
            Reason::GoldenInvalid,
            "the package declares no golden vectors".to_owned(),
        ));
    };
    let actual = sha256(bytes);
    if actual != golden.digest {
        return Err(Refusal::new(
            Reason::GoldenDigestMismatch,
            format!(
                "golden vectors: bytes hash to {actual}, the package names {}",
                golden.digest
            ),
        ));
    }
    let vectors = GoldenVectors::parse(bytes, config, limits.golden_bytes_max)
        .map_err(|error| Refusal::new(Reason::GoldenInvalid, error.to_string()))?;
    if vectors.vectors.len() as u64 != u64::from(golden.count) {
        return Err(Refusal::new(
            Reason::GoldenInvalid,
            format!(
                "golden vectors: has {}, the package declares {}",
                vectors.vectors.len(),
                golden.count
            ),
        ));
    }
    Ok(vectors)
}
