//! Signatures as found: untrusted bytes with their format and origin, stored verbatim so that they can be
//! checked again offline.

use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::json::{self, JsonError, JsonLimits};

/// Candidates looked at for one package.
pub const CANDIDATES_MAX: usize = 32;
/// Bytes of one candidate.
pub const CANDIDATE_BYTES_MAX: usize = 256 << 10;

/// What a candidate claims to be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "format", deny_unknown_fields)]
pub enum CandidateFormat {
    /// A Sigstore bundle, v0.3, as cosign v3 attaches it.
    SigstoreBundleV03,
    /// A cosign v1/v2 payload; the signature is an annotation of its layer.
    SimpleSigning {
        /// The annotation, base64 as found.
        signature: String,
    },
}

/// Where a candidate was found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum SignatureSource {
    /// The registry's referrers API.
    Referrers,
    /// The index at tag `sha256-<hex>`, for registries without that API.
    ReferrersTag,
    /// Tag `sha256-<hex>.sig`.
    SignatureTag,
    /// A file that was handed over.
    File,
}

impl fmt::Display for SignatureSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Referrers => "referrers API",
            Self::ReferrersTag => "tag sha256-…",
            Self::SignatureTag => "tag sha256-….sig",
            Self::File => "file",
        })
    }
}

/// One signature that may be good.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct SignatureCandidate {
    /// What it claims to be.
    #[serde(flatten)]
    pub format: CandidateFormat,
    /// Where it was found; decides nothing.
    pub source: SignatureSource,
    /// The bundle or payload, verbatim.
    #[serde(with = "base64_bytes")]
    pub bytes: Vec<u8>,
}

/// All signatures of one package, as a device stores them beside its blobs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SignatureSet {
    /// At most [`CANDIDATES_MAX`] of [`CANDIDATE_BYTES_MAX`].
    pub candidates: Vec<SignatureCandidate>,
}

/// Why stored signatures could not be read.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum SignatureSetError {
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// Too many, or one too long.
    #[error(
        "stored signatures: at most {CANDIDATES_MAX} of {CANDIDATE_BYTES_MAX} bytes are accepted"
    )]
    Limit,
}

impl SignatureSet {
    /// The bytes to store.
    #[must_use]
    pub fn to_bytes(&self) -> Vec<u8> {
        // Plain structs of strings: there is nothing that serialising them could fail on.
        serde_json::to_vec(self).unwrap_or_default()
    }

    /// Reads stored bytes back. They may have rotted: bounded and strict like any input.
    ///
    /// # Errors
    /// [`SignatureSetError`].
    pub fn parse(bytes: &[u8]) -> Result<Self, SignatureSetError> {
        let bytes_max = (CANDIDATES_MAX * CANDIDATE_BYTES_MAX * 3) as u64;
        let set: Self = json::parse("stored signatures", bytes, JsonLimits::small(bytes_max))?;
        let long = |candidate: &SignatureCandidate| candidate.bytes.len() > CANDIDATE_BYTES_MAX;
        if set.candidates.len() > CANDIDATES_MAX || set.candidates.iter().any(long) {
            return Err(SignatureSetError::Limit);
        }
        Ok(set)
    }
}

mod base64_bytes {
    use super::{Deserialize, Deserializer, Engine, STANDARD, Serializer};

    pub(super) fn serialize<S: Serializer>(bytes: &[u8], serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&STANDARD.encode(bytes))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Vec<u8>, D::Error> {
        let text = String::deserialize(deserializer)?;
        STANDARD.decode(text).map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{CandidateFormat, SignatureCandidate, SignatureSet, SignatureSource};

    #[test]
    fn stored_signatures_read_back_verbatim_and_rot_is_noticed() {
        let set = SignatureSet {
            candidates: vec![
                SignatureCandidate {
                    format: CandidateFormat::SigstoreBundleV03,
                    source: SignatureSource::Referrers,
                    bytes: vec![0, 255, b'{'],
                },
                SignatureCandidate {
                    format: CandidateFormat::SimpleSigning {
                        signature: "MEUC".to_owned(),
                    },
                    source: SignatureSource::SignatureTag,
                    bytes: Vec::new(),
                },
            ],
        };
        let bytes = set.to_bytes();
        assert_eq!(SignatureSet::parse(&bytes), Ok(set.clone()));
        assert!(SignatureSet::parse(&bytes[1..]).is_err());
        let many = SignatureSet {
            candidates: vec![set.candidates[0].clone(); 33],
        };
        assert!(SignatureSet::parse(&many.to_bytes()).is_err());
    }
}
