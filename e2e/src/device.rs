//! A device by itself: a node agent that takes its orders from a folder, and the registry that it pulls from.
//!
//! Owns starting both and giving orders as a person would. No Kubernetes is near.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::Line;
use crate::cosign::Cosign;
use crate::digits::repository;
use crate::ports::free_port;
use crate::registry::{Kind, Registry, USER};
use crate::scratch::Scratch;
use crate::service::Service;
use crate::wait::{Seen, wait_for};

/// Generous: the machine may be busy with a build.
const WITHIN: Duration = Duration::from_secs(120);

/// A registry and the key that signs what is in it; devices trust that key.
#[derive(Debug)]
pub struct Source {
    registry: Registry,
    cosign: Cosign,
    login: Option<PathBuf>,
    trust: PathBuf,
}

/// A package in the registry.
#[derive(Clone, Debug)]
pub struct Package {
    repository: String,
    digest: String,
}

/// What a device is told to run for one deployment.
#[derive(Clone, Debug)]
pub struct Wanted<'a> {
    /// Name of the deployment, and of the endpoint.
    pub name: &'a str,
    /// Name of the revision.
    pub revision: &'a str,
    /// What it runs.
    pub package: &'a Package,
    /// When the device takes it as good, as in EdgeNode.
    pub health: Value,
}

/// An agent on a device of its own. Dropping it ends the agent and its children.
#[derive(Debug)]
pub struct Device {
    folder: PathBuf,
    port: u16,
    arguments: Vec<String>,
    /// The agent's supervisor; the others are its children.
    pub agent: Service,
}

impl Source {
    /// Starts a registry with the referrers API and makes a key.
    ///
    /// # Errors
    /// When either fails.
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        let registry = Registry::start(Kind::Referrers, &scratch.folder("registry")?).await?;
        Self::of(registry, scratch).await
    }

    /// Makes a key for a registry that runs, and logs in if that wants a password.
    ///
    /// # Errors
    /// When cosign fails.
    pub async fn of(registry: Registry, scratch: &Scratch) -> Result<Self> {
        let cosign = Cosign::generate(&scratch.folder("keys")?).await?;
        let login = match registry.password() {
            Some(password) => Some(cosign.log_in(&registry.host(), USER, password).await?),
            None => None,
        };
        let pem = std::fs::read_to_string(cosign.public_key())?;
        let trust = json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "TrustFile",
            "authorities": [{
                "name": "acme",
                "repositories": [format!("{}/models/**", registry.host())],
                "keys": [{"name": "ci", "pem": pem}],
            }],
        });
        let path = scratch.path().join("trust.yaml");
        std::fs::write(&path, serde_yaml::to_string(&trust)?)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(Self {
            registry,
            cosign,
            login,
            trust: path,
        })
    }

    /// The registry: to stop it, and to ask for its address.
    #[must_use]
    pub fn registry(&self) -> &Registry {
        &self.registry
    }

    /// The trust file that the devices read.
    #[must_use]
    pub fn trust(&self) -> &Path {
        &self.trust
    }

    /// The Docker configuration file of who logged in; none for a registry that lets everybody in.
    #[must_use]
    pub fn login(&self) -> Option<&Path> {
        self.login.as_deref()
    }

    /// Packs a folder of the repository and pushes it as `models/NAME:TAG`; nobody signs it.
    ///
    /// # Errors
    /// When the command fails.
    pub async fn push(&self, folder: &str, name: &str, tag: &str) -> Result<Package> {
        let repository_name = format!("{}/models/{name}", self.registry.host());
        let target = format!("{repository_name}:{tag}");
        let folder = repository().join(folder).display().to_string();
        let mut line = Line::new(&crate::rimward::binary("kubectl-rimward")?)
            .args(["package", &folder, "--push", &target]);
        if let Some(login) = &self.login {
            line = line.args(["--registry-config", &login.display().to_string()]);
        }
        let said = line.run().await?;
        let at = said
            .find("sha256:")
            .context("no digest in what package says")?;
        Ok(Package {
            repository: repository_name,
            digest: said[at..].chars().take(71).collect(),
        })
    }

    /// Signs a package.
    ///
    /// # Errors
    /// When cosign fails.
    pub async fn sign(&self, package: &Package) -> Result<()> {
        self.cosign.sign(&package.reference()).await
    }

    /// Packs a folder of the repository, pushes it as `models/NAME:TAG` and signs it.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn release(&self, folder: &str, name: &str, tag: &str) -> Result<Package> {
        let package = self.push(folder, name, tag).await?;
        self.sign(&package).await?;
        Ok(package)
    }
}

impl Package {
    /// A package of a repository by its digest, whether it is there or not.
    #[must_use]
    pub fn new(repository: &str, digest: &str) -> Self {
        Self {
            repository: repository.to_owned(),
            digest: digest.to_owned(),
        }
    }

    /// `HOST/REPOSITORY@DIGEST`.
    #[must_use]
    pub fn reference(&self) -> String {
        format!("{}@{}", self.repository, self.digest)
    }

    /// Its digest.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }
}

impl Wanted<'_> {
    /// As it stands in an EdgeNode.
    #[must_use]
    pub fn entry(&self) -> Value {
        json!({
            "namespace": "shop",
            "name": self.name,
            "endpointName": self.name,
            "revision": self.revision,
            "package": {
                "repository": self.package.repository,
                "digest": self.package.digest,
            },
            "health": self.health,
        })
    }
}

impl Device {
    /// Starts an agent with an empty store in `folder`, which logs in as its source does; it has no orders yet.
    ///
    /// # Errors
    /// When the agent cannot be started.
    pub fn start(name: &str, folder: PathBuf, source: &Source) -> Result<Self> {
        Self::start_as(name, folder, source, source.login())
    }

    /// The same with another Docker configuration file, or none.
    ///
    /// # Errors
    /// When the agent cannot be started.
    pub fn start_as(
        name: &str,
        folder: PathBuf,
        source: &Source,
        login: Option<&Path>,
    ) -> Result<Self> {
        std::fs::create_dir_all(folder.join("manifests"))
            .with_context(|| format!("making {}", folder.display()))?;
        let port = free_port()?;
        let mut arguments = vec![
            format!("--node-name={name}"),
            format!("--data-dir={}", folder.join("data").display()),
            format!("--trust={}", source.trust.display()),
            format!("--manifests={}", folder.join("manifests").display()),
            format!("--listen=127.0.0.1:{port}"),
        ];
        arguments.extend(login.map(|file| format!("--registry-config={}", file.display())));
        let agent = crate::rimward::agent(name, &folder.join("log"), &arguments)?;
        Ok(Self {
            folder,
            port,
            arguments,
            agent,
        })
    }

    /// How another agent on the same folder is started: the same command line, with `more` in place of what says the
    /// same.
    #[must_use]
    pub fn arguments_with(&self, more: &[String]) -> Vec<String> {
        let flag = |argument: &str| argument.split('=').next().unwrap_or_default().to_owned();
        let said: Vec<String> = more.iter().map(|argument| flag(argument)).collect();
        let kept = self.arguments.iter().filter(|it| !said.contains(&flag(it)));
        kept.chain(more).cloned().collect()
    }

    /// Starts another agent on the same folder; its log is named after it.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn beside(&self, name: &str, more: &[String]) -> Result<Service> {
        crate::rimward::agent(name, &self.folder.join("log"), &self.arguments_with(more))
    }

    /// The folder that the agents keep everything in.
    #[must_use]
    pub fn data(&self) -> PathBuf {
        self.folder.join("data")
    }

    /// Orders all that the device is to run, by replacing a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn order(&self, wanted: &[Wanted<'_>]) -> Result<()> {
        self.order_entries(wanted.iter().map(Wanted::entry).collect())
    }

    /// The same, of entries as they stand in an EdgeNode.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn order_entries(&self, models: Vec<Value>) -> Result<()> {
        let node = json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "EdgeNode",
            "metadata": {"name": self.agent.name()},
            "spec": {"models": models},
        });
        let manifests = self.folder.join("manifests");
        std::fs::write(manifests.join(".next"), serde_yaml::to_string(&node)?)?;
        Ok(std::fs::rename(
            manifests.join(".next"),
            manifests.join("node.yaml"),
        )?)
    }

    /// All that the device's status file says.
    ///
    /// # Errors
    /// When there is no such file yet, or it does not parse.
    pub fn report(&self) -> Result<Value> {
        let path = self.folder.join("data/status.yaml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        serde_yaml::from_str(&text).with_context(|| format!("parsing {}", path.display()))
    }

    /// What the device's status file says of a deployment; null while it says nothing.
    ///
    /// # Errors
    /// As [`Device::report`].
    pub fn status(&self, name: &str) -> Result<Value> {
        let models = self.report()?["models"].take();
        let models = models.as_array().cloned().unwrap_or_default();
        let mut models = models.into_iter();
        Ok(models
            .find(|model| model["name"] == name)
            .unwrap_or_default())
    }

    /// Waits until a deployment stands so with that revision; gives what the status file says of it.
    ///
    /// # Errors
    /// When it does not in time: says how it stands.
    pub async fn wait(&self, name: &str, revision: &str, state: &str) -> Result<Value> {
        let what = format!("{revision} to be {state}");
        let outcome = wait_for(&what, WITHIN, async || {
            self.agent.check_running()?;
            let model = self.status(name)?;
            Ok(
                if model["revision"] == revision && model["state"] == state {
                    Seen::Done(model)
                } else {
                    Seen::NotYet(model.to_string())
                },
            )
        });
        outcome
            .await
            .with_context(|| format!("its log is {}", self.agent.log().display()))
    }

    /// `127.0.0.1:PORT` where it answers inference requests.
    #[must_use]
    pub fn host(&self) -> String {
        format!("127.0.0.1:{}", self.port)
    }
}
