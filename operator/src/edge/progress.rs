//! How much of its progress deadline each entry has used up, so that a restart does not give it back.
//!
//! Owns the annotation on the mirror. It holds *seconds used*, not start times: clocks at the edge are
//! wrong, and a device that boots in 1970 and then hears the time must not fail a rollout. Time during
//! which no session ran is not counted (docs/adr/0031).

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use rimward_core::cluster::{Assigned, Progress};
use rimward_core::ids::{ModelKey, NodeName, RevisionName};
use rimward_core::time::Timestamp;
use serde::{Deserialize, Serialize};

/// The annotation's key.
pub(crate) const ANNOTATION: &str = "rimward.dev/progress";

/// Longest annotation that is read: 256 entries of the longest names take less.
const BYTES_MAX: usize = 128 * 1024;

/// Writes per deadline: what a crash can give back is this share of the deadline.
const CHECKPOINTS: u32 = 8;

/// What is kept of one entry.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Saved {
    revision: RevisionName,
    updated: u32,
    used_seconds: u64,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    expired: bool,
}

/// Everything that is kept, by `namespace/name`.
pub(crate) type Ledger = BTreeMap<String, Saved>;

/// Reads the annotation. One that does not parse is empty: the deadlines start again.
pub(crate) fn read(annotation: Option<&str>) -> Ledger {
    annotation
        .filter(|text| text.len() <= BYTES_MAX)
        .and_then(|text| serde_json::from_str(text).ok())
        .unwrap_or_default()
}

/// Writes the annotation; none when there is nothing to keep.
pub(crate) fn write(ledger: &Ledger) -> Option<String> {
    if ledger.is_empty() {
        return None;
    }
    serde_json::to_string(ledger).ok()
}

/// Makes the planner's progress from what was kept, as of `now`. Whom an earlier session put on the way
/// is not kept, so each of `nodes` may be.
pub(crate) fn restore(
    ledger: &Ledger,
    nodes: &BTreeSet<NodeName>,
    now: Timestamp,
) -> BTreeMap<ModelKey, Progress> {
    let one = |(key, saved): (&String, &Saved)| {
        let (namespace, name) = key.split_once('/')?;
        let used = i64::try_from(saved.used_seconds).ok()?;
        let progress = Progress {
            revision: saved.revision.clone(),
            updated: saved.updated,
            resting: false,
            since: Timestamp(now.0.saturating_sub(used)),
            expired: saved.expired,
            moving: nodes.clone(),
        };
        Some((ModelKey::parse(namespace, name).ok()?, progress))
    };
    ledger.iter().filter_map(one).collect()
}

/// What shall be kept now, if it differs enough from what is kept to be worth a write.
/// An entry that rests is not kept: its time does not run.
pub(crate) fn due<E>(
    kept: &Ledger,
    progress: &BTreeMap<ModelKey, Progress>,
    assigned: &BTreeMap<ModelKey, Assigned<E>>,
    now: Timestamp,
) -> Option<Ledger> {
    let mut next = Ledger::new();
    let mut worth_it = false;
    for (key, one) in progress {
        let Some(entry) = assigned.get(key) else {
            continue;
        };
        let used_seconds = now.seconds_since(one.since);
        let step = step_seconds(entry);
        if !one.expired && (one.resting || used_seconds < step) {
            continue;
        }
        let name = key.to_string();
        let before = kept
            .get(&name)
            .filter(|kept| kept.revision == one.revision && kept.updated == one.updated);
        let unchanged = before.filter(|kept| {
            kept.expired == one.expired
                && (one.expired || used_seconds < kept.used_seconds.saturating_add(step))
        });
        let saved = unchanged.cloned().unwrap_or_else(|| {
            worth_it = true;
            Saved {
                revision: one.revision.clone(),
                updated: one.updated,
                used_seconds,
                expired: one.expired,
            }
        });
        next.insert(name, saved);
    }
    // What is over must go: the same revision, ordered again later, starts its own time.
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
        .filter(|(_, one)| !one.expired && !one.resting)
        .filter_map(|(key, _)| assigned.get(key))
        .map(|entry| Duration::from_secs(step_seconds(entry)))
        .min()
}

fn step_seconds<E>(entry: &Assigned<E>) -> u64 {
    u64::from((entry.progress_deadline_seconds / CHECKPOINTS).max(1))
}

#[cfg(test)]
#[path = "progress_tests.rs"]
mod tests;
