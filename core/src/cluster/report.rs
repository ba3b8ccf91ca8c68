//! What a cluster tells the hub of one model: sums, and the devices' own words for the worst problems.
//!
//! Owns the way up from nodes to a cluster. Each node stands in exactly one column, by the reason of its
//! decision; nothing here looks at a node to judge it anew.

use std::collections::BTreeMap;

use super::decide::Decision;
use super::member::Member;
use super::types::{Assigned, NodeState, PROGRESS_DEADLINE_EXCEEDED};
use super::waiting::NodeWaiting;
use crate::fleet::ModelReport;
use crate::ids::RevisionName;
use crate::summary::{Counts, Phase, Problem, Severity, worst_problems};

/// The whole report of an entry.
pub(super) fn report<E: PartialEq>(
    entry: &Assigned<E>,
    decisions: &[(Member<'_, E>, Decision<E>)],
) -> ModelReport {
    let nodes: Counts = decisions
        .iter()
        .map(|(member, decision)| Counts {
            desired: 1,
            ready: u32::from(member.serving()),
            ..column(decision.because.as_ref())
        })
        .sum();
    let problems = decisions
        .iter()
        .filter_map(|(member, decision)| problem(member, decision.because.as_ref()?))
        .collect();
    let problems = worst_problems(problems);
    let phase = phase(entry, &nodes, decisions);
    let reason = match phase {
        Phase::TimedOut => PROGRESS_DEADLINE_EXCEEDED.to_owned(),
        Phase::Passed if nodes.desired == 0 => "NoNodes".to_owned(),
        Phase::Passed => String::new(),
        _ => problems
            .first()
            .map(|problem| problem.reason.clone())
            .unwrap_or_default(),
    };
    let about = decisions
        .iter()
        .filter_map(|(member, _)| member.measured(&entry.revision));
    ModelReport {
        revision: entry.revision.clone(),
        attempt: entry.attempt,
        nodes,
        phase,
        reason,
        measures: about.map(|model| model.measures).sum(),
        problems,
        last_good: last_good(decisions),
    }
}

/// The one column in which a node stands.
fn column(because: Option<&NodeWaiting>) -> Counts {
    let mut counts = Counts::default();
    let column = match because {
        None | Some(NodeWaiting::NotServing { .. }) => &mut counts.updated,
        Some(NodeWaiting::Rejected { serving: true, .. }) => &mut counts.rolled_back,
        Some(NodeWaiting::Rejected { serving: false, .. }) => &mut counts.failed,
        Some(NodeWaiting::Held { .. }) => &mut counts.held,
        Some(NodeWaiting::Silent { .. } | NodeWaiting::Removing { silent: true }) => {
            &mut counts.silent
        }
        Some(NodeWaiting::Suspect { .. }) => &mut counts.suspect,
        Some(
            NodeWaiting::Blocked { .. }
            | NodeWaiting::Unheard
            | NodeWaiting::Listening { .. }
            | NodeWaiting::Updating { .. }
            | NodeWaiting::NotReported
            | NodeWaiting::TimedOut { .. }
            | NodeWaiting::Refused { .. }
            | NodeWaiting::Budget { .. }
            | NodeWaiting::Stopped { .. }
            | NodeWaiting::Removing { silent: false },
        ) => &mut counts.pending,
    };
    *column = 1;
    counts
}

/// Condemned is final; a deadline that ran out says nothing of the content, and ends with its cause.
fn phase<E>(
    entry: &Assigned<E>,
    nodes: &Counts,
    decisions: &[(Member<'_, E>, Decision<E>)],
) -> Phase {
    let any = |which: &dyn Fn(&NodeWaiting) -> bool| {
        let mut all = decisions.iter().filter_map(|(_, it)| it.because.as_ref());
        all.any(which)
    };
    let updating = |wanted: NodeState| {
        any(&|it| matches!(it, NodeWaiting::Updating { state, .. } if *state == wanted))
    };
    let unserved = any(&|it| matches!(it, NodeWaiting::NotServing { .. }));
    if nodes.rejected() > entry.max_failures {
        Phase::Failed
    } else if any(&|it| matches!(it, NodeWaiting::TimedOut { .. })) {
        Phase::TimedOut
    } else if nodes.settled() && !unserved {
        Phase::Passed
    } else if updating(NodeState::Trial) {
        Phase::Trial
    } else if updating(NodeState::Staging) || any(&|it| matches!(it, NodeWaiting::Blocked { .. })) {
        Phase::Staging
    } else if nodes.held > 0 && nodes.pending == 0 && nodes.suspect == 0 {
        Phase::Held
    } else {
        Phase::Pending
    }
}

fn problem<E: PartialEq>(
    member: &Member<'_, E>,
    because: &NodeWaiting,
) -> Option<(Severity, Problem)> {
    let told = |severity, reason: &str, message: &str| {
        let node = member.name.clone();
        let (reason, message) = (reason.to_owned(), message.to_owned());
        let problem = Problem {
            node,
            reason,
            message,
        };
        Some((severity, problem))
    };
    let own = |severity| told(severity, because.reason(), &because.to_string());
    match because {
        NodeWaiting::Rejected {
            reason,
            message,
            serving,
            ..
        } => {
            let severity = if *serving {
                Severity::RolledBack
            } else {
                Severity::Failed
            };
            told(severity, reason, message)
        }
        NodeWaiting::Suspect { .. } => own(Severity::Suspect),
        NodeWaiting::TimedOut { reason, .. } if !reason.is_empty() => {
            told(Severity::TimedOut, reason, &because.to_string())
        }
        NodeWaiting::TimedOut { .. } => own(Severity::TimedOut),
        NodeWaiting::Blocked { reason, message }
        | NodeWaiting::NotServing {
            reason, message, ..
        } => told(Severity::Blocked, reason, message),
        NodeWaiting::Refused { .. } => own(Severity::Blocked),
        NodeWaiting::Updating {
            reason, message, ..
        } if !reason.is_empty() => told(Severity::Waiting, reason, message),
        NodeWaiting::Held { reason } => told(Severity::Held, because.reason(), reason),
        NodeWaiting::Silent { .. } => own(Severity::Silent),
        NodeWaiting::Unheard
        | NodeWaiting::Listening { .. }
        | NodeWaiting::Updating { .. }
        | NodeWaiting::NotReported
        | NodeWaiting::Budget { .. }
        | NodeWaiting::Stopped { .. }
        | NodeWaiting::Removing { .. } => None,
    }
}

/// What most nodes would go back to; of equals, the first by name.
fn last_good<E>(decisions: &[(Member<'_, E>, Decision<E>)]) -> Option<RevisionName> {
    let mut votes: BTreeMap<&RevisionName, usize> = BTreeMap::new();
    for model in decisions.iter().filter_map(|(member, _)| member.last) {
        if let Some(revision) = &model.last_good {
            *votes.entry(revision).or_default() += 1;
        }
    }
    let most = votes.values().copied().max()?;
    votes
        .into_iter()
        .find(|(_, count)| *count == most)
        .map(|(revision, _)| revision.clone())
}
