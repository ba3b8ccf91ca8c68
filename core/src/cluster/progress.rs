//! An entry's progress deadline, measured on the edge: the hub may be away for days.
//!
//! Owns when it runs and when it has run out. A hold is not a failure: the deadline rests while only
//! held nodes are left.

use std::collections::BTreeSet;

use super::types::{Assigned, Progress};
use crate::summary::Counts;
use crate::time::Timestamp;

/// The entry's progress after what was seen (who is on the way is the pacing's to say), and when its deadline runs out, if it runs.
pub(super) fn progress<E>(
    entry: &Assigned<E>,
    before: Option<&Progress>,
    nodes: &Counts,
    now: Timestamp,
) -> (Progress, Option<Timestamp>) {
    let answering = nodes.desired.saturating_sub(nodes.silent);
    let only_held = nodes.held > 0 && nodes.updated.saturating_add(nodes.held) >= answering;
    let resting = nodes.complete() || only_held;
    let before = before.filter(|before| before.revision == entry.revision);
    let unchanged = before
        .filter(|before| before.updated == nodes.updated && before.resting == resting)
        // A clock that was set back must not make the deadline longer than it is.
        .filter(|before| before.since <= now);
    let since = unchanged.map_or(now, |before| before.since);
    let ends = since.plus_seconds(entry.progress_deadline_seconds);
    let expired = !nodes.complete()
        && (before.is_some_and(|before| before.expired) || !resting && now >= ends);
    let next = Progress {
        revision: entry.revision.clone(),
        updated: nodes.updated,
        resting,
        since,
        expired,
        moving: BTreeSet::new(),
    };
    (next, (!resting && !expired).then_some(ends))
}
