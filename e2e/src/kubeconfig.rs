//! Kubeconfig files.

use std::path::Path;

use anyhow::{Context, Result};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde_json::{Value, json};

use crate::certs::{Identity, write_private};

/// How a user proves who it is.
#[derive(Clone, Copy)]
pub enum Credential<'a> {
    /// A client certificate.
    Certificate(&'a Identity),
    /// A bearer token, as service accounts have.
    Token(&'a str),
}

/// Puts a kubeconfig together: one cluster, one user, one context, all inline.
///
/// # Errors
/// When it cannot be written as YAML.
pub fn text(
    cluster: &str,
    server: &str,
    authority: &str,
    credential: Credential<'_>,
) -> Result<String> {
    let user = match credential {
        Credential::Certificate(identity) => json!({
            "client-certificate-data": STANDARD.encode(&identity.certificate),
            "client-key-data": STANDARD.encode(&identity.key),
        }),
        Credential::Token(token) => json!({ "token": token }),
    };
    let config: Value = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{ "name": cluster, "cluster": {
            "server": server,
            "certificate-authority-data": STANDARD.encode(authority),
        }}],
        "users": [{ "name": "user", "user": user }],
        "contexts": [{ "name": cluster, "context": { "cluster": cluster, "user": "user" }}],
        "current-context": cluster,
    });
    serde_yaml::to_string(&config).context("cannot write a kubeconfig as YAML")
}

/// Writes a kubeconfig that only its owner can read.
///
/// # Errors
/// When the file cannot be written.
pub fn write(
    path: &Path,
    cluster: &str,
    server: &str,
    authority: &str,
    credential: Credential<'_>,
) -> Result<()> {
    write_private(path, &text(cluster, server, authority, credential)?)
}
