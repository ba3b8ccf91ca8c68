//! Who is to blame, and what follows: failed for ever, stopped for now, taken back.
//!
//! Owns that only condemned content fails. Must never look at time.

use super::class::{Flag, Tally};
use super::context::{Context, Course, Motion};
use super::gate::{Failure, failures};
use super::outcome::{FAILURES_MAX, Transition};
use super::policy::OnFailure;
use super::rollout::Rollout;
use super::target::condemns;
use super::types::{Outcome, StagePhase};
use crate::ids::{ClusterName, RevisionName, StageName};
use crate::summary::Problem;

impl Rollout {
    /// The first stage up to this one whose failures exceed its allowance.
    pub(super) fn judge_failures(&self, index: usize) -> Option<Failure> {
        let stages = self.stages.iter().enumerate();
        stages
            .take(index.saturating_add(1))
            .find_map(|(place, group)| {
                let tally = self.failing(place, index);
                failures(&group.divided.stage, &tally, self.past_at(place))
            })
    }

    /// The counts by which a stage's failures are judged: those of clusters that got the revision and now belong to
    /// a later stage count for the current one.
    pub(super) fn failing(&self, place: usize, index: usize) -> Tally {
        let own = self.stages.get(place);
        let own = own.map_or_else(Tally::default, |group| group.tally.clone());
        if place != index {
            return own;
        }
        let later = self.stages.iter().skip(index.saturating_add(1));
        later.fold(own, |sum, group| sum.plus(&group.tally))
    }

    /// The content was condemned: final.
    pub(super) fn fail(
        &mut self,
        update: &RevisionName,
        index: usize,
        failed: u32,
        context: &mut Context,
    ) {
        let (words, problems) = self.condemnations(update);
        let allowed = self
            .stages
            .get(index)
            .map_or(0, |group| group.divided.stage.max_failures);
        let message = format!("{failed} cluster(s) failed, {allowed} allowed; {words}");
        let stage = self.stage_name(index);
        self.note_outcome(
            update,
            Outcome::Failed,
            stage.clone(),
            "StageFailed",
            message.clone(),
            problems,
        );
        self.transitions.push(Transition::RevisionFailed {
            revision: update.clone(),
            stage,
            message: message.clone(),
        });
        self.failed = Some(message);
        self.after_failure(update, false, context);
    }

    /// What condemned the content, in the devices' own words.
    pub(super) fn condemnations(
        &self,
        update: &RevisionName,
    ) -> (String, Vec<(ClusterName, Problem)>) {
        let mut words = None;
        let mut problems = Vec::new();
        for (name, kept) in &self.targets {
            let condemned = kept.judged.class.has(Flag::Condemned);
            let report = kept.target.report.as_ref();
            let Some(report) = report.filter(|it| condemned && &it.revision == update) else {
                continue;
            };
            debug_assert!(condemns(report));
            words.get_or_insert_with(|| match report.problems.first() {
                Some(problem) => format!(
                    "cluster {name}, node {}: {}: {}",
                    problem.node, problem.reason, problem.message
                ),
                None => format!("cluster {name}: {}", report.reason),
            });
            let left = FAILURES_MAX.saturating_sub(problems.len());
            let theirs = report.problems.iter().take(left);
            problems.extend(theirs.map(|problem| (name.clone(), problem.clone())));
            if problems.len() >= FAILURES_MAX {
                break;
            }
        }
        (words.unwrap_or_default(), problems)
    }

    /// Keeps the record of a revision that was condemned or taken back: standing, going back, or back.
    pub(super) fn after_failure(
        &mut self,
        update: &RevisionName,
        aborted: bool,
        context: &mut Context,
    ) {
        self.clock.baking_since = None;
        let back = aborted || self.deployment.policy.on_failure == OnFailure::RollbackAll;
        context.course = if back { Course::Back } else { Course::Pause };
        let to = self.deployment.standing.current.clone();
        let still = match self.context.course {
            Course::Back => self.total().of(Flag::NotBack) > 0,
            // Counts speak of the course that they were made for: this one is new.
            _ => self.total().of(Flag::Member) > 0,
        };
        let Some(record) = &mut self.deployment.standing.stage else {
            return;
        };
        record.baked_seconds = 0;
        let before = record.phase;
        record.phase = match (back, before) {
            (false, _) => StagePhase::Failed,
            (true, StagePhase::RolledBack) => StagePhase::RolledBack,
            (true, _) if still => StagePhase::RollingBack,
            (true, _) => StagePhase::RolledBack,
        };
        if record.phase == before {
            return;
        }
        let revision = update.clone();
        match record.phase {
            StagePhase::Failed => self.transitions.push(Transition::Paused { revision }),
            StagePhase::RollingBack => self
                .transitions
                .push(Transition::RollbackStarted { revision, to }),
            StagePhase::RolledBack => self.transitions.push(Transition::RolledBack { revision }),
            StagePhase::Progressing
            | StagePhase::Baking
            | StagePhase::Completed
            | StagePhase::Stopped => {}
        }
    }

    pub(super) fn after_abort(&mut self, update: &RevisionName, context: &mut Context) {
        let message = format!("revision {update} was taken back by a person");
        let stage = self
            .record(|record| record.name.clone())
            .unwrap_or_else(|| StageName::fixed("all"));
        self.note_outcome(
            update,
            Outcome::Stopped,
            stage,
            "Aborted",
            message.clone(),
            Vec::new(),
        );
        self.failed = Some(message);
        self.after_failure(update, true, context);
    }

    /// Time, silence or blocks: the rollout stands where it is, and goes on by itself once their cause is gone.
    pub(super) fn stop(
        &mut self,
        update: &RevisionName,
        index: usize,
        failed: u32,
        context: &mut Context,
    ) {
        context.stopped = true;
        if context.motion == Motion::Any {
            context.motion = Motion::BackOnly;
        }
        let stage = self.stage_name(index);
        let allowed = self
            .stages
            .get(index)
            .map_or(0, |group| group.divided.stage.max_failures);
        let message = format!(
            "{failed} cluster(s) ran out of time or fell silent, {allowed} allowed; nothing moves forward until they are done, or type: kubectl rimward retry {} (a new attempt), promote (go on), abort (take it back)",
            self.key.name
        );
        if self.outcome(update) != Outcome::Stopped {
            self.transitions.push(Transition::Stopped {
                revision: update.clone(),
                stage: stage.clone(),
                message: message.clone(),
            });
        }
        self.note_outcome(
            update,
            Outcome::Stopped,
            stage,
            "RolloutStopped",
            message.clone(),
            Vec::new(),
        );
        self.failed = Some(message);
        self.clock.baking_since = None;
        if let Some(record) = &mut self.deployment.standing.stage {
            record.phase = StagePhase::Stopped;
        }
    }
}
