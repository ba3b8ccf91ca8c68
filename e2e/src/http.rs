//! Plain HTTP to loopback.
//!
//! Owns that a developer's proxy settings reach nothing here: every part is on 127.0.0.1.

use std::time::Duration;

use anyhow::{Context, Result};

/// Variables that send programs to a proxy; removed for every program that the harness starts.
pub(crate) const PROXY_VARIABLES: [&str; 6] = [
    "HTTP_PROXY",
    "http_proxy",
    "HTTPS_PROXY",
    "https_proxy",
    "ALL_PROXY",
    "all_proxy",
];

/// Silence longer than this is an error.
const TIMEOUT: Duration = Duration::from_secs(60);

/// A client for a few requests; for load see [`crate::load`].
///
/// # Errors
/// When it cannot be set up.
pub fn client() -> Result<reqwest::Client> {
    crate::guard::install();
    let client = reqwest::Client::builder().no_proxy().timeout(TIMEOUT);
    client.build().context("cannot set up an HTTP client")
}

/// GETs a URL; any status that is no success is an error.
///
/// # Errors
/// Names the URL and the status.
pub async fn get(url: &str) -> Result<reqwest::Response> {
    Ok(client()?.get(url).send().await?.error_for_status()?)
}
