//! What may go wrong with a registry, and whether it may pass by itself.

use std::io;

use rimward_core::ids::Digest;
use thiserror::Error;

use crate::text::clip;

/// A request to a registry failed.
#[derive(Debug, Error)]
pub enum ClientError {
    /// The client could not be made.
    #[error("registry client: {0}")]
    Setup(String),
    /// No answer, or one that broke off.
    #[error("{what}: {message}")]
    Transport {
        /// What was asked for.
        what: String,
        /// How it failed, with the causes.
        message: String,
    },
    /// An answer with an error status.
    #[error("{what}: the registry answered {status}{message}")]
    Status {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry's own words, bounded, with ": " in front if any.
        message: String,
    },
    /// There is no such thing.
    #[error("{what}: not found")]
    NotFound {
        /// What was asked for.
        what: String,
    },
    /// Credentials are missing or not enough.
    #[error("{what}: access denied (status {status}); credentials for {host}: {credentials}")]
    Denied {
        /// What was asked for.
        what: String,
        /// The HTTP status.
        status: u16,
        /// The registry.
        host: String,
        /// `none` or `given`.
        credentials: &'static str,
    },
    /// More bytes than allowed, declared or sent.
    #[error("{what}: more than the {limit} bytes that are accepted")]
    TooLarge {
        /// What was asked for.
        what: String,
        /// The limit.
        limit: u64,
    },
    /// Slower than the minimum rate, or silent.
    #[error("{what}: slower than {bytes_per_second_min} bytes per second")]
    TooSlow {
        /// What was asked for.
        what: String,
        /// The limit.
        bytes_per_second_min: u64,
    },
    /// No headers in time.
    #[error("{what}: no answer within {seconds} s")]
    Timeout {
        /// What was asked for.
        what: String,
        /// The limit.
        seconds: u64,
    },
    /// The answer goes against the protocol or against safety: a lying range, a hostile redirect or realm.
    #[error("{what}: {message}")]
    Refused {
        /// What was asked for.
        what: String,
        /// What was refused, and why.
        message: String,
    },
    /// Other content than was asked for.
    #[error("{what}: the bytes hash to {actual}")]
    Digest {
        /// What was asked for.
        what: String,
        /// What came.
        actual: Digest,
    },
    /// The local side could not take or give the bytes.
    #[error("{what}: local file")]
    Local {
        /// What was transferred.
        what: String,
        /// The cause.
        source: io::Error,
    },
}

impl ClientError {
    /// May the same request succeed a little later, with nothing else changed?
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match self {
            Self::Transport { .. } | Self::TooSlow { .. } | Self::Timeout { .. } => true,
            Self::Status { status, .. } => *status >= 500 || matches!(status, 408 | 429),
            Self::Setup(_)
            | Self::NotFound { .. }
            | Self::Denied { .. }
            | Self::TooLarge { .. }
            | Self::Refused { .. }
            | Self::Digest { .. }
            | Self::Local { .. } => false,
        }
    }

    /// Every word that [`ClientError::category`] gives.
    pub const CATEGORIES: [&'static str; 10] = [
        "RegistryClientSetup",
        "RegistryUnreachable",
        "RegistryError",
        "NotFound",
        "RegistryAccessDenied",
        "ContentTooLarge",
        "RegistryTooSlow",
        "RegistryAnswerRefused",
        "ContentDigestMismatch",
        "StorageError",
    ];

    /// The stable CamelCase category, shared by status, events and metric labels.
    #[must_use]
    pub fn category(&self) -> &'static str {
        // A word that is added here is added to CATEGORIES too.
        match self {
            Self::Setup(_) => "RegistryClientSetup",
            Self::Transport { .. } => "RegistryUnreachable",
            Self::Status { .. } => "RegistryError",
            Self::NotFound { .. } => "NotFound",
            Self::Denied { .. } => "RegistryAccessDenied",
            Self::TooLarge { .. } => "ContentTooLarge",
            Self::TooSlow { .. } | Self::Timeout { .. } => "RegistryTooSlow",
            Self::Refused { .. } => "RegistryAnswerRefused",
            Self::Digest { .. } => "ContentDigestMismatch",
            Self::Local { .. } => "StorageError",
        }
    }
}

/// An error with its causes in one line. URLs, which may carry signed queries, are left out by the caller.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.ends_with(&cause_text) {
            text.push_str(": ");
            text.push_str(&cause_text);
        }
        source = cause.source();
    }
    clip(&text, 300)
}
