//! `kubectl rimward infer MODEL --endpoint URL --data @FILE`: one request to a node, as any client sends it.
//!
//! Owns the request and what is said of the answer. Must never repeat a request: what failed once is what the user
//! wants to see.

use std::io::Read as _;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use reqwest::{Client, Response, Url};
use serde_json::Value;

use crate::output;
use crate::registry::read_bounded;
use crate::time::parse_time;

/// Longest request that is read, and longest answer: what a node takes and gives at most.
const BYTES_MAX: u64 = 64 << 20;
/// How much of an answer that is no JSON is shown.
const SHOWN_CHARS_MAX: usize = 400;
/// The version that answered.
const VERSION: &str = "rimward-model-version";
/// The version in trial that failed the request, which the previous one then answered.
const FALLBACK: &str = "rimward-fallback-from";

/// What `infer` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The model: its deployment's endpointName. Without one it is only asked whether anything serves.
    model: Option<String>,
    /// Where the node or the Service answers, such as `http://127.0.0.1:8080`.
    #[arg(long, value_name = "URL")]
    endpoint: Url,
    /// The request: JSON, `@FILE`, or `@-` for standard input.
    #[arg(short, long, value_name = "JSON", requires = "model")]
    data: Option<String>,
    /// How long the answer may take: `90s`, `10m`.
    #[arg(long, value_name = "TIME", default_value = "30s", value_parser = parse_time)]
    timeout: Duration,
}

/// Runs the command. Exit code 1 if there is no prediction.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = Client::builder()
        .no_proxy()
        .redirect(reqwest::redirect::Policy::none())
        .timeout(args.timeout)
        .build()
        .context("HTTP client")?;
    match (&args.model, &args.data) {
        (Some(model), Some(data)) => infer(&client, &args.endpoint, model, read(data)?).await?,
        (Some(model), None) => {
            let url = path(&args.endpoint, &["v2", "models", model])?;
            let (_, text) = answer(client.get(url.clone()).send().await, &url).await?;
            bail!("--data is missing; {}", inputs(model, &text));
        }
        (None, _) => {
            let url = path(&args.endpoint, &["v2", "health", "ready"])?;
            answer(client.get(url.clone()).send().await, &url).await?;
            eprintln!("no model was named: it was only asked whether anything serves");
            output::write("ready\n")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn infer(client: &Client, endpoint: &Url, model: &str, body: Vec<u8>) -> anyhow::Result<()> {
    let url = path(endpoint, &["v2", "models", model, "infer"])?;
    let request = client
        .post(url.clone())
        .header("content-type", "application/json")
        .body(body);
    let (by, text) = answer(request.send().await, &url).await?;
    let outputs = serde_json::from_str::<Value>(&text)
        .ok()
        .and_then(|answer| answer["outputs"].as_array().map(Vec::len));
    ensure!(
        outputs.is_some_and(|count| count > 0),
        "{url} answered without outputs: {}",
        shown(&text)
    );
    eprintln!("{model}{by}");
    output::write(&(text + "\n"))
}

/// The endpoint's URL with a path behind its own.
fn path(endpoint: &Url, parts: &[&str]) -> anyhow::Result<Url> {
    let mut url = endpoint.clone();
    url.path_segments_mut()
        .ok()
        .with_context(|| format!("--endpoint {endpoint} is no http:// or https:// URL"))?
        .pop_if_empty()
        .extend(parts);
    Ok(url)
}

fn read(data: &str) -> anyhow::Result<Vec<u8>> {
    let bytes = match data.strip_prefix('@') {
        None => data.as_bytes().to_vec(),
        Some("-") => {
            let mut bytes = Vec::new();
            std::io::stdin()
                .take(BYTES_MAX + 1)
                .read_to_end(&mut bytes)
                .context("--data @-: standard input")?;
            ensure!(
                bytes.len() as u64 <= BYTES_MAX,
                "--data @-: more than {BYTES_MAX} bytes"
            );
            bytes
        }
        Some(file) => read_bounded(Path::new(file), BYTES_MAX).context("--data")?,
    };
    serde_json::from_slice::<Value>(&bytes).context("--data is no JSON")?;
    Ok(bytes)
}

/// Who answered, in words, and the text of an answer that is a success.
async fn answer(sent: reqwest::Result<Response>, url: &Url) -> anyhow::Result<(String, String)> {
    let mut response = sent.with_context(|| format!("asking {url}"))?;
    let header = |name: &str| {
        let value = response.headers().get(name)?;
        value.to_str().ok().map(str::to_owned)
    };
    let by = words(header(VERSION), header(FALLBACK));
    let mut bytes = Vec::new();
    while let Some(chunk) = response
        .chunk()
        .await
        .with_context(|| format!("reading the answer of {url}"))?
    {
        bytes.extend_from_slice(&chunk);
        ensure!(
            bytes.len() as u64 <= BYTES_MAX,
            "{url} answered with more than {BYTES_MAX} bytes"
        );
    }
    let text = String::from_utf8_lossy(&bytes).into_owned();
    let status = response.status();
    ensure!(
        status.is_success(),
        "{url} answered {status}: {}",
        error(&text)
    );
    Ok((by, text))
}

fn words(version: Option<String>, fallback: Option<String>) -> String {
    match (version, fallback) {
        (None, _) => String::new(),
        (Some(version), None) => format!(", answered by {version}"),
        (Some(version), Some(trial)) => {
            format!(", answered by {version} instead of {trial}, which is in trial")
        }
    }
}

/// What a refusal says.
fn error(text: &str) -> String {
    let said = serde_json::from_str::<Value>(text).ok();
    let said = said.and_then(|it| it["error"].as_str().map(str::to_owned));
    said.unwrap_or_else(|| shown(text))
}

fn shown(text: &str) -> String {
    text.trim().chars().take(SHOWN_CHARS_MAX).collect()
}

/// What a model takes, by its metadata.
fn inputs(model: &str, metadata: &str) -> String {
    let metadata = serde_json::from_str::<Value>(metadata).unwrap_or_default();
    let inputs = metadata["inputs"].as_array().into_iter().flatten();
    let inputs: Vec<String> = inputs
        .map(|input| {
            let word = |field: &str| input[field].as_str().unwrap_or("?").to_owned();
            format!("{} {} {}", word("name"), word("datatype"), input["shape"])
        })
        .collect();
    format!("{model} takes {}", inputs.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_stands_behind_that_of_the_endpoint_and_a_name_cannot_leave_it() {
        let at = |endpoint: &str| path(&Url::parse(endpoint).unwrap(), &["v2", "models", "a/b"]);
        assert_eq!(
            at("http://node:8080").unwrap().as_str(),
            "http://node:8080/v2/models/a%2Fb"
        );
        assert_eq!(
            at("http://node/behind/").unwrap().as_str(),
            "http://node/behind/v2/models/a%2Fb"
        );
        assert!(at("mailto:ann").unwrap_err().to_string().contains("mailto"));
    }

    #[test]
    fn data_is_text_or_a_file_and_must_be_json() {
        assert_eq!(read("{\"a\": 1}").unwrap(), b"{\"a\": 1}");
        let error = format!("{:#}", read("{").unwrap_err());
        assert!(error.starts_with("--data is no JSON"), "{error}");
        let error = format!("{:#}", read("@/does/not/exist").unwrap_err());
        assert!(error.contains("/does/not/exist"), "{error}");
    }

    #[test]
    fn it_is_said_who_answered_and_what_a_model_takes() {
        assert_eq!(words(Some("d-1".into()), None), ", answered by d-1");
        assert_eq!(
            words(Some("d-1".into()), Some("d-2".into())),
            ", answered by d-1 instead of d-2, which is in trial"
        );
        let metadata =
            r#"{"inputs": [{"name": "image", "datatype": "UINT8", "shape": [1, 8, 8]}]}"#;
        assert_eq!(
            inputs("digits", metadata),
            "digits takes image UINT8 [1,8,8]"
        );
        assert_eq!(error(r#"{"error": "queue full"}"#), "queue full");
        assert_eq!(error("Bad Gateway\n"), "Bad Gateway");
    }
}
