//! `kubectl rimward package DIR`: builds the reproducible package, writes or pushes it.

use std::path::PathBuf;
use std::process::ExitCode;

/// What `package` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// The folder with `rimward.yaml`, the module and the model files.
    dir: PathBuf,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    anyhow::bail!("cannot package {} yet", args.dir.display())
}
