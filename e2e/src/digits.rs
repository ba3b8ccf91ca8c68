//! Held-out test digits, and asking an endpoint what they are.
//!
//! Owns the client's half of the Open Inference Protocol v2 as a user's program would write it. The digits were never
//! seen in training (`wasm-models/train`).

use std::path::PathBuf;

use anyhow::{Context, Result, ensure};
use serde::Deserialize;
use serde_json::{Value, json};

/// One scanned digit: 64 pixels from 0 to 16, and what it is.
#[derive(Clone, Debug, Deserialize)]
pub struct Digit {
    /// What the writer meant, 0 to 9.
    pub label: i64,
    /// Pixels, row by row.
    pub image: Vec<u8>,
}

/// What an endpoint answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The digit that it read.
    pub label: i64,
    /// The revision that answered.
    pub revision: String,
}

/// The repository's root.
#[must_use]
pub fn repository() -> PathBuf {
    crate::fleet::repository_root()
}

/// Reads the held-out digits of `examples/data`.
///
/// # Errors
/// When the file is missing or is something else.
pub fn held_out() -> Result<Vec<Digit>> {
    #[derive(Deserialize)]
    struct File {
        digits: Vec<Digit>,
    }
    let path = repository().join("examples/data/digits-heldout.json");
    let text = std::fs::read(&path).with_context(|| format!("reading {}", path.display()))?;
    let file: File =
        serde_json::from_slice(&text).with_context(|| format!("parsing {}", path.display()))?;
    ensure!(!file.digits.is_empty(), "{} holds no digit", path.display());
    Ok(file.digits)
}

/// The body of an infer request for one digit.
#[must_use]
pub fn request(digit: &Digit) -> Value {
    json!({"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8], "data": digit.image}]})
}

/// Asks `http://HOST/v2/models/NAME/infer` what a digit is.
///
/// # Errors
/// When there is no answer, it is no success, or it is no digit.
pub async fn ask(
    client: &reqwest::Client,
    host: &str,
    model: &str,
    digit: &Digit,
) -> Result<Answer> {
    let url = format!("http://{host}/v2/models/{model}/infer");
    let response = client
        .post(&url)
        .json(&request(digit))
        .send()
        .await
        .with_context(|| format!("asking {url}"))?;
    let status = response.status();
    let body: Value = response
        .json()
        .await
        .with_context(|| format!("{url} answered no JSON"))?;
    ensure!(status.is_success(), "{url} answered {status}: {body}");
    let outputs = body["outputs"]
        .as_array()
        .context("the answer has no outputs")?;
    let label = outputs.iter().find(|output| output["name"] == "label");
    Ok(Answer {
        label: label
            .and_then(|label| label["data"][0].as_i64())
            .context("the answer has no label")?,
        revision: body["model_version"]
            .as_str()
            .unwrap_or_default()
            .to_owned(),
    })
}

/// Asks for each digit in turn and says how many were read rightly, of how many.
///
/// # Errors
/// At the first request that fails.
pub async fn accuracy(host: &str, model: &str, digits: &[Digit]) -> Result<(usize, usize)> {
    let client = reqwest::Client::new();
    let mut right = 0;
    for digit in digits {
        right += usize::from(ask(&client, host, model, digit).await?.label == digit.label);
    }
    Ok((right, digits.len()))
}
