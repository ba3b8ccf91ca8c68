//! How large a cluster's status may be, and what is left unsaid when it would be larger.
//!
//! Owns the share of the status in the whole object, which etcd refuses from 1.5 MiB on: a status that does not fit would
//! leave the hub with the one before it, for ever. Words go, the least severe first; counts and verdicts never do, since
//! the hub decides by them. Pure: of one status it always leaves the same.

use rimward_core::fleet::ENTRIES_BYTES_MAX;
use rimward_crds::stored::{OBJECT_BYTES_MAX, stored_bytes};
use rimward_crds::{AssignedModelStatus, ClusterAssignmentStatus, NodeProblem, VerdictPhase};

use super::progress;

/// Bytes of the status as it is stored.
///
/// The whole object: 640 KiB of entries (the hub's budget) + 512 KiB of status + 128 KiB of progress, which stands in an
/// annotation of the mirror + 192 KiB of all else = 1472 KiB, where etcd takes 1536. 256 entries without any problem take
/// at most 250 KiB.
pub(crate) const STATUS_BYTES_MAX: usize = 512 * 1024;

/// Bytes of the rest: names, and the managed fields of four managers for 256 entries (the items of both lists are atomic,
/// so that an entry is one field of at most 170 bytes), brackets and commas.
const METADATA_BYTES_MAX: usize = 192 * 1024;

const _: () = assert!(
    ENTRIES_BYTES_MAX as usize + STATUS_BYTES_MAX + progress::BYTES_MAX + METADATA_BYTES_MAX
        <= OBJECT_BYTES_MAX
);

/// Characters that are left of a problem's words at first: enough for their beginning.
const WORDS_CHARS: usize = 96;

/// What is taken from a problem, from mild to harsh.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cut {
    /// The end of its words.
    Shorter,
    /// Its words; node and reason stay.
    Silent,
    /// The problem as a whole; the counts still tell of it.
    Whole,
}

/// The status, with as many words as the budget has room for.
pub(crate) fn fit(status: ClusterAssignmentStatus) -> ClusterAssignmentStatus {
    within(status, STATUS_BYTES_MAX)
}

fn within(mut status: ClusterAssignmentStatus, bytes_max: usize) -> ClusterAssignmentStatus {
    let mut bytes = stored_bytes(&status);
    if bytes <= bytes_max {
        return status;
    }
    for cut in [Cut::Shorter, Cut::Silent, Cut::Whole] {
        for (model, place) in mildest_first(&status.models) {
            let Some(model) = status.models.get_mut(model) else {
                continue;
            };
            bytes = bytes.saturating_sub(saved(model, place, cut));
            if bytes <= bytes_max {
                return status;
            }
        }
    }
    status
}

/// Every problem's place, by model and index: the last of each model first, since they stand worst first, and of one
/// place those of models that fare best.
fn mildest_first(models: &[AssignedModelStatus]) -> Vec<(usize, usize)> {
    let mut all: Vec<_> = models
        .iter()
        .enumerate()
        .flat_map(|(at, model)| (0..model.problems.len()).map(move |place| (at, place)))
        .collect();
    let gravity = |at: usize| models.get(at).map(|model| gravity(model.verdict.phase));
    all.sort_by_key(|(at, place)| (std::cmp::Reverse(*place), gravity(*at), *at));
    all
}

/// How bad a model's phase is, from fine to bad.
const fn gravity(phase: VerdictPhase) -> u8 {
    match phase {
        VerdictPhase::Passed => 0,
        VerdictPhase::Pending | VerdictPhase::Staging | VerdictPhase::Trial => 1,
        VerdictPhase::Held => 2,
        VerdictPhase::TimedOut => 3,
        VerdictPhase::Failed => 4,
    }
}

/// Cuts one problem, and says how many bytes that saves.
fn saved(model: &mut AssignedModelStatus, place: usize, cut: Cut) -> usize {
    if cut == Cut::Whole {
        // Cut from the end only: what stands before stays where it is.
        let before = stored_bytes(&model.problems);
        model.problems.truncate(place);
        return before.saturating_sub(stored_bytes(&model.problems));
    }
    let Some(problem) = model.problems.get_mut(place) else {
        return 0;
    };
    let before = stored_bytes(problem);
    let NodeProblem {
        node: _,
        reason: _,
        message,
    } = problem;
    match cut {
        Cut::Shorter if message.chars().count() > WORDS_CHARS => {
            *message = message.chars().take(WORDS_CHARS - 1).chain(['…']).collect();
        }
        Cut::Silent => message.clear(),
        Cut::Shorter | Cut::Whole => {}
    }
    before.saturating_sub(stored_bytes(problem))
}

#[cfg(test)]
#[path = "status_budget_tests.rs"]
mod tests;
