//! The edge role: `rimward-operator edge`, one leader that runs the cluster's sync session in pull mode.
//!
//! Owns the wiring of flags, election and session.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use kube::Client;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rimward_core::ids::ClusterName;
use rimward_crds::direct;
use tokio_util::sync::CancellationToken;

use super::session::{self, SessionOptions};
use crate::election::{self, Candidate};
use crate::metrics::Metrics;
use crate::probes::{self, Readiness};
use crate::runtime::{self, CommonArgs};

/// Longest kubeconfig that is read, in bytes.
const KUBECONFIG_BYTES_MAX: u64 = 1024 * 1024;

/// Flags of the edge role.
#[derive(Clone, Debug, Args)]
pub(crate) struct EdgeArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// Name of this cluster: of its EdgeCluster on the hub.
    #[arg(long, value_name = "NAME")]
    cluster: String,
    /// Kubeconfig of the hub, as `kubectl rimward cluster add` wrote it.
    #[arg(long, value_name = "FILE")]
    hub_kubeconfig: PathBuf,
    /// Seconds between two heartbeats to the hub.
    #[arg(long, value_name = "SECONDS", default_value_t = 10, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    heartbeat_seconds: u32,
    /// A node whose Lease did not change for so long counts as unavailable.
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    node_silence_seconds: u32,
    /// The longest wait before an API server that is away is tried again.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    retry_seconds_max: u32,
}

/// Runs the edge role until `shutdown`.
///
/// # Errors
/// When it cannot start: a flag, a kubeconfig or the address to listen on cannot be used.
pub(crate) async fn run(args: EdgeArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let cluster: ClusterName = args.cluster.parse().context("--cluster")?;
    let hub = hub_client(&args).await?;
    let lead = |readiness, metrics| lead(&args, cluster, hub, readiness, metrics, &shutdown);
    probes::beside(args.common.listen, &shutdown, lead).await
}

async fn lead(
    args: &EdgeArgs,
    cluster: ClusterName,
    hub: Client,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let edge = args.common.client().await?;
    let candidate = Candidate {
        namespace: args.common.namespace.clone(),
        lease: "rimward-edge".to_owned(),
        identity: args.common.identity(),
        lease_seconds: args.common.lease_seconds,
    };
    let options = SessionOptions {
        holder: args.common.identity(),
        heartbeat_seconds: args.heartbeat_seconds,
        resync_seconds: args.common.resync_seconds,
        node_silence_seconds: args.node_silence_seconds,
        retry_seconds_max: args.retry_seconds_max,
        readiness: readiness.clone(),
        metrics: metrics.clone(),
    };
    let common = args.common.clone();
    let connect = async move { common.client().await };
    let standing_by = move || readiness.set(true);
    election::lead(
        connect,
        candidate,
        &metrics,
        standing_by,
        shutdown,
        |term| {
            let (hub, edge) = (hub.clone(), edge.clone());
            let (cluster, options) = (cluster.clone(), options.clone());
            async move {
                session::run(hub, None, edge, cluster, options, term.stop)
                    .await
                    .context("sync session")
            }
        },
    )
    .await
}

async fn hub_client(args: &EdgeArgs) -> anyhow::Result<Client> {
    let path = &args.hub_kubeconfig;
    let about = || format!("--hub-kubeconfig {}", path.display());
    let bytes = std::fs::metadata(path).with_context(about)?.len();
    anyhow::ensure!(
        bytes <= KUBECONFIG_BYTES_MAX,
        "{}: {bytes} bytes, at most {KUBECONFIG_BYTES_MAX} are read",
        about()
    );
    let file = Kubeconfig::read_from(path).with_context(about)?;
    let config = direct::config(file, &KubeConfigOptions::default())
        .await
        .with_context(about)?;
    runtime::client(config).with_context(about)
}
