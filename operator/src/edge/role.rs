//! The edge role: `rimward-operator edge`, one leader that runs the cluster's sync session in pull mode.
//!
//! Owns the wiring of flags, election and session.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Context as _;
use clap::Args;
use kube::Client;
use rimward_core::ids::ClusterName;
use tokio_util::sync::CancellationToken;

use super::session::{self, SessionOptions};
use super::unsettled::Unsettled;
use crate::credentials::{self, Source};
use crate::election::{self, Candidate};
use crate::metrics::Metrics;
use crate::probes::{self, Readiness};
use crate::runtime::CommonArgs;

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
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    heartbeat_seconds: u32,
    /// A node whose Lease did not change for so long is silent.
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
    let hub = Source::File(args.hub_kubeconfig.clone());
    let hub = credentials::client(hub).await.context("--hub-kubeconfig")?;
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
    let (session_readiness, session_metrics) = (readiness.clone(), metrics.clone());
    let options = move |leadership| SessionOptions {
        holder: args.common.identity(),
        heartbeat_seconds: args.heartbeat_seconds,
        resync_seconds: args.common.resync_seconds,
        node_silence_seconds: args.node_silence_seconds,
        retry_seconds_max: args.retry_seconds_max,
        readiness: session_readiness.clone(),
        metrics: session_metrics.clone(),
        leadership,
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
            let (cluster, options) = (cluster.clone(), options(term.clone()));
            async move {
                // Another process may have led since the last term.
                let mut unsettled = Unsettled::new();
                session::run(hub, None, edge, cluster, options, &mut unsettled, term.stop)
                    .await
                    .context("sync session")
            }
        },
    )
    .await
}
