//! What happens when a stage fails: the revision is marked for good, and clusters stop or go back.
//!
//! Owns how failures are counted and the record of a failed revision. Which entries go back is decided
//! with all others, in `entries`.

use super::advance::{Progress, record_at};
use super::outcome::{FAILURES_MAX, OutcomeChange, Transition};
use super::site::Site;
use super::stages::Group;
use super::types::{Action, Deployment, OnFailure, Outcome, StagePhase};
use crate::ids::{ClusterName, RevisionName, StageName};
use crate::summary::Problem;
use crate::time::Timestamp;

/// A stage that failed.
pub(super) struct StageFailure {
    stage: StageName,
    /// With the words of its first failure.
    message: String,
    problems: Vec<(ClusterName, Problem)>,
}

/// The first stage whose failures exceed its allowance.
///
/// Failures of clusters that got the target and now belong to a later stage count for the current one.
pub(super) fn too_many_failures(
    target: &RevisionName,
    groups: &[Group<'_>],
    index: usize,
) -> Option<StageFailure> {
    for (place, group) in groups.iter().enumerate().take(index + 1) {
        let later = if place == index {
            &groups[index + 1..]
        } else {
            &[]
        };
        let failed: Vec<_> = std::iter::once(group)
            .chain(later)
            .flat_map(|group| &group.sites)
            .filter(|site| site.failed(target))
            .collect();
        let allowed = usize::try_from(group.stage.max_failures).unwrap_or(usize::MAX);
        if failed.len() > allowed {
            let words = failed
                .first()
                .map_or_else(String::new, |site| describe(site));
            let message = format!(
                "{} cluster(s) failed, {allowed} allowed; {words}",
                failed.len()
            );
            let problems = failed.iter().flat_map(|site| {
                let report = site.about_entry();
                let problems = report.into_iter().flat_map(|report| &report.problems);
                problems.map(|problem| (site.name.clone(), problem.clone()))
            });
            return Some(StageFailure {
                stage: group.stage.name.clone(),
                message,
                problems: problems.take(FAILURES_MAX).collect(),
            });
        }
    }
    None
}

fn describe(site: &Site<'_>) -> String {
    let Some(report) = site.about_entry() else {
        return format!("cluster {}", site.name);
    };
    match report.problems.first() {
        Some(problem) => format!(
            "cluster {}, node {}: {}: {}",
            site.name, problem.node, problem.reason, problem.message
        ),
        None => format!("cluster {}: {}", site.name, report.reason),
    }
}

pub(super) fn fail(
    deployment: &Deployment,
    target: &RevisionName,
    failure: StageFailure,
    groups: &[Group<'_>],
    now: Timestamp,
    progress: &mut Progress,
) {
    let StageFailure {
        stage,
        message,
        problems,
    } = failure;
    progress.outcomes.insert(
        target.clone(),
        OutcomeChange {
            outcome: Outcome::Failed,
            stage: stage.clone(),
            reason: "StageFailed",
            message: message.clone(),
            problems,
        },
    );
    progress.transitions.push(Transition::RevisionFailed {
        revision: target.clone(),
        stage,
        message: message.clone(),
    });
    progress.failed = Some(message);
    after_failure(deployment, target, groups, now, progress);
}

/// Keeps the record of a failed target: stopped, going back, or back.
pub(super) fn after_failure(
    deployment: &Deployment,
    target: &RevisionName,
    groups: &[Group<'_>],
    now: Timestamp,
    progress: &mut Progress,
) {
    let mut record = progress
        .record
        .take()
        .filter(|record| &record.revision == target)
        .unwrap_or_else(|| record_at(target, groups, 0, StagePhase::Progressing, now));
    record.bake_started = None;
    let before = record.phase;
    let back = |site: &Site<'_>| match &progress.current {
        Some(current) => site.arrived(current),
        None => match site.entry {
            Some(entry) if entry.action == Action::Remove => site.removal_confirmed(),
            Some(entry) => &entry.revision != target,
            None => true,
        },
    };
    record.phase = match (deployment.policy.on_failure, before) {
        (OnFailure::Pause, _) => StagePhase::Failed,
        (OnFailure::RollbackAll, StagePhase::RolledBack) => StagePhase::RolledBack,
        (OnFailure::RollbackAll, _) => {
            let mut counted = groups
                .iter()
                .flat_map(|g| &g.sites)
                .filter(|site| !site.excluded);
            if counted.all(back) {
                StagePhase::RolledBack
            } else {
                StagePhase::RollingBack
            }
        }
    };
    if record.phase != before {
        progress.transitions.extend(match record.phase {
            StagePhase::Failed => Some(Transition::Stopped {
                revision: target.clone(),
            }),
            StagePhase::RollingBack => Some(Transition::RollbackStarted {
                revision: target.clone(),
                to: progress.current.clone(),
            }),
            StagePhase::RolledBack => Some(Transition::RolledBack {
                revision: target.clone(),
            }),
            StagePhase::Progressing
            | StagePhase::Baking
            | StagePhase::Completed
            | StagePhase::Stopped => None,
        });
    }
    progress.record = Some(record);
}
