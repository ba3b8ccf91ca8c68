//! The whole fleet's plan, put together.
//!
//! Owns the order of the steps: judge what was seen, decide entries, say in words how things stand; and
//! that a plan is final: carried out, it leaves nothing to do.

use std::collections::{BTreeMap, BTreeSet};

use super::advance::{Progress, advance};
use super::endpoints::conflicts;
use super::entries::{Given, give, remove};
use super::explain::{View, explain};
use super::outcome::{Plan, Refusal};
use super::room::Room;
use super::site::Site;
use super::stages::{Group, divide, placed};
use super::types::{Connection, Deployment, Desired, Entry, Observed, StagePhase};
use super::waiting::Waiting;
use crate::ids::{ClusterName, DeploymentKey};
use crate::time::Timestamp;

type Entries = BTreeMap<ClusterName, BTreeMap<DeploymentKey, Entry>>;

/// Most rounds in which one plan may free what another deployment waits for.
///
/// Each further round needs a name or room that the one before set free, so two or three are usual. What
/// is left when this is reached comes with the next plan.
const ROUNDS_MAX: usize = 8;

/// Plans the whole fleet.
///
/// # Guarantees
/// - The same arguments give the same plan.
/// - Applying a plan, then planning again with the same `now`, gives the same plan, with nothing new in
///   `outcomes` and `transitions`. Only a chain of deployments, each waiting for what the one before sets
///   free, is cut after 8 links, and goes on with the next plan.
/// - No cluster is put on its way beyond its stage's budgets.
/// - A failed revision is given to no cluster.
/// - Every cluster that is not where the spec wants it is in `waiting`.
///
/// # Assumptions
/// `desired` is complete: an entry of a deployment that is in neither of its sets is removed. So a
/// caller plans only once its caches are in step with the server.
#[must_use]
pub fn plan(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let mut last = round(desired, observed, now);
    if settled(desired, observed, &last) {
        return last;
    }
    // Words are made of the fleet as it stands once the plan is applied, and applying may set a name
    // or room free: so the plan is carried out on paper until it changes nothing any more.
    let (mut desired, mut paper) = (desired.clone(), observed.clone());
    for _ in 1..ROUNDS_MAX {
        carry_out(&mut desired, &mut paper, observed, &last);
        let next = round(&desired, &paper, now);
        let done = settled(&desired, &paper, &next);
        last = merge(last, next);
        if done {
            break;
        }
    }
    last
}

/// Whether a plan leaves everything as it is.
fn settled(desired: &Desired, observed: &Observed, plan: &Plan) -> bool {
    let entries = observed
        .clusters
        .iter()
        .all(|(name, cluster)| plan.clusters.get(name) == Some(&cluster.entries));
    let status = plan.deployments.iter().all(|(key, answer)| {
        let before = desired.deployments.get(key);
        answer.outcomes.is_empty()
            && answer.transitions.is_empty()
            && before.is_some_and(|it| it.stage == answer.stage && it.current == answer.current)
    });
    entries && status
}

/// Carries a plan out on paper. A cluster whose entries differ from what stands on the hub is one
/// generation further, so that its report no longer speaks of them.
fn carry_out(desired: &mut Desired, paper: &mut Observed, observed: &Observed, plan: &Plan) {
    for (name, cluster) in &mut paper.clusters {
        cluster.entries = plan.clusters.get(name).cloned().unwrap_or_default();
        if let Some(real) = observed.clusters.get(name) {
            cluster.generation = real.generation + u64::from(cluster.entries != real.entries);
        }
    }
    for (key, answer) in &plan.deployments {
        let Some(deployment) = desired.deployments.get_mut(key) else {
            continue;
        };
        deployment.stage.clone_from(&answer.stage);
        deployment.current.clone_from(&answer.current);
        for (name, change) in &answer.outcomes {
            let revision = deployment.revisions.entry(name.clone()).or_default();
            revision.outcome = change.outcome;
            revision.message.clone_from(&change.message);
        }
    }
}

/// The later round's plan, with what was new in the earlier one.
fn merge(earlier: Plan, mut later: Plan) -> Plan {
    for (key, before) in earlier.deployments {
        if let Some(answer) = later.deployments.get_mut(&key) {
            let newer = std::mem::replace(&mut answer.transitions, before.transitions);
            answer.transitions.extend(newer);
            let newer = std::mem::replace(&mut answer.outcomes, before.outcomes);
            answer.outcomes.extend(newer);
        }
    }
    later
}

fn round(desired: &Desired, observed: &Observed, now: Timestamp) -> Plan {
    let sites: BTreeMap<_, _> = desired
        .deployments
        .iter()
        .map(|(key, deployment)| (key.clone(), placed(key, deployment, observed)))
        .collect();
    let conflicts = conflicts(desired, observed, &sites);
    let mut room = Room::new(desired, observed);
    let mut plan = Plan {
        clusters: orphans(desired, observed),
        ..Plan::default()
    };
    for (key, deployment) in &desired.deployments {
        let placed = sites.get(key).map_or(&[][..], Vec::as_slice);
        let groups = divide(&deployment.policy, placed);
        let progress = advance(deployment, &groups, now);
        let conflict = conflicts.get(key);
        let given = decide(
            key, deployment, &progress, &groups, conflict, observed, &mut room,
        );
        wake(&mut plan.wake_at, &progress, &groups, deployment, now);
        let leaving: Vec<_> = leaving(key, deployment, observed, &groups)
            .into_iter()
            .map(|site| site.name)
            .collect();
        let view = View {
            deployment,
            groups: &groups,
            progress,
            denied: &given.denied,
            leaving: &leaving,
            conflict,
            now,
        };
        plan.deployments.insert(key.clone(), explain(view));
        for (cluster, entry) in given.entries {
            if let Some(entry) = entry {
                plan.clusters
                    .entry(cluster)
                    .or_default()
                    .insert(key.clone(), entry);
            }
        }
    }
    plan
}

/// Every cluster's entries that belong to no readable deployment: kept if the deployment exists and
/// could not be read, else on their way out.
fn orphans(desired: &Desired, observed: &Observed) -> Entries {
    let mut entries = Entries::new();
    for (name, cluster) in &observed.clusters {
        let mine = entries.entry(name.clone()).or_default();
        for (key, entry) in &cluster.entries {
            if desired.deployments.contains_key(key) {
                continue;
            }
            let stays = cluster.paused || desired.unreadable.contains(key);
            let kept = if stays {
                Some(entry.clone())
            } else {
                remove(&Site::orphan(name, cluster, key))
            };
            if let Some(kept) = kept {
                mine.insert(key.clone(), kept);
            }
        }
    }
    entries
}

/// The entries of one deployment, on the clusters of its placement and on those that left it.
fn decide(
    key: &DeploymentKey,
    deployment: &Deployment,
    progress: &Progress,
    groups: &[Group<'_>],
    conflict: Option<&Refusal>,
    observed: &Observed,
    room: &mut Room,
) -> Given {
    let inside = || groups.iter().flat_map(|group| &group.sites);
    let frozen = |reason: Waiting| Given {
        entries: inside()
            .map(|site| (site.name.clone(), site.entry.cloned()))
            .collect(),
        denied: inside()
            .map(|site| (site.name.clone(), reason.clone()))
            .collect(),
    };
    let mut given = if deployment.deleting {
        Given {
            entries: inside()
                .map(|site| {
                    let stays = site.cluster.paused.then(|| site.entry.cloned());
                    (site.name.clone(), stays.unwrap_or_else(|| remove(site)))
                })
                .collect(),
            denied: BTreeMap::new(),
        }
    } else if deployment.paused {
        frozen(Waiting::DeploymentPaused)
    } else if let Some(Refusal::EndpointNameTaken { by, .. }) = conflict {
        frozen(Waiting::EndpointNameTaken { by: by.clone() })
    } else {
        give(key, deployment, progress, groups, room)
    };
    for site in leaving(key, deployment, observed, groups) {
        let stays = site.cluster.paused || (deployment.paused && !deployment.deleting);
        let entry = if stays {
            site.entry.cloned()
        } else {
            remove(&site)
        };
        given.entries.insert(site.name.clone(), entry);
    }
    given
}

/// Clusters that have an entry and are not, or no longer, in the placement.
fn leaving<'a>(
    key: &DeploymentKey,
    deployment: &Deployment,
    observed: &'a Observed,
    groups: &[Group<'_>],
) -> Vec<Site<'a>> {
    let inside: BTreeSet<_> = groups
        .iter()
        .flat_map(|group| &group.sites)
        .map(|site| site.name)
        .collect();
    observed
        .clusters
        .iter()
        .filter(|(name, cluster)| cluster.entries.contains_key(key) && !inside.contains(name))
        .map(|(name, cluster)| Site::new(name, cluster, key, deployment))
        .collect()
}

/// The next moment at which time alone changes the plan: a bake ends, or a heartbeat gets too old.
fn wake(
    wake_at: &mut Option<Timestamp>,
    progress: &Progress,
    groups: &[Group<'_>],
    deployment: &Deployment,
    now: Timestamp,
) {
    let under_way = progress.record.as_ref().is_some_and(|record| {
        matches!(
            record.phase,
            StagePhase::Progressing | StagePhase::Baking | StagePhase::RollingBack
        )
    });
    let graces = groups
        .iter()
        .flat_map(|group| &group.sites)
        .filter_map(|site| {
            let Connection::Beat { age_seconds } = site.cluster.connection else {
                return None;
            };
            let left =
                u64::from(deployment.policy.offline.grace_seconds).checked_sub(age_seconds)?;
            (under_way && left > 0)
                .then(|| now.plus_seconds(u32::try_from(left).unwrap_or(u32::MAX)))
        });
    let next = graces.chain(progress.bake_ends).chain(*wake_at).min();
    *wake_at = next;
}
