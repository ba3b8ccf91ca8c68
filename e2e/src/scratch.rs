//! A temporary folder: removed when all is well, kept and named in the output when not.

use std::cell::RefCell;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

use crate::guard;

thread_local! {
    /// Folders that a story on this thread is done with. Its parts are dropped before it is known whether it
    /// failed, and then their logs are wanted.
    static HELD: RefCell<Option<Vec<PathBuf>>> = const { RefCell::new(None) };
}

/// From now on, folders dropped on this thread stay until [`release`].
pub(crate) fn hold() {
    HELD.set(Some(Vec::new()));
}

/// Removes the folders that were dropped since [`hold`], or names those that are to be kept.
pub(crate) fn release() {
    for path in HELD.take().unwrap_or_default() {
        guard::end_folder(&path);
    }
}

/// A folder below the system's temporary folder.
///
/// Dropping it removes it, unless [`Scratch::keep`] was called or the thread panics.
#[derive(Debug)]
pub struct Scratch {
    path: PathBuf,
}

impl Scratch {
    /// Makes the folder, readable by its owner only (keys lie in it).
    ///
    /// # Errors
    /// When the temporary folder cannot be written.
    pub fn new(name: &str) -> Result<Self> {
        guard::install();
        let path = tempfile::Builder::new()
            .prefix(&format!("rimward-{name}-"))
            .tempdir()
            .with_context(|| format!("cannot make a folder in {}", std::env::temp_dir().display()))?
            .keep();
        guard::note_folder(&path);
        Ok(Self { path })
    }

    /// Where it is.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes a folder inside it.
    ///
    /// # Errors
    /// When it cannot be made.
    pub fn folder(&self, name: &str) -> Result<PathBuf> {
        let path = self.path.join(name);
        std::fs::create_dir_all(&path)
            .with_context(|| format!("cannot make {}", path.display()))?;
        Ok(path)
    }

    /// Leaves it where it is at the end.
    pub fn keep(&self) {
        guard::keep_folder(&self.path);
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.keep();
        }
        let is_held = HELD.with_borrow_mut(|held| {
            let held = held.as_mut()?;
            held.push(self.path.clone());
            Some(())
        });
        if is_held.is_none() {
            guard::end_folder(&self.path);
        }
    }
}
