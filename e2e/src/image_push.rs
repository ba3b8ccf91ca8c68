//! Rimward's images, pushed to a registry of a story.
//!
//! Owns that alone: [`crate::images`] finds them, and a release pushes by `cargo xtask release`.

use anyhow::{Context, Result, bail};
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
    let (layout, bytes) = manifest(name)?;
    let manifest: Value = serde_json::from_slice(&bytes)?;
    let config = layout.blob(manifest["config"]["digest"].as_str().context("no digest")?)?;
    push_parts(registry, name, &layout, bytes, &config).await
}

/// The same image as another release of it: one label more, so that its digest is another.
///
/// # Errors
/// As [`push`].
pub async fn push_relabelled(registry: &Registry, name: &str, label: &str) -> Result<String> {
    let (layout, bytes) = manifest(name)?;
    let mut manifest: Value = serde_json::from_slice(&bytes)?;
    let mut config = layout.json(&manifest["config"])?;
    config["config"]["Labels"]["rimward.dev/test"] = label.into();
    let config = config.to_string().into_bytes();
    manifest["config"]["digest"] = digest(&config).into();
    manifest["config"]["size"] = config.len().into();
    let bytes = manifest.to_string().into_bytes();
    push_parts(registry, name, &layout, bytes, &config).await
}

/// An image's manifest for this machine's processor, byte by byte.
fn manifest(name: &str) -> Result<(Layout, Vec<u8>)> {
    let layout = Layout::of(name)?;
    let mut entry = layout.index()?;
    for _ in 0..DEPTH_MAX {
        let bytes = layout.blob(entry["digest"].as_str().context("no digest")?)?;
        let manifest: Value = serde_json::from_slice(&bytes)?;
        let Some(entries) = manifest["manifests"].as_array() else {
            return Ok((layout, bytes));
        };
        let fitting = entries.iter().find(|entry| is_for_here(entry));
        entry = fitting
            .with_context(|| format!("no image for here in {manifest}"))?
            .clone();
    }
    bail!("{name}: an index in an index, {DEPTH_MAX} deep")
}

async fn push_parts(
    registry: &Registry,
    name: &str,
    layout: &Layout,
    bytes: Vec<u8>,
    config: &[u8],
) -> Result<String> {
    let repository = format!("rimward/{name}");
    let manifest: Value = serde_json::from_slice(&bytes)?;
    for layer in manifest["layers"].as_array().context("no layers")? {
        let digest = layer["digest"].as_str().context("no digest")?;
        registry
            .push_blob(&repository, &layout.blob(digest)?)
            .await?;
    }
    registry.push_blob(&repository, config).await?;
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
