//! Endpoint names: one model per name on each cluster.
//!
//! Owns who keeps a name when two deployments want it: the one that has it there already, then the
//! elder. An entry holds the name that it has, until it is renamed or its removal is confirmed: of two
//! deployments that want each other's name, neither gets it.

use std::collections::{BTreeMap, BTreeSet};

use super::outcome::Refusal;
use super::site::Site;
use super::types::{Desired, Observed};
use crate::ids::{ClusterName, DeploymentKey, EndpointName};
use crate::time::Timestamp;

/// One claim. Ordered: the least keeps the name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Claim {
    newcomer: bool,
    created: Timestamp,
    key: DeploymentKey,
    /// Made by the spec, not merely by what stands in the cluster.
    wanted: bool,
}

/// For each deployment that must not go on, the refusal that names the first claimant.
pub(super) fn conflicts(
    desired: &Desired,
    observed: &Observed,
    placed: &BTreeMap<DeploymentKey, Vec<Site<'_>>>,
) -> BTreeMap<DeploymentKey, Refusal> {
    let mut refused: BTreeMap<DeploymentKey, Refusal> = BTreeMap::new();
    for ((cluster, endpoint), claimants) in claims(desired, observed, placed) {
        let Some(first) = claimants.first() else {
            continue;
        };
        let losers = claimants
            .iter()
            .filter(|claim| claim.wanted && claim.key != first.key);
        for loser in losers {
            refused
                .entry(loser.key.clone())
                .or_insert_with(|| Refusal::EndpointNameTaken {
                    endpoint: endpoint.clone(),
                    by: first.key.clone(),
                    cluster: cluster.clone(),
                });
        }
    }
    refused
}

type Claims = BTreeMap<(ClusterName, EndpointName), BTreeSet<Claim>>;

fn claims(
    desired: &Desired,
    observed: &Observed,
    placed: &BTreeMap<DeploymentKey, Vec<Site<'_>>>,
) -> Claims {
    let mut claims = Claims::new();
    let mut claim = |cluster: &ClusterName, endpoint: &EndpointName, claim: Claim| {
        claims
            .entry((cluster.clone(), endpoint.clone()))
            .or_default()
            .insert(claim);
    };
    let created = |key: &DeploymentKey| {
        desired
            .deployments
            .get(key)
            .map_or(Timestamp(i64::MIN), |deployment| deployment.created)
    };
    for (key, sites) in placed {
        let Some(deployment) = desired.deployments.get(key) else {
            continue;
        };
        if deployment.deleting {
            continue;
        }
        for site in sites {
            let has = site
                .entry
                .is_some_and(|entry| entry.endpoint_name == deployment.endpoint_name);
            let wanted = Claim {
                newcomer: !has,
                created: deployment.created,
                key: key.clone(),
                wanted: true,
            };
            claim(site.name, &deployment.endpoint_name, wanted);
        }
    }
    for (name, cluster) in &observed.clusters {
        for (key, entry) in &cluster.entries {
            let held = Claim {
                newcomer: false,
                created: created(key),
                key: key.clone(),
                wanted: false,
            };
            claim(name, &entry.endpoint_name, held);
        }
    }
    claims
}
