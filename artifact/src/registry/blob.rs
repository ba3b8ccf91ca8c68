//! Large blobs: streamed into a sink, hashed while written, resumed by range, stopped at the declared size.

use std::future::Future;
use std::io;

use backon::BackoffBuilder;
use reqwest::header::CONTENT_RANGE;
use reqwest::{Response, StatusCode};

use super::Client;
use super::body::Body;
use super::error::ClientError;
use super::transport::{Call, refused};
use crate::hash::Hasher;
use crate::manifest::Descriptor;
use crate::reference::Repository;
use crate::text::clip;

/// What a sink already holds of a blob.
#[derive(Debug)]
#[allow(clippy::large_enum_variant, reason = "one per download")]
pub enum Opened {
    /// All of it, checked by the sink: nothing is fetched.
    Complete,
    /// The first [`Hasher::bytes`] bytes, which the sink read back through the hasher; a fresh hasher for none.
    Partial(Hasher),
}

/// Where a blob's bytes go. One blob at a time: `open`, `write`…, then `commit` or `discard`.
///
/// A transfer that fails calls neither: what was written stays, for a later `open` to resume from.
pub trait BlobSink: Send {
    /// Says what is already there and gets ready to append.
    fn open(&mut self, blob: &Descriptor) -> impl Future<Output = io::Result<Opened>> + Send;

    /// Appends. The sum never exceeds the blob's declared size.
    fn write(&mut self, bytes: &[u8]) -> impl Future<Output = io::Result<()>> + Send;

    /// All bytes are written, and they hash to the blob's digest: makes them durable under that name.
    fn commit(&mut self, blob: &Descriptor) -> impl Future<Output = io::Result<()>> + Send;

    /// The bytes are not the blob's: throws them away.
    fn discard(&mut self, blob: &Descriptor) -> impl Future<Output = io::Result<()>> + Send;
}

impl Client {
    /// Streams one blob into a sink.
    ///
    /// Tries again from where it stopped while there is progress, and [`super::Pace::retries_max`] times
    /// without. Bytes that hash to something else are discarded.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn blob_to<S: BlobSink>(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        sink: &mut S,
    ) -> Result<(), ClientError> {
        let what = format!("{repository}@{}", blob.digest);
        let local = |source| ClientError::Local {
            what: what.clone(),
            source,
        };
        let mut hasher = match sink.open(blob).await.map_err(local)? {
            Opened::Complete => return Ok(()),
            Opened::Partial(hasher) => hasher,
        };
        if hasher.bytes() > blob.size_bytes {
            sink.discard(blob).await.map_err(local)?;
            return Err(ClientError::TooLarge {
                what,
                limit: blob.size_bytes,
            });
        }
        let delays = self.backoff();
        let mut waits = delays.build();
        while hasher.bytes() < blob.size_bytes {
            let before = hasher.bytes();
            let Err(error) = self.stretch(repository, blob, sink, &mut hasher).await else {
                break;
            };
            if !error.is_transient() {
                return Err(error);
            }
            // A dribble of progress must not buy endless retries: at least 1/64 of the blob, or a MiB.
            if hasher.bytes() - before >= (blob.size_bytes / 64).clamp(1, 1 << 20) {
                waits = delays.build();
            }
            let Some(wait) = waits.next() else {
                return Err(error);
            };
            tracing::debug!(%error, bytes = hasher.bytes(), "resuming a download");
            tokio::time::sleep(wait).await;
        }
        let actual = hasher.finish();
        if actual != blob.digest {
            sink.discard(blob).await.map_err(local)?;
            return Err(ClientError::Digest { what, actual });
        }
        sink.commit(blob).await.map_err(local)
    }

    /// One request, from where the hasher stands to the end of the blob.
    async fn stretch<S: BlobSink>(
        &self,
        repository: &Repository,
        blob: &Descriptor,
        sink: &mut S,
        hasher: &mut Hasher,
    ) -> Result<(), ClientError> {
        let path = format!("blobs/{}", blob.digest);
        let mut call = Call::get(repository, &path);
        call.offset = hasher.bytes();
        let response = self.send(&call, None).await?;
        // A registry that ignores ranges sends all again: what is already there is skipped, not hashed twice.
        let mut skip = check_range(&call, &response, blob)?;
        let overlong = || ClientError::TooLarge {
            what: call.what(),
            limit: blob.size_bytes,
        };
        let expected = blob.size_bytes - call.offset + skip;
        if response
            .content_length()
            .is_some_and(|length| length > expected)
        {
            return Err(overlong());
        }
        let mut body = Body::new(response, call.what(), self.inner.options.pace);
        while hasher.bytes() < blob.size_bytes {
            let Some(chunk) = body.next().await? else {
                return Err(ClientError::Transport {
                    what: call.what(),
                    message: format!(
                        "ended after {} of {} bytes",
                        hasher.bytes(),
                        blob.size_bytes
                    ),
                });
            };
            let skipped = usize::try_from(skip).unwrap_or(usize::MAX).min(chunk.len());
            skip -= skipped as u64;
            let fresh = &chunk[skipped..];
            if fresh.len() as u64 > blob.size_bytes - hasher.bytes() {
                return Err(overlong());
            }
            sink.write(fresh)
                .await
                .map_err(|source| ClientError::Local {
                    what: call.what(),
                    source,
                })?;
            hasher.update(fresh);
        }
        Ok(())
    }
}

/// How many bytes at the front of the answer are already there.
fn check_range(
    call: &Call<'_>,
    response: &Response,
    blob: &Descriptor,
) -> Result<u64, ClientError> {
    match response.status() {
        StatusCode::OK => Ok(call.offset),
        StatusCode::PARTIAL_CONTENT if call.offset > 0 => {
            let expected = format!(
                "bytes {}-{}/{}",
                call.offset,
                blob.size_bytes - 1,
                blob.size_bytes
            );
            let header = response.headers().get(CONTENT_RANGE);
            let actual = header
                .and_then(|value| value.to_str().ok())
                .unwrap_or("missing");
            if actual == expected {
                return Ok(0);
            }
            Err(refused(
                call,
                format!(
                    "Content-Range is \"{}\", not \"{expected}\"",
                    clip(actual, 80)
                ),
            ))
        }
        status => Err(refused(call, format!("status {status} for content"))),
    }
}
