//! Models on real pods: packed, signed, ordered, and what is said of them.

use std::path::Path;

use anyhow::{Context as _, Result};
use rimward_e2e::digits::repository;
use rimward_e2e::node::Node;
use rimward_e2e::{Seen, wait_for};
use serde_json::{Value, json};

use crate::pods_world::{WITHIN, World};

const DIGITS: &str = "examples/packages/digits-";

impl World {
    /// Packs a version of digits, signs it, and makes it known as a Model.
    pub(crate) async fn release(&self, version: &str) -> Result<()> {
        let folder = repository().join(format!("{DIGITS}{version}"));
        self.release_of(&folder, version).await
    }

    /// The same of a package's folder.
    pub(crate) async fn release_of(&self, folder: &Path, version: &str) -> Result<()> {
        let host = self.registry.host();
        let (folder, target) = (
            folder.display().to_string(),
            format!("{host}/models/digits:{version}"),
        );
        let package = [
            "rimward",
            "package",
            &folder,
            "--push",
            &target,
            "--plain-http",
            &host,
        ];
        let said = self.kubectl.run(package).await?;
        let at = said
            .find("sha256:")
            .context("`package` printed no digest")?;
        let image = format!("{host}/models/digits@{}", &said[at..at + 71]);
        self.cosign.sign(&image).await?;
        let spec = json!({"family": "digits", "version": version, "image": image});
        self.kubectl
            .apply(&object("Model", &format!("digits-{version}"), &spec))
            .await?;
        Ok(())
    }

    /// Orders a version on every node; `number` makes a revision of its own of it.
    pub(crate) async fn deploy(&self, version: &str, number: u32) -> Result<()> {
        self.order("digits", &spec(version, number)).await
    }

    /// Applies a deployment.
    pub(crate) async fn order(&self, name: &str, spec: &Value) -> Result<()> {
        self.kubectl
            .apply(&object("ModelDeployment", name, spec))
            .await?;
        Ok(())
    }

    /// Waits until the deployment digits, as it stands now, is on every node; gives the revision.
    pub(crate) async fn promoted(&self) -> Result<String> {
        self.promoted_as("digits").await
    }

    /// The same of another one.
    pub(crate) async fn promoted_as(&self, name: &str) -> Result<String> {
        wait_for(&format!("{name} to be promoted"), WITHIN, async || {
            let object = self.kubectl.get_json(["modeldeployment", name]).await?;
            let status = &object["status"];
            let is_now = status["observedGeneration"] == object["metadata"]["generation"];
            let is_done = status["stage"]["phase"] == "Completed"
                && status["currentRevision"] == status["updateRevision"];
            Ok(match status["currentRevision"].as_str() {
                Some(revision) if is_now && is_done => Seen::Done(revision.to_owned()),
                _ => Seen::NotYet(status.to_string()),
            })
        })
        .await
    }

    /// What a node says of digits.
    pub(crate) async fn on_node(&self, node: &Node) -> Result<Value> {
        let object = self.kubectl.get_json(["edgenode", node.name()]).await?;
        let mut models = object["status"]["models"].as_array().into_iter().flatten();
        let model = models.find(|model| model["name"] == "digits");
        Ok(model.cloned().unwrap_or_default())
    }
}

/// What orders a version of digits; `number` makes a revision of its own of it.
pub(crate) fn spec(version: &str, number: u32) -> Value {
    json!({
        "modelRef": {"name": format!("digits-{version}")},
        "placement": {"clusterSelector": {}},
        "runtime": {"concurrency": 2, "memory": "64Mi", "timeoutMilliseconds": 5000 + number},
        "health": {"probationSeconds": 1, "minSamples": 0},
    })
}

pub(crate) fn object(kind: &str, name: &str, spec: &Value) -> String {
    json!({"apiVersion": "rimward.dev/v1alpha1", "kind": kind,
        "metadata": {"name": name}, "spec": spec})
    .to_string()
}
