//! Checks that any fleet plan keeps the promises, whoever made it.
//!
//! Owns the promises as predicates over (desired, observed, plan). It shares with the planner only what
//! placement and stages mean, and reads reports by itself. Tests run it on every plan of a simulation.

use std::collections::{BTreeMap, BTreeSet};

use thiserror::Error;

use crate::fleet::{
    Action, Cluster, Desired, ENTRIES_MAX, Entry, Observed, Outcome, Plan, stage_groups,
};
use crate::ids::{ClusterName, DeploymentKey, EndpointName, RevisionName, StageName};
use crate::summary::Phase;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// More clusters on their way than the stage allows, after this plan put another one there.
    #[error("{deployment}: stage {stage} would have {moving} of {max} clusters on their way")]
    Concurrency {
        /// The deployment.
        deployment: DeploymentKey,
        /// The stage.
        stage: StageName,
        /// Clusters on their way.
        moving: usize,
        /// Allowed.
        max: usize,
    },
    /// More clusters unavailable than the stage allows, after this plan took away one that served.
    #[error("{deployment}: stage {stage} would have {unavailable} of {max} clusters unavailable")]
    Unavailable {
        /// The deployment.
        deployment: DeploymentKey,
        /// The stage.
        stage: StageName,
        /// Clusters unavailable.
        unavailable: usize,
        /// Allowed.
        max: usize,
    },
    /// A failed revision is given to a cluster that did not have it.
    #[error("{deployment}: failed revision {revision} is given to cluster {cluster}")]
    FailedRevision {
        /// The deployment.
        deployment: DeploymentKey,
        /// The revision.
        revision: RevisionName,
        /// The cluster.
        cluster: ClusterName,
    },
    /// The target is given to a cluster whose stage has not begun.
    #[error("{deployment}: cluster {cluster} of stage {stage} gets {revision} before its stage")]
    EarlyStage {
        /// The deployment.
        deployment: DeploymentKey,
        /// The revision.
        revision: RevisionName,
        /// The cluster.
        cluster: ClusterName,
        /// Its stage.
        stage: StageName,
    },
    /// A cluster is not where the spec wants it, and no reason is given.
    #[error("{deployment}: cluster {cluster} waits without a reason")]
    NoReason {
        /// The deployment.
        deployment: DeploymentKey,
        /// The cluster.
        cluster: ClusterName,
    },
    /// An entry disappears though its removal was not confirmed.
    #[error("{deployment}: the entry of cluster {cluster} vanishes unconfirmed")]
    Vanished {
        /// The deployment.
        deployment: DeploymentKey,
        /// The cluster.
        cluster: ClusterName,
    },
    /// A plan brings two models of one endpoint name together.
    #[error("cluster {cluster}: endpoint name {endpoint} is given to {first} and {second}")]
    EndpointTwice {
        /// The cluster.
        cluster: ClusterName,
        /// The name.
        endpoint: EndpointName,
        /// One deployment.
        first: DeploymentKey,
        /// The other.
        second: DeploymentKey,
    },
    /// A paused cluster or deployment is changed.
    #[error("{deployment}: the entry of cluster {cluster} changes though one of them is paused")]
    PausedChanged {
        /// The deployment.
        deployment: DeploymentKey,
        /// The cluster.
        cluster: ClusterName,
    },
    /// An assignment has too many entries.
    #[error("cluster {cluster} would have {entries} entries")]
    TooManyEntries {
        /// The cluster.
        cluster: ClusterName,
        /// How many.
        entries: usize,
    },
}

/// Lists every promise that `plan` breaks; empty for a good plan.
#[must_use]
pub fn check(desired: &Desired, observed: &Observed, plan: &Plan) -> Vec<Violation> {
    let mut found = Vec::new();
    for key in desired.deployments.keys() {
        budgets(desired, observed, plan, key, &mut found);
        revisions(desired, observed, plan, key, &mut found);
        reasons(desired, observed, plan, key, &mut found);
    }
    for (name, cluster) in &observed.clusters {
        entries(desired, name, cluster, plan, &mut found);
    }
    found
}

fn planned<'a>(plan: &'a Plan, cluster: &ClusterName, key: &DeploymentKey) -> Option<&'a Entry> {
    plan.clusters
        .get(cluster)
        .and_then(|entries| entries.get(key))
}

fn running(entry: Option<&Entry>) -> Option<&RevisionName> {
    entry
        .filter(|entry| entry.action == Action::Run)
        .map(|entry| &entry.revision)
}

/// How a cluster stands by what was seen.
#[derive(Default)]
struct Standing {
    moving: bool,
    unavailable: bool,
}

fn standing(cluster: &Cluster, key: &DeploymentKey, alive: bool) -> Standing {
    let Some(revision) = running(cluster.entries.get(key)) else {
        return Standing::default();
    };
    let said = cluster.report.as_ref().and_then(|report| {
        let fresh = report.observed_generation == cluster.generation;
        report.models.get(key).map(|model| (fresh, model))
    });
    let Some((fresh, report)) = said.filter(|(_, report)| &report.revision == revision) else {
        return Standing {
            moving: true,
            unavailable: true,
        };
    };
    let answering = report.nodes.desired.saturating_sub(report.nodes.silent);
    let over = report.phase == Phase::Failed || report.nodes.rejected() > 0;
    let nobody = answering == 0 && report.nodes.desired > 0;
    let arrived = over || report.nodes.updated >= answering && !nobody;
    let moving = !fresh || !arrived;
    Standing {
        moving,
        unavailable: moving || !alive || !report.nodes.available(),
    }
}

fn budgets(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    key: &DeploymentKey,
    found: &mut Vec<Violation>,
) {
    for group in stage_groups(desired, observed, key) {
        let mut moving = 0;
        let mut unavailable = 0;
        let mut put_on_way = false;
        let mut took_away = false;
        for (name, alive) in &group.counted {
            let Some(cluster) = observed.clusters.get(name) else {
                continue;
            };
            let was = standing(cluster, key, *alive);
            let after = running(planned(plan, name, key));
            let changed = after.is_some() && after != running(cluster.entries.get(key));
            put_on_way |= changed;
            took_away |= changed && (!was.unavailable || was.moving);
            moving += usize::from(after.is_some() && (was.moving || changed));
            unavailable += usize::from(after.is_some() && (was.unavailable || changed));
        }
        if put_on_way && moving > group.moving_max {
            found.push(Violation::Concurrency {
                deployment: key.clone(),
                stage: group.name.clone(),
                moving,
                max: group.moving_max,
            });
        }
        if let Some(max) = group.unavailable_max
            && (took_away && unavailable > max || put_on_way && moving > max)
        {
            let unavailable = if took_away { unavailable } else { moving };
            found.push(Violation::Unavailable {
                deployment: key.clone(),
                stage: group.name.clone(),
                unavailable,
                max,
            });
        }
    }
}

fn revisions(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    key: &DeploymentKey,
    found: &mut Vec<Violation>,
) {
    let (Some(deployment), Some(answer)) =
        (desired.deployments.get(key), plan.deployments.get(key))
    else {
        return;
    };
    let failed = |revision: &RevisionName| {
        let now = answer.outcomes.get(revision).map(|change| change.outcome);
        let before = deployment.revisions.get(revision).map(|it| it.outcome);
        now.or(before) == Some(Outcome::Failed)
    };
    let stages: BTreeMap<_, _> = stage_groups(desired, observed, key)
        .into_iter()
        .enumerate()
        .flat_map(|(index, group)| {
            let name = group.name;
            group
                .members
                .into_iter()
                .map(move |member| (member, (index, name.clone())))
        })
        .collect();
    for (name, cluster) in &observed.clusters {
        let Some(revision) = running(planned(plan, name, key)) else {
            continue;
        };
        if running(cluster.entries.get(key)) == Some(revision) {
            continue;
        }
        if failed(revision) {
            found.push(Violation::FailedRevision {
                deployment: key.clone(),
                revision: revision.clone(),
                cluster: name.clone(),
            });
        }
        let promoted = answer.current.as_ref() == Some(revision);
        let reached = answer.stage.as_ref().map_or(0, |stage| stage.index);
        if let Some((index, stage)) = stages.get(name)
            && !promoted
            && u32::try_from(*index).is_ok_and(|index| index > reached)
        {
            found.push(Violation::EarlyStage {
                deployment: key.clone(),
                revision: revision.clone(),
                cluster: name.clone(),
                stage: stage.clone(),
            });
        }
    }
}

fn reasons(
    desired: &Desired,
    observed: &Observed,
    plan: &Plan,
    key: &DeploymentKey,
    found: &mut Vec<Violation>,
) {
    let (Some(deployment), Some(answer)) =
        (desired.deployments.get(key), plan.deployments.get(key))
    else {
        return;
    };
    let told: BTreeSet<_> = answer.waiting.iter().map(|(name, _)| name).collect();
    let members: BTreeSet<_> = stage_groups(desired, observed, key)
        .into_iter()
        .flat_map(|group| group.members)
        .collect();
    for (name, cluster) in &observed.clusters {
        let entry = planned(plan, name, key);
        let wanted = members.contains(name) && !deployment.deleting;
        let there = match (&deployment.target, wanted) {
            (_, false) => entry.is_none(),
            (None, true) => false,
            (Some(target), true) => {
                let report = cluster
                    .report
                    .as_ref()
                    .and_then(|report| report.models.get(key));
                running(entry) == Some(target)
                    && report.is_some_and(|report| {
                        &report.revision == target
                            && report.phase != Phase::Failed
                            && report.nodes.complete()
                    })
            }
        };
        let frozen = !wanted && (cluster.paused || deployment.paused);
        if !there && !frozen && !told.contains(name) {
            found.push(Violation::NoReason {
                deployment: key.clone(),
                cluster: name.clone(),
            });
        }
    }
}

fn entries(
    desired: &Desired,
    name: &ClusterName,
    cluster: &Cluster,
    plan: &Plan,
    found: &mut Vec<Violation>,
) {
    let empty = BTreeMap::new();
    let after = plan.clusters.get(name).unwrap_or(&empty);
    if after.len() > ENTRIES_MAX && after.len() > cluster.entries.len() {
        found.push(Violation::TooManyEntries {
            cluster: name.clone(),
            entries: after.len(),
        });
    }
    for (key, before) in &cluster.entries {
        let deployment = desired.deployments.get(key);
        let confirmed = before.action == Action::Remove
            && cluster.report.as_ref().is_some_and(|report| {
                report.observed_generation == cluster.generation && !report.models.contains_key(key)
            });
        if !after.contains_key(key) && !confirmed {
            found.push(Violation::Vanished {
                deployment: key.clone(),
                cluster: name.clone(),
            });
        }
        let held_still = cluster.paused || deployment.is_some_and(|it| it.paused && !it.deleting);
        if held_still && after.get(key) != Some(before) {
            found.push(Violation::PausedChanged {
                deployment: key.clone(),
                cluster: name.clone(),
            });
        }
    }
    let mut names: BTreeMap<&EndpointName, &DeploymentKey> = BTreeMap::new();
    for (key, entry) in after {
        let Some(first) = names.insert(&entry.endpoint_name, key) else {
            continue;
        };
        let had = |key: &DeploymentKey| {
            let before = cluster.entries.get(key);
            before.is_some_and(|before| before.endpoint_name == entry.endpoint_name)
        };
        if !(had(key) && had(first)) {
            found.push(Violation::EndpointTwice {
                cluster: name.clone(),
                endpoint: entry.endpoint_name.clone(),
                first: first.clone(),
                second: key.clone(),
            });
        }
    }
}
