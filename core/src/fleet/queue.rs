//! The queues of those that want an order, by what it costs.
//!
//! Owns what an order costs of a budget. Spends nothing.

use std::collections::BTreeSet;

use super::class::Flag;
use super::classify::{Judged, Want};
use crate::ids::ClusterName;

/// A place in a queue: those that cost nothing first, then broken ones, then by name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Seat {
    pub(super) cost: Cost,
    pub(super) name: ClusterName,
}

/// What an order to a target costs of a budget.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Cost {
    /// It holds a place for the revision already, and is told anew.
    OwnPlace,
    /// It holds a place for the revision from before it was taken back there, and gets it again.
    Again,
    /// It holds a place, and is sent elsewhere in it.
    Redirected,
    /// It looks unavailable: a place among those on their way.
    Broken,
    /// It serves: a place in both budgets.
    Serving,
}

impl Cost {
    /// The cheapest first.
    pub(super) const ALL: [Self; 5] = [
        Self::OwnPlace,
        Self::Again,
        Self::Redirected,
        Self::Broken,
        Self::Serving,
    ];
}

/// Who wants to go forward: by cost, then by name.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Queue([BTreeSet<ClusterName>; Cost::ALL.len()]);

impl Queue {
    /// The next of that cost.
    pub(super) fn next(&self, cost: Cost) -> Option<&ClusterName> {
        self.0[cost as usize].first()
    }

    pub(super) fn insert(&mut self, cost: Cost, name: &ClusterName) {
        self.0[cost as usize].insert(name.clone());
    }

    pub(super) fn remove(&mut self, cost: Cost, name: &ClusterName) {
        self.0[cost as usize].remove(name);
    }
}

/// What an order to a target that was judged costs.
pub(super) fn cost(judged: Judged) -> Cost {
    let class = judged.class;
    let failed = class.has(Flag::Condemned) || class.has(Flag::TimedOut);
    if judged.want == Some(Want::Back) && failed {
        // Those that the content hurt go back first.
        return Cost::OwnPlace;
    }
    match (class.has(Flag::Moving), class.has(Flag::Unavailable)) {
        (true, _) if class.has(Flag::Underway) && class.has(Flag::Given) => Cost::OwnPlace,
        (true, _) if class.has(Flag::Underway) => Cost::Again,
        (true, _) => Cost::Redirected,
        (false, true) => Cost::Broken,
        (false, false) => Cost::Serving,
    }
}
