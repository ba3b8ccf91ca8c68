//! A ModelRevision's status: what became of it.

use k8s_openapi::jiff::Timestamp;
use rimward_core::fleet::{Outcome, OutcomeChange};
use rimward_core::ids::ClusterName;
use rimward_core::summary::Problem;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{ModelRevision, ModelRevisionStatus, RevisionOutcome, RevisionProblem};

use super::{Says, conditions};
use crate::events::clip;

/// Bounds of the fields as the schema has them.
const REASON_BYTES_MAX: usize = 64;
const MESSAGE_BYTES_MAX: usize = 1024;
const PROBLEM_BYTES_MAX: usize = 512;

/// What the status shall say: its fate as it stands, or as the plan changes it. `attempt` is the one that is under way.
pub(crate) fn revision(
    object: &ModelRevision,
    change: Option<&OutcomeChange>,
    attempt: Option<u32>,
    now: Timestamp,
) -> ModelRevisionStatus {
    let mut status = object.status.clone().unwrap_or_default();
    if let Some(change) = change {
        let OutcomeChange {
            outcome,
            stage,
            reason,
            message,
            problems,
        } = change;
        status.outcome = Some(match outcome {
            Outcome::Pending => RevisionOutcome::Pending,
            Outcome::Promoted => RevisionOutcome::Promoted,
            Outcome::Failed => RevisionOutcome::Failed,
            Outcome::Stopped => RevisionOutcome::Stopped,
        });
        status.stage = Some(stage.to_string());
        status.reason = Some(clip(reason, REASON_BYTES_MAX).to_owned());
        status.message = Some(clip(message, MESSAGE_BYTES_MAX).to_owned());
        status.problems = problems.iter().map(problem).collect();
    }
    if let Some(attempt) = attempt {
        status.attempt = Some(attempt.max(status.attempt.unwrap_or(1)).max(1));
    }
    let outcome = *status.outcome.get_or_insert(RevisionOutcome::Pending);
    let message = status.message.clone().unwrap_or_default();
    let (reason, ready, stalled) = match outcome {
        RevisionOutcome::Pending => (HubReason::Pending, false, false),
        RevisionOutcome::Promoted => (HubReason::Promoted, true, false),
        RevisionOutcome::Failed => (HubReason::StageFailed, false, true),
        RevisionOutcome::Stopped => (HubReason::RolloutStopped, false, true),
    };
    let reason = reason.as_str();
    let generation = object.metadata.generation;
    let says = [
        Says::new(condition::READY, ready, reason, message.clone()),
        Says::new(condition::RECONCILING, false, reason, ""),
        Says::new(
            condition::STALLED,
            stalled,
            reason,
            if stalled { message } else { String::new() },
        ),
    ];
    status.observed_generation = generation;
    status.conditions = conditions(&status.conditions, generation, now, says);
    status
}

fn problem((cluster, problem): &(ClusterName, Problem)) -> RevisionProblem {
    let Problem {
        node,
        reason,
        message,
    } = problem;
    RevisionProblem {
        cluster: cluster.to_string(),
        node: node.to_string(),
        reason: clip(reason, REASON_BYTES_MAX).to_owned(),
        message: clip(message, PROBLEM_BYTES_MAX).to_owned(),
    }
}
