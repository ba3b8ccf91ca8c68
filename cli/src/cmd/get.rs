//! `kubectl rimward get [NAME]`: deployments as trees.

use std::process::ExitCode;

use rimward_crds::ModelDeployment;

use crate::connect::{ConnectArgs, NamespaceArgs};
use crate::fetch::{self, Fleet, scoped};
use crate::output::{self, Format};
use crate::view;

/// What `get` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    /// Name of a ModelDeployment [default: all of them].
    name: Option<String>,
    #[command(flatten)]
    connect: ConnectArgs,
    #[command(flatten)]
    namespace: NamespaceArgs,
    /// All namespaces.
    #[arg(short = 'A', long, conflicts_with_all = ["namespace", "name"])]
    all_namespaces: bool,
    /// How to print.
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let client = args.connect.client().await?;
    let namespace = (!args.all_namespaces).then(|| args.namespace.name(&client).to_owned());
    let namespace = namespace.as_deref();
    let mut deployments: Vec<ModelDeployment> = match &args.name {
        Some(name) => vec![fetch::get(&scoped(&client, namespace), name).await?],
        None => fetch::list(scoped(&client, namespace)).await?,
    };
    if deployments.is_empty() {
        let place = namespace.map_or("any namespace".to_owned(), |it| format!("namespace {it}"));
        eprintln!("No ModelDeployments found in {place}.");
        return Ok(ExitCode::SUCCESS);
    }
    deployments.sort_by_key(|it| (it.metadata.namespace.clone(), it.metadata.name.clone()));
    let fleet = Fleet::read(&client, namespace).await?;
    let views: Vec<_> = deployments.iter().map(|it| fleet.view(it)).collect();
    match args.output {
        Some(format @ (Format::Json | Format::Yaml)) if args.name.is_some() => {
            output::print(&views.first(), format)?;
        }
        Some(format @ (Format::Json | Format::Yaml)) => output::print(&views, format)?,
        wide @ (None | Some(Format::Wide)) => {
            let trees: Vec<_> = views
                .iter()
                .map(|it| view::tree(it, wide.is_some()))
                .collect();
            output::write(&trees.join("\n"))?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
