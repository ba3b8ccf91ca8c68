//! `kubectl rimward`: reads the command line and hands over to one module per command.
//!
//! Owns exit codes and how an error is printed. Must never hold what a command does.

use std::process::ExitCode;

use clap::{Parser, Subcommand};

mod cmd;
mod connect;
mod fetch;
mod kubeconfig;
mod output;
mod registry;
mod time;
mod view;

/// Signed machine-learning models for many edge devices.
#[derive(Debug, Parser)]
#[command(name = "kubectl rimward", bin_name = "kubectl rimward", version, about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

/// Each command's arguments and `run` live in `cmd/<command>.rs`.
#[derive(Debug, Subcommand)]
enum Command {
    /// Takes a revision back: every cluster goes to the promoted one.
    Abort(cmd::act::Abort),
    /// Adds clusters to the fleet.
    Cluster(cmd::cluster::Args),
    /// Says why a cluster or node is on the revision it is on.
    Explain(cmd::explain::Args),
    /// Shows deployments as trees: revisions, stages, clusters, counts, what they wait for.
    Get(cmd::get::Args),
    /// Asks a model for a prediction, as any client does.
    Infer(cmd::infer::Args),
    /// Nodes of an edge cluster.
    Node(cmd::node::Args),
    /// Builds a package from a folder, and pushes it.
    Package(cmd::package::Args),
    /// Goes on past a wait, a suspect or an empty stage, once.
    Promote(cmd::act::Promote),
    /// Opens a stopped revision again, under a new attempt.
    Retry(cmd::act::Retry),
    /// Says where a rollout is; with -w, waits until it has settled.
    Status(cmd::status::Args),
    /// Goes to an earlier revision without a change of the deployment's spec.
    Undo(cmd::act::Undo),
    /// Checks a package as a device would, and says which step failed.
    Verify(cmd::verify::Args),
}

#[tokio::main]
async fn main() -> ExitCode {
    let cli = Cli::parse();
    if rustls::crypto::ring::default_provider()
        .install_default()
        .is_err()
    {
        eprintln!("Error: a TLS provider was installed before main");
        return ExitCode::FAILURE;
    }
    let outcome = match cli.command {
        Command::Abort(args) => args.run().await,
        Command::Cluster(args) => cmd::cluster::run(args).await,
        Command::Explain(args) => cmd::explain::run(args).await,
        Command::Get(args) => cmd::get::run(args).await,
        Command::Infer(args) => cmd::infer::run(args).await,
        Command::Node(args) => cmd::node::run(args).await,
        Command::Package(args) => cmd::package::run(args).await,
        Command::Promote(args) => args.run().await,
        Command::Retry(args) => args.run().await,
        Command::Status(args) => cmd::status::run(args).await,
        Command::Undo(args) => args.run().await,
        Command::Verify(args) => cmd::verify::run(args).await,
    };
    match outcome {
        Ok(code) => code,
        Err(error) => {
            eprintln!("Error: {error:#}");
            ExitCode::FAILURE
        }
    }
}
