//! Authentication: answers a registry's challenge, and decides who may see a credential.
//!
//! A credential goes to the registry's own origin, or to a token realm on another host only if the options name
//! that host for that registry. A challenge that points elsewhere is refused, not followed.

use std::collections::BTreeMap;

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use serde::Deserialize;

use super::Client;
use super::body::Body;
use super::error::{ClientError, chain};
use super::origin::{authority, same_origin};
use super::transport::{Call, refused};
use crate::json::{self, JsonLimits};
use crate::text::clip;

/// Bytes of a token answer.
const TOKEN_BYTES_MAX: u64 = 64 << 10;
/// Authorizations kept; beyond that the oldest knowledge is forgotten whole.
const TOKENS_MAX: usize = 256;

/// Values of `Authorization` by registry and scope.
#[derive(Default)]
pub(super) struct Tokens {
    by_scope: BTreeMap<(String, String), String>,
}

#[derive(Deserialize)]
struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl Client {
    /// What is known to open this call's registry and scope.
    pub(super) async fn authorization(&self, call: &Call<'_>) -> Option<String> {
        let key = (self.credential_host(call).to_owned(), call.scope());
        self.inner.tokens.lock().await.by_scope.get(&key).cloned()
    }

    /// Answers the challenge of a 401 from the registry's own origin; the next try finds the answer.
    pub(super) async fn answer_challenge(
        &self,
        call: &Call<'_>,
        home: &Url,
        headers: &HeaderMap,
    ) -> Result<(), ClientError> {
        let registry = self.credential_host(call);
        let credential = self.inner.options.credentials.get(registry);
        let mut value = None;
        for header in headers.get_all(WWW_AUTHENTICATE) {
            let Ok(text) = header.to_str() else { continue };
            let Ok(challenges) = http_auth::parse_challenges(text) else {
                continue;
            };
            for challenge in challenges {
                let parameter = |name: &str| {
                    let mut parameters = challenge.params.iter();
                    parameters
                        .find(|(key, _)| key.eq_ignore_ascii_case(name))
                        .map(|(_, value)| value.to_unescaped())
                };
                if challenge.scheme.eq_ignore_ascii_case("bearer") {
                    let realm = parameter("realm").unwrap_or_default();
                    value = Some(self.token(call, home, &realm, parameter("service")).await?);
                } else if challenge.scheme.eq_ignore_ascii_case("basic") && value.is_none() {
                    value = credential.map(super::Credential::basic);
                }
            }
        }
        let Some(value) = value else {
            return Err(self.denied(call, 401));
        };
        let mut tokens = self.inner.tokens.lock().await;
        if tokens.by_scope.len() >= TOKENS_MAX {
            tokens.by_scope.clear();
        }
        tokens
            .by_scope
            .insert((registry.to_owned(), call.scope()), value);
        Ok(())
    }

    /// That credentials are missing or not enough, as the registry or its token realm said.
    pub(super) fn denied(&self, call: &Call<'_>, status: u16) -> ClientError {
        let host = self.credential_host(call);
        ClientError::Denied {
            what: call.what(),
            status,
            host: host.to_owned(),
            credentials: match self.inner.options.credentials.get(host) {
                Some(_) => "given",
                None => "none",
            },
        }
    }

    async fn token(
        &self,
        call: &Call<'_>,
        home: &Url,
        realm: &str,
        service: Option<String>,
    ) -> Result<String, ClientError> {
        let registry = self.credential_host(call);
        let mut url = home.join(realm).map_err(|_| {
            refused(
                call,
                format!("token realm \"{}\" is no URL", clip(realm, 80)),
            )
        })?;
        self.check_elsewhere(call, home, &url, "token realm")?;
        let allowed = match self.inner.options.token_realms.get(registry) {
            Some(host) => authority(&url) == *host,
            None if registry == "docker.io" => authority(&url) == "auth.docker.io",
            None => false,
        };
        if !same_origin(&url, home) && !allowed {
            return Err(refused(
                call,
                format!(
                    "its token realm is on another host, {}; name it to allow it",
                    clip(&authority(&url), 100)
                ),
            ));
        }
        {
            let mut query = url.query_pairs_mut();
            if let Some(service) = service {
                query.append_pair("service", &service);
            }
            query.append_pair("scope", &call.scope());
        }
        let what = format!("token for {}", call.what());
        let mut request = self.inner.http.get(url);
        if let Some(credential) = self.inner.options.credentials.get(registry) {
            request = request.header(AUTHORIZATION, credential.basic());
        }
        let pace = self.inner.options.pace;
        let response = tokio::time::timeout(pace.response_timeout, request.send())
            .await
            .map_err(|_| ClientError::Timeout {
                what: what.clone(),
                seconds: pace.response_timeout.as_secs(),
            })?
            .map_err(|error| ClientError::Transport {
                what: what.clone(),
                message: chain(&error.without_url()),
            })?;
        let status = response.status();
        if matches!(status.as_u16(), 401 | 403) {
            return Err(self.denied(call, status.as_u16()));
        }
        if !status.is_success() {
            // A redirect from a realm is not followed either: it would carry the credential's fruits elsewhere.
            return Err(ClientError::Status {
                what,
                status: status.as_u16(),
                message: String::new(),
            });
        }
        let bytes = Body::new(response, what.clone(), pace)
            .collect(TOKEN_BYTES_MAX)
            .await?;
        let answer: TokenAnswer =
            json::parse("token answer", &bytes, JsonLimits::small(TOKEN_BYTES_MAX)).map_err(
                |_| refused(call, "its token answer is not JSON with a token".to_owned()),
            )?;
        let token = answer
            .token
            .or(answer.access_token)
            .filter(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
            .ok_or_else(|| refused(call, "its token answer has no token".to_owned()))?;
        Ok(format!("Bearer {token}"))
    }
}
