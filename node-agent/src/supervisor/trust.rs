//! The device's trust file as the supervisor knows it: the one in force, and why it may be an old one.
//!
//! Owns reading the file. Must never make trust out of an object that came from Kubernetes.

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rimward_artifact::trust::{TRUST_BYTES_MAX, TrustFile};
use rimward_core::node::{Problem, Reason};

/// What the trust file says now.
#[derive(Debug, Clone)]
pub struct Trust {
    /// For what is committed here: the file, or the last one that parsed.
    pub in_force: Option<Arc<TrustFile>>,
    /// Why nothing new may be installed: the file cannot be used.
    pub problem: Option<Problem>,
}

impl Trust {
    /// The trust that a new installation is checked against.
    ///
    /// # Errors
    /// The problem with the file: an old copy is good enough to go on, not to take on more.
    pub fn for_new(&self) -> Result<Arc<TrustFile>, Problem> {
        match (&self.problem, &self.in_force) {
            (None, Some(trust)) => Ok(Arc::clone(trust)),
            (Some(problem), _) => Err(problem.clone()),
            (None, None) => Err(unreadable("no trust file")),
        }
    }

    /// The trust that a stored version is checked against.
    ///
    /// # Errors
    /// When there never was a trust file that could be read.
    pub fn for_stored(&self) -> Result<Arc<TrustFile>, Problem> {
        match (&self.in_force, &self.problem) {
            (Some(trust), _) => Ok(Arc::clone(trust)),
            (None, Some(problem)) => Err(problem.clone()),
            (None, None) => Err(unreadable("no trust file")),
        }
    }
}

fn unreadable(message: impl AsRef<str>) -> Problem {
    Problem::new(Reason::TRUST_UNREADABLE, message)
}

/// The trust file's bytes, or why there are none.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The bytes.
    pub bytes: Result<Vec<u8>, String>,
}

/// Reads the file, bounded.
#[must_use]
pub(super) fn read(path: &Path) -> Source {
    Source {
        bytes: read_bounded(path)
            .map_err(|error| format!("trust file {}: {error}", path.display())),
    }
}

/// Follows symbolic links: a mounted Secret is made of them. One byte past the limit is read, so
/// that parsing can say that it is too long.
fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?
        .take(TRUST_BYTES_MAX + 1)
        .read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// Judges what was read; `last` is the trust in force until now.
#[must_use]
pub(super) fn judge(path: &Path, source: &Source, last: Option<Arc<TrustFile>>) -> Trust {
    let parsed = source.bytes.clone().and_then(|bytes| {
        TrustFile::parse(&bytes).map_err(|error| format!("trust file {}: {error}", path.display()))
    });
    match parsed {
        Ok(trust) => Trust {
            in_force: Some(Arc::new(trust)),
            problem: None,
        },
        Err(message) => Trust {
            in_force: last,
            problem: Some(unreadable(message)),
        },
    }
}

/// Watches the file and says when its bytes are others. A mounted Secret is swapped by renames of
/// symbolic links, which file notification misses easily: it is small, so it is read.
pub async fn watch(path: PathBuf, period: std::time::Duration, changed: impl AsyncFn(Source)) {
    let mut last = read(&path);
    loop {
        tokio::time::sleep(period).await;
        let now = read(&path);
        if now != last {
            last = now.clone();
            changed(now).await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_that_stops_parsing_blocks_what_is_new_and_keeps_what_is_stored() {
        let path = Path::new("trust.yaml");
        let good = Source {
            bytes: Ok(
                b"apiVersion: rimward.dev/v1alpha1\nkind: TrustFile\nauthorities: []\n".to_vec(),
            ),
        };
        let trust = judge(path, &good, None);
        assert!(trust.for_new().is_ok(), "{trust:?}");
        let bad = Source {
            bytes: Ok(b"authorities: {".to_vec()),
        };
        let trust = judge(path, &bad, trust.in_force);
        let problem = trust.for_new().unwrap_err();
        assert_eq!(problem.reason, Reason::TRUST_UNREADABLE);
        assert!(problem.message.contains("trust.yaml"), "{problem:?}");
        assert!(trust.for_stored().is_ok());
    }

    #[test]
    fn a_device_that_never_had_a_trust_file_trusts_nothing() {
        let missing = read(Path::new("/nonexistent/trust.yaml"));
        let trust = judge(Path::new("/nonexistent/trust.yaml"), &missing, None);
        assert!(trust.for_new().is_err());
        assert!(trust.for_stored().is_err());
    }
}
