//! What a cluster tells the hub of one model: sums, and the devices' own words for the worst problems.
//!
//! Owns the way up from nodes to a cluster. Silent nodes count as desired and silent only, since
//! what they last said may be long over; a rejection alone outlives silence.

use std::collections::BTreeMap;

use super::member::Member;
use super::types::{Assigned, NodeState, PROGRESS_DEADLINE_EXCEEDED};
use crate::fleet::ModelReport;
use crate::ids::RevisionName;
use crate::summary::{Counts, Phase, Problem, Severity, worst_problems};

/// The numbers of an entry's nodes.
pub(super) fn counts<E: PartialEq>(entry: &Assigned<E>, members: &[Member<'_, E>]) -> Counts {
    let sum: Counts = members
        .iter()
        .map(|member| {
            let alive = member.node.alive;
            let updated = alive && member.updated(entry);
            let rejected = member.rejected(&entry.revision);
            Counts {
                desired: 1,
                updated: u32::from(updated),
                ready: u32::from(member.serving()),
                held: u32::from(alive && !updated && rejected.is_none() && member.held()),
                silent: u32::from(!alive),
                failed: u32::from(rejected.is_some_and(|model| !model.serving)),
                rolled_back: u32::from(rejected.is_some_and(|model| model.serving)),
                ..Counts::default()
            }
        })
        .sum();
    sum.with_pending()
}

/// The whole report of an entry.
pub(super) fn report<E: PartialEq>(
    entry: &Assigned<E>,
    members: &[Member<'_, E>],
    expired: bool,
) -> ModelReport {
    let nodes = counts(entry, members);
    let problems = worst_problems(members.iter().filter_map(|it| problem(entry, it)).collect());
    let phase = phase(entry, members, &nodes, expired);
    let reason = match phase {
        Phase::Failed if nodes.rejected() == 0 => PROGRESS_DEADLINE_EXCEEDED.to_owned(),
        Phase::Passed if nodes.desired == 0 => "NoNodes".to_owned(),
        Phase::Passed => String::new(),
        _ => problems
            .first()
            .map(|problem| problem.reason.clone())
            .unwrap_or_default(),
    };
    let about = members
        .iter()
        .filter_map(|member| member.last)
        .filter(|model| model.revision == entry.revision);
    ModelReport {
        revision: entry.revision.clone(),
        nodes,
        phase,
        reason,
        measures: about.map(|model| model.measures).sum(),
        problems,
        last_good: last_good(members),
    }
}

fn phase<E: PartialEq>(
    entry: &Assigned<E>,
    members: &[Member<'_, E>],
    nodes: &Counts,
    expired: bool,
) -> Phase {
    let any = |state: NodeState| {
        members.iter().any(|member| {
            member.has(entry)
                && member
                    .about_go_ahead()
                    .is_some_and(|model| model.state == state)
        })
    };
    if nodes.rejected() > 0 || expired {
        Phase::Failed
    } else if nodes.complete() {
        Phase::Passed
    } else if any(NodeState::Trial) {
        Phase::Trial
    } else if any(NodeState::Staging) || any(NodeState::Blocked) {
        Phase::Staging
    } else if nodes.held > 0 {
        Phase::Held
    } else {
        Phase::Pending
    }
}

fn problem<E: PartialEq>(
    entry: &Assigned<E>,
    member: &Member<'_, E>,
) -> Option<(Severity, Problem)> {
    let words = |severity, reason: &str, message: &str| {
        let node = member.name.clone();
        Some((
            severity,
            Problem {
                node,
                reason: reason.to_owned(),
                message: message.to_owned(),
            },
        ))
    };
    if let Some(model) = member.rejected(&entry.revision) {
        let severity = if model.serving {
            Severity::RolledBack
        } else {
            Severity::Failed
        };
        return words(severity, &model.reason, &model.message);
    }
    if !member.node.alive {
        return words(Severity::Silent, "Silent", "no heartbeat");
    }
    if let Some(reason) = &member.node.held
        && !member.updated(entry)
    {
        return words(Severity::Held, "Held", reason);
    }
    let model = member.about_go_ahead()?;
    match model.state {
        NodeState::Blocked => words(Severity::Blocked, &model.reason, &model.message),
        NodeState::Held => words(Severity::Held, &model.reason, &model.message),
        NodeState::Committed if !model.serving => {
            words(Severity::Blocked, &model.reason, &model.message)
        }
        NodeState::Pending
        | NodeState::Staging
        | NodeState::Trial
        | NodeState::Committed
        | NodeState::Rejected
        | NodeState::Removing => None,
    }
}

/// What most nodes would go back to; of equals, the first by name.
fn last_good<E>(members: &[Member<'_, E>]) -> Option<RevisionName> {
    let mut votes: BTreeMap<&RevisionName, usize> = BTreeMap::new();
    for model in members.iter().filter_map(|member| member.last) {
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
