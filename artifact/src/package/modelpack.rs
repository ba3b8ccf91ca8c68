//! The config object of the CNCF ModelPack specification, `application/vnd.cncf.model.config.v1+json`.
//!
//! Written for other tools that read ModelPack; nothing on a device is decided from it. `createdAt` is left
//! out on purpose: the same folder must give the same digest.

use rimward_core::ids::Digest;
use serde::Serialize;

use super::config::PackageConfig;

#[derive(Serialize)]
struct Config<'a> {
    descriptor: ModelDescriptor<'a>,
    config: Technical<'a>,
    modelfs: ModelFs<'a>,
}

#[derive(Serialize)]
struct ModelDescriptor<'a> {
    family: &'a str,
    name: &'a str,
    version: String,
}

#[derive(Serialize)]
struct Technical<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    format: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    precision: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ModelFs<'a> {
    r#type: &'static str,
    diff_ids: &'a [Digest],
}

/// Writes the config of a package whose layers, in the manifest's order, have these digests.
///
/// Layers are raw files, never compressed, so a layer's diffID is its digest.
///
/// # Errors
/// Only what `serde_json` may report for plain data: none in practice.
pub(crate) fn write(package: &PackageConfig, layers: &[Digest]) -> serde_json::Result<Vec<u8>> {
    let variants = &package.variants;
    serde_json::to_vec(&Config {
        descriptor: ModelDescriptor {
            family: package.family.as_str(),
            name: package.family.as_str(),
            version: package.version.to_string(),
        },
        config: Technical {
            // One value for the whole artifact in ModelPack; its word for several precisions is "mixed".
            format: same(variants.iter().map(|variant| variant.format.as_str())),
            precision: same(variants.iter().map(|variant| variant.precision.as_str()))
                .or(Some("mixed")),
        },
        modelfs: ModelFs {
            r#type: "layers",
            diff_ids: layers,
        },
    })
}

/// The value that all have, if they agree.
fn same<'a>(mut values: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let first = values.next()?;
    values.all(|value| value == first).then_some(first)
}
