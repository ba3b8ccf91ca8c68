//! Checks that any fleet plan keeps the promises, whoever made it.
//!
//! Owns the promises as predicates over what was wanted, what was seen, and what was planned. It reads reports and
//! heartbeats by itself, and excuses nobody as the planner does: a silent cluster that has the revision counts here for
//! as long as it has not said otherwise. Of the planner it takes which stage a cluster is in. Tests run it on every plan.

use std::collections::BTreeMap;

use thiserror::Error;

use crate::fleet::{
    Action, AfterUpdate, Cluster, Desired, ENTRIES_MAX, Entry, Fleet, Hearing, Observed, Outcome,
    Plan, Policy, StageGroup, Standing,
};
use crate::ids::{ClusterName, DeploymentKey, EndpointName, RevisionName, StageName};
use crate::summary::Phase;
use crate::time::Timestamp;

/// A broken promise.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Violation {
    /// More clusters exposed and not proven than the stage allows, after this plan exposed another one.
    #[error(
        "{deployment}: stage {stage} would have {exposed} of {max} clusters exposed and unproven"
    )]
    Exposed {
        /// The deployment.
        deployment: DeploymentKey,
        /// The stage.
        stage: StageName,
        /// Clusters that may have the revision and have not proven it.
        exposed: usize,
        /// Allowed.
        max: usize,
    },
    /// A cluster that is not heard is sent forward.
    #[error("{deployment}: {revision} is given to cluster {cluster}, which is not heard")]
    Unheard {
        /// The deployment.
        deployment: DeploymentKey,
        /// The revision.
        revision: RevisionName,
        /// The cluster.
        cluster: ClusterName,
    },
    /// A condemned revision is given to a cluster that did not have it.
    #[error("{deployment}: failed revision {revision} is given to cluster {cluster}")]
    FailedRevision {
        /// The deployment.
        deployment: DeploymentKey,
        /// The revision.
        revision: RevisionName,
        /// The cluster.
        cluster: ClusterName,
    },
    /// The revision is given to a cluster whose stage has not begun.
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
    /// The columns do not add up.
    #[error("{deployment}: {sum} clusters or nodes in columns, {desired} desired")]
    Columns {
        /// The deployment.
        deployment: DeploymentKey,
        /// What the columns add up to.
        sum: u32,
        /// What they should.
        desired: u32,
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

/// A plan and what it was made from.
#[derive(Clone, Copy, Debug)]
pub struct Checked<'a> {
    /// What was wanted before the plan.
    pub desired: &'a Desired,
    /// What was seen before the plan.
    pub observed: &'a Observed,
    /// The planner after it.
    pub fleet: &'a Fleet,
    /// The plan.
    pub plan: &'a Plan,
    /// When.
    pub now: Timestamp,
}

/// Lists every promise that a plan breaks; empty for a good one.
#[must_use]
pub fn check(checked: Checked<'_>) -> Vec<Violation> {
    let mut found = Vec::new();
    for key in checked.desired.deployments.keys() {
        exposure(checked, key, &mut found);
        revisions(checked, key, &mut found);
        reasons(checked, key, &mut found);
        columns(checked, key, &mut found);
    }
    for (name, cluster) in &checked.observed.clusters {
        entries(checked, name, cluster, &mut found);
    }
    found
}

fn running(entry: Option<&Entry>) -> Option<&RevisionName> {
    entry
        .filter(|entry| entry.action == Action::Run)
        .map(|entry| &entry.revision)
}

fn hearing(checked: Checked<'_>, key: &DeploymentKey, cluster: &Cluster) -> Hearing {
    let policy = &checked.desired.deployments[key].policy;
    cluster
        .connection
        .hearing(policy.offline.grace_seconds, checked.now)
}

/// A living cluster says, of exactly this generation, that it has the revision or that it failed on it. That it was
/// condemned, in this very attempt, outlives silence and what became of the assignment since.
fn spoke(
    checked: Checked<'_>,
    key: &DeploymentKey,
    cluster: &Cluster,
    revision: &RevisionName,
) -> bool {
    let heard = hearing(checked, key, cluster) == Hearing::Heard;
    let attempt = cluster.entries.get(key).map(|entry| entry.attempt);
    cluster.report.as_ref().is_some_and(|report| {
        let today = report.observed_generation == cluster.generation;
        let model = report.models.get(key);
        model.is_some_and(|model| {
            let nodes = model.nodes;
            let expected = nodes.desired.saturating_sub(nodes.silent);
            let condemned = model.phase == Phase::Failed || nodes.rejected() > 0;
            let remembered = condemned && !heard && attempt == Some(model.attempt);
            // Its session says that no node was heard since the order came.
            let nobody = nodes.desired > 0 && nodes.silent >= nodes.desired;
            let there = nobody
                || model.phase == Phase::TimedOut
                || nodes.updated.saturating_add(nodes.held) >= expected
                    && (expected > 0 || nodes.desired == 0);
            &model.revision == revision && (remembered || today && (condemned || heard && there))
        })
    })
}

/// What the policy allows at most, whoever the planner leaves out: a share of all members.
#[must_use]
pub fn most(policy: &Policy, stage: &StageName, members: usize) -> usize {
    let named = policy.stages.iter().find(|it| &it.name == stage);
    named.map_or(1, |stage| {
        let unavailable = stage
            .max_unavailable
            .map_or(usize::MAX, |max| max.of(members));
        stage.max_concurrency.of(members).min(unavailable)
    })
}

fn exposure(checked: Checked<'_>, key: &DeploymentKey, found: &mut Vec<Violation>) {
    let deployment = &checked.desired.deployments[key];
    if deployment.policy.offline.after_update == AfterUpdate::Ignore {
        return;
    }
    let Some(update) = target(checked, key) else {
        return;
    };
    let current = standing(checked, key).current.as_ref();
    if current == Some(&update) && deployment.standing.undo.is_some() {
        return;
    }
    for group in checked.fleet.stages(key) {
        let StageGroup {
            name: stage,
            members,
            moving_max,
            unavailable_max,
        } = group;
        let record = standing(checked, key).stage.as_ref();
        let mut passed = record.into_iter().flat_map(|record| &record.passed);
        // A person went on past so many.
        let past = passed
            .find(|it| it.stage == stage)
            .map_or(0, |it| it.suspects);
        let past = usize::try_from(past).unwrap_or(usize::MAX);
        let max = moving_max.min(unavailable_max.unwrap_or(usize::MAX));
        let max = max.min(most(&deployment.policy, &stage, members.len()));
        let max = max.saturating_add(past);
        let (mut exposed, mut added) = (0, false);
        for name in &members {
            let Some(cluster) = checked.observed.clusters.get(name) else {
                continue;
            };
            let before = running(cluster.entries.get(key));
            let after = checked.plan.clusters.get(name).and_then(|it| it.get(key));
            let given = running(after) == Some(&update) && before != Some(&update);
            let going_back = before.is_some_and(|before| {
                let known = deployment.revisions.get(before);
                current == Some(&update)
                    && known.is_none_or(|known| known.outcome != Outcome::Promoted)
            });
            added |= given && !going_back;
            // Once its rollout was over, a cluster that has the revision may come and go.
            let over = deployment.standing.current.as_ref() == Some(&update);
            let had = before == Some(&update) && !spoke(checked, key, cluster, &update) && !over;
            exposed += usize::from(given && !going_back || had);
        }
        if added && exposed > max {
            found.push(Violation::Exposed {
                deployment: key.clone(),
                stage,
                exposed,
                max,
            });
        }
    }
}

/// Where the deployment stands after the plan: what was not planned stands as it was.
fn standing<'a>(checked: Checked<'a>, key: &DeploymentKey) -> &'a Standing {
    match checked.plan.deployments.get(key) {
        Some(answer) => &answer.standing,
        None => &checked.desired.deployments[key].standing,
    }
}

/// The revision that the deployment goes to after the plan.
fn target(checked: Checked<'_>, key: &DeploymentKey) -> Option<RevisionName> {
    let deployment = &checked.desired.deployments[key];
    match &standing(checked, key).undo {
        Some(undo) if deployment.update.as_ref() == Some(&undo.from) => Some(undo.to.clone()),
        _ => deployment.update.clone(),
    }
}

fn revisions(checked: Checked<'_>, key: &DeploymentKey, found: &mut Vec<Violation>) {
    let deployment = &checked.desired.deployments[key];
    let Some(answer) = checked.plan.deployments.get(key) else {
        return;
    };
    let failed = |revision: &RevisionName| {
        let now = answer.outcomes.get(revision).map(|change| change.outcome);
        let before = deployment.revisions.get(revision).map(|it| it.outcome);
        now.or(before) == Some(Outcome::Failed)
    };
    let stages: BTreeMap<_, _> = checked
        .fleet
        .stages(key)
        .into_iter()
        .enumerate()
        .flat_map(|(index, group)| {
            let name = group.name;
            let place = move |member| (member, (index, name.clone()));
            group.members.into_iter().map(place)
        })
        .collect();
    for (name, cluster) in &checked.observed.clusters {
        let after = checked.plan.clusters.get(name).and_then(|it| it.get(key));
        let Some(revision) = running(after) else {
            continue;
        };
        let before = running(cluster.entries.get(key));
        if before == Some(revision) {
            continue;
        }
        if failed(revision) {
            found.push(Violation::FailedRevision {
                deployment: key.clone(),
                revision: revision.clone(),
                cluster: name.clone(),
            });
        }
        let promoted = answer.standing.current.as_ref() == Some(revision);
        let back = promoted && before.is_some();
        if !back && hearing(checked, key, cluster) != Hearing::Heard {
            found.push(Violation::Unheard {
                deployment: key.clone(),
                revision: revision.clone(),
                cluster: name.clone(),
            });
        }
        let reached = answer
            .standing
            .stage
            .as_ref()
            .map_or(0, |stage| stage.index);
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

fn reasons(checked: Checked<'_>, key: &DeploymentKey, found: &mut Vec<Violation>) {
    let deployment = &checked.desired.deployments[key];
    let decisions = checked.fleet.decisions(key);
    let update = target(checked, key);
    for group in checked.fleet.stages(key) {
        for name in group.members {
            let entry = checked.plan.clusters.get(&name).and_then(|it| it.get(key));
            let report = checked
                .observed
                .clusters
                .get(&name)
                .and_then(|cluster| cluster.report.as_ref())
                .and_then(|report| report.models.get(key));
            let there = match (&update, deployment.deleting) {
                (_, true) => entry.is_none(),
                (None, false) => false,
                (Some(update), false) => {
                    running(entry) == Some(update)
                        && report.is_some_and(|report| {
                            &report.revision == update
                                && report.phase != Phase::Failed
                                && report.nodes.complete()
                        })
                }
            };
            let told = decisions.get(&name).is_some_and(|it| it.because.is_some());
            if !there && !told {
                found.push(Violation::NoReason {
                    deployment: key.clone(),
                    cluster: name.clone(),
                });
            }
        }
    }
}

fn columns(checked: Checked<'_>, key: &DeploymentKey, found: &mut Vec<Violation>) {
    let Some(answer) = checked.plan.deployments.get(key) else {
        return;
    };
    let sum = answer.clusters.columns();
    if sum != answer.clusters.desired {
        found.push(Violation::Columns {
            deployment: key.clone(),
            sum,
            desired: answer.clusters.desired,
        });
    }
}

fn entries(
    checked: Checked<'_>,
    name: &ClusterName,
    cluster: &Cluster,
    found: &mut Vec<Violation>,
) {
    let empty = BTreeMap::new();
    let after = checked.plan.clusters.get(name).unwrap_or(&empty);
    if after.len() > ENTRIES_MAX && after.len() > cluster.entries.len() {
        found.push(Violation::TooManyEntries {
            cluster: name.clone(),
            entries: after.len(),
        });
    }
    for (key, before) in &cluster.entries {
        let deployment = checked.desired.deployments.get(key);
        let confirmed = before.action == Action::Remove
            && cluster.report.as_ref().is_some_and(|report| {
                report.observed_generation >= cluster.generation && !report.models.contains_key(key)
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
