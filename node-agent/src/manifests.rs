//! Orders from a folder of manifests: the same agent without Kubernetes.
//!
//! Owns reading the folder, bounded. Each `*.yaml` or `*.yml` file holds one EdgeNode document; their
//! models are taken together, in order of the file names. A file that does not parse is reported, and
//! what was ordered before stays in force.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rimward_crds::EdgeNode;
use tokio::sync::mpsc;

use crate::supervisor::{Event, Orders};

/// Why a hold is in force: the annotation's key, as on the object in a cluster.
pub const HOLD_ANNOTATION: &str = "rimward.dev/hold";
const FILE_BYTES_MAX: u64 = 1 << 20;
const FILES_MAX: usize = 256;

/// Reads the folder once.
#[must_use]
pub fn read(folder: &Path) -> Orders {
    match collect(folder) {
        Ok(orders) => orders,
        Err(problem) => Orders {
            problem: Some(problem),
            ..Orders::default()
        },
    }
}

fn collect(folder: &Path) -> Result<Orders, String> {
    let at = |path: &Path, error: &dyn std::fmt::Display| format!("{}: {error}", path.display());
    let entries = std::fs::read_dir(folder).map_err(|error| at(folder, &error))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|error| at(folder, &error))?.path();
        let hidden = path
            .file_name()
            .and_then(|name| name.to_str())
            .is_none_or(|name| name.starts_with('.'));
        let yaml = path
            .extension()
            .is_some_and(|it| it == "yaml" || it == "yml");
        if yaml && !hidden {
            paths.push(path);
        }
        if paths.len() > FILES_MAX {
            return Err(at(folder, &format!("more than {FILES_MAX} manifests")));
        }
    }
    paths.sort();
    let mut orders = Orders::default();
    for path in paths {
        let node = document(&path).map_err(|error| at(&path, &error))?;
        orders.models.extend(node.spec.models);
        let annotations = node.metadata.annotations.unwrap_or_default();
        if let Some(reason) = annotations.get(HOLD_ANNOTATION) {
            orders
                .hold
                .get_or_insert(reason.chars().take(256).collect());
        }
    }
    Ok(orders)
}

fn document(path: &Path) -> Result<EdgeNode, String> {
    let mut text = String::new();
    File::open(path)
        .and_then(|file| file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text))
        .map_err(|error| error.to_string())?;
    if text.len() as u64 > FILE_BYTES_MAX {
        return Err(format!("more than {FILE_BYTES_MAX} bytes"));
    }
    let strict: serde_yaml::Value =
        serde_yaml::from_str(&text).map_err(|error| error.to_string())?;
    for (field, wanted) in [("apiVersion", "rimward.dev/v1alpha1"), ("kind", "EdgeNode")] {
        let found = strict.get(field).and_then(|value| value.as_str());
        if found != Some(wanted) {
            return Err(format!(
                "{field} is {}, not {wanted}",
                found.unwrap_or("missing")
            ));
        }
    }
    serde_yaml::from_value(strict).map_err(|error| error.to_string())
}

/// Reads the folder again and again and tells when it says something else. It is small; reading it
/// misses nothing, which notification does on some mounts.
pub async fn watch(folder: PathBuf, period: Duration, events: mpsc::Sender<Event>) {
    let mut last = None;
    loop {
        let path = folder.clone();
        let Ok(now) = tokio::task::spawn_blocking(move || read(&path)).await else {
            return;
        };
        if last.as_ref() != Some(&now) {
            if let Some(problem) = &now.problem {
                tracing::error!(problem, "manifests");
            }
            if events.send(Event::Orders(now.clone())).await.is_err() {
                return;
            }
            last = Some(now);
        }
        tokio::time::sleep(period).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "
apiVersion: rimward.dev/v1alpha1
kind: EdgeNode
metadata:
  name: node-1
  annotations: {rimward.dev/hold: harvest}
spec:
  models:
  - namespace: shop
    name: digits
    endpointName: digits
    revision: digits-1
    package:
      repository: registry.example.com/models/digits
      digest: sha256:0000000000000000000000000000000000000000000000000000000000000000
";

    fn folder(files: &[(&str, &str)]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        folder
    }

    #[test]
    fn models_of_every_manifest_are_ordered_and_a_hold_is_read() {
        let second = GOOD.replace("name: digits", "name: other");
        let folder = folder(&[("a.yaml", GOOD), ("b.yml", &second), ("notes.txt", "x")]);
        let orders = read(folder.path());
        assert_eq!(orders.problem, None);
        assert_eq!(orders.models.len(), 2);
        assert_eq!(orders.hold.as_deref(), Some("harvest"));
    }

    #[test]
    fn a_manifest_that_does_not_parse_is_named_and_orders_nothing() {
        for (text, words) in [
            ("kind: [", "a.yaml"),
            ("kind: Pod\napiVersion: v1", "apiVersion is v1"),
            (
                "apiVersion: rimward.dev/v1alpha1\nkind: EdgeNode\nmetadata: {name: n}\nspec: {models: [{name: x}]}",
                "namespace",
            ),
        ] {
            let folder = folder(&[("a.yaml", text)]);
            let problem = read(folder.path()).problem.unwrap();
            assert!(problem.contains(words), "{problem}");
            assert!(problem.contains("a.yaml"), "{problem}");
        }
    }

    #[test]
    fn a_folder_that_is_gone_is_a_problem_and_no_order_to_remove() {
        assert!(read(Path::new("/nonexistent")).problem.is_some());
    }
}
