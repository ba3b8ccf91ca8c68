//! The real kubectl, with one kubeconfig.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::command::{Line, Output};
use crate::rimward;
use crate::tools::Tool;
use crate::wait::{Seen, wait_for};

/// kubectl as one user of one cluster.
#[derive(Debug, Clone)]
pub struct Kubectl {
    program: PathBuf,
    kubeconfig: PathBuf,
    cache: PathBuf,
    path: OsString,
}

impl Kubectl {
    /// kubectl with a kubeconfig; what it caches lies beside that file. `kubectl rimward` works too if the
    /// plugin is built.
    ///
    /// # Errors
    /// When kubectl is not installed.
    pub fn new(kubeconfig: &Path) -> Result<Self> {
        let program = Tool::Kubectl.path()?;
        // kubectl finds plugins on the PATH; the plugin in turn may call kubectl.
        let mut folders: Vec<PathBuf> = program
            .parent()
            .map(Path::to_path_buf)
            .into_iter()
            .collect();
        folders.extend(rimward::folder().ok());
        folders.extend(std::env::split_paths(
            &std::env::var_os("PATH").unwrap_or_default(),
        ));
        Ok(Self {
            program,
            kubeconfig: kubeconfig.to_path_buf(),
            cache: kubeconfig.with_extension("cache"),
            path: std::env::join_paths(folders).context("PATH")?,
        })
    }

    /// The kubeconfig that it uses.
    #[must_use]
    pub fn kubeconfig(&self) -> &Path {
        &self.kubeconfig
    }

    /// A command line, to add input or a time to before it is run.
    pub fn line<A: AsRef<str>>(&self, arguments: impl IntoIterator<Item = A>) -> Line {
        Line::new(&self.program)
            .args(arguments)
            .env("KUBECONFIG", &self.kubeconfig)
            .env("KUBECACHEDIR", &self.cache)
            .env("PATH", &self.path)
            // The user's own kubectl preferences must not change what a story types.
            .env("KUBERC", "off")
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

    /// `kubectl apply -f -` of this text, by server-side apply.
    ///
    /// # Errors
    /// When the API server refuses it: quotes why.
    pub async fn apply(&self, manifest: &str) -> Result<String> {
        self.line(["apply", "--server-side", "-f", "-"])
            .input(manifest)
            .run()
            .await
    }

    /// `kubectl get … -o json`, parsed.
    ///
    /// # Errors
    /// When there is no such object, or the answer is not JSON.
    pub async fn get_json<A: AsRef<str>>(
        &self,
        arguments: impl IntoIterator<Item = A>,
    ) -> Result<serde_json::Value> {
        let line = self.line(["get", "-o", "json"]).args(arguments);
        let text = line.run().await?;
        serde_json::from_str(&text).with_context(|| format!("`{line}` printed no JSON"))
    }

    /// `kubectl wait --for=…`.
    ///
    /// # Errors
    /// When it does not come true in time.
    pub async fn wait(&self, target: &str, condition: &str, within: Duration) -> Result<()> {
        let timeout = format!("--timeout={}s", within.as_secs());
        self.line(["wait", target, &format!("--for={condition}"), &timeout])
            .within(within + Duration::from_secs(30))
            .run()
            .await?;
        Ok(())
    }

    /// Waits until a JSON path of an object has a value.
    ///
    /// # Errors
    /// When it does not in time: says what it has.
    pub async fn wait_for_value(
        &self,
        object: &[&str],
        path: &str,
        value: &str,
        within: Duration,
    ) -> Result<()> {
        let output = format!("jsonpath={{{path}}}");
        let what = format!("{path} of {} to be {value:?}", object.join(" "));
        wait_for(&what, within, async || {
            let seen = self
                .run([&["get"], object, &["-o", &output]].concat())
                .await?;
            Ok(if seen == value {
                Seen::Done(())
            } else {
                Seen::NotYet(seen)
            })
        })
        .await
    }
}
