//! The images of a release as one archive, for nodes that reach no registry.
//!
//! Owns its names: each image is in it by its tag and by its digest. A chart names digests alone, and a container runtime
//! finds what it has only by the very name that it is asked for. Bills of materials and signatures are not in it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};
use tar::{Builder, EntryType, Header};

use super::layout::{Descriptor, Layout};
use crate::images::version;

/// By this containerd names what it imports (`ctr images import`, K3s's `agent/images`).
const NAME: &str = "io.containerd.image.name";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";

/// Writes it into a folder, the same byte by byte for the same images; gives its place.
///
/// # Errors
/// Where a layout lacks something, or the archive cannot be written.
pub(super) fn write(images: &[(String, &Layout)], folder: &Path) -> Result<PathBuf> {
    let place = folder.join(format!("rimward-{}-images.tar", version()));
    let partial = folder.join(".rimward-images.partial");
    let file = File::create(&partial).with_context(|| format!("writing {}", partial.display()))?;
    let mut archive = Builder::new(file);
    let put = |archive: &mut Builder<File>, path: &str, bytes: &[u8]| {
        let mut header = Header::new_gnu();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(0o644);
        header.set_mtime(0);
        header.set_size(bytes.len() as u64);
        archive
            .append_data(&mut header, path, bytes)
            .with_context(|| format!("packing {path}"))
    };
    put(
        &mut archive,
        "oci-layout",
        br#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    put(
        &mut archive,
        "index.json",
        &serde_json::to_vec(&index(images))?,
    )?;
    let mut blobs = BTreeMap::new();
    for (_, layout) in images {
        for blob in layout.blobs()? {
            blobs.insert(blob.digest.clone(), layout.path(&blob.digest));
        }
    }
    for (digest, path) in blobs {
        let bytes = fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
        put(&mut archive, &inside(&digest), &bytes)?;
    }
    archive
        .into_inner()
        .and_then(|file| file.sync_all())
        .with_context(|| format!("writing {}", partial.display()))?;
    fs::rename(&partial, &place).with_context(|| format!("making {}", place.display()))?;
    Ok(place)
}

fn inside(digest: &str) -> String {
    format!("blobs/{}", digest.replace(':', "/"))
}

fn index(images: &[(String, &Layout)]) -> Value {
    let named = |layout: &Layout, name: String| {
        let Descriptor { digest, size } = &layout.top;
        json!({
            "mediaType": INDEX, "digest": digest, "size": size, "annotations": {NAME: name},
        })
    };
    let manifests: Vec<Value> = images
        .iter()
        .flat_map(|(repository, layout)| {
            [
                named(layout, format!("{repository}:{}", version())),
                named(layout, format!("{repository}@{}", layout.top.digest)),
            ]
        })
        .collect();
    json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests})
}
