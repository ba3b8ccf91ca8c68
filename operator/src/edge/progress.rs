//! What of a session's progress a restart must not lose: by how much nodes used up their deadlines, who was
//! silent before an order came, and what this cluster was complete with.
//!
//! Owns the annotation on the mirror. It holds *seconds used*, not start times: clocks at the edge are
//! wrong, and a device that boots in 1970 and then hears the time must not fail a rollout. Time during
//! which no session ran is not counted (docs/adr/0065).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rimward_core::cluster::{Assigned, PASSED_MAX, Progress, Used};
use rimward_core::ids::{ModelKey, NodeName, RevisionName};
use rimward_core::time::Timestamp;
use rimward_crds::stored::stored_bytes;
use serde::{Deserialize, Serialize};

/// The annotation's key.
pub(crate) const ANNOTATION: &str = "rimward.dev/progress";

/// Longest annotation that is read or written, as it is stored: in JSON within JSON, where each of its quotes takes two
/// bytes. What would make it longer is left out, from what matters least.
pub(crate) const BYTES_MAX: usize = 128 * 1024;

/// Writes per deadline: what a crash can give back is this share of the deadline.
const CHECKPOINTS: u32 = 8;

/// What is kept of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Saved {
    revision: RevisionName,
    attempt: u32,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    used_seconds: BTreeMap<NodeName, u32>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    silent_before: BTreeSet<NodeName>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    passed: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    passed_before: Vec<RevisionName>,
}

/// Everything that is kept, by `namespace/name`.
pub(crate) type Ledger = BTreeMap<String, Saved>;

/// An order as it stood when a session began, and whether its status said that it was complete.
#[derive(Clone, Debug)]
pub(crate) struct Stood {
    pub(crate) revision: RevisionName,
    pub(crate) attempt: u32,
    pub(crate) passed: bool,
}

/// Reads the annotation. One that does not parse is empty: the deadlines start again.
pub(crate) fn read(annotation: Option<&str>) -> Ledger {
    annotation
        .filter(|text| stored_bytes(*text) <= BYTES_MAX)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Writes the annotation; none when there is nothing to keep.
pub(crate) fn write(ledger: &Ledger) -> Option<String> {
    let text = |ledger: &Ledger| {
        let text = serde_json::to_string(ledger).ok();
        text.filter(|text| stored_bytes(text) <= BYTES_MAX)
    };
    if ledger.is_empty() {
        return None;
    }
    if let Some(whole) = text(ledger) {
        return Some(whole);
    }
    let mut shorter = ledger.clone();
    shorter
        .values_mut()
        .for_each(|one| one.used_seconds.clear());
    if let Some(some) = text(&shorter) {
        return Some(some);
    }
    shorter
        .values_mut()
        .for_each(|one| one.silent_before.clear());
    text(&shorter)
}

/// Makes the planner's progress from what was kept and from the orders as they stood, as of `now`. Whom an
/// earlier session put on the way is not kept, so each of `nodes` may be.
pub(crate) fn restore(
    ledger: &Ledger,
    stood: &BTreeMap<ModelKey, Stood>,
    nodes: &BTreeSet<NodeName>,
    now: Timestamp,
) -> BTreeMap<ModelKey, Progress> {
    let kept = ledger.iter().filter_map(|(key, saved)| {
        let (namespace, name) = key.split_once('/')?;
        Some((ModelKey::parse(namespace, name).ok()?, saved))
    });
    let kept: BTreeMap<ModelKey, &Saved> = kept.collect();
    let fresh = |stood: &Stood| Progress {
        revision: stood.revision.clone(),
        attempt: stood.attempt,
        at: now,
        moving: nodes.clone(),
        used: BTreeMap::new(),
        silent_before: BTreeSet::new(),
        passed: stood.passed,
        passed_before: Vec::new(),
    };
    let mut all: BTreeMap<ModelKey, Progress> = stood
        .iter()
        .map(|(key, stood)| (key.clone(), fresh(stood)))
        .collect();
    for (key, saved) in kept {
        // The assignment may have gone on since, where hub and edge are one cluster: what is kept tells
        // the order before.
        let said = stood
            .get(&key)
            .filter(|stood| stood.revision == saved.revision);
        let used = |(name, seconds): (&NodeName, &u32)| {
            let used = Used {
                seconds: *seconds,
                running: false,
            };
            (name.clone(), used)
        };
        let progress = Progress {
            revision: saved.revision.clone(),
            attempt: saved.attempt,
            at: now,
            moving: nodes.clone(),
            used: saved.used_seconds.iter().map(used).collect(),
            silent_before: saved.silent_before.clone(),
            passed: saved.passed || said.is_some_and(|stood| stood.passed),
            passed_before: saved
                .passed_before
                .iter()
                .take(PASSED_MAX)
                .cloned()
                .collect(),
        };
        all.insert(key, progress);
    }
    all
}

/// What shall be kept now, if it differs enough from what is kept to be worth a write.
pub(crate) fn due<E>(
    kept: &Ledger,
    progress: &BTreeMap<ModelKey, Progress>,
    assigned: &BTreeMap<ModelKey, Assigned<E>>,
) -> Option<Ledger> {
    let mut next = Ledger::new();
    let mut worth_it = false;
    for (key, one) in progress {
        let Some(entry) = assigned.get(key) else {
            continue;
        };
        let name = key.to_string();
        let before = kept
            .get(&name)
            .filter(|kept| kept.revision == one.revision && kept.attempt == one.attempt);
        let used = used_seconds(one, entry);
        let Some(before) = before else {
            let saved = saved(one, used);
            let something = !saved.silent_before.is_empty() || !saved.passed_before.is_empty();
            if something || is_ahead(&saved.used_seconds, &BTreeMap::new(), entry) {
                worth_it = true;
                next.insert(name, saved);
            }
            continue;
        };
        let same = before.silent_before == one.silent_before
            && before.passed_before == one.passed_before
            && before
                .used_seconds
                .keys()
                .all(|node| used.contains_key(node));
        let saved = saved(one, used);
        worth_it |= !same || is_ahead(&saved.used_seconds, &before.used_seconds, entry);
        let empty = saved.used_seconds.is_empty()
            && saved.silent_before.is_empty()
            && saved.passed_before.is_empty();
        if !empty {
            next.insert(name, saved);
        }
    }
    // What is over must go: the same order, given again later, starts its own time.
    worth_it |= kept.keys().any(|key| !next.contains_key(key));
    worth_it.then_some(next)
}

/// How long until something may be worth keeping.
pub(crate) fn next_checkpoint<E>(
    progress: &BTreeMap<ModelKey, Progress>,
    assigned: &BTreeMap<ModelKey, Assigned<E>>,
) -> Option<Duration> {
    progress
        .iter()
        .filter(|(_, one)| one.used.values().any(|used| used.running))
        .filter_map(|(key, _)| assigned.get(key))
        .map(|entry| Duration::from_secs(step_seconds(entry).into()))
        .min()
}

fn saved(progress: &Progress, used_seconds: BTreeMap<NodeName, u32>) -> Saved {
    Saved {
        revision: progress.revision.clone(),
        attempt: progress.attempt,
        used_seconds,
        silent_before: progress.silent_before.clone(),
        passed: progress.passed,
        passed_before: progress.passed_before.clone(),
    }
}

/// What nodes used up, as far as it is worth anything; past the deadline it does not matter by how much.
fn used_seconds<E>(progress: &Progress, entry: &Assigned<E>) -> BTreeMap<NodeName, u32> {
    let used = progress.used.iter().filter(|(_, used)| used.seconds > 0);
    let used = used.map(|(name, used)| {
        let seconds = used.seconds.min(entry.progress_deadline_seconds);
        (name.clone(), seconds)
    });
    used.collect()
}

/// Some node used up another share of its deadline, or the rest of it.
fn is_ahead<E>(
    now: &BTreeMap<NodeName, u32>,
    before: &BTreeMap<NodeName, u32>,
    entry: &Assigned<E>,
) -> bool {
    let deadline = entry.progress_deadline_seconds;
    now.iter().any(|(name, seconds)| {
        let before = before.get(name).copied().unwrap_or(0);
        *seconds >= before.saturating_add(step_seconds(entry))
            || *seconds >= deadline && before < deadline
    })
}

fn step_seconds<E>(entry: &Assigned<E>) -> u32 {
    (entry.progress_deadline_seconds / CHECKPOINTS).max(1)
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
