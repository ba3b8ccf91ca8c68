//! Which clusters a deployment means, and which stage each belongs to.
//!
//! Owns the words *placement*, *cumulative* and *last stage*. Decides nothing about when.

use std::collections::{BTreeMap, BTreeSet};

use super::site::Site;
use super::types::{Amount, Deployment, Desired, Members, Observed, Policy, Stage, StageRecord};
use crate::ids::{ClusterName, DeploymentKey, StageName};

/// A stage with its clusters.
#[derive(Debug)]
pub(super) struct Group<'a> {
    pub(super) stage: Stage,
    pub(super) sites: Vec<Site<'a>>,
}

impl Group<'_> {
    /// Its clusters that count for budgets.
    pub(super) fn counted(&self) -> usize {
        self.sites.iter().filter(|site| !site.excluded).count()
    }
}

/// The clusters of the placement, by name.
///
/// With `max_clusters`, those that run the deployment already come first, so that a new cluster with
/// an earlier name pushes nobody out.
pub(super) fn placed<'a>(
    key: &DeploymentKey,
    deployment: &Deployment,
    observed: &'a Observed,
) -> Vec<Site<'a>> {
    let mut sites: Vec<_> = observed
        .clusters
        .iter()
        .filter(|(_, cluster)| deployment.placement.clusters.matches(&cluster.labels))
        .map(|(name, cluster)| Site::new(name, cluster, key, deployment))
        .collect();
    if let Some(max) = deployment.placement.max_clusters {
        sites.sort_by_key(|site| (site.running().is_none(), site.name));
        sites.truncate(usize::try_from(max).unwrap_or(usize::MAX));
        sites.sort_by_key(|site| site.name);
    }
    sites
}

/// Divides the placement into the policy's stages; clusters that none names form a last one.
///
/// Count and percent take clusters that answer before those that do not: a canary that is offline
/// tells nothing. Always gives at least one group.
pub(super) fn divide<'a>(policy: &Policy, sites: &[Site<'a>]) -> Vec<Group<'a>> {
    let total = sites.len();
    let mut left: Vec<Site<'a>> = sites.to_vec();
    left.sort_by_key(|site| (site.excluded, site.name));
    let mut groups: Vec<Group<'a>> = Vec::new();
    for stage in &policy.stages {
        let missing = |reach: usize| reach.saturating_sub(total - left.len());
        let taken: BTreeSet<&ClusterName> = match &stage.members {
            Members::Selector(selector) => left
                .iter()
                .filter(|site| selector.matches(&site.cluster.labels))
                .map(|site| site.name)
                .collect(),
            Members::Count(count) => {
                let reach = usize::try_from(*count).unwrap_or(usize::MAX);
                left.iter()
                    .take(missing(reach))
                    .map(|site| site.name)
                    .collect()
            }
            Members::Percent(percent) => {
                let percent = usize::try_from(*percent).unwrap_or(100);
                let reach = total.saturating_mul(percent).div_ceil(100);
                left.iter()
                    .take(missing(reach))
                    .map(|site| site.name)
                    .collect()
            }
        };
        let (mine, rest) = left.into_iter().partition(|site| taken.contains(site.name));
        left = rest;
        groups.push(Group {
            stage: stage.clone(),
            sites: mine,
        });
    }
    if groups.is_empty() || !left.is_empty() {
        groups.push(Group {
            stage: last_stage(groups.is_empty()),
            sites: left,
        });
    }
    groups
}

/// The stage of the clusters that no stage names: one at a time, no failure allowed.
fn last_stage(only: bool) -> Stage {
    Stage {
        name: StageName::fixed(if only { "all" } else { "remaining" }),
        members: Members::Percent(100),
        max_concurrency: Amount::ONE,
        max_unavailable: None,
        max_failures: 0,
        bake_seconds: 0,
        progress_deadline_seconds: None,
    }
}

/// Where a persisted record stands among today's groups: by place, else by name, else as far as
/// there are groups (a policy may be edited on the way).
pub(super) fn locate(record: &StageRecord, groups: &[Group<'_>]) -> usize {
    let last = groups.len().saturating_sub(1);
    let index = usize::try_from(record.index).unwrap_or(last).min(last);
    let named = |at: usize| {
        groups
            .get(at)
            .is_some_and(|group| group.stage.name == record.name)
    };
    if named(index) {
        return index;
    }
    (0..groups.len()).find(|&at| named(at)).unwrap_or(index)
}

/// The place of each cluster's stage.
pub(super) fn places<'a>(groups: &[Group<'a>]) -> BTreeMap<&'a ClusterName, usize> {
    groups
        .iter()
        .enumerate()
        .flat_map(|(index, group)| group.sites.iter().map(move |site| (site.name, index)))
        .collect()
}

/// A stage of a deployment as its budgets see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageGroup {
    /// The stage's name.
    pub name: StageName,
    /// Its clusters, offline ones included.
    pub members: Vec<ClusterName>,
    /// Those that count for budgets, and whether they answer.
    pub counted: Vec<(ClusterName, bool)>,
    /// How many may be on their way at once.
    pub moving_max: usize,
    /// How many may be unavailable at once; none: not bounded.
    pub unavailable_max: Option<usize>,
}

/// Divides a deployment's placement into its stages, with their budgets in numbers.
#[must_use]
pub fn stage_groups(
    desired: &Desired,
    observed: &Observed,
    key: &DeploymentKey,
) -> Vec<StageGroup> {
    let Some(deployment) = desired.deployments.get(key) else {
        return Vec::new();
    };
    let sites = placed(key, deployment, observed);
    divide(&deployment.policy, &sites)
        .iter()
        .map(|group| StageGroup {
            name: group.stage.name.clone(),
            members: group.sites.iter().map(|site| site.name.clone()).collect(),
            counted: group
                .sites
                .iter()
                .filter(|site| !site.excluded)
                .map(|site| (site.name.clone(), site.alive))
                .collect(),
            moving_max: group.stage.max_concurrency.of(group.counted()),
            unavailable_max: group.stage.max_unavailable.map(|it| it.of(group.counted())),
        })
        .collect()
}
