//! Do the package config and the manifest tell of the same files?

use crate::manifest::{FileLayer, Manifest};
use crate::package::config::PackageConfig;
use crate::package::path::FilePath;
use rimward_core::ids::Digest;

/// Says what disagrees. Both are signed through the manifest's digest; this finds a package built wrong.
pub(crate) fn agree(manifest: &Manifest, config: &PackageConfig) -> Result<(), String> {
    let module = config
        .module
        .as_ref()
        .map(|module| (&module.file, module.digest));
    one("module", manifest.module.as_ref(), module)?;
    let golden = config
        .golden_vectors
        .as_ref()
        .map(|golden| (&golden.file, golden.digest));
    one("goldenVectors", manifest.golden.as_ref(), golden)?;
    for (index, variant) in config.variants.iter().enumerate() {
        let named = |layer: &&FileLayer| {
            layer.path == variant.file && layer.descriptor.digest == variant.digest
        };
        if !manifest.weights.iter().any(|layer| named(&layer)) {
            return Err(format!(
                "package config: field variants[{index}]: the manifest has no weights {} with {}",
                variant.file, variant.digest
            ));
        }
    }
    let unused = |layer: &&FileLayer| {
        !config
            .variants
            .iter()
            .any(|variant| variant.file == layer.path)
    };
    if let Some(layer) = manifest.weights.iter().find(unused) {
        return Err(format!(
            "package config: field variants: none uses the manifest's weights {}",
            layer.path
        ));
    }
    Ok(())
}

fn one(
    field: &str,
    layer: Option<&FileLayer>,
    named: Option<(&FilePath, Digest)>,
) -> Result<(), String> {
    match (layer, named) {
        (None, None) => Ok(()),
        (Some(layer), Some((path, digest)))
            if layer.path == *path && layer.descriptor.digest == digest =>
        {
            Ok(())
        }
        (Some(layer), None) => Err(format!(
            "package config: field {field}: is missing, the manifest has {}",
            layer.path
        )),
        (_, Some((path, digest))) => Err(format!(
            "package config: field {field}: the manifest has no such layer {path} with {digest}"
        )),
    }
}
