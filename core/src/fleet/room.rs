//! How much an assignment may still take: the bound on its entries and on their bytes.
//!
//! Owns the sums. An entry keeps its room until it is gone.

use std::collections::BTreeMap;

use super::types::{Desired, ENTRIES_BYTES_MAX, ENTRIES_MAX, Observed};
use crate::ids::{ClusterName, DeploymentKey, RevisionName};

/// What an entry is taken to need when nothing is known of its revision: an even share.
const ENTRY_BYTES_UNKNOWN: u64 = ENTRIES_BYTES_MAX / 256;

/// The bytes that each cluster's entries take, as far as a plan has come.
#[derive(Debug)]
pub(super) struct Room {
    sizes: BTreeMap<(DeploymentKey, RevisionName), u64>,
    taken: BTreeMap<ClusterName, BTreeMap<DeploymentKey, u64>>,
}

impl Room {
    pub(super) fn new(desired: &Desired, observed: &Observed) -> Self {
        let sizes = desired
            .deployments
            .iter()
            .flat_map(|(key, deployment)| {
                deployment.revisions.iter().map(|(name, revision)| {
                    ((key.clone(), name.clone()), u64::from(revision.entry_bytes))
                })
            })
            .collect();
        let mut room = Self {
            sizes,
            taken: BTreeMap::new(),
        };
        for (name, cluster) in &observed.clusters {
            for (key, entry) in &cluster.entries {
                room.take(name, key, &entry.revision);
            }
        }
        room
    }

    fn size(&self, key: &DeploymentKey, revision: &RevisionName) -> u64 {
        let known = self.sizes.get(&(key.clone(), revision.clone()));
        known.copied().unwrap_or(ENTRY_BYTES_UNKNOWN)
    }

    /// Whether the cluster's assignment may have this entry, in place of the deployment's present one.
    pub(super) fn fits(
        &self,
        cluster: &ClusterName,
        key: &DeploymentKey,
        revision: &RevisionName,
    ) -> bool {
        let empty = BTreeMap::new();
        let others = || {
            let all = self.taken.get(cluster).unwrap_or(&empty);
            all.iter().filter(|(other, _)| *other != key)
        };
        let bytes: u64 = others().map(|(_, bytes)| *bytes).sum();
        others().count() < ENTRIES_MAX
            && bytes.saturating_add(self.size(key, revision)) <= ENTRIES_BYTES_MAX
    }

    pub(super) fn take(
        &mut self,
        cluster: &ClusterName,
        key: &DeploymentKey,
        revision: &RevisionName,
    ) {
        let size = self.size(key, revision);
        self.taken
            .entry(cluster.clone())
            .or_default()
            .insert(key.clone(), size);
    }
}
