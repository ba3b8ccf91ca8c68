//! The hub's kubeconfig, read again when it changes or when the hub refuses it.
//!
//! Owns the client of the hub in pull mode: one that goes on while what it stands on is replaced under it, so
//! that a credential can be rotated under a running session. A file that cannot be used changes nothing.
//! Must never log what is in it.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use axum::http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rimward_crds::direct;
use tokio::io::AsyncReadExt as _;
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::runtime;

/// Longest file that is read: a kubeconfig, or a certificate, key or token that it names.
const FILE_BYTES_MAX: u64 = 1024 * 1024;

/// How often the files are looked at.
const LOOK: Duration = Duration::from_secs(10);
/// The shortest time between two looks, however often the hub refuses.
const LOOK_SHORTEST: Duration = Duration::from_secs(1);

/// A kubeconfig in use.
pub(crate) struct HubAccess {
    path: PathBuf,
    loaded: Mutex<Loaded>,
    /// The hub refused a request, or could not be reached.
    refused: Notify,
}

struct Loaded {
    files: Files,
    client: Client,
}

/// A kubeconfig and the files that it names, as they were read.
#[derive(PartialEq, Eq)]
struct Files(Vec<(PathBuf, Vec<u8>)>);

impl HubAccess {
    /// Reads the kubeconfig at `path`.
    ///
    /// # Errors
    /// When it cannot be read or used.
    pub(crate) async fn open(path: &Path) -> anyhow::Result<Arc<Self>> {
        let about = || format!("--hub-kubeconfig {}", path.display());
        let files = Files::read(path).await.with_context(about)?;
        let client = files.client().await.with_context(about)?;
        Ok(Arc::new(Self {
            path: path.to_owned(),
            loaded: Mutex::new(Loaded { files, client }),
            refused: Notify::new(),
        }))
    }

    /// A client that always uses what was read last.
    pub(crate) fn client(self: &Arc<Self>) -> Client {
        let access = self.clone();
        let send = tower::service_fn(move |request: Request<Body>| {
            let access = access.clone();
            async move { access.send(request).await }
        });
        let namespace = self.current().default_namespace().to_owned();
        Client::new(send, namespace)
    }

    fn current(&self) -> Client {
        let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        loaded.client.clone()
    }

    async fn send(&self, request: Request<Body>) -> Result<Response<Body>, kube::Error> {
        let answer = self.current().send(request).await;
        let refused = match &answer {
            Ok(answer) => answer.status() == StatusCode::UNAUTHORIZED,
            // Its certificate may have changed, and with it who signs it.
            Err(_) => true,
        };
        if refused {
            self.refused.notify_one();
        }
        answer
    }

    /// Looks at the files until shutdown.
    pub(crate) async fn follow(self: Arc<Self>, shutdown: CancellationToken) {
        let mut refused = String::new();
        loop {
            tokio::select! {
                () = shutdown.cancelled() => return,
                () = self.refused.notified() => {}
                () = tokio::time::sleep(LOOK) => {}
            }
            match self.look().await {
                Ok(true) => tracing::info!("the hub's kubeconfig was read again"),
                Ok(false) => refused.clear(),
                Err(error) => {
                    let error = format!("{error:#}");
                    if refused != error {
                        tracing::warn!(error, "the hub's kubeconfig changed and cannot be used");
                        refused = error;
                    }
                }
            }
            tokio::time::sleep(LOOK_SHORTEST).await;
        }
    }

    /// Takes the files over if they changed; says whether they did.
    async fn look(&self) -> anyhow::Result<bool> {
        let files = Files::read(&self.path).await?;
        let same = {
            let loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
            loaded.files == files
        };
        if same {
            return Ok(false);
        }
        let client = files.client().await?;
        let mut loaded = self.loaded.lock().unwrap_or_else(PoisonError::into_inner);
        *loaded = Loaded { files, client };
        Ok(true)
    }
}

impl Files {
    async fn read(path: &Path) -> anyhow::Result<Self> {
        let kubeconfig = bytes(path).await?;
        let named = named(&kubeconfig)?;
        let mut files = vec![(path.to_owned(), kubeconfig)];
        for name in named {
            // As kubectl takes it: beside the kubeconfig.
            let beside = path.parent().unwrap_or(Path::new("")).join(name);
            let bytes = bytes(&beside).await?;
            files.push((beside, bytes));
        }
        Ok(Self(files))
    }

    async fn client(&self) -> anyhow::Result<Client> {
        let path = self.0.first().map(|(path, _)| path);
        let path = path.context("no kubeconfig")?;
        let file = Kubeconfig::read_from(path)?;
        let config = direct::config(file, &KubeConfigOptions::default()).await?;
        Ok(runtime::client(config)?)
    }
}

/// The files that a kubeconfig names.
fn named(kubeconfig: &[u8]) -> anyhow::Result<Vec<String>> {
    let parsed = Kubeconfig::from_yaml(std::str::from_utf8(kubeconfig)?)?;
    let clusters = parsed.clusters.into_iter().filter_map(|it| it.cluster);
    let certificates = clusters.filter_map(|it| it.certificate_authority);
    let users = parsed.auth_infos.into_iter().filter_map(|it| it.auth_info);
    let credentials = users.flat_map(|it| [it.client_certificate, it.client_key, it.token_file]);
    Ok(certificates.chain(credentials.flatten()).collect())
}

async fn bytes(path: &Path) -> anyhow::Result<Vec<u8>> {
    let about = || path.display().to_string();
    let file = tokio::fs::File::open(path).await.with_context(about)?;
    let mut bytes = Vec::new();
    let longest = FILE_BYTES_MAX + 1;
    file.take(longest)
        .read_to_end(&mut bytes)
        .await
        .with_context(about)?;
    anyhow::ensure!(
        u64::try_from(bytes.len())? <= FILE_BYTES_MAX,
        "{}: at most {FILE_BYTES_MAX} bytes are read",
        about()
    );
    Ok(bytes)
}

#[cfg(test)]
#[path = "access_tests.rs"]
mod tests;
