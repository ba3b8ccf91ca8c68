//! What came with a version besides its blobs: manifest, configs, signatures, verbatim, so that
//! they can be verified again without a network.
//!
//! Owns `versions/`. Must never interpret the bytes.

use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rimward_core::ids::Digest;

use super::disk::{Disk, read_bounded};

/// Longest single file kept.
pub const FILE_BYTES_MAX: u64 = 2 << 20;
/// Files kept per version.
pub const FILES_MAX: usize = 64;

/// The verbatim files of every stored version.
#[derive(Debug, Clone)]
pub struct Versions {
    disk: Arc<dyn Disk>,
    root: PathBuf,
}

impl Versions {
    pub(super) fn open(disk: Arc<dyn Disk>, root: &Path) -> io::Result<Self> {
        let versions = Self::at(disk, root);
        versions.disk.create_dir_all(&versions.root)?;
        Ok(versions)
    }

    /// The versions of a folder as it is.
    pub(super) fn at(disk: Arc<dyn Disk>, root: &Path) -> Self {
        let root = root.join("versions");
        Self { disk, root }
    }

    fn folder(&self, deployment: &str, package: Digest) -> PathBuf {
        self.root.join(deployment).join(package.hex())
    }

    /// Makes the files of one version durable, in place of what was there. `deployment` is
    /// `<namespace>.<name>`; names are plain file names.
    ///
    /// # Errors
    /// Past the limits of [`Self::get`], before anything is written; else as the operating system says, and a part
    /// of the files may be there then.
    pub fn put(
        &self,
        deployment: &str,
        package: Digest,
        files: &[(String, Vec<u8>)],
    ) -> io::Result<()> {
        check_name(deployment)?;
        check_sizes(deployment, files)?;
        for (name, _) in files {
            check_name(name)?;
        }
        let folder = self.folder(deployment, package);
        self.disk.create_dir_all(&folder)?;
        for (name, bytes) in files {
            let temporary = folder.join(format!("{name}.new"));
            let mut file = self.disk.create(&temporary)?;
            file.write_all(bytes)?;
            file.sync()?;
            drop(file);
            self.disk.rename(&temporary, &folder.join(name))?;
        }
        let stale = self.disk.list(&folder)?;
        for name in stale {
            if !files.iter().any(|(kept, _)| *kept == name) {
                self.disk.remove_file(&folder.join(name))?;
            }
        }
        self.disk.sync_dir(&folder)?;
        self.disk.sync_dir(&self.root.join(deployment))?;
        self.disk.sync_dir(&self.root)
    }

    /// Reads the files of one version, sorted by name; empty where there are none.
    ///
    /// # Errors
    /// As the operating system says, and past the limits.
    pub fn get(&self, deployment: &str, package: Digest) -> io::Result<Vec<(String, Vec<u8>)>> {
        check_name(deployment)?;
        let folder = self.folder(deployment, package);
        let mut files = Vec::new();
        for name in self.disk.list(&folder)?.into_iter().take(FILES_MAX) {
            let path = folder.join(&name);
            if let Some(bytes) = read_bounded(self.disk.as_ref(), &path, FILE_BYTES_MAX)? {
                files.push((name, bytes));
            }
        }
        Ok(files)
    }

    /// Removes every version that is not kept.
    ///
    /// # Errors
    /// As the operating system says; what was removed stays removed.
    pub fn retain(&self, keep: impl Fn(&str, &str) -> bool) -> io::Result<usize> {
        let mut removed = 0;
        for deployment in self.disk.list(&self.root)? {
            let folder = self.root.join(&deployment);
            let packages = self.disk.list(&folder)?;
            let mut left = packages.len();
            for package in packages {
                if !keep(&deployment, &package) {
                    self.disk.remove_dir_all(&folder.join(package))?;
                    removed += 1;
                    left -= 1;
                }
            }
            if left == 0 {
                self.disk.remove_dir_all(&folder)?;
            }
        }
        Ok(removed)
    }
}

/// What could not be read back is not written.
fn check_sizes(deployment: &str, files: &[(String, Vec<u8>)]) -> io::Result<()> {
    let refuse = |message| Err(io::Error::new(io::ErrorKind::InvalidInput, message));
    if files.len() > FILES_MAX {
        return refuse(format!(
            "{deployment}: {} files, at most {FILES_MAX} are kept per version",
            files.len()
        ));
    }
    let long = |(_, bytes): &&(String, Vec<u8>)| bytes.len() as u64 > FILE_BYTES_MAX;
    match files.iter().find(long) {
        Some((name, bytes)) => refuse(format!(
            "{deployment}: {name} has {} bytes, at most {FILE_BYTES_MAX} are kept",
            bytes.len()
        )),
        None => Ok(()),
    }
}

/// A plain file name: no path may be smuggled in.
fn check_name(name: &str) -> io::Result<()> {
    let plain = !name.is_empty()
        && name.len() <= 200
        && !name.starts_with('.')
        && name
            .bytes()
            .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'.' | b'-' | b'_'));
    if plain {
        Ok(())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            format!("{name:?} is no plain file name"),
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::disk::RealDisk;

    fn versions(root: &Path) -> Versions {
        Versions::open(Arc::new(RealDisk), root).unwrap()
    }

    fn file(name: &str, bytes: &[u8]) -> (String, Vec<u8>) {
        (name.to_owned(), bytes.to_vec())
    }

    #[test]
    fn files_come_back_verbatim_and_a_second_put_replaces_them() {
        let root = tempfile::tempdir().unwrap();
        let versions = versions(root.path());
        let package = Digest::from_sha256([7; 32]);
        let first = [file("manifest.json", b"{ }"), file("signature-0", b"one")];
        versions.put("shop.digits", package, &first).unwrap();
        assert_eq!(versions.get("shop.digits", package).unwrap(), first);
        let second = [file("manifest.json", b"{ }"), file("signature-1", b"two")];
        versions.put("shop.digits", package, &second).unwrap();
        assert_eq!(versions.get("shop.digits", package).unwrap(), second);
        assert_eq!(versions.get("shop.other", package).unwrap(), []);
    }

    #[test]
    fn what_could_not_be_read_back_is_refused_and_leaves_what_was_there() {
        let root = tempfile::tempdir().unwrap();
        let versions = versions(root.path());
        let package = Digest::from_sha256([7; 32]);
        let kept = [file("a", b"one"), file("b", b"two")];
        versions.put("shop.digits", package, &kept).unwrap();
        let longest = vec![0; usize::try_from(FILE_BYTES_MAX).unwrap()];
        let mut longer = longest.clone();
        longer.push(0);
        let files = [file("a", b"new"), file("signatures.json", &longer)];
        let error = versions.put("shop.digits", package, &files).unwrap_err();
        assert_eq!(
            error.to_string(),
            "shop.digits: signatures.json has 2097153 bytes, at most 2097152 are kept"
        );
        let many: Vec<_> = (0..=FILES_MAX)
            .map(|index| file(&format!("f{index}"), b""))
            .collect();
        versions.put("shop.digits", package, &many).unwrap_err();
        assert_eq!(versions.get("shop.digits", package).unwrap(), kept);
        let fits = [file("a", &longest)];
        versions.put("shop.digits", package, &fits).unwrap();
        assert_eq!(versions.get("shop.digits", package).unwrap(), fits);
    }

    #[test]
    fn a_name_with_a_path_in_it_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let versions = versions(root.path());
        let package = Digest::from_sha256([7; 32]);
        for name in ["../x", "a/b", "", ".hidden", "a\0b"] {
            let error = versions.put("shop.digits", package, &[file(name, b"")]);
            assert!(error.is_err(), "{name:?}");
            assert!(versions.put(name, package, &[]).is_err(), "{name:?}");
        }
    }

    #[test]
    fn collection_removes_what_is_not_kept_and_empty_deployments() {
        let root = tempfile::tempdir().unwrap();
        let versions = versions(root.path());
        let (one, two) = (Digest::from_sha256([1; 32]), Digest::from_sha256([2; 32]));
        versions.put("shop.digits", one, &[file("m", b"")]).unwrap();
        versions.put("shop.digits", two, &[file("m", b"")]).unwrap();
        versions.put("shop.gone", two, &[file("m", b"")]).unwrap();
        let kept = one.hex();
        let removed = versions.retain(|name, package| name == "shop.digits" && package == kept);
        assert_eq!(removed.unwrap(), 2);
        assert_eq!(versions.get("shop.digits", one).unwrap().len(), 1);
        assert!(!root.path().join("versions/shop.gone").exists());
    }
}
