//! How a deployment stands, in counts, conditions and words.
//!
//! Owns the mapping from a decision to what people read. Decides nothing.

use std::collections::BTreeMap;

use super::advance::{Progress, short};
use super::conditions::conditions;
use super::entries::silence;
use super::outcome::{DeploymentPlan, Refusal};
use super::site::{Site, rejected};
use super::stages::{Group, places};
use super::types::{Action, Deployment, OnFailure};
use super::waiting::Waiting;
use crate::ids::{ClusterName, RevisionName};
use crate::summary::Counts;
use crate::time::Timestamp;

/// A deployment, its clusters as planned, and what was decided.
pub(super) struct View<'a> {
    pub(super) deployment: &'a Deployment,
    pub(super) groups: &'a [Group<'a>],
    pub(super) progress: Progress,
    pub(super) denied: &'a BTreeMap<ClusterName, Waiting>,
    pub(super) leaving: &'a [&'a ClusterName],
    pub(super) conflict: Option<&'a Refusal>,
    pub(super) now: Timestamp,
}

impl<'a> View<'a> {
    pub(super) fn sites(&self) -> impl Iterator<Item = &'a Site<'a>> + use<'a> {
        let groups = self.groups;
        groups.iter().flat_map(|group| &group.sites)
    }
}

/// Says how a deployment stands.
pub(super) fn explain(mut view: View<'_>) -> DeploymentPlan {
    let clusters = count(&view);
    note_progress(&mut view, clusters.updated);
    let nodes = view.sites().map(|site| nodes(&view, site)).sum();
    let waiting = waiting(&view);
    let refusals = refusals(&view, &waiting);
    let conditions = conditions(&view, &waiting, &refusals);
    let Progress {
        record,
        current,
        outcomes,
        transitions,
        failed: _,
        bake_ends: _,
    } = view.progress;
    DeploymentPlan {
        stage: record,
        current,
        outcomes,
        clusters,
        nodes,
        waiting,
        refusals,
        transitions,
        conditions,
    }
}

fn count(view: &View<'_>) -> Counts {
    let target = view.deployment.target.as_ref();
    let failed = target.filter(|_| view.progress.failed.is_some());
    let mut counts = Counts::default();
    if view.deployment.deleting {
        return counts;
    }
    for site in view.sites() {
        counts.desired += 1;
        counts.ready += u32::from(site.serving());
        counts.silent += u32::from(!site.alive);
        counts.held += u32::from(site.cluster.held.is_some());
        let Some(target) = target else {
            continue;
        };
        let refused = site.runs(target) && site.about_entry().is_some_and(rejected);
        counts.updated += u32::from(site.settled(target));
        counts.failed += u32::from(refused);
        let back = failed.is_some()
            && view
                .progress
                .current
                .as_ref()
                .is_some_and(|current| site.settled(current));
        counts.rolled_back += u32::from(back);
    }
    counts.with_pending()
}

/// The cluster's nodes. Of a report on another revision, only what it says beside the revision counts.
fn nodes(view: &View<'_>, site: &Site<'_>) -> Counts {
    let Some(report) = site.last else {
        return Counts::default();
    };
    match &view.deployment.target {
        Some(target) if site.about_entry().is_some() && site.runs(target) => report.nodes,
        _ => Counts {
            updated: 0,
            failed: 0,
            rolled_back: 0,
            ..report.nodes
        }
        .with_pending(),
    }
}

/// Notes in the record when the number of updated clusters changed.
fn note_progress(view: &mut View<'_>, updated: u32) {
    let target = view.deployment.target.as_ref();
    if let Some(record) = &mut view.progress.record
        && Some(&record.revision) == target
        && record.clusters_updated != updated
    {
        record.clusters_updated = updated;
        record.last_progress = view.now;
    }
}

fn waiting(view: &View<'_>) -> Vec<(ClusterName, Waiting)> {
    let places = places(view.groups);
    let mut waiting: Vec<_> = view
        .sites()
        .filter_map(|site| {
            let place = places.get(site.name).copied().unwrap_or(0);
            why(view, site, place).map(|reason| (site.name.clone(), reason))
        })
        .collect();
    waiting.extend(
        view.leaving
            .iter()
            .map(|name| ((*name).clone(), Waiting::Removing)),
    );
    waiting.sort_by(|(one, _), (other, _)| one.cmp(other));
    waiting
}

/// Why a cluster of the placement is not where the spec wants it; none if it is.
fn why(view: &View<'_>, site: &Site<'_>, place: usize) -> Option<Waiting> {
    if view.deployment.deleting {
        return site.entry.map(|_| Waiting::Removing);
    }
    let denied = || view.denied.get(site.name).cloned();
    let Some(target) = &view.deployment.target else {
        return Some(denied().unwrap_or(Waiting::NotResolved));
    };
    if view.progress.failed.is_none() && site.settled(target) {
        return None;
    }
    if let Some(blocked @ (Waiting::EndpointNameTaken { .. } | Waiting::AssignmentTooLarge)) =
        denied()
    {
        return Some(blocked);
    }
    if site.runs(target) && site.about_entry().is_some_and(rejected) {
        return Some(failure(site, target));
    }
    if let Some(reason) = denied() {
        return Some(reason);
    }
    if !site.alive {
        return Some(silence(site));
    }
    if view.progress.failed.is_some() {
        return Some(after_failure(view, site, target));
    }
    if site.runs(target) {
        return Some(on_its_way(site, target));
    }
    Some(not_reached(view, place))
}

fn failure(site: &Site<'_>, target: &RevisionName) -> Waiting {
    let report = site.about_entry();
    Waiting::Failed {
        revision: target.clone(),
        reason: report
            .map(|report| report.reason.clone())
            .unwrap_or_default(),
        problem: report.and_then(|report| report.problems.first().cloned()),
    }
}

fn after_failure(view: &View<'_>, site: &Site<'_>, target: &RevisionName) -> Waiting {
    let failed = target.clone();
    if view.deployment.policy.on_failure == OnFailure::Pause {
        return Waiting::Stopped { failed };
    }
    match (site.entry, &view.progress.current) {
        (Some(entry), _) if entry.action == Action::Remove => Waiting::Removing,
        (Some(entry), Some(current)) if &entry.revision == current => {
            if site.arrived(current) {
                return Waiting::RolledBack {
                    failed,
                    on: current.clone(),
                };
            }
            let counts = site
                .about_entry()
                .map(|report| report.nodes)
                .unwrap_or_default();
            Waiting::RollingBack {
                from: failed,
                to: current.clone(),
                updated: counts.updated,
                desired: counts.desired,
            }
        }
        (Some(entry), _) => Waiting::RolledBack {
            failed,
            on: entry.revision.clone(),
        },
        (None, _) => Waiting::NothingToRun { failed },
    }
}

fn on_its_way(site: &Site<'_>, target: &RevisionName) -> Waiting {
    let Some(report) = site.about_entry() else {
        return Waiting::NotReported;
    };
    let nodes = report.nodes;
    let expected = nodes.desired.saturating_sub(nodes.silent);
    let problem = report.problems.first().cloned();
    if nodes.held > 0 && nodes.updated.saturating_add(nodes.held) >= expected {
        return Waiting::NodesHeld {
            held: nodes.held,
            desired: nodes.desired,
            problem,
        };
    }
    if expected > 0 && nodes.updated >= expected {
        return Waiting::NotReady {
            revision: target.clone(),
            ready: nodes.ready,
            desired: nodes.desired,
        };
    }
    Waiting::Updating {
        revision: target.clone(),
        updated: nodes.updated,
        desired: nodes.desired,
        problem,
    }
}

fn not_reached(view: &View<'_>, place: usize) -> Waiting {
    let name = |at: usize| view.groups.get(at).map(|group| group.stage.name.clone());
    let record = view.progress.record.as_ref();
    match (
        name(place),
        record.map(|record| record.name.clone()).or_else(|| name(0)),
    ) {
        (Some(stage), Some(current)) => Waiting::StageNotReached {
            stage,
            current,
            until: view.progress.bake_ends,
        },
        _ => Waiting::NotReported,
    }
}

fn refusals(view: &View<'_>, waiting: &[(ClusterName, Waiting)]) -> Vec<Refusal> {
    let mut refusals: Vec<Refusal> = view.conflict.cloned().into_iter().collect();
    let too_large = waiting
        .iter()
        .find(|(_, reason)| *reason == Waiting::AssignmentTooLarge);
    refusals.extend(too_large.map(|(cluster, _)| Refusal::AssignmentTooLarge {
        cluster: cluster.clone(),
    }));
    let deployment = view.deployment;
    if view.sites().next().is_none() && !deployment.deleting {
        refusals.push(Refusal::NoClusters);
    }
    if let (Some(message), Some(target)) = (&view.progress.failed, &deployment.target) {
        refusals.push(Refusal::RevisionFailed {
            revision: target.clone(),
            message: message.clone(),
        });
    }
    refusals
}

/// How many clusters of today's placement are meant, for sentences.
pub(super) fn members(view: &View<'_>) -> u32 {
    short(view.sites().count())
}
