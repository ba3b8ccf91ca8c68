//! Who gets the go-ahead for one entry now, and who waits.
//!
//! Owns the one place where a cluster's budget is spent.
//!
//! # Guarantees
//! - Nodes that were put on their way and are not known to be there are never more than the budget,
//!   even if what was seen of them is wrong: a node that merely *looks* unavailable still needs a free
//!   place among those on their way.
//! - A node on its way may be sent elsewhere in its own place.
//! - Once a node rejected the revision, or the deadline ran out, no node gets it any more.

use std::collections::{BTreeMap, BTreeSet};

use super::member::Member;
use super::types::{Assigned, GoAhead, NodeState};
use super::waiting::NodeWaiting;
use crate::fleet::Action;
use crate::ids::NodeName;

/// What one entry gives.
#[derive(Debug)]
pub(super) struct Paced<E> {
    pub(super) given: BTreeMap<NodeName, GoAhead<E>>,
    pub(super) waiting: Vec<(NodeName, NodeWaiting)>,
    /// Nodes on their way once this is applied.
    pub(super) moving: BTreeSet<NodeName>,
}

/// Decides who gets the go-ahead among the nodes that the entry selects.
pub(super) fn pace<E: Clone + PartialEq>(
    entry: &Assigned<E>,
    members: &[Member<'_, E>],
    expired: bool,
) -> Paced<E> {
    let max = entry.max_unavailable.of(members.len());
    let mut moving: BTreeSet<_> = members
        .iter()
        .filter(|member| member.moving())
        .map(|member| member.name)
        .collect();
    let mut unavailable: BTreeSet<_> = members
        .iter()
        .filter(|member| member.unavailable())
        .map(|member| member.name)
        .collect();
    let stop = stop(entry, members, expired);

    let mut order: Vec<_> = members.iter().collect();
    order.sort_by_key(|member| (!member.unavailable(), member.name));
    let mut given = BTreeMap::new();
    let mut reasons = BTreeMap::new();
    for member in order {
        let keep = |given: &mut BTreeMap<_, _>| {
            if let Some(present) = member.go_ahead {
                given.insert(member.name.clone(), present.clone());
            }
        };
        if member.has(entry) {
            keep(&mut given);
            if let Some(reason) = on_its_way(entry, member) {
                reasons.insert(member.name.clone(), reason);
            }
            continue;
        }
        let blocked = obstacle(member, stop.as_ref());
        let with = |set: &BTreeSet<&NodeName>| set.len() + usize::from(!set.contains(member.name));
        let looks_gone = unavailable.contains(member.name) && !moving.contains(member.name);
        let fits = with(&moving) <= max && (looks_gone || with(&unavailable) <= max);
        if let Some(reason) = blocked {
            keep(&mut given);
            reasons.insert(member.name.clone(), reason);
        } else if fits {
            moving.insert(member.name);
            unavailable.insert(member.name);
            given.insert(member.name.clone(), go_ahead(entry));
            reasons.insert(member.name.clone(), NodeWaiting::NotReported);
        } else {
            keep(&mut given);
            reasons.insert(
                member.name.clone(),
                NodeWaiting::Budget {
                    unavailable: 0,
                    max,
                },
            );
        }
    }
    for reason in reasons.values_mut() {
        if let NodeWaiting::Budget {
            unavailable: count, ..
        } = reason
        {
            *count = unavailable.len();
        }
    }
    Paced {
        given,
        waiting: reasons.into_iter().collect(),
        moving: moving.into_iter().cloned().collect(),
    }
}

fn go_ahead<E: Clone>(entry: &Assigned<E>) -> GoAhead<E> {
    GoAhead {
        revision: entry.revision.clone(),
        action: Action::Run,
        content: entry.content.clone(),
    }
}

/// Why nobody gets the revision any more, if so.
fn stop<E: PartialEq>(
    entry: &Assigned<E>,
    members: &[Member<'_, E>],
    expired: bool,
) -> Option<NodeWaiting> {
    let rejected = members
        .iter()
        .find(|member| member.rejected(&entry.revision).is_some());
    match rejected {
        Some(member) => Some(NodeWaiting::Stopped {
            revision: entry.revision.clone(),
            by: member.name.clone(),
        }),
        None if expired => Some(NodeWaiting::DeadlineExceeded {
            revision: entry.revision.clone(),
        }),
        None => None,
    }
}

/// What keeps a node from its go-ahead whatever the budget says.
///
/// A silent node gets none, unless it is on its way: then it holds its place already, and must not
/// go on to what is no longer wanted when it returns.
fn obstacle<E: PartialEq>(
    member: &Member<'_, E>,
    stop: Option<&NodeWaiting>,
) -> Option<NodeWaiting> {
    if let Some(stop) = stop {
        return Some(stop.clone());
    }
    if !member.node.alive && !member.moving() {
        return Some(NodeWaiting::Silent);
    }
    member.node.held.as_ref().map(|reason| NodeWaiting::Held {
        reason: reason.clone(),
    })
}

/// Why a node that has the entry is not done; none if it is.
fn on_its_way<E: PartialEq>(entry: &Assigned<E>, member: &Member<'_, E>) -> Option<NodeWaiting> {
    let revision = entry.revision.clone();
    if let Some(model) = member.rejected(&entry.revision) {
        return Some(NodeWaiting::Rejected {
            revision,
            reason: model.reason.clone(),
            message: model.message.clone(),
        });
    }
    if !member.node.alive {
        return Some(NodeWaiting::Silent);
    }
    let Some(model) = member.about_go_ahead().filter(|_| !member.unsettled()) else {
        return Some(NodeWaiting::NotReported);
    };
    match model.state {
        NodeState::Committed if model.serving => None,
        NodeState::Committed => Some(NodeWaiting::NotServing {
            revision,
            message: model.message.clone(),
        }),
        NodeState::Blocked => Some(NodeWaiting::Blocked {
            reason: model.reason.clone(),
            message: model.message.clone(),
        }),
        NodeState::Held => Some(NodeWaiting::Held {
            reason: model.message.clone(),
        }),
        NodeState::Removing => Some(NodeWaiting::Removing),
        NodeState::Pending | NodeState::Staging | NodeState::Trial | NodeState::Rejected => {
            Some(NodeWaiting::Updating {
                revision,
                state: model.state,
            })
        }
    }
}
