//! The plan of one cluster, put together entry by entry.
//!
//! Owns what happens to entries that are removed, and to nodes that an entry no longer selects.

use std::collections::BTreeMap;

use super::member::Member;
use super::pacing::{Paced, pace};
use super::progress::progress;
use super::report::{counts, report};
use super::types::{Assigned, GoAhead, Observed, Plan};
use super::waiting::NodeWaiting;
use crate::fleet::Action;
use crate::ids::{ModelKey, NodeName};
use crate::time::Timestamp;

/// Plans one cluster: who gets the go-ahead now, and what to report.
///
/// `now` may come from any clock, as long as `observed.progress` was made with the same one.
///
/// # Guarantees
/// - The same arguments give the same plan; planning again after applying gives the same nodes.
/// - For each entry, nodes on their way never exceed its `max_unavailable`, and no node that serves is
///   put on its way when that many are unavailable already.
/// - After one rejection, or past the deadline, no further node gets the revision.
/// - An entry that merely vanished is no order: nodes keep what they run. Removal is an order
///   ([`Action::Remove`]), and only once every node that answers has confirmed it is the entry
///   left out of the report.
#[must_use]
pub fn plan<E: Clone + PartialEq>(
    assigned: &BTreeMap<ModelKey, Assigned<E>>,
    observed: &Observed<E>,
    now: Timestamp,
) -> Plan<E> {
    let mut plan = Plan {
        nodes: observed
            .nodes
            .keys()
            .map(|name| (name.clone(), BTreeMap::new()))
            .collect(),
        report: BTreeMap::new(),
        progress: BTreeMap::new(),
        waiting: BTreeMap::new(),
        wake_at: None,
    };
    for (name, node) in &observed.nodes {
        for (key, present) in &node.entries {
            if !assigned.contains_key(key) {
                let member = Member::new(name, node, key, None);
                put(&mut plan, name, key, vanished(&member, present));
            }
        }
    }
    for (key, entry) in assigned {
        let before = observed.progress.get(key);
        let (members, others): (Vec<_>, Vec<_>) = observed
            .nodes
            .iter()
            .map(|(name, node)| Member::new(name, node, key, before))
            .partition(|it| entry.action == Action::Run && entry.nodes.matches(&it.node.labels));
        let mut waiting = remove_from(&mut plan, key, entry, &others);
        if entry.action == Action::Run {
            let sums = counts(entry, &members);
            let (mut progress, ends) = progress(entry, observed.progress.get(key), &sums, now);
            let Paced {
                given,
                waiting: reasons,
                moving,
            } = pace(entry, &members, progress.expired);
            for (name, go_ahead) in given {
                put(&mut plan, &name, key, Some(go_ahead));
            }
            waiting.extend(reasons);
            progress.moving = moving;
            plan.report
                .insert(key.clone(), report(entry, &members, progress.expired));
            plan.progress.insert(key.clone(), progress);
            plan.wake_at = plan.wake_at.into_iter().chain(ends).min();
        } else if others
            .iter()
            .any(|it| unheard(it) || (concerned(it) && !gone(it)))
        {
            plan.report
                .insert(key.clone(), report(entry, &others_with(&others), false));
        }
        waiting.sort_by(|(one, _), (other, _)| one.cmp(other));
        plan.waiting.insert(key.clone(), waiting);
    }
    plan
}

fn put<E>(plan: &mut Plan<E>, node: &NodeName, key: &ModelKey, entry: Option<GoAhead<E>>) {
    if let Some(entry) = entry {
        plan.nodes
            .entry(node.clone())
            .or_default()
            .insert(key.clone(), entry);
    }
}

/// A node's entry that the assignment does not have: kept, unless its removal is confirmed.
fn vanished<E: Clone + PartialEq>(
    member: &Member<'_, E>,
    present: &GoAhead<E>,
) -> Option<GoAhead<E>> {
    let done = present.action == Action::Remove && member.removal_confirmed();
    (!done).then(|| present.clone())
}

/// The node has something of the model, as far as is known.
fn concerned<E>(member: &Member<'_, E>) -> bool {
    member.go_ahead.is_some() || member.last.is_some()
}

/// It answers, but has not said yet what it has: after its object was made anew, that may be anything.
fn unheard<E>(member: &Member<'_, E>) -> bool {
    member.node.alive && member.node.report.is_none()
}

/// Nothing more is to be waited for: the removal was ordered, and confirmed unless the node is silent.
fn gone<E: PartialEq>(member: &Member<'_, E>) -> bool {
    let ordered = member
        .go_ahead
        .is_none_or(|given| given.action == Action::Remove);
    ordered && (member.removal_confirmed() || !member.node.alive)
}

fn others_with<'a, E: PartialEq>(others: &[Member<'a, E>]) -> Vec<Member<'a, E>> {
    others
        .iter()
        .filter(|member| concerned(member))
        .copied()
        .collect()
}

/// Orders the removal on nodes that shall not have the model; forgets it once they confirm.
fn remove_from<E: Clone + PartialEq>(
    plan: &mut Plan<E>,
    key: &ModelKey,
    entry: &Assigned<E>,
    others: &[Member<'_, E>],
) -> Vec<(NodeName, NodeWaiting)> {
    let mut waiting = Vec::new();
    if entry.action == Action::Remove {
        let unheard = others.iter().filter(|it| unheard(it) && !concerned(it));
        waiting.extend(unheard.map(|it| (it.name.clone(), NodeWaiting::NotReported)));
    }
    for member in others.iter().filter(|member| concerned(member)) {
        if member.node.alive && gone(member) {
            continue;
        }
        let order = match member.go_ahead {
            Some(given) => GoAhead {
                action: Action::Remove,
                ..given.clone()
            },
            None => GoAhead {
                revision: entry.revision.clone(),
                action: Action::Remove,
                content: entry.content.clone(),
            },
        };
        put(plan, member.name, key, Some(order));
        waiting.push((member.name.clone(), NodeWaiting::Removing));
    }
    waiting
}
