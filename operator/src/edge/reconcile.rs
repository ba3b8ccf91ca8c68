//! One round of a session: mirror → plan → go-aheads → status.
//!
//! Owns the order of a session's writes. Every write happens on a difference only, and a stale writer
//! loses: EdgeNodes are written for the exact version that was planned on.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff;
use kube::api::{Api, Patch, PatchParams, PostParams};
use kube::{Client, ResourceExt as _};
use rimward_core::cluster::{self, Plan, Progress};
use rimward_core::ids::{ClusterName, ModelKey};
use rimward_core::time::Timestamp;
use rimward_crds::{ClusterAssignment, ClusterAssignmentStatus, EdgeNode, NodeModel};
use serde_json::{Value, json};

use super::contest::Contest;
use super::liveness::Liveness;
use super::mirror::{self, Relation};
use super::observe::{Observed, Written, readable};
use super::session::{FIELD_MANAGER, bounded};
use super::status::{self, Facts, Sources};
use super::{nodes, parse, progress};
use crate::metrics::{Category, Kind, Metrics};

/// What a session keeps from round to round. None of it is needed after a restart.
pub(crate) struct Reconciler<'a> {
    hub: Api<ClusterAssignment>,
    edge: Api<ClusterAssignment>,
    edge_nodes: Api<EdgeNode>,
    cluster: &'a ClusterName,
    metrics: &'a Metrics,
    hub_away: &'a AtomicBool,
    resync: Duration,
    contest: Contest,
    /// The planner's clock: seconds since this session began, whatever the wall clock does.
    began: Instant,
    /// None until the first round restored it from the mirror.
    progress: Option<BTreeMap<ModelKey, Progress>>,
    on_hub: Written<ClusterAssignment>,
    on_edge: Written<ClusterAssignment>,
    on_nodes: Written<EdgeNode>,
}

/// When to go round again though nothing is seen to change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Next {
    /// A write failed: after a growing wait.
    Failed,
    /// After that time, or at the next resync.
    Plan(Option<Duration>),
}

/// Why a write was not done.
#[derive(Debug, thiserror::Error)]
pub(crate) enum WriteError {
    /// The API server refused it, or could not be reached.
    #[error("API request")]
    Api(#[source] kube::Error),
    /// No answer within the bound.
    #[error("no answer in time")]
    Late,
}

impl<'a> Reconciler<'a> {
    pub(crate) fn new(
        hub: Client,
        edge: Client,
        cluster: &'a ClusterName,
        metrics: &'a Metrics,
        hub_away: &'a AtomicBool,
        resync: Duration,
    ) -> Self {
        Self {
            hub: Api::all(hub),
            edge: Api::all(edge.clone()),
            edge_nodes: Api::all(edge),
            cluster,
            metrics,
            hub_away,
            resync,
            contest: Contest::default(),
            began: Instant::now(),
            progress: None,
            on_hub: Written::default(),
            on_edge: Written::default(),
            on_nodes: Written::default(),
        }
    }

    /// Goes one round.
    pub(crate) async fn reconcile(
        &mut self,
        observed: Observed,
        facts: &Facts,
        liveness: &Mutex<Liveness>,
    ) -> Next {
        let mut failed = false;
        let hub = observed.hub.as_deref().and_then(|hub| {
            let hub = readable(hub).inspect_err(|error| {
                tracing::warn!(%error, "the hub's assignment does not parse; what runs goes on");
            });
            hub.ok().map(|hub| self.on_hub.over(hub))
        });
        let edge = observed.edge.as_deref();
        let edge = edge.and_then(|edge| readable(edge).ok());
        let edge = edge.map(|edge| self.on_edge.over(edge));
        let relation = mirror::relation(hub.as_ref(), edge.as_ref());
        let object = match (relation, &hub) {
            (Relation::Apart, Some(hub)) => match self.mirror(hub, edge.as_ref()).await {
                Ok(mirror) => Some(mirror),
                Err(error) => {
                    self.log_failed("mirror", &error);
                    failed = true;
                    edge
                }
            },
            _ => edge,
        };
        let Some(mut object) = object else {
            return if failed {
                Next::Failed
            } else {
                Next::Plan(None)
            };
        };
        let generation = mirror::hub_generation(&object)
            .or(object.metadata.generation)
            .unwrap_or_default();

        let now = Timestamp(i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX));
        let kept = progress::read(mirror::annotation(&object, progress::ANNOTATION));
        let entries = parse::entries(&object.spec.models);
        let seen = nodes::Seen::new(&observed.nodes, &mut self.on_nodes, liveness);
        self.metrics
            .set_invalid(Kind::EdgeNode, seen.unreadable_count());
        let nodes = seen.parsed();
        let progress = self.progress.take().unwrap_or_else(|| {
            let names = nodes.keys().cloned().collect();
            progress::restore(&kept, &names, now)
        });
        let plan = cluster::plan(
            &entries.assigned,
            &cluster::Observed { nodes, progress },
            now,
        );

        for write in nodes::writes(&plan, &seen, &entries.unreadable) {
            match self.give(&write).await {
                Ok(node) => self.on_nodes.note(node),
                Err(error) => {
                    self.log_failed("go-ahead", &error);
                    failed = true;
                }
            }
        }

        if let Some(ledger) = progress::due(&kept, &plan.progress, &entries.assigned, now) {
            match self.patch(&mirror::to_keep(&object, &ledger)).await {
                Ok(written) => object = written,
                Err(error) => {
                    self.log_failed("progress", &error);
                    failed = true;
                }
            }
        }

        let (summary, capabilities) = status::nodes(seen.readable());
        let sources = Sources {
            facts,
            hub_generation: generation,
            report: &plan.report,
            unreadable: &entries.unreadable,
            nodes: &summary,
            capabilities: &capabilities,
        };
        if relation != Relation::OneCluster
            && let Err(error) = self.report(Side::Edge, &object, &sources).await
        {
            self.log_failed("status of the mirror", &error);
            failed = true;
        }
        if let Some(hub) = &hub
            && !self.hub_away.load(Ordering::Acquire)
            // A report says who gives it: the hub must not take one cluster for another.
            && facts.cluster_uid.is_some()
            && !self.yields(hub, facts)
            && let Err(error) = self.report(Side::Hub, hub, &sources).await
        {
            self.log_failed("status on the hub", &error);
            failed = true;
        }

        let wait = [
            wait_until(&plan, now),
            progress::next_checkpoint(&plan.progress, &entries.assigned),
            liveness
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .next_silence(Instant::now()),
        ];
        self.progress = Some(plan.progress);
        if failed {
            Next::Failed
        } else {
            Next::Plan(wait.into_iter().flatten().min())
        }
    }

    /// Brings the mirror up to what the hub's object says.
    async fn mirror(
        &mut self,
        hub: &ClusterAssignment,
        mirror: Option<&ClusterAssignment>,
    ) -> Result<ClusterAssignment, WriteError> {
        if let Some(mirror) = mirror.filter(|mirror| mirror::is_current(hub, mirror)) {
            return Ok(mirror.clone());
        }
        let Some(mirror) = mirror else {
            return self.make_mirror(hub).await;
        };
        self.patch(&mirror::to_update(hub, mirror)).await
    }

    async fn make_mirror(
        &mut self,
        hub: &ClusterAssignment,
    ) -> Result<ClusterAssignment, WriteError> {
        // The edge's watch may not have shown yet what is the hub's own object, if both are one
        // cluster, or an older mirror: what is there is taken as seen, and the watch will show it.
        if let Some(found) = finish(self.edge.get_opt(self.cluster.as_str())).await? {
            return Ok(found);
        }
        let mirror = mirror::to_create(hub);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let written = finish(self.edge.create(&params, &mirror)).await?;
        self.metrics.wrote(Kind::ClusterAssignment);
        self.on_edge.note(written.clone());
        Ok(written)
    }

    /// Changes the edge's assignment.
    async fn patch(&mut self, patch: &Value) -> Result<ClusterAssignment, WriteError> {
        let name = self.cluster.as_str();
        let patch = Patch::Merge(patch);
        let written = finish(self.edge.patch(name, &merging(), &patch)).await?;
        self.metrics.wrote(Kind::ClusterAssignment);
        self.on_edge.note(written.clone());
        Ok(written)
    }

    /// Gives one node its entries. UID and version are in it: a node made anew, or changed since it was
    /// planned on, is planned on again.
    async fn give(&self, write: &nodes::Write) -> Result<EdgeNode, WriteError> {
        let name = write.node.name_any();
        let patch = Patch::Merge(json!({
            "metadata": {
                "uid": write.node.metadata.uid,
                "resourceVersion": write.node.metadata.resource_version,
            },
            "spec": { "models": write.models },
        }));
        let written = finish(self.edge_nodes.patch(&name, &merging(), &patch)).await?;
        self.metrics.wrote(Kind::EdgeNode);
        Ok(written)
    }

    /// Whether to leave another cluster's report on the hub alone for now.
    fn yields(&mut self, hub: &ClusterAssignment, facts: &Facts) -> bool {
        let reported = hub.status.as_ref().and_then(|it| it.cluster_uid.as_ref());
        let others = reported.filter(|uid| facts.cluster_uid.as_ref() != Some(uid));
        let before = self.contest.lost;
        let yields = self
            .contest
            .yields(others.is_some(), self.resync, Instant::now());
        if self.contest.lost && !before {
            let cluster = self.cluster;
            tracing::warn!(%cluster, other = others, "another cluster reports under this one's name");
        }
        yields
    }

    /// Writes the status on one side, if it differs from what stands there.
    async fn report(
        &mut self,
        side: Side,
        object: &ClusterAssignment,
        sources: &Sources<'_>,
    ) -> Result<(), WriteError> {
        let before = object.status.as_ref();
        let status = status::status(sources, before, &Time(jiff::Timestamp::now()));
        if before.is_some_and(|before| status::same(before, &status)) {
            return Ok(());
        }
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(status_patch(self.cluster, &status));
        let name = self.cluster.as_str();
        let api = match side {
            Side::Hub => &self.hub,
            Side::Edge => &self.edge,
        };
        let written = finish(api.patch_status(name, &params, &patch)).await?;
        self.metrics.wrote(Kind::ClusterAssignment);
        match side {
            Side::Hub => self.on_hub.note(written),
            Side::Edge => self.on_edge.note(written),
        }
        Ok(())
    }

    fn log_failed(&self, what: &'static str, error: &WriteError) {
        if let WriteError::Api(kube::Error::Api(status)) = error
            && status.is_conflict()
        {
            self.metrics.failed(Category::Conflict);
            tracing::debug!(what, "written by another first, planned again");
            return;
        }
        let cluster = self.cluster;
        match std::error::Error::source(error) {
            Some(source) => tracing::warn!(%cluster, what, %error, %source, "write failed"),
            None => tracing::warn!(%cluster, what, %error, "write failed"),
        }
    }
}

/// A merge patch in the session's name.
fn merging() -> PatchParams {
    PatchParams {
        field_manager: Some(FIELD_MANAGER.to_owned()),
        ..PatchParams::default()
    }
}

/// Where a status is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    Hub,
    Edge,
}

fn status_patch(cluster: &ClusterName, status: &ClusterAssignmentStatus) -> Value {
    json!({
        "apiVersion": "rimward.dev/v1alpha1",
        "kind": "ClusterAssignment",
        "metadata": { "name": cluster },
        "status": status,
    })
}

async fn finish<T>(request: impl Future<Output = Result<T, kube::Error>>) -> Result<T, WriteError> {
    bounded(request)
        .await
        .ok_or(WriteError::Late)?
        .map_err(WriteError::Api)
}

fn wait_until(plan: &Plan<NodeModel>, now: Timestamp) -> Option<Duration> {
    // At least one second: the planner counts whole ones.
    plan.wake_at
        .map(|at| Duration::from_secs(at.seconds_since(now).max(1)))
}
