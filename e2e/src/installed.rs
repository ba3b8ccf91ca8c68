//! Rimward as its users install it: a release in a registry, put by helm on clusters of real nodes.
//!
//! Owns the command lines that README.md and docs/install.md name, with what this machine adds to them: a registry
//! without TLS. Who shows them and when they run is the caller's.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use serde_json::{Value, json};

use crate::command::Line;
use crate::cosign::Cosign;
use crate::fleet::{NAMESPACE, repository_root};
use crate::helm::Helm;
use crate::images;
use crate::kubectl::Kubectl;
use crate::node::{self, Cluster, Network};
use crate::registry::{Kind, Registry};
use crate::rimward;

/// Generous: the machine may be busy with a build.
const WITHIN: Duration = Duration::from_secs(400);

/// A registry for images, charts and models, and who signs all of them.
#[derive(Debug)]
pub struct Release {
    /// It listens at an address of this machine that nodes and pods reach.
    pub registry: Registry,
    /// The key of images, charts and models.
    pub cosign: Cosign,
    folder: PathBuf,
}

/// A cluster of real nodes, and what its administrator types.
#[derive(Debug)]
pub struct Place {
    /// helm.
    pub helm: Helm,
    /// kubectl.
    pub kubectl: Kubectl,
    /// The cluster.
    pub cluster: Cluster,
}

impl Release {
    /// Starts the registry in a network and makes a key; nothing is released yet.
    ///
    /// # Errors
    /// When either fails.
    pub async fn start(folder: &Path, network: &Network) -> Result<Self> {
        let (place, keys) = (folder.join("registry"), folder.join("keys"));
        let (registry, cosign) = tokio::try_join!(
            Registry::start_on(Kind::Referrers, &place, network.address()),
            Cosign::generate(&keys),
        )?;
        Ok(Self {
            registry,
            cosign,
            folder: folder.to_path_buf(),
        })
    }

    /// Where images and charts go, `HOST:PORT/rimward`.
    #[must_use]
    pub fn place(&self) -> String {
        format!("{}/rimward", self.registry.host())
    }

    /// `cargo xtask release`, of the images that were built before.
    ///
    /// # Errors
    /// When there are no images, or xtask is not built: says which command makes them.
    pub fn line(&self) -> Result<Line> {
        let key = self.cosign.private_key().display().to_string();
        let images = images::folder()?.display().to_string();
        let out = self.folder.join("released").display().to_string();
        Ok(Line::new(&rimward::binary("xtask")?)
            .shown_as("cargo xtask")
            .args(["release", "--registry", &self.place()])
            .args(["--plain-http", "--key", &key])
            .args(["--images", &images, "--out", &out])
            .env("COSIGN_PASSWORD", "")
            .env("DOCKER_CONFIG", &self.folder)
            .folder(&repository_root())
            .within(WITHIN))
    }

    /// Writes the trust file of every device: who may sign models.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn trust(&self) -> Result<PathBuf> {
        let pem = std::fs::read_to_string(self.cosign.public_key())?;
        let trust = json!({
            "apiVersion": "rimward.dev/v1alpha1",
            "kind": "TrustFile",
            "authorities": [{
                "name": "release",
                "keys": [{"name": "cosign", "pem": pem}],
                "repositories": [format!("{}/models/**", self.registry.host())],
            }],
        });
        self.write("trust.yaml", &trust)
    }

    /// Writes a values file: what a registry without TLS takes, and `more` beside it.
    ///
    /// # Errors
    /// When it cannot be written.
    pub fn values(&self, name: &str, more: &Value) -> Result<PathBuf> {
        let host = self.registry.host();
        let mut values = json!({
            "hub": {"plainHttp": [host]},
            "agent": {"registry": {"plainHttp": [host]}},
        });
        merge(&mut values, more);
        self.write(name, &values)
    }

    fn write(&self, name: &str, what: &Value) -> Result<PathBuf> {
        let path = self.folder.join(name);
        std::fs::write(&path, serde_yaml::to_string(what)?)
            .with_context(|| format!("writing {}", path.display()))?;
        Ok(path)
    }
}

impl Place {
    /// Starts a cluster whose nodes pull from that release's registry, and waits until they are Ready.
    ///
    /// # Errors
    /// When a part does not start.
    pub async fn start(
        name: &str,
        folder: &Path,
        network: Network,
        nodes: u8,
        release: &Release,
    ) -> Result<Self> {
        let options = node::Options {
            plain_http: vec![release.registry.host()],
            ..node::Options::default()
        };
        let cluster = Cluster::start(name, folder, network, nodes, options).await?;
        Ok(Self {
            helm: Helm::new(&cluster.plane.kubeconfig(), cluster.plane.folder())?,
            kubectl: cluster.plane.kubectl()?,
            cluster,
        })
    }

    /// `helm VERB rimward oci://… --wait`, of the released chart, with these values files.
    #[must_use]
    pub fn helm(&self, verb: &str, release: &Release, files: &[&Path]) -> Line {
        let chart = format!("oci://{}/charts/rimward", release.place());
        let mut line = self
            .helm
            .line([verb, "rimward", &chart, "--plain-http", "-n", NAMESPACE])
            .args(["--wait", "--timeout=240s"]);
        line = match verb {
            "install" => line.args(["--create-namespace"]),
            _ => line.args(["--reset-then-reuse-values"]),
        };
        for file in files {
            line = line.args(["-f", &file.display().to_string()]);
        }
        line.within(WITHIN)
    }
}

/// Puts `more` over `values`, key by key.
fn merge(values: &mut Value, more: &Value) {
    match (values, more) {
        (Value::Object(values), Value::Object(more)) => {
            for (key, more) in more {
                merge(values.entry(key.as_str()).or_insert(Value::Null), more);
            }
        }
        (value, more) => *value = more.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_put_over_each_other_key_by_key() {
        let mut values = json!({"agent": {"registry": {"plainHttp": ["a"]}}, "hub": {"a": 1}});
        merge(&mut values, &json!({"agent": {"x": 1}, "hub": {"a": 2}}));
        let wanted = json!({"agent": {"registry": {"plainHttp": ["a"]}, "x": 1}, "hub": {"a": 2}});
        assert_eq!(values, wanted);
    }
}
