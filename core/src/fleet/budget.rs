//! A stage's budgets: how many of its clusters may be on their way, or unavailable, at once.
//!
//! Owns the one place where a budget is spent.
//!
//! # Guarantees
//! - Clusters that the planner put on their way are never more than either budget, even if what was
//!   seen of them is wrong: a cluster that merely *looks* unavailable still needs a free place among
//!   those on their way.
//! - A cluster on its way may be sent elsewhere in its own place: as long as all those on their way are
//!   within the budget, whichever of them has really arrived, nothing is exceeded.

use std::collections::BTreeSet;

use super::site::Site;
use super::stages::Group;
use super::waiting::Waiting;
use crate::ids::{ClusterName, StageName};

/// The state of one stage's budgets while a plan is made.
#[derive(Debug)]
pub(super) struct Budget<'a> {
    stage: StageName,
    moving: BTreeSet<&'a ClusterName>,
    unavailable: BTreeSet<&'a ClusterName>,
    moving_max: usize,
    unavailable_max: Option<usize>,
}

impl<'a> Budget<'a> {
    pub(super) fn of(group: &Group<'a>) -> Self {
        let total = group.counted();
        let counted = || group.sites.iter().filter(|site| !site.excluded);
        Self {
            stage: group.stage.name.clone(),
            moving: counted()
                .filter(|site| site.moving())
                .map(|site| site.name)
                .collect(),
            unavailable: counted()
                .filter(|site| site.unavailable())
                .map(|site| site.name)
                .collect(),
            moving_max: group.stage.max_concurrency.of(total),
            unavailable_max: group.stage.max_unavailable.map(|amount| amount.of(total)),
        }
    }

    /// Spends a place for `site`, if there is one.
    pub(super) fn spend(&mut self, site: &Site<'a>) -> bool {
        if !self.fits(site.name) {
            return false;
        }
        self.moving.insert(site.name);
        self.unavailable.insert(site.name);
        true
    }

    fn fits(&self, cluster: &ClusterName) -> bool {
        let with = |set: &BTreeSet<&ClusterName>| set.len() + usize::from(!set.contains(cluster));
        let moving = with(&self.moving);
        let looks_gone = self.unavailable.contains(cluster) && !self.moving.contains(cluster);
        moving <= self.moving_max
            && self
                .unavailable_max
                .is_none_or(|max| moving <= max && (looks_gone || with(&self.unavailable) <= max))
    }

    /// Why there was no place, by the final state of the budgets.
    pub(super) fn refusal(&self) -> Waiting {
        match self.unavailable_max {
            Some(max) if self.moving.len() < self.moving_max => Waiting::Unavailable {
                stage: self.stage.clone(),
                unavailable: self.unavailable.len(),
                max,
            },
            _ => Waiting::Concurrency {
                stage: self.stage.clone(),
                moving: self.moving.len(),
                max: self.moving_max,
            },
        }
    }
}
