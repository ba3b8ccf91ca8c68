//! Native code that this device's own preflights compiled, sealed with a key that no child sees.
//!
//! Owns `native/` in the data folder: a cache, nothing in it is needed to recover.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use rimward_core::ids::Digest;
use thiserror::Error;

use crate::host::native::{self, KEY_BYTES, NativeError, Seal, SealKey};
use crate::proto::NativeCodeId;

/// Why the cache cannot be used.
#[derive(Debug, Error)]
pub(super) enum CacheError {
    /// The file system refused.
    #[error("native code cache")]
    Io(#[from] io::Error),
    /// Seal or code are not right.
    #[error(transparent)]
    Native(#[from] NativeError),
    /// The seal cannot be read.
    #[error("native code cache: seal does not parse")]
    Seal(#[from] serde_json::Error),
}

/// The cache.
#[derive(Debug, Clone)]
pub(super) struct NativeCache {
    folder: PathBuf,
    key: Arc<SealKey>,
    /// Where code goes while another agent holds the folder; none for the holder.
    aside: Option<Arc<Mutex<Aside>>>,
}

/// What an agent that may not write has compiled, and what of the folder it cannot use.
#[derive(Debug, Default)]
struct Aside {
    code: BTreeMap<ModuleId, (NativeCodeId, OwnedFd)>,
    refused: BTreeSet<ModuleId>,
}

/// A module by digest, or the built-in one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct ModuleId(pub Option<Digest>);

impl ModuleId {
    fn stem(self) -> String {
        self.0
            .map_or_else(|| "built-in".to_owned(), |digest| digest.hex())
    }

    fn digest_text(self) -> String {
        self.0.map_or_else(
            || native::sha256(crate::host::PASS_THROUGH),
            |digest| digest.to_string(),
        )
    }
}

impl NativeCache {
    /// Opens the cache; the device's key is made on first use.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(super) fn open(data_folder: &Path) -> Result<Self, CacheError> {
        let folder = data_folder.join("native");
        fs::create_dir_all(&folder)?;
        let path = folder.join("key");
        let bytes: [u8; KEY_BYTES] = match fs::read(&path).ok().and_then(|it| it.try_into().ok()) {
            Some(bytes) => bytes,
            None => {
                // Code sealed with a lost key is just compiled again.
                let bytes = SealKey::generate()?;
                write(&path, &bytes)?;
                bytes
            }
        };
        Ok(Self {
            folder,
            key: Arc::new(SealKey::new(&bytes)),
            aside: None,
        })
    }

    /// Opens the cache of a folder that another agent holds: what is compiled stays in memory.
    ///
    /// # Errors
    /// [`CacheError::Native`].
    pub(super) fn read(data_folder: &Path) -> Result<Self, CacheError> {
        let folder = data_folder.join("native");
        let bytes = match fs::read(folder.join("key"))
            .ok()
            .and_then(|it| it.try_into().ok())
        {
            Some(bytes) => bytes,
            // The holder has none yet; nothing sealed with this one is ever kept.
            None => SealKey::generate()?,
        };
        Ok(Self {
            folder,
            key: Arc::new(SealKey::new(&bytes)),
            aside: Some(Arc::default()),
        })
    }

    /// Takes over what a standby compiled into this cache, which the next start finds. What cannot be kept is compiled
    /// again.
    pub(super) fn adopt(&self, standby: &Self) {
        let code = standby
            .aside
            .as_ref()
            .map(|aside| std::mem::take(&mut lock(aside).code));
        for (module, (id, memory)) in code.into_iter().flatten() {
            if let Err(error) = self.keep(module, &id, &mut File::from(memory)) {
                tracing::warn!(%error, "cannot keep native code");
            }
        }
    }

    /// An empty file for a preflight to write into.
    ///
    /// # Errors
    /// [`CacheError::Io`].
    pub(super) fn output(&self) -> Result<File, CacheError> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let memory = rustix::fs::memfd_create("native-output", flags).map_err(io::Error::from)?;
        Ok(File::from(memory))
    }

    /// Seals and keeps what a preflight wrote.
    ///
    /// # Errors
    /// [`CacheError`].
    pub(super) fn keep(
        &self,
        module: ModuleId,
        id: &NativeCodeId,
        code: &mut File,
    ) -> Result<(), CacheError> {
        use std::io::{Read, Seek};
        let seal = native::seal(&self.key, id, code)?;
        if let Some(aside) = &self.aside {
            let memory = native::open(&self.key, &seal, &module.digest_text(), code)?;
            lock(aside).code.insert(module, (seal.id, memory));
            return Ok(());
        }
        code.rewind()?;
        let mut bytes = Vec::new();
        code.take(native::NATIVE_CODE_BYTES_MAX)
            .read_to_end(&mut bytes)?;
        write(&self.path(module, "code"), &bytes)?;
        write(&self.path(module, "seal"), &serde_json::to_vec(&seal)?)
    }

    /// Opens sealed code as memory that cannot change any more.
    ///
    /// # Errors
    /// [`CacheError`]: it is then compiled again.
    pub(super) fn get(&self, module: ModuleId) -> Result<(NativeCodeId, OwnedFd), CacheError> {
        if let Some(aside) = &self.aside {
            let aside = lock(aside);
            if let Some((id, memory)) = aside.code.get(&module) {
                return Ok((id.clone(), memory.try_clone()?));
            }
            if aside.refused.contains(&module) {
                return Err(NativeError::Engine.into());
            }
        }
        let seal: Seal = serde_json::from_slice(&fs::read(self.path(module, "seal"))?)?;
        let mut code = File::open(self.path(module, "code"))?;
        let memory = native::open(&self.key, &seal, &module.digest_text(), &mut code)?;
        Ok((seal.id, memory))
    }

    /// Forgets a module's code.
    pub(super) fn forget(&self, module: ModuleId) {
        if let Some(aside) = &self.aside {
            let mut aside = lock(aside);
            aside.code.remove(&module);
            aside.refused.insert(module);
            return;
        }
        for kind in ["seal", "code"] {
            if let Err(error) = fs::remove_file(self.path(module, kind))
                && error.kind() != io::ErrorKind::NotFound
            {
                tracing::warn!(%error, "cannot remove cached native code");
            }
        }
    }

    /// Removes the code of every module that is not kept.
    pub(super) fn retain(&self, keep: impl Fn(&str) -> bool) {
        if self.aside.is_some() {
            return;
        }
        let Ok(entries) = fs::read_dir(&self.folder) else {
            return;
        };
        for entry in entries.flatten() {
            let name = entry.file_name();
            let stem = name.to_str().and_then(|name| name.split_once('.'));
            let gone = stem.is_some_and(|(stem, _)| stem != "built-in" && !keep(stem));
            if gone {
                let _ = fs::remove_file(entry.path());
            }
        }
    }

    fn path(&self, module: ModuleId, kind: &str) -> PathBuf {
        self.folder.join(format!("{}.{kind}", module.stem()))
    }
}

fn lock(aside: &Mutex<Aside>) -> MutexGuard<'_, Aside> {
    aside.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Replaces a file whole. Not synced: what a power cut leaves broken, the seal notices.
fn write(path: &Path, bytes: &[u8]) -> Result<(), CacheError> {
    let mut name = path.as_os_str().to_owned();
    name.push(".new");
    let temporary = PathBuf::from(name);
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(bytes)?;
    drop(file);
    Ok(fs::rename(&temporary, path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(code: &[u8]) -> NativeCodeId {
        NativeCodeId {
            module_digest: ModuleId(None).digest_text(),
            engine_hash: "engine".into(),
            code_digest: native::sha256(code),
        }
    }

    #[test]
    fn sealed_code_comes_back_after_a_restart_and_changed_code_does_not() {
        let folder = tempfile::tempdir().unwrap();
        let cache = NativeCache::open(folder.path()).unwrap();
        let mut output = cache.output().unwrap();
        output.write_all(b"code").unwrap();
        cache
            .keep(ModuleId(None), &id(b"code"), &mut output)
            .unwrap();
        let again = NativeCache::open(folder.path()).unwrap();
        assert_eq!(again.get(ModuleId(None)).unwrap().0, id(b"code"));
        fs::write(folder.path().join("native/built-in.code"), b"evil").unwrap();
        assert!(again.get(ModuleId(None)).is_err());
    }

    #[test]
    fn an_agent_that_may_not_write_keeps_code_in_memory_until_it_may() {
        let folder = tempfile::tempdir().unwrap();
        let holder = NativeCache::open(folder.path()).unwrap();
        let mut output = holder.output().unwrap();
        output.write_all(b"old").unwrap();
        holder
            .keep(ModuleId(None), &id(b"old"), &mut output)
            .unwrap();
        let standby = NativeCache::read(folder.path()).unwrap();
        assert_eq!(standby.get(ModuleId(None)).unwrap().0, id(b"old"));

        // Its engine is another: it compiles for itself, and the holder's stays.
        standby.forget(ModuleId(None));
        assert!(standby.get(ModuleId(None)).is_err());
        let mut output = standby.output().unwrap();
        output.write_all(b"new").unwrap();
        standby
            .keep(ModuleId(None), &id(b"new"), &mut output)
            .unwrap();
        standby.retain(|_| false);
        assert_eq!(standby.get(ModuleId(None)).unwrap().0, id(b"new"));
        assert_eq!(holder.get(ModuleId(None)).unwrap().0, id(b"old"));

        let taken = NativeCache::open(folder.path()).unwrap();
        taken.adopt(&standby);
        assert_eq!(taken.get(ModuleId(None)).unwrap().0, id(b"new"));
    }

    #[test]
    fn code_sealed_by_another_device_is_refused() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = NativeCache::open(one.path()).unwrap();
        let mut output = first.output().unwrap();
        output.write_all(b"code").unwrap();
        first
            .keep(ModuleId(None), &id(b"code"), &mut output)
            .unwrap();
        let second = NativeCache::open(two.path()).unwrap();
        for name in ["built-in.code", "built-in.seal"] {
            let from = one.path().join("native").join(name);
            fs::copy(from, two.path().join("native").join(name)).unwrap();
        }
        let error = second.get(ModuleId(None)).unwrap_err();
        assert!(
            matches!(error, CacheError::Native(NativeError::Mac)),
            "{error}"
        );
    }
}
