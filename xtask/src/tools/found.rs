//! What the machine has already.
//!
//! Owns the judgement whether a found program fits: it is run once for its version, nothing else is
//! asked of it. One that does not fit is named, then left alone.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::table::Tool;

/// The oldest minor version of Kubernetes 1 whose API server is taken: rimward's client library speaks
/// 1.33 to 1.37. The controller manager that is built here may be newer than that server: it runs only
/// controllers for kinds of `v1`.
const KUBERNETES_MINOR_MIN: u32 = 33;

/// cosign 3 writes the signature bundles that devices read; 2 writes others by default.
const COSIGN_MAJOR: u32 = 3;

/// One program that may be there already.
struct Wanted {
    name: &'static str,
    /// What it is asked for its version.
    question: &'static [&'static str],
    fits: fn((u32, u32)) -> bool,
    /// What does fit, for the user.
    asked: &'static str,
}

const KUBERNETES: &[Wanted] = &[
    Wanted {
        name: "kube-apiserver",
        question: &["--version"],
        fits: is_kubernetes,
        asked: "1.33 or newer",
    },
    Wanted {
        name: "kube-controller-manager",
        question: &["--version"],
        fits: is_kubernetes,
        asked: "1.33 or newer",
    },
    Wanted {
        name: "kubectl",
        question: &["version", "--client"],
        fits: is_kubernetes,
        asked: "1.33 or newer",
    },
];

const COSIGN: &[Wanted] = &[Wanted {
    name: "cosign",
    question: &["version"],
    fits: |(major, _)| major == COSIGN_MAJOR,
    asked: "3",
}];

/// Finds the binaries of a part in the folder that `KUBEBUILDER_ASSETS` names: what a user says outright.
pub(crate) fn named_by_the_user(tool: &Tool) -> Vec<(&'static str, PathBuf)> {
    let folder = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty());
    let folder = folder.map(PathBuf::from);
    fitting(wanted(tool), |name| {
        let file = folder.as_ref()?.join(name);
        file.is_file().then_some(file)
    })
}

/// Finds the binaries of a part on the PATH.
pub(crate) fn on_the_path(tool: &Tool) -> Vec<(&'static str, PathBuf)> {
    fitting(wanted(tool), which)
}

fn wanted(tool: &Tool) -> &'static [Wanted] {
    match tool.name {
        "kubernetes" => KUBERNETES,
        "cosign" => COSIGN,
        _ => &[],
    }
}

fn fitting(
    wanted: &'static [Wanted],
    find: impl Fn(&str) -> Option<PathBuf>,
) -> Vec<(&'static str, PathBuf)> {
    let mut found = Vec::new();
    for wanted in wanted {
        let Some(path) = find(wanted.name) else {
            continue;
        };
        match version_of(&path, wanted.question) {
            Some(version) if (wanted.fits)(version) => found.push((wanted.name, path)),
            answer => eprintln!(
                "{} is {}, not {}: left alone",
                path.display(),
                said(answer),
                wanted.asked
            ),
        }
    }
    found
}

fn is_kubernetes((major, minor): (u32, u32)) -> bool {
    major == 1 && minor >= KUBERNETES_MINOR_MIN
}

/// Finds a program on the PATH.
pub(crate) fn which(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
}

fn version_of(program: &Path, question: &[&str]) -> Option<(u32, u32)> {
    let output = Command::new(program).args(question).output().ok()?;
    // cosign prints a banner around it, and older ones print it on stderr.
    parse_version(&String::from_utf8_lossy(&output.stdout))
        .or_else(|| parse_version(&String::from_utf8_lossy(&output.stderr)))
}

/// Takes major and minor from the first word that looks like `v1.36.3`.
pub(crate) fn parse_version(text: &str) -> Option<(u32, u32)> {
    text.split_whitespace().find_map(|word| {
        let mut numbers = word.strip_prefix('v')?.split('.');
        Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
    })
}

fn said(version: Option<(u32, u32)>) -> String {
    match version {
        Some((major, minor)) => format!("version {major}.{minor}"),
        None => "of a version that it does not tell".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_fits_is_taken_and_what_does_not_is_left_alone() {
        let folder = std::env::temp_dir().join(format!("rimward-found-{}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        for (name, says) in [
            ("kube-apiserver", "Kubernetes v1.32.9"),
            ("kubectl", "Client Version: v1.34.1"),
        ] {
            let path = folder.join(name);
            std::fs::write(&path, format!("#!/bin/sh\necho {says}\n")).unwrap();
            let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
            std::fs::set_permissions(&path, mode).unwrap();
        }
        let found = fitting(KUBERNETES, |name| {
            let file = folder.join(name);
            file.is_file().then_some(file)
        });
        let names: Vec<&str> = found.iter().map(|(name, _)| *name).collect();
        assert_eq!(names, ["kubectl"]);
        std::fs::remove_dir_all(&folder).unwrap();
    }

    #[test]
    fn versions_are_read_from_what_the_programs_print() {
        assert_eq!(parse_version("Kubernetes v1.36.3\n"), Some((1, 36)));
        let kubectl = "Client Version: v1.33.1\nKustomize Version: v5.6.0\n";
        assert_eq!(parse_version(kubectl), Some((1, 33)));
        let cosign =
            "cosign: A tool for Container Signing\n\nGitVersion:    v2.4.0\nGitCommit: v\n";
        assert_eq!(parse_version(cosign), Some((2, 4)));
        assert_eq!(parse_version("unknown flag: very bad\n"), None);
    }
}
