//! Tells a child process what it is, before anything of the supervisor exists in it.

use std::process::ExitCode;

/// Runs the hidden subcommand `host` or `preflight` if this process was started with it. `main` calls
/// this first and exits with what it gives.
pub fn main() -> Option<ExitCode> {
    let subcommand = std::env::args_os().nth(1)?;
    match subcommand.to_str()? {
        "host" => Some(crate::host::main()),
        "preflight" => Some(crate::preflight::main()),
        _ => None,
    }
}

/// Logs as JSON lines to standard error, which a child shares with the supervisor.
pub(crate) fn log_to_stderr() {
    use tracing_subscriber::EnvFilter;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let _ = tracing_subscriber::fmt()
        .json()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .try_init();
    // An engine's panic is caught and answered; here it becomes one line of the log like any other.
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let words = panic.payload_as_str().unwrap_or("no message");
        tracing::error!(place, words, "panic");
    }));
}
