//! A registry, by the tools that everybody uses: oras copies and tags, cosign signs and verifies.
//!
//! Owns their command lines. Signatures need no service of others: no transparency log, no certificate authority.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use anyhow::{Context as _, Result, bail, ensure};
use serde_json::Value;

use super::charts::Package;
use crate::tools::Installed;

/// Media types of Helm's charts.
const CHART_CONFIG: &str = "application/vnd.cncf.helm.config.v1+json";
const CHART_CONTENT: &str = "application/vnd.cncf.helm.chart.content.v1.tar+gzip";

/// Something in a registry, by its digest.
#[derive(Debug, Clone)]
pub(super) struct Place {
    pub(super) repository: String,
    pub(super) digest: String,
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.repository, self.digest)
    }
}

/// The tools, and how they reach the registry.
#[derive(Debug)]
pub(super) struct Registry {
    oras: PathBuf,
    cosign: PathBuf,
    key: String,
    public_key: PathBuf,
    plain_http: bool,
}

impl Registry {
    /// Finds the tools, and writes the key's public half into a folder.
    ///
    /// # Errors
    /// Where cosign cannot read the key.
    pub(super) fn new(
        parts: &Installed,
        key: &str,
        plain_http: bool,
        folder: &Path,
    ) -> Result<Self> {
        let registry = Self {
            oras: parts.path("oras")?.to_owned(),
            cosign: parts.path("cosign")?.to_owned(),
            key: key.to_owned(),
            public_key: folder.join("cosign.pub"),
            plain_http,
        };
        let mut command = Command::new(&registry.cosign);
        command.args(["public-key", "--key", key, "--outfile"]);
        succeed(command.arg(&registry.public_key))?;
        Ok(registry)
    }

    /// The public half of the key.
    pub(super) fn public_key(&self) -> &Path {
        &self.public_key
    }

    /// Copies out of a layout, by digest, with all that refers to it.
    pub(super) fn copy(&self, layout: &Path, digest: &str, repository: &str) -> Result<()> {
        let mut command = Command::new(&self.oras);
        command.args(["copy", "--recursive", "--no-tty", "--from-oci-layout"]);
        if self.plain_http {
            command.arg("--to-plain-http");
        }
        let from = format!("{}@{digest}", layout.display());
        succeed(command.args([from.as_str(), repository]))?;
        Ok(())
    }

    /// Pushes a chart as `helm push` would, but for the tag.
    pub(super) fn push_chart(&self, package: &Package, repository: &str) -> Result<Place> {
        let mut command = self.oras(&["push", "--no-tty", "--format", "json"]);
        let config = format!("{}:{CHART_CONFIG}", package.config);
        let content = format!("{}:{CHART_CONTENT}", package.content);
        command.args(["--config", &config, repository, &content]);
        for (name, value) in &package.annotations {
            command.arg("--annotation").arg(format!("{name}={value}"));
        }
        let output = succeed(command.current_dir(&package.folder))?;
        let pushed: Value =
            serde_json::from_slice(&output.stdout).context("reading what oras pushed")?;
        let digest = pushed["digest"]
            .as_str()
            .context("oras names no digest of what it pushed")?;
        Ok(Place {
            repository: repository.to_owned(),
            digest: digest.to_owned(),
        })
    }

    /// What a tag stands for, if it is there.
    pub(super) fn resolve(&self, repository: &str, tag: &str) -> Result<Option<String>> {
        let mut command = self.oras(&["resolve"]);
        command.arg(format!("{repository}:{tag}"));
        let output = run(&mut command)?;
        if output.status.success() {
            let digest = String::from_utf8_lossy(&output.stdout);
            return Ok(Some(digest.trim().to_owned()));
        }
        let error = String::from_utf8_lossy(&output.stderr);
        if error.contains("not found") || error.contains("NAME_UNKNOWN") {
            return Ok(None);
        }
        bail!("asking for {repository}:{tag}: {}", error.trim())
    }

    /// Gives it a tag.
    pub(super) fn tag(&self, place: &Place, tag: &str) -> Result<()> {
        succeed(self.oras(&["tag"]).args([&place.to_string(), tag]))?;
        Ok(())
    }

    /// Signs.
    pub(super) fn sign(&self, place: &Place) -> Result<()> {
        let mut command = self.cosign("sign");
        command.args(["--key", &self.key, "--yes"]);
        command.args(["--use-signing-config=false", "--tlog-upload=false"]);
        succeed(command.arg(place.to_string()))?;
        Ok(())
    }

    /// Whether our key has signed it.
    pub(super) fn is_signed(&self, place: &Place) -> Result<bool> {
        let mut command = self.cosign("verify");
        command.arg("--insecure-ignore-tlog=true").arg("--key");
        command.arg(&self.public_key).arg(place.to_string());
        Ok(run(&mut command)?.status.success())
    }

    /// Signs a file, beside it; what is there and fits stays.
    ///
    /// # Errors
    /// Where cosign refuses, or what it made does not verify.
    pub(super) fn sign_file(&self, file: &Path) -> Result<()> {
        let bundle = PathBuf::from(format!("{}.sigstore.json", file.display()));
        if !self.is_file_signed(file, &bundle)? {
            let mut command = Command::new(&self.cosign);
            command.args(["sign-blob", "--key", &self.key, "--yes"]);
            command.args(["--use-signing-config=false", "--tlog-upload=false"]);
            succeed(command.arg("--bundle").arg(&bundle).arg(file))?;
            ensure!(
                self.is_file_signed(file, &bundle)?,
                "{} was signed just now, and that cannot be verified",
                file.display()
            );
        }
        Ok(())
    }

    fn is_file_signed(&self, file: &Path, bundle: &Path) -> Result<bool> {
        let mut command = Command::new(&self.cosign);
        command.args(["verify-blob", "--insecure-ignore-tlog=true", "--key"]);
        command.arg(&self.public_key).arg("--bundle");
        Ok(run(command.arg(bundle).arg(file))?.status.success())
    }

    fn oras(&self, words: &[&str]) -> Command {
        let mut command = Command::new(&self.oras);
        command.args(words);
        if self.plain_http {
            command.arg("--plain-http");
        }
        command
    }

    fn cosign(&self, word: &str) -> Command {
        let mut command = Command::new(&self.cosign);
        command.arg(word);
        if self.plain_http {
            command.arg("--allow-http-registry");
        }
        command
    }
}

fn run(command: &mut Command) -> Result<Output> {
    let output = command.output();
    output.with_context(|| format!("running {}", command.get_program().display()))
}

/// Runs it to its end; what it printed is shown only where it fails.
pub(super) fn succeed(command: &mut Command) -> Result<Output> {
    let output = run(command)?;
    if !output.status.success() {
        let words: Vec<_> = std::iter::once(command.get_program())
            .chain(command.get_args())
            .map(|word| word.to_string_lossy())
            .collect();
        bail!(
            "{}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
    }
    Ok(output)
}
