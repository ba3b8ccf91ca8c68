//! A layer: a tar archive that is the same byte by byte for the same files, compressed.
//!
//! Owns what could differ between two builds: order, times, owners, the compressor's header. No time of a file is
//! kept: all are the epoch's.

use std::collections::BTreeMap;
use std::io::Write as _;

use anyhow::{Context as _, Result};
use flate2::{Compression, GzBuilder};
use sha2::{Digest as _, Sha256};
use tar::{EntryType, Header};

/// Who runs in every image: the number that distroless images made usual for "nobody in particular".
pub(super) const USER: u32 = 65_532;

/// A finished layer.
#[derive(Debug)]
pub(super) struct Layer {
    /// As it is stored.
    pub(super) bytes: Vec<u8>,
    /// `sha256:…` of the stored bytes.
    pub(super) digest: String,
    /// `sha256:…` of the archive within.
    pub(super) diff_id: String,
    /// Length of the archive within.
    pub(super) unpacked_bytes: u64,
}

/// Collects entries; their order does not matter.
#[derive(Debug, Default)]
pub(super) struct Builder {
    entries: BTreeMap<String, Entry>,
}

#[derive(Debug)]
struct Entry {
    kind: EntryType,
    mode: u32,
    owner: u32,
    content: Vec<u8>,
}

impl Builder {
    pub(super) fn new() -> Self {
        Self::default()
    }

    /// Adds a file.
    pub(super) fn file(&mut self, path: &str, mode: u32, content: &[u8]) -> Result<()> {
        self.add(path, EntryType::Regular, mode, 0, content)
    }

    /// Adds a symbolic link.
    pub(super) fn link(&mut self, path: &str, to: &str) -> Result<()> {
        self.add(path, EntryType::Symlink, 0o777, 0, to.as_bytes())
    }

    /// Adds a folder of root's, and those above it.
    pub(super) fn folders_to(&mut self, path: &str) -> Result<()> {
        let mut above = String::new();
        for part in path.split('/') {
            above = if above.is_empty() {
                part.to_owned()
            } else {
                format!("{above}/{part}")
            };
            if !self.entries.contains_key(&format!("{above}/")) {
                self.folder(&above, 0o755, 0)?;
            }
        }
        Ok(())
    }

    /// Adds a folder of the image's user, and those above it.
    pub(super) fn own_folder(&mut self, path: &str) -> Result<()> {
        if let Some((above, _)) = path.rsplit_once('/') {
            self.folders_to(above)?;
        }
        self.folder(path, 0o700, USER)
    }

    /// Adds a folder.
    pub(super) fn folder(&mut self, path: &str, mode: u32, owner: u32) -> Result<()> {
        self.add(&format!("{path}/"), EntryType::Directory, mode, owner, &[])
    }

    fn add(
        &mut self,
        path: &str,
        kind: EntryType,
        mode: u32,
        owner: u32,
        content: &[u8],
    ) -> Result<()> {
        let entry = Entry {
            kind,
            mode,
            owner,
            content: content.to_vec(),
        };
        let before = self.entries.insert(path.to_owned(), entry);
        anyhow::ensure!(before.is_none(), "{path} is twice in a layer");
        Ok(())
    }

    /// Packs what was added.
    pub(super) fn finish(self) -> Result<Layer> {
        let mut archive = tar::Builder::new(Vec::new());
        for (path, entry) in &self.entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(entry.kind);
            header.set_mode(entry.mode);
            header.set_uid(entry.owner.into());
            header.set_gid(entry.owner.into());
            header.set_mtime(0);
            let outcome = if entry.kind == EntryType::Symlink {
                header.set_size(0);
                let to = std::str::from_utf8(&entry.content)?;
                archive.append_link(&mut header, path, to)
            } else {
                header.set_size(entry.content.len() as u64);
                archive.append_data(&mut header, path, entry.content.as_slice())
            };
            outcome.with_context(|| format!("packing {path}"))?;
        }
        let archive = archive.into_inner().context("packing a layer")?;
        // No name and no time in the header: they would differ.
        let mut packed = GzBuilder::new()
            .mtime(0)
            .write(Vec::new(), Compression::new(6));
        packed.write_all(&archive).context("compressing a layer")?;
        let bytes = packed.finish().context("compressing a layer")?;
        Ok(Layer {
            digest: digest(&bytes),
            diff_id: digest(&archive),
            unpacked_bytes: archive.len() as u64,
            bytes,
        })
    }
}

/// `sha256:…` of bytes.
pub(super) fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", sha256_hex(bytes))
}

/// SHA-256 in hexadecimal digits.
pub(super) fn sha256_hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    let mut text = String::new();
    for byte in Sha256::digest(bytes) {
        let _ = write!(text, "{byte:02x}");
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_in_which_files_are_added_does_not_matter() {
        let build = |names: [&str; 2]| {
            let mut layer = Builder::new();
            for name in names {
                layer.file(name, 0o644, name.as_bytes()).unwrap();
            }
            layer.finish().unwrap()
        };
        let (one, other) = (build(["b", "a"]), build(["a", "b"]));
        assert_eq!(one.digest, other.digest);
        assert_eq!(one.diff_id, other.diff_id);
    }

    #[test]
    fn every_folder_above_a_file_is_there_once_and_of_root() {
        let mut layer = Builder::new();
        layer.folders_to("usr/bin").unwrap();
        layer.folders_to("usr/share").unwrap();
        layer.own_folder("var/lib/x").unwrap();
        let bytes = layer.finish().unwrap().bytes;
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(bytes.as_slice()));
        let seen: Vec<(String, u64)> = archive
            .entries()
            .unwrap()
            .map(|entry| {
                let entry = entry.unwrap();
                let path = entry.path().unwrap().display().to_string();
                (path, entry.header().uid().unwrap())
            })
            .collect();
        let expected = [
            ("usr/", 0),
            ("usr/bin/", 0),
            ("usr/share/", 0),
            ("var/", 0),
            ("var/lib/", 0),
            ("var/lib/x/", 65_532),
        ];
        assert_eq!(seen, expected.map(|(path, owner)| (path.to_owned(), owner)));
    }

    #[test]
    fn a_path_that_comes_twice_is_refused() {
        let mut layer = Builder::new();
        layer.file("a", 0o644, b"1").unwrap();
        assert!(layer.file("a", 0o644, b"2").is_err());
    }
}
