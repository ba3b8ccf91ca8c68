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
    )
}
