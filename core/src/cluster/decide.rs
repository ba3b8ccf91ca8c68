//! Who gets the go-ahead for one entry now, and who waits: one decision a node, with its reason.
//!
//! Owns the one place where a cluster's budget is spent. Words, sums and the phase are made from these
//! decisions alone.
//!
//! # Guarantees
//! - Nodes that may have the order and are not known to be there are never more than the budget, even
//!   if what was seen of them is wrong: a node that merely *looks* unavailable still needs a free place
//!   among those on their way. One that fell silent after its go-ahead keeps its place.
//! - A node on its way may be sent elsewhere in its own place.
//! - A node that was silent before its go-ahead takes no place, and gets none.
//! - Once more nodes rejected the revision, fell silent with it or ran out of time than the entry
//!   allows, no node gets it any more; nor while that cannot be told because nodes were not heard yet.
//! - Nothing but the budget holds up an order that goes back to what the cluster was complete with.

use std::collections::BTreeSet;

use super::member::Member;
use super::progress::Remembered;
use super::types::{Assigned, GoAhead, Hearing, NodeModel, NodeState};
use super::waiting::{NodeWaiting, Stop};
use crate::ids::{ModelKey, NodeName};

/// What is decided for one node.
#[derive(Debug)]
pub(super) struct Decision<E> {
    /// What its spec shall have.
    pub(super) go_ahead: Option<GoAhead<E>>,
    /// It is put on its way by this.
    pub(super) given: bool,
    /// Why it is not where the entry wants it; none if it is.
    pub(super) because: Option<NodeWaiting>,
}

impl<E: PartialEq> Decision<E> {
    /// Its spec will have exactly the entry.
    pub(super) fn has(&self, entry: &Assigned<E>) -> bool {
        self.go_ahead.as_ref().is_some_and(|it| it.is(entry))
    }
}

/// Decides for the nodes that the entry selects.
pub(super) fn decide<'a, E: Clone + PartialEq>(
    key: &ModelKey,
    entry: &Assigned<E>,
    members: &[Member<'a, E>],
    remembered: &Remembered,
) -> Vec<(Member<'a, E>, Decision<E>)> {
    let view = View {
        key,
        entry,
        remembered,
    };
    let stop = view.stop(members);
    let mut places = Places::of(&view, members);
    let mut order: Vec<_> = members.to_vec();
    order.sort_by_key(|member| (member.serving(), member.name));
    let mut decisions: Vec<_> = order
        .into_iter()
        .map(|member| (member, view.decide(&member, stop.as_ref(), &mut places)))
        .collect();
    decisions.sort_by_key(|(member, _)| member.name);
    decisions
}

/// What every decision on one entry looks at.
struct View<'v, E> {
    key: &'v ModelKey,
    entry: &'v Assigned<E>,
    remembered: &'v Remembered,
}

impl<E: Clone + PartialEq> View<'_, E> {
    fn decide<'a>(
        &self,
        member: &Member<'a, E>,
        stop: Option<&NodeWaiting>,
        places: &mut Places<'a>,
    ) -> Decision<E> {
        let keep = |because| Decision {
            go_ahead: member.go_ahead.cloned(),
            given: false,
            because,
        };
        // The same content under a new attempt number: nothing to do for a node that is done with it.
        let renumber = |because| Decision {
            go_ahead: Some(self.entry.go_ahead()),
            given: false,
            because,
        };
        let has_content = member.has_content(self.entry);
        if let Some(model) = member.rejected(self.entry) {
            let because = Some(self.rejected(model));
            return if has_content && member.heard() {
                renumber(because)
            } else {
                keep(because)
            };
        }
        match member.node.hearing {
            Hearing::Silent => return keep(Some(self.silent(member))),
            Hearing::Unheard => return keep(Some(NodeWaiting::Unheard)),
            Hearing::Heard => {}
        }
        if let Some(model) = member.committed().filter(|_| has_content) {
            return renumber(self.committed(model));
        }
        if let Some(reason) = &member.node.held {
            return keep(Some(NodeWaiting::Held {
                reason: reason.clone(),
            }));
        }
        if member.has(self.entry) {
            return keep(Some(self.on_its_way(member)));
        }
        if let Some(stop) = stop {
            return keep(Some(stop.clone()));
        }
        if let Some(message) = &member.node.refused {
            let message = message.clone();
            return keep(Some(NodeWaiting::Refused { message }));
        }
        if !places.take(member.name) {
            return keep(Some(NodeWaiting::Budget { max: places.max }));
        }
        Decision {
            go_ahead: Some(self.entry.go_ahead()),
            given: true,
            because: Some(NodeWaiting::NotReported),
        }
    }

    /// It may have the order, and fell silent after it.
    fn suspect(&self, member: &Member<'_, E>) -> bool {
        member.silent() && self.exposed(member)
    }

    fn exposed(&self, member: &Member<'_, E>) -> bool {
        member.exposed(self.entry)
            && !self.remembered.goes_back(self.entry)
            && !self.remembered.silent_before(member.name)
            && member.rejected(self.entry).is_none()
    }

    fn late(&self, member: &Member<'_, E>) -> bool {
        member.has(self.entry)
            && member.committed().is_none()
            && member.rejected(self.entry).is_none()
            && self.remembered.late(self.entry, member.name)
    }

    /// Why nobody gets the order any more, if so.
    fn stop(&self, members: &[Member<'_, E>]) -> Option<NodeWaiting> {
        if self.remembered.goes_back(self.entry) {
            return None;
        }
        let named = |which: &dyn Fn(&Member<'_, E>) -> bool| -> Vec<NodeName> {
            let found = members.iter().filter(|member| which(member));
            found.map(|member| member.name.clone()).collect()
        };
        let stop = Stop {
            revision: self.entry.revision.clone(),
            model: self.key.clone(),
            rejected_by: named(&|it| it.rejected(self.entry).is_some()),
            lost: named(&|it| self.suspect(it)),
            late: named(&|it| !self.suspect(it) && self.late(it)),
        };
        let unheard =
            named(&|it| it.node.hearing == Hearing::Unheard && self.exposed(it) && !self.late(it));
        let failures = stop.rejected_by.len() + stop.lost.len() + stop.late.len();
        let max = usize::try_from(self.entry.max_failures).unwrap_or(usize::MAX);
        if failures > max {
            return Some(NodeWaiting::Stopped {
                stop: Box::new(stop),
            });
        }
        (failures + unheard.len() > max).then_some(NodeWaiting::Listening {
            revision: stop.revision,
            nodes: unheard,
        })
    }

    fn silent(&self, member: &Member<'_, E>) -> NodeWaiting {
        let revision = self.entry.revision.clone();
        if self.suspect(member) {
            let node = member.name.clone();
            return NodeWaiting::Suspect { revision, node };
        }
        NodeWaiting::Silent { revision }
    }

    fn rejected(&self, model: &NodeModel) -> NodeWaiting {
        NodeWaiting::Rejected {
            revision: self.entry.revision.clone(),
            reason: model.reason.clone(),
            message: model.message.clone(),
            serving: model.serving,
        }
    }

    fn committed(&self, model: &NodeModel) -> Option<NodeWaiting> {
        (!model.serving).then(|| NodeWaiting::NotServing {
            revision: self.entry.revision.clone(),
            reason: model.reason.clone(),
            message: model.message.clone(),
        })
    }

    /// Why a node that has the entry and is heard is not done.
    fn on_its_way(&self, member: &Member<'_, E>) -> NodeWaiting {
        let answer = member.answer();
        if let Some(NodeModel {
            state: NodeState::Held,
            message,
            ..
        }) = answer
        {
            return NodeWaiting::Held {
                reason: message.clone(),
            };
        }
        let revision = self.entry.revision.clone();
        if self.late(member) {
            let words = |text: fn(&NodeModel) -> &String| answer.map(text).cloned();
            return NodeWaiting::TimedOut {
                revision,
                model: self.key.clone(),
                state: answer.map_or(NodeState::Pending, |model| model.state),
                reason: words(|model| &model.reason).unwrap_or_default(),
                message: words(|model| &model.message).unwrap_or_default(),
            };
        }
        match answer {
            None => NodeWaiting::NotReported,
            Some(model) if model.state == NodeState::Blocked => NodeWaiting::Blocked {
                reason: model.reason.clone(),
                message: model.message.clone(),
            },
            Some(model) => NodeWaiting::Updating {
                revision,
                state: model.state,
                reason: model.reason.clone(),
                message: model.message.clone(),
            },
        }
    }
}

/// The places of one entry's budget.
struct Places<'a> {
    max: usize,
    moving: BTreeSet<&'a NodeName>,
    unavailable: BTreeSet<&'a NodeName>,
}

impl<'a> Places<'a> {
    fn of<E: Clone + PartialEq>(view: &View<'_, E>, members: &[Member<'a, E>]) -> Self {
        let taken = |which: &dyn Fn(&Member<'a, E>) -> bool| {
            let those = members.iter().filter(|member| {
                // A silent node has a place for what it may have got before, not for what is to come.
                view.suspect(member) || !member.silent() && which(member)
            });
            those.map(|member| member.name).collect()
        };
        Self {
            max: view.entry.max_unavailable.of(members.len()),
            moving: taken(&|member| member.moving()),
            unavailable: taken(&|member| member.unavailable()),
        }
    }

    /// Takes a place for a node, if there is one.
    fn take(&mut self, name: &'a NodeName) -> bool {
        let with = |set: &BTreeSet<&NodeName>| set.len() + usize::from(!set.contains(name));
        let looks_gone = self.unavailable.contains(name) && !self.moving.contains(name);
        let fits =
            with(&self.moving) <= self.max && (looks_gone || with(&self.unavailable) <= self.max);
        if fits {
            self.moving.insert(name);
            self.unavailable.insert(name);
        }
        fits
    }
}
