//! One request: where it goes, what it may carry there, and which redirects it follows.

use std::net::IpAddr;

use backon::{ExponentialBuilder, Retryable};
use reqwest::header::{
    ACCEPT, ACCEPT_ENCODING, AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, HeaderMap, LINK,
    LOCATION, RANGE,
};
use reqwest::{Method, Response, StatusCode, Url};

use super::Client;
use super::body::Body;
use super::error::{ClientError, chain};
use super::push::BlobSource;
use crate::reference::{Repository, is_loopback};
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

    fn is_read(&self) -> bool {
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
        let (what, host) = (call.what(), self.credential_host(call));
        match status {
            StatusCode::NOT_FOUND => Err(ClientError::NotFound { what }),
            StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN => Err(ClientError::Denied {
                what,
                status: status.as_u16(),
                host: host.to_owned(),
                credentials: match self.inner.options.credentials.get(host) {
                    Some(_) => "given",
                    None => "none",
                },
            }),
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

    /// The registry's own origin: TLS, unless it is on this machine or was named by a person.
    fn home(&self, call: &Call<'_>) -> Result<Url, ClientError> {
        let host = self
            .inner
            .options
            .mirrors
            .api_host(call.repository.registry());
        let scheme = if self.allows_plain_http(host) {
            "http"
        } else {
            "https"
        };
        let home = Url::parse(&format!("{scheme}://{host}/"))
            .map_err(|error| refused(call, format!("{host} makes no URL: {error}")))?;
        let options = &self.inner.options;
        if options.internal_only_if_named
            && is_internal(&home)
            && !options.plain_http.contains(host)
        {
            return Err(refused(
                call,
                format!(
                    "{host} is an internal address of the machine that asks; \
                     --plain-http {host} there allows it as a registry"
                ),
            ));
        }
        Ok(home)
    }

    /// The host whose credentials a call may carry: a mirror never sees those of the registry it stands for.
    pub(super) fn credential_host<'a>(&'a self, call: &Call<'a>) -> &'a str {
        let registry = call.repository.registry();
        self.inner.options.mirrors.get(registry).unwrap_or(registry)
    }

    fn allows_plain_http(&self, host: &str) -> bool {
        let options = &self.inner.options;
        (is_loopback(host) && !options.internal_only_if_named) || options.plain_http.contains(host)
    }

    /// Where a redirect leads, if a read may follow it there.
    fn redirected(
        &self,
        call: &Call<'_>,
        home: &Url,
        from: &Url,
        headers: &HeaderMap,
    ) -> Result<Url, ClientError> {
        let location = headers
            .get(LOCATION)
            .and_then(|value| value.to_str().ok())
            .and_then(|value| from.join(value).ok())
            .ok_or_else(|| refused(call, "a redirect without a readable location".to_owned()))?;
        if !call.is_read() {
            return Err(refused(call, "a redirect of a write".to_owned()));
        }
        self.check_elsewhere(call, home, &location, "redirect")?;
        Ok(location)
    }

    /// May a registry send us to that URL? TLS stays TLS, and the outside may not point inside.
    pub(super) fn check_elsewhere(
        &self,
        call: &Call<'_>,
        home: &Url,
        url: &Url,
        kind: &str,
    ) -> Result<(), ClientError> {
        let to = authority(url);
        let plain = match url.scheme() {
            "https" => false,
            "http" => true,
            other => {
                return Err(refused(
                    call,
                    format!("{kind} to {to} by {}", clip(other, 20)),
                ));
            }
        };
        if !url.username().is_empty() || url.password().is_some() {
            return Err(refused(
                call,
                format!("{kind} to {to} with credentials in its URL"),
            ));
        }
        if plain && (home.scheme() == "https" || !self.allows_plain_http(&to)) {
            return Err(refused(call, format!("{kind} to {to} without TLS")));
        }
        if is_internal(url) && !is_internal(home) {
            return Err(refused(
                call,
                format!(
                    "{kind} from {} to {to}, an internal address",
                    authority(home)
                ),
            ));
        }
        Ok(())
    }
}

/// The target of `Link: <…>; rel="next"`, as the distribution specification has it (RFC 5988).
fn next_page(headers: &HeaderMap, from: &Url) -> Option<Url> {
    headers.get_all(LINK).iter().find_map(|value| {
        let (target, parameters) = value
            .to_str()
            .ok()?
            .trim()
            .strip_prefix('<')?
            .split_once('>')?;
        let is_next = |parameter: &str| {
            parameter.split_once('=').is_some_and(|(name, value)| {
                name.trim().eq_ignore_ascii_case("rel") && value.trim().trim_matches('"') == "next"
            })
        };
        if !parameters.split(';').any(is_next) {
            return None;
        }
        let url = from.join(target).ok()?;
        (url.username().is_empty() && url.password().is_none()).then_some(url)
    })
}

/// `host[:port]` as a reference would write it.
pub(super) fn authority(url: &Url) -> String {
    let host = url.host_str().unwrap_or_default();
    match url.port() {
        Some(port) => format!("{host}:{port}"),
        None => host.to_owned(),
    }
}

/// Same scheme, host and port: the only place where credentials go.
pub(super) fn same_origin(a: &Url, b: &Url) -> bool {
    a.scheme() == b.scheme()
        && a.host_str() == b.host_str()
        && a.port_or_known_default() == b.port_or_known_default()
}

/// This machine, or its link: metadata services live there.
fn is_internal(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    if is_loopback(host) {
        return true;
    }
    let address = host.trim_start_matches('[').trim_end_matches(']').parse();
    match address {
        Ok(IpAddr::V4(address)) => address.is_link_local() || address.is_unspecified(),
        Ok(IpAddr::V6(address)) => {
            address.is_unicast_link_local()
                || address.is_unspecified()
                || address
                    .to_ipv4_mapped()
                    .is_some_and(|v4| v4.is_loopback() || v4.is_link_local())
        }
        Err(_) => false,
    }
}

pub(super) fn refused(call: &Call<'_>, message: String) -> ClientError {
    ClientError::Refused {
        what: call.what(),
        message: clip(&message, 300),
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Client, ClientOptions};
    use super::{Call, Url, same_origin};

    fn client() -> Client {
        let mut options = ClientOptions::default();
        options
            .plain_http
            .insert("plain.example.com:5000".to_owned());
        options
            .mirrors
            .insert("mirrored.example.com", "127.0.0.1:5000");
        Client::new(options).unwrap()
    }

    fn home(registry: &str) -> String {
        let repository = format!("{registry}/models/digits").parse().unwrap();
        let client = client();
        let call = Call::get(&repository, "manifests/v1");
        client.home(&call).unwrap().to_string()
    }

    fn may_go(registry: &str, url: &str) -> bool {
        let repository = format!("{registry}/models/digits").parse().unwrap();
        let client = client();
        let call = Call::get(&repository, "manifests/v1");
        let home = client.home(&call).unwrap();
        client
            .check_elsewhere(&call, &home, &Url::parse(url).unwrap(), "redirect")
            .is_ok()
    }

    #[test]
    fn plain_http_is_spoken_to_this_machine_and_to_named_hosts_only() {
        assert_eq!(
            home("registry.example.com"),
            "https://registry.example.com/"
        );
        assert_eq!(home("plain.example.com"), "https://plain.example.com/");
        assert_eq!(
            home("plain.example.com:5000"),
            "http://plain.example.com:5000/"
        );
        assert_eq!(home("127.0.0.1:5000"), "http://127.0.0.1:5000/");
        assert_eq!(home("docker.io"), "https://registry-1.docker.io/");
        assert_eq!(home("mirrored.example.com"), "http://127.0.0.1:5000/");
    }

    #[test]
    fn who_fetches_for_others_takes_internal_registries_only_by_name() {
        let mut options = ClientOptions {
            internal_only_if_named: true,
            ..ClientOptions::default()
        };
        options.plain_http.insert("127.0.0.1:5000".to_owned());
        let client = Client::new(options).unwrap();
        let home = |registry: &str| {
            let repository = format!("{registry}/models/digits").parse().unwrap();
            let call = Call::get(&repository, "manifests/v1");
            client
                .home(&call)
                .map(|home| home.to_string())
                .map_err(|error| error.to_string())
        };
        assert_eq!(home("127.0.0.1:5000").unwrap(), "http://127.0.0.1:5000/");
        assert_eq!(
            home("registry.example.com").unwrap(),
            "https://registry.example.com/"
        );
        for inside in [
            "localhost:5000",
            "127.0.0.1:5001",
            "127.1.2.3:80",
            "[::1]:5000",
            "169.254.169.254",
            "0.0.0.0:5000",
        ] {
            let error = home(inside).unwrap_err();
            assert!(error.contains(&format!("--plain-http {inside}")), "{error}");
        }
        let repository = "127.0.0.1:5000/models/digits".parse().unwrap();
        let call = Call::get(&repository, "manifests/v1");
        let home = client.home(&call).unwrap();
        let elsewhere = Url::parse("http://127.0.0.1:10248/healthz").unwrap();
        let went = client.check_elsewhere(&call, &home, &elsewhere, "redirect");
        assert!(went.is_err(), "a redirect to another port of this machine");
    }

    #[test]
    fn a_registry_outside_may_not_send_a_device_inside_or_off_tls() {
        let outside = "registry.example.com";
        assert!(may_go(outside, "https://cdn.example.com/blob?signature=x"));
        for bad in [
            "http://cdn.example.com/blob",
            "http://127.0.0.1/blob",
            "https://127.0.0.1/blob",
            "https://localhost/blob",
            "https://169.254.169.254/latest/meta-data",
            "https://[::1]/blob",
            "https://[fe80::1]/blob",
            "https://[::ffff:127.0.0.1]/blob",
            "https://0.0.0.0/blob",
            "https://user:secret@cdn.example.com/blob",
            "ftp://cdn.example.com/blob",
        ] {
            assert!(!may_go(outside, bad), "{bad}");
        }
        assert!(may_go("127.0.0.1:5000", "http://127.0.0.1:5001/blob"));
        assert!(!may_go("127.0.0.1:5000", "http://cdn.example.com/blob"));
    }

    #[test]
    fn a_mirror_never_sees_the_credentials_of_the_registry_it_stands_for() {
        let repository = "mirrored.example.com/models/digits".parse().unwrap();
        let client = client();
        let call = Call::get(&repository, "manifests/v1");
        assert_eq!(client.credential_host(&call), "127.0.0.1:5000");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let same = |a: &str, b: &str| same_origin(&Url::parse(a).unwrap(), &Url::parse(b).unwrap());
        assert!(same(
            "https://r.example.com/a",
            "https://r.example.com:443/b"
        ));
        assert!(!same("https://r.example.com/", "http://r.example.com/"));
        assert!(!same(
            "https://r.example.com/",
            "https://r.example.com:444/"
        ));
        assert!(!same(
            "https://r.example.com/",
            "https://r.example.com.evil.example.com/"
        ));
    }
}
