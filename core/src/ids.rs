//! Names and digests, parsed once at the edge and never raw strings inside.
//!
//! Owns what makes a name legal. Must never read a clock, a file or the network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

mod names;

pub use names::{
    ClusterName, DeploymentKey, DeploymentName, EndpointName, ModelKey, NameError, Namespace,
    NodeName, RevisionName, StageName,
};

/// A SHA-256 content digest, written `sha256:<64 lowercase hex digits>`.
///
/// Only SHA-256 exists here: an algorithm that nobody can choose cannot be downgraded.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Digest([u8; 32]);

/// Why a digest was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum DigestError {
    /// The text does not start with `sha256:`.
    #[error("digest must start with \"sha256:\"")]
    Algorithm,
    /// The part after the algorithm is not 64 digits.
    #[error("digest must have 64 hex digits, has {0} characters")]
    Length(usize),
    /// A character that is not a lowercase hex digit.
    #[error("digest must be lowercase hex, character {0} is not")]
    Character(usize),
}

impl Digest {
    /// Makes a digest of the 32 bytes that SHA-256 gave.
    #[must_use]
    pub const fn from_sha256(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// The 32 bytes.
    #[must_use]
    pub const fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// The 64 lowercase hex digits, without the algorithm.
    #[must_use]
    pub fn hex(&self) -> String {
        const DIGITS: &[u8; 16] = b"0123456789abcdef";
        let mut text = String::with_capacity(64);
        for byte in self.0 {
            text.push(char::from(DIGITS[usize::from(byte >> 4)]));
            text.push(char::from(DIGITS[usize::from(byte & 15)]));
        }
        text
    }
}

impl FromStr for Digest {
    type Err = DigestError;

    fn from_str(text: &str) -> Result<Self, DigestError> {
        let hex = text
            .strip_prefix("sha256:")
            .ok_or(DigestError::Algorithm)?
            .as_bytes();
        if hex.len() != 64 {
            return Err(DigestError::Length(hex.len()));
        }
        let mut bytes = [0; 32];
        for (index, digit) in hex.iter().enumerate() {
            let value = match digit {
                b'0'..=b'9' => digit - b'0',
                b'a'..=b'f' => digit - b'a' + 10,
                _ => return Err(DigestError::Character(index)),
            };
            bytes[index / 2] = bytes[index / 2] << 4 | value;
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::{Digest, DigestError};

    #[test]
    fn a_digest_reads_back_as_it_was_written() {
        let text = format!("sha256:{}", "0123456789abcdef".repeat(4));
        let digest: Digest = text.parse().unwrap();
        assert_eq!(digest.to_string(), text);
        assert_eq!(digest.as_bytes()[0], 0x01);
        assert_eq!(
            serde_json::to_string(&digest).unwrap(),
            format!("\"{text}\"")
        );
    }

    #[test]
    fn other_algorithms_lengths_and_upper_case_are_refused() {
        let parse = |text: &str| text.parse::<Digest>();
        assert_eq!(parse("sha512:00"), Err(DigestError::Algorithm));
        assert_eq!(parse("sha256:00"), Err(DigestError::Length(2)));
        let upper = format!("sha256:{}A", "0".repeat(63));
        assert_eq!(parse(&upper), Err(DigestError::Character(63)));
    }
}
