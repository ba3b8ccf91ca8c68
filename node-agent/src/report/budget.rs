//! How large a node's status may be, and what is left unsaid when it would be larger.
//!
//! Owns the share of the status in the whole EdgeNode, which etcd refuses from 1.5 MiB on: 640 KiB of orders (a subset of
//! an assignment's entries, by the hub's budget) + 640 KiB of status + 192 KiB of names and managed fields. Words go, the
//! least severe first; states and verdicts never do. Pure: of one status it always leaves the same.

use rimward_crds::stored::stored_bytes;
use rimward_crds::{NodeModelState, NodeModelStatus};

/// Bytes of the entries as they are stored. 256 of them without any words take at most 350 KiB.
const MODELS_BYTES_MAX: usize = 640 * 1024;

/// Characters that are left of an entry's words at first: enough for their beginning.
const WORDS_CHARS: usize = 96;

/// The entries, with as many words as the budget has room for.
pub(super) fn fit(models: Vec<NodeModelStatus>) -> Vec<NodeModelStatus> {
    within(models, MODELS_BYTES_MAX)
}

fn within(mut models: Vec<NodeModelStatus>, bytes_max: usize) -> Vec<NodeModelStatus> {
    let mut bytes = stored_bytes(&models);
    let mut order: Vec<_> = (0..models.len()).collect();
    order.sort_by_key(|at| models.get(*at).map(|model| gravity(model.state)));
    for left_chars in [WORDS_CHARS, 0] {
        for at in &order {
            if bytes <= bytes_max {
                return models;
            }
            if let Some(words) = models.get_mut(*at).and_then(|model| model.message.as_mut()) {
                bytes = bytes.saturating_sub(shortened(words, left_chars));
            }
        }
    }
    models
}

/// How bad a state is, from fine to bad.
const fn gravity(state: NodeModelState) -> u8 {
    match state {
        NodeModelState::Committed | NodeModelState::Removed => 0,
        NodeModelState::Pending
        | NodeModelState::Staging
        | NodeModelState::Preflight
        | NodeModelState::Trial => 1,
        NodeModelState::Held => 2,
        NodeModelState::Blocked => 3,
        NodeModelState::RolledBack => 4,
        NodeModelState::Rejected => 5,
    }
}

/// Shortens the words, and says how many bytes that saves.
fn shortened(words: &mut String, chars_max: usize) -> usize {
    if words.chars().count() <= chars_max {
        return 0;
    }
    let before = stored_bytes(words.as_str());
    *words = match chars_max.checked_sub(1) {
        Some(kept) => words.chars().take(kept).chain(['…']).collect(),
        None => String::new(),
    };
    before.saturating_sub(stored_bytes(words.as_str()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(number: usize, state: NodeModelState, words: &str) -> NodeModelStatus {
        let name = |length: usize| Some(format!("{number:0length$}"));
        NodeModelStatus {
            namespace: name(63).unwrap(),
            name: name(52).unwrap(),
            revision: name(63),
            attempt: u32::MAX,
            state,
            reason: name(64),
            message: Some(words.to_owned()),
            serving_revision: name(63),
            variant: name(63),
            backend: name(128),
            endpoint: name(256),
            last_good_revision: name(63),
            verdict: Some(rimward_crds::NodeModelVerdict {
                samples: i64::MAX,
                errors: i64::MAX,
                latency_p99_microseconds: i64::MAX,
            }),
        }
    }

    #[test]
    fn the_largest_status_of_a_node_fits_and_no_state_is_lost() {
        for words in ["<".repeat(512), "w".repeat(512), String::new()] {
            let models = (0..256).map(|number| entry(number, NodeModelState::Rejected, &words));
            let models = fit(models.collect());
            assert!(stored_bytes(&models) <= MODELS_BYTES_MAX);
            assert_eq!(models.len(), 256);
            let states = models.iter().map(|model| model.state);
            assert!(states.into_iter().all(|it| it == NodeModelState::Rejected));
        }
    }

    #[test]
    fn the_words_of_what_is_well_go_first_and_what_fits_is_left_alone() {
        let words = "w".repeat(400);
        let models = vec![
            entry(1, NodeModelState::Rejected, &words),
            entry(2, NodeModelState::Blocked, &words),
        ];
        let check = |less_bytes: usize, expected: [usize; 2]| {
            let bytes_max = stored_bytes(&models) - less_bytes;
            let left = within(models.clone(), bytes_max);
            assert!(stored_bytes(&left) <= bytes_max);
            let said = |at: usize| left[at].message.as_deref().unwrap_or_default();
            assert_eq!([0, 1].map(|at| said(at).chars().count()), expected);
            assert_eq!(within(left.clone(), bytes_max), left);
        };
        check(0, [400, 400]);
        check(1, [400, 96]);
        check(400, [96, 96]);
        check(650, [96, 0]);
        check(790, [0, 0]);
    }
}
