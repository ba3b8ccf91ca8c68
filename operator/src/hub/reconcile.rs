//! The one loop of the leader: observe, parse, plan, apply, status.
//!
//! Owns the order of writes, so that a crash between any two of them converges:
//!
//! 1. new ModelRevisions: an assignment never names one that does not exist;
//! 2. revisions' outcomes: once clusters went back, the reports that condemned a revision are gone, and
//!    nobody else would remember that it failed;
//! 3. deployments' statuses, with the place of the rollout: a stage is on record before a cluster of it
//!    moves, so that a planner after a crash sees the same clusters released, and bakes and promotions are
//!    not begun anew;
//! 4. assignments: derived from all of the above, so that planning again gives them again;
//! 5. events and the statuses of everything else, from which nothing is decided;
//! 6. what history no longer needs.
//!
//! A deployment for which a write of 1 to 3 failed keeps its entries as they stand in 4; others go on.
//! Must never decide a rollout.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use futures::StreamExt as _;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use rimward_core::fleet::Connection;
use rimward_core::ids::DeploymentKey;
use rimward_core::time::Timestamp;
use rimward_crds::{ClusterAssignment, ClusterAssignmentSpec, ModelDeploymentStatus};
use tokio_util::sync::CancellationToken;

use super::apply::{Outcome, Target, Writer};
use super::heartbeats::{ConnectionState, Heartbeats};
use super::models::Resolver;
use super::observe::Caches;
use super::plan::{self, Planned};
use super::push::PushSessions;
use super::report::Reporter;
use super::{entries, revisions, status};
use crate::events::Events;
use crate::metrics::{Kind, Metrics};

/// Changes that come within this time are planned together.
const DEBOUNCE: Duration = Duration::from_millis(50);
/// The wait after a first look that failed.
const RETRY: Duration = Duration::from_secs(2);
/// Writes at once within one step.
const WRITES_MAX: usize = 8;

/// The leader's work.
pub(crate) struct Hub {
    pub(crate) caches: Arc<Caches>,
    pub(crate) writer: Arc<Writer>,
    pub(crate) events: Arc<Events>,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) resolver: Resolver,
    pub(crate) push: PushSessions,
    pub(crate) reporter: Reporter,
    pub(crate) resync: Duration,
    pub(crate) offline_grace_seconds: u32,
}

impl Hub {
    /// Plans and applies until `stop`. Must run on one replica at a time; when another took over it loses
    /// by resource versions.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> anyhow::Result<()> {
        while let Err(error) = self.writer.catch_up().await {
            tracing::warn!(%error, "a new leader has to see what is there");
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = tokio::time::sleep(RETRY) => {}
            }
        }
        self.caches.feed.mark_everything();
        let (writer, caches) = (self.writer.clone(), self.caches.clone());
        let turns = async {
            loop {
                // Everything is looked at in each turn.
                let _ = caches.feed.take();
                let wait = self.turn().await;
                tokio::select! {
                    () = caches.feed.changed() => tokio::time::sleep(DEBOUNCE).await,
                    () = tokio::time::sleep(wait) => {}
                }
            }
        };
        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            () = writer.settle(&stop) => {}
            () = turns => {}
        }
        self.push.stop().await;
        Ok(())
    }

    /// One turn; returns how long the next may be put off if nothing changes.
    async fn turn(&mut self) -> Duration {
        let began = Instant::now();
        let now = wall_clock();
        let seen = self.caches.snapshot();
        self.resolver.saw_all(seen.models.valid());
        self.resolver.turn(began);
        self.push.saw_all(seen.edge_clusters.valid());
        let planned = plan::plan(
            &seen,
            self.offline_grace_seconds,
            |name, was_offline| {
                let state = |beats: &Heartbeats| beats.state(name, was_offline, began);
                connection(self.caches.heartbeats(state), self.offline_grace_seconds)
            },
            now,
        );
        let mut failed = Failed::default();
        self.revisions(&planned, &mut failed).await;
        self.deployments(&planned, &mut failed).await;
        self.assignments(&planned, &failed).await;
        self.transitions(&planned, &failed).await;
        let statuses = self
            .reporter
            .statuses(&seen, &planned, &self.resolver, &self.push);
        let (told, _) = statuses.write(&self.writer, &self.events).await;
        self.reporter.note(told);
        self.collect(&planned, &failed).await;
        self.metrics.planned(began.elapsed().as_secs_f64());
        self.next(&planned, now)
    }

    /// Steps 1 and 2.
    async fn revisions(&self, planned: &Planned<'_>, failed: &mut Failed) {
        for (key, revision) in &planned.new_revisions {
            let write = self.writer.create(Kind::ModelRevision, revision).await;
            failed.note(key, &write);
        }
        for (key, revisions) in &planned.revisions {
            let changes = planned.plan.deployments.get(key).map(|plan| &plan.outcomes);
            let new = planned
                .new_revisions
                .get(key)
                .map(kube::ResourceExt::name_any);
            for (name, revision) in revisions {
                if new.as_ref() == Some(name) {
                    continue;
                }
                let change = changes.and_then(|changes| {
                    changes
                        .iter()
                        .find(|(changed, _)| changed.as_str() == name)
                        .map(|(_, change)| change)
                });
                let mut old = revision.status.clone().unwrap_or_default();
                old.conditions = status::sorted(&old.conditions);
                let now = k8s_openapi::jiff::Timestamp::now();
                let next = status::revision::revision(revision, change, now);
                if next != old {
                    let target = Target::of(Kind::ModelRevision, revision);
                    failed.note(key, &self.writer.status(&target, &next).await);
                }
            }
        }
    }

    /// Step 3.
    async fn deployments(&self, planned: &Planned<'_>, failed: &mut Failed) {
        let now = k8s_openapi::jiff::Timestamp::now();
        for (key, object) in &planned.deployments {
            if failed.deployments.contains(key) {
                continue;
            }
            let trouble = planned.troubles.get(key);
            let next = match (planned.plan.deployments.get(key), trouble) {
                (Some(plan), trouble) => {
                    let target = planned.targets.get(key);
                    status::deployment::planned(object, plan, target, trouble, now)
                }
                (None, Some(trouble)) => status::deployment::unplanned(object, trouble, now),
                (None, None) => continue,
            };
            if next != standing(object.status.as_ref()) {
                let target = Target::of(Kind::ModelDeployment, *object);
                failed.note(key, &self.writer.status(&target, &next).await);
            }
        }
    }

    /// Step 4. An assignment is first made empty, so that a cluster can watch it before it gets anything.
    async fn assignments(&self, planned: &Planned<'_>, failed: &Failed) {
        let contents = entries::Contents {
            deployments: &planned.deployments,
            revisions: &planned.revisions,
        };
        let nothing = BTreeMap::new();
        let mut creates = Vec::new();
        let mut applies = Vec::new();
        for (name, site) in &planned.clusters {
            let Some(assignment) = site.assignment else {
                creates.push(empty_assignment(site.object));
                continue;
            };
            let entries = planned.plan.clusters.get(name).unwrap_or(&nothing);
            let (spec, gone) =
                entries::assignment(entries, &assignment.spec, &failed.deployments, &contents);
            for error in gone {
                tracing::error!(cluster = %name, %error, "entry kept as it stands");
            }
            if !same_entries(&spec, &assignment.spec) {
                applies.push((Target::of(Kind::ClusterAssignment, assignment), spec));
            }
        }
        let creates = creates
            .iter()
            .map(|assignment| self.writer.create(Kind::ClusterAssignment, assignment));
        let _: Vec<_> = futures::stream::iter(creates)
            .buffer_unordered(WRITES_MAX)
            .collect()
            .await;
        let applies = applies
            .iter()
            .map(|(target, spec)| self.writer.entries(target, spec));
        let _: Vec<_> = futures::stream::iter(applies)
            .buffer_unordered(WRITES_MAX)
            .collect()
            .await;
        for assignment in &planned.orphans {
            let target = Target::of(Kind::ClusterAssignment, *assignment);
            let _ = self.writer.delete(&target).await;
        }
    }

    /// Step 5, first half: what the plan changed, told once it stands.
    async fn transitions(&self, planned: &Planned<'_>, failed: &Failed) {
        for (key, plan) in &planned.plan.deployments {
            let Some(object) = planned.deployments.get(key) else {
                continue;
            };
            if failed.deployments.contains(key) {
                continue;
            }
            for transition in &plan.transitions {
                tracing::info!(deployment = %key, reason = transition.reason(), "{transition}");
                let notice = crate::events::Notice {
                    warning: transition.is_warning(),
                    reason: transition.reason(),
                    action: "Rollout",
                    note: transition.to_string(),
                };
                self.events.publish(&object.object_ref(&()), &notice).await;
            }
        }
    }

    /// Step 6. Only what nothing names, on the hub as it is seen or as it was just planned.
    async fn collect(&self, planned: &Planned<'_>, failed: &Failed) {
        for (key, object) in &planned.deployments {
            if failed.deployments.contains(key) || !planned.plan.deployments.contains_key(key) {
                continue;
            }
            let Some(existing) = planned.revisions.get(key) else {
                continue;
            };
            let in_use = in_use(planned, key, object.status.as_ref());
            for name in revisions::collectable(object, existing, &in_use) {
                if let Some(revision) = existing.get(&name) {
                    let target = Target::of(Kind::ModelRevision, revision);
                    let _ = self.writer.delete(&target).await;
                }
            }
        }
    }

    fn next(&self, planned: &Planned<'_>, now: Timestamp) -> Duration {
        let instant = Instant::now();
        let retry = self.resolver.next_try(instant);
        let retry = retry.map(|at| at.saturating_duration_since(instant));
        let wake = planned
            .plan
            .wake_at
            .map(|at| Duration::from_secs(at.seconds_since(now).max(1)));
        [retry, wake]
            .into_iter()
            .flatten()
            .fold(self.resync, Duration::min)
            .max(DEBOUNCE)
    }
}

/// Deployments for which something could not be written in this turn.
#[derive(Debug, Default)]
struct Failed {
    deployments: BTreeSet<DeploymentKey>,
}

impl Failed {
    fn note(&mut self, key: &DeploymentKey, write: &Outcome) {
        if !write.is_done() {
            self.deployments.insert(key.clone());
        }
    }
}

/// The age never exceeds the grace: how much longer a silence lasts changes no plan, and words that count
/// seconds would be written again and again.
fn connection(state: ConnectionState, grace_seconds: u32) -> Connection {
    let grace = u64::from(grace_seconds);
    let age_seconds = match state {
        ConnectionState::NeverJoined => return Connection::NeverJoined,
        ConnectionState::Silent => grace,
        ConnectionState::Unheard {
            waited_seconds: seconds,
        }
        | ConnectionState::Heard {
            seconds_ago: seconds,
        } => seconds.min(grace),
    };
    Connection::Beat { age_seconds }
}

fn wall_clock() -> Timestamp {
    let seconds = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |since| since.as_secs());
    Timestamp(i64::try_from(seconds).unwrap_or(i64::MAX))
}

fn standing(status: Option<&ModelDeploymentStatus>) -> ModelDeploymentStatus {
    let mut status = status.cloned().unwrap_or_default();
    status.conditions = status::sorted(&status.conditions);
    status
}

/// Entries are a set, keyed by namespace and name.
fn same_entries(one: &ClusterAssignmentSpec, other: &ClusterAssignmentSpec) -> bool {
    let keyed = |spec: &ClusterAssignmentSpec| -> BTreeMap<_, _> {
        spec.models
            .iter()
            .map(|model| ((model.namespace.clone(), model.name.clone()), model.clone()))
            .collect()
    };
    one.models.len() == other.models.len() && keyed(one) == keyed(other)
}

fn empty_assignment(cluster: &rimward_crds::EdgeCluster) -> ClusterAssignment {
    let mut assignment =
        ClusterAssignment::new(&cluster.name_any(), ClusterAssignmentSpec::default());
    // An EdgeCluster that is deleted takes its assignment with it, with or without a hub.
    assignment.metadata.owner_references = cluster.controller_owner_ref(&()).map(|owner| {
        vec![OwnerReference {
            block_owner_deletion: Some(false),
            ..owner
        }]
    });
    assignment
}

fn in_use(
    planned: &Planned<'_>,
    key: &DeploymentKey,
    status: Option<&ModelDeploymentStatus>,
) -> BTreeSet<String> {
    let seen = planned.observed.clusters.values();
    let standing = seen.filter_map(|cluster| cluster.entries.get(key));
    let given = planned.plan.clusters.values();
    let next = given.filter_map(|entries| entries.get(key));
    let reports = planned.observed.clusters.values().filter_map(|cluster| {
        let report = cluster.report.as_ref()?.models.get(key)?;
        Some([Some(&report.revision), report.last_good.as_ref()])
    });
    let plan = planned.plan.deployments.get(key);
    standing
        .chain(next)
        .map(|entry| &entry.revision)
        .chain(reports.flatten().flatten())
        .chain(planned.targets.get(key))
        .chain(plan.and_then(|plan| plan.current.as_ref()))
        .map(ToString::to_string)
        .chain(status.and_then(|status| status.current_revision.clone()))
        .chain(status.and_then(|status| status.update_revision.clone()))
        .collect()
}
