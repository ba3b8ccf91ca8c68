//! `cargo xtask gen`: writes every generated file.

use anyhow::{Result, bail};

use crate::step;

/// Runs `cargo xtask gen`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    if !arguments.is_empty() {
        bail!("usage: cargo xtask gen");
    }
    step::run(
        "definitions and reference from crds/src",
        &mut step::cargo(&[
            "run",
            "--quiet",
            "-p",
            "rimward-crds",
            "--bin",
            "rimward-gen",
            ".",
        ]),
    )?;
    step::run(
        "reference of the metrics, from the binaries' own registries",
        step::cargo(&["test", "--quiet", "--workspace", "--lib", "--bins"])
            .args(["--", "the_reference_page_says_what_this_binary_exposes"])
            .env("RIMWARD_WRITE_METRICS_PAGE", "1"),
    )
}
