//! Kubernetes names as types: a cluster's name is not a node's, and none is a raw string.
//!
//! Owns the grammar of names. The bounds equal the CRD schemas', so that what a server accepts parses.

use std::cmp::Ordering;
use std::fmt;
use std::hash::{Hash, Hasher};
use std::str::FromStr;
use std::sync::Arc;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use thiserror::Error;

/// Why a name was refused. `what` says which kind of name it was meant to be.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum NameError {
    /// Nothing was there.
    #[error("{what} is empty")]
    Empty {
        /// The kind of name.
        what: &'static str,
    },
    /// More characters than the kind of name allows.
    #[error("{what} has {length} characters, at most {max} are allowed")]
    TooLong {
        /// The kind of name.
        what: &'static str,
        /// How many characters were given.
        length: usize,
        /// How many are allowed.
        max: usize,
    },
    /// A character, or its place, breaks the grammar.
    #[error("{what} {name:?}: character {at} is not allowed there")]
    Character {
        /// The kind of name.
        what: &'static str,
        /// The name as given (bounded: length is checked first).
        name: String,
        /// Index of the first offending character, from 0.
        at: usize,
    },
}

/// Which characters a kind of name may have.
#[derive(Clone, Copy)]
enum Grammar {
    /// RFC 1123 label: lowercase, digits, `-`; starts and ends alphanumeric.
    Label,
    /// RFC 1123 subdomain: labels joined by dots.
    Subdomain,
    /// A Kubernetes label value: also upper case, `_` and `.`.
    LabelValue,
}

fn check(what: &'static str, grammar: Grammar, max: usize, text: &str) -> Result<(), NameError> {
    if text.is_empty() {
        return Err(NameError::Empty { what });
    }
    if text.len() > max {
        return Err(NameError::TooLong {
            what,
            length: text.len(),
            max,
        });
    }
    let bytes = text.as_bytes();
    let plain = |b: u8| match grammar {
        Grammar::Label | Grammar::Subdomain => b.is_ascii_lowercase() || b.is_ascii_digit(),
        Grammar::LabelValue => b.is_ascii_alphanumeric(),
    };
    let bad = bytes.iter().enumerate().find(|&(at, &b)| {
        if plain(b) {
            return false;
        }
        let edge = at == 0 || at + 1 == bytes.len();
        let neighbours_plain = || !edge && plain(bytes[at - 1]) && plain(bytes[at + 1]);
        match (b, grammar) {
            (b'.', Grammar::Subdomain) => !neighbours_plain(),
            (b'-', Grammar::Subdomain) => edge || bytes[at - 1] == b'.' || bytes[at + 1] == b'.',
            (b'-', Grammar::Label) => edge,
            (b'-' | b'_' | b'.', Grammar::LabelValue) => edge,
            _ => true,
        }
    });
    match bad {
        None => Ok(()),
        Some((at, _)) => Err(NameError::Character {
            what,
            name: text.to_owned(),
            at,
        }),
    }
}

macro_rules! name {
    ($(#[$doc:meta])* $type:ident, $what:literal, $grammar:expr, $max:literal) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $type(Arc<str>);

        // One name is often kept once: whole fleets are walked by names, and then no text is read.
        impl PartialEq for $type {
            fn eq(&self, other: &Self) -> bool {
                Arc::ptr_eq(&self.0, &other.0) || self.0 == other.0
            }
        }

        impl Eq for $type {}

        impl Ord for $type {
            fn cmp(&self, other: &Self) -> Ordering {
                if Arc::ptr_eq(&self.0, &other.0) {
                    return Ordering::Equal;
                }
                self.0.cmp(&other.0)
            }
        }

        impl PartialOrd for $type {
            fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
                Some(self.cmp(other))
            }
        }

        impl Hash for $type {
            fn hash<H: Hasher>(&self, state: &mut H) {
                self.0.hash(state);
            }
        }

        impl $type {
            /// The longest that such a name may be, in characters.
            pub const CHARS_MAX: usize = $max;

            /// The name as text.
            #[must_use]
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl FromStr for $type {
            type Err = NameError;

            fn from_str(text: &str) -> Result<Self, NameError> {
                check($what, $grammar, $max, text)?;
                Ok(Self(text.into()))
            }
        }

        impl TryFrom<&str> for $type {
            type Error = NameError;

            fn try_from(text: &str) -> Result<Self, NameError> {
                text.parse()
            }
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl fmt::Debug for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "{:?}", &*self.0)
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

name!(
    /// Name of an EdgeCluster, and of its ClusterAssignment and hub Lease.
    ClusterName, "cluster name", Grammar::Subdomain, 253
);
name!(
    /// Name of an EdgeNode.
    NodeName, "node name", Grammar::Subdomain, 253
);
name!(
    /// Name of a ModelRevision: `<deployment>-<hash>`.
    RevisionName, "revision name", Grammar::Subdomain, 63
);
name!(
    /// Name of a Kubernetes namespace.
    Namespace, "namespace", Grammar::Label, 63
);
name!(
    /// Name of a ModelDeployment; shorter than Kubernetes allows, so that names made from it fit.
    DeploymentName, "deployment name", Grammar::Subdomain, 52
);
name!(
    /// A model's name at the inference endpoint (`/v2/models/<name>`).
    EndpointName, "endpoint name", Grammar::LabelValue, 63
);
name!(
    /// Name of a rollout stage, unique in its policy.
    StageName, "stage name", Grammar::Label, 63
);

impl StageName {
    /// A name that the planner itself gives; `text` is a constant of this crate and legal.
    pub(crate) fn fixed(text: &'static str) -> Self {
        debug_assert!(text.parse::<Self>().is_ok());
        Self(text.into())
    }
}

/// One ModelDeployment: the key of every list of models, on the hub, in a cluster and on a node.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct DeploymentKey {
    /// Its namespace on the hub.
    pub namespace: Namespace,
    /// Its name in that namespace.
    pub name: DeploymentName,
}

/// What a device calls a deployment: the same key, since a device runs one model for each.
pub type ModelKey = DeploymentKey;

impl DeploymentKey {
    /// Parses both halves.
    ///
    /// # Errors
    /// [`NameError`], naming the half that breaks the grammar.
    pub fn parse(namespace: &str, name: &str) -> Result<Self, NameError> {
        Ok(Self {
            namespace: namespace.parse()?,
            name: name.parse()?,
        })
    }
}

impl fmt::Display for DeploymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl fmt::Debug for DeploymentKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::{ClusterName, DeploymentKey, DeploymentName, EndpointName, NameError, Namespace};

    #[test]
    fn legal_names_are_read_back_as_written() {
        for text in ["a", "site-7", "berlin.site-7", "0a"] {
            assert_eq!(text.parse::<ClusterName>().unwrap().to_string(), text);
        }
        assert_eq!(
            DeploymentKey::parse("team", "digits").unwrap().to_string(),
            "team/digits"
        );
        assert!("Digits_v1.2".parse::<EndpointName>().is_ok());
    }

    #[test]
    fn illegal_names_say_which_character() {
        for (text, at) in [
            ("A", 0),
            ("-a", 0),
            ("a-", 1),
            ("a..b", 1),
            ("a.-b", 1),
            ("a/b", 1),
            ("a\n", 1),
        ] {
            match text.parse::<ClusterName>() {
                Err(NameError::Character { at: found, .. }) => assert_eq!(found, at, "{text:?}"),
                other => panic!("{text:?}: {other:?}"),
            }
        }
        assert!("a.b".parse::<Namespace>().is_err());
    }

    #[test]
    fn lengths_are_bounded() {
        let long = "a".repeat(53);
        let error = long.parse::<DeploymentName>().unwrap_err();
        assert_eq!(
            error.to_string(),
            "deployment name has 53 characters, at most 52 are allowed"
        );
        assert!("".parse::<Namespace>().is_err());
    }
}
