//! Why a package was refused: a closed list of reasons, stable across releases.
//!
//! A reason's name is shared by status, events and metric labels.

use std::fmt;

use super::candidate::SignatureSource;

/// Candidates told about in one refusal.
pub(super) const REPORTS_MAX: usize = 8;

/// What refused a package.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Reason {
    /// The registry gave other bytes than the digest names.
    ManifestDigestMismatch,
    /// The manifest is not one of a package.
    ManifestInvalid,
    /// A declared size is over this device's limits.
    PackageTooLarge,
    /// The package or one of its files is revoked.
    RevokedDigest,
    /// The trust file names nobody who may sign for this repository.
    RepositoryNotTrusted,
    /// No signature was found.
    SignatureMissing,
    /// Signatures were found, none of them whole and right.
    SignatureInvalid,
    /// A signature in a form that is not accepted.
    SignatureFormatUnsupported,
    /// Right signatures, but of something else.
    SignatureOfOtherContent,
    /// Signed with a key that the trust file does not name for this repository.
    KeyNotTrusted,
    /// Signed with a revoked key.
    KeyRevoked,
    /// Good signatures, but of fewer distinct keys than the threshold.
    ThresholdNotMet,
    /// The registry gave another package config than the manifest names.
    ConfigDigestMismatch,
    /// The package config is not right in itself, or disagrees with the manifest.
    ConfigInvalid,
    /// The release counter is below the floor.
    BelowReleaseFloor,
    /// The registry gave other golden vectors than the manifest names.
    GoldenDigestMismatch,
    /// The golden vectors do not fit the package's tensors.
    GoldenInvalid,
}

/// What a refusal means for the version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Disposition {
    /// Something outside the package may change: a signature, the trust file, what a registry answers. Retried
    /// with backoff, never bad.
    Blocked,
    /// The content behind this digest can never be right here. Tried again only under a new revision.
    Bad,
}

/// The steps of verification, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Step {
    /// Bytes, types and declared sizes of the manifest.
    Manifest,
    /// Revoked packages and files.
    Revocation,
    /// Signatures, keys and threshold.
    Signatures,
    /// The package config.
    Config,
    /// Anti-rollback.
    ReleaseFloor,
    /// Golden vectors.
    Golden,
}

impl Step {
    /// All steps, in order.
    pub const ALL: [Self; 6] = [
        Self::Manifest,
        Self::Revocation,
        Self::Signatures,
        Self::Config,
        Self::ReleaseFloor,
        Self::Golden,
    ];

    /// What the step is called in front of people.
    #[must_use]
    pub const fn title(self) -> &'static str {
        match self {
            Self::Manifest => "manifest",
            Self::Revocation => "revocation",
            Self::Signatures => "signatures",
            Self::Config => "package config",
            Self::ReleaseFloor => "release floor",
            Self::Golden => "golden vectors",
        }
    }
}

impl Reason {
    /// Every reason, for reference tables and metric labels.
    pub const ALL: [Self; 17] = [
        Self::ManifestDigestMismatch,
        Self::ManifestInvalid,
        Self::PackageTooLarge,
        Self::RevokedDigest,
        Self::RepositoryNotTrusted,
        Self::SignatureMissing,
        Self::SignatureInvalid,
        Self::SignatureFormatUnsupported,
        Self::SignatureOfOtherContent,
        Self::KeyNotTrusted,
        Self::KeyRevoked,
        Self::ThresholdNotMet,
        Self::ConfigDigestMismatch,
        Self::ConfigInvalid,
        Self::BelowReleaseFloor,
        Self::GoldenDigestMismatch,
        Self::GoldenInvalid,
    ];

    /// The stable CamelCase name.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::ManifestDigestMismatch => "ManifestDigestMismatch",
            Self::ManifestInvalid => "ManifestInvalid",
            Self::PackageTooLarge => "PackageTooLarge",
            Self::RevokedDigest => "RevokedDigest",
            Self::RepositoryNotTrusted => "RepositoryNotTrusted",
            Self::SignatureMissing => "SignatureMissing",
            Self::SignatureInvalid => "SignatureInvalid",
            Self::SignatureFormatUnsupported => "SignatureFormatUnsupported",
            Self::SignatureOfOtherContent => "SignatureOfOtherContent",
            Self::KeyNotTrusted => "KeyNotTrusted",
            Self::KeyRevoked => "KeyRevoked",
            Self::ThresholdNotMet => "ThresholdNotMet",
            Self::ConfigDigestMismatch => "ConfigDigestMismatch",
            Self::ConfigInvalid => "ConfigInvalid",
            Self::BelowReleaseFloor => "BelowReleaseFloor",
            Self::GoldenDigestMismatch => "GoldenDigestMismatch",
            Self::GoldenInvalid => "GoldenInvalid",
        }
    }

    /// The step that refuses with this reason.
    #[must_use]
    pub const fn step(self) -> Step {
        match self {
            Self::ManifestDigestMismatch | Self::ManifestInvalid | Self::PackageTooLarge => {
                Step::Manifest
            }
            Self::RevokedDigest => Step::Revocation,
            Self::RepositoryNotTrusted
            | Self::SignatureMissing
            | Self::SignatureInvalid
            | Self::SignatureFormatUnsupported
            | Self::SignatureOfOtherContent
            | Self::KeyNotTrusted
            | Self::KeyRevoked
            | Self::ThresholdNotMet => Step::Signatures,
            Self::ConfigDigestMismatch | Self::ConfigInvalid => Step::Config,
            Self::BelowReleaseFloor => Step::ReleaseFloor,
            Self::GoldenDigestMismatch | Self::GoldenInvalid => Step::Golden,
        }
    }

    /// Blocked or bad.
    #[must_use]
    pub const fn disposition(self) -> Disposition {
        match self {
            Self::ManifestInvalid
            | Self::PackageTooLarge
            | Self::ConfigInvalid
            | Self::GoldenInvalid => Disposition::Bad,
            Self::ManifestDigestMismatch
            | Self::RevokedDigest
            | Self::RepositoryNotTrusted
            | Self::SignatureMissing
            | Self::SignatureInvalid
            | Self::SignatureFormatUnsupported
            | Self::SignatureOfOtherContent
            | Self::KeyNotTrusted
            | Self::KeyRevoked
            | Self::ThresholdNotMet
            | Self::ConfigDigestMismatch
            | Self::BelowReleaseFloor
            | Self::GoldenDigestMismatch => Disposition::Blocked,
        }
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why one signature was not enough.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CandidateReport {
    /// Its place among the candidates, from 0.
    pub index: usize,
    /// Where it came from.
    pub source: SignatureSource,
    /// Its own reason.
    pub reason: Reason,
    /// The details, bounded.
    pub message: String,
}

/// A package was refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Refusal {
    reason: Reason,
    message: String,
    candidates: Vec<CandidateReport>,
}

impl Refusal {
    pub(crate) fn new(reason: Reason, message: String) -> Self {
        Self {
            reason,
            message,
            candidates: Vec::new(),
        }
    }

    pub(super) fn with_candidates(mut self, mut candidates: Vec<CandidateReport>) -> Self {
        candidates.truncate(REPORTS_MAX);
        self.candidates = candidates;
        self
    }

    /// The stable reason.
    #[must_use]
    pub fn reason(&self) -> Reason {
        self.reason
    }

    /// The step that failed.
    #[must_use]
    pub fn step(&self) -> Step {
        self.reason.step()
    }

    /// Blocked or bad.
    #[must_use]
    pub fn disposition(&self) -> Disposition {
        self.reason.disposition()
    }

    /// What is wrong, in words, without the reason.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.message
    }

    /// Why the signatures were not enough, eight at most.
    #[must_use]
    pub fn candidates(&self) -> &[CandidateReport] {
        &self.candidates
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.reason, self.message)?;
        for report in &self.candidates {
            write!(
                f,
                "; signature {} ({}): {}",
                report.index, report.source, report.message
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Refusal {}

#[cfg(test)]
mod tests {
    use super::{Reason, Step};

    #[test]
    fn every_reason_has_its_own_name_and_every_step_a_reason() {
        let mut names: Vec<_> = Reason::ALL.iter().map(|reason| reason.as_str()).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Reason::ALL.len());
        for step in Step::ALL {
            assert!(
                Reason::ALL.iter().any(|reason| reason.step() == step),
                "{step:?}"
            );
        }
    }
}
