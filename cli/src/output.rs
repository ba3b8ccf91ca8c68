//! How results are printed.
//!
//! Owns standard output. A reader that went away (`| head`) is no error.

use std::io::{ErrorKind, Write as _};

use anyhow::Context;
use serde::Serialize;

/// Output formats.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Format {
    /// JSON, for programs.
    Json,
    /// YAML.
    Yaml,
    /// More of the same.
    Wide,
}

/// Prints a value for programs.
pub(crate) fn print(value: &impl Serialize, format: Format) -> anyhow::Result<()> {
    let text = match format {
        Format::Yaml => serde_yaml::to_string(value).context("writing YAML")?,
        Format::Json | Format::Wide => {
            serde_json::to_string_pretty(value).context("writing JSON")? + "\n"
        }
    };
    write(&text)
}

/// Prints text.
pub(crate) fn write(text: &str) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(()),
        other => other.context("standard output"),
    }
}
