//! Names inside a package, parsed.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::text::{clip, is_dns_label};

/// A DNS-1123 label: families, variants, formats, precisions, backends, architectures, accelerators.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Label(String);

/// The name of a tensor or a metric: 1 to 128 printable characters without spaces, quotes or backslashes.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TensorName(String);

/// Why a name was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Not a DNS-1123 label.
    #[error("\"{0}\" must be 1 to 63 of a-z 0-9 - with a letter or digit at both ends")]
    Label(String),
    /// Not a tensor name.
    #[error(
        "\"{0}\" must be 1 to 128 of A-Z a-z 0-9 _ . : / - and start with a letter, digit or _"
    )]
    Tensor(String),
}

impl FromStr for Label {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        if is_dns_label(text) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Label(clip(text, 80)))
        }
    }
}

impl FromStr for TensorName {
    type Err = NameError;

    fn from_str(text: &str) -> Result<Self, NameError> {
        let first = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
        let rest = |byte: u8| first(byte) || matches!(byte, b'.' | b':' | b'/' | b'-');
        if text.len() <= 128 && text.bytes().next().is_some_and(first) && text.bytes().all(rest) {
            Ok(Self(text.to_owned()))
        } else {
            Err(NameError::Tensor(clip(text, 80)))
        }
    }
}

macro_rules! text_type {
    ($type:ty) => {
        impl $type {
            /// The name.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Debug::fmt(&self.0, f)
            }
        }

        impl Serialize for $type {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                serializer.serialize_str(&self.0)
            }
        }

        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                let text = String::deserialize(deserializer)?;
                text.parse().map_err(serde::de::Error::custom)
            }
        }
    };
}

text_type!(Label);
text_type!(TensorName);
