//! The edge role: `rimward-operator edge`, one leader that runs the cluster's sync session in pull mode.
//!
//! Owns the wiring of flags, election and session.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use clap::Args;
use kube::Client;
use rimward_core::ids::ClusterName;
use tokio_util::sync::CancellationToken;

use super::session::{self, SessionOptions};
use super::unsettled::Unsettled;
use crate::credentials::{self, Source};
use crate::definitions::{self, Gate};
use crate::election::{self, Candidate, standing_by};
use crate::metrics::Metrics;
use crate::objects::{EDGE_LEADER, NODES_NAMESPACE};
use crate::probes::{self, Readiness};
use crate::runtime::CommonArgs;

/// Name of the Lease by which edge operators of 0.1 led.
const GUARD: &str = "rimward-edge";

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
    let resync = Duration::from_secs(args.common.resync_seconds.into());
    let gate = Gate::start(&edge, definitions::OF_AN_EDGE, resync);
    definitions::while_fit(&gate, &readiness, shutdown, |stop| {
        let world = World {
            args,
            cluster: cluster.clone(),
            hub: hub.clone(),
            edge: edge.clone(),
            gate: gate.clone(),
            readiness: readiness.clone(),
            metrics: metrics.clone(),
        };
        async move { world.lead(&stop).await }
    })
    .await
}

/// What an edge operator works with.
struct World<'a> {
    args: &'a EdgeArgs,
    cluster: ClusterName,
    hub: Client,
    edge: Client,
    gate: Gate,
    readiness: Readiness,
    metrics: Arc<Metrics>,
}

impl World<'_> {
    async fn lead(self, shutdown: &CancellationToken) -> anyhow::Result<()> {
        let Self {
            args,
            cluster,
            hub,
            edge,
            gate,
            readiness,
            metrics,
        } = self;
        let candidate = Candidate {
            lease: (NODES_NAMESPACE, EDGE_LEADER),
            guard: GUARD,
            installation: args.common.namespace.clone(),
            identity: args.common.identity(),
            lease_seconds: args.common.lease_seconds,
        };
        let (session_readiness, session_metrics) = (readiness.clone(), metrics.clone());
        let session_gate = gate.clone();
        let options = move |leadership| SessionOptions {
            holder: args.common.identity(),
            heartbeat_seconds: args.heartbeat_seconds,
            resync_seconds: args.common.resync_seconds,
            node_silence_seconds: args.node_silence_seconds,
            retry_seconds_max: args.retry_seconds_max,
            readiness: session_readiness.clone(),
            metrics: session_metrics.clone(),
            leadership,
            definitions: session_gate.clone(),
        };
        let common = args.common.clone();
        let connect = async move { common.client().await };
        let standing_by = standing_by(&args.common.namespace, &readiness);
        election::lead(
            connect,
            candidate,
            gate,
            &metrics,
            standing_by,
            shutdown,
            |term| {
                readiness.leads();
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
}
