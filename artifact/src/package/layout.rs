//! Writes a built package as an OCI image layout: a folder that other tools can copy to a registry.

use std::fs;
use std::io;
use std::path::Path;

use serde_json::json;

use super::build::BuiltPackage;
use crate::media;
use crate::registry::BlobSource;

impl BuiltPackage {
    /// Writes `oci-layout`, `index.json` and `blobs/sha256/…` into a folder that is new or empty.
    ///
    /// # Errors
    /// The first file that could not be written; a folder that holds something already.
    pub fn write_layout(&self, dir: &Path) -> io::Result<()> {
        fs::create_dir_all(dir)?;
        if fs::read_dir(dir)?.next().is_some() {
            return Err(io::Error::new(
                io::ErrorKind::AlreadyExists,
                format!("{} is not empty", dir.display()),
            ));
        }
        let blobs = dir.join("blobs/sha256");
        fs::create_dir_all(&blobs)?;
        for blob in &self.blobs {
            let place = blobs.join(blob.digest.hex());
            match &blob.source {
                BlobSource::Bytes(bytes) => fs::write(place, bytes)?,
                BlobSource::File(file) => {
                    let length = fs::copy(file, place)?;
                    if length != blob.size_bytes {
                        return Err(io::Error::other(format!(
                            "{} changed meanwhile",
                            file.display()
                        )));
                    }
                }
            }
        }
        fs::write(blobs.join(self.digest.hex()), &self.manifest_bytes)?;
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media::OCI_INDEX,
            "manifests": [{
                "mediaType": media::OCI_MANIFEST,
                "artifactType": media::MODEL_MANIFEST,
                "digest": self.digest,
                "size": self.manifest_bytes.len(),
                "annotations": {"org.opencontainers.image.ref.name": tag(&self.config.version)},
            }],
        });
        fs::write(dir.join("index.json"), serde_json::to_vec(&index)?)?;
        fs::write(dir.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)
    }
}

/// A version as a tag: semver's `+` is not allowed in tags, and `_` is what Helm writes for it.
fn tag(version: &semver::Version) -> String {
    version.to_string().replace('+', "_")
}
