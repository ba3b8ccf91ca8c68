//! Bodies: read in chunks, with a cap on bytes and a minimum rate.

use bytes::Bytes;
use reqwest::Response;
use tokio::time::Instant;

use super::Pace;
use super::error::{ClientError, chain};

/// A body being read, chunk by chunk, refused when it comes too slowly.
pub(super) struct Body {
    response: Response,
    what: String,
    pace: Pace,
    window_end: Instant,
    window_bytes: u64,
}

impl Body {
    pub(super) fn new(response: Response, what: String, pace: Pace) -> Self {
        Self {
            response,
            what,
            pace,
            window_end: Instant::now() + pace.rate_window,
            window_bytes: 0,
        }
    }

    /// The next chunk, none at the end.
    pub(super) async fn next(&mut self) -> Result<Option<Bytes>, ClientError> {
        loop {
            match tokio::time::timeout_at(self.window_end, self.response.chunk()).await {
                Ok(Ok(chunk)) => {
                    self.window_bytes += chunk.as_ref().map_or(0, Bytes::len) as u64;
                    return Ok(chunk);
                }
                Ok(Err(error)) => {
                    return Err(ClientError::Transport {
                        what: self.what.clone(),
                        message: chain(&error.without_url()),
                    });
                }
                Err(_) => self.close_window()?,
            }
        }
    }

    fn close_window(&mut self) -> Result<(), ClientError> {
        let needed = self.pace.bytes_per_second_min * self.pace.rate_window.as_secs().max(1);
        if self.window_bytes < needed {
            return Err(ClientError::TooSlow {
                what: self.what.clone(),
                bytes_per_second_min: self.pace.bytes_per_second_min,
            });
        }
        self.window_bytes = 0;
        self.window_end = Instant::now() + self.pace.rate_window;
        Ok(())
    }

    /// The whole body, refused as soon as it is longer than `bytes_max`, whatever its header promised.
    pub(super) async fn collect(mut self, bytes_max: u64) -> Result<Vec<u8>, ClientError> {
        let too_large = |what: &str| ClientError::TooLarge {
            what: what.to_owned(),
            limit: bytes_max,
        };
        if self
            .response
            .content_length()
            .is_some_and(|length| length > bytes_max)
        {
            return Err(too_large(&self.what));
        }
        let mut bytes = Vec::new();
        while let Some(chunk) = self.next().await? {
            if bytes.len() as u64 + chunk.len() as u64 > bytes_max {
                return Err(too_large(&self.what));
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes)
    }
}
