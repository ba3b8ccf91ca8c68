//! One round of a session: plan → mirror → go-aheads → status.
//!
//! Owns the order of a session's writes. Every write happens on a difference only, and a stale writer
//! loses: what was planned on is named by its version. A write that was refused waits for itself alone; one
//! without an answer holds the places that it may have taken.

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
use rimward_crds::{
    AssignedModel, ClusterAssignment, ClusterAssignmentStatus, EdgeNode, NodeModel,
};
use serde_json::{Value, json};

use super::identity_conflict::IdentityConflict;
use super::liveness::Liveness;
use super::mirror::{self, Relation};
use super::observe::{Observed, Written, readable};
use super::pauses::Target;
use super::session::FIELD_MANAGER;
use super::status::{self, Facts, Sources};
use super::unsettled::Unsettled;
use super::write::{WriteError, Writes};
use super::{nodes, parse, progress};
use crate::answers::Failure;
use crate::election::Leadership;
use crate::metrics::{Kind, Metrics};
use crate::objects;

/// What a session keeps from round to round. A session that begins anew finds its progress in the mirror; what it must
/// be handed is `unsettled`.
pub(crate) struct Reconciler<'a> {
    hub: Api<ClusterAssignment>,
    edge: Api<ClusterAssignment>,
    edge_nodes: Api<EdgeNode>,
    surroundings: Surroundings<'a>,
    conflict: IdentityConflict,
    /// The planner's clock: seconds since this session began, whatever any wall clock does.
    began: Instant,
    /// None until the first round restored it from the mirror.
    progress: Option<BTreeMap<ModelKey, Progress>>,
    on_hub: Written<ClusterAssignment>,
    on_edge: Written<ClusterAssignment>,
    on_nodes: Written<EdgeNode>,
    unsettled: &'a mut Unsettled,
    writes: Writes<'a>,
    was_away: bool,
}

/// What a session's rounds share with its other parts.
#[derive(Clone, Copy)]
pub(crate) struct Surroundings<'a> {
    pub(crate) cluster: &'a ClusterName,
    pub(crate) metrics: &'a Metrics,
    pub(crate) leadership: &'a Leadership,
    pub(crate) hub_away: &'a AtomicBool,
    /// How long one cluster's report stands against another's under the same name.
    pub(crate) patience: Duration,
    /// The longest pause after a write that was refused.
    pub(crate) retry_max: Duration,
}

/// A plan, and the entries that it was made on.
struct Planned {
    entries: parse::Entries,
    plan: Plan<NodeModel>,
}

impl<'a> Reconciler<'a> {
    /// `unsettled` is what an earlier session of this process left.
    pub(crate) fn new(
        hub: Client,
        edge: Client,
        surroundings: Surroundings<'a>,
        unsettled: &'a mut Unsettled,
    ) -> Self {
        // That one may have ended in the middle of a write.
        unsettled.unanswered();
        Self {
            hub: Api::all(hub),
            edge: Api::all(edge.clone()),
            edge_nodes: Api::all(edge),
            surroundings,
            conflict: IdentityConflict::default(),
            began: Instant::now(),
            progress: None,
            on_hub: Written::default(),
            on_edge: Written::default(),
            on_nodes: Written::default(),
            unsettled,
            writes: Writes::new(
                surroundings.metrics,
                surroundings.leadership,
                surroundings.retry_max,
            ),
            was_away: false,
        }
    }

    /// Goes one round. Returns when to go the next though nothing is seen to change.
    pub(crate) async fn reconcile(
        &mut self,
        observed: Observed,
        facts: &Facts,
        liveness: &Mutex<Liveness>,
    ) -> Option<Duration> {
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
        let stands = match (edge, &hub) {
            (None, Some(hub)) if relation == Relation::Apart => self.make_mirror(hub).await,
            (edge, _) => edge,
        };
        let Some(mut object) = stands else {
            return self.writes.next(Instant::now());
        };
        self.read_unsettled().await;
        let seen = nodes::Seen::new(
            &observed.nodes,
            &mut self.on_nodes,
            self.unsettled,
            liveness,
        );
        self.writes.keep(|name| seen.has(name));
        let metrics = self.surroundings.metrics;
        metrics.set_invalid(Kind::EdgeNode, seen.unreadable_count());

        let now = Timestamp(i64::try_from(self.began.elapsed().as_secs()).unwrap_or(i64::MAX));
        let before = self.progress.take();
        let before = before.unwrap_or_else(|| {
            if self.unsettled.inherits() {
                let stood = parse::entries(&object.spec.models);
                nodes::presume(self.unsettled, &seen, &stood.assigned);
            }
            restore(&object, &seen, now)
        });
        let newer = hub
            .as_ref()
            .filter(|hub| relation == Relation::Apart && !mirror::is_current(hub, &object));
        let models = &newer.unwrap_or(&object).spec.models;
        let mut planned = self.plan(models, &seen, before.clone(), now);
        match self.keep(newer, &object, &planned).await {
            Some(written) => object = written,
            // The hub's order is not taken over: what stands goes on.
            None if newer.is_some() => {
                planned = self.plan(&object.spec.models, &seen, before, now);
            }
            None => {}
        }
        let Planned { entries, plan } = planned;
        let refused = self.give(&plan, &seen, &entries).await;

        let generation = mirror::hub_generation(&object)
            .or(object.metadata.generation)
            .unwrap_or_default();
        let (summary, capabilities) = status::nodes(seen.readable());
        let sources = Sources {
            facts,
            hub_generation: generation,
            report: &plan.report,
            listening: &plan.listening,
            unreadable: &entries.unreadable,
            nodes: &summary,
            capabilities: &capabilities,
        };
        if relation != Relation::OneCluster {
            self.report(Side::Edge, &object, &sources).await;
        }
        let away = self.surroundings.hub_away.load(Ordering::Acquire);
        if std::mem::replace(&mut self.was_away, away) && !away {
            self.writes.resume(&Target::HubStatus);
        }
        if let Some(hub) = &hub
            && !away
            // A report says who gives it: the hub must not take one cluster for another.
            && facts.cluster_uid.is_some()
            && !self.yields(hub, facts)
        {
            self.report(Side::Hub, hub, &sources).await;
        }

        let at = Instant::now();
        let next_silence = liveness
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .next_silence(at);
        let wait = [
            wait_until(&plan, now),
            progress::next_checkpoint(&plan.progress, &entries.assigned),
            next_silence,
            self.writes.next(at),
            self.unsettled.next_read(at),
            refused.then_some(Duration::ZERO),
        ];
        self.progress = Some(plan.progress);
        wait.into_iter().flatten().min()
    }

    fn plan(
        &self,
        models: &[AssignedModel],
        seen: &nodes::Seen,
        progress: BTreeMap<ModelKey, Progress>,
        now: Timestamp,
    ) -> Planned {
        let entries = parse::entries(models);
        let at = Instant::now();
        let nodes = seen.parsed(self.unsettled, |node| {
            self.writes.refused(&Target::Node(node.name_any()), at)
        });
        let observed = cluster::Observed { nodes, progress };
        let plan = cluster::plan(&entries.assigned, &observed, now);
        Planned { entries, plan }
    }

    /// Writes down what the plan was made on, before anything is done by it: the hub's newer order, and
    /// what of its progress is to be kept. None when that was not written, or nothing was to be.
    async fn keep(
        &mut self,
        newer: Option<&ClusterAssignment>,
        object: &ClusterAssignment,
        planned: &Planned,
    ) -> Option<ClusterAssignment> {
        let kept = mirror::annotation(object, progress::ANNOTATION);
        let Planned { entries, plan } = planned;
        let ledger = progress::due(&progress::read(kept), &plan.progress, &entries.assigned);
        // One that is too long to be kept whole is not written again and again for that.
        let ledger = ledger.filter(|ledger| progress::write(ledger).as_deref() != kept);
        let patch = match (newer, &ledger) {
            (Some(hub), ledger) => mirror::to_update(hub, object, ledger.as_ref()),
            (None, Some(ledger)) => mirror::to_keep(object, ledger),
            (None, None) => return None,
        };
        let name = self.surroundings.cluster.as_str();
        let patch = Patch::Merge(patch);
        let params = merging();
        let request = self.edge.patch(name, &params, &patch);
        let version = objects::version(object);
        let written = self
            .writes
            .send(Target::Mirror, version, request)
            .await
            .ok()?;
        self.surroundings.metrics.wrote(Kind::ClusterAssignment);
        self.on_edge.note(written.clone());
        Some(written)
    }

    async fn make_mirror(&mut self, hub: &ClusterAssignment) -> Option<ClusterAssignment> {
        let name = self.surroundings.cluster.as_str();
        // The edge's watch may not have shown yet what is the hub's own object, if both are one
        // cluster, or an older mirror: what is there is taken as seen, and the watch will show it.
        let found = self.edge.get_opt(name);
        let found = self.writes.send(Target::Mirror, None, found).await.ok()?;
        if found.is_some() {
            return found;
        }
        let mirror = mirror::to_create(hub);
        let params = PostParams {
            field_manager: Some(FIELD_MANAGER.to_owned()),
            ..PostParams::default()
        };
        let request = self.edge.create(&params, &mirror);
        let written = self.writes.send(Target::Mirror, None, request).await.ok()?;
        self.surroundings.metrics.wrote(Kind::ClusterAssignment);
        self.on_edge.note(written.clone());
        // No order stood here before this one.
        self.unsettled.inherits();
        Some(written)
    }

    /// Gives nodes their entries. UID and version are in each: a node made anew, or changed since it was
    /// planned on, is planned on again. Says whether one was refused: others may have its place.
    async fn give(
        &mut self,
        plan: &Plan<NodeModel>,
        seen: &nodes::Seen,
        entries: &parse::Entries,
    ) -> bool {
        let mut refused = false;
        for write in nodes::writes(plan, seen, &entries.unreadable) {
            let name = write.node.name_any();
            if !self.unsettled.may_try(&name, &write.models) {
                continue;
            }
            let patch = Patch::Merge(json!({
                "metadata": {
                    "uid": write.node.metadata.uid,
                    "resourceVersion": write.node.metadata.resource_version,
                },
                "spec": { "models": write.models },
            }));
            let params = merging();
            let request = self.edge_nodes.patch(&name, &params, &patch);
            let target = Target::Node(name.clone());
            let version = objects::version(&write.node);
            self.unsettled
                .begin(&write.node, write.models, Instant::now());
            let answer = self.writes.send(target, version, request).await;
            match &answer {
                Err(error) if error.failure() == Failure::Unknown => self.unsettled.unanswered(),
                _ => self.unsettled.answered(),
            }
            match answer {
                Ok(node) => {
                    self.surroundings.metrics.wrote(Kind::EdgeNode);
                    self.unsettled.settle(&node);
                    self.on_nodes.note(node);
                }
                Err(error) if error.failure() == Failure::Unknown => {
                    if matches!(error, WriteError::Late) {
                        // A server that does not answer is not asked node by node: that takes the time
                        // in which others could be planned for.
                        break;
                    }
                }
                Err(WriteError::Paused) => {}
                Err(error) => refused |= error.failure() == Failure::Refused,
            }
        }
        refused
    }

    /// Asks for nodes of which a write got no answer so long ago that the answer tells.
    async fn read_unsettled(&mut self) {
        for name in self.unsettled.to_read(Instant::now()) {
            let asked = Instant::now();
            let request = self.edge_nodes.get_opt(&name);
            match self
                .writes
                .send(Target::Node(name.clone()), None, request)
                .await
            {
                Ok(node) => self.unsettled.read(&name, node.as_ref(), asked),
                Err(WriteError::Late) => return,
                Err(_) => {}
            }
        }
    }

    /// Whether to leave another cluster's report on the hub alone for now.
    fn yields(&mut self, hub: &ClusterAssignment, facts: &Facts) -> bool {
        let reported = hub.status.as_ref().and_then(|it| it.cluster_uid.as_ref());
        let others = reported.filter(|uid| facts.cluster_uid.as_ref() != Some(uid));
        let before = self.conflict.lost;
        let patience = self.surroundings.patience;
        let yields = self
            .conflict
            .yields(others.is_some(), patience, Instant::now());
        if self.conflict.lost && !before {
            let cluster = self.surroundings.cluster;
            tracing::warn!(%cluster, other = others, "another cluster reports under this one's name");
        }
        yields
    }

    /// Writes the status on one side, if it differs from what stands there.
    async fn report(&mut self, side: Side, object: &ClusterAssignment, sources: &Sources<'_>) {
        let before = object.status.as_ref();
        let status = status::status(sources, before, &Time(jiff::Timestamp::now()));
        if before.is_some_and(|before| status::same(before, &status)) {
            return;
        }
        let cluster = self.surroundings.cluster;
        let params = PatchParams::apply(FIELD_MANAGER).force();
        let patch = Patch::Apply(status_patch(cluster, &status));
        let (api, target) = match side {
            Side::Hub => (self.hub.clone(), Target::HubStatus),
            Side::Edge => (self.edge.clone(), Target::Status),
        };
        let request = api.patch_status(cluster.as_str(), &params, &patch);
        let Ok(written) = self.writes.send(target, None, request).await else {
            return;
        };
        self.surroundings.metrics.wrote(Kind::ClusterAssignment);
        match side {
            Side::Hub => self.on_hub.note(written),
            Side::Edge => self.on_edge.note(written),
        }
    }
}

/// What an earlier session left: the orders as they stood, and what it kept of its progress.
fn restore(
    object: &ClusterAssignment,
    seen: &nodes::Seen,
    now: Timestamp,
) -> BTreeMap<ModelKey, Progress> {
    let passed = |key: &ModelKey, assigned: &cluster::Assigned<NodeModel>| {
        let status = object.status.iter().flat_map(|status| &status.models);
        let mut same = status.filter(|model| {
            model.namespace == key.namespace.as_str()
                && model.name == key.name.as_str()
                && model.revision.as_deref() == Some(assigned.revision.as_str())
                && model.attempt == assigned.attempt
        });
        same.any(|model| {
            model.verdict.phase == rimward_crds::VerdictPhase::Passed && model.nodes.updated > 0
        })
    };
    let orders = parse::entries(&object.spec.models).assigned;
    let stood = orders.iter().map(|(key, assigned)| {
        let stood = progress::Stood {
            revision: assigned.revision.clone(),
            attempt: assigned.attempt,
            passed: passed(key, assigned),
        };
        (key.clone(), stood)
    });
    let names = seen.names().cloned().collect();
    let kept = progress::read(mirror::annotation(object, progress::ANNOTATION));
    progress::restore(&kept, &stood.collect(), &names, now)
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

fn wait_until(plan: &Plan<NodeModel>, now: Timestamp) -> Option<Duration> {
    // At least one second: the planner counts whole ones.
    plan.wake_at
        .map(|at| Duration::from_secs(at.seconds_since(now).max(1)))
}

#[cfg(test)]
#[path = "reconcile_tests.rs"]
mod tests;
