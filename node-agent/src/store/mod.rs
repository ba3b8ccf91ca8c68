//! The device's store: content-addressed blobs, verbatim version files, and the state record.
//!
//! Owns the data folder; knows bytes, not meaning. Must never decide what is kept, verified or run,
//! and never make room for something new by deleting something old.
//!
//! ```text
//! lock                                      held by the one agent that may write here
//! handover                                  the holder's socket for the agent after it
//! blobs/sha256/<hex>                        named by content
//! ingest/                                   half-written downloads, cleared at start
//! versions/<namespace>.<name>/<digest>/     manifest, configs, signatures: verbatim bytes
//! state.0  state.1                          the only commit point
//! ```

pub mod blobs;
pub mod disk;
pub mod read;
pub mod slots;
pub mod versions;

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::Path;
use std::sync::Arc;

use rimward_core::ids::Digest;
use rustix::fs::{FlockOperation, flock};
use thiserror::Error;

pub use blobs::{BlobError, Blobs, Ingest};
pub use disk::{Disk, RealDisk};
pub use read::Reader;
pub use slots::{Found, PutError, Slots};
pub use versions::Versions;

/// Why the store cannot be opened.
#[derive(Debug, Error)]
pub enum OpenError {
    /// Another process has it.
    #[error("the data folder is in use by another agent")]
    Locked,
    /// The file system refused.
    #[error("cannot open the data folder")]
    Io(#[from] io::Error),
}

/// Held by the one agent that may write to a store.
#[derive(Debug)]
pub struct Lock {
    _file: File,
}

impl Lock {
    /// Makes the folder if it is missing, and takes its lock.
    ///
    /// # Errors
    /// [`OpenError::Locked`] while another process has it.
    pub fn take(root: &Path) -> Result<Self, OpenError> {
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(root)?;
        let file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(root.join("lock"))?;
        Self::of(file)
    }

    /// Takes the lock of a store that another agent holds, or held, and makes nothing.
    ///
    /// # Errors
    /// As [`Lock::take`].
    pub fn take_over(root: &Path) -> Result<Self, OpenError> {
        Self::of(File::open(root.join("lock"))?)
    }

    fn of(file: File) -> Result<Self, OpenError> {
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self { _file: file }),
            Err(rustix::io::Errno::WOULDBLOCK) => Err(OpenError::Locked),
            Err(error) => Err(OpenError::Io(error.into())),
        }
    }
}

/// An open store.
#[derive(Debug)]
pub struct Store {
    /// The blobs.
    pub blobs: Blobs,
    /// The verbatim files.
    pub versions: Versions,
    /// The state record.
    pub slots: Slots,
    /// No other agent may open the store as long as this lives.
    pub lock: Arc<Lock>,
}

/// What was found at opening.
#[derive(Debug)]
pub struct Opened {
    /// The store.
    pub store: Store,
    /// The newest valid record.
    pub found: Option<Found>,
    /// Slots that held no valid record.
    pub slots_damaged: usize,
}

impl Store {
    /// Opens the store in a folder, making what is missing and clearing what was half-written.
    ///
    /// # Errors
    /// [`OpenError`].
    pub fn open(disk: Arc<dyn Disk>, root: &Path) -> Result<Opened, OpenError> {
        let lock = Arc::new(Lock::take(root)?);
        Ok(Self::open_locked(disk, root, lock)?)
    }

    /// The same by who has its lock.
    ///
    /// # Errors
    /// As the operating system says; it may be tried again.
    pub fn open_locked(disk: Arc<dyn Disk>, root: &Path, lock: Arc<Lock>) -> io::Result<Opened> {
        let blobs = Blobs::open(Arc::clone(&disk), root)?;
        let versions = Versions::open(Arc::clone(&disk), root)?;
        let (slots, found, slots_damaged) = Slots::open(disk, root)?;
        let store = Self {
            blobs,
            versions,
            slots,
            lock,
        };
        Ok(Opened {
            store,
            found,
            slots_damaged,
        })
    }
}

fn digest_of(context: ring::digest::Context) -> Digest {
    let mut bytes = [0; 32];
    bytes.copy_from_slice(context.finish().as_ref());
    Digest::from_sha256(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_second_agent_on_the_same_folder_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let first = Store::open(Arc::new(RealDisk), root.path()).unwrap();
        let error = Store::open(Arc::new(RealDisk), root.path()).unwrap_err();
        assert!(matches!(error, OpenError::Locked), "{error}");
        drop(first);
        assert!(Store::open(Arc::new(RealDisk), root.path()).is_ok());
    }
}
