//! Names and digests, parsed once at the edge and never raw strings inside.
//!
//! Owns what makes a name legal. Must never read a clock, a file or the network.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

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

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Empty or too long.
    #[error("name must have 1 to {max} characters, has {len}")]
    Length {
        /// The longest that is allowed.
        max: usize,
        /// What was given.
        len: usize,
    },
    /// A part between dots is empty, starts or ends with a dash, or has another character than
    /// `a-z`, `0-9` and `-`.
    #[error("name must be lowercase letters, digits and dashes between letters or digits: {0:?}")]
    Label(String),
}

fn check_name(text: &str, chars_max: usize, dots: bool) -> Result<(), NameError> {
    if text.is_empty() || text.len() > chars_max {
        return Err(NameError::Length {
            max: chars_max,
            len: text.len(),
        });
    }
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    let fits = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label.chars().all(inner)
    };
    let good = if dots {
        text.split('.').all(fits)
    } else {
        fits(text)
    };
    if good {
        Ok(())
    } else {
        Err(NameError::Label(text.to_owned()))
    }
}

macro_rules! name_type {
    ($(#[$doc:meta])* $name:ident, $chars_max:expr, dots: $dots:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(String);

        impl $name {
            /// Longest name, in characters.
            pub const CHARS_MAX: usize = $chars_max;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $name {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check_name(text, Self::CHARS_MAX, $dots)?;
                Ok(Self(text.to_owned()))
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

name_type! {
    /// The name of a revision, `<deployment>-<hash>`: a DNS label.
    RevisionName, 63, dots: false
}
name_type! {
    /// The name of an edge cluster: a DNS subdomain.
    ClusterName, 253, dots: true
}
name_type! {
    /// The name of a node: a DNS subdomain.
    NodeName, 253, dots: true
}

#[cfg(test)]
mod tests {
    use super::{Digest, DigestError, NameError, NodeName, RevisionName};

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

    #[test]
    fn names_follow_the_rules_of_dns() {
        for good in ["a", "digits-7f3a", "0"] {
            assert_eq!(good.parse::<RevisionName>().unwrap().as_str(), good);
        }
        for bad in ["", "-a", "a-", "A", "a_b", "a.b", "a/b", "..", "é"] {
            assert!(bad.parse::<RevisionName>().is_err(), "{bad}");
        }
        assert!("node-1.example.org".parse::<NodeName>().is_ok());
        assert!("node..org".parse::<NodeName>().is_err());
        let long = "a".repeat(64);
        let error = long.parse::<RevisionName>().unwrap_err();
        assert_eq!(error, NameError::Length { max: 63, len: 64 });
    }
}
