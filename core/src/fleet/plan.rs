//! A plan of the whole fleet from nothing: the oracle that the incremental planner is compared with, and the
//! plain way to ask once.
//!
//! Must never be called per event: its cost grows with the fleet.

use super::outcome::Plan;
use super::planner::Fleet;
use super::types::{Desired, Observed};
use crate::ids::ClusterName;
use crate::time::Timestamp;

/// Plans the whole fleet, as a leader does that has just begun.
///
/// # Guarantees
/// - The same arguments give the same plan.
/// - Every cluster's complete list of entries is in it, and every deployment.
///
/// # Assumptions
/// `desired` is complete: an entry of a deployment that is in neither of its sets is removed. So a
/// caller plans only once its caches are in step with the server.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let mut fleet = fleet(desired, observed);
    let mut plan = fleet.plan(now);
    plan.clusters = observed
        .clusters
        .keys()
        .map(|name: &ClusterName| (name.clone(), fleet.entries(name)))
        .collect();
    plan
}

/// A planner that was told everything, and has planned nothing yet.
#[must_use]
pub fn fleet(desired: &Desired, observed: &Observed) -> Fleet {
    let mut fleet = Fleet::default();
    // Deployments first: what clusters have and say is then placed once.
    for key in &desired.unreadable {
        fleet.remove_deployment(key, true);
    }
    for (key, deployment) in &desired.deployments {
        fleet.set_deployment(key, deployment.clone());
    }
    for (name, cluster) in &observed.clusters {
        fleet.set_cluster(name, cluster.clone());
    }
    fleet
}
