//! Charts as they are released: a copy of each, which knows the registry and the digests of its images.
//!
//! Owns which values are filled in, in the text of `values.yaml`, so that its comments stay. The charts of the source
//! tree are never changed.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_yaml::Value;

use super::registry::succeed;
use crate::images::{self, version};
use crate::step;
use crate::tools::Installed;

/// Every chart.
const CHARTS: &[&str] = &["rimward", "rimward-crds"];
/// The chart that pulls images.
const WITH_IMAGES: &str = "rimward";

/// Where the chart wants the digest of an image.
const DIGESTS: &[(&[&str], &str)] = &[
    (&["hub", "image", "digest"], "rimward-operator"),
    (&["edge", "image", "digest"], "rimward-operator"),
    (&["agent", "image", "digest"], "rimward-node-agent"),
    (&["test", "image", "digest"], "rimward-cli"),
];

/// A chart that is packed.
#[derive(Debug)]
pub(super) struct Package {
    pub(super) folder: PathBuf,
    /// Files in that folder: the archive, and what the chart says of itself, as JSON.
    pub(super) content: String,
    pub(super) config: String,
    pub(super) annotations: Vec<(&'static str, String)>,
}

/// Packs every chart; gives them by name.
///
/// # Errors
/// Where a chart has no place for what is filled in, or helm refuses it.
pub(super) fn package(
    parts: &Installed,
    registry: &str,
    digests: &[(&str, &str)],
    work: &Path,
) -> Result<Vec<(&'static str, Package)>> {
    let folder = work.join("charts");
    if folder.exists() {
        fs::remove_dir_all(&folder).with_context(|| format!("removing {}", folder.display()))?;
    }
    let helm = parts.path("helm")?;
    let mut packages = Vec::new();
    for &name in CHARTS {
        let chart = folder.join(name);
        copy(&step::root().join("charts").join(name), &chart)?;
        if name == WITH_IMAGES {
            let file = chart.join("values.yaml");
            let values =
                fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
            let values = filled_in(&values, registry, digests)?;
            fs::write(&file, values).with_context(|| format!("writing {}", file.display()))?;
        }
        packages.push((name, pack(helm, &chart, &folder)?));
    }
    Ok(packages)
}

fn pack(helm: &Path, chart: &Path, folder: &Path) -> Result<Package> {
    // Helm notes in the archive when each file was written.
    let written = std::time::UNIX_EPOCH + std::time::Duration::from_secs(images::epoch_seconds()?);
    age(chart, written)?;
    let mut command = Command::new(helm);
    command.args([
        "package",
        "--version",
        version(),
        "--app-version",
        version(),
    ]);
    succeed(command.arg(chart).arg("--destination").arg(folder))?;
    let name = chart.file_name().unwrap_or_default().to_string_lossy();
    let content = format!("{name}-{}.tgz", version());
    let mut command = Command::new(helm);
    let shown = succeed(command.args(["show", "chart"]).arg(folder.join(&content)))?;
    let about: Value = serde_yaml::from_slice(&shown.stdout).context("reading Chart.yaml")?;
    let config = format!("{name}.json");
    let path = folder.join(&config);
    fs::write(&path, serde_json::to_vec(&about)?)
        .with_context(|| format!("writing {}", path.display()))?;
    let description = about["description"].as_str().unwrap_or_default();
    let annotations = vec![
        ("org.opencontainers.image.title", name.into_owned()),
        ("org.opencontainers.image.version", version().to_owned()),
        (
            "org.opencontainers.image.description",
            description.to_owned(),
        ),
        ("org.opencontainers.image.created", images::created()?),
    ];
    Ok(Package {
        folder: folder.to_owned(),
        content,
        config,
        annotations,
    })
}

fn filled_in(values: &str, registry: &str, digests: &[(&str, &str)]) -> Result<String> {
    let mut text = set(values, &["image", "registry"], registry)?;
    for (path, image) in DIGESTS {
        let (_, digest) = digests
            .iter()
            .find(|(name, _)| name == image)
            .with_context(|| format!("there is no image {image} for the chart"))?;
        text = set(&text, path, digest)?;
    }
    Ok(text)
}

/// Writes a value in place of the one at a path of keys, and changes no other line.
fn set(text: &str, path: &[&str], value: &str) -> Result<String> {
    let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
    let mut inside = 0;
    let mut found = None;
    for (number, line) in lines.iter().enumerate() {
        let words = line.trim_start();
        if words.is_empty() || words.starts_with('#') {
            continue;
        }
        let depth = (line.len() - words.len()) / 2;
        inside = inside.min(depth);
        if inside == depth && words.starts_with(&format!("{}:", path[depth])) {
            inside += 1;
            if inside == path.len() {
                found = Some(number);
                break;
            }
        }
    }
    let keys = path.join(".");
    let number = found.with_context(|| format!("values.yaml of the chart has no {keys}"))?;
    let indent = "  ".repeat(path.len() - 1);
    lines[number] = format!("{indent}{}: {value:?}", path[path.len() - 1]);
    let text = lines.join("\n") + "\n";
    // YAML's own opinion.
    let parsed: Value = serde_yaml::from_str(&text).context("reading values.yaml")?;
    let there = path.iter().fold(&parsed, |inner, key| &inner[*key]);
    ensure!(there == value, "{keys} of values.yaml could not be set");
    Ok(text)
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    fs::create_dir_all(to).with_context(|| format!("making {}", to.display()))?;
    for path in listed(from)? {
        let to = to.join(path.file_name().unwrap_or_default());
        if path.is_dir() {
            copy(&path, &to)?;
        } else {
            fs::copy(&path, &to).with_context(|| format!("copying {}", path.display()))?;
        }
    }
    Ok(())
}

/// Says of every file that it was written then.
fn age(folder: &Path, written: std::time::SystemTime) -> Result<()> {
    for path in listed(folder)? {
        if path.is_dir() {
            age(&path, written)?;
        } else {
            fs::File::options()
                .append(true)
                .open(&path)
                .and_then(|file| file.set_modified(written))
                .with_context(|| format!("setting the time of {}", path.display()))?;
        }
    }
    Ok(())
}

fn listed(folder: &Path) -> Result<Vec<PathBuf>> {
    fs::read_dir(folder)
        .and_then(|entries| entries.map(|entry| Ok(entry?.path())).collect())
        .with_context(|| format!("reading {}", folder.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const VALUES: &str = "# Top.\nimage:\n  # Where from.\n  registry: \"\"\nhub:\n  image:\n    # Of the image.\n    digest: \"\"\nedge:\n  image:\n    digest: \"\"\n";

    #[test]
    fn a_value_is_set_at_its_path_alone_and_comments_stay() {
        let text = set(VALUES, &["edge", "image", "digest"], "sha256:1").unwrap();
        let expected = VALUES.strip_suffix("\"\"\n").unwrap().to_owned() + "\"sha256:1\"\n";
        assert_eq!(text, expected);
        let text = set(VALUES, &["hub", "image", "digest"], "sha256:1").unwrap();
        assert_eq!(text.matches("sha256:1").count(), 1);
        assert!(text.contains("# Of the image.\n    digest: \"sha256:1\"\nedge"));
    }

    #[test]
    fn a_path_that_is_not_there_is_an_error_that_names_it() {
        for path in [&["agent", "image", "digest"][..], &["image", "digest"][..]] {
            let error = set(VALUES, path, "x").unwrap_err().to_string();
            assert!(error.contains(&path.join(".")), "{error}");
        }
    }

    #[test]
    fn the_chart_has_a_place_for_the_registry_and_every_digest() {
        let file = step::root().join("charts/rimward/values.yaml");
        let values = fs::read_to_string(file).unwrap();
        let digests: Vec<(&str, &str)> = images::IMAGES
            .iter()
            .map(|image| (image.name, "sha256:1"))
            .collect();
        let text = filled_in(&values, "r.example/x", &digests).unwrap();
        assert_eq!(text.matches("\"sha256:1\"").count(), DIGESTS.len());
    }
}
