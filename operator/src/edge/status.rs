//! A cluster's status as it goes up: the plan's report in the words of the API.
//!
//! Owns the assignment's status. Sums are core's; nothing here counts a node twice or judges one.
//! Two statuses are compared as sets and without times, so that steady state writes nothing.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use k8s_openapi::jiff::Timestamp;
use rimward_core::cluster::Hearing;
use rimward_core::fleet::ModelReport;
use rimward_core::ids::ModelKey;
use rimward_core::summary::{Measures, Phase};
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{
    AssignedModelStatus, Capabilities, ClusterAssignmentStatus, Condition, EdgeNode, ModelVerdict,
    NodeCounts, NodeProblem, NodeSummary, VerdictPhase, Versions,
};

use super::parse::bounded;
use super::status_budget;

/// The schema's bounds on a cluster's capabilities.
const ARCHITECTURES_MAX: usize = 8;
const BACKENDS_MAX: usize = 16;

/// What is known of the cluster besides its nodes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Facts {
    pub(crate) cluster_uid: Option<String>,
    pub(crate) versions: Option<Versions>,
}

/// What a status is made from.
pub(crate) struct Sources<'a> {
    pub(crate) facts: &'a Facts,
    /// Generation of the hub's object that was planned on.
    pub(crate) hub_generation: i64,
    pub(crate) report: &'a BTreeMap<ModelKey, ModelReport>,
    /// Models of which the report rests on memory, since not every node was heard yet.
    pub(crate) listening: &'a BTreeSet<ModelKey>,
    pub(crate) unreadable: &'a BTreeMap<(String, String), String>,
    pub(crate) nodes: &'a NodeSummary,
    pub(crate) capabilities: &'a Capabilities,
}

/// Makes the status. `before` lends the times of conditions that did not turn.
pub(crate) fn status(
    sources: &Sources<'_>,
    before: Option<&ClusterAssignmentStatus>,
    now: &Time,
) -> ClusterAssignmentStatus {
    let Sources {
        facts,
        hub_generation,
        report,
        listening,
        unreadable,
        nodes,
        capabilities,
    } = sources;
    let models: Vec<_> = report
        .iter()
        .map(|(key, one)| {
            let memory = listening.contains(key);
            let stands = before
                .filter(|before| memory && before.observed_generation == Some(*hub_generation));
            let new = model(key, one);
            stands
                .and_then(|before| standing(before, &new))
                .unwrap_or(new)
        })
        .collect();
    let conditions = conditions(&models, unreadable)
        .into_iter()
        .map(|(kind, verdict)| {
            let (status, reason, message) = verdict;
            let kept = before
                .and_then(|before| before.conditions.iter().find(|old| old.type_ == kind))
                .filter(|old| old.status == status)
                .map(|old| old.last_transition_time.clone());
            Condition {
                type_: kind.to_owned(),
                status: status.to_owned(),
                reason,
                message,
                observed_generation: Some(*hub_generation),
                last_transition_time: kept.unwrap_or_else(|| now.clone()),
            }
        })
        .collect();
    status_budget::fit(ClusterAssignmentStatus {
        observed_generation: Some(*hub_generation),
        conditions,
        cluster_uid: facts.cluster_uid.clone(),
        versions: facts.versions.clone(),
        nodes: Some((*nodes).clone()),
        capabilities: Some((*capabilities).clone()),
        models,
    })
}

/// What an earlier session said of the same order, while this one has not heard every node yet: to begin to
/// listen is no news. A rejection is.
fn standing(
    before: &ClusterAssignmentStatus,
    new: &AssignedModelStatus,
) -> Option<AssignedModelStatus> {
    if new.verdict.phase == VerdictPhase::Failed {
        return None;
    }
    let same = |old: &&AssignedModelStatus| {
        old.namespace == new.namespace
            && old.name == new.name
            && old.revision == new.revision
            && old.attempt == new.attempt
    };
    before.models.iter().find(same).cloned()
}

fn model(key: &ModelKey, report: &ModelReport) -> AssignedModelStatus {
    let ModelReport {
        revision,
        attempt,
        nodes,
        phase,
        reason,
        measures,
        problems,
        last_good,
    } = report;
    let Measures {
        samples,
        errors,
        latency_p99_microseconds,
    } = *measures;
    let number = |count: u64| i64::try_from(count).unwrap_or(i64::MAX);
    AssignedModelStatus {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        revision: Some(revision.to_string()),
        attempt: *attempt,
        nodes: NodeCounts {
            desired: nodes.desired,
            updated: nodes.updated,
            pending: nodes.pending,
            held: nodes.held,
            silent: nodes.silent,
            suspect: nodes.suspect,
            failed: nodes.failed,
            rolled_back: nodes.rolled_back,
            ready: nodes.ready,
        },
        last_good_revision: last_good.as_ref().map(ToString::to_string),
        problems: problems
            .iter()
            .map(|problem| NodeProblem {
                node: problem.node.to_string(),
                reason: problem.reason.clone(),
                message: bounded(&problem.message),
            })
            .collect(),
        verdict: ModelVerdict {
            phase: match phase {
                Phase::Failed => VerdictPhase::Failed,
                Phase::TimedOut => VerdictPhase::TimedOut,
                Phase::Held => VerdictPhase::Held,
                Phase::Pending => VerdictPhase::Pending,
                Phase::Staging => VerdictPhase::Staging,
                Phase::Trial => VerdictPhase::Trial,
                Phase::Passed => VerdictPhase::Passed,
            },
            reason: Some(reason.clone()).filter(|reason| !reason.is_empty()),
            samples: number(samples),
            errors: number(errors),
            latency_p99_microseconds: number(latency_p99_microseconds.unwrap_or(0)),
        },
    }
}

/// Status, reason and message of a condition.
type Verdict = (&'static str, String, String);

/// Ready, Reconciling and Stalled, as kstatus reads them.
fn conditions(
    models: &[AssignedModelStatus],
    unreadable: &BTreeMap<(String, String), String>,
) -> [(&'static str, Verdict); 3] {
    let phase = |one: &AssignedModelStatus| one.verdict.phase;
    let with = |wanted: VerdictPhase| models.iter().find(|one| phase(one) == wanted);
    let failed = with(VerdictPhase::Failed).or_else(|| with(VerdictPhase::TimedOut));
    let open = models
        .iter()
        .filter(|one| phase(one) != VerdictPhase::Passed)
        .count();
    let stalled = match (unreadable.iter().next(), failed) {
        (Some(((namespace, name), error)), _) => Some((
            HubReason::ObjectInvalid.to_string(),
            bounded(&format!("the entry of {namespace}/{name}: {error}")),
        )),
        (None, Some(one)) => Some((stalled_reason(one), stalled_message(one))),
        (None, None) => None,
    };
    let no = |reason: HubReason| ("False", reason.to_string(), String::new());
    let working = || {
        (
            HubReason::Progressing.to_string(),
            format!("{open} of {} models are not settled", models.len()),
        )
    };
    let (ready, reconciling) = match (&stalled, open) {
        (Some((reason, message)), _) => (
            ("False", reason.clone(), message.clone()),
            no(HubReason::AsDesired),
        ),
        (None, 0) => (
            ("True", HubReason::AsDesired.to_string(), String::new()),
            no(HubReason::AsDesired),
        ),
        (None, _) => {
            let (reason, message) = working();
            (
                ("False", reason.clone(), message.clone()),
                ("True", reason, message),
            )
        }
    };
    let stalled = stalled.map_or_else(
        || no(HubReason::AsDesired),
        |(reason, message)| ("True", reason, message),
    );
    [
        (condition::READY, ready),
        (condition::RECONCILING, reconciling),
        (condition::STALLED, stalled),
    ]
}

/// A device's word is taken for a reason only where it has a reason's form; the API server would
/// refuse the whole status otherwise.
fn stalled_reason(model: &AssignedModelStatus) -> String {
    let reason = model.verdict.reason.as_deref().unwrap_or_default();
    let fits = !reason.is_empty()
        && reason.len() <= 64
        && reason.starts_with(|c: char| c.is_ascii_alphabetic())
        && reason.chars().all(|c| c.is_ascii_alphanumeric());
    if fits {
        reason.to_owned()
    } else {
        HubReason::StageFailed.to_string()
    }
}

fn stalled_message(model: &AssignedModelStatus) -> String {
    let AssignedModelStatus {
        namespace,
        name,
        revision,
        problems,
        verdict,
        ..
    } = model;
    let revision = revision.as_deref().unwrap_or_default();
    let what = if verdict.phase == VerdictPhase::TimedOut {
        "ran out of time"
    } else {
        "failed"
    };
    match problems.first() {
        Some(problem) => bounded(&format!(
            "{namespace}/{name}: revision {revision} {what} on node {}: {}",
            problem.node, problem.message
        )),
        None => format!("{namespace}/{name}: revision {revision} {what}"),
    }
}

/// Counts nodes and sums what they can do. A node that is silent is not ready.
pub(crate) fn nodes<'a>(
    nodes: impl Iterator<Item = (&'a EdgeNode, Hearing)>,
) -> (NodeSummary, Capabilities) {
    let mut summary = NodeSummary::default();
    let mut architectures = BTreeSet::new();
    let mut backends = BTreeSet::new();
    for (node, hearing) in nodes {
        summary.total += 1;
        let Some(status) = &node.status else { continue };
        let ready = status
            .conditions
            .iter()
            .any(|one| one.type_ == condition::READY && one.status == "True");
        summary.ready += u32::from(ready && hearing != Hearing::Silent);
        architectures.extend(status.architecture.clone());
        backends.extend(status.backends.iter().map(|backend| backend.name.clone()));
    }
    let capabilities = Capabilities {
        architectures: architectures.into_iter().take(ARCHITECTURES_MAX).collect(),
        backends: backends.into_iter().take(BACKENDS_MAX).collect(),
    };
    (summary, capabilities)
}

/// Whether two statuses say the same, whatever the order of their lists and the times of conditions.
pub(crate) fn same(left: &ClusterAssignmentStatus, right: &ClusterAssignmentStatus) -> bool {
    canonical(left) == canonical(right)
}

fn canonical(status: &ClusterAssignmentStatus) -> ClusterAssignmentStatus {
    let mut status = status.clone();
    for one in &mut status.conditions {
        one.last_transition_time = Time(Timestamp::UNIX_EPOCH);
    }
    status.conditions.sort_by(|a, b| a.type_.cmp(&b.type_));
    status
        .models
        .sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    status
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
