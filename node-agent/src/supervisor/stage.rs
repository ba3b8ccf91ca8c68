//! Staging: fetch the small parts, verify them, choose a variant, then bring in the files it needs.
//!
//! Owns the order of these steps. Must never fetch a layer of a package that was not verified, nor
//! make room by deleting.

use std::collections::BTreeMap;
use std::io;

use rimward_artifact::fetch::{self, FetchError};
use rimward_artifact::hash::Hasher;
use rimward_artifact::manifest::{Descriptor, Manifest};
use rimward_artifact::package::PackageConfig;
use rimward_artifact::reference::Repository;
use rimward_artifact::registry::{BlobSink, Client, ClientError, Opened};
use rimward_artifact::verify::{Disposition, SignatureSet};
use rimward_core::ids::Digest;
use rimward_core::node::{Problem, Reason};
use rimward_core::variant::{self, Choice, Device, Variant};
use rimward_crds::NodeModel;

use super::check::{Checker, file, told, words};
use crate::parse::{Install, Key};
use crate::store::{BlobError, Blobs, Ingest};

/// Bytes left free on the file system after staging: the state record must always find room.
const RESERVE_BYTES: u64 = 64 << 20;

/// Why staging did not end well.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum StageError {
    /// Something that may pass by itself.
    Blocked(Problem),
    /// This package can never run here.
    Refused(Problem),
}

/// What staging works with.
#[derive(Debug)]
pub(super) struct Stage {
    /// The registry client.
    pub client: Client,
    /// Store, trust and limits.
    pub checker: Checker,
    /// What variants are chosen by.
    pub device: Device,
    /// Which deployment.
    pub key: Key,
    /// Where the package is.
    pub repository: Repository,
    /// Digest of its manifest.
    pub package: Digest,
    /// The order, verbatim.
    pub entry: NodeModel,
}

impl Stage {
    /// Stages; afterwards everything that running the version needs is durable. Gives the digest of
    /// the stored install order.
    ///
    /// # Errors
    /// [`StageError`].
    pub(super) async fn run(self) -> Result<Digest, StageError> {
        let folder = self.key.folder();
        let stored = self
            .checker
            .versions
            .get(&folder, self.package)
            .ok()
            .and_then(|files| files.into_iter().find(|(name, _)| name == file::SIGNATURES))
            .and_then(|(_, bytes)| SignatureSet::parse(&bytes).ok());
        let fetched = fetch::package(
            &self.client,
            &self.checker.trust,
            &self.checker.limits,
            &self.repository,
            self.package,
            stored,
            0,
        )
        .await
        .map_err(|error| fetch_error(&error))?;
        // Once more with the device's own floor for the family.
        self.checker
            .config(&fetched.manifest, &fetched.config_bytes)
            .map_err(|refusal| StageError::Blocked(super::check::problem(&refusal)))?;
        let choice = choose(&self.device, &fetched.config).map_err(StageError::Refused)?;
        for passed in &choice.passed_over {
            tracing::info!(deployment = %self.key, variant = passed.variant, reason = %passed.misfit, "variant passed over");
        }
        let chosen = fetched
            .config
            .variants
            .get(choice.index)
            .ok_or_else(|| internal("the chosen variant is not in the package"))?;
        let needed = needed(&fetched.manifest, chosen.digest);
        self.check_room(&needed)?;
        let mut sink = StoreSink::new(self.checker.blobs.clone());
        for blob in needed.values() {
            let got = self
                .client
                .blob_to(fetched.manifest.repository(), blob, &mut sink)
                .await;
            got.map_err(|error| fetch_error(&FetchError::Registry(error)))?;
        }
        let install = Install {
            entry: self.entry.clone(),
            variant: chosen.name.to_string(),
            backend: choice.backend,
        };
        let install = serde_json::to_vec(&install)
            .map_err(|error| internal(format!("install order: {error}")))?;
        let files = [
            (file::MANIFEST.to_owned(), fetched.manifest_bytes),
            (file::CONFIG.to_owned(), fetched.config_bytes),
            (file::SIGNATURES.to_owned(), fetched.signatures.to_bytes()),
        ];
        let (checker, package) = (self.checker.clone(), self.package);
        let stored = tokio::task::spawn_blocking(move || {
            checker
                .versions
                .put(&folder, package, &files)
                .map_err(|error| disk("version files", &error))?;
            checker
                .blobs
                .put(&install)
                .map_err(|error| blob_error(&error))
        });
        stored
            .await
            .map_err(|error| internal(format!("store: {error}")))?
    }

    fn check_room(&self, needed: &BTreeMap<Digest, Descriptor>) -> Result<(), StageError> {
        let blobs = &self.checker.blobs;
        let missing: u64 = needed
            .values()
            .filter(|blob| !blobs.has(blob.digest))
            .map(|blob| blob.size_bytes)
            .sum();
        let available = blobs
            .available_bytes()
            .map_err(|error| disk("data folder", &error))?;
        let wanted = missing.saturating_add(RESERVE_BYTES);
        if wanted > available {
            return Err(StageError::Blocked(Problem::new(
                Reason::NO_SPACE,
                format!(
                    "the package needs {missing} bytes and {RESERVE_BYTES} stay free, \
                     {available} are available"
                ),
            )));
        }
        Ok(())
    }
}

/// Module, golden vectors and the one variant's weights.
fn needed(manifest: &Manifest, weights: Digest) -> BTreeMap<Digest, Descriptor> {
    let weights = manifest
        .weights
        .iter()
        .filter(|layer| layer.descriptor.digest == weights);
    manifest
        .golden
        .iter()
        .chain(&manifest.module)
        .chain(weights)
        .map(|layer| (layer.descriptor.digest, layer.descriptor.clone()))
        .collect()
}

fn choose(device: &Device, config: &PackageConfig) -> Result<Choice, Problem> {
    let names = |labels: &[rimward_artifact::package::names::Label]| {
        labels.iter().map(ToString::to_string).collect::<Vec<_>>()
    };
    let variants: Vec<Variant> = config
        .variants
        .iter()
        .map(|variant| Variant {
            name: variant.name.to_string(),
            format: variant.format.to_string(),
            backends: names(&variant.requires.backends),
            architectures: names(&variant.requires.architectures),
            accelerator: variant
                .requires
                .accelerator
                .as_ref()
                .map(ToString::to_string),
        })
        .collect();
    variant::choose(device, &variants)
        .map_err(|none| Problem::new(Reason::NO_VARIANT_FITS, none.to_string()))
}

fn internal(what: impl AsRef<str>) -> StageError {
    StageError::Blocked(Problem::new(Reason::FETCH_FAILED, what))
}

fn fetch_error(error: &FetchError) -> StageError {
    if let FetchError::Registry(ClientError::Local { source, .. }) = error {
        return disk("download", source);
    }
    let problem = told(error.reason(), &words(error));
    match error.disposition() {
        Disposition::Blocked => StageError::Blocked(problem),
        Disposition::Bad => StageError::Refused(problem),
    }
}

fn blob_error(error: &BlobError) -> StageError {
    match error {
        BlobError::Io { source, .. } => disk("blob", source),
        BlobError::TooLong { .. } | BlobError::Mismatch { .. } | BlobError::Missing(_) => {
            internal(words(error))
        }
    }
}

fn disk(what: &str, error: &io::Error) -> StageError {
    let reason = match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Reason::NO_SPACE,
        _ => Reason::FETCH_FAILED,
    };
    StageError::Blocked(Problem::new(reason, format!("{what}: {}", words(error))))
}

/// Streams downloads into the store.
#[derive(Debug)]
struct StoreSink {
    blobs: Blobs,
    ingest: Option<Ingest>,
}

impl StoreSink {
    fn new(blobs: Blobs) -> Self {
        Self {
            blobs,
            ingest: None,
        }
    }
}

fn to_io(error: BlobError) -> io::Error {
    match error {
        BlobError::Io { source, .. } => source,
        other => io::Error::other(other),
    }
}

impl BlobSink for StoreSink {
    async fn open(&mut self, blob: &Descriptor) -> io::Result<Opened> {
        let (blobs, digest, size) = (self.blobs.clone(), blob.digest, blob.size_bytes);
        let opened = tokio::task::spawn_blocking(move || {
            if blobs.verified(digest).is_ok() {
                return Ok(None);
            }
            let mut hasher = Hasher::new();
            let ingest = blobs.resume(digest, size, |bytes| hasher.update(bytes))?;
            Ok(Some((ingest, hasher)))
        });
        match opened.await.map_err(io::Error::other)?.map_err(to_io)? {
            None => Ok(Opened::Complete),
            Some((mut ingest, hasher)) => {
                // A transfer that breaks off is resumed by the next try.
                ingest.keep();
                self.ingest = Some(ingest);
                Ok(Opened::Partial(hasher))
            }
        }
    }

    async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        match &mut self.ingest {
            Some(ingest) => ingest.write(bytes).map_err(to_io),
            None => Err(io::Error::other("no blob is open")),
        }
    }

    async fn commit(&mut self, _blob: &Descriptor) -> io::Result<()> {
        let Some(ingest) = self.ingest.take() else {
            return Err(io::Error::other("no blob is open"));
        };
        tokio::task::spawn_blocking(move || ingest.finish())
            .await
            .map_err(io::Error::other)?
            .map_err(to_io)
    }

    async fn discard(&mut self, _blob: &Descriptor) -> io::Result<()> {
        if let Some(ingest) = self.ingest.take() {
            ingest.discard();
        }
        Ok(())
    }
}
