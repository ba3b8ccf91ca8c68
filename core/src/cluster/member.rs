//! One model on one node: what can be said of it from the last observation.
//!
//! Owns the meaning of *moving*, *unavailable*, *updated* and *rejected* for nodes. A report older than
//! the node's spec is believed only of nodes that no plan has put on their way since: so another
//! model's go-ahead does not make this one's numbers flicker, and an old report never ends a new wait.

use super::types::{Assigned, GoAhead, Node, NodeModel, NodeState, Progress};
use crate::fleet::Action;
use crate::ids::{ModelKey, NodeName, RevisionName};

/// A model's view of one node.
#[derive(Debug)]
pub(super) struct Member<'a, E> {
    pub(super) name: &'a NodeName,
    pub(super) node: &'a Node<E>,
    pub(super) go_ahead: Option<&'a GoAhead<E>>,
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
        Self {
            name,
            node,
            go_ahead: node.entries.get(key),
            last: report.and_then(|report| report.models.get(key)),
            fresh,
            unsettled: !fresh && before.is_none_or(|it| it.moving.contains(name)),
        }
    }

    fn running(&self) -> Option<&'a RevisionName> {
        self.go_ahead
            .filter(|given| given.action == Action::Run)
            .map(|given| &given.revision)
    }

    /// The last report, if it is about the revision of the go-ahead.
    pub(super) fn about_go_ahead(&self) -> Option<&'a NodeModel> {
        let running = self.running()?;
        self.last.filter(|model| &model.revision == running)
    }

    /// Its report may be from before its go-ahead.
    pub(super) fn unsettled(&self) -> bool {
        self.unsettled
    }

    /// Its go-ahead is exactly the entry.
    pub(super) fn has(&self, entry: &Assigned<E>) -> bool {
        self.go_ahead.is_some_and(|given| {
            given.action == Action::Run
                && given.revision == entry.revision
                && given.content == entry.content
        })
    }

    /// It was given something to run and is, for all we know, not yet there.
    pub(super) fn moving(&self) -> bool {
        if self.running().is_none() {
            return false;
        }
        let over =
            |model: &NodeModel| matches!(model.state, NodeState::Committed | NodeState::Rejected);
        self.unsettled || !self.about_go_ahead().is_some_and(over)
    }

    /// It takes a place in the budget of unavailable nodes.
    pub(super) fn unavailable(&self) -> bool {
        if !self.node.alive {
            return true;
        }
        if self.running().is_none() {
            return false;
        }
        self.moving() || !self.about_go_ahead().is_some_and(|model| model.serving)
    }

    /// It committed the entry's revision.
    pub(super) fn updated(&self, entry: &Assigned<E>) -> bool {
        let committed = |model: &NodeModel| model.state == NodeState::Committed;
        self.has(entry) && !self.unsettled && self.about_go_ahead().is_some_and(committed)
    }

    /// It rejected `revision`. That is for ever, so a report of any age says it.
    pub(super) fn rejected(&self, revision: &RevisionName) -> Option<&'a NodeModel> {
        self.last
            .filter(|model| &model.revision == revision && model.state == NodeState::Rejected)
    }

    /// By its last word it serves something good.
    pub(super) fn serving(&self) -> bool {
        self.node.alive && self.last.is_some_and(|model| model.serving)
    }

    /// The site or the application keeps it back.
    pub(super) fn held(&self) -> bool {
        self.node.held.is_some()
            || self
                .about_go_ahead()
                .is_some_and(|model| model.state == NodeState::Held)
    }

    /// The agent has confirmed that the model is gone.
    pub(super) fn removal_confirmed(&self) -> bool {
        self.fresh && self.last.is_none()
    }
}
