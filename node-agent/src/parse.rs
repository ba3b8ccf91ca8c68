//! Turns an EdgeNode's entries into what the activation machine decides by.
//!
//! Owns what an entry may say. Must never let one bad entry stop another.

use std::fmt;
use std::str::FromStr;

use rimward_artifact::reference::{ReferenceError, Repository};
use rimward_core::ids::{DigestError, NameError, RevisionName};
use rimward_core::node::{Order, Target};
use rimward_core::verdict;
use rimward_crds::{Action, Health, NodeModel, Runtime};
use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::proto::RuntimeLimits;

/// Committed versions kept on the device: the current one and the one to go back to.
const KEEP_REVISIONS: u8 = 2;

/// Which deployment: namespace and name, each a DNS label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    namespace: String,
    name: String,
}

/// Why an entry was refused.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ParseError {
    /// Not `<namespace>/<name>` of DNS labels.
    #[error("deployment {0:?}: namespace and name must be DNS labels")]
    Key(String),
    /// The endpoint's name cannot stand in a URL as one part.
    #[error(
        "endpointName {0:?}: must be 1 to 63 of a-z, 0-9, dot and dash, starting and ending with a letter or digit"
    )]
    Endpoint(String),
    /// The revision's name.
    #[error("revision {name:?}: {error}")]
    Revision {
        /// What was given.
        name: String,
        /// What is wrong.
        error: NameError,
    },
    /// The package's repository.
    #[error("package.repository: {0}")]
    Repository(ReferenceError),
    /// The package's digest.
    #[error("package.digest: {0}")]
    Digest(DigestError),
}

fn is_label(text: &str) -> bool {
    text.parse::<RevisionName>().is_ok()
}

impl Key {
    /// Makes a key.
    ///
    /// # Errors
    /// [`ParseError::Key`].
    pub fn new(namespace: &str, name: &str) -> Result<Self, ParseError> {
        if is_label(namespace) && is_label(name) {
            Ok(Self {
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            })
        } else {
            Err(ParseError::Key(format!("{namespace}/{name}")))
        }
    }

    /// The deployment's namespace.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The deployment's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The name of its folder in the store. Labels have no dots, so it is unambiguous.
    #[must_use]
    pub fn folder(&self) -> String {
        format!("{}.{}", self.namespace, self.name)
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

impl FromStr for Key {
    type Err = ParseError;

    fn from_str(text: &str) -> Result<Self, ParseError> {
        match text.split_once('/') {
            Some((namespace, name)) => Self::new(namespace, name),
            None => Err(ParseError::Key(text.to_owned())),
        }
    }
}

/// An entry that makes sense.
#[derive(Debug, Clone, PartialEq)]
pub struct Parsed {
    /// Which deployment.
    pub key: Key,
    /// What the machine is told.
    pub order: Order,
    /// Where the package comes from.
    pub repository: Repository,
    /// The entry as it came.
    pub entry: NodeModel,
}

/// Parses one entry.
///
/// # Errors
/// [`ParseError`], naming the field.
pub fn parse(entry: &NodeModel) -> Result<Parsed, ParseError> {
    let key = Key::new(&entry.namespace, &entry.name)?;
    let repository = entry
        .package
        .repository
        .parse()
        .map_err(ParseError::Repository)?;
    let target = Target {
        revision: entry
            .revision
            .parse()
            .map_err(|error| ParseError::Revision {
                name: entry.revision.clone(),
                error,
            })?,
        package: entry.package.digest.parse().map_err(ParseError::Digest)?,
        health: health(&entry.health),
        keep_revisions: KEEP_REVISIONS,
        attempt: entry.attempt,
        forget_verdicts_before: entry.forget_verdicts_before,
    };
    if !is_endpoint(&entry.endpoint_name) {
        return Err(ParseError::Endpoint(entry.endpoint_name.clone()));
    }
    Ok(Parsed {
        key,
        order: match entry.action {
            Action::Run => Order::Run(target),
            Action::Remove => Order::Remove,
        },
        repository,
        entry: entry.clone(),
    })
}

fn is_endpoint(name: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '.' | '-');
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    name.len() <= 63
        && name.chars().all(inner)
        && edge(name.chars().next())
        && edge(name.chars().next_back())
}

fn health(health: &Health) -> verdict::Health {
    let Health {
        golden_vectors: _,
        probation_seconds,
        min_samples,
        max_error_permille,
        max_latency_p99_milliseconds,
    } = health;
    verdict::Health {
        probation_seconds: *probation_seconds,
        samples_min: *min_samples,
        errors_permille_max: Some(u16::try_from(*max_error_permille).unwrap_or(1000)),
        latency_p99_milliseconds_max: *max_latency_p99_milliseconds,
    }
}

/// The limits under which an entry's requests run. `memory` bounds the guest's own memory and, apart
/// from that, the tensors that the host holds for one request.
#[must_use]
pub fn limits(runtime: &Runtime) -> RuntimeLimits {
    let Runtime {
        concurrency,
        memory,
        timeout_milliseconds,
        config: _,
    } = runtime;
    RuntimeLimits {
        guest_memory_bytes_max: memory.bytes(),
        tensor_bytes_max: memory.bytes(),
        timeout_milliseconds: u64::from(*timeout_milliseconds),
        concurrency: *concurrency,
        ..RuntimeLimits::default()
    }
}

/// What is kept of an order once its package is staged: enough to run it again with no one there to
/// say it. Stored as a blob, so that its digest in the state record covers it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Install {
    /// The entry verbatim.
    pub entry: NodeModel,
    /// The chosen variant.
    pub variant: String,
    /// The device's engine that loads it.
    pub backend: String,
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use rimward_crds::PackageRef;

    pub(crate) fn entry() -> NodeModel {
        NodeModel {
            namespace: "shop".into(),
            name: "digits".into(),
            endpoint_name: "digits".into(),
            revision: "digits-1".into(),
            attempt: 1,
            forget_verdicts_before: 0,
            package: PackageRef {
                repository: "registry.example.com/models/digits".into(),
                digest: format!("sha256:{}", "ab".repeat(32)),
            },
            runtime: Runtime::default(),
            health: Health::default(),
            action: Action::Run,
        }
    }

    fn check_refused(change: impl Fn(&mut NodeModel), words: &str) {
        let mut entry = entry();
        change(&mut entry);
        let error = parse(&entry).unwrap_err().to_string();
        assert!(error.contains(words), "{error}");
    }

    #[test]
    fn a_good_entry_becomes_an_order() {
        let parsed = parse(&entry()).unwrap();
        assert_eq!(parsed.key.to_string(), "shop/digits");
        assert_eq!(parsed.key.folder(), "shop.digits");
        let Order::Run(target) = parsed.order else {
            panic!("{:?}", parsed.order);
        };
        assert_eq!(target.revision.as_str(), "digits-1");
    }

    #[test]
    fn a_bad_entry_names_its_field() {
        check_refused(|it| it.namespace = "a/b".into(), "a/b/digits");
        check_refused(|it| it.name = "..".into(), "shop/..");
        check_refused(|it| it.revision = "A".into(), "revision \"A\"");
        check_refused(|it| it.endpoint_name = "a/b".into(), "endpointName \"a/b\"");
        check_refused(|it| it.package.repository = "digits".into(), "repository");
        check_refused(|it| it.package.digest = "sha256:1".into(), "package.digest");
    }
}
