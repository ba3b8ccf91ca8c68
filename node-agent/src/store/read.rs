//! The store as one who does not hold its lock sees it: to read, while another agent writes.
//!
//! Owns noticing that the holder's record changed. Must never write: every call that would is refused before it
//! reaches the disk.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::disk::{Disk, DiskFile, RealDisk};
use super::slots::NAMES;
use super::{Blobs, Found, Slots, Versions};

/// The device's own file system, to read only.
#[derive(Debug, Clone, Copy, Default)]
pub struct ReadOnlyDisk;

fn refuse<T>() -> io::Result<T> {
    Err(io::Error::new(
        io::ErrorKind::ReadOnlyFilesystem,
        "another agent holds the data folder",
    ))
}

impl Disk for ReadOnlyDisk {
    fn create(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        refuse()
    }

    fn append(&self, _: &Path) -> io::Result<Box<dyn DiskFile>> {
        refuse()
    }

    fn open(&self, path: &Path) -> io::Result<File> {
        RealDisk.open(path)
    }

    fn rename(&self, _: &Path, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn remove_file(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn remove_dir_all(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn create_dir_all(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn sync_dir(&self, _: &Path) -> io::Result<()> {
        refuse()
    }

    fn list(&self, path: &Path) -> io::Result<Vec<String>> {
        RealDisk.list(path)
    }

    fn available_bytes(&self, path: &Path) -> io::Result<u64> {
        RealDisk.available_bytes(path)
    }
}

/// What tells one state of the slots from another: each put makes a new file.
type Mark = [Option<(u64, u64, i64, i64)>; 2];

/// A store that another agent holds.
#[derive(Debug)]
pub struct Reader {
    folder: PathBuf,
    /// The blobs, to read.
    pub blobs: Blobs,
    /// The verbatim files, to read.
    pub versions: Versions,
    seen: Option<Mark>,
}

impl Reader {
    /// Opens a store to read it; nothing in the folder changes by that.
    #[must_use]
    pub fn open(folder: &Path) -> Self {
        let disk: Arc<dyn Disk> = Arc::new(ReadOnlyDisk);
        Self {
            folder: folder.to_owned(),
            blobs: Blobs::at(Arc::clone(&disk), folder),
            versions: Versions::at(disk, folder),
            seen: None,
        }
    }

    /// The holder's newest valid record, if the slots are others than at the last call; `None` in it where there is
    /// none yet.
    ///
    /// # Errors
    /// When the folder cannot be read; it is looked at again at the next call.
    pub fn news(&mut self) -> io::Result<Option<Option<Found>>> {
        // Looked at before they are read: what is put in between is news the next time.
        let mark = self.mark();
        if self.seen == Some(mark) {
            return Ok(None);
        }
        let (_, found, _) = Slots::open(Arc::new(ReadOnlyDisk), &self.folder)?;
        self.seen = Some(mark);
        Ok(Some(found))
    }

    fn mark(&self) -> Mark {
        NAMES.map(|name| {
            let found = std::fs::symlink_metadata(self.folder.join(name)).ok()?;
            Some((found.ino(), found.size(), found.mtime(), found.mtime_nsec()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Store;

    #[test]
    fn every_record_that_the_holder_puts_is_news_once() {
        let root = tempfile::tempdir().unwrap();
        let mut store = Store::open(Arc::new(RealDisk), root.path()).unwrap().store;
        let mut reader = Reader::open(root.path());
        assert_eq!(reader.news().unwrap(), Some(None));
        assert_eq!(reader.news().unwrap(), None);
        for number in 1..=5_u64 {
            store
                .slots
                .put(format!("record {number}").as_bytes())
                .unwrap();
            let found = reader.news().unwrap().unwrap().unwrap();
            assert_eq!(
                (found.seq, found.bytes),
                (number, format!("record {number}").into_bytes())
            );
            assert_eq!(reader.news().unwrap(), None);
        }
    }

    #[test]
    fn whoever_does_not_hold_the_store_changes_nothing_in_it() {
        let root = tempfile::tempdir().unwrap();
        let store = Store::open(Arc::new(RealDisk), root.path()).unwrap().store;
        let good = store.blobs.put(b"good").unwrap();
        let bad = store.blobs.put(b"bad").unwrap();
        std::fs::write(root.path().join("blobs/sha256").join(bad.hex()), "damaged").unwrap();
        std::fs::write(root.path().join("ingest/half"), "ha").unwrap();
        let reader = Reader::open(root.path());
        assert_eq!(reader.blobs.read(good, 10).unwrap(), b"good");
        assert!(reader.blobs.verified(bad).is_err());
        assert!(reader.blobs.put(b"new").is_err());
        assert!(reader.blobs.retain(|_| false).is_err());
        assert!(reader.versions.put("shop.digits", good, &[]).is_err());
        let left: Vec<_> = std::fs::read_dir(root.path().join("ingest"))
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(left, ["half"], "not even half of a write is begun");
        assert_eq!(
            std::fs::read_dir(root.path().join("blobs/sha256"))
                .unwrap()
                .count(),
            2
        );
    }
}
