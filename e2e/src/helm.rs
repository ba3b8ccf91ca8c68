//! The real helm, as one user of one cluster, and the charts of this checkout.
//!
//! Owns where helm keeps its own files: in a folder of the caller's, never in the user's home.

use std::path::{Path, PathBuf};

use anyhow::Result;

use crate::command::{Line, Output};
use crate::fleet::repository_root;
use crate::tools::Tool;

/// What stands for a registry where no image is ever pulled.
pub const NO_REGISTRY: &str = "registry.invalid/rimward";

/// helm with a kubeconfig, or without any cluster.
#[derive(Debug, Clone)]
pub struct Helm {
    program: PathBuf,
    kubeconfig: Option<PathBuf>,
    folder: PathBuf,
}

impl Helm {
    /// helm for a cluster; what it caches lies in `folder`.
    ///
    /// # Errors
    /// When helm is not installed.
    pub fn new(kubeconfig: &Path, folder: &Path) -> Result<Self> {
        Ok(Self {
            kubeconfig: Some(kubeconfig.to_path_buf()),
            ..Self::without_cluster(folder)?
        })
    }

    /// helm for charts alone: it can render and lint.
    ///
    /// # Errors
    /// When helm is not installed.
    pub fn without_cluster(folder: &Path) -> Result<Self> {
        Ok(Self {
            program: Tool::Helm.path()?,
            kubeconfig: None,
            folder: folder.to_path_buf(),
        })
    }

    /// A command line, to add input, a folder or a time to before it is run.
    pub fn line<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Line {
        let own = |name: &str| self.folder.join("helm").join(name);
        let nowhere = own("no.kubeconfig");
        Line::new(&self.program)
            .args(arguments)
            .env("KUBECONFIG", self.kubeconfig.as_ref().unwrap_or(&nowhere))
            .env("HELM_CACHE_HOME", own("cache"))
            .env("HELM_CONFIG_HOME", own("config"))
            .env("HELM_DATA_HOME", own("data"))
    }

    /// Runs it to its end, whichever that is.
    ///
    /// # Errors
    /// When it cannot be run, or does not end in time.
    pub async fn output<A: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<Output> {
        self.line(arguments).output().await
    }

    /// Runs it, and returns standard output.
    ///
    /// # Errors
    /// Also when it fails: quotes what it printed.
    pub async fn run<A: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<String> {
        self.line(arguments).run().await
    }
}

/// A chart of this checkout: `rimward` or `rimward-crds`.
#[must_use]
pub fn chart(name: &str) -> String {
    let path = repository_root().join("charts").join(name);
    path.display().to_string()
}
