//! Pushing: blobs streamed from files or memory, then the manifest.

use std::io;
use std::path::PathBuf;

use backon::Retryable;
use bytes::Bytes;
use futures::stream;
use reqwest::Method;
use reqwest::header::LOCATION;
use rimward_core::ids::Digest;
use tokio::io::AsyncReadExt;

use super::Client;
use super::error::ClientError;
use super::origin::same_origin;
use super::transport::{Call, Target, refused};
use crate::media;
use crate::reference::Repository;

/// Bytes read from a file at a time.
const CHUNK_BYTES: usize = 256 << 10;

/// Where a blob's bytes come from. Reopened for each try.
#[derive(Debug, Clone)]
pub enum BlobSource {
    /// Bytes in memory.
    Bytes(Bytes),
    /// A file, never held in memory as a whole.
    File(PathBuf),
}

impl BlobSource {
    /// A request body, fresh from the start.
    pub(super) async fn body(&self, call: &Call<'_>) -> Result<reqwest::Body, ClientError> {
        match self {
            Self::Bytes(bytes) => Ok(reqwest::Body::from(bytes.clone())),
            Self::File(path) => match tokio::fs::File::open(path).await {
                Ok(file) => Ok(reqwest::Body::wrap_stream(chunks(file))),
                Err(source) => Err(ClientError::Local {
                    what: call.what(),
                    source,
                }),
            },
        }
    }
}

impl Client {
    /// Uploads a blob unless the registry has it already; says whether it was uploaded.
    ///
    /// # Errors
    /// [`ClientError`]; the registry compares the digest, so a file that changed meanwhile is refused there.
    pub async fn push_blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size_bytes: u64,
        source: &BlobSource,
    ) -> Result<bool, ClientError> {
        let attempt = || self.try_push_blob(repository, digest, size_bytes, source);
        attempt
            .retry(self.backoff())
            .when(ClientError::is_transient)
            .await
    }

    async fn try_push_blob(
        &self,
        repository: &Repository,
        digest: Digest,
        size_bytes: u64,
        source: &BlobSource,
    ) -> Result<bool, ClientError> {
        let path = format!("blobs/{digest}");
        let call = Call::new(Method::HEAD, repository, Target::Path(&path));
        match self.send(&call, None).await {
            Ok(_) => return Ok(false),
            // Without the right to ask one may still have the right to write.
            Err(ClientError::NotFound { .. } | ClientError::Denied { .. }) => {}
            Err(error) => return Err(error),
        }
        let start = Call::new(Method::POST, repository, Target::Path("blobs/uploads/"));
        let empty = BlobSource::Bytes(Bytes::new());
        let response = self.send(&start, Some((&empty, 0))).await?;
        let location = response
            .headers()
            .get(LOCATION)
            .and_then(|value| value.to_str().ok());
        let home = response.url().clone();
        let mut url = location
            .and_then(|location| home.join(location).ok())
            .ok_or_else(|| refused(&start, "no readable upload location".to_owned()))?;
        if !same_origin(&url, &home) {
            self.check_elsewhere(&start, &home, &url, "upload location")?;
        }
        url.query_pairs_mut()
            .append_pair("digest", &digest.to_string());
        let mut call = Call::new(Method::PUT, repository, Target::Url(url));
        call.content_type = Some("application/octet-stream");
        self.send(&call, Some((source, size_bytes))).await?;
        Ok(true)
    }

    /// Puts a manifest at its digest or at a tag.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn push_manifest(
        &self,
        repository: &Repository,
        name: &str,
        bytes: &[u8],
    ) -> Result<(), ClientError> {
        let path = format!("manifests/{name}");
        let mut call = Call::new(Method::PUT, repository, Target::Path(&path));
        call.content_type = Some(media::OCI_MANIFEST);
        let source = BlobSource::Bytes(Bytes::copy_from_slice(bytes));
        let attempt = || self.send(&call, Some((&source, bytes.len() as u64)));
        attempt
            .retry(self.backoff())
            .when(ClientError::is_transient)
            .await?;
        Ok(())
    }
}

fn chunks(file: tokio::fs::File) -> impl futures::Stream<Item = io::Result<Bytes>> + Send {
    stream::try_unfold(file, |mut file| async move {
        let mut buffer = vec![0; CHUNK_BYTES];
        let length = file.read(&mut buffer).await?;
        if length == 0 {
            return Ok(None);
        }
        buffer.truncate(length);
        Ok(Some((Bytes::from(buffer), file)))
    })
}
