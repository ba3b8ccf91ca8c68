//! The plan of one cluster, put together entry by entry.
//!
//! Owns the order: remember → decide → sum up. Must never judge a node itself.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::decide;
use super::member::Member;
use super::progress::Remembered;
use super::removal;
use super::report::report;
use super::types::{Assigned, GoAhead, Hearing, Observed, Plan};
use crate::fleet::Action;
use crate::ids::{ModelKey, NodeName};
use crate::summary::Phase;
use crate::time::Timestamp;

/// Plans one cluster: who gets the go-ahead now, and what to report.
///
/// `now` may come from any clock, as long as `observed.progress` was made with the same one.
///
/// # Guarantees
/// - The same arguments give the same plan; planning again after applying gives the same nodes.
/// - For each entry, nodes that may have the order and are not known to be there never exceed its
///   `max_unavailable`, and no node that serves is put on its way when that many are unavailable already.
///   A node that was silent before its go-ahead counts in neither, and gets none.
/// - Once more nodes rejected the order, fell silent with it or ran out of time than `max_failures`, no
///   further node gets it.
/// - Each node that an entry selects stands in exactly one column of its report.
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
        listening: BTreeSet::new(),
        wake_at: None,
    };
    for (name, node) in &observed.nodes {
        for (key, present) in &node.entries {
            if !assigned.contains_key(key) {
                let member = Member::new(name, node, key, None);
                put(&mut plan, name, key, removal::vanished(&member, present));
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
        let leaving = removal::leaving(entry, &others);
        let mut waiting = Vec::new();
        for (member, decision) in &leaving {
            put(&mut plan, member.name, key, decision.go_ahead.clone());
            waiting.extend(decision.because.clone().map(|it| (member.name.clone(), it)));
        }
        if entry.action == Action::Run {
            let remembered = Remembered::new(entry, &members, before, now);
            let decisions = decide(key, entry, &members, &remembered);
            let report = report(entry, &decisions);
            let passed = report.phase == Phase::Passed && report.nodes.updated > 0;
            plan.report.insert(key.clone(), report);
            let from_memory = |it: &Member<'_, E>| it.node.hearing == Hearing::Unheard;
            if decisions.iter().any(|(member, _)| from_memory(member)) {
                plan.listening.insert(key.clone());
            }
            let (progress, ends) = remembered.next(entry, &decisions, passed, now);
            plan.progress.insert(key.clone(), progress);
            plan.wake_at = plan.wake_at.into_iter().chain(ends).min();
            for (member, decision) in decisions {
                put(&mut plan, member.name, key, decision.go_ahead);
                waiting.extend(decision.because.map(|it| (member.name.clone(), it)));
            }
        } else if leaving.iter().any(|(_, decision)| removal::open(decision)) {
            plan.report.insert(key.clone(), report(entry, &leaving));
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
