//! `kubectl rimward verify REF --trust FILE`: checks a package as a device would.

use std::path::PathBuf;
use std::process::ExitCode;

/// What `verify` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The package, `host/repository:tag` or `host/repository@sha256:…`.
    reference: String,
    /// The trust file of the device.
    #[arg(long, value_name = "FILE")]
    trust: PathBuf,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!(
        "cannot verify {} against {} yet",
        args.reference,
        args.trust.display()
    )
}
