//! A device by itself: a node agent that takes its orders from a folder, and the registry that it pulls from.
//!
//! Owns starting both and giving orders as a person would. No Kubernetes is near.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::command::Line;
use crate::cosign::Cosign;
use crate::digits::repository;
use crate::ports::free_port;
use crate::registry::{Kind, Registry};
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
    /// The agent's supervisor; the others are its children.
    pub agent: Service,
}

impl Source {
    /// Starts the registry and makes a key.
    ///
    /// # Errors
    /// When either fails.
    pub async fn start(scratch: &Scratch) -> Result<Self> {
        let registry = Registry::start(Kind::Referrers, &scratch.folder("registry")?).await?;
        let cosign = Cosign::generate(&scratch.folder("keys")?).await?;
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
            trust: path,
        })
    }

    /// Packs a folder of the repository, pushes it as `models/NAME:TAG` and signs it.
    ///
    /// # Errors
    /// When a command fails.
    pub async fn release(&self, folder: &str, name: &str, tag: &str) -> Result<Package> {
        let repository_name = format!("{}/models/{name}", self.registry.host());
        let target = format!("{repository_name}:{tag}");
        let folder = repository().join(folder).display().to_string();
        let said = Line::new(&crate::rimward::binary("kubectl-rimward")?)
            .args(["package", &folder, "--push", &target])
            .run()
            .await?;
        let at = said
            .find("sha256:")
            .context("no digest in what package says")?;
        let digest: String = said[at..].chars().take(71).collect();
        self.cosign
            .sign(&format!("{repository_name}@{digest}"))
            .await?;
        Ok(Package {
            repository: repository_name,
            digest,
        })
    }
}

impl Device {
    /// Starts an agent with an empty store in `folder`; it has no orders yet.
    ///
    /// # Errors
    /// When the agent cannot be started.
    pub fn start(name: &str, folder: PathBuf, source: &Source) -> Result<Self> {
        std::fs::create_dir_all(folder.join("manifests"))
            .with_context(|| format!("making {}", folder.display()))?;
        let port = free_port()?;
        let arguments = [
            format!("--node-name={name}"),
            format!("--data-dir={}", folder.join("data").display()),
            format!("--trust={}", source.trust.display()),
            format!("--manifests={}", folder.join("manifests").display()),
            format!("--listen=127.0.0.1:{port}"),
        ];
        let agent = crate::rimward::agent(name, &folder.join("log"), &arguments)?;
        Ok(Self {
            folder,
            port,
            agent,
        })
    }

    /// Orders all that the device is to run, by replacing a file.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn order(&self, wanted: &[Wanted<'_>]) -> Result<()> {
        let models: Vec<Value> = wanted
            .iter()
            .map(|wanted| {
                json!({
                    "namespace": "shop",
                    "name": wanted.name,
                    "endpointName": wanted.name,
                    "revision": wanted.revision,
                    "package": {
                        "repository": wanted.package.repository,
                        "digest": wanted.package.digest,
                    },
                    "health": wanted.health,
                })
            })
            .collect();
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

    /// What the device's status file says of a deployment; null while it says nothing.
    ///
    /// # Errors
    /// When there is no such file yet, or it does not parse.
    pub fn status(&self, name: &str) -> Result<Value> {
        let path = self.folder.join("data/status.yaml");
        let text = std::fs::read_to_string(&path)
            .with_context(|| format!("reading {}", path.display()))?;
        let status: Value =
            serde_yaml::from_str(&text).with_context(|| format!("parsing {}", path.display()))?;
        let models = status["models"].as_array().cloned().unwrap_or_default();
        let mut models = models.into_iter();
        Ok(models
            .find(|model| model["name"] == name)
            .unwrap_or_default())
    }

    /// Waits until a deployment stands so with that revision.
    ///
    /// # Errors
    /// When it does not in time: says how it stands.
    pub async fn wait(&self, name: &str, revision: &str, state: &str) -> Result<()> {
        let what = format!("{revision} to be {state}");
        let outcome = wait_for(&what, WITHIN, async || {
            self.agent.check_running()?;
            let model = self.status(name)?;
            Ok(
                if model["revision"] == revision && model["state"] == state {
                    Seen::Done(())
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
