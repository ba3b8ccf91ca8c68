//! What is in a layout that `cargo xtask images` wrote.
//!
//! Owns reading it: the index that has the version's name, the images it names, and the documents about them. Never
//! changes anything in it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

/// Annotation that names what is on top.
const NAME: &str = "org.opencontainers.image.ref.name";
/// No document of ours comes near.
const DOCUMENT_BYTES_MAX: u64 = 4 << 20;

/// Points to a blob.
#[derive(Debug, Clone)]
pub(super) struct Descriptor {
    pub(super) digest: String,
    pub(super) size: u64,
}

/// A layout, by digests.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) folder: PathBuf,
    /// The image of all architectures.
    pub(super) top: Descriptor,
    images: Vec<String>,
    /// Documents about the images.
    pub(super) referrers: Vec<String>,
}

impl Layout {
    /// Reads one, whose version has to be this.
    ///
    /// # Errors
    /// Where it is absent, or of another version.
    pub(super) fn open(folder: &Path, version: &str) -> Result<Self> {
        let file = folder.join("index.json");
        ensure!(
            file.is_file(),
            "{} is not there: `cargo xtask images` makes it",
            file.display()
        );
        let root = read(&file)?;
        let entries = manifests(&root);
        let named = |entry: &&Value| entry["annotations"][NAME] == version;
        let index = entries.iter().find(named).with_context(|| {
            format!(
                "{} has no image named {version}: `cargo xtask images` makes it anew",
                folder.display()
            )
        })?;
        let top = descriptor(index)?;
        let platforms = read(&blob(folder, &top.digest))?;
        let images = manifests(&platforms).iter().map(digest);
        let referrers = entries
            .iter()
            .filter(|entry| !entry["artifactType"].is_null());
        Ok(Self {
            folder: folder.to_owned(),
            images: images.collect::<Result<_>>()?,
            referrers: referrers.map(digest).collect::<Result<_>>()?,
            top,
        })
    }

    /// What belongs to the index: the images of each architecture, and the documents about them.
    pub(super) fn parts(&self) -> impl Iterator<Item = &String> {
        self.images.iter().chain(&self.referrers)
    }

    /// Where a blob of it is.
    pub(super) fn path(&self, digest: &str) -> PathBuf {
        blob(&self.folder, digest)
    }

    /// All that makes up the image, down to the layers of every architecture; not the documents about it.
    ///
    /// # Errors
    /// Where a manifest cannot be read.
    pub(super) fn blobs(&self) -> Result<Vec<Descriptor>> {
        let mut blobs = vec![self.top.clone()];
        for image in manifests(&read(&self.path(&self.top.digest))?) {
            let image = descriptor(image)?;
            let manifest = read(&self.path(&image.digest))?;
            blobs.push(image);
            let layers = manifest["layers"].as_array().map_or(&[][..], Vec::as_slice);
            for part in layers.iter().chain([&manifest["config"]]) {
                blobs.push(descriptor(part)?);
            }
        }
        Ok(blobs)
    }
}

fn blob(folder: &Path, digest: &str) -> PathBuf {
    let hex = digest.trim_start_matches("sha256:");
    folder.join("blobs/sha256").join(hex)
}

fn descriptor(entry: &Value) -> Result<Descriptor> {
    let size = entry["size"].as_u64();
    Ok(Descriptor {
        digest: digest(entry)?,
        size: size.with_context(|| format!("a layout names {entry} without a size"))?,
    })
}

fn manifests(index: &Value) -> &[Value] {
    index["manifests"].as_array().map_or(&[], Vec::as_slice)
}

fn digest(entry: &Value) -> Result<String> {
    let digest = entry["digest"].as_str().unwrap_or_default();
    ensure!(
        digest.starts_with("sha256:"),
        "a layout names {entry} without a digest"
    );
    Ok(digest.to_owned())
}

fn read(path: &Path) -> Result<Value> {
    let bytes = fs::metadata(path)
        .with_context(|| format!("reading {}", path.display()))?
        .len();
    ensure!(
        bytes <= DOCUMENT_BYTES_MAX,
        "{} has {bytes} bytes: that is no document of an image",
        path.display()
    );
    let text = fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    serde_json::from_slice(&text).with_context(|| format!("{} is no JSON", path.display()))
}
