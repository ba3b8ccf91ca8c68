//! One model on one node: what can be said of it from the last observation.
//!
//! Owns the meaning of *moving*, *exposed*, *committed* and *rejected* for nodes. A report older than
//! the node's spec is believed only of nodes that no plan has put on their way since: so another
//! model's go-ahead does not make this one's numbers flicker, and an old report never ends a new wait.
//! Decides nothing.

use super::types::{Assigned, GoAhead, Hearing, Node, NodeModel, NodeState, Progress};
use crate::fleet::Action;
use crate::ids::{ModelKey, NodeName, RevisionName};

/// A model's view of one node.
#[derive(Debug)]
pub(super) struct Member<'a, E> {
    pub(super) name: &'a NodeName,
    pub(super) node: &'a Node<E>,
    pub(super) go_ahead: Option<&'a GoAhead<E>>,
    /// Go-aheads that may have left instead.
    maybe: &'a [GoAhead<E>],
    /// The last report on the model, whatever it is about.
    pub(super) last: Option<&'a NodeModel>,
    fresh: bool,
    /// A stale report says nothing: it may be from before the go-ahead that it should be about.
    unsettled: bool,
}

impl<E> Clone for Member<'_, E> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<E> Copy for Member<'_, E> {}

impl<'a, E: PartialEq> Member<'a, E> {
    /// `before` is what an earlier plan remembers; none when that was forgotten.
    pub(super) fn new(
        name: &'a NodeName,
        node: &'a Node<E>,
        key: &ModelKey,
        before: Option<&Progress>,
    ) -> Self {
        let report = node.report.as_ref();
        let fresh = report.is_some_and(|report| report.observed_generation == node.generation);
        let maybe = node.maybe.get(key).map_or(&[][..], Vec::as_slice);
        let remembered = before.is_none_or(|it| it.moving.contains(name));
        Self {
            name,
            node,
            go_ahead: node.entries.get(key),
            maybe,
            last: report.and_then(|report| report.models.get(key)),
            fresh,
            unsettled: maybe.iter().any(runs) || !fresh && remembered,
        }
    }

    fn given(&self) -> Option<&'a GoAhead<E>> {
        self.go_ahead.filter(|given| runs(given))
    }

    pub(super) fn heard(&self) -> bool {
        self.node.hearing == Hearing::Heard
    }

    pub(super) fn silent(&self) -> bool {
        self.node.hearing == Hearing::Silent
    }

    /// The last report, if it is about the revision of the go-ahead, and of no other attempt unless
    /// the attempt does not matter any more.
    pub(super) fn about_go_ahead(&self) -> Option<&'a NodeModel> {
        let given = self.given()?;
        self.last.filter(|model| {
            model.revision == given.revision
                && (model.attempt == given.attempt || is_over(model, given.forget_verdicts_before))
        })
    }

    /// What it says of its go-ahead, if that report cannot be from before it.
    pub(super) fn answer(&self) -> Option<&'a NodeModel> {
        self.about_go_ahead().filter(|_| !self.unsettled)
    }

    /// It was told to run the entry's revision with the entry's content, under whatever attempt.
    pub(super) fn has_content(&self, entry: &Assigned<E>) -> bool {
        self.given()
            .is_some_and(|given| given.revision == entry.revision && given.content == entry.content)
    }

    /// Its go-ahead is exactly the entry.
    pub(super) fn has(&self, entry: &Assigned<E>) -> bool {
        self.go_ahead.is_some_and(|given| given.is(entry))
    }

    /// The order (revision and attempt) may have reached it, and no later word says that it was taken
    /// back: an order to remove it that is not confirmed leaves it exposed.
    pub(super) fn exposed(&self, entry: &Assigned<E>) -> bool {
        let order = |it: &GoAhead<E>| it.revision == entry.revision && it.attempt == entry.attempt;
        let taken_back = |it: &GoAhead<E>| it.action == Action::Remove && self.removal_confirmed();
        self.maybe.iter().any(|it| runs(it) && order(it))
            || self.go_ahead.is_some_and(|it| order(it) && !taken_back(it))
    }

    /// It was given something to run and is, for all we know, not yet there.
    pub(super) fn moving(&self) -> bool {
        let Some(given) = self.given() else {
            return self.maybe.iter().any(runs);
        };
        let over = |model: &NodeModel| is_over(model, given.forget_verdicts_before);
        !self.answer().is_some_and(over)
    }

    /// It was given something to run, and serves nothing or is on its way.
    pub(super) fn unavailable(&self) -> bool {
        self.moving()
            || self.given().is_some() && !self.about_go_ahead().is_some_and(|model| model.serving)
    }

    /// It says of its go-ahead that it is committed.
    pub(super) fn committed(&self) -> Option<&'a NodeModel> {
        self.answer()
            .filter(|model| model.state == NodeState::Committed)
    }

    /// It rejected the entry's revision, and that counts. It is for ever, so a report of any age says
    /// it; only an order that voids earlier verdicts does away with it.
    pub(super) fn rejected(&self, entry: &Assigned<E>) -> Option<&'a NodeModel> {
        self.last.filter(|model| {
            model.revision == entry.revision
                && model.state == NodeState::Rejected
                && model.attempt >= entry.forget_verdicts_before
        })
    }

    /// By its last word it serves something good, and it is not known to be silent.
    pub(super) fn serving(&self) -> bool {
        !self.silent() && self.last.is_some_and(|model| model.serving)
    }

    /// The agent has confirmed that the model is gone.
    pub(super) fn removal_confirmed(&self) -> bool {
        self.fresh && self.last.is_none()
    }

    /// It has something of the model, or may have, as far as is known.
    pub(super) fn concerned(&self) -> bool {
        self.go_ahead.is_some() || !self.maybe.is_empty() || self.last.is_some()
    }

    /// The revision that its report is about, if it is the entry's.
    pub(super) fn measured(&self, revision: &RevisionName) -> Option<&'a NodeModel> {
        self.last.filter(|model| &model.revision == revision)
    }
}

fn runs<E>(order: &GoAhead<E>) -> bool {
    order.action == Action::Run
}

/// Nothing more happens: it is committed, or condemned under an attempt whose verdicts count.
fn is_over(model: &NodeModel, forget_verdicts_before: u32) -> bool {
    match model.state {
        NodeState::Committed => true,
        NodeState::Rejected => model.attempt >= forget_verdicts_before,
        _ => false,
    }
}
