//! EdgeCluster with its assignment → [`Cluster`].

use std::collections::BTreeMap;

use rimward_core::fleet::{Action, Cluster, ConnectionState, Entry, ModelReport, Report};
use rimward_core::ids::{DeploymentKey, StageName};
use rimward_core::summary::{Counts, Measures, Phase, Problem};
use rimward_crds::{
    AssignedModel, AssignedModelStatus, ClusterAssignment, ClusterAssignmentStatus, EdgeCluster,
    NodeCounts, VerdictPhase,
};

use super::{Invalid, amount, held, name};

/// Parses a cluster. A `frozen` one keeps its entries and its reports are not believed (an identity
/// clash: nobody knows which cluster answers).
///
/// # Errors
/// [`Invalid`], naming the field of the assignment.
pub(crate) fn cluster(
    object: &EdgeCluster,
    assignment: Option<&ClusterAssignment>,
    connection: ConnectionState,
    frozen: bool,
) -> Result<Cluster, Invalid> {
    let mut entries = BTreeMap::new();
    for (index, entry) in assignment
        .iter()
        .flat_map(|assignment| assignment.spec.models.iter().enumerate())
    {
        let (key, entry) =
            assigned_entry(entry).map_err(|error| inside("spec.models", index, error))?;
        entries.insert(key, entry);
    }
    let report = assignment
        .and_then(|assignment| assignment.status.as_ref())
        .filter(|_| !frozen)
        .map(report)
        .transpose()?
        .flatten();
    let generation = assignment.and_then(|assignment| assignment.metadata.generation);
    Ok(Cluster {
        labels: object.metadata.labels.clone().unwrap_or_default(),
        connection,
        paused: object.spec.paused || frozen,
        held: held(object),
        generation: unsigned(generation.unwrap_or(0)),
        entries,
        report,
    })
}

/// Parses one entry of an assignment.
///
/// # Errors
/// [`Invalid`], naming the field inside the entry.
fn assigned_entry(entry: &AssignedModel) -> Result<(DeploymentKey, Entry), Invalid> {
    let key = DeploymentKey {
        namespace: name("namespace", &entry.namespace)?,
        name: name("name", &entry.name)?,
    };
    Ok((
        key,
        Entry {
            revision: name("revision", &entry.revision)?,
            attempt: entry.attempt,
            forget_verdicts_before: entry.forget_verdicts_before,
            replaces: entry
                .replaces
                .as_deref()
                .map(|revision| name("replaces", revision))
                .transpose()?,
            action: match entry.action {
                rimward_crds::Action::Run => Action::Run,
                rimward_crds::Action::Remove => Action::Remove,
            },
            stage: match &entry.stage {
                Some(stage) => name("stage", stage)?,
                None => name::<StageName>("stage", "all")?,
            },
            endpoint_name: name("endpointName", &entry.endpoint_name)?,
            nodes_max_unavailable: amount(&entry.max_unavailable),
            nodes_max_failures: entry.max_failures,
            progress_deadline_seconds: entry.progress_deadline_seconds,
        },
    ))
}

/// A session's report; none before its first.
fn report(status: &ClusterAssignmentStatus) -> Result<Option<Report>, Invalid> {
    let Some(generation) = status
        .observed_generation
        .filter(|generation| *generation >= 0)
    else {
        return Ok(None);
    };
    let mut models = BTreeMap::new();
    for (index, model) in status.models.iter().enumerate() {
        let key = DeploymentKey {
            namespace: name("status.models.namespace", &model.namespace)?,
            name: name("status.models.name", &model.name)?,
        };
        if let Some(report) =
            model_report(model).map_err(|error| inside("status.models", index, error))?
        {
            models.insert(key, report);
        }
    }
    Ok(Some(Report {
        observed_generation: unsigned(generation),
        models,
    }))
}

fn model_report(model: &AssignedModelStatus) -> Result<Option<ModelReport>, Invalid> {
    let AssignedModelStatus {
        namespace: _,
        name: _,
        revision,
        attempt,
        nodes,
        last_good_revision,
        problems,
        verdict,
    } = model;
    let Some(revision) = revision else {
        return Ok(None);
    };
    Ok(Some(ModelReport {
        revision: name("revision", revision)?,
        attempt: *attempt,
        nodes: counts(nodes),
        phase: match verdict.phase {
            VerdictPhase::Pending => Phase::Pending,
            VerdictPhase::Staging => Phase::Staging,
            VerdictPhase::Trial => Phase::Trial,
            VerdictPhase::Passed => Phase::Passed,
            VerdictPhase::Failed => Phase::Failed,
            VerdictPhase::TimedOut => Phase::TimedOut,
            VerdictPhase::Held => Phase::Held,
        },
        reason: verdict.reason.clone().unwrap_or_default(),
        measures: Measures {
            samples: unsigned(verdict.samples),
            errors: unsigned(verdict.errors),
            latency_p99_microseconds: Some(unsigned(verdict.latency_p99_microseconds))
                .filter(|latency| *latency > 0),
        },
        problems: problems
            .iter()
            .map(|problem| {
                Ok(Problem {
                    node: name("problems.node", &problem.node)?,
                    reason: problem.reason.clone(),
                    message: problem.message.clone(),
                })
            })
            .collect::<Result<_, Invalid>>()?,
        last_good: last_good_revision
            .as_deref()
            .map(|revision| name("lastGoodRevision", revision))
            .transpose()?,
    }))
}

fn counts(nodes: &NodeCounts) -> Counts {
    let NodeCounts {
        desired,
        updated,
        pending,
        held,
        silent,
        suspect,
        failed,
        rolled_back,
        ready,
    } = *nodes;
    Counts {
        desired,
        updated,
        pending,
        held,
        silent,
        suspect,
        failed,
        rolled_back,
        ready,
    }
}

fn inside(list: &str, index: usize, error: Invalid) -> Invalid {
    Invalid::at(format!("{list}[{index}].{}", error.field), error.message)
}

fn unsigned(number: i64) -> u64 {
    u64::try_from(number).unwrap_or(0)
}
