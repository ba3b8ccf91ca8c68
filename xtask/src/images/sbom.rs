//! What is inside an image, as an SPDX 2.3 document (<https://spdx.github.io/spdx-spec/v2.3/>).
//!
//! Owns the list: the crates that are linked into that binary for that target, and the Debian packages of the base.
//! Never lists what only a build used.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::base::Base;
use super::debian::Package;
use super::{Arch, Image, layer, layout, version};
use crate::step;

/// What the document is called in registries.
pub(super) const MEDIA_TYPE: &str = "application/spdx+json";

/// A crate that is linked in.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Crate {
    name: String,
    version: String,
    licence: String,
}

/// Writes the document of one image.
///
/// # Errors
/// Where cargo cannot tell what the binary is made of.
pub(super) fn document(image: &Image, arch: Arch, base: &Base, binary: &Path) -> Result<Vec<u8>> {
    let bytes = std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    let digest = layer::sha256_hex(&bytes);
    let lock = step::root().join("Cargo.lock");
    let lock = std::fs::read_to_string(lock).context("reading Cargo.lock")?;
    let checksums = checksums(&lock);
    let root = "SPDXRef-binary";
    let mut packages = vec![json!({
        "SPDXID": root,
        "name": image.binary,
        "versionInfo": version(),
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "Apache-2.0",
        "licenseDeclared": "Apache-2.0",
        "primaryPackagePurpose": "APPLICATION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": digest}],
    })];
    packages.extend(
        crates(image, arch)?
            .iter()
            .map(|it| crate_json(it, &checksums)),
    );
    packages.extend(
        base.packages
            .iter()
            .map(|package| debian_json(package, arch)),
    );
    let mut relationships = vec![relation("SPDXRef-DOCUMENT", "DESCRIBES", root)];
    for package in &packages[1..] {
        let id = package["SPDXID"].as_str().unwrap_or_default();
        relationships.push(relation(root, "DEPENDS_ON", id));
    }
    let document = json!({
        "spdxVersion": "SPDX-2.3",
        "dataLicense": "CC0-1.0",
        "SPDXID": "SPDXRef-DOCUMENT",
        "name": format!("{} {} {}", image.name, version(), arch.name()),
        "documentNamespace": format!("https://rimward.dev/spdx/{}/{}/{}/{digest}", image.name, version(), arch.name()),
        "creationInfo": {
            "created": layout::created()?,
            "creators": [format!("Tool: cargo-xtask-images-{}", version()), "Organization: Rimward"],
        },
        "packages": packages,
        "relationships": relationships,
    });
    Ok(serde_json::to_vec_pretty(&document)?)
}

fn relation(from: &str, kind: &str, to: &str) -> Value {
    json!({"spdxElementId": from, "relationshipType": kind, "relatedSpdxElement": to})
}

fn crate_json(it: &Crate, checksums: &BTreeMap<(String, String), String>) -> Value {
    let checksum = checksums.get(&(it.name.clone(), it.version.clone()));
    let mut package = json!({
        "SPDXID": format!("SPDXRef-crate-{}-{}", id(&it.name), id(&it.version)),
        "name": it.name,
        "versionInfo": it.version,
        // Ours have no checksum in Cargo.lock, and are published nowhere.
        "downloadLocation": match checksum {
            Some(_) => format!("https://crates.io/crates/{}/{}", it.name, it.version),
            None => "NOASSERTION".to_owned(),
        },
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": expression(&it.licence),
        "externalRefs": [purl(&format!("pkg:cargo/{}@{}", it.name, it.version))],
    });
    if let Some(checksum) = checksum {
        package["checksums"] = json!([{"algorithm": "SHA256", "checksumValue": checksum}]);
    }
    package
}

fn debian_json(package: &Package, arch: Arch) -> Value {
    let version = package.version.replace('+', "%2B").replace('~', "%7E");
    json!({
        "SPDXID": format!("SPDXRef-deb-{}", id(&package.name)),
        "name": package.name,
        "versionInfo": package.version,
        "downloadLocation": "NOASSERTION",
        "filesAnalyzed": false,
        "licenseConcluded": "NOASSERTION",
        "licenseDeclared": "NOASSERTION",
        "checksums": [{"algorithm": "SHA256", "checksumValue": package.sha256}],
        "externalRefs": [purl(&format!("pkg:deb/debian/{}@{version}?arch={}", package.name, arch.name()))],
    })
}

fn purl(locator: &str) -> Value {
    json!({
        "referenceCategory": "PACKAGE-MANAGER",
        "referenceType": "purl",
        "referenceLocator": locator,
    })
}

/// An identifier has letters, digits, dots and hyphens only.
fn id(text: &str) -> String {
    let legal = |it: char| it.is_ascii_alphanumeric() || it == '.' || it == '-';
    text.chars()
        .map(|it| if legal(it) { it } else { '-' })
        .collect()
}

/// Older crates write a slash for "or".
fn expression(licence: &str) -> String {
    if licence.is_empty() {
        return "NOASSERTION".to_owned();
    }
    licence.replace(" / ", " OR ").replace('/', " OR ")
}

fn crates(image: &Image, arch: Arch) -> Result<BTreeSet<Crate>> {
    let mut cargo = step::cargo(&["tree", "--locked", "--prefix", "none", "--no-dedupe"]);
    let output = cargo
        .args(["--edges", "normal,no-proc-macro", "--format", "{p}\t{l}"])
        .args(["--package", image.package, "--target", arch.target()])
        .output()
        .context("running cargo tree")?;
    ensure!(
        output.status.success(),
        "cargo tree: {}",
        String::from_utf8_lossy(&output.stderr).trim()
    );
    let crates = parse(&String::from_utf8_lossy(&output.stdout));
    ensure!(
        !crates.is_empty(),
        "cargo tree names no crate of {}",
        image.package
    );
    Ok(crates)
}

/// Lines `name vVERSION (path)<TAB>licence`.
fn parse(tree: &str) -> BTreeSet<Crate> {
    let parse = |line: &str| {
        let (package, licence) = line.split_once('\t')?;
        let mut words = package.split_whitespace();
        Some(Crate {
            name: words.next()?.to_owned(),
            version: words.next()?.strip_prefix('v')?.to_owned(),
            licence: licence.trim().to_owned(),
        })
    };
    tree.lines().filter_map(parse).collect()
}

/// Checksums of Cargo.lock by name and version.
fn checksums(lock: &str) -> BTreeMap<(String, String), String> {
    let value = |block: &str, key: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(key))?;
        Some(
            line.trim()
                .trim_start_matches('=')
                .trim()
                .trim_matches('"')
                .to_owned(),
        )
    };
    lock.split("[[package]]")
        .filter_map(|block| {
            let checksum = value(block, "checksum ")?;
            Some((
                (value(block, "name ")?, value(block, "version ")?),
                checksum,
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_gives_each_crate_once_with_its_licence() {
        let tree =
            "a v1.0.0 (/x/a)\tApache-2.0\nb v0.2.1\tMIT/Apache-2.0\nb v0.2.1\tMIT/Apache-2.0\n\n";
        let crates = parse(tree);
        assert_eq!(crates.len(), 2);
        let b = crates.iter().find(|it| it.name == "b").unwrap();
        assert_eq!(
            (b.version.as_str(), expression(&b.licence).as_str()),
            ("0.2.1", "MIT OR Apache-2.0")
        );
    }

    #[test]
    fn checksums_come_from_the_lock_file() {
        let lock = "[[package]]\nname = \"a\"\nversion = \"1.0.0\"\nchecksum = \"ff\"\n\n[[package]]\nname = \"own\"\nversion = \"0.1.0\"\n";
        let checksums = checksums(lock);
        assert_eq!(checksums.len(), 1);
        assert_eq!(checksums[&("a".to_owned(), "1.0.0".to_owned())], "ff");
    }
}
