//! What a command needs before it can run: real parts, built by Go, and our own binaries, built by cargo.
//!
//! Owns that both are built side by side, and what is said meanwhile. Never decides which parts or binaries.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};

use anyhow::{Context as _, Result, bail};

use crate::side_by_side::{self, Stop};
use crate::step;
use crate::tools::progress::{self, Progress};
use crate::tools::{Installed, Plan};

/// Lines of a failed build's log that are shown.
const LOG_LINES_SHOWN: usize = 40;

/// Makes the named parts and what `build` (a cargo) builds, and says where the parts are.
///
/// Side by side where something of Go's is missing and the machine has two cores: each leaves a core idle again and
/// again (downloads, links), and neither needs the other. What fails there is shown at once, and ends the other.
///
/// # Errors
/// What could not be built, and the end of its log; or that this was shown before.
pub(crate) fn run(what_for: &str, parts: &[&str], build: &mut Command) -> Result<Installed> {
    let plan = Plan::new(parts)?;
    let go: Vec<String> = plan.to_build().collect();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    if go.is_empty() || cores < 2 {
        say(what_for, &go);
        let installed = plan.install(&Stop::default())?;
        step::run("building Rimward", build)?;
        return Ok(installed);
    }
    say(what_for, &go);
    side_by_side::run(
        |stop| with_progress(build, stop),
        |stop| plan.install(stop),
        progress::say,
    )
}

fn say(what_for: &str, go: &[String]) {
    if go.is_empty() {
        return;
    }
    eprintln!(
        "Once on this machine, {what_for} needs, built from source and kept for every clone:"
    );
    for line in go {
        eprintln!("  {line}");
    }
    eprintln!(
        "and Rimward itself (Rust), up to 8 min, side by side with them where there are two cores."
    );
}

/// Runs cargo with its output in a file, so that two builds do not write over each other.
fn with_progress(build: &mut Command, stop: &Stop) -> Result<()> {
    let folder = step::target_folder()?;
    std::fs::create_dir_all(&folder).with_context(|| format!("making {}", folder.display()))?;
    let log = folder.join("rimward-build.log");
    let output = File::create(&log).with_context(|| format!("writing {}", log.display()))?;
    let mut progress = Progress::start("Rimward".to_owned(), "building with cargo");
    let mut child = build
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(output)
        .spawn()
        .context("starting cargo")?;
    let status = stop.wait(&mut child, || {
        progress.tick(|| format!("{} crates", crates(&log)));
    });
    let status = match status {
        Ok(status) => status,
        Err(error) => {
            progress.end("stopped");
            return Err(error);
        }
    };
    progress.end(if status.success() { "built" } else { "failed" });
    if status.success() {
        return Ok(());
    }
    let text = std::fs::read_to_string(&log).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    let end = &lines[lines.len().saturating_sub(LOG_LINES_SHOWN)..];
    bail!("building Rimward failed ({status}):\n{}", end.join("\n"))
}

fn crates(log: &Path) -> usize {
    let text = std::fs::read_to_string(log).unwrap_or_default();
    let compiled = |line: &&str| line.trim_start().starts_with("Compiling ");
    text.lines().filter(compiled).count()
}
