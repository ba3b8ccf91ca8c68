//! Rimward's images, pushed to a registry of a story.
//!
//! Owns that alone: [`crate::images`] finds them, and a release pushes by `cargo xtask release`.

use anyhow::{Context, Result};
use serde_json::Value;

use crate::images::Layout;
use crate::registry::{Registry, digest};

/// An index in an index in an index is nobody's image.
const DEPTH_MAX: usize = 3;

/// Pushes an image's manifest for this machine's processor as `rimward/NAME`; gives its digest.
///
/// # Errors
/// When it was not made, or the registry refuses it.
pub async fn push(registry: &Registry, name: &str) -> Result<String> {
    let layout = Layout::of(name)?;
    let mut entry = layout.index()?;
    let mut bytes = Vec::new();
    let mut manifest = Value::Null;
    for _ in 0..DEPTH_MAX {
        bytes = layout.blob(entry["digest"].as_str().context("no digest")?)?;
        manifest = serde_json::from_slice(&bytes)?;
        let Some(entries) = manifest["manifests"].as_array() else {
            break;
        };
        let fitting = entries.iter().find(|entry| is_for_here(entry));
        entry = fitting
            .with_context(|| format!("no image for here in {manifest}"))?
            .clone();
    }
    let repository = format!("rimward/{name}");
    let layers = manifest["layers"].as_array().context("no layers")?;
    for part in layers.iter().chain([&manifest["config"]]) {
        let digest = part["digest"].as_str().context("no digest")?;
        registry
            .push_blob(&repository, &layout.blob(digest)?)
            .await?;
    }
    let digest = digest(&bytes);
    registry
        .push_manifest_bytes(&repository, &digest, bytes)
        .await
}

/// What is for no platform is for all; what refers to an image (an SBOM) is none.
fn is_for_here(entry: &Value) -> bool {
    let platform = &entry["platform"]["architecture"];
    entry["artifactType"].is_null() && (platform.is_null() || *platform == architecture())
}

/// This machine's processor, as images name it.
pub(crate) fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}
