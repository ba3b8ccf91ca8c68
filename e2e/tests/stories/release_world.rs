//! What the stories of releases share: a registry, a key, and `cargo xtask release` as its maker types it.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Result, ensure};
use rimward_e2e::command::{Line, Output};
use rimward_e2e::images;
use rimward_e2e::registry::{Kind, Registry};
use rimward_e2e::{Cosign, Story, http, rimward};
use serde_json::Value;

const SPDX: &str = "application/spdx+json";
pub(crate) const VERSION: &str = env!("CARGO_PKG_VERSION");

/// A registry, a key, and what a release wrote.
pub(crate) struct World {
    pub(crate) registry: Registry,
    pub(crate) cosign: Cosign,
    pub(crate) out: PathBuf,
}

impl World {
    pub(crate) async fn new(story: &Story, kind: Kind) -> Result<Self> {
        let scratch = story.scratch();
        Ok(Self {
            registry: Registry::start(kind, &scratch.folder("registry")?).await?,
            cosign: Cosign::generate(&scratch.folder("keys")?).await?,
            out: scratch.folder("released")?,
        })
    }

    /// `cargo xtask release`, as its maker would type it.
    pub(crate) async fn release(&self, more: &[&str]) -> Result<Output> {
        let key = self.cosign.private_key();
        Line::new(&rimward::binary("xtask")?)
            .args(["release", "--registry", &self.name(), "--plain-http"])
            .args(["--key", &key.display().to_string()])
            .args(["--images", &images::folder()?.display().to_string()])
            .args(["--out", &self.out.display().to_string()])
            .args(more)
            .env("COSIGN_PASSWORD", "")
            .env("DOCKER_CONFIG", &self.out)
            .within(Duration::from_secs(600))
            .output()
            .await
    }

    pub(crate) fn name(&self) -> String {
        format!("{}/rimward", self.registry.host())
    }

    pub(crate) async fn is_signed(
        &self,
        cosign: &Cosign,
        repository: &str,
        digest: &str,
    ) -> Result<bool> {
        let reference = format!("{}/{repository}@{digest}", self.registry.host());
        Ok(cosign.verify(&reference).await?.status.success())
    }

    /// Manifests that refer to another, by the API or, where there is none, by the tag that stands for it.
    pub(crate) async fn referrers(&self, repository: &str, subject: &str) -> Result<Vec<String>> {
        let url = format!(
            "http://{}/v2/{repository}/referrers/{subject}",
            self.registry.host()
        );
        let answer = http::client()?.get(url).send().await?;
        let list: Value = if answer.status().is_success() {
            answer.json().await?
        } else {
            let tag = subject.replace(':', "-");
            self.registry.manifest(repository, &tag).await?
        };
        Ok(digests(&list))
    }

    /// The bill of materials of an image, found as scanners find it.
    pub(crate) async fn materials(
        &self,
        repository: &str,
        subject: &str,
    ) -> Result<(String, Value)> {
        for referrer in self.referrers(repository, subject).await? {
            let manifest = self.registry.manifest(repository, &referrer).await?;
            if manifest["artifactType"] == SPDX {
                ensure!(manifest["subject"]["digest"] == subject, "{manifest}");
                let layer = manifest["layers"][0]["digest"].as_str();
                let bytes = self.registry.blob(repository, layer.unwrap_or_default());
                return Ok((referrer, serde_json::from_slice(&bytes.await?)?));
            }
        }
        anyhow::bail!("no bill of materials refers to {repository}@{subject}")
    }
}

pub(crate) fn digests(list: &Value) -> Vec<String> {
    let entries = list["manifests"].as_array().cloned().unwrap_or_default();
    let digests = entries.iter().filter_map(|entry| entry["digest"].as_str());
    digests.map(str::to_owned).collect()
}
