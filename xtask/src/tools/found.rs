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

/// Finds the binaries of a part that need not be built, by name.
pub(crate) fn on_this_machine(tool: &Tool) -> Vec<(&'static str, PathBuf)> {
    match tool.name {
        "kubernetes" => kubebuilder_assets(),
        "cosign" => cosign_on_path().into_iter().collect(),
        _ => Vec::new(),
    }
}

fn kubebuilder_assets() -> Vec<(&'static str, PathBuf)> {
    let Some(folder) = std::env::var_os("KUBEBUILDER_ASSETS").filter(|value| !value.is_empty())
    else {
        return Vec::new();
    };
    let questions: [(&'static str, &[&str]); 2] = [
        ("kube-apiserver", &["--version"]),
        ("kubectl", &["version", "--client"]),
    ];
    let mut found = Vec::new();
    for (name, question) in questions {
        let path = Path::new(&folder).join(name);
        if !path.is_file() {
            continue;
        }
        match version_of(&path, question) {
            Some((1, minor)) if minor >= KUBERNETES_MINOR_MIN => found.push((name, path)),
            answer => eprintln!(
                "{} is {}, not 1.{KUBERNETES_MINOR_MIN} or newer: left alone",
                path.display(),
                said(answer)
            ),
        }
    }
    found
}

fn cosign_on_path() -> Option<(&'static str, PathBuf)> {
    let path = which("cosign")?;
    match version_of(&path, &["version"]) {
        Some((COSIGN_MAJOR, _)) => Some(("cosign", path)),
        answer => {
            eprintln!(
                "{} is {}, not {COSIGN_MAJOR}: left alone",
                path.display(),
                said(answer)
            );
            None
        }
    }
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
