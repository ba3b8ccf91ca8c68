//! Container images, put together without a daemon: an OCI layout of one layer with one static program.
//!
//! Owns the pause image, and those of peers; Rimward's own come from `cargo xtask images`.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::Line;
use crate::registry::digest;
use crate::tools::Tool;

/// What the pause image is called on every node. No registry has it.
pub const PAUSE: &str = "rimward.test/pause:1";

/// Makes the pause image as an archive that `ctr images import` takes.
///
/// # Errors
/// When pause is not installed, or a file cannot be written.
pub(crate) async fn pause(folder: &Path) -> Result<PathBuf> {
    of_program(folder, PAUSE, &Tool::Pause.path()?).await
}

/// Makes an image of one static program, as such an archive; files go to `folder`.
///
/// # Errors
/// When a file cannot be read or written.
pub(crate) async fn of_program(folder: &Path, image: &str, program: &Path) -> Result<PathBuf> {
    let from = program.parent().context("the program lies in no folder")?;
    let name = program.file_name().and_then(|name| name.to_str());
    let name = name.context("the program has no name")?;
    let layout = folder.join(format!("{name}-layout"));
    let blobs = layout.join("blobs/sha256");
    fs::create_dir_all(&blobs).with_context(|| format!("making {}", blobs.display()))?;
    let layer = folder.join(format!("{name}-layer.tar"));
    tar(from, &layer, name).await?;
    let layer = fs::read(&layer)?;
    let config = json!({
        "architecture": crate::image_push::architecture(),
        "os": "linux",
        "config": {"Entrypoint": [format!("/{name}")], "User": "65535:65535"},
        "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
    });
    let config = config.to_string();
    let put = |bytes: &[u8], kind: &str| -> Result<Value> {
        let digest = digest(bytes);
        let name = digest.trim_start_matches("sha256:");
        fs::write(blobs.join(name), bytes).with_context(|| format!("writing {name}"))?;
        let kind = format!("application/vnd.oci.image.{kind}");
        Ok(json!({"mediaType": kind, "digest": digest, "size": bytes.len()}))
    };
    let manifest = json!({
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.manifest.v1+json",
        "config": put(config.as_bytes(), "config.v1+json")?,
        "layers": [put(&layer, "layer.v1.tar")?],
    });
    let mut entry = put(manifest.to_string().as_bytes(), "manifest.v1+json")?;
    entry["annotations"] = json!({"io.containerd.image.name": image});
    let index = json!({"schemaVersion": 2, "manifests": [entry]});
    fs::write(layout.join("index.json"), index.to_string())?;
    fs::write(
        layout.join("oci-layout"),
        r#"{"imageLayoutVersion":"1.0.0"}"#,
    )?;
    let archive = folder.join(format!("{name}.tar"));
    tar(&layout, &archive, ".").await?;
    Ok(archive)
}

async fn tar(from: &Path, archive: &Path, what: &str) -> Result<()> {
    let (from, archive) = (from.display().to_string(), archive.display().to_string());
    let owner = ["--owner=0", "--group=0", "--numeric-owner"];
    let line = Line::new(Path::new("tar")).args(owner);
    line.args(["-C", &from, "-cf", &archive, what])
        .run()
        .await?;
    Ok(())
}
