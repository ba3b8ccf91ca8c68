//! Tells a child process what it is, before anything of the supervisor exists in it.

use std::process::ExitCode;

/// Runs the hidden subcommand `preflight` if this process was started with it. `main` calls this
/// first and exits with what it gives.
pub fn main() -> Option<ExitCode> {
    let subcommand = std::env::args_os().nth(1)?;
    match subcommand.to_str()? {
        "preflight" => Some(crate::preflight::main()),
        _ => None,
    }
}
