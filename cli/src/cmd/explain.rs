//! `kubectl rimward explain NAME`: why a cluster or node is on the revision it is on.

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::Context;
use kube::Api;
use rimward_crds::EdgeNode;

use crate::connect::client_of;
use crate::fetch::{self, DeploymentArgs, Fleet, Found};
use crate::output::{self, Format};
use crate::view;

/// What `explain` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Only this cluster.
    #[arg(long, value_name = "NAME")]
    cluster: Option<String>,
    /// Only this node of the cluster.
    #[arg(long, value_name = "NAME", requires = "cluster")]
    node: Option<String>,
    /// Kubeconfig of the edge cluster itself, to ask its nodes' own objects too.
    #[arg(long, value_name = "FILE", requires = "cluster")]
    edge_kubeconfig: Option<PathBuf>,
    /// How to print.
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Found { client, object, .. } = args.deployment.find().await?;
    let namespace = args.deployment.namespace.name(&client);
    let fleet = Fleet::read(&client, Some(namespace)).await?;
    let view = fleet.view(&object);
    let nodes: Option<Vec<EdgeNode>> = match &args.edge_kubeconfig {
        Some(path) => {
            let edge = client_of(path).await?;
            let nodes = fetch::list(Api::all(edge)).await;
            Some(nodes.context("--edge-kubeconfig")?)
        }
        None => None,
    };
    let (cluster, node) = (args.cluster.as_deref(), args.node.as_deref());
    let text = view::explain(&view, cluster, node, nodes.as_deref())?;
    match args.output {
        Some(format @ (Format::Json | Format::Yaml)) => output::print(&view, format)?,
        None | Some(Format::Wide) => output::write(&text)?,
    }
    Ok(ExitCode::SUCCESS)
}
