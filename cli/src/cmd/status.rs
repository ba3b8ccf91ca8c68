//! `kubectl rimward status NAME [-w]`: where a rollout is; with `-w`, until it has settled.
//!
//! Exit code: 0 when it is rolled out (without `-w`: or on its way), 1 when it failed or time ran out.

use std::process::ExitCode;
use std::time::Duration;

use anyhow::bail;
use futures::StreamExt as _;
use kube::Api;
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::watch_object;
use rimward_crds::ModelDeployment;
use serde_json::json;

use crate::fetch::{DeploymentArgs, Found};
use crate::output::{self, Format};
use crate::time::parse_time;
use crate::view::{Verdict, line, verdict};

/// What `status` takes.
#[derive(Debug, clap::Args)]
pub(crate) struct Args {
    #[command(flatten)]
    deployment: DeploymentArgs,
    /// Wait until it has settled, printing each step.
    #[arg(short, long)]
    watch: bool,
    /// How long to wait with `-w`: `90`, `90s`, `10m`, `1h`.
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = parse_time)]
    timeout: Duration,
    /// How to print.
    #[arg(short, long, value_enum)]
    output: Option<Format>,
}

/// Runs the command.
pub(crate) async fn run(args: Args) -> anyhow::Result<ExitCode> {
    let Found { api, object, .. } = args.deployment.find().await?;
    let settled = if args.watch {
        let mut said = String::new();
        match tokio::time::timeout(args.timeout, settle(&api, &args, object, &mut said)).await {
            Ok(settled) => settled?,
            Err(_) => bail!("not settled within {} s: {said}", args.timeout.as_secs()),
        }
    } else {
        if args.output.is_none() {
            output::write(&format!("{}\n", line(&object)))?;
        }
        object
    };
    let verdict = verdict(&settled);
    if let Some(format) = args.output {
        let value = json!({
            "namespace": settled.metadata.namespace,
            "name": settled.metadata.name,
            "verdict": format!("{verdict:?}"),
            "status": settled.status,
        });
        output::print(&value, format)?;
    }
    Ok(match verdict {
        Verdict::Ready | Verdict::Working => ExitCode::SUCCESS,
        Verdict::Failed => ExitCode::FAILURE,
    })
}

/// Follows the object until it has settled; `said` is the last line.
async fn settle(
    api: &Api<ModelDeployment>,
    args: &Args,
    first: ModelDeployment,
    said: &mut String,
) -> anyhow::Result<ModelDeployment> {
    let (mut object, name) = (first, &args.deployment.name);
    let mut changes = std::pin::pin!(watch_object(api.clone(), name).default_backoff());
    loop {
        let line = line(&object);
        if line != *said && args.output.is_none() {
            output::write(&format!("{line}\n"))?;
        }
        *said = line;
        if verdict(&object) != Verdict::Working {
            return Ok(object);
        }
        object = loop {
            match changes.next().await {
                Some(Ok(Some(next))) => break next,
                Some(Ok(None)) => bail!("ModelDeployment {name} was deleted"),
                // The watch goes on by itself; the timeout bounds how long.
                Some(Err(_)) => {}
                None => bail!("the watch of ModelDeployment {name} ended"),
            }
        };
    }
}
