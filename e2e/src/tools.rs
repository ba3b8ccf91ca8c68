//! Where the real parts lie.
//!
//! Owns the look-up only: `cargo xtask tools` installs them. First the environment variable that
//! `cargo xtask` hands over, then the cache.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

const VERSIONS: &str = include_str!("../tools/versions.txt");

/// One binary of the installed parts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tool {
    /// The Kubernetes API server.
    KubeApiserver,
    /// Kubernetes' own controllers.
    KubeControllerManager,
    /// kubectl, of the same version as the API server.
    Kubectl,
    /// Chooses nodes for pods.
    KubeScheduler,
    /// Runs the pods of a node.
    Kubelet,
    /// Makes Services reach their pods on a node.
    KubeProxy,
    /// Names of Services.
    Coredns,
    /// Holds the namespaces of a pod.
    Pause,
    /// SQLite behind the API server.
    Kine,
    /// Signs and verifies packages.
    Cosign,
    /// A registry with the referrers API.
    Registry,
    /// A registry without it.
    DockerRegistry,
    /// Installs charts.
    Helm,
    /// Copies images into a registry.
    Oras,
    /// cert-manager's controller, to measure beside.
    CertManager,
}

impl Tool {
    /// The binary's name, and the part in `versions.txt` that it comes with.
    const fn names(self) -> (&'static str, &'static str) {
        match self {
            Self::KubeApiserver => ("kube-apiserver", "kubernetes"),
            Self::KubeControllerManager => ("kube-controller-manager", "kubernetes"),
            Self::Kubectl => ("kubectl", "kubernetes"),
            Self::KubeScheduler => ("kube-scheduler", "kubernetes-node"),
            Self::Kubelet => ("kubelet", "kubernetes-node"),
            Self::KubeProxy => ("kube-proxy", "kubernetes-node"),
            Self::Coredns => ("coredns", "coredns"),
            Self::Pause => ("pause", "pause"),
            Self::Kine => ("kine", "kine"),
            Self::Cosign => ("cosign", "cosign"),
            Self::Registry => ("registry", "registry"),
            Self::DockerRegistry => ("docker-registry", "docker-registry"),
            Self::Helm => ("helm", "helm"),
            Self::Oras => ("oras", "oras"),
            Self::CertManager => ("cert-manager-controller", "cert-manager"),
        }
    }

    /// Its version, as `versions.txt` pins it.
    ///
    /// # Errors
    /// When that names none.
    pub fn version(self) -> Result<&'static str> {
        version(self.names().1)
    }

    /// Finds the binary.
    ///
    /// # Errors
    /// When it is not installed: says where it was looked for and which command installs it.
    pub fn path(self) -> Result<PathBuf> {
        let (binary, part) = self.names();
        let variable = format!("RIMWARD_TOOLS_{}", binary.to_uppercase().replace('-', "_"));
        let path = match std::env::var_os(&variable) {
            Some(path) => PathBuf::from(path),
            None => cache()?
                .join(format!("{part}-{}", version(part)?))
                .join(binary),
        };
        if !path.is_file() {
            bail!(
                "{binary} is not at {} ({variable} can name another place); \
                 `cargo xtask tools --only {part}` installs it",
                path.display()
            );
        }
        Ok(path)
    }
}

fn cache() -> Result<PathBuf> {
    match std::env::var_os("RIMWARD_CACHE").filter(|value| !value.is_empty()) {
        Some(folder) => Ok(std::path::absolute(folder)?),
        None => Ok(std::env::home_dir()
            .context("there is no home folder to look for built tools in: set RIMWARD_CACHE")?
            .join(".cache/rimward/tools")),
    }
}

fn version(part: &str) -> Result<&'static str> {
    VERSIONS
        .lines()
        .filter_map(|line| line.split_once(' '))
        .find_map(|(name, version)| (name == part).then_some(version.trim()))
        .with_context(|| format!("e2e/tools/versions.txt names no version of {part}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_tool_has_a_version() {
        for tool in [
            Tool::KubeApiserver,
            Tool::KubeControllerManager,
            Tool::Kubectl,
            Tool::KubeScheduler,
            Tool::Kubelet,
            Tool::KubeProxy,
            Tool::Coredns,
            Tool::Pause,
            Tool::Kine,
            Tool::Cosign,
            Tool::Registry,
            Tool::DockerRegistry,
            Tool::Helm,
            Tool::Oras,
            Tool::CertManager,
        ] {
            assert!(!version(tool.names().1).unwrap().is_empty());
        }
    }
}
