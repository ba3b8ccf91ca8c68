//! Rimward's own binaries, as they were built.
//!
//! Owns finding them, and starting operators and agents. It builds nothing: `cargo xtask demo` and
//! `cargo xtask test` do that first.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail};

use crate::command::Line;
use crate::http;
use crate::kubectl::Kubectl;
use crate::ports::free_port;
use crate::service::{Recipe, Service};

/// Finds one of `rimward-operator`, `rimward-node-agent`, `kubectl-rimward`. `RIMWARD_BIN_RIMWARD_NODE_AGENT` (and so
/// on) names another program: an agent for boards under an emulator, a released one.
///
/// # Errors
/// When it is not built: says where it was looked for and which command builds it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let variable = format!("RIMWARD_BIN_{}", name.to_uppercase().replace('-', "_"));
    let path = match std::env::var_os(&variable).filter(|value| !value.is_empty()) {
        Some(path) => PathBuf::from(path),
        None => folder()?.join(name),
    };
    if !path.is_file() {
        bail!(
            "{name} is not built: `cargo build -p {name}` makes {}",
            path.display()
        );
    }
    Ok(path)
}

/// Finds the folder that cargo put the binaries in: the one of the running program, or above `deps/` for a
/// test.
///
/// # Errors
/// When the running program has no path.
pub fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program has no path")?;
    let folder = program.parent().context("this program has no folder")?;
    Ok(if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_path_buf()
    } else {
        folder.to_path_buf()
    })
}

/// One replica of `rimward-operator`, in either role.
#[derive(Debug)]
pub struct Operator {
    service: Service,
    probes: String,
}

impl Operator {
    /// Starts the hub role as the user of a kubeconfig.
    ///
    /// `more` are further arguments, such as `--plain-http 127.0.0.1:5000`.
    ///
    /// # Errors
    /// When the operator is not built or cannot be started.
    pub fn hub(name: &str, folder: &Path, kubeconfig: &Path, more: &[&str]) -> Result<Self> {
        Self::start(
            "hub",
            name,
            folder,
            kubeconfig,
            more.iter().map(|&word| word.to_owned()),
        )
    }

    /// Starts the edge role for a cluster, with a kubeconfig of that cluster and one of the hub.
    ///
    /// # Errors
    /// When the operator is not built or cannot be started.
    pub fn edge(
        name: &str,
        folder: &Path,
        kubeconfig: &Path,
        cluster: &str,
        hub_kubeconfig: &Path,
        more: &[&str],
    ) -> Result<Self> {
        let own = [
            format!("--cluster={cluster}"),
            format!("--hub-kubeconfig={}", hub_kubeconfig.display()),
        ];
        let more = own
            .into_iter()
            .chain(more.iter().map(|&word| word.to_owned()));
        Self::start("edge", name, folder, kubeconfig, more)
    }

    fn start(
        role: &str,
        name: &str,
        folder: &Path,
        kubeconfig: &Path,
        more: impl Iterator<Item = String>,
    ) -> Result<Self> {
        let listen = format!("127.0.0.1:{}", free_port()?);
        let arguments = [
            role.to_owned(),
            format!("--kubeconfig={}", kubeconfig.display()),
            format!("--listen={listen}"),
            format!("--identity={name}"),
        ];
        let service = Service::start(Recipe {
            name: name.to_owned(),
            program: binary("rimward-operator")?,
            arguments: arguments.into_iter().chain(more).collect(),
            environment: Vec::new(),
            folder: folder.to_path_buf(),
        })?;
        Ok(Self {
            service,
            probes: format!("http://{listen}"),
        })
    }

    /// Waits until `/readyz` says so.
    ///
    /// # Errors
    /// When it ends by itself, or the time passes: quotes its log.
    pub async fn wait_until_ready(&self, within: Duration) -> Result<()> {
        self.service
            .wait_until_answers(&format!("{}/readyz", self.probes), within)
            .await
    }

    /// The status code of a path of its probes, such as `/readyz`.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn probe(&self, path: &str) -> Result<u16> {
        let url = format!("{}{path}", self.probes);
        Ok(http::client()?.get(url).send().await?.status().as_u16())
    }

    /// What a path of its probes answers, status code and text.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn says(&self, path: &str) -> Result<(u16, String)> {
        let url = format!("{}{path}", self.probes);
        let answer = http::client()?.get(url).send().await?;
        Ok((answer.status().as_u16(), answer.text().await?))
    }

    /// What `/metrics` says.
    ///
    /// # Errors
    /// When it does not answer.
    pub async fn metrics(&self) -> Result<String> {
        Ok(http::get(&format!("{}/metrics", self.probes))
            .await?
            .text()
            .await?)
    }

    /// The process: to kill, stop and start again.
    #[must_use]
    pub fn service(&self) -> &Service {
        &self.service
    }
}

/// Packs a folder with `kubectl rimward package`, pushes it as `REPOSITORY:TAG`, and returns the reference by digest;
/// `flags` add to its flags.
///
/// # Errors
/// When the command fails.
pub async fn package(
    kubectl: &Kubectl,
    folder: &Path,
    reference: &str,
    flags: &[&str],
    typed: impl AsyncFn(Line) -> Result<String>,
) -> Result<String> {
    let folder = folder.display().to_string();
    let package = ["rimward", "package", &folder, "--push", reference];
    let printed = typed(kubectl.line(package).args(flags)).await?;
    let digest = printed
        .split_whitespace()
        .find_map(|word| word.find("sha256:").map(|at| &word[at..]));
    let digest = digest.with_context(|| format!("`package` printed no digest: {printed:?}"))?;
    let digest: String = digest.chars().take("sha256:".len() + 64).collect();
    let (repository, _) = reference
        .rsplit_once(':')
        .context("a reference with a tag")?;
    Ok(format!("{repository}@{digest}"))
}

/// Starts a node agent with these arguments; its folder is where its log goes.
///
/// # Errors
/// When the agent is not built or cannot be started.
pub fn agent(name: &str, folder: &Path, arguments: &[String]) -> Result<Service> {
    Service::start(Recipe {
        name: name.to_owned(),
        program: binary("rimward-node-agent")?,
        arguments: arguments.to_vec(),
        environment: Vec::new(),
        folder: folder.to_path_buf(),
    })
}
