//! The conditions of a deployment.
//!
//! Owns which condition holds, with a reason from a closed list. kstatus reads them: a rollout that
//! goes on is Reconciling, one that somebody must help is Stalled.

use super::explain::{View, members};
use super::outcome::{Condition, Conditions, Refusal};
use super::site::rejected;
use super::types::StagePhase;
use super::waiting::Waiting;
use crate::ids::ClusterName;

/// Decides the conditions.
pub(super) fn conditions(
    view: &View<'_>,
    waiting: &[(ClusterName, Waiting)],
    refusals: &[Refusal],
) -> Conditions {
    let phase = view.progress.record.as_ref().map(|record| record.phase);
    let rolling_back = phase == Some(StagePhase::RollingBack) && !view.deployment.paused;
    let stalled = stalled(refusals, rolling_back);
    let paused = paused(view);
    let open: Vec<_> = waiting
        .iter()
        .filter(|(_, reason)| !tolerated(reason))
        .collect();
    let done = view.deployment.target.is_some()
        && view.deployment.target == view.progress.current
        && view.progress.failed.is_none()
        && !view.deployment.deleting
        && refusals.is_empty()
        && open.is_empty();
    let first = open
        .iter()
        .min_by_key(|(_, reason)| reason.rank())
        .map(|(cluster, reason)| (reason.reason(), format!("cluster {cluster}: {reason}")));
    let reconciling = reconciling(view, done, rolling_back, &stalled, &paused, first.clone());
    let ready = if done {
        yes(
            "RolledOut",
            format!("{} cluster(s) run the revision", members(view)),
        )
    } else if stalled.status {
        no(stalled.reason, stalled.message.clone())
    } else if paused.status {
        no(paused.reason, paused.message.clone())
    } else {
        no(reconciling.reason, reconciling.message.clone())
    };
    Conditions {
        available: available(view),
        reconciling,
        ready,
        stalled,
        degraded: degraded(view),
        paused,
    }
}

/// What does not keep a deployment from being ready: clusters that the policy leaves out.
fn tolerated(reason: &Waiting) -> bool {
    matches!(
        reason,
        Waiting::Silent { excluded: true, .. } | Waiting::NeverJoined
    )
}

fn reconciling(
    view: &View<'_>,
    done: bool,
    rolling_back: bool,
    stalled: &Condition,
    paused: &Condition,
    first: Option<(&'static str, String)>,
) -> Condition {
    if done {
        return no("RolledOut", "nothing to do".to_owned());
    }
    if stalled.status {
        return no("Stalled", stalled.message.clone());
    }
    if paused.status {
        return no("Paused", paused.message.clone());
    }
    let (reason, message) = match (first, &view.deployment.target) {
        (first, _) if rolling_back => (
            "RollingBack",
            first.map_or_else(|| "clusters go back".to_owned(), |(_, words)| words),
        ),
        (_, None) => (
            "NotResolved",
            "the model is not resolved to a revision yet".to_owned(),
        ),
        (Some(first), _) => first,
        (None, _) => ("Progressing", "no node has run the revision yet".to_owned()),
    };
    yes(reason, message)
}

fn stalled(refusals: &[Refusal], rolling_back: bool) -> Condition {
    let first = refusals
        .iter()
        .find(|refusal| !(rolling_back && matches!(refusal, Refusal::RevisionFailed { .. })));
    match first {
        Some(refusal) => yes(refusal.reason(), refusal.to_string()),
        None => no("NotStalled", "nothing is in the way for good".to_owned()),
    }
}

fn paused(view: &View<'_>) -> Condition {
    if view.deployment.paused {
        yes("Paused", "the deployment is paused by its spec".to_owned())
    } else {
        no("NotPaused", "the deployment is not paused".to_owned())
    }
}

fn available(view: &View<'_>) -> Condition {
    let Some(current) = &view.progress.current else {
        return no("NothingPromoted", "no revision was promoted yet".to_owned());
    };
    let silent = view
        .sites()
        .filter(|site| !site.excluded)
        .find(|site| !site.serving());
    match silent {
        Some(site) => no(
            "ClusterNotServing",
            format!("cluster {} does not serve on all nodes", site.name),
        ),
        None => yes(
            "Serving",
            format!("revision {current} is promoted and every cluster that answers serves"),
        ),
    }
}

fn degraded(view: &View<'_>) -> Condition {
    if let Some(message) = &view.progress.failed {
        return yes("RevisionFailed", message.clone());
    }
    let broken = view
        .sites()
        .find(|site| site.about_entry().is_some_and(rejected));
    match broken {
        Some(site) => {
            let words = site
                .about_entry()
                .and_then(|report| report.problems.first())
                .map_or_else(String::new, |problem| {
                    format!(
                        ": node {}: {}: {}",
                        problem.node, problem.reason, problem.message
                    )
                });
            yes(
                "ClusterFailed",
                format!("cluster {} failed{words}", site.name),
            )
        }
        None => no("NotDegraded", "no failure".to_owned()),
    }
}

fn yes(reason: &'static str, message: String) -> Condition {
    Condition {
        status: true,
        reason,
        message,
    }
}

fn no(reason: &'static str, message: String) -> Condition {
    Condition {
        status: false,
        reason,
        message,
    }
}
