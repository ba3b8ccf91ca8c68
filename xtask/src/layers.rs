//! `cargo xtask layers`: refuses an import edge that the architecture does not allow.
//!
//! Owns the table of allowed edges between our crates. Development dependencies count too: a test that
//! reaches around a layer is an edge like any other.

use anyhow::{Context, Result, bail};
use cargo_metadata::MetadataCommand;

use crate::step;

/// Each of our crates and those of ours that it may import.
const ALLOWED: &[(&str, &[&str])] = &[
    ("rimward-core", &[]),
    ("rimward-crds", &[]),
    ("rimward-artifact", &["rimward-core"]),
    (
        "rimward-operator",
        &["rimward-core", "rimward-crds", "rimward-artifact"],
    ),
    (
        "rimward-node-agent",
        &["rimward-core", "rimward-crds", "rimward-artifact"],
    ),
    (
        "kubectl-rimward",
        &["rimward-core", "rimward-crds", "rimward-artifact"],
    ),
    // The harness drives the real binaries, so it knows the kinds and nothing of what is inside; its simulated sites
    // decide with core, as real ones do, and core's planner is measured by itself.
    ("rimward-e2e", &["rimward-core", "rimward-crds"]),
    ("xtask", &[]),
];

/// All that `core` may import from others, its tests included: none of these has a clock, I/O, randomness of
/// its own, a cluster or a sandbox. A list of what is allowed, since what is not has no end.
const PURE: &[&str] = &[
    "insta",
    "litemap",
    "proptest",
    "semver",
    "serde",
    "serde_json",
    "thiserror",
];

/// Runs `cargo xtask layers`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        bail!("usage: cargo xtask layers");
    }
    let metadata = MetadataCommand::new()
        .current_dir(step::root())
        .no_deps()
        .exec()
        .context("reading the workspace")?;
    let edges: Vec<(String, String)> = metadata
        .packages
        .iter()
        .flat_map(|package| {
            let from = package.name.to_string();
            package
                .dependencies
                .iter()
                .map(move |dependency| (from.clone(), dependency.name.clone()))
        })
        .collect();
    let wrong = wrong_edges(edges.iter().map(|(from, to)| (from.as_str(), to.as_str())));
    if !wrong.is_empty() {
        bail!(
            "import edges that ARCHITECTURE.md does not allow:\n  {}",
            wrong.join("\n  ")
        );
    }
    eprintln!("==> layers: {} edges, all allowed", edges.len());
    Ok(())
}

/// Says what is wrong with each edge that may not be; edges to crates of others are free but for `core`'s.
fn wrong_edges<'a>(edges: impl Iterator<Item = (&'a str, &'a str)>) -> Vec<String> {
    let ours = |name: &str| ALLOWED.iter().find(|(from, _)| *from == name);
    edges
        .filter_map(|(from, to)| match (ours(from), ours(to)) {
            (None, _) => Some(format!(
                "{from} is not in the table of layers (xtask/src/layers.rs)"
            )),
            (Some((_, allowed)), Some(_)) if !allowed.contains(&to) => {
                Some(format!("{from} may not import {to}"))
            }
            (Some(("rimward-core", _)), None) if !PURE.contains(&to) => Some(format!(
                "{from} may not import {to}: its decisions are pure (xtask/src/layers.rs lists what is)"
            )),
            _ => None,
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(edges: &[(&str, &str)]) -> Vec<String> {
        wrong_edges(edges.iter().copied())
    }

    #[test]
    fn the_allowed_edges_pass() {
        let edges = [
            ("rimward-operator", "rimward-core"),
            ("rimward-core", "serde"),
            ("rimward-operator", "kube"),
        ];
        assert_eq!(check(&edges), [""; 0]);
    }

    #[test]
    fn a_wrong_edge_is_named() {
        assert_eq!(
            check(&[("rimward-core", "rimward-crds")]),
            ["rimward-core may not import rimward-crds"]
        );
        assert_eq!(
            check(&[("rimward-node-agent", "rimward-operator")]),
            ["rimward-node-agent may not import rimward-operator"]
        );
    }

    #[test]
    fn core_imports_no_clock_and_no_cluster() {
        for foreign in [
            "tokio",
            "kube",
            "chrono",
            "rand",
            "a-crate-nobody-knows-yet",
        ] {
            let wrong = check(&[("rimward-core", foreign)]);
            assert_eq!(wrong.len(), 1, "{foreign}");
            assert!(wrong[0].starts_with(&format!("rimward-core may not import {foreign}")));
        }
    }

    #[test]
    fn a_crate_that_the_table_lacks_is_refused() {
        assert_eq!(check(&[("rimward-new", "serde")]).len(), 1);
    }
}
