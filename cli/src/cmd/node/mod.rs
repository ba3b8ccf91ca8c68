//! `kubectl rimward node …`: nodes of an edge cluster, asked of that cluster itself.

use std::process::ExitCode;

mod forget;

/// What `node` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Deletes the EdgeNode and the Lease of a node that is gone for good.
    Forget(forget::Args),
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Forget(args) => forget::run(args).await,
    }
}
