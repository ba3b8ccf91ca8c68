//! Rimward's operator. `hub` decides which cluster runs which revision; `edge` is a cluster's sync session.
//!
//! Owns the command line and the order of starting and stopping. Must never decide anything about a
//! fleet or a node: that is `rimward-core`.

use clap::{Parser, Subcommand};

mod answers;
mod backoff;
mod cache;
mod credentials;
mod definitions;
mod edge;
mod election;
mod events;
mod hub;
mod lease;
mod metrics;
mod objects;
mod pages;
mod probes;
mod runtime;
#[cfg(test)]
mod testing;

/// Puts signed models on edge clusters, and takes a bad one back.
#[derive(Debug, Parser)]
#[command(name = "rimward-operator", version)]
struct Cli {
    #[command(subcommand)]
    role: Role,
}

#[derive(Debug, Subcommand)]
enum Role {
    /// Plans the fleet: runs in the hub cluster.
    Hub(hub::HubArgs),
    /// Syncs one edge cluster with its hub and paces its nodes: runs in the edge cluster.
    Edge(edge::EdgeArgs),
}

fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    match cli.role {
        Role::Hub(args) => runtime::run(&args.common.clone(), |shutdown| hub::run(args, shutdown)),
        Role::Edge(args) => {
            runtime::run(&args.common.clone(), |shutdown| edge::run(args, shutdown))
        }
    }
}
