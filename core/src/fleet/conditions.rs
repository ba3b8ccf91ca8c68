//! The conditions of a deployment.
//!
//! Owns which condition holds, with a reason from a closed list. kstatus reads them: a rollout that
//! goes on is Reconciling, one that somebody must help is Stalled.

use super::because::Because;
use super::class::{Flag, Tally};
use super::context::Course;
use super::outcome::{Condition, Conditions, Refusal};
use super::policy::Amount;
use super::rollout::Rollout;
use super::types::StagePhase;
use crate::ids::ClusterName;

type First<'a> = Option<&'a (ClusterName, Because)>;

/// Decides the conditions.
pub(super) fn conditions(
    rollout: &Rollout,
    total: &Tally,
    first: First<'_>,
    refusals: &[Refusal],
) -> Conditions {
    let deployment = &rollout.deployment;
    let phase = deployment.standing.stage.as_ref().map(|it| it.phase);
    let rolling_back = phase == Some(StagePhase::RollingBack) && !deployment.paused;
    let stalled = stalled(rollout, refusals, rolling_back);
    let paused = paused(rollout);
    let done = rollout.context.update.is_some()
        && rollout.context.update == deployment.standing.current
        && rollout.failed.is_none()
        && !deployment.deleting
        && refusals.is_empty()
        && total.of(Flag::Unready) == 0;
    let words = first
        .filter(|(_, because)| !because.is_tolerated())
        .map(|(cluster, because)| (because.reason(), format!("cluster {cluster}: {because}")));
    let reconciling = reconciling(rollout, done, rolling_back, &stalled, &paused, words);
    let ready = if done {
        yes(
            "RolledOut",
            format!("{} cluster(s) run the revision", total.of(Flag::Member)),
        )
    } else if stalled.status {
        no(stalled.reason, stalled.message.clone())
    } else if paused.status {
        no(paused.reason, paused.message.clone())
    } else {
        no(reconciling.reason, reconciling.message.clone())
    };
    Conditions {
        available: available(rollout, total),
        reconciling,
        ready,
        stalled,
        degraded: degraded(rollout, total, first),
        paused,
    }
}

fn reconciling(
    rollout: &Rollout,
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
    let gate = rollout.gate.as_ref();
    let (reason, message) = match (first, &rollout.context.update) {
        (first, _) if rolling_back => (
            "RollingBack",
            first.map_or_else(|| "clusters go back".to_owned(), |(_, words)| words),
        ),
        (_, None) => (
            "NotResolved",
            "the model is not resolved to a revision yet".to_owned(),
        ),
        (Some(first), _) => first,
        (None, _) => match gate {
            Some(gate) => (gate.reason(), gate.to_string()),
            None => ("Progressing", "no node has run the revision yet".to_owned()),
        },
    };
    yes(reason, message)
}

/// Somebody must do something: a refusal, or a stage that nothing but a person or a return moves on.
fn stalled(rollout: &Rollout, refusals: &[Refusal], rolling_back: bool) -> Condition {
    let first = refusals.iter().find(|refusal| {
        let failed = matches!(
            refusal,
            Refusal::RevisionFailed { .. } | Refusal::Stopped { aborted: true, .. }
        );
        !(rolling_back && failed)
    });
    if let Some(refusal) = first {
        return yes(refusal.reason(), refusal.to_string());
    }
    match rollout.gate.as_ref().filter(|gate| gate.needs_a_person()) {
        Some(gate) => yes(gate.reason(), gate.to_string()),
        None => no("NotStalled", "nothing is in the way for good".to_owned()),
    }
}

fn paused(rollout: &Rollout) -> Condition {
    if rollout.deployment.paused {
        yes("Paused", "the deployment is paused by its spec".to_owned())
    } else {
        no("NotPaused", "the deployment is not paused".to_owned())
    }
}

/// The promoted revision serves on as many clusters as its floor asks for, of those that are not silent.
fn available(rollout: &Rollout, total: &Tally) -> Condition {
    let Some(current) = &rollout.deployment.standing.current else {
        return no("NothingPromoted", "no revision was promoted yet".to_owned());
    };
    let relevant = total.of(Flag::Relevant);
    let count = usize::try_from(relevant).unwrap_or(usize::MAX);
    let floor = match rollout.deployment.min_available {
        // A number is a number, however many are heard.
        Some(Amount::Count(floor)) => usize::try_from(floor).unwrap_or(usize::MAX),
        _ if relevant == 0 => 0,
        Some(share @ Amount::Percent(_)) => share.floor_of(count),
        None => count.saturating_sub(allowance(rollout, count)).max(1),
    };
    let serving = total.of(Flag::Serving);
    if usize::try_from(serving).is_ok_and(|serving| serving >= floor) {
        yes(
            "Serving",
            format!("revision {current} is promoted and at least {floor} clusters serve"),
        )
    } else {
        no(
            "ClusterNotServing",
            format!("fewer than {floor} of {relevant} clusters that are heard serve"),
        )
    }
}

/// How many clusters the policy's budgets let be unavailable at once.
fn allowance(rollout: &Rollout, total: usize) -> usize {
    let stages = rollout.stages.iter().map(|group| &group.divided.stage);
    let budgets = stages.map(|stage| stage.max_unavailable.unwrap_or(stage.max_concurrency));
    // A stage without a limit of its own says nothing about how much may be away.
    let limits = budgets.filter(|amount| *amount != Amount::ALL);
    limits
        .map(|amount| amount.of(total))
        .max()
        .unwrap_or_else(|| Amount::ONE.of(total))
}

fn degraded(rollout: &Rollout, total: &Tally, first: First<'_>) -> Condition {
    if let Some(message) = &rollout.failed {
        let reason = if rollout.context.stopped {
            "RolloutStopped"
        } else {
            "RevisionFailed"
        };
        return yes(reason, message.clone());
    }
    if rollout.context.course == Course::Undone {
        return yes(
            "Undone",
            "a person undid the revision of the spec".to_owned(),
        );
    }
    match first {
        Some((cluster, because)) if total.of(Flag::Failed) > 0 => {
            yes("ClusterFailed", format!("cluster {cluster}: {because}"))
        }
        _ => no("NotDegraded", "no failure".to_owned()),
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
