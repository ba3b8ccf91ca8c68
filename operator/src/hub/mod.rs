//! The hub role: observe → parse → plan → apply → status.
//!
//! Owns the wiring. Decisions are `rimward_core::fleet`'s; the steps are the files beside this one:
//!
//! | step | file |
//! |---|---|
//! | observe | `observe.rs`, `heartbeats.rs`, `feed.rs`, and off the loop `models.rs` (registries) |
//! | parse | `parse/`, `revisions.rs`, `kubeconfig.rs` |
//! | plan | `view.rs` tells core's planner what is there, `kept.rs` what went with its definition; `index.rs` says what a change touches |
//! | apply | `reconcile.rs` has the order, `record.rs` the records of rollouts, `assign.rs` the assignments and `entries.rs` their words, `steps.rs` how many at once, `apply.rs` the requests, `debts.rs` what is not known of them |
//! | status | `status/` what it shall say, `report.rs` what differs, `others.rs` of which objects, `actions.rs` what became of RolloutActions |
//! | push | `push.rs`: sessions of Push clusters |

use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use kube::Client;
use rimward_artifact::registry::ClientOptions;
use rimward_core::fleet::DoubtLimits;
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use crate::definitions::{self, Gate};
use crate::edge::session::SessionOptions;
use crate::election::{self, Candidate, standing_by};
use crate::events::Events;
use crate::metrics::Metrics;
use crate::objects::{CLUSTERS_NAMESPACE, HUB_LEADER};
use crate::probes::{self, Readiness};
use crate::runtime::CommonArgs;

mod actions;
mod apply;
mod assign;
mod debts;
mod entries;
mod expiry;
mod feed;
mod heartbeats;
mod index;
mod kept;
mod kubeconfig;
mod models;
mod observe;
mod others;
mod parse;
mod push;
mod reconcile;
mod record;
mod report;
mod revisions;
mod status;
mod steps;
mod view;

/// Field manager of everything that the hub writes.
pub(crate) const FIELD_MANAGER: &str = "rimward-hub";

/// Name of the Lease by which hubs of 0.1 led.
const GUARD: &str = "rimward-hub";

/// Flags of the hub role.
#[derive(Clone, Debug, Args)]
pub(crate) struct HubArgs {
    #[command(flatten)]
    pub(crate) common: CommonArgs,
    /// How long a cluster may be silent before it counts as offline; at least two heartbeats.
    #[arg(long, value_name = "SECONDS", default_value_t = 300, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) offline_grace_seconds: u32,
    /// The hub doubts its own ears when so many percent of the clusters fall silent within one grace; 0: never.
    #[arg(long, value_name = "PERCENT", default_value_t = 30, value_parser = clap::value_parser!(u32).range(0..=100))]
    pub(crate) doubt_percent: u32,
    /// And when at least so many do.
    #[arg(long, value_name = "CLUSTERS", default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=100_000))]
    pub(crate) doubt_clusters_min: u32,
    /// How long a RolloutAction is kept once it was applied or refused.
    #[arg(long, value_name = "SECONDS", default_value_t = 604_800, value_parser = clap::value_parser!(u32).range(1..=31_536_000))]
    pub(crate) action_retention_seconds: u32,
    /// A registry (host[:port]) that is reached by plain HTTP; may be given several times. The only way to
    /// have one on this machine: no Model leads the hub to its own loopback.
    #[arg(long, value_name = "HOST")]
    pub(crate) plain_http: Vec<String>,
    /// Seconds between two heartbeats of a cluster: the hub's own sessions of Push clusters beat by it, those of Pull
    /// clusters have the same flag. No silence of less than two of them is acted on.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) heartbeat_seconds: u32,
    /// Push clusters: a node whose Lease did not change for so long is silent.
    #[arg(long, value_name = "SECONDS", default_value_t = 40, value_parser = clap::value_parser!(u32).range(1..=86_400))]
    pub(crate) node_silence_seconds: u32,
    /// Push clusters: the longest wait before an API server that is away is tried again.
    #[arg(long, value_name = "SECONDS", default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..=3_600))]
    pub(crate) retry_seconds_max: u32,
}

impl HubArgs {
    const fn graces(&self) -> parse::Graces {
        parse::Graces {
            offline_seconds: self.offline_grace_seconds,
            heartbeat_seconds: self.heartbeat_seconds,
        }
    }
}

/// Runs the hub role until `shutdown`.
///
/// # Errors
/// When it cannot start, or a part of it ends by itself.
pub(crate) async fn run(args: HubArgs, shutdown: CancellationToken) -> anyhow::Result<()> {
    let (graces, offline) = (args.graces(), args.offline_grace_seconds);
    anyhow::ensure!(
        offline >= graces.shortest_seconds(),
        "--offline-grace-seconds {offline} is less than two heartbeats: clusters beat every {} s by \
         --heartbeat-seconds, so at least {} is needed",
        graces.heartbeat_seconds,
        graces.shortest_seconds()
    );
    let lead = |readiness, metrics| lead(&args, readiness, metrics, &shutdown);
    probes::beside(args.common.listen, &shutdown, lead).await
}

async fn lead(
    args: &HubArgs,
    readiness: Readiness,
    metrics: Arc<Metrics>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let client = args.common.client().await?;
    let resync = Duration::from_secs(args.common.resync_seconds.into());
    let gate = Gate::start(&client, definitions::OF_THE_HUB, resync);
    definitions::while_fit(&gate, &readiness, shutdown, |stop| {
        let (client, gate, readiness, metrics) = (&client, &gate, &readiness, &metrics);
        async move { watch_and_lead(args, client, gate, readiness, metrics, &stop).await }
    })
    .await
}

/// Fills caches and leads with them, until `shutdown`.
async fn watch_and_lead(
    args: &HubArgs,
    client: &Client,
    gate: &Gate,
    readiness: &Readiness,
    metrics: &Arc<Metrics>,
    shutdown: &CancellationToken,
) -> anyhow::Result<()> {
    let mut watches = JoinSet::new();
    let caches = Arc::new(observe::Caches::start(
        client,
        gate,
        args.offline_grace_seconds,
        metrics,
        &mut watches,
    ));
    tokio::select! {
        () = shutdown.cancelled() => return Ok(()),
        ready = caches.wait_until_ready() => ready?,
    }
    readiness.set();
    let identity = args.common.identity();
    let candidate = Candidate {
        lease: (CLUSTERS_NAMESPACE, HUB_LEADER),
        guard: GUARD,
        installation: args.common.namespace.clone(),
        identity: identity.clone(),
        lease_seconds: args.common.lease_seconds,
    };
    // A replica that stands by has its caches already.
    let common = args.common.clone();
    election::lead(
        async move { common.client().await },
        candidate,
        gate.clone(),
        metrics,
        standing_by(&args.common.namespace, readiness),
        shutdown,
        |leadership| {
            readiness.leads();
            // Everything that a leader knows is made anew: what an earlier time in the lead knew is old.
            let hub = reconcile::Hub {
                caches: caches.clone(),
                writer: Arc::new(apply::Writer::new(
                    client.clone(),
                    metrics.clone(),
                    caches.clone(),
                    leadership.clone(),
                )),
                events: Events::start(client.clone(), identity.clone(), metrics.clone()),
                metrics: metrics.clone(),
                resolver: models::Resolver::new(
                    client.clone(),
                    ClientOptions {
                        plain_http: args.plain_http.iter().cloned().collect(),
                        // Whoever may make a Model names its registry.
                        internal_only_if_named: true,
                        ..ClientOptions::default()
                    },
                    metrics.clone(),
                    caches.feed.clone(),
                ),
                push: push::PushSessions::new(
                    client.clone(),
                    args.common.namespace.clone(),
                    SessionOptions {
                        holder: identity.clone(),
                        heartbeat_seconds: args.heartbeat_seconds,
                        resync_seconds: args.common.resync_seconds,
                        node_silence_seconds: args.node_silence_seconds,
                        retry_seconds_max: args.retry_seconds_max,
                        readiness: readiness.clone(),
                        metrics: metrics.clone(),
                        leadership: leadership.clone(),
                        // Each session has its own cluster's in its place.
                        definitions: gate.clone(),
                    },
                    caches.clone(),
                ),
                reporter: report::Reporter::new(metrics.clone()),
                doubt: DoubtLimits {
                    percent: args.doubt_percent,
                    clusters_min: args.doubt_clusters_min,
                },
                action_retention: Duration::from_secs(args.action_retention_seconds.into()),
                longest_wait: Duration::from_secs(args.common.resync_seconds.into()),
                graces: args.graces(),
                definition: gate.born("modeldeployments.rimward.dev"),
            };
            hub.run(leadership.stop)
        },
    )
    .await
}

#[cfg(test)]
mod tests {
    use clap::Parser;
    use tokio_util::sync::CancellationToken;

    use super::HubArgs;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        hub: HubArgs,
    }

    #[tokio::test]
    async fn a_hub_that_would_take_every_cluster_for_silent_does_not_start() {
        let line = ["hub", "--offline-grace-seconds=59"];
        let args = Line::try_parse_from(line).unwrap().hub;
        let error = super::run(args, CancellationToken::new()).await;
        assert_eq!(
            error.unwrap_err().to_string(),
            "--offline-grace-seconds 59 is less than two heartbeats: clusters beat every 30 s by \
             --heartbeat-seconds, so at least 60 is needed"
        );
    }
}
