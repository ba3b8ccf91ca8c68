//! Orders from a folder of manifests: the same agent without Kubernetes.
//!
//! Owns reading the folder, bounded. Each `*.yaml` or `*.yml` file holds one EdgeNode document; their
//! models are taken together, in order of the file names. A file that does not parse, or that says
//! something that nothing reads, is reported, and what was ordered before stays in force. So it does
//! while there is no manifest at all: a stick that is not mounted is no order to remove everything.
//! The last deployment is removed by its entry's `action: Remove`, others also by leaving them out.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rimward_crds::EdgeNode;
use serde_ignored::Path as Ignored;
use tokio::sync::mpsc;

use crate::supervisor::{Covers, Event, Orders};

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
    if !paths.is_empty() {
        orders.covers = Covers::Node;
    }
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
    let mut unread = None;
    let node = serde_ignored::deserialize(strict, |path| {
        let path = dotted(&path);
        if !["apiVersion", "kind"].contains(&path.as_str()) {
            unread.get_or_insert(path);
        }
    })
    .map_err(|error: serde_yaml::Error| error.to_string())?;
    match unread {
        Some(path) => Err(format!("there is no field {path}")),
        None => Ok(node),
    }
}

/// A path as people write it: `spec.models[0].name`.
fn dotted(path: &Ignored<'_>) -> String {
    match path {
        Ignored::Root => String::new(),
        Ignored::Seq { parent, index } => format!("{}[{index}]", dotted(parent)),
        Ignored::Map { parent, key } => match dotted(parent) {
            parent if parent.is_empty() => key.clone(),
            parent => format!("{parent}.{key}"),
        },
        Ignored::Some { parent }
        | Ignored::NewtypeStruct { parent }
        | Ignored::NewtypeVariant { parent } => dotted(parent),
    }
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
    fn a_misspelt_field_is_refused_by_its_path() {
        for (from, to, path) in [
            (
                "    endpointName:",
                "    runtime: {memry: 1}\n    endpointName:",
                "spec.models[0].runtime.memry",
            ),
            ("  models:", "  modles: []\n  models:", "spec.modles"),
            (
                "  name: node-1",
                "  name: node-1\n  anotations: {}",
                "metadata.anotations",
            ),
            ("kind: EdgeNode", "kind: EdgeNode\nspecs: {}", "specs"),
        ] {
            let folder = folder(&[("a.yaml", &GOOD.replace(from, to))]);
            let problem = read(folder.path()).problem.unwrap();
            let words = format!("a.yaml: there is no field {path}");
            assert!(problem.ends_with(&words), "{problem}");
        }
    }

    #[test]
    fn a_folder_without_manifests_orders_nothing_and_one_with_some_speaks_for_the_node() {
        let empty = read(folder(&[("notes.txt", "x")]).path());
        assert_eq!((empty.covers, empty.problem), (Covers::Nothing, None));
        let some = read(folder(&[("a.yaml", GOOD)]).path());
        assert_eq!(some.covers, Covers::Node);
    }

    #[test]
    fn a_folder_that_is_gone_is_a_problem_and_no_order_to_remove() {
        assert!(read(Path::new("/nonexistent")).problem.is_some());
    }
}
