//! Packages that no tool of ours makes: good ones with one thing changed, as somebody with a registry could push them.

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::device::Package;
use crate::registry::Registry;

/// What a package says when it was tampered with before it was signed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// Its weights are declared with 9 GiB, one more than is accepted.
    TooLarge,
    /// Its first input has another shape than in its golden vectors.
    OtherShape,
}

/// Makes a wrong package out of a good one in the same repository, under another tag; nobody signs it.
///
/// # Errors
/// When the registry refuses, or the good one is not what it should be.
pub async fn tamper(
    registry: &Registry,
    repository: &str,
    tag: &str,
    wrong: Wrong,
) -> Result<Package> {
    let mut manifest = registry.manifest(repository, tag).await?;
    let media = match wrong {
        Wrong::TooLarge => "application/vnd.cncf.model.weight.v1.raw",
        Wrong::OtherShape => "application/vnd.rimward.package.v1+json",
    };
    let layers = manifest["layers"].as_array_mut().into_iter().flatten();
    let layer = layers
        .into_iter()
        .find(|layer| layer["mediaType"] == media)
        .with_context(|| format!("no layer of type {media}"))?;
    match wrong {
        Wrong::TooLarge => layer["size"] = json!(9_u64 << 30),
        Wrong::OtherShape => {
            let digest = layer["digest"].as_str().unwrap_or_default();
            let bytes = registry.blob(repository, digest).await?;
            let mut package: Value = serde_json::from_slice(&bytes)?;
            let shape = package.pointer_mut("/inputs/0/shape");
            *shape.context("a package without inputs")? = json!([-1, 16, 16]);
            let bytes = package.to_string().into_bytes();
            layer["digest"] = json!(registry.push_blob(repository, &bytes).await?);
            layer["size"] = json!(bytes.len());
        }
    }
    let tag = format!("{tag}-{wrong:?}").to_lowercase();
    let digest = registry.push_manifest(repository, &tag, &manifest).await?;
    let repository = format!("{}/{repository}", registry.host());
    Ok(Package::new(&repository, &digest))
}
