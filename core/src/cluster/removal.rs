//! What happens to an entry's nodes that shall not have it (any more), and to entries that vanished.
//!
//! Owns that nothing blocks a removal, and that none is inferred from an absence.

use super::decide::Decision;
use super::member::Member;
use super::types::{Assigned, GoAhead};
use super::waiting::NodeWaiting;
use crate::fleet::Action;

/// A node's entry that the assignment does not have: kept, unless its removal is confirmed.
pub(super) fn vanished<E: Clone + PartialEq>(
    member: &Member<'_, E>,
    present: &GoAhead<E>,
) -> Option<GoAhead<E>> {
    let done = present.action == Action::Remove && member.removal_confirmed();
    (!done).then(|| present.clone())
}

/// Orders the removal on nodes that shall not have the model; forgets it once they confirm.
///
/// Silent ones are told as well: they must not go on with it when they return.
pub(super) fn leaving<'a, E: Clone + PartialEq>(
    entry: &Assigned<E>,
    others: &[Member<'a, E>],
) -> Vec<(Member<'a, E>, Decision<E>)> {
    let one = |member: &Member<'a, E>| {
        let decision = |go_ahead, because| Decision {
            go_ahead,
            given: false,
            because: Some(because),
        };
        if !member.concerned() {
            // After its object was made anew it may have anything, until it has said what.
            let unreported = !member.silent() && member.node.report.is_none();
            let asked = unreported && entry.action == Action::Remove;
            return asked.then(|| (*member, decision(None, NodeWaiting::NotReported)));
        }
        if !member.silent() && gone(member) {
            return None;
        }
        let order = match member.go_ahead {
            Some(given) => GoAhead {
                action: Action::Remove,
                ..given.clone()
            },
            None => GoAhead {
                revision: entry.revision.clone(),
                attempt: entry.attempt,
                forget_verdicts_before: entry.forget_verdicts_before,
                action: Action::Remove,
                content: entry.content.clone(),
            },
        };
        let silent = member.silent() && gone(member);
        Some((
            *member,
            decision(Some(order), NodeWaiting::Removing { silent }),
        ))
    };
    others.iter().filter_map(one).collect()
}

/// Its removal is still to be waited for.
pub(super) const fn open<E>(decision: &Decision<E>) -> bool {
    !matches!(
        decision.because,
        Some(NodeWaiting::Removing { silent: true })
    )
}

/// Nothing more is to be waited for: the removal was ordered, and confirmed unless the node is silent.
fn gone<E: PartialEq>(member: &Member<'_, E>) -> bool {
    let ordered = member
        .go_ahead
        .is_none_or(|given| given.action == Action::Remove);
    ordered && (member.removal_confirmed() || member.silent())
}
