//! Which entry each cluster gets from one deployment, and who is refused one for now.
//!
//! Owns the choice of who is next. Everything that moves goes through [`Budget::spend`]; removals
//! do not, since people asked for them or nothing good would be lost.

use std::collections::BTreeMap;

use super::advance::Progress;
use super::budget::Budget;
use super::room::Room;
use super::site::Site;
use super::stages::Group;
use super::types::{Action, Connection, Deployment, Entry, OnFailure, Outcome};
use super::waiting::Waiting;
use crate::ids::{ClusterName, DeploymentKey, RevisionName};

/// What one deployment gives.
#[derive(Debug, Default)]
pub(super) struct Given {
    /// The entry of every cluster that has or gets one; none where it goes away.
    pub(super) entries: BTreeMap<ClusterName, Option<Entry>>,
    /// Clusters that wanted to move and may not yet.
    pub(super) denied: BTreeMap<ClusterName, Waiting>,
}

/// Where a cluster should be, by what is right now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Aim<'a> {
    /// Where it is.
    Keep,
    /// On this revision.
    Run(&'a RevisionName),
    /// Without the deployment.
    Nothing,
}

/// Decides the entries of a deployment that may move.
pub(super) fn give<'a>(
    key: &DeploymentKey,
    deployment: &Deployment,
    progress: &Progress,
    groups: &[Group<'a>],
    room: &mut Room,
) -> Given {
    let mut given = Given::default();
    for (place, group) in groups.iter().enumerate() {
        let mut budget = Budget::of(group);
        let mut candidates: Vec<(&Site<'a>, &RevisionName, bool)> = Vec::new();
        for site in &group.sites {
            let aim = aim(deployment, progress, site, place);
            if site.cluster.paused {
                given.entries.insert(site.name.clone(), site.entry.cloned());
                given
                    .denied
                    .insert(site.name.clone(), Waiting::ClusterPaused);
                continue;
            }
            match aim {
                Aim::Nothing => {
                    given.entries.insert(site.name.clone(), remove(site));
                }
                Aim::Run(to) if !site.runs(to) => {
                    let back = leaves_failed(deployment, progress, site);
                    candidates.push((site, to, back));
                    given.entries.insert(site.name.clone(), site.entry.cloned());
                }
                Aim::Run(_) | Aim::Keep => {
                    let entry = site.entry.map(|entry| refresh(entry, deployment, site));
                    given.entries.insert(site.name.clone(), entry);
                }
            }
        }
        // Those that go back first, of these the broken ones; then by name.
        candidates.sort_by_key(|(site, _, back)| (!back, !site.unavailable(), site.name));
        let mut full = Vec::new();
        for (site, to, back) in candidates {
            if let Some(reason) = obstacle(site, back) {
                given.denied.insert(site.name.clone(), reason);
                continue;
            }
            if !room.fits(site.name, key, to) {
                given
                    .denied
                    .insert(site.name.clone(), Waiting::AssignmentTooLarge);
                continue;
            }
            // An excluded cluster is in no budget; it holds no place and takes none.
            let outside = site.excluded && site.surely_moving();
            if !outside && !budget.spend(site) {
                full.push(site.name);
                continue;
            }
            room.take(site.name, key, to);
            given
                .entries
                .insert(site.name.clone(), Some(run(to, deployment, group)));
        }
        for name in full {
            given.denied.insert(name.clone(), budget.refusal());
        }
    }
    given
}

/// What keeps a cluster from moving whatever the budgets say.
///
/// A cluster on its way to a failed revision is called back even while it is silent: it holds its
/// place in the budgets already, and must not go on when it returns.
fn obstacle(site: &Site<'_>, back: bool) -> Option<Waiting> {
    if back && site.surely_moving() {
        return None;
    }
    if !site.alive {
        return Some(silence(site));
    }
    match &site.cluster.held {
        Some(reason) if !back => Some(Waiting::Held {
            reason: reason.clone(),
        }),
        _ => None,
    }
}

pub(super) fn silence(site: &Site<'_>) -> Waiting {
    match site.cluster.connection {
        Connection::NeverJoined => Waiting::NeverJoined,
        Connection::Beat { .. } => Waiting::Silent {
            grace_seconds: site.grace_seconds,
            excluded: site.excluded,
        },
    }
}

/// Whether a move would take the cluster away from a revision that failed.
fn leaves_failed(deployment: &Deployment, progress: &Progress, site: &Site<'_>) -> bool {
    site.running().is_some_and(|running| {
        let known = deployment.revisions.get(running);
        progress.failed.is_some() && deployment.target.as_ref() == Some(running)
            || known.is_some_and(|revision| revision.outcome == Outcome::Failed)
    })
}

fn aim<'a>(
    deployment: &'a Deployment,
    progress: &'a Progress,
    site: &Site<'_>,
    place: usize,
) -> Aim<'a> {
    let running = site.running();
    let outcome = running
        .and_then(|revision| deployment.revisions.get(revision))
        .map_or(Outcome::Pending, |revision| revision.outcome);
    let to_current = || progress.current.as_ref().map(Aim::Run);
    let stay = if running.is_some() {
        Aim::Keep
    } else {
        Aim::Nothing
    };
    let back = deployment.policy.on_failure == OnFailure::RollbackAll;
    let Some(target) = &deployment.target else {
        return if running.is_some() {
            Aim::Keep
        } else {
            to_current().unwrap_or(Aim::Nothing)
        };
    };
    if progress.failed.is_some() {
        return match (site.runs(target), back) {
            (true, false) => Aim::Keep,
            (true, true) => to_current().unwrap_or(Aim::Nothing),
            (false, _) => to_current().unwrap_or(stay),
        };
    }
    if progress.released(target, place) {
        return Aim::Run(target);
    }
    match (running, outcome) {
        (None, _) => to_current().unwrap_or(Aim::Nothing),
        (Some(revision), _) if revision == target => Aim::Keep,
        (Some(_), Outcome::Failed) if back => to_current().unwrap_or(Aim::Nothing),
        // An old promoted revision: it was away when its successor came.
        (Some(_), Outcome::Promoted) => to_current().unwrap_or(Aim::Keep),
        (Some(_), Outcome::Pending | Outcome::Failed | Outcome::Stopped) => Aim::Keep,
    }
}

fn run(revision: &RevisionName, deployment: &Deployment, group: &Group<'_>) -> Entry {
    Entry {
        revision: revision.clone(),
        action: Action::Run,
        stage: group.stage.name.clone(),
        endpoint_name: deployment.endpoint_name.clone(),
        nodes_max_unavailable: deployment.policy.nodes_max_unavailable,
        progress_deadline_seconds: group
            .stage
            .progress_deadline_seconds
            .unwrap_or(deployment.progress_deadline_seconds),
    }
}

/// An entry that stays on its revision follows what the spec says beside it. Its stage stays the one
/// that gave it, so that stages may be redrawn without a write to every cluster.
fn refresh(entry: &Entry, deployment: &Deployment, site: &Site<'_>) -> Entry {
    if site.cluster.paused || entry.action == Action::Remove {
        return entry.clone();
    }
    let stage = deployment
        .policy
        .stages
        .iter()
        .find(|stage| stage.name == entry.stage);
    Entry {
        endpoint_name: deployment.endpoint_name.clone(),
        nodes_max_unavailable: deployment.policy.nodes_max_unavailable,
        progress_deadline_seconds: stage
            .and_then(|stage| stage.progress_deadline_seconds)
            .unwrap_or(deployment.progress_deadline_seconds),
        ..entry.clone()
    }
}

/// The entry of a cluster that shall not have the deployment: removing, or gone once confirmed.
pub(super) fn remove(site: &Site<'_>) -> Option<Entry> {
    let entry = site.entry?;
    if entry.action == Action::Remove && site.removal_confirmed() {
        return None;
    }
    Some(Entry {
        action: Action::Remove,
        ..entry.clone()
    })
}
