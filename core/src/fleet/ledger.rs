//! What every deployment on a cluster shares: how it sounds, who keeps it back, which endpoint names are taken
//! there, and how much its assignment may still take.
//!
//! Owns the sums of an assignment. An order keeps its name and its room until it is gone: of two deployments
//! that want each other's name, neither gets it.

use std::collections::{BTreeMap, BTreeSet};

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
    pub(super) claims: BTreeMap<DeploymentKey, Claim>,
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
            claims: BTreeMap::new(),
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
        let bytes: u64 = self
            .claims
            .values()
            .map(|claim| u64::from(claim.bytes))
            .sum();
        self.claims.len() >= ENTRIES_MAX / 2 || bytes >= ENTRIES_BYTES_MAX / 2
    }

    /// Whether the assignment has room for an entry of so many bytes, in place of the present one.
    pub(super) fn has_room(&self, key: &DeploymentKey, bytes: u32) -> bool {
        let others = || self.claims.iter().filter(|(other, _)| *other != key);
        let taken: u64 = others().map(|(_, claim)| u64::from(claim.bytes)).sum();
        others().count() < ENTRIES_MAX
            && taken.saturating_add(u64::from(bytes)) <= ENTRIES_BYTES_MAX
    }

    /// Notes what the deployment's order takes now. Says whether something came free.
    pub(super) fn claim(&mut self, key: &DeploymentKey, entry: Option<&Entry>, bytes: u32) -> bool {
        let Some(entry) = entry else {
            return self.claims.remove(key).is_some();
        };
        let claim = Claim {
            endpoint: entry.endpoint_name.clone(),
            bytes,
        };
        let before = self.claims.insert(key.clone(), claim.clone());
        before.is_some_and(|before| before.endpoint != claim.endpoint || before.bytes > claim.bytes)
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

/// Clusters of a placement that may be without the model at once when the placement changes.
pub(super) fn removal_budget(policy: &super::policy::Policy, total: usize) -> usize {
    let widest = policy
        .stages
        .iter()
        .map(|stage| stage.max_unavailable.unwrap_or(stage.max_concurrency))
        .map(|amount| amount.of(total));
    widest.max().unwrap_or_else(|| Amount::ONE.of(total))
}
