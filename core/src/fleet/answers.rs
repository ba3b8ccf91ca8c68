//! What the planner can be asked between plans. Changes nothing.

use std::collections::{BTreeMap, BTreeSet};

use super::decision::Decision;
use super::doubt::Doubt;
use super::planner::Fleet;
use super::rollout::{Kept, StageGroup};
use super::types::Entry;
use crate::ids::{ClusterName, DeploymentKey, RevisionName};
use crate::time::Timestamp;

impl Fleet {
    /// The complete list of entries that a cluster's assignment shall have.
    #[must_use]
    pub fn entries(&self, name: &ClusterName) -> BTreeMap<DeploymentKey, Entry> {
        let Some(ledger) = self.ledgers.get(name) else {
            return BTreeMap::new();
        };
        let entry = |key: &DeploymentKey| {
            let order = self.target(key, name)?.target.order.as_ref()?;
            Some((key.clone(), order.entry.clone()))
        };
        ledger.claims.keys().filter_map(entry).collect()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn order(&self, key: &DeploymentKey, name: &ClusterName) -> Option<&Entry> {
        let order = self.target(key, name)?.target.order.as_ref()?;
        Some(&order.entry)
    }

    pub(super) fn target(&self, key: &DeploymentKey, name: &ClusterName) -> Option<&Kept> {
        let targets = match self.rollouts.get(key) {
            Some(rollout) => &rollout.targets,
            None => &self.strays.get(key)?.targets,
        };
        targets.get(name).map(|kept| &**kept)
    }

    /// What is decided for each cluster of a deployment, as of the last plan.
    #[must_use]
    pub fn decisions(&self, key: &DeploymentKey) -> BTreeMap<ClusterName, Decision> {
        let Some(rollout) = self.rollouts.get(key) else {
            return BTreeMap::new();
        };
        let decision = |name: &ClusterName| {
            Some((
                name.clone(),
                rollout.decision(name, &self.ledgers, self.now)?,
            ))
        };
        rollout.targets.keys().filter_map(decision).collect()
    }

    /// A deployment's stages as its budgets see them.
    #[must_use]
    pub fn stages(&self, key: &DeploymentKey) -> Vec<StageGroup> {
        let Some(rollout) = self.rollouts.get(key) else {
            return Vec::new();
        };
        let mut groups: Vec<StageGroup> = rollout.stages.iter().map(StageGroup::of).collect();
        for (name, kept) in &rollout.targets {
            if let Some(group) = kept.target.place.and_then(|place| groups.get_mut(place)) {
                group.members.push(name.clone());
            }
        }
        groups
    }

    /// Every revision of a deployment that a cluster has, had, or may have been told to have.
    #[must_use]
    pub fn revisions_in_use(&self, key: &DeploymentKey) -> BTreeSet<RevisionName> {
        let targets = match (self.rollouts.get(key), self.strays.get(key)) {
            (Some(rollout), _) => &rollout.targets,
            (None, Some(strays)) => &strays.targets,
            (None, None) => return BTreeSet::new(),
        };
        let mut used = BTreeSet::new();
        for kept in targets.values() {
            let target = &kept.target;
            let told = target.told.iter().flatten().map(|entry| &**entry);
            for entry in told.chain(target.order.as_ref().map(|order| &order.entry)) {
                used.insert(entry.revision.clone());
            }
            if let Some(report) = &target.report {
                used.insert(report.revision.clone());
                used.extend(report.last_good.clone());
            }
        }
        used
    }

    /// Whether the hub doubts that this cluster is silent: it is one of those whose silence made it doubt.
    #[must_use]
    pub fn doubts(&self, name: &ClusterName) -> bool {
        self.doubt.is_some() && self.ears.has_fallen(name)
    }

    /// The shortest grace after which anything is made of a cluster's silence: the hub's own, or a policy's.
    #[must_use]
    pub const fn shortest_grace_seconds(&self) -> u32 {
        self.doubting_seconds
    }

    /// The doubt that keeps everything where it is, if there is one.
    #[must_use]
    pub const fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }
}
