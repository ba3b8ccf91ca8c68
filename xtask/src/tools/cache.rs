//! The folder that installed parts live in, outside the checkout, shared by every clone on a machine.
//!
//! Owns its paths and its lock. A part's folder appears whole, by one rename, or not at all.

use std::fs::{self, File, TryLockError};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

use super::progress;
use crate::side_by_side::{LOOK_PERIOD, Stop};

/// `$RIMWARD_CACHE`, or `~/.cache/rimward/tools`.
#[derive(Debug)]
pub(crate) struct Cache {
    root: PathBuf,
}

/// Held while something is installed; let go of when dropped, or when the process dies.
#[derive(Debug)]
pub(crate) struct Lock {
    _file: File,
}

impl Cache {
    /// Finds the folder and makes it.
    pub(crate) fn open() -> Result<Self> {
        let root = match std::env::var_os("RIMWARD_CACHE").filter(|value| !value.is_empty()) {
            Some(folder) => std::path::absolute(folder)?,
            None => std::env::home_dir()
                .context("there is no home folder to keep built tools in: set RIMWARD_CACHE")?
                .join(".cache/rimward/tools"),
        };
        fs::create_dir_all(&root)
            .with_context(|| format!("cannot make the folder {}", root.display()))?;
        Ok(Self { root })
    }

    pub(crate) fn root(&self) -> &Path {
        &self.root
    }

    /// Takes the lock, telling the user once if another run holds it.
    ///
    /// # Errors
    /// When it cannot be taken, or is not wanted any more.
    pub(crate) fn lock(&self, stop: &Stop) -> Result<Lock> {
        let path = self.root.join(".lock");
        let file =
            File::create(&path).with_context(|| format!("cannot make {}", path.display()))?;
        let mut is_told = false;
        loop {
            match file.try_lock() {
                Ok(()) => break,
                Err(TryLockError::WouldBlock) if !is_told => {
                    is_told = true;
                    progress::say(&format!(
                        "waiting for another run that installs into {}",
                        self.root.display()
                    ));
                }
                Err(TryLockError::WouldBlock) => std::thread::sleep(LOOK_PERIOD),
                Err(TryLockError::Error(error)) => {
                    return Err(error).with_context(|| format!("cannot lock {}", path.display()));
                }
            }
            if stop.is_set() {
                bail!("not waited for any more, because the build beside it failed");
            }
        }
        Ok(Lock { _file: file })
    }
}

/// The checkout that this xtask was compiled in.
pub(crate) fn repository_root() -> PathBuf {
    let manifest = Path::new(env!("CARGO_MANIFEST_DIR"));
    manifest.parent().unwrap_or(manifest).to_path_buf()
}
