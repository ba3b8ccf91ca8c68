//! One deployment with everything that belongs to it, as `-o json` prints it.
//!
//! Owns the joining of objects by name. Decides nothing: words and counts are the operator's.

use std::collections::BTreeMap;

use rimward_crds::reasons::condition;
use rimward_crds::{
    Action, ClusterAssignment, Condition, EdgeCluster, ModelDeployment, ModelRevision, NodeCounts,
    NodeProblem, ReadyCounts, RevisionProblem, RolloutAction, RolloutPolicy, UndoStatus,
    VerdictPhase,
};
use serde::Serialize;

/// The objects that a view is made from; more of them than belong to the deployment do no harm.
pub(crate) struct Sources<'a> {
    pub(crate) revisions: &'a [ModelRevision],
    pub(crate) policy: Option<&'a RolloutPolicy>,
    pub(crate) assignments: &'a [ClusterAssignment],
    pub(crate) clusters: &'a [EdgeCluster],
    pub(crate) actions: &'a [RolloutAction],
}

/// Actions of a deployment that are shown, newest first.
const ACTIONS_MAX: usize = 10;

/// A deployment and all below it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Deployment {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) model: String,
    /// Ready, Progressing, Degraded, Stalled, Paused or Pending.
    pub(crate) state: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) progress: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) waiting_for: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) current_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) update_revision: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) previous_revision: Option<String>,
    /// Which attempt at the update revision goes on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    /// A person took the update revision back.
    pub(crate) aborted: bool,
    /// What runs instead of what the spec asks for.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) undo: Option<UndoStatus>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) clusters: Option<ReadyCounts>,
    pub(crate) revisions: Vec<Revision>,
    pub(crate) stages: Vec<Stage>,
    /// What people asked of its rollouts, newest first.
    pub(crate) actions: Vec<Asked>,
}

/// What a person asked of a rollout.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Asked {
    pub(crate) name: String,
    pub(crate) action: &'static str,
    pub(crate) by: String,
    /// Absent while the hub has not decided.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) outcome: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
}

/// A revision of the deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Revision {
    pub(crate) name: String,
    pub(crate) model: String,
    pub(crate) version: String,
    pub(crate) outcome: String,
    /// The attempt that ended so.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) attempt: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) stage: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) message: Option<String>,
    /// What nodes said when it failed.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) problems: Vec<RevisionProblem>,
}

/// A stage of the rollout, and the clusters that got something in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Stage {
    pub(crate) name: String,
    /// What is going on in it, if the rollout is there.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<String>,
    pub(crate) clusters: Vec<Cluster>,
}

/// What one cluster does with the deployment.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Cluster {
    pub(crate) name: String,
    pub(crate) revision: String,
    pub(crate) remove: bool,
    /// The cluster has reported on what it is ordered now.
    pub(crate) reported: bool,
    /// Why the cluster is not available, if it is not.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) away: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) phase: Option<VerdictPhase>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
    pub(crate) nodes: NodeCounts,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) last_good_revision: Option<String>,
    pub(crate) problems: Vec<NodeProblem>,
}

/// Joins a deployment with what belongs to it.
pub(crate) fn deployment(object: &ModelDeployment, sources: &Sources<'_>) -> Deployment {
    let namespace = object.metadata.namespace.clone().unwrap_or_default();
    let name = object.metadata.name.clone().unwrap_or_default();
    let status = object.status.clone().unwrap_or_default();
    let (state, reason, message) = state(object);
    let mut revisions: Vec<_> = sources
        .revisions
        .iter()
        .filter(|it| it.spec.deployment_name == name)
        .filter(|it| it.metadata.namespace.as_deref() == Some(&namespace))
        .collect();
    revisions.sort_by_key(|it| {
        let created = it.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(created), it.metadata.name.clone())
    });
    let stages = stages(&namespace, &name, &status.stage, sources);
    Deployment {
        model: object.spec.model_ref.name.clone(),
        state,
        reason,
        message,
        progress: status.progress,
        waiting_for: status.waiting_for,
        current_revision: status.current_revision,
        update_revision: status.update_revision,
        previous_revision: status.previous_revision,
        attempt: status.stage.as_ref().map(|stage| stage.attempt),
        aborted: status.stage.as_ref().is_some_and(|stage| stage.aborted),
        undo: status.undo,
        clusters: status.clusters,
        actions: actions(&namespace, &name, sources.actions),
        revisions: revisions.into_iter().map(revision).collect(),
        stages,
        namespace,
        name,
    }
}

fn actions(namespace: &str, name: &str, all: &[RolloutAction]) -> Vec<Asked> {
    let mut own: Vec<_> = all
        .iter()
        .filter(|it| it.spec.deployment_name == name)
        .filter(|it| it.metadata.namespace.as_deref() == Some(namespace))
        .collect();
    own.sort_by_key(|it| {
        let created = it.metadata.creation_timestamp.as_ref().map(|time| time.0);
        (std::cmp::Reverse(created), it.metadata.name.clone())
    });
    own.truncate(ACTIONS_MAX);
    own.into_iter()
        .map(|it| {
            let status = it.status.clone().unwrap_or_default();
            Asked {
                name: it.metadata.name.clone().unwrap_or_default(),
                action: it.spec.action.as_str(),
                by: it.spec.by.clone(),
                outcome: status.outcome.map(|outcome| format!("{outcome:?}")),
                message: status.message,
            }
        })
        .collect()
}

/// The one word for where a deployment is, with the condition's own reason and message.
pub(crate) fn state(object: &ModelDeployment) -> (&'static str, Option<String>, Option<String>) {
    let status = object.status.clone().unwrap_or_default();
    if status.observed_generation != object.metadata.generation {
        let message = "the operator has not seen the object as it is now".to_owned();
        return ("Pending", None, Some(message));
    }
    let states = [
        (condition::STALLED, "Stalled"),
        (condition::PAUSED, "Paused"),
        (condition::DEGRADED, "Degraded"),
        (condition::READY, "Ready"),
        (condition::RECONCILING, "Progressing"),
    ];
    for (kind, word) in states {
        if let Some(found) = condition(&status.conditions, kind) {
            let text = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
            return (word, text(&found.reason), text(&found.message));
        }
    }
    ("Progressing", None, None)
}

/// A condition of that type that is True.
pub(crate) fn condition<'a>(conditions: &'a [Condition], kind: &str) -> Option<&'a Condition> {
    conditions
        .iter()
        .find(|one| one.type_ == kind && one.status == "True")
}

fn revision(object: &ModelRevision) -> Revision {
    let status = object.status.clone().unwrap_or_default();
    Revision {
        name: object.metadata.name.clone().unwrap_or_default(),
        model: object.spec.model.name.clone(),
        version: object.spec.model.version.clone(),
        outcome: status
            .outcome
            .map_or_else(|| "Pending".to_owned(), |outcome| format!("{outcome:?}")),
        attempt: status.attempt,
        stage: status.stage,
        reason: status.reason,
        message: status.message,
        problems: status.problems,
    }
}

/// The policy's stages in order, then any other that a cluster's order names.
fn stages(
    namespace: &str,
    name: &str,
    at: &Option<rimward_crds::StageStatus>,
    sources: &Sources<'_>,
) -> Vec<Stage> {
    let mut names: Vec<String> = sources
        .policy
        .map(|policy| {
            policy
                .spec
                .stages
                .iter()
                .map(|it| it.name.clone())
                .collect()
        })
        .unwrap_or_default();
    let mut by_stage: BTreeMap<String, Vec<Cluster>> = BTreeMap::new();
    for assignment in sources.assignments {
        if let Some((stage, cluster)) = cluster(namespace, name, assignment, sources.clusters) {
            by_stage.entry(stage).or_default().push(cluster);
        }
    }
    let current = at.as_ref().map(|at| at.name.clone());
    for other in by_stage.keys().chain(current.iter()) {
        if !names.contains(other) {
            names.push(other.clone());
        }
    }
    names
        .into_iter()
        .map(|name| {
            let mut clusters = by_stage.remove(&name).unwrap_or_default();
            clusters.sort_by(|a, b| a.name.cmp(&b.name));
            let phase = at.as_ref().filter(|at| at.name == name);
            Stage {
                phase: phase.map(|at| format!("{:?}", at.phase)),
                clusters,
                name,
            }
        })
        .collect()
}

fn cluster(
    namespace: &str,
    name: &str,
    assignment: &ClusterAssignment,
    clusters: &[EdgeCluster],
) -> Option<(String, Cluster)> {
    let mut entries = assignment.spec.models.iter();
    let entry = entries.find(|it| it.namespace == namespace && it.name == name)?;
    let status = assignment.status.clone().unwrap_or_default();
    let current = status.observed_generation == assignment.metadata.generation;
    let report = status
        .models
        .into_iter()
        .find(|it| it.namespace == namespace && it.name == name)
        .filter(|it| it.revision.as_ref() == Some(&entry.revision));
    let reported = current && report.is_some();
    let report = report.unwrap_or_default();
    let cluster = Cluster {
        name: assignment.metadata.name.clone().unwrap_or_default(),
        revision: entry.revision.clone(),
        remove: entry.action == Action::Remove,
        reported,
        away: away(assignment, clusters),
        phase: reported.then_some(report.verdict.phase),
        reason: report.verdict.reason,
        nodes: report.nodes,
        last_good_revision: report.last_good_revision,
        problems: report.problems,
    };
    Some((entry.stage.clone().unwrap_or_default(), cluster))
}

fn away(assignment: &ClusterAssignment, clusters: &[EdgeCluster]) -> Option<String> {
    let name = &assignment.metadata.name;
    let Some(cluster) = clusters.iter().find(|it| &it.metadata.name == name) else {
        return Some("its EdgeCluster is gone".to_owned());
    };
    let status = cluster.status.clone().unwrap_or_default();
    if condition(&status.conditions, condition::AVAILABLE).is_some() {
        return None;
    }
    let said = status
        .conditions
        .iter()
        .find(|one| one.type_ == condition::AVAILABLE)
        .map(|one| super::because(Some(&one.reason), Some(&one.message)));
    Some(said.unwrap_or_else(|| "has not joined".to_owned()))
}
