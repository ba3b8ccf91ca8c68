//! Finding signatures: the referrers API, else the tag `sha256-<hex>`, else `sha256-<hex>.sig`.
//!
//! A listing only orders the work: every candidate's manifest is opened and looked at itself. One that cannot be
//! read is passed over, so that a bad one never hides a good one; the counts and sizes are bounded.

use std::collections::BTreeMap;

use reqwest::{Method, Url};
use rimward_core::ids::Digest;
use serde::Deserialize;
use serde::de::IgnoredAny;

use super::error::ClientError;
use super::transport::{Call, Target};
use super::{Client, INDEX_BYTES_MAX};
use crate::json::{self, JsonLimits};
use crate::media;
use crate::reference::Repository;
use crate::verify::{
    CANDIDATE_BYTES_MAX, CANDIDATES_MAX, CandidateFormat, SignatureCandidate, SignatureSource,
};

/// Bytes of a signature's own manifest.
const SIGNATURE_MANIFEST_BYTES_MAX: u64 = 64 << 10;
/// Values in a listing: ten thousand entries with a few fields each.
const INDEX_NODES_MAX: u32 = 400_000;
/// Pages of one listing that are read.
const PAGES_MAX: usize = 8;
const SIGNATURE_ANNOTATION: &str = "dev.cosignproject.cosign/signature";
const PREDICATE_ANNOTATION: &str = "dev.sigstore.bundle.predicateType";
const COSIGN_PREDICATE: &str = "https://sigstore.dev/cosign/sign/v1";

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Index {
    #[serde(default)]
    manifests: Vec<Listed>,
}

/// One entry of a listing. Anybody who may push can add one, so one that does not fit is dropped alone: other
/// digests than SHA-256 are legal, and an annotation may be odd.
#[derive(Deserialize)]
#[serde(untagged)]
enum Listed {
    Fits(Entry),
    Other(IgnoredAny),
}

/// The entries of a listing that fit, best first.
fn listed(what: &str, bytes: &[u8]) -> Result<Vec<Entry>, ClientError> {
    let limits = JsonLimits {
        nodes_max: INDEX_NODES_MAX,
        // Annotations come from every signature's author, and may differ in case only.
        keys_may_repeat: true,
        ..JsonLimits::small(INDEX_BYTES_MAX)
    };
    let index: Index =
        json::parse("referrers", bytes, limits).map_err(|error| ClientError::Refused {
            what: what.to_owned(),
            message: error.to_string(),
        })?;
    let fits = |listed| match listed {
        Listed::Fits(entry) => Some(entry),
        Listed::Other(IgnoredAny) => None,
    };
    let mut entries: Vec<Entry> = index.manifests.into_iter().filter_map(fits).collect();
    entries.sort_by_key(unlikeliness);
    Ok(entries)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Entry {
    digest: Digest,
    artifact_type: Option<String>,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct SignatureManifest {
    subject: Option<Subject>,
    #[serde(default)]
    layers: Vec<Layer>,
}

#[derive(Deserialize)]
struct Subject {
    digest: Digest,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Layer {
    media_type: String,
    digest: Digest,
    size: u64,
    #[serde(default)]
    annotations: Option<BTreeMap<String, String>>,
}

impl Client {
    /// Adds the candidates that one source has for a package, until there are [`CANDIDATES_MAX`].
    ///
    /// A source that has none adds none. The caller sets the deadline; what was found by then stays in `found`.
    ///
    /// # Errors
    /// [`ClientError`] if the source itself could not be read.
    pub async fn signatures(
        &self,
        repository: &Repository,
        digest: Digest,
        source: SignatureSource,
        found: &mut Vec<SignatureCandidate>,
    ) -> Result<(), ClientError> {
        let tag = format!("sha256-{}", digest.hex());
        let outcome = match source {
            SignatureSource::Referrers => {
                let path = format!("referrers/{digest}");
                let call = Call::get(repository, &path).accept(media::OCI_INDEX);
                self.get_page(&call, INDEX_BYTES_MAX).await
            }
            SignatureSource::ReferrersTag => {
                let index = self.manifest_at(repository, &tag, INDEX_BYTES_MAX);
                index.await.map(|bytes| (bytes, None))
            }
            SignatureSource::SignatureTag => {
                let tag = format!("{tag}.sig");
                let manifest = self.manifest_at(repository, &tag, SIGNATURE_MANIFEST_BYTES_MAX);
                manifest.await.map(|bytes| (bytes, None))
            }
            SignatureSource::File => return Ok(()),
        };
        let (bytes, next) = match outcome {
            Ok(page) => page,
            Err(ClientError::NotFound { .. }) => return Ok(()),
            // Registries without the API answer all kinds of things; the tags are tried next.
            Err(ClientError::Status { status, .. })
                if source == SignatureSource::Referrers && (400..500).contains(&status) =>
            {
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if source == SignatureSource::SignatureTag {
            self.layers(repository, None, source, &bytes, found).await;
            return Ok(());
        }
        let mut entries = listed(&format!("referrers of {repository}@{digest}"), &bytes)?;
        // What the first pages named is looked at even where a later one cannot be read.
        let rest = self.further(repository, digest, next, &mut entries).await;
        for entry in entries.iter().take(CANDIDATES_MAX) {
            if found.len() >= CANDIDATES_MAX {
                break;
            }
            match self
                .manifest(repository, entry.digest, SIGNATURE_MANIFEST_BYTES_MAX)
                .await
            {
                Ok(bytes) => {
                    self.layers(repository, Some(digest), source, &bytes, found)
                        .await;
                }
                Err(error) => {
                    tracing::debug!(%error, "passing over a signature that cannot be read");
                }
            }
        }
        rest
    }

    /// Adds the entries of a listing's further pages, and keeps the best [`CANDIDATES_MAX`].
    async fn further(
        &self,
        repository: &Repository,
        digest: Digest,
        mut next: Option<Url>,
        entries: &mut Vec<Entry>,
    ) -> Result<(), ClientError> {
        for _ in 1..PAGES_MAX {
            entries.truncate(CANDIDATES_MAX);
            let Some(url) = next else { return Ok(()) };
            let call =
                Call::new(Method::GET, repository, Target::Url(url)).accept(media::OCI_INDEX);
            let (bytes, after) = self.get_page(&call, INDEX_BYTES_MAX).await?;
            entries.extend(listed(
                &format!("referrers of {repository}@{digest}"),
                &bytes,
            )?);
            entries.sort_by_key(unlikeliness);
            next = after;
        }
        Ok(())
    }

    /// Adds the signatures among a manifest's layers.
    async fn layers(
        &self,
        repository: &Repository,
        subject: Option<Digest>,
        source: SignatureSource,
        manifest: &[u8],
        found: &mut Vec<SignatureCandidate>,
    ) {
        let limits = JsonLimits::small(SIGNATURE_MANIFEST_BYTES_MAX);
        let Ok(manifest) = json::parse::<SignatureManifest>("signature manifest", manifest, limits)
        else {
            return;
        };
        // What it says it is about only saves work: the signed payload decides.
        if subject.is_some_and(|subject| {
            manifest
                .subject
                .as_ref()
                .is_some_and(|named| named.digest != subject)
        }) {
            return;
        }
        for layer in manifest.layers.iter().take(CANDIDATES_MAX) {
            let Some(format) = format_of(layer) else {
                continue;
            };
            if layer.size > CANDIDATE_BYTES_MAX as u64 || found.len() >= CANDIDATES_MAX {
                continue;
            }
            match self.small_blob(repository, layer.digest, layer.size).await {
                Ok(bytes) => found.push(SignatureCandidate {
                    format,
                    source,
                    bytes,
                }),
                Err(error) => {
                    tracing::debug!(%error, "passing over a signature that cannot be read");
                }
            }
        }
    }
}

fn format_of(layer: &Layer) -> Option<CandidateFormat> {
    match layer.media_type.as_str() {
        media::SIGSTORE_BUNDLE_V03 => Some(CandidateFormat::SigstoreBundleV03),
        media::SIMPLE_SIGNING => {
            let signature = layer.annotations.as_ref()?.get(SIGNATURE_ANNOTATION)?;
            Some(CandidateFormat::SimpleSigning {
                signature: signature.clone(),
            })
        }
        _ => None,
    }
}

/// Looked at first: what the listing says is a cosign signature, then what may be one. Registries have been seen to
/// list a bundle under the type of its empty config, so the type decides less than the annotation.
fn unlikeliness(entry: &Entry) -> u8 {
    let annotations = entry.annotations.as_ref();
    let predicate = annotations.and_then(|all| all.get(PREDICATE_ANNOTATION));
    match (
        predicate.map(String::as_str),
        entry.artifact_type.as_deref(),
    ) {
        (Some(COSIGN_PREDICATE), _) => 0,
        (None, Some(media::SIGSTORE_BUNDLE_V03)) => 1,
        (None, _) => 2,
        (Some(_), _) => 3,
    }
}
