//! An OCI image layout: blobs by digest, and an index that names what is on top.
//!
//! Owns the documents of the OCI image specification 1.1 (config, manifest, index, referrers). What is written under
//! a digest has that digest. A layout is written beside the one that it takes the place of, and put there whole.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use super::base::Base;
use super::layer::{self, Layer, USER};
use super::{Arch, Image, version};
use crate::step;

const MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
const INDEX: &str = "application/vnd.oci.image.index.v1+json";
const CONFIG: &str = "application/vnd.oci.image.config.v1+json";
const LAYER: &str = "application/vnd.oci.image.layer.v1.tar+gzip";
const EMPTY: &str = "application/vnd.oci.empty.v1+json";

/// The workspace's `repository`.
const SOURCE: &str = env!("CARGO_PKG_REPOSITORY");

/// One image for one architecture.
#[derive(Debug)]
pub(super) struct Platform<'parts> {
    pub(super) arch: Arch,
    pub(super) image: &'parts Image,
    pub(super) layers: [&'parts Layer; 2],
    pub(super) base: &'parts Base,
}

/// Points to a blob.
#[derive(Debug, Clone)]
pub(super) struct Descriptor {
    media_type: &'static str,
    pub(super) digest: String,
    size: usize,
}

impl Descriptor {
    fn json(&self) -> Value {
        json!({"mediaType": self.media_type, "digest": self.digest, "size": self.size})
    }
}

/// A layout that is being written, beside its place. Dropped unfinished, it leaves nothing.
#[derive(Debug)]
pub(super) struct Layout {
    place: PathBuf,
    partial: PathBuf,
    platforms: Vec<Value>,
    referrers: Vec<Value>,
}

/// One that is whole, and not in its place yet.
#[derive(Debug)]
pub(super) struct Finished {
    /// Of the index: the image's.
    pub(super) digest: String,
    layout: Layout,
}

impl Layout {
    /// Begins one; what is in its place stays there until [`Finished::put_in_place`].
    pub(super) fn create(place: &Path) -> Result<Self> {
        let layout = Self {
            place: place.to_owned(),
            partial: beside(place, "partial")?,
            platforms: Vec::new(),
            referrers: Vec::new(),
        };
        remove(&layout.partial)?; // of a run that was killed
        let blobs = layout.partial.join("blobs/sha256");
        fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
        Ok(layout)
    }

    /// Adds one architecture's image.
    pub(super) fn add_image(&mut self, platform: &Platform<'_>) -> Result<Descriptor> {
        let config = self.put(CONFIG, &serde_json::to_vec(&config(platform)?)?)?;
        let mut layers = Vec::new();
        for layer in platform.layers {
            layers.push(self.put(LAYER, &layer.bytes)?.json());
        }
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "config": config.json(),
            "layers": layers,
            "annotations": labels(platform)?,
        });
        let manifest = self.put(MANIFEST, &serde_json::to_vec(&manifest)?)?;
        let mut entry = manifest.json();
        entry["platform"] = json!({"os": "linux", "architecture": platform.arch.name()});
        if platform.arch == Arch::Arm64 {
            entry["platform"]["variant"] = "v8".into();
        }
        self.platforms.push(entry);
        Ok(manifest)
    }

    /// Adds a document about an image, which registries list as its referrer.
    pub(super) fn add_referrer(
        &mut self,
        subject: &Descriptor,
        media_type: &'static str,
        document: &[u8],
    ) -> Result<()> {
        let empty = self.put(EMPTY, b"{}")?;
        let layer = self.put(media_type, document)?;
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": MANIFEST,
            "artifactType": media_type,
            "config": empty.json(),
            "layers": [layer.json()],
            "subject": subject.json(),
        });
        let manifest = self.put(MANIFEST, &serde_json::to_vec(&manifest)?)?;
        let mut entry = manifest.json();
        entry["artifactType"] = media_type.into();
        self.referrers.push(entry);
        Ok(())
    }

    /// Writes the index, tagged with the version.
    pub(super) fn finish(self, tag: &str) -> Result<Finished> {
        let index = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": self.platforms});
        let index = self.put(INDEX, &serde_json::to_vec(&index)?)?;
        let mut top = index.json();
        top["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let mut manifests = vec![top];
        manifests.extend(self.referrers.iter().cloned());
        let root = json!({"schemaVersion": 2, "mediaType": INDEX, "manifests": manifests});
        self.write("index.json", &serde_json::to_vec(&root)?)?;
        self.write("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        Ok(Finished {
            digest: index.digest,
            layout: self,
        })
    }

    fn put(&self, media_type: &'static str, bytes: &[u8]) -> Result<Descriptor> {
        let hex = layer::sha256_hex(bytes);
        self.write(&format!("blobs/sha256/{hex}"), bytes)?;
        Ok(Descriptor {
            media_type,
            digest: format!("sha256:{hex}"),
            size: bytes.len(),
        })
    }

    fn write(&self, name: &str, bytes: &[u8]) -> Result<()> {
        let path = self.partial.join(name);
        fs::write(&path, bytes).with_context(|| format!("writing {}", path.display()))
    }
}

impl Finished {
    /// Puts it where it belongs. What was there goes then, and comes back where this does not succeed.
    pub(super) fn put_in_place(self) -> Result<()> {
        let Layout { place, partial, .. } = &self.layout;
        let old = beside(place, "old")?;
        remove(&old)?;
        if place.exists() {
            fs::rename(place, &old).with_context(|| format!("moving {}", place.display()))?;
        }
        if let Err(error) = fs::rename(partial, place) {
            let _ = fs::rename(&old, place);
            return Err(error).with_context(|| format!("putting {} in place", place.display()));
        }
        remove(&old)
    }
}

impl Drop for Layout {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.partial);
    }
}

/// `.NAME.WHAT`, in the same folder: a rename must not leave the file system.
fn beside(place: &Path, what: &str) -> Result<PathBuf> {
    let name = place.file_name().context("a layout needs a name")?;
    Ok(place.with_file_name(format!(".{}.{what}", name.display())))
}

fn remove(folder: &Path) -> Result<()> {
    if folder.exists() {
        fs::remove_dir_all(folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    Ok(())
}

impl Platform<'_> {
    /// Bytes as stored, and as unpacked on a node.
    pub(super) fn sizes(&self) -> (u64, u64) {
        let packed = self
            .layers
            .iter()
            .map(|layer| layer.bytes.len() as u64)
            .sum();
        (
            packed,
            self.layers.iter().map(|layer| layer.unpacked_bytes).sum(),
        )
    }
}

fn config(platform: &Platform<'_>) -> Result<Value> {
    let diff_ids: Vec<&str> = platform
        .layers
        .iter()
        .map(|layer| layer.diff_id.as_str())
        .collect();
    let created = created()?;
    let history: Vec<Value> = ["Debian packages", platform.image.binary]
        .iter()
        .map(
            |what| json!({"created": created, "created_by": format!("cargo xtask images: {what}")}),
        )
        .collect();
    let mut config = json!({
        "created": created,
        "os": "linux",
        "architecture": platform.arch.name(),
        "config": {
            "User": format!("{USER}:{USER}"),
            "Env": [
                "PATH=/usr/bin",
                "SSL_CERT_FILE=/etc/ssl/certs/ca-certificates.crt",
            ],
            "Entrypoint": [format!("/usr/bin/{}", platform.image.binary)],
            "WorkingDir": "/",
            "Labels": labels(platform)?,
        },
        "rootfs": {"type": "layers", "diff_ids": diff_ids},
        "history": history,
    });
    if platform.arch == Arch::Arm64 {
        config["variant"] = "v8".into();
    }
    Ok(config)
}

fn labels(platform: &Platform<'_>) -> Result<Value> {
    let mut labels = json!({
        "org.opencontainers.image.title": platform.image.name,
        "org.opencontainers.image.description": platform.image.about,
        "org.opencontainers.image.version": version(),
        "org.opencontainers.image.revision": git(&["rev-parse", "HEAD"])?,
        "org.opencontainers.image.created": created()?,
        "org.opencontainers.image.licenses": "Apache-2.0",
        "org.opencontainers.image.vendor": "Rimward",
        // Not `org.opencontainers.image.base.name` and `.digest`: by the specification they name an image that can be
        // pulled, tools exchange its layers for those of a newer one, and this base is no image.
        "dev.rimward.image.base.system": platform.base.system,
        "dev.rimward.image.base.layer": platform.base.layer.digest,
    });
    // Empty until Cargo.toml says where the source is to be had: a checkout's own remote is nobody else's.
    if !SOURCE.is_empty() {
        labels["org.opencontainers.image.source"] = SOURCE.into();
    }
    Ok(labels)
}

/// When the commit was made, or what `SOURCE_DATE_EPOCH` says, as RFC 3339: never the time of this build.
pub(crate) fn created() -> Result<String> {
    let date = format!("--date=@{}", epoch_seconds()?);
    output("date", &["--utc", &date, "+%Y-%m-%dT%H:%M:%SZ"])
}

/// The same, in seconds since 1970.
pub(crate) fn epoch_seconds() -> Result<u64> {
    let seconds = match std::env::var("SOURCE_DATE_EPOCH") {
        Ok(seconds) => seconds,
        Err(_) => git(&["log", "-1", "--format=%ct"])?,
    };
    let seconds = seconds.trim();
    seconds
        .parse()
        .with_context(|| format!("SOURCE_DATE_EPOCH {seconds:?} is no number of seconds"))
}

fn git(arguments: &[&str]) -> Result<String> {
    output("git", arguments)
}

fn output(program: &str, arguments: &[&str]) -> Result<String> {
    let output = std::process::Command::new(program)
        .args(arguments)
        .current_dir(step::root())
        .output()
        .with_context(|| {
            format!("running {program}, for the commit that the images are made of")
        })?;
    anyhow::ensure!(
        output.status.success(),
        "{program} {}: {}",
        arguments.join(" "),
        String::from_utf8_lossy(&output.stderr).trim()
    );
    Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(place: &Path) -> Option<String> {
        fs::read_to_string(place.join("index.json")).ok()
    }

    fn names(folder: &Path) -> Vec<String> {
        let entries = fs::read_dir(folder).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries
            .map(|entry| name(entry).into_string().unwrap())
            .collect()
    }

    #[test]
    fn the_old_layout_stays_until_the_new_one_is_whole() {
        let folder = std::env::temp_dir().join(format!("rimward-layout-{}", std::process::id()));
        let place = folder.join("image");
        let finish = |tag: &str| Layout::create(&place).unwrap().finish(tag).unwrap();
        finish("one").put_in_place().unwrap();
        let old = read(&place).unwrap();
        assert!(old.contains("one"));

        // Broken off half way, and when all but the last step is done; then by kill -9.
        let layout = Layout::create(&place).unwrap();
        layout.put(CONFIG, b"half").unwrap();
        drop(layout);
        assert_eq!(read(&place).as_ref(), Some(&old));
        drop(finish("two"));
        assert_eq!(read(&place), Some(old));
        assert_eq!(names(&folder), ["image"], "something is left");
        fs::create_dir_all(folder.join(".image.partial/blobs")).unwrap();
        fs::write(folder.join(".image.partial/blobs/half"), "half").unwrap();

        finish("three").put_in_place().unwrap();
        assert!(read(&place).unwrap().contains("three"));
        assert_eq!(names(&folder), ["image"], "something is left");
        assert!(!place.join("blobs/half").exists());
        fs::remove_dir_all(&folder).unwrap();
    }
}
