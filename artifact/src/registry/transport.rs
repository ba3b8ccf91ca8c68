//! One request: sent, challenged, redirected, tried again, and its answer judged.

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::Client;
use super::body::Body;
use super::error::{ClientError, chain};
use super::origin::{authority, next_page, same_origin};
use super::push::BlobSource;
use crate::reference::Repository;
use crate::text::clip;

/// Redirects that one request follows.
const REDIRECTS_MAX: usize = 5;
/// Bytes of an error body that are read for its message.
const ERROR_BYTES_MAX: u64 = 4096;

/// A request to be.
#[derive(Debug, Clone)]
pub(super) struct Call<'a> {
    pub(super) method: Method,
    pub(super) repository: &'a Repository,
    /// Below `/v2/<repository>/`, or an absolute upload URL the registry gave.
    pub(super) target: Target<'a>,
    pub(super) accept: Option<&'a str>,
    pub(super) content_type: Option<&'a str>,
    /// First byte wanted.
    pub(super) offset: u64,
}

#[derive(Debug, Clone)]
pub(super) enum Target<'a> {
    Path(&'a str),
    Url(Url),
}

impl<'a> Call<'a> {
    pub(super) fn new(method: Method, repository: &'a Repository, target: Target<'a>) -> Self {
        Self {
            method,
            repository,
            target,
            accept: None,
            content_type: None,
            offset: 0,
        }
    }

    pub(super) fn get(repository: &'a Repository, path: &'a str) -> Self {
        Self::new(Method::GET, repository, Target::Path(path))
    }

    pub(super) fn accept(mut self, accept: &'a str) -> Self {
        self.accept = Some(accept);
        self
    }

    /// For errors: never a full URL, whose query may carry a signature.
    pub(super) fn what(&self) -> String {
        match &self.target {
            Target::Path(path) => format!("{} {}/{path}", self.method, self.repository),
            Target::Url(_) if self.is_read() => {
                format!("{} further page of {}", self.method, self.repository)
            }
            Target::Url(_) => format!("{} upload to {}", self.method, self.repository),
        }
    }

    pub(super) fn is_read(&self) -> bool {
        self.method == Method::GET || self.method == Method::HEAD
    }

    pub(super) fn scope(&self) -> String {
        let actions = if self.is_read() { "pull" } else { "pull,push" };
        format!("repository:{}:{actions}", self.repository.path())
    }
}

impl Client {
    /// Reads a whole small answer; tries again what may pass by itself.
    pub(super) async fn get_bounded(
        &self,
        call: &Call<'_>,
        bytes_max: u64,
    ) -> Result<Vec<u8>, ClientError> {
        Ok(self.get_page(call, bytes_max).await?.0)
    }

    /// As [`Self::get_bounded`], and where the answer goes on, if it says so in a `Link`.
    ///
    /// A link elsewhere than this repository on the registry's own origin is no link.
    pub(super) async fn get_page(
        &self,
        call: &Call<'_>,
        bytes_max: u64,
    ) -> Result<(Vec<u8>, Option<Url>), ClientError> {
        let pace = self.inner.options.pace;
        let home = self.home(call)?;
        let attempt = || async {
            let response = self.send(call, None).await?;
            let inside = format!("/v2/{}/", call.repository.path());
            let next = next_page(response.headers(), response.url())
                .filter(|url| same_origin(url, &home) && url.path().starts_with(&inside));
            let body = Body::new(response, call.what(), pace);
            Ok((body.collect(bytes_max).await?, next))
        };
        attempt
            .retry(self.backoff())
            .when(ClientError::is_transient)
            .await
    }

    /// The waits between tries.
    pub(super) fn backoff(&self) -> ExponentialBuilder {
        let pace = self.inner.options.pace;
        ExponentialBuilder::default()
            .with_min_delay(pace.retry_delay)
            .with_max_times(pace.retries_max)
            .with_jitter()
    }

    /// Sends one request and gives a successful answer, its body unread.
    pub(super) async fn send(
        &self,
        call: &Call<'_>,
        body: Option<(&BlobSource, u64)>,
    ) -> Result<Response, ClientError> {
        let home = self.home(call)?;
        let mut url = match &call.target {
            Target::Path(path) => home
                .join(&format!("/v2/{}/{path}", call.repository.path()))
                .map_err(|error| refused(call, format!("makes no URL: {error}")))?,
            Target::Url(url) => url.clone(),
        };
        let mut challenged = false;
        for _ in 0..=REDIRECTS_MAX {
            let at_home = same_origin(&url, &home);
            let authorization = if at_home {
                self.authorization(call).await
            } else {
                None
            };
            let response = self
                .exchange(call, &url, authorization.as_deref(), body)
                .await?;
            let status = response.status();
            if status == StatusCode::UNAUTHORIZED && at_home && !challenged {
                challenged = true;
                self.answer_challenge(call, &home, response.headers())
                    .await?;
                continue;
            }
            if status.is_redirection() && status != StatusCode::NOT_MODIFIED {
                url = self.redirected(call, &home, &url, response.headers())?;
                continue;
            }
            return self.judge(call, response).await;
        }
        Err(refused(
            call,
            format!("more than {REDIRECTS_MAX} redirects"),
        ))
    }

    async fn exchange(
        &self,
        call: &Call<'_>,
        url: &Url,
        authorization: Option<&str>,
        body: Option<(&BlobSource, u64)>,
    ) -> Result<Response, ClientError> {
        let mut request = self
            .inner
            .http
            .request(call.method.clone(), url.clone())
            // Digests are of bytes as stored; a compressed answer would be another length and another bomb.
            .header(ACCEPT_ENCODING, "identity");
        if let Some(accept) = call.accept {
            request = request.header(ACCEPT, accept);
        }
        if let Some(content_type) = call.content_type {
            request = request.header(CONTENT_TYPE, content_type);
        }
        if let Some(authorization) = authorization {
            request = request.header(AUTHORIZATION, authorization);
        }
        if call.offset > 0 {
            request = request.header(RANGE, format!("bytes={}-", call.offset));
        }
        let mut timeout = self.inner.options.pace.response_timeout;
        if let Some((source, length)) = body {
            // The answer comes after the body went up, at the minimum rate at worst.
            let pace = self.inner.options.pace;
            timeout += std::time::Duration::from_secs(length / pace.bytes_per_second_min.max(1));
            request = request
                .header(CONTENT_LENGTH, length)
                .body(source.body(call).await?);
        }
        match tokio::time::timeout(timeout, request.send()).await {
            Ok(Ok(response)) => Ok(response),
            Ok(Err(error)) => Err(ClientError::Transport {
                what: call.what(),
                message: format!("{}: {}", authority(url), chain(&error.without_url())),
            }),
            Err(_) => Err(ClientError::Timeout {
                what: call.what(),
                seconds: timeout.as_secs(),
            }),
        }
    }

    async fn judge(&self, call: &Call<'_>, response: Response) -> Result<Response, ClientError> {
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let what = call.what();
        match status {
            StatusCode::NOT_FOUND => Err(ClientError::NotFound { what }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => {
                Err(self.denied(call, status.as_u16()))
            }
            _ => {
                let body = Body::new(response, what.clone(), self.inner.options.pace);
                let text = body.collect(ERROR_BYTES_MAX).await.unwrap_or_default();
                let text = clip(String::from_utf8_lossy(&text).trim(), 200);
                Err(ClientError::Status {
                    what,
                    status: status.as_u16(),
                    message: if text.is_empty() {
                        text
                    } else {
                        format!(": {text}")
                    },
                })
            }
        }
    }
}

pub(super) fn refused(call: &Call<'_>, message: String) -> ClientError {
    ClientError::Refused {
        what: call.what(),
        message: clip(&message, 300),
    }
}
