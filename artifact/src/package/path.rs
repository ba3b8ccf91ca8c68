//! Paths of files inside a package: relative, plain, portable.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

use crate::text::clip;

/// A relative path of plain components joined by `/`: it cannot leave the folder it is put in.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FilePath(String);

/// Why a path was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "path \"{0}\" must be 1 to 255 characters of A-Z a-z 0-9 . _ - in components joined by /, none of them \
     starting with a dot"
)]
pub struct FilePathError(String);

impl FilePath {
    /// The path, with `/` between components.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for FilePath {
    type Err = FilePathError;

    fn from_str(text: &str) -> Result<Self, FilePathError> {
        let component = |part: &str| {
            !part.is_empty()
                && !part.starts_with('.')
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'_' | b'-'))
        };
        if text.len() <= 255 && text.split('/').all(component) {
            Ok(Self(text.to_owned()))
        } else {
            Err(FilePathError(clip(text, 80)))
        }
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl Serialize for FilePath {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.0)
    }
}

impl<'de> Deserialize<'de> for FilePath {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::FilePath;

    #[test]
    fn no_path_can_leave_its_folder_or_hide() {
        for good in ["model.onnx", "a/b-1/c_2.bin"] {
            assert_eq!(good.parse::<FilePath>().unwrap().as_str(), good);
        }
        let long = "a".repeat(256);
        for bad in [
            "", "/a", "a/", "a//b", "..", "../a", "a/../b", ".a", "a/.b", "a\\b", "a b", "C:x",
            "a\0", &long,
        ] {
            assert!(bad.parse::<FilePath>().is_err(), "{bad:?}");
        }
    }
}
