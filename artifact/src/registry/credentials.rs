//! Credentials by registry host, from a Docker config file or a `kubernetes.io/dockerconfigjson` Secret.

use std::collections::BTreeMap;
use std::fmt;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::IgnoredAny;
use thiserror::Error;

use crate::json::{self, JsonError, JsonLimits};

/// Bytes of a Docker config; a Secret holds no more.
const CONFIG_BYTES_MAX: u64 = 1 << 20;

/// A user name and password, or an identity token with an empty name. Never shown.
#[derive(Clone, PartialEq, Eq)]
pub struct Credential {
    /// The user.
    pub username: String,
    /// The password or token.
    pub password: String,
}

impl Credential {
    /// The value of an `Authorization: Basic` header.
    pub(super) fn basic(&self) -> String {
        let pair = format!("{}:{}", self.username, self.password);
        format!("Basic {}", STANDARD.encode(pair))
    }
}

impl fmt::Debug for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credential(…)")
    }
}

/// Credentials by host (`host[:port]`).
#[derive(Debug, Clone, Default)]
pub struct Credentials {
    hosts: BTreeMap<String, Credential>,
}

/// Why a Docker config was refused. Never holds a value from it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum CredentialsError {
    /// Not the JSON that it should be.
    #[error(transparent)]
    Json(#[from] JsonError),
    /// An `auth` field that is not base64 of `user:password`.
    #[error("docker config: field auths[\"{host}\"].auth: is no base64 of user:password")]
    Auth {
        /// The entry.
        host: String,
    },
}

#[derive(Deserialize)]
struct RawConfig {
    #[serde(default)]
    auths: BTreeMap<String, RawAuth>,
}

#[derive(Deserialize)]
struct RawAuth {
    auth: Option<String>,
    username: Option<String>,
    password: Option<String>,
    #[serde(rename = "identitytoken")]
    _identity_token: Option<IgnoredAny>,
}

impl Credentials {
    /// Adds or replaces a host's credential.
    pub fn insert(&mut self, host: &str, credential: Credential) {
        self.hosts.insert(host.to_ascii_lowercase(), credential);
    }

    /// Reads the `auths` of a Docker config. Credential helpers are programs and are not run.
    ///
    /// # Errors
    /// [`CredentialsError`], naming the entry and never its value.
    pub fn from_docker_config(bytes: &[u8]) -> Result<Self, CredentialsError> {
        // Without `parse`'s own text, which may quote a value.
        let raw: RawConfig =
            json::parse("docker config", bytes, JsonLimits::small(CONFIG_BYTES_MAX)).map_err(
                |error| match error {
                    JsonError::Field { what, field, .. } => JsonError::Field {
                        what,
                        field,
                        message: "is not of the right type".to_owned(),
                    },
                    other => other,
                },
            )?;
        let mut credentials = Self::default();
        for (key, raw) in raw.auths {
            let host = host_of(&key);
            let pair = match (raw.username, raw.password, raw.auth) {
                (Some(username), Some(password), _) if !username.is_empty() => {
                    Some((username, password))
                }
                (_, _, Some(auth)) if !auth.is_empty() => Some(
                    decode(&auth).ok_or_else(|| CredentialsError::Auth { host: host.clone() })?,
                ),
                _ => None,
            };
            if let Some((username, password)) = pair {
                credentials
                    .hosts
                    .insert(host, Credential { username, password });
            }
        }
        Ok(credentials)
    }

    /// The credential for a host, if there is one.
    #[must_use]
    pub fn get(&self, host: &str) -> Option<&Credential> {
        self.hosts.get(host)
    }

    /// Adds those of `other`, which win.
    pub fn extend(&mut self, other: Self) {
        self.hosts.extend(other.hosts);
    }
}

fn decode(auth: &str) -> Option<(String, String)> {
    let text = String::from_utf8(STANDARD.decode(auth.trim()).ok()?).ok()?;
    let (username, password) = text.split_once(':')?;
    Some((
        username.to_owned(),
        password.trim_end_matches('\0').to_owned(),
    ))
}

/// Docker writes hosts as `host`, `https://host` or `https://index.docker.io/v1/`.
fn host_of(key: &str) -> String {
    let rest = key
        .strip_prefix("https://")
        .or_else(|| key.strip_prefix("http://"))
        .unwrap_or(key);
    let host = rest.split('/').next().unwrap_or(rest).to_ascii_lowercase();
    match host.as_str() {
        "index.docker.io" | "registry-1.docker.io" => "docker.io".to_owned(),
        _ => host,
    }
}

#[cfg(test)]
mod tests {
    use super::Credentials;

    #[test]
    fn a_docker_config_gives_credentials_by_host_and_errors_never_show_them() {
        let config = br#"{"auths":{
            "https://r.example.com/v1/":{"auth":"dXNlcjpwYTpzcw=="},
            "other.example.com:5000":{"username":"u","password":"p"},
            "https://index.docker.io/v1/":{"auth":"YTpi"}},"credsStore":"desktop"}"#;
        let credentials = Credentials::from_docker_config(config).unwrap();
        let found = credentials.get("r.example.com").unwrap();
        assert_eq!(
            (found.username.as_str(), found.password.as_str()),
            ("user", "pa:ss")
        );
        assert!(credentials.get("other.example.com:5000").is_some());
        assert!(credentials.get("docker.io").is_some());
        assert!(credentials.get("other.example.com").is_none());
        assert!(!format!("{credentials:?}").contains("pa:ss"));

        let secret = br#"{"auths":{"r.example.com":{"auth":"c2VjcmV0"}}}"#;
        let error = Credentials::from_docker_config(secret)
            .unwrap_err()
            .to_string();
        assert!(
            error.contains("auths[\"r.example.com\"]") && !error.contains("c2Vj"),
            "{error}"
        );
        let secret = br#"{"auths":{"r.example.com":"hunter2"}}"#;
        let error = Credentials::from_docker_config(secret)
            .unwrap_err()
            .to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
