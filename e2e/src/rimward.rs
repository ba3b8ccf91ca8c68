//! Rimward's own binaries, as they were built.
//!
//! Owns finding them, and starting operators and agents. It builds nothing: `cargo xtask demo` and
//! `cargo xtask test` do that first.

use std::path::PathBuf;

use anyhow::{Context, Result, bail};

/// Finds one of `rimward-operator`, `rimward-node-agent`, `kubectl-rimward`.
///
/// # Errors
/// When it is not built: says where it was looked for and which command builds it.
pub fn binary(name: &str) -> Result<PathBuf> {
    let path = folder()?.join(name);
    if !path.is_file() {
        bail!(
            "{name} is not built: `cargo build -p {name}` makes {}",
            path.display()
        );
    }
    Ok(path)
}

/// Finds the folder that cargo put the binaries in: the one of the running program, or above `deps/` for a
/// test.
///
/// # Errors
/// When the running program has no path.
pub fn folder() -> Result<PathBuf> {
    let program = std::env::current_exe().context("this program has no path")?;
    let folder = program.parent().context("this program has no folder")?;
    Ok(if folder.ends_with("deps") {
        folder.parent().unwrap_or(folder).to_path_buf()
    } else {
        folder.to_path_buf()
    })
}
