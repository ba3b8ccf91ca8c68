//! What every deployment on a cluster shares: how it sounds, who keeps it back, which endpoint names are taken
//! there, and how much its assignment may still take.
//!
//! Owns the sums of an assignment. An order keeps its name and its room until it is gone: of two deployments
//! that want each other's name, neither gets it.

use std::collections::{BTreeMap, BTreeSet};

use litemap::LiteMap;

use super::policy::Amount;
use super::target::{Facts, Refused};
use super::types::{ConnectionState, ENTRIES_MAX, Entry};
use crate::ids::{ClusterName, DeploymentKey, EndpointName};
use crate::selector::Labels;
use crate::time::Timestamp;

/// Most bytes that one assignment's entries may take together, as JSON.
///
/// etcd takes 1.5 MiB for a whole object: what is left is for status and managed fields.
pub const ENTRIES_BYTES_MAX: u64 = 640 * 1024;

/// What an entry is taken to need when nothing is known of its revision: an even share.
pub(super) const ENTRY_BYTES_UNKNOWN: u32 = 2560;

/// What one order takes of its cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Claim {
    pub(super) endpoint: EndpointName,
    pub(super) bytes: u32,
}

/// One cluster, as all deployments on it see it.
#[derive(Clone, Debug)]
pub(super) struct Ledger {
    pub(super) labels: Labels,
    pub(super) connection: ConnectionState,
    pub(super) paused: bool,
    pub(super) held: Option<String>,
    pub(super) generation: u64,
    pub(super) reported: Option<u64>,
    pub(super) claims: LiteMap<DeploymentKey, Claim>,
    /// What the claims take together.
    bytes: u64,
    /// Deployments whose order is not what stands on the hub.
    pub(super) untold: BTreeSet<DeploymentKey>,
    /// Deployments that are refused here, and look again when a claim goes.
    pub(super) refused: BTreeSet<DeploymentKey>,
}

impl Ledger {
    pub(super) fn new(labels: Labels, connection: ConnectionState) -> Self {
        Self {
            labels,
            connection,
            paused: false,
            held: None,
            generation: 0,
            reported: None,
            claims: LiteMap::new(),
            bytes: 0,
            untold: BTreeSet::new(),
            refused: BTreeSet::new(),
        }
    }

    pub(super) fn facts(&self, grace_seconds: u32, now: Timestamp) -> Facts<'_> {
        Facts {
            hearing: self.connection.hearing(grace_seconds, now),
            paused: self.paused,
            held: self.held.as_deref(),
            reported: self.reported,
        }
    }

    /// Who has the name here, other than `key`.
    pub(super) fn holder(
        &self,
        key: &DeploymentKey,
        name: &EndpointName,
    ) -> Option<&DeploymentKey> {
        let other =
            |(holder, claim): &(&DeploymentKey, &Claim)| *holder != key && &claim.endpoint == name;
        self.claims.iter().find(other).map(|(holder, _)| holder)
    }

    /// Whether the deployment has the name here already.
    pub(super) fn has(&self, key: &DeploymentKey, name: &EndpointName) -> bool {
        self.claims
            .get(key)
            .is_some_and(|claim| &claim.endpoint == name)
    }

    /// Whether a further entry may be one too many: only then does one order concern all the others.
    pub(super) fn is_tight(&self) -> bool {
        self.claims.len() >= ENTRIES_MAX / 2 || self.bytes >= ENTRIES_BYTES_MAX / 2
    }

    /// Whether the assignment has room for an entry of so many bytes, in place of the present one.
    pub(super) fn has_room(&self, key: &DeploymentKey, bytes: u32) -> bool {
        let own = self.claims.get(key).map(|claim| u64::from(claim.bytes));
        let others = self.claims.len() - usize::from(own.is_some());
        let taken = self.bytes - own.unwrap_or(0);
        others < ENTRIES_MAX && taken.saturating_add(u64::from(bytes)) <= ENTRIES_BYTES_MAX
    }

    /// Notes what the deployment's order takes now. Says whether something came free.
    pub(super) fn claim(&mut self, key: &DeploymentKey, entry: Option<&Entry>, bytes: u32) -> bool {
        let before = match entry {
            None => self.claims.remove(key),
            Some(entry) => {
                self.bytes += u64::from(bytes);
                let endpoint = entry.endpoint_name.clone();
                self.claims.insert(key.clone(), Claim { endpoint, bytes })
            }
        };
        let Some(before) = before else {
            return false;
        };
        self.bytes -= u64::from(before.bytes);
        entry.is_none_or(|entry| entry.endpoint_name != before.endpoint || bytes < before.bytes)
    }

    /// Notes what the deployment's order takes now that its size is known.
    pub(super) fn resize(&mut self, key: &DeploymentKey, bytes: u32) -> bool {
        let Some(claim) = self.claims.get_mut(key) else {
            return false;
        };
        let before = std::mem::replace(&mut claim.bytes, bytes);
        self.bytes = self.bytes - u64::from(before) + u64::from(bytes);
        bytes < before
    }

    /// Why an entry of that name and size is refused here, if it is.
    pub(super) fn refusal(
        &self,
        key: &DeploymentKey,
        name: &EndpointName,
        bytes: u32,
        elder: Option<DeploymentKey>,
    ) -> Option<Refused> {
        if !self.has(key, name) {
            let taken = self.holder(key, name).cloned().or(elder);
            if let Some(by) = taken {
                return Some(Refused::NameTaken(by));
            }
        }
        (!self.has_room(key, bytes)).then_some(Refused::TooLarge)
    }
}

/// All clusters.
pub(super) type Ledgers = BTreeMap<ClusterName, Ledger>;

/// Walks `left` with what `right` has under the same name, both in the order of names: for whole fleets, where a
/// look-up for each would cost more than all else.
pub(super) fn side_by_side<'a, L, R>(
    left: impl Iterator<Item = (&'a ClusterName, L)>,
    right: impl Iterator<Item = (&'a ClusterName, R)>,
) -> impl Iterator<Item = (&'a ClusterName, L, Option<R>)> {
    let mut right = right.peekable();
    left.map(move |(name, one)| {
        while right.next_if(|(other, _)| *other < name).is_some() {}
        let other = right.next_if(|(other, _)| *other == name);
        (name, one, other.map(|(_, other)| other))
    })
}

/// Clusters of a placement that may be without the model at once when the placement changes.
pub(super) fn removal_budget(policy: &super::policy::Policy, total: usize) -> usize {
    let widest = policy
        .stages
        .iter()
        .map(|stage| stage.max_unavailable.unwrap_or(stage.max_concurrency))
        .map(|amount| amount.of(total));
    widest.max().unwrap_or_else(|| Amount::ONE.of(total))
}
