//! Content-addressed blobs: nothing gets its final name before its bytes were hashed.
//!
//! Owns `blobs/` and `ingest/`. Must never know what a blob is for.

use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rimward_core::ids::Digest;
use ring::digest::{Context, SHA256};
use thiserror::Error;

use super::digest_of;
use super::disk::{Disk, DiskFile};

const COPY_BYTES: usize = 128 << 10;

/// Why a blob was not taken, or not given out.
#[derive(Debug, Error)]
pub enum BlobError {
    /// More bytes came than were declared.
    #[error("blob {digest}: more than the declared {bytes_max} bytes")]
    TooLong {
        /// The blob.
        digest: Digest,
        /// The declared size.
        bytes_max: u64,
    },
    /// The bytes do not hash to the name.
    #[error("blob {digest}: the bytes hash to {actual}")]
    Mismatch {
        /// The blob's name.
        digest: Digest,
        /// What its bytes hash to.
        actual: Digest,
    },
    /// There is no such blob.
    #[error("blob {0}: not in the store")]
    Missing(Digest),
    /// The file system refused.
    #[error("blob {digest}: cannot {action}")]
    Io {
        /// The blob.
        digest: Digest,
        /// What was tried.
        action: &'static str,
        /// Why not.
        #[source]
        source: io::Error,
    },
}

impl BlobError {
    /// Whether the disk is full.
    #[must_use]
    pub fn is_no_space(&self) -> bool {
        match self {
            Self::Io { source, .. } => matches!(
                source.kind(),
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded
            ),
            Self::TooLong { .. } | Self::Mismatch { .. } | Self::Missing(_) => false,
        }
    }
}

/// The blobs of one device.
#[derive(Debug, Clone)]
pub struct Blobs {
    disk: Arc<dyn Disk>,
    blobs: PathBuf,
    ingest: PathBuf,
}

impl Blobs {
    pub(super) fn open(disk: Arc<dyn Disk>, root: &Path) -> io::Result<Self> {
        let blobs = Self::at(disk, root);
        blobs.disk.create_dir_all(&blobs.blobs)?;
        blobs.disk.create_dir_all(&blobs.ingest)?;
        // A download that can go on where it stopped keeps its digest as its name.
        blobs.clear_ingest(|name| format!("sha256:{name}").parse::<Digest>().is_ok())?;
        Ok(blobs)
    }

    /// The blobs of a folder as it is.
    pub(super) fn at(disk: Arc<dyn Disk>, root: &Path) -> Self {
        Self {
            disk,
            blobs: root.join("blobs").join("sha256"),
            ingest: root.join("ingest"),
        }
    }

    fn clear_ingest(&self, keep: impl Fn(&str) -> bool) -> io::Result<()> {
        for name in self.disk.list(&self.ingest)? {
            if !keep(&name) {
                self.disk.remove_file(&self.ingest.join(name))?;
            }
        }
        Ok(())
    }

    fn path(&self, digest: Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }

    fn io(digest: Digest, action: &'static str) -> impl FnOnce(io::Error) -> BlobError {
        move |source| BlobError::Io {
            digest,
            action,
            source,
        }
    }

    /// Begins to take a blob of at most `bytes_max` bytes in.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn ingest(&self, digest: Digest, bytes_max: u64) -> Result<Ingest, BlobError> {
        let temporary = self.ingest.join(digest.hex());
        let file = self
            .disk
            .create(&temporary)
            .map_err(Self::io(digest, "create its file"))?;
        Ok(Ingest {
            blobs: self.clone(),
            digest,
            bytes_max,
            bytes: 0,
            context: Context::new(&SHA256),
            temporary,
            file: Some(file),
            kept: false,
        })
    }

    /// Goes on with a blob of which a part was kept; begins anew where there is none. `seen` is
    /// given the bytes that are already there.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn resume(
        &self,
        digest: Digest,
        bytes_max: u64,
        mut seen: impl FnMut(&[u8]),
    ) -> Result<Ingest, BlobError> {
        let temporary = self.ingest.join(digest.hex());
        let part = match self.disk.open(&temporary) {
            Ok(part) => part,
            Err(_) => return self.ingest(digest, bytes_max),
        };
        let length = part
            .metadata()
            .map_err(Self::io(digest, "look at its first part"))?
            .len();
        if length > bytes_max {
            return self.ingest(digest, bytes_max);
        }
        let mut part = part.take(length);
        let mut context = Context::new(&SHA256);
        let mut buffer = vec![0; COPY_BYTES];
        let mut bytes = 0_u64;
        loop {
            let length = part
                .read(&mut buffer)
                .map_err(Self::io(digest, "read its first part"))?;
            let Some(read @ [_, ..]) = buffer.get(..length) else {
                break;
            };
            bytes = bytes.saturating_add(read.len() as u64);
            context.update(read);
            seen(read);
        }
        let file = self
            .disk
            .append(&temporary)
            .map_err(Self::io(digest, "open its first part"))?;
        Ok(Ingest {
            blobs: self.clone(),
            digest,
            bytes_max,
            bytes,
            context,
            temporary,
            file: Some(file),
            kept: false,
        })
    }

    /// Takes a blob in whose bytes are at hand; its name is computed.
    ///
    /// # Errors
    /// [`BlobError::Io`].
    pub fn put(&self, bytes: &[u8]) -> Result<Digest, BlobError> {
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        let digest = digest_of(context);
        if self.verified(digest).is_ok() {
            return Ok(digest);
        }
        let mut ingest = self.ingest(digest, bytes.len() as u64)?;
        ingest.write(bytes)?;
        ingest.finish()?;
        Ok(digest)
    }

    /// Whether there is a file of that name; says nothing about its bytes.
    #[must_use]
    pub fn has(&self, digest: Digest) -> bool {
        self.disk.open(&self.path(digest)).is_ok()
    }

    /// Opens a blob after hashing all of it; the file stands at its beginning. A blob whose bytes
    /// do not hash to its name is removed, so that it is fetched again.
    ///
    /// # Errors
    /// [`BlobError::Missing`], [`BlobError::Mismatch`] or [`BlobError::Io`].
    pub fn verified(&self, digest: Digest) -> Result<File, BlobError> {
        let path = self.path(digest);
        let mut file = match self.disk.open(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                return Err(BlobError::Missing(digest));
            }
            file => file.map_err(Self::io(digest, "open it"))?,
        };
        let actual = hash(&mut file).map_err(Self::io(digest, "read it"))?;
        if actual != digest {
            if let Err(error) = self.disk.remove_file(&path) {
                tracing::warn!(%digest, %error, "cannot remove a damaged blob");
            }
            return Err(BlobError::Mismatch { digest, actual });
        }
        file.seek(SeekFrom::Start(0))
            .map_err(Self::io(digest, "rewind it"))?;
        Ok(file)
    }

    /// Reads a small blob whole, verified.
    ///
    /// # Errors
    /// As [`Blobs::verified`], and [`BlobError::TooLong`].
    pub fn read(&self, digest: Digest, bytes_max: u64) -> Result<Vec<u8>, BlobError> {
        let file = self.verified(digest)?;
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(Self::io(digest, "read it"))?;
        if bytes.len() as u64 > bytes_max {
            return Err(BlobError::TooLong { digest, bytes_max });
        }
        // Hashed again: what is used is what was checked.
        let mut context = Context::new(&SHA256);
        context.update(&bytes);
        let actual = digest_of(context);
        if actual != digest {
            return Err(BlobError::Mismatch { digest, actual });
        }
        Ok(bytes)
    }

    /// Bytes that can still be written.
    ///
    /// # Errors
    /// As the operating system says.
    pub fn available_bytes(&self) -> io::Result<u64> {
        self.disk.available_bytes(&self.blobs)
    }

    /// Removes every blob that is not kept, and every half-written one: nothing may be on its way
    /// in. Returns how many blobs went.
    ///
    /// # Errors
    /// As the operating system says; what was removed stays removed.
    pub fn retain(&self, keep: impl Fn(Digest) -> bool) -> io::Result<usize> {
        self.clear_ingest(|_| false)?;
        let mut removed = 0;
        for name in self.disk.list(&self.blobs)? {
            let kept = format!("sha256:{name}").parse().is_ok_and(&keep);
            if !kept {
                self.disk.remove_file(&self.blobs.join(name))?;
                removed += 1;
            }
        }
        Ok(removed)
    }
}

fn hash(file: &mut File) -> io::Result<Digest> {
    let mut context = Context::new(&SHA256);
    let mut buffer = vec![0; COPY_BYTES];
    loop {
        let length = file.read(&mut buffer)?;
        match buffer.get(..length) {
            None | Some([]) => return Ok(digest_of(context)),
            Some(bytes) => context.update(bytes),
        }
    }
}

/// A blob on its way in. Dropped before [`Ingest::finish`], it leaves nothing behind, unless
/// [`Ingest::keep`] was called.
pub struct Ingest {
    blobs: Blobs,
    digest: Digest,
    bytes_max: u64,
    bytes: u64,
    context: Context,
    temporary: PathBuf,
    file: Option<Box<dyn DiskFile>>,
    kept: bool,
}

impl std::fmt::Debug for Ingest {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Ingest")
            .field("digest", &self.digest)
            .field("bytes", &self.bytes)
            .finish_non_exhaustive()
    }
}

impl Ingest {
    /// Leaves what was written for a later [`Blobs::resume`] when this is dropped.
    pub fn keep(&mut self) {
        self.kept = true;
    }

    /// Throws away what was written, also what an earlier try kept.
    pub fn discard(mut self) {
        self.kept = false;
    }

    /// Takes the next bytes.
    ///
    /// # Errors
    /// [`BlobError::TooLong`] before anything past the limit is written, or [`BlobError::Io`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), BlobError> {
        let digest = self.digest;
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > self.bytes_max {
            let bytes_max = self.bytes_max;
            return Err(BlobError::TooLong { digest, bytes_max });
        }
        self.context.update(bytes);
        match &mut self.file {
            Some(file) => file.write_all(bytes).map_err(Blobs::io(digest, "write it")),
            None => Ok(()),
        }
    }

    /// Makes the blob durable under its name, if its bytes are right.
    ///
    /// # Errors
    /// [`BlobError::Mismatch`] or [`BlobError::Io`]; the bytes are thrown away then.
    pub fn finish(mut self) -> Result<(), BlobError> {
        let digest = self.digest;
        let context = std::mem::replace(&mut self.context, Context::new(&SHA256));
        let actual = digest_of(context);
        if actual != digest {
            return Err(BlobError::Mismatch { digest, actual });
        }
        let Some(mut file) = self.file.take() else {
            return Ok(());
        };
        let synced = file.sync();
        drop(file);
        let disk = &self.blobs.disk;
        let renamed = synced.and_then(|()| disk.rename(&self.temporary, &self.blobs.path(digest)));
        if renamed.is_err() {
            // Thrown away and fetched again; never a second fsync on the same descriptor.
            let _ = disk.remove_file(&self.temporary);
        }
        renamed.map_err(Blobs::io(digest, "make it durable"))?;
        disk.sync_dir(&self.blobs.blobs)
            .map_err(Blobs::io(digest, "make its name durable"))
    }
}

impl Drop for Ingest {
    fn drop(&mut self) {
        if self.file.take().is_some() && !self.kept {
            let _ = self.blobs.disk.remove_file(&self.temporary);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;

    fn blobs(root: &Path) -> Blobs {
        Blobs::open(Arc::new(RealDisk), root).unwrap()
    }

    fn sha256(bytes: &[u8]) -> Digest {
        let mut context = Context::new(&SHA256);
        context.update(bytes);
        digest_of(context)
    }

    fn files(root: &Path) -> usize {
        let count = |folder: &str| std::fs::read_dir(root.join(folder)).unwrap().count();
        count("blobs/sha256") + count("ingest")
    }

    #[test]
    fn bytes_with_another_hash_never_get_their_name() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let digest = sha256(b"right");
        let mut ingest = blobs.ingest(digest, 5).unwrap();
        ingest.write(b"wrong").unwrap();
        let error = ingest.finish().unwrap_err();
        assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
        assert!(matches!(blobs.verified(digest), Err(BlobError::Missing(_))));
        assert_eq!(files(root.path()), 0);
    }

    #[test]
    fn an_endless_body_is_stopped_at_its_declared_size() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let mut ingest = blobs.ingest(sha256(b"12345678"), 8).unwrap();
        ingest.write(b"1234").unwrap();
        ingest.write(b"5678").unwrap();
        let error = ingest.write(b"9").unwrap_err();
        assert!(matches!(error, BlobError::TooLong { .. }), "{error}");
        drop(ingest);
        assert_eq!(files(root.path()), 0);
    }

    #[test]
    fn a_blob_with_a_flipped_bit_is_refused_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let digest = blobs.put(b"model weights").unwrap();
        assert_eq!(blobs.read(digest, 100).unwrap(), b"model weights");
        let path = root.path().join("blobs/sha256").join(digest.hex());
        let mut bytes = std::fs::read(&path).unwrap();
        bytes[4] ^= 0x10;
        std::fs::write(&path, bytes).unwrap();
        let error = blobs.verified(digest).unwrap_err();
        assert!(matches!(error, BlobError::Mismatch { .. }), "{error}");
        assert!(matches!(blobs.verified(digest), Err(BlobError::Missing(_))));
        assert_eq!(blobs.put(b"model weights").unwrap(), digest);
        assert!(blobs.verified(digest).is_ok());
    }

    #[test]
    fn what_was_half_written_at_a_crash_never_has_a_name_and_is_collected() {
        let root = tempfile::tempdir().unwrap();
        let first = blobs(root.path());
        let mut ingest = first.ingest(sha256(b"whole"), 5).unwrap();
        ingest.write(b"who").unwrap();
        std::mem::forget(ingest);
        std::fs::write(root.path().join("ingest/not-a-digest"), b"x").unwrap();
        assert_eq!(files(root.path()), 2);
        let second = blobs(root.path());
        assert!(second.verified(sha256(b"whole")).is_err());
        assert_eq!(files(root.path()), 1);
        second.retain(|_| true).unwrap();
        assert_eq!(files(root.path()), 0);
    }

    #[test]
    fn a_kept_part_is_resumed_and_hashed_with_the_rest() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let digest = sha256(b"whole");
        let mut ingest = blobs.ingest(digest, 5).unwrap();
        ingest.write(b"who").unwrap();
        ingest.keep();
        drop(ingest);
        let mut seen = Vec::new();
        let mut ingest = blobs
            .resume(digest, 5, |bytes| seen.extend_from_slice(bytes))
            .unwrap();
        assert_eq!(seen, b"who");
        ingest.write(b"le").unwrap();
        ingest.finish().unwrap();
        assert_eq!(blobs.read(digest, 5).unwrap(), b"whole");
    }

    #[test]
    fn collection_keeps_the_roots_and_removes_foreign_files() {
        let root = tempfile::tempdir().unwrap();
        let blobs = blobs(root.path());
        let kept = blobs.put(b"kept").unwrap();
        let gone = blobs.put(b"gone").unwrap();
        std::fs::write(root.path().join("blobs/sha256/foreign"), b"x").unwrap();
        assert_eq!(blobs.retain(|digest| digest == kept).unwrap(), 2);
        assert!(blobs.verified(kept).is_ok());
        assert!(matches!(blobs.verified(gone), Err(BlobError::Missing(_))));
    }
}
