//! The registry client: every read bounded in bytes, rate and time, and no credential ever leaves for another host.
//!
//! Owns how bytes come from a registry and go to one. It believes nothing of what a registry says beyond
//! transport: content is compared with its digest here, and judged in [`crate::verify`].
//!
//! Written on plain HTTP instead of a client library because those at hand read bodies without a bound, follow
//! redirects by themselves and send credentials to whatever token realm an answer names (docs/adr).

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use rimward_core::ids::Digest;
use tokio::sync::Mutex;

use crate::hash::sha256;
use crate::manifest::Descriptor;
use crate::media;
use crate::reference::{Reference, Repository};

mod auth;
mod blob;
mod body;
mod credentials;
mod error;
mod origin;
mod push;
mod signatures;
mod transport;

pub use blob::{BlobSink, Opened};
pub use credentials::{Credential, Credentials, CredentialsError};
pub use error::ClientError;
pub use push::BlobSource;

use transport::Call;

/// How long things may take, and how slow they may be.
#[derive(Debug, Clone, Copy)]
pub struct Pace {
    /// To open a connection.
    pub connect_timeout: Duration,
    /// Until an answer's headers are there.
    pub response_timeout: Duration,
    /// The time over which the rate of a body is measured.
    pub rate_window: Duration,
    /// The lowest rate of a body, averaged over a window.
    pub bytes_per_second_min: u64,
    /// For looking up all signatures of one package.
    pub signatures_deadline: Duration,
    /// How often a read that failed for a passing reason is tried again without getting any further.
    pub retries_max: usize,
    /// The first wait before a retry; it doubles.
    pub retry_delay: Duration,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(10),
            response_timeout: Duration::from_secs(30),
            rate_window: Duration::from_secs(20),
            // Below the worst links that a package is worth fetching over.
            bytes_per_second_min: 256,
            signatures_deadline: Duration::from_secs(60),
            retries_max: 4,
            retry_delay: Duration::from_millis(500),
        }
    }
}

/// Where reads for a registry really go. Filled from K3s's `registries.yaml` on a device.
#[derive(Debug, Clone, Default)]
pub struct Mirrors {
    hosts: BTreeMap<String, String>,
}

impl Mirrors {
    /// Sends requests for `registry` to `host[:port]` instead. What is pulled is the same by digest, and trust
    /// goes by the registry that the reference names.
    pub fn insert(&mut self, registry: &str, host: &str) {
        self.hosts.insert(registry.to_owned(), host.to_owned());
    }

    fn get(&self, registry: &str) -> Option<&str> {
        self.hosts.get(registry).map(String::as_str)
    }

    fn api_host<'a>(&'a self, registry: &'a str) -> &'a str {
        match self.get(registry) {
            Some(host) => host,
            // The one registry whose name and API host differ.
            None if registry == "docker.io" => "registry-1.docker.io",
            None => registry,
        }
    }
}

/// What a client is made from.
#[derive(Debug, Clone, Default)]
pub struct ClientOptions {
    /// Hosts (`host[:port]`) that may be spoken to without TLS, beside those on this machine.
    pub plain_http: BTreeSet<String>,
    /// This machine's own addresses are no registries unless `plain_http` names them: for a process that
    /// fetches what others name, and must not be sent to its own loopback or to a metadata service.
    pub internal_only_if_named: bool,
    /// User names and passwords by host.
    pub credentials: Credentials,
    /// Rewrite table.
    pub mirrors: Mirrors,
    /// Token realms on another host than their registry, by registry: credentials go there only if named here.
    pub token_realms: BTreeMap<String, String>,
    /// More certificate authorities, PEM, beside the system's.
    pub extra_roots_pem: Vec<u8>,
    /// Time and rate limits.
    pub pace: Pace,
}

/// A registry client. Cheap to clone.
#[derive(Clone)]
pub struct Client {
    inner: Arc<Inner>,
}

struct Inner {
    http: reqwest::Client,
    options: ClientOptions,
    tokens: Mutex<auth::Tokens>,
}

/// Bytes of a referrers index.
const INDEX_BYTES_MAX: u64 = 4 << 20;

impl Client {
    /// Makes a client.
    ///
    /// # Errors
    /// [`ClientError::Setup`] if the extra certificate authorities do not parse or TLS cannot be set up.
    pub fn new(options: ClientOptions) -> Result<Self, ClientError> {
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            // A race with the binary's main is harmless: both install the same provider.
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let setup = |error: reqwest::Error| ClientError::Setup(error::chain(&error));
        let mut builder = reqwest::Client::builder()
            .connect_timeout(options.pace.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .user_agent(concat!("rimward/", env!("CARGO_PKG_VERSION")));
        if !options.extra_roots_pem.is_empty() {
            let roots =
                reqwest::Certificate::from_pem_bundle(&options.extra_roots_pem).map_err(setup)?;
            builder = builder.tls_certs_merge(roots);
        }
        Ok(Self {
            inner: Arc::new(Inner {
                http: builder.build().map_err(setup)?,
                options,
                tokens: Mutex::default(),
            }),
        })
    }

    /// How long looking up all signatures of one package may take.
    #[must_use]
    pub fn signatures_deadline(&self) -> Duration {
        self.inner.options.pace.signatures_deadline
    }

    /// The digest that a reference means now. One with a digest is not asked about.
    ///
    /// Fetches the manifest and hashes it rather than believing a header.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::NotFound`] if there is no such tag.
    pub async fn resolve(&self, reference: &Reference) -> Result<Digest, ClientError> {
        if let Some(digest) = reference.digest() {
            return Ok(digest);
        }
        let tag = reference.tag().unwrap_or("latest");
        let bytes = self
            .manifest_at(
                reference.repository(),
                tag,
                crate::Limits::default().manifest_bytes_max,
            )
            .await?;
        Ok(sha256(&bytes))
    }

    /// The raw bytes of a manifest, equal to their digest.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn manifest(
        &self,
        repository: &Repository,
        digest: Digest,
        bytes_max: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let bytes = self
            .manifest_at(repository, &digest.to_string(), bytes_max)
            .await?;
        matching(repository, digest, bytes)
    }

    /// The raw bytes of whatever manifest or index has that tag or digest.
    async fn manifest_at(
        &self,
        repository: &Repository,
        name: &str,
        bytes_max: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let path = format!("manifests/{name}");
        let accept = [media::OCI_MANIFEST, media::OCI_INDEX].join(", ");
        let call = Call::get(repository, &path).accept(&accept);
        self.get_bounded(&call, bytes_max).await
    }

    /// A small blob, equal to its digest and its declared size.
    ///
    /// # Errors
    /// [`ClientError`]; [`ClientError::TooLarge`] if it declares more than `bytes_max`.
    pub async fn blob_bytes(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        bytes_max: u64,
    ) -> Result<Vec<u8>, ClientError> {
        self.small_blob(repository, blob.digest, blob.size_bytes.min(bytes_max))
            .await
    }

    async fn small_blob(
        &self,
        repository: &Repository,
        digest: Digest,
        bytes_max: u64,
    ) -> Result<Vec<u8>, ClientError> {
        let path = format!("blobs/{digest}");
        let bytes = self
            .get_bounded(&Call::get(repository, &path), bytes_max)
            .await?;
        matching(repository, digest, bytes)
    }
}

impl std::fmt::Debug for Client {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Client").finish_non_exhaustive()
    }
}

fn matching(
    repository: &Repository,
    digest: Digest,
    bytes: Vec<u8>,
) -> Result<Vec<u8>, ClientError> {
    let actual = sha256(&bytes);
    if actual == digest {
        return Ok(bytes);
    }
    Err(ClientError::Digest {
        what: format!("{repository}@{digest}"),
        actual,
    })
}
