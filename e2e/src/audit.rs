//! The API server's own record of every request: what "no write was sent" is read from.
//!
//! Owns the policy that the server is started with, and reading its log. The server writes a request's
//! line before it answers, so a story that has seen an answer finds its line.

use std::fs::File;
use std::io::{Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use serde::Deserialize;
use serde_json::{Value, json};

/// How much of a request to Rimward's own kinds is recorded; the others' are by metadata.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Level {
    /// Who, what verb, which object, which code.
    #[default]
    Metadata,
    /// The request's body as well.
    Request,
    /// The request's body and the answer's.
    RequestResponse,
}

/// An audit log.
#[derive(Debug, Clone)]
pub struct Audit {
    path: PathBuf,
}

/// A place in an audit log: what comes later is a story's own.
#[derive(Debug, Clone, Copy)]
pub struct Mark(u64);

/// One answered request.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Event {
    /// `get`, `list`, `watch`, `create`, `update`, `patch`, `delete`, `deletecollection`.
    pub verb: String,
    /// Path and query of the request.
    #[serde(rename = "requestURI")]
    pub request_uri: String,
    /// Who sent it.
    pub user: User,
    /// What sent it, as it calls itself.
    #[serde(default)]
    pub user_agent: String,
    /// Which object it was about; none for `/healthz` and the like.
    pub object_ref: Option<ObjectRef>,
    /// How it was answered.
    pub response_status: Option<ResponseStatus>,
    /// When it was received, RFC 3339.
    #[serde(default)]
    pub request_received_timestamp: String,
    /// The request's body, from [`Level::Request`] on.
    pub request_object: Option<Value>,
    /// The answer's body, at [`Level::RequestResponse`].
    pub response_object: Option<Value>,
}

/// Who sent a request.
#[derive(Debug, Clone, Deserialize)]
pub struct User {
    /// As authenticated.
    pub username: String,
}

/// Which object a request was about.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct ObjectRef {
    /// Plural, as in URLs.
    pub resource: String,
    /// Such as `status`; empty for the object itself.
    pub subresource: String,
    /// Empty for cluster-scoped objects and lists over all.
    pub namespace: String,
    /// Empty for lists and creates.
    pub name: String,
    /// Empty for the core group.
    pub api_group: String,
}

/// How a request was answered.
#[derive(Debug, Clone, Deserialize)]
pub struct ResponseStatus {
    /// The HTTP status code.
    pub code: Option<u16>,
}

impl Event {
    /// Whether it asked for a change, of whatever.
    #[must_use]
    pub fn is_write(&self) -> bool {
        !matches!(self.verb.as_str(), "get" | "list" | "watch")
    }

    /// The plural of the object's kind, empty if there is none.
    #[must_use]
    pub fn resource(&self) -> &str {
        self.object_ref
            .as_ref()
            .map_or("", |object| &object.resource)
    }

    /// The status code, 0 if there is none.
    #[must_use]
    pub fn code(&self) -> u16 {
        self.response_status
            .as_ref()
            .and_then(|status| status.code)
            .unwrap_or(0)
    }
}

impl std::fmt::Display for Event {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (when, who) = (&self.request_received_timestamp, &self.user.username);
        write!(
            f,
            "{when} {who}: {} {} -> {}",
            self.verb,
            self.request_uri,
            self.code()
        )
    }
}

impl Audit {
    pub(crate) fn new(path: &Path) -> Self {
        Self {
            path: path.to_path_buf(),
        }
    }

    /// The file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Marks the log's end as it is now.
    ///
    /// # Errors
    /// When the log cannot be read.
    pub fn mark(&self) -> Result<Mark> {
        let metadata = std::fs::metadata(&self.path)
            .with_context(|| format!("cannot read {}", self.path.display()))?;
        Ok(Mark(metadata.len()))
    }

    /// Reads the requests that were answered since a mark, in the order of their answers.
    ///
    /// # Errors
    /// When the log cannot be read, or a line of it is no audit event.
    pub fn since(&self, mark: Mark) -> Result<Vec<Event>> {
        let mut text = String::new();
        let read = |text: &mut String| -> std::io::Result<usize> {
            let mut file = File::open(&self.path)?;
            file.seek(SeekFrom::Start(mark.0))?;
            file.read_to_string(text)
        };
        read(&mut text).with_context(|| format!("cannot read {}", self.path.display()))?;
        // The last line may be half written.
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        whole
            .lines()
            .map(|line| {
                serde_json::from_str(line)
                    .with_context(|| format!("{}: no audit event: {line}", self.path.display()))
            })
            .collect()
    }

    /// Reads the writes since a mark by users whose name begins so, Leases aside.
    ///
    /// # Errors
    /// As [`Audit::since`].
    pub fn writes_since(&self, mark: Mark, user_prefix: &str) -> Result<Vec<Event>> {
        let mut events = self.since(mark)?;
        events.retain(|event| {
            event.is_write()
                && event.resource() != "leases"
                && event.user.username.starts_with(user_prefix)
        });
        Ok(events)
    }
}

/// The audit policy: Rimward's kinds by `level`, all else by metadata, each request once, when answered.
pub(crate) fn policy(level: Level) -> Value {
    let level = match level {
        Level::Metadata => "Metadata",
        Level::Request => "Request",
        Level::RequestResponse => "RequestResponse",
    };
    json!({
        "apiVersion": "audit.k8s.io/v1",
        "kind": "Policy",
        "omitStages": ["RequestReceived", "ResponseStarted"],
        "rules": [
            { "level": level, "resources": [{ "group": "rimward.dev" }] },
            { "level": "Metadata" },
        ],
    })
}
