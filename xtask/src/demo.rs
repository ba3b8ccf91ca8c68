//! `cargo xtask demo`, `cargo xtask bench` and `cargo xtask fleet`: build what they run, then become it.

use std::os::unix::process::CommandExt;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{prepare, step, tools};

/// Rimward's own binaries.
const EVERYTHING: &[&str] = &["rimward-operator", "rimward-node-agent", "kubectl-rimward"];

/// Runs `cargo xtask demo [--keep]`.
pub(crate) fn run(arguments: &[String]) -> Result<()> {
    become_program(
        "the demo",
        "rimward-demo",
        "dev",
        EVERYTHING,
        tools::FOR_DEMO,
        arguments,
    )
}

/// Runs `cargo xtask fleet N`. Thousands of sessions share this machine's cores with the hub: optimised.
pub(crate) fn fleet(arguments: &[String]) -> Result<()> {
    become_program(
        "a simulated fleet",
        "rimward-fleet",
        "release",
        &["rimward-operator", "kubectl-rimward"],
        tools::FOR_HUB,
        arguments,
    )
}

/// Runs `cargo xtask bench [NAME]...`. Speed is measured on optimised binaries.
pub(crate) fn bench(arguments: &[String]) -> Result<()> {
    become_program(
        "the benchmark",
        "rimward-bench",
        "release",
        EVERYTHING,
        tools::FOR_DEMO,
        arguments,
    )
}

/// Replaces this process, so that Ctrl-C reaches the program and the shell waits for its clean-up.
fn become_program(
    what_for: &str,
    name: &str,
    profile: &str,
    needs: &[&str],
    parts: &[&str],
    arguments: &[String],
) -> Result<()> {
    let mut build = step::cargo(&["build", "--locked", "--workspace", "--profile", profile]);
    // The whole workspace, so that features are those of the tests; these binaries, so that nothing is built in vain.
    for binary in needs.iter().copied().chain([name]) {
        build.args(["--bin", binary]);
    }
    let parts = prepare::run(what_for, parts, &mut build)?;
    let folder = if profile == "dev" { "debug" } else { profile };
    let program = step::target_folder()?.join(folder).join(name);
    let error = Command::new(&program)
        .args(arguments)
        .current_dir(step::root())
        .envs(parts.environment())
        .exec();
    Err(error).with_context(|| format!("starting {}", program.display()))
}
