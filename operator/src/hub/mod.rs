//! The hub role: observe → parse → plan → apply → status.
//!
//! Owns the wiring. Decisions are `rimward_core::fleet::plan`'s; the steps are the files beside this one.

use std::sync::Arc;

use clap::Args;
use tokio_util::sync::CancellationToken;

use crate::election::{self, Candidate};
use crate::metrics::Metrics;
use crate::probes::{self, Readiness};
use crate::runtime::CommonArgs;

/// Field manager of everything that the hub writes.
pub(crate) const FIELD_MANAGER: &str = "rimward-hub";

/// Flags of the hub role.
#[derive(Clone, Debug, Args)]
pub(crate) struct HubArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// How long a cluster may be silent before it counts as offline.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) offline_grace_seconds: u32,
    /// A registry that is reached by plain HTTP; may be given several times.
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
}

/// Runs the hub role until `shutdown`.
///
/// # Errors
/// When it cannot start, or a part of it ends by itself.
pub(crate) async fn run(args: HubArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let metrics = Arc::new(Metrics::default());
    let readiness = Readiness::default();
    let probes = probes::serve(
        args.common.listen,
        readiness.clone(),
        metrics.clone(),
        shutdown.clone(),
    )
    .await?;
    let client = args.common.client().await?;
    let candidate = Candidate {
        namespace: args.common.namespace.clone(),
        lease: "rimward-hub".to_owned(),
        identity: args.common.identity(),
        lease_seconds: args.common.lease_seconds,
    };
    readiness.set(true);
    let lead = election::lead(
        &client,
        &candidate,
        &metrics,
        &shutdown,
        |stop| async move {
            stop.cancelled().await;
            Ok(())
        },
    );
    let (probes, lead) = tokio::join!(probes, lead);
    lead.and(probes)
}
