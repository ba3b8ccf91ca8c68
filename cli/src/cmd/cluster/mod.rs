//! `kubectl rimward cluster …`: clusters of the fleet.

use std::process::ExitCode;

mod account;
mod add;
mod edge_file;
mod helm_values;

/// What `cluster` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, clap::Subcommand)]
enum Command {
    /// Makes the EdgeCluster and its account, and writes what to apply on the edge.
    Add(add::Args),
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    match args.command {
        Command::Add(args) => add::run(args).await,
    }
}
