//! Running one command as a named step: said before, timed after.
//!
//! Owns how a step looks on the terminal. Never decides which steps there are.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail};

/// The repository's root.
pub(crate) fn root() -> &'static Path {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
}

/// A command that runs in the repository's root, with the cargo that runs this program.
pub(crate) fn cargo(arguments: &[&str]) -> Command {
    let mut command = with_cargo(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments);
    command
}

/// A command that runs in the repository's root, with a cargo of the caller's choice.
pub(crate) fn with_cargo(cargo: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new(cargo);
    command.current_dir(root());
    // What `cargo run` says about this program. Build scripts (ring's) take a change of it for a change of their own,
    // and half of everything would be built anew after each `cargo build` that a person types.
    let about_us =
        |name: &str| name.starts_with("CARGO_PKG_") || name.starts_with("CARGO_MANIFEST_");
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(about_us) {
            command.env_remove(name);
        }
    }
    command
}

/// Runs one step to its end.
///
/// # Errors
/// Names the step and the command that failed.
pub(crate) fn run(name: &str, command: &mut Command) -> Result<()> {
    eprintln!("==> {name}");
    let started = Instant::now();
    let status = command
        .status()
        .with_context(|| format!("{name}: starting {:?}", command.get_program()))?;
    if !status.success() {
        bail!("{name} failed ({status}): {}", words(command));
    }
    eprintln!("    {name}: {} s", started.elapsed().as_secs());
    Ok(())
}

/// Where cargo puts what it builds.
///
/// # Errors
/// When `cargo metadata` fails.
pub(crate) fn target_folder() -> Result<PathBuf> {
    let metadata = cargo_metadata::MetadataCommand::new()
        .current_dir(root())
        .no_deps()
        .exec()
        .context("asking cargo for the target folder")?;
    Ok(metadata.target_directory.into_std_path_buf())
}

fn words(command: &Command) -> String {
    std::iter::once(command.get_program())
        .chain(command.get_args())
        .map(|word| word.to_string_lossy())
        .collect::<Vec<_>>()
        .join(" ")
}
