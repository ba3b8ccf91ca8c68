//! `cargo xtask gen`: writes every generated file.

use anyhow::{Result, bail};

use crate::{charts, step};

/// Runs `cargo xtask gen`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    match arguments {
        [] => {}
        [only] if only == "charts" => return charts(),
        _ => bail!("usage: cargo xtask gen [charts]"),
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
    )?;
    charts()
}

/// The charts' copies and the reference of their values, from files that are there.
fn charts() -> Result<()> {
    eprintln!("==> charts and their reference");
    charts::write()
}
