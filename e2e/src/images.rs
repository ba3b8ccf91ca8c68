//! Rimward's own container images, as `cargo xtask images` wrote them.
//!
//! Owns finding them and looking inside, by the OCI image specification. Never builds one.

use std::io::Read as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use crate::registry::digest;

/// Names the folder of layouts that `cargo xtask test` has built.
const FOLDER: &str = "RIMWARD_IMAGES";
/// What an unpacked layer has at most: more is no image of ours.
const LAYER_BYTES_MAX: u64 = 2 << 30;

/// Every image, and the binary that it starts.
pub const IMAGES: [(&str, &str); 3] = [
    ("rimward-operator", "rimward-operator"),
    ("rimward-node-agent", "rimward-node-agent"),
    ("rimward-cli", "kubectl-rimward"),
];

/// The folder that has a layout for each image.
///
/// # Errors
/// When there is none: says which command makes it.
pub fn folder() -> Result<PathBuf> {
    let folder = match std::env::var_os(FOLDER).filter(|value| !value.is_empty()) {
        Some(folder) => PathBuf::from(folder),
        None => crate::rimward::folder()?.join("../images"),
    };
    for (name, _) in IMAGES {
        ensure!(
            folder.join(name).join("index.json").is_file(),
            "there is no image {name} in {} ({FOLDER} can name another place): `cargo xtask images --profile dev` makes it",
            folder.display()
        );
    }
    Ok(folder)
}

/// One layout.
#[derive(Debug)]
pub struct Layout {
    folder: PathBuf,
}

/// A file of a layer.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its path, without a slash before it.
    pub path: String,
    /// Who owns it.
    pub owner: u64,
    /// Its permissions.
    pub mode: u32,
    /// Whether it is a plain file.
    pub is_file: bool,
    /// Whether it is a folder.
    pub is_folder: bool,
}

impl Layout {
    /// The layout of an image.
    ///
    /// # Errors
    /// As [`folder`].
    pub fn of(name: &str) -> Result<Self> {
        Ok(Self {
            folder: folder()?.join(name),
        })
    }

    /// What is on top: the index of images.
    ///
    /// # Errors
    /// When `index.json` does not name it.
    pub fn index(&self) -> Result<Value> {
        let path = self.folder.join("index.json");
        let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        let root: Value = serde_json::from_slice(&text)?;
        let entries = root["manifests"].as_array().cloned().unwrap_or_default();
        let named = |entry: &Value| !entry["annotations"].is_null();
        entries
            .into_iter()
            .find(named)
            .with_context(|| format!("{} names no image", path.display()))
    }

    /// A blob's bytes, which have the digest by which they are asked for.
    ///
    /// # Errors
    /// When they have not, or are not there.
    pub fn blob(&self, wanted: &str) -> Result<Vec<u8>> {
        let path = self
            .folder
            .join("blobs/sha256")
            .join(wanted.trim_start_matches("sha256:"));
        let bytes = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        ensure!(
            digest(&bytes) == wanted,
            "{} has another digest",
            path.display()
        );
        Ok(bytes)
    }

    /// A blob that is JSON.
    ///
    /// # Errors
    /// As [`Layout::blob`].
    pub fn json(&self, wanted: &Value) -> Result<Value> {
        let wanted = wanted["digest"].as_str().unwrap_or_default();
        Ok(serde_json::from_slice(&self.blob(wanted)?)?)
    }

    /// A layer's archive, unpacked from its compression.
    ///
    /// # Errors
    /// When it is not there, damaged, or larger than any of ours.
    pub fn archive(&self, layer: &Value) -> Result<Vec<u8>> {
        let packed = self.blob(layer["digest"].as_str().unwrap_or_default())?;
        let mut archive = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice())
            .take(LAYER_BYTES_MAX)
            .read_to_end(&mut archive)
            .context("a layer is damaged")?;
        Ok(archive)
    }
}

/// Every entry of a layer's archive, in its order.
///
/// # Errors
/// When it is damaged.
pub fn entries(archive: &[u8]) -> Result<Vec<Entry>> {
    tar::Archive::new(archive)
        .entries()?
        .map(|entry| {
            let entry = entry?;
            let header = entry.header();
            Ok(Entry {
                path: entry.path()?.display().to_string(),
                owner: header.uid()?,
                mode: header.mode()?,
                is_file: header.entry_type().is_file(),
                is_folder: header.entry_type().is_dir(),
            })
        })
        .collect()
}

/// Unpacks an image for one kind of processor into a folder, as a node would.
///
/// # Errors
/// When the image has no such kind, or a file cannot be written.
pub fn unpack(name: &str, arch: &str, into: &Path) -> Result<()> {
    let layout = Layout::of(name)?;
    let index = layout.json(&layout.index()?)?;
    let entries = index["manifests"].as_array().cloned().unwrap_or_default();
    let entry = entries
        .iter()
        .find(|entry| entry["platform"]["architecture"] == arch)
        .with_context(|| format!("the image {name} is not there for {arch}"))?;
    let manifest = layout.json(entry)?;
    for layer in manifest["layers"].as_array().cloned().unwrap_or_default() {
        let archive = layout.archive(&layer)?;
        let mut archive = tar::Archive::new(archive.as_slice());
        archive.set_preserve_permissions(true);
        archive
            .unpack(into)
            .with_context(|| format!("unpacking {name} into {}", into.display()))?;
    }
    Ok(())
}
