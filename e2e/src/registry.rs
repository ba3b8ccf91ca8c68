//! A real registry, on disk, on loopback.

use std::fmt::Write as _;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use rustix::process::Signal;
use serde_json::{Value, json};
use tokio::net::TcpStream;

use crate::http;
use crate::ports::free_port;
use crate::process::Process;
use crate::tools::Tool;
use crate::wait::{Seen, wait_for};

const READY_WITHIN: Duration = Duration::from_secs(60);
const IMAGE_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";

/// Who may use a locked registry.
pub const USER: &str = "robot";
/// That user's password.
const PASSWORD: &str = "let-me-pull";
/// Both as htpasswd writes them (bcrypt, the cheapest kind: nobody is to be kept out).
const HTPASSWD: &str = "robot:$2b$04$lN578oVQG.iWOMygfLeMn.0vYypDLWXz/69wY2fGSuQBtECZJLe2W";

/// How a registry lets signatures be found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// By the referrers API of OCI 1.1 (go-containerregistry).
    Referrers,
    /// It has no such API: by the tag scheme (distribution).
    TagScheme,
}

/// A running registry. Dropping it kills it; its folder is the caller's, and another start on the same
/// folder has everything that was pushed.
#[derive(Debug)]
pub struct Registry {
    kind: Kind,
    locked: bool,
    folder: PathBuf,
    address: Ipv4Addr,
    port: u16,
    process: Mutex<Option<Process>>,
}

impl Registry {
    /// Starts a registry that keeps its data in a folder, and waits until it listens.
    ///
    /// # Errors
    /// When it is not installed, or ends: quotes its log.
    pub async fn start(kind: Kind, folder: &Path) -> Result<Self> {
        Self::start_at(kind, folder, None).await
    }

    /// The same at a port that the caller names.
    ///
    /// # Errors
    /// Also when the port is in use.
    pub async fn start_at(kind: Kind, folder: &Path, port: Option<u16>) -> Result<Self> {
        Self::start_as(kind, false, folder, Ipv4Addr::LOCALHOST, port).await
    }

    /// The same at another address of this machine, which nodes and their pods reach it at.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn start_on(kind: Kind, folder: &Path, address: Ipv4Addr) -> Result<Self> {
        Self::start_as(kind, false, folder, address, None).await
    }

    /// A registry that lets only [`USER`] in, with a password. It has the tag scheme only.
    ///
    /// # Errors
    /// As [`Registry::start`].
    pub async fn start_locked(folder: &Path) -> Result<Self> {
        Self::start_as(Kind::TagScheme, true, folder, Ipv4Addr::LOCALHOST, None).await
    }

    async fn start_as(
        kind: Kind,
        locked: bool,
        folder: &Path,
        address: Ipv4Addr,
        port: Option<u16>,
    ) -> Result<Self> {
        if let Some(port) = port {
            std::net::TcpListener::bind((address, port)).with_context(|| {
                format!("port {port} of this machine is in use, and the registry needs it")
            })?;
        }
        std::fs::create_dir_all(folder.join("data"))
            .with_context(|| format!("cannot make {}", folder.display()))?;
        let registry = Self {
            kind,
            locked,
            folder: folder.to_path_buf(),
            address,
            port: port.map_or_else(free_port, Ok)?,
            process: Mutex::default(),
        };
        registry.resume().await?;
        Ok(registry)
    }

    /// `127.0.0.1:PORT`, or its other address: what references begin with.
    #[must_use]
    pub fn host(&self) -> String {
        format!("{}:{}", self.address, self.port)
    }

    /// The password of [`USER`], if it wants one.
    #[must_use]
    pub fn password(&self) -> Option<&'static str> {
        self.locked.then_some(PASSWORD)
    }

    /// What an operator is told so that it takes a registry on this machine, by address and by name.
    #[must_use]
    pub fn plain_http_flags(&self) -> [String; 2] {
        ["127.0.0.1", "localhost"].map(|host| format!("--plain-http={host}:{}", self.port))
    }

    /// Takes it away, at once.
    pub fn stop(&self) {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    /// Freezes it, or lets it go on: it takes connections meanwhile, and answers nothing.
    pub fn freeze(&self, frozen: bool) {
        let signal = if frozen { Signal::STOP } else { Signal::CONT };
        let process = self.process.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(process) = &*process {
            process.signal(signal);
        }
    }

    /// Starts it again after [`Registry::stop`], on the same port and data.
    ///
    /// # Errors
    /// When it ends: quotes its log.
    pub async fn resume(&self) -> Result<()> {
        let data = self.folder.join("data");
        let command = match self.kind {
            Kind::Referrers => {
                let mut command = Command::new(Tool::Registry.path()?);
                command.args(["--listen", &self.host(), "--dir"]).arg(data);
                command
            }
            Kind::TagScheme => {
                let config = self.folder.join("config.yml");
                let mut text = json!({
                    "version": 0.1,
                    "log": { "level": "info" },
                    "storage": { "filesystem": { "rootdirectory": data }, "delete": { "enabled": true } },
                    "http": { "addr": self.host() },
                });
                if self.locked {
                    let path = self.folder.join("htpasswd");
                    std::fs::write(&path, HTPASSWD)
                        .with_context(|| format!("cannot write {}", path.display()))?;
                    text["auth"] = json!({"htpasswd": {"realm": "tests", "path": path}});
                }
                std::fs::write(&config, serde_yaml::to_string(&text)?)
                    .with_context(|| format!("cannot write {}", config.display()))?;
                let mut command = Command::new(Tool::DockerRegistry.path()?);
                command
                    .arg("serve")
                    .arg(config)
                    .env("OTEL_TRACES_EXPORTER", "none");
                command
            }
        };
        let process = Process::start("registry", command, &self.log())?;
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = Some(process);
        wait_for("the registry", READY_WITHIN, async || {
            if let Some(process) = self
                .process
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .as_mut()
                && let Err(error) = process.check_running()
            {
                return Ok(Seen::Never(format!("{error:#}")));
            }
            TcpStream::connect((self.address, self.port)).await?;
            Ok(Seen::Done(()))
        })
        .await
    }

    /// Its log: a line for each request.
    #[must_use]
    pub fn log(&self) -> PathBuf {
        self.folder.join("registry.log")
    }

    /// Pushes bytes as an artifact of one layer, tagged, and returns the manifest's digest. For packages use
    /// `kubectl rimward package`, as a person would; this is for what is no package.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push(
        &self,
        repository: &str,
        tag: &str,
        artifact_type: &str,
        layer: &[u8],
    ) -> Result<String> {
        let config = self.push_blob(repository, b"{}").await?;
        let layer_digest = self.push_blob(repository, layer).await?;
        let manifest: Value = json!({
            "schemaVersion": 2,
            "mediaType": IMAGE_MANIFEST,
            "artifactType": artifact_type,
            "config": { "mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2 },
            "layers": [{ "mediaType": "application/octet-stream", "digest": layer_digest, "size": layer.len() }],
        });
        self.push_manifest(repository, tag, &manifest).await
    }

    /// Pushes a manifest as it is, right or wrong, and returns its digest.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push_manifest(
        &self,
        repository: &str,
        tag: &str,
        manifest: &Value,
    ) -> Result<String> {
        let body = manifest.to_string().into_bytes();
        self.push_manifest_bytes(repository, tag, body).await
    }

    /// The same byte by byte, for a manifest that has its digest already.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push_manifest_bytes(
        &self,
        repository: &str,
        reference: &str,
        manifest: Vec<u8>,
    ) -> Result<String> {
        let digest = digest(&manifest);
        let host = self.host();
        let url = format!("http://{host}/v2/{repository}/manifests/{reference}");
        let request = http::client()?
            .put(&url)
            .header("content-type", IMAGE_MANIFEST)
            .body(manifest);
        check(request.send().await?).await?;
        Ok(digest)
    }

    /// Fetches a manifest by tag or digest.
    ///
    /// # Errors
    /// When there is none.
    pub async fn manifest(&self, repository: &str, reference: &str) -> Result<Value> {
        let url = format!(
            "http://{}/v2/{repository}/manifests/{reference}",
            self.host()
        );
        let request = http::client()?.get(&url).header(
            "accept",
            format!("{IMAGE_MANIFEST}, application/vnd.oci.image.index.v1+json"),
        );
        Ok(check(request.send().await?).await?.json().await?)
    }

    /// Fetches a blob by digest.
    ///
    /// # Errors
    /// When there is none.
    pub async fn blob(&self, repository: &str, digest: &str) -> Result<Vec<u8>> {
        let url = format!("http://{}/v2/{repository}/blobs/{digest}", self.host());
        Ok(check(http::client()?.get(&url).send().await?)
            .await?
            .bytes()
            .await?
            .to_vec())
    }

    /// Pushes a blob and returns its digest.
    ///
    /// # Errors
    /// When the registry refuses.
    pub async fn push_blob(&self, repository: &str, bytes: &[u8]) -> Result<String> {
        let client = http::client()?;
        let digest = digest(bytes);
        let root = format!("http://{}", self.host());
        let begun = check(
            client
                .post(format!("{root}/v2/{repository}/blobs/uploads/"))
                .send()
                .await?,
        )
        .await?;
        let place = begun
            .headers()
            .get("location")
            .and_then(|value| value.to_str().ok())
            .context("the registry named no place for the upload")?;
        let place = if place.starts_with('/') {
            format!("{root}{place}")
        } else {
            place.to_owned()
        };
        let join = if place.contains('?') { '&' } else { '?' };
        let upload = client
            .put(format!("{place}{join}digest={digest}"))
            .header("content-type", "application/octet-stream")
            .body(bytes.to_vec());
        check(upload.send().await?).await?;
        Ok(digest)
    }
}

/// `sha256:` and the hexadecimal hash.
#[must_use]
pub fn digest(bytes: &[u8]) -> String {
    let hash = ring::digest::digest(&ring::digest::SHA256, bytes);
    hash.as_ref()
        .iter()
        .fold("sha256:".to_owned(), |mut text, byte| {
            let _ = write!(text, "{byte:02x}");
            text
        })
}

async fn check(answer: reqwest::Response) -> Result<reqwest::Response> {
    if !answer.status().is_success() {
        let (status, url) = (answer.status(), answer.url().clone());
        bail!(
            "{url} answered {status}: {}",
            answer.text().await.unwrap_or_default()
        );
    }
    Ok(answer)
}
