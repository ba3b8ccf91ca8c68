//! How far an entry's nodes are from one plan to the next, and how much of its deadline each used up.
//!
//! Owns the counting of *heard* seconds: on the edge, since the hub may be away for days. What runs out
//! is one node's time from its go-ahead. Must never judge a node.

use std::collections::{BTreeMap, BTreeSet};

use super::decide::Decision;
use super::member::Member;
use super::types::{Assigned, Hearing, PASSED_MAX, Progress, Used};
use super::waiting::NodeWaiting;
use crate::ids::{NodeName, RevisionName};
use crate::time::Timestamp;

/// The longest time between two plans that counts, in seconds: whoever plans more rarely has not
/// listened in between. A plan asks to be made again within it while any deadline runs.
const LISTENED_SECONDS_MAX: u32 = 60;

/// What an earlier plan left, as of now.
#[derive(Debug, Default)]
pub(super) struct Remembered {
    used_seconds: BTreeMap<NodeName, u32>,
    silent_before: BTreeSet<NodeName>,
    passed: bool,
    passed_before: Vec<RevisionName>,
}

impl Remembered {
    /// Brings `before` up to `now`. A record of another order says only who was silent before this one,
    /// and whether that one was complete here.
    pub(super) fn new<E: PartialEq>(
        entry: &Assigned<E>,
        members: &[Member<'_, E>],
        before: Option<&Progress>,
        now: Timestamp,
    ) -> Self {
        let Some(before) = before else {
            return Self::default();
        };
        let unheard = |member: &&Member<'_, E>| {
            member.node.hearing != Hearing::Heard && member.exposed(entry)
        };
        let names = members.iter().filter(unheard).map(|member| member.name);
        if before.revision != entry.revision || before.attempt != entry.attempt {
            let last = before.passed.then_some(&before.revision);
            let earlier = before.passed_before.iter();
            let earlier = earlier.filter(|revision| Some(*revision) != last);
            return Self {
                used_seconds: BTreeMap::new(),
                silent_before: names.cloned().collect(),
                passed: false,
                passed_before: last
                    .into_iter()
                    .chain(earlier)
                    .take(PASSED_MAX)
                    .cloned()
                    .collect(),
            };
        }
        let passed = u32::try_from(now.seconds_since(before.at))
            .unwrap_or(u32::MAX)
            .min(LISTENED_SECONDS_MAX);
        let up_to_now = |(name, used): (&NodeName, &Used)| {
            let passed = if used.running { passed } else { 0 };
            (name.clone(), used.seconds.saturating_add(passed))
        };
        Self {
            used_seconds: before.used.iter().map(up_to_now).collect(),
            silent_before: names
                .filter(|name| before.silent_before.contains(*name))
                .cloned()
                .collect(),
            passed: before.passed,
            passed_before: before.passed_before.clone(),
        }
    }

    /// The order goes back to what this cluster was complete with before.
    pub(super) fn goes_back<E>(&self, entry: &Assigned<E>) -> bool {
        self.passed_before.contains(&entry.revision)
    }

    /// Its time is over.
    pub(super) fn late<E>(&self, entry: &Assigned<E>, name: &NodeName) -> bool {
        self.used_seconds(name) >= entry.progress_deadline_seconds
    }

    /// It was silent already when the entry came to this order.
    pub(super) fn silent_before(&self, name: &NodeName) -> bool {
        self.silent_before.contains(name)
    }

    fn used_seconds(&self, name: &NodeName) -> u32 {
        self.used_seconds.get(name).copied().unwrap_or(0)
    }

    /// What to hand to the next plan, and when to make it at the latest.
    pub(super) fn next<E: PartialEq>(
        self,
        entry: &Assigned<E>,
        decisions: &[(Member<'_, E>, Decision<E>)],
        passed: bool,
        now: Timestamp,
    ) -> (Progress, Option<Timestamp>) {
        let mut used = BTreeMap::new();
        let mut wake_at: Option<Timestamp> = None;
        let mut moving = BTreeSet::new();
        for (member, decision) in decisions {
            if decision.given || member.moving() {
                moving.insert(member.name.clone());
            }
            let Some(because) = decision.because.as_ref().filter(|_| decision.has(entry)) else {
                continue;
            };
            if matches!(
                because,
                NodeWaiting::Rejected { .. } | NodeWaiting::NotServing { .. }
            ) {
                continue;
            }
            // A node that gets its go-ahead begins anew, whatever a namesake of it has used up.
            let before = self.used_seconds(member.name);
            let seconds = if decision.given { 0 } else { before };
            let running = because.spends_time();
            if running {
                let left = entry.progress_deadline_seconds.saturating_sub(seconds);
                let at = now.plus_seconds(left.min(LISTENED_SECONDS_MAX));
                wake_at = Some(wake_at.map_or(at, |other| other.min(at)));
            }
            used.insert(member.name.clone(), Used { seconds, running });
        }
        let progress = Progress {
            revision: entry.revision.clone(),
            attempt: entry.attempt,
            at: now,
            moving,
            used,
            silent_before: self.silent_before,
            passed: self.passed || passed,
            passed_before: self.passed_before,
        };
        (progress, wake_at)
    }
}
