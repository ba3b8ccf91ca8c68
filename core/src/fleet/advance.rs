//! How far a rollout is: passes stages, bakes, promotes.
//!
//! Owns the life of the stage record and of a revision's outcome. Must never look at what the plan
//! will give: it judges what was seen, so that planning again says the same.

use std::collections::BTreeMap;

use super::outcome::{OutcomeChange, PassedBecause, Transition};
use super::rollback::{after_failure, fail, too_many_failures};
use super::stages::{Group, locate};
use super::types::{Deployment, Outcome, StagePhase, StageRecord};
use crate::ids::{RevisionName, StageName};
use crate::time::Timestamp;

/// How far a rollout is, after what was seen.
#[derive(Clone, Debug, Default)]
pub(super) struct Progress {
    pub(super) record: Option<StageRecord>,
    pub(super) current: Option<RevisionName>,
    pub(super) outcomes: BTreeMap<RevisionName, OutcomeChange>,
    pub(super) transitions: Vec<Transition>,
    /// The target failed, now or earlier, and why.
    pub(super) failed: Option<String>,
    /// When the bake ends, if one runs.
    pub(super) bake_ends: Option<Timestamp>,
}

impl Progress {
    /// Clusters of stages up to this one may have the target.
    pub(super) fn released(&self, target: &RevisionName, stage: usize) -> bool {
        self.record.as_ref().is_some_and(|record| {
            &record.revision == target
                && (record.phase == StagePhase::Completed
                    || u32::try_from(stage).is_ok_and(|stage| stage <= record.index))
        })
    }
}

/// Judges a rollout by what was seen.
pub(super) fn advance(deployment: &Deployment, groups: &[Group<'_>], now: Timestamp) -> Progress {
    let mut progress = Progress {
        record: deployment.stage.clone(),
        current: deployment.current.clone(),
        ..Progress::default()
    };
    let Some(target) = &deployment.target else {
        return progress;
    };
    if deployment.deleting {
        return progress;
    }
    let known = deployment.revisions.get(target);
    if known.is_some_and(|revision| revision.outcome == Outcome::Failed) {
        progress.failed = known.map(|revision| revision.message.clone());
        after_failure(deployment, target, groups, now, &mut progress);
        return progress;
    }
    let started = progress
        .record
        .as_ref()
        .is_some_and(|record| &record.revision == target);
    if !started {
        if deployment.paused {
            return progress;
        }
        begin(target, groups, now, &mut progress);
    }
    if progress.current.as_ref() == Some(target) {
        complete(deployment, target, groups, now, &mut progress);
        return progress;
    }
    if groups.iter().all(|group| group.sites.is_empty()) {
        return progress;
    }
    run_stages(deployment, target, groups, now, &mut progress);
    progress
}

pub(super) fn record_at(
    target: &RevisionName,
    groups: &[Group<'_>],
    index: usize,
    phase: StagePhase,
    now: Timestamp,
) -> StageRecord {
    StageRecord {
        revision: target.clone(),
        name: groups
            .get(index)
            .map_or_else(|| StageName::fixed("all"), |group| group.stage.name.clone()),
        index: short(index),
        of: short(groups.len()),
        phase,
        started: now,
        bake_started: None,
        last_progress: now,
        clusters_updated: 0,
    }
}

pub(super) fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn begin(target: &RevisionName, groups: &[Group<'_>], now: Timestamp, progress: &mut Progress) {
    progress.record = Some(record_at(target, groups, 0, StagePhase::Progressing, now));
    progress.transitions.push(Transition::RolloutStarted {
        revision: target.clone(),
        stages: short(groups.len()),
    });
    if progress.current.as_ref() != Some(target) {
        stage_started(target, groups, 0, progress);
    }
}

fn stage_started(
    target: &RevisionName,
    groups: &[Group<'_>],
    index: usize,
    progress: &mut Progress,
) {
    if let Some(group) = groups.get(index) {
        progress.transitions.push(Transition::StageStarted {
            stage: group.stage.name.clone(),
            revision: target.clone(),
            clusters: short(group.sites.len()),
        });
    }
}

/// The target is the promoted revision: every stage is released, none has to be passed again.
fn complete(
    deployment: &Deployment,
    target: &RevisionName,
    groups: &[Group<'_>],
    now: Timestamp,
    progress: &mut Progress,
) {
    let last = groups.len().saturating_sub(1);
    let mut done = record_at(target, groups, last, StagePhase::Completed, now);
    if let Some(record) = &progress.record {
        done.started = record.started;
        done.last_progress = record.last_progress;
        done.clusters_updated = record.clusters_updated;
    }
    let stage = done.name.clone();
    progress.record = Some(done);
    let outcome = deployment
        .revisions
        .get(target)
        .map(|revision| revision.outcome);
    if outcome != Some(Outcome::Promoted) {
        progress.outcomes.insert(
            target.clone(),
            OutcomeChange {
                outcome: Outcome::Promoted,
                stage,
                reason: "Promoted",
                message: "went through all stages".to_owned(),
                problems: Vec::new(),
            },
        );
    }
}

/// Judges stage after stage until one has to wait.
fn run_stages(
    deployment: &Deployment,
    target: &RevisionName,
    groups: &[Group<'_>],
    now: Timestamp,
    progress: &mut Progress,
) {
    let Some(mut record) = progress.record.take() else {
        return;
    };
    let mut index = locate(&record, groups);
    loop {
        let group = &groups[index];
        record.index = short(index);
        record.of = short(groups.len());
        record.name.clone_from(&group.stage.name);
        if let Some(failure) = too_many_failures(target, groups, index) {
            progress.record = Some(record);
            fail(deployment, target, failure, groups, now, progress);
            return;
        }
        if deployment.paused {
            break;
        }
        let seen = judge(target, group);
        if seen.regressed {
            record.bake_started = None;
        }
        record.phase = match record.bake_started {
            Some(_) => StagePhase::Baking,
            None => StagePhase::Progressing,
        };
        if seen.pending {
            break;
        }
        if let Some(ends) = bake(target, group, &seen, now, &mut record, progress) {
            progress.bake_ends = Some(ends);
            break;
        }
        let last = index + 1 == groups.len();
        let proven = || {
            groups
                .iter()
                .flat_map(|g| &g.sites)
                .any(|site| site.proves(target))
        };
        if last && !proven() {
            // Nothing ever ran it: not even an empty stage may promote it.
            break;
        }
        progress.transitions.push(Transition::StagePassed {
            stage: group.stage.name.clone(),
            revision: target.clone(),
            because: seen.because(group),
        });
        if last {
            progress.record = Some(record);
            progress.current = Some(target.clone());
            progress.transitions.push(Transition::Promoted {
                revision: target.clone(),
            });
            complete(deployment, target, groups, now, progress);
            return;
        }
        index += 1;
        record.started = now;
        record.bake_started = None;
        record.last_progress = now;
        stage_started(target, groups, index, progress);
    }
    progress.record = Some(record);
}

/// What a stage's clusters say.
struct Seen {
    /// One is not there yet, as far as is known.
    pending: bool,
    /// One is known not to be there (a stale report alone does not say so).
    regressed: bool,
    /// How many are there.
    done: usize,
    /// How many failed, within the allowance.
    failed: usize,
}

impl Seen {
    fn because(&self, group: &Group<'_>) -> PassedBecause {
        if group.sites.is_empty() {
            PassedBecause::Empty
        } else if self.done + self.failed == 0 {
            PassedBecause::AllOffline
        } else {
            PassedBecause::Done
        }
    }
}

fn judge(target: &RevisionName, group: &Group<'_>) -> Seen {
    let mut seen = Seen {
        pending: false,
        regressed: false,
        done: 0,
        failed: 0,
    };
    for site in &group.sites {
        if site.failed(target) {
            seen.failed += 1;
        } else if site.excluded {
            // Left out: the stage goes on without it.
        } else if site.alive && site.complete(target) {
            seen.done += 1;
        } else {
            seen.pending = true;
            seen.regressed |= !(site.alive && site.settled(target));
        }
    }
    seen
}

/// Starts or goes on with the bake; gives its end while it is not over.
fn bake(
    target: &RevisionName,
    group: &Group<'_>,
    seen: &Seen,
    now: Timestamp,
    record: &mut StageRecord,
    progress: &mut Progress,
) -> Option<Timestamp> {
    let seconds = group.stage.bake_seconds;
    if seconds == 0 || (seen.done == 0 && record.bake_started.is_none()) {
        return None;
    }
    // A clock that was set back must not make the bake longer than it is.
    let started = record.bake_started.filter(|&started| started <= now);
    if record.bake_started.is_none() {
        progress.transitions.push(Transition::BakeStarted {
            stage: group.stage.name.clone(),
            revision: target.clone(),
            seconds,
        });
    }
    let started = started.unwrap_or(now);
    record.bake_started = Some(started);
    record.phase = StagePhase::Baking;
    let ends = started.plus_seconds(seconds);
    (now < ends).then_some(ends)
}
