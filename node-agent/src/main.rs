//! The node agent's one binary.

use std::process::ExitCode;

use clap::Parser;
use rimward_node_agent::cli::{Cli, Command};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    // A child is told what it is before anything of the supervisor exists in it.
    if let Some(code) = rimward_node_agent::child::main() {
        return code;
    }
    let Cli { command, run } = Cli::parse();
    let flags = match (command, run) {
        (Some(Command::Run(flags)), _) => *flags,
        (Some(Command::Prepare(flags)), _) => {
            return match rimward_node_agent::prepare::run(&flags) {
                Ok(said) => {
                    eprintln!("{said}");
                    ExitCode::SUCCESS
                }
                Err(error) => {
                    eprintln!("Error: {error:#}");
                    ExitCode::FAILURE
                }
            };
        }
        (None, Some(flags)) => flags,
        (None, None) => {
            let _ = <Cli as clap::CommandFactory>::command().print_help();
            return ExitCode::from(2);
        }
    };
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    if flags.log_json {
        log.json().init();
    } else {
        log.init();
    }
    // Fails only where it was installed before, with the same outcome.
    let _ = rustls::crypto::ring::default_provider().install_default();
    // One thread: it starts the children, and they live no longer than the thread that did.
    let runtime = match tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
    {
        Ok(runtime) => runtime,
        Err(error) => {
            tracing::error!(%error, "cannot start");
            return ExitCode::FAILURE;
        }
    };
    match runtime.block_on(rimward_node_agent::agent::run(flags)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!(error = format!("{error:#}"), "the agent ends");
            ExitCode::FAILURE
        }
    }
}
