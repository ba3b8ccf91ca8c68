//! How far a rollout is: begins, passes stages, bakes, promotes, fails, stops, goes back.
//!
//! Owns the life of the stage record and of a revision's outcome. Must never look at what the plan will
//! give: it judges what was seen, so that planning again says the same.

use super::class::Flag;
use super::context::{Context, Course, Motion};
use super::doubt::Doubt;
use super::gate::{self, Failure, Gate, GateWait, Seen, evidence};
use super::ledger::Ledgers;
use super::outcome::{OutcomeChange, PassedBecause, Transition};
use super::rollout::Rollout;
use super::stages::locate;
use super::types::{Outcome, StagePhase, StageRecord};
use crate::ids::{ClusterName, RevisionName, StageName};
use crate::summary::Problem;
use crate::time::Timestamp;

pub(super) fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

pub(super) fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

/// Which stage's end is judged, by what.
#[derive(Clone, Copy)]
pub(super) struct At<'a> {
    pub(super) update: &'a RevisionName,
    pub(super) index: usize,
    pub(super) ledgers: &'a Ledgers,
    pub(super) now: Timestamp,
}

/// What a stage needs before the next one begins, in this order. Approvals, waits and analyses will be further ones.
const GATES: [fn(&mut Rollout, At<'_>) -> Gate; 3] = [
    Rollout::failures_gate,
    Rollout::evidence_gate,
    Rollout::bake_gate,
];

impl Rollout {
    /// Judges the rollout by what was seen. Gives what every target is to be judged by from now on.
    pub(super) fn advance(
        &mut self,
        ledgers: &Ledgers,
        doubt: Option<Doubt>,
        listening: bool,
        now: Timestamp,
    ) -> Context {
        self.clock.wake_at = None;
        self.gate = None;
        if self.standing_undo_is_over() {
            self.deployment.standing.undo = None;
        }
        let standing = &mut self.deployment.standing;
        if let Some(undo) = standing.undo.as_ref()
            && standing.current.as_ref() != Some(&undo.to)
        {
            // What was undone to is what everything goes back to.
            standing.current = Some(undo.to.clone());
        }
        let mut context = Context {
            update: self.deployment.effective_update().cloned(),
            attempt: 1,
            forget_verdicts_before: self.deployment.standing.forget_verdicts_before,
            current: self.deployment.standing.current.clone(),
            doubt,
            ..Context::default()
        };
        if self.deployment.deleting {
            context.course = Course::Away;
            return context;
        }
        let record = self.deployment.standing.stage.as_mut();
        let overruled = record.is_some_and(|record| {
            // A leader that only listens yet may come to the same doubt.
            record.doubt_overruled &= doubt.is_some() || listening;
            record.doubt_overruled && doubt.is_some()
        });
        if self.deployment.paused || doubt.is_some() && !overruled {
            context.motion = Motion::Frozen;
        } else if listening {
            context.motion = Motion::BackOnly;
            context.listening = true;
        }
        let Some(update) = context.update.clone() else {
            return context;
        };
        if self.deployment.standing.undo.is_some() {
            context.course = Course::Undone;
        }
        let begun = self
            .deployment
            .standing
            .stage
            .as_ref()
            .is_some_and(|record| record.revision == update);
        if !begun {
            if self.deployment.paused {
                self.failed = None;
                return context;
            }
            self.begin(&update);
        }
        self.count_hold(now, &mut context);
        // Counts made by another word on holds say nothing of who failed.
        if context.hold_over == self.context.hold_over {
            self.forget_past();
        }
        let outcome = self.outcome(&update);
        if outcome == Outcome::Failed {
            let known = self.deployment.revisions.get(&update);
            self.failed = known.map(|known| known.message.clone());
            self.after_failure(&update, false, &mut context);
        } else if self.record(|record| record.aborted) == Some(true) {
            self.after_abort(&update, &mut context);
        } else if self.deployment.standing.current.as_ref() == Some(&update) {
            self.failed = None;
            self.complete(&update);
        } else if context.hold_over != self.context.hold_over {
            // Targets have to be judged by that first.
        } else if !self.stages.iter().all(|it| it.tally.of(Flag::Member) == 0) {
            self.failed = None;
            self.run_stages(&update, ledgers, now, &mut context);
        } else {
            self.failed = None;
        }
        let standing = &self.deployment.standing;
        context.current.clone_from(&standing.current);
        context.forget_verdicts_before = standing.forget_verdicts_before;
        if let Some(record) = standing.stage.as_ref().filter(|it| it.revision == update) {
            context.attempt = record.attempt;
            context.past = self.past(record);
            context.released = match record.phase {
                StagePhase::Completed => usize::MAX,
                _ => wide(record.index).saturating_add(1),
            };
        }
        if context.course == Course::None {
            context.course = Course::Forward;
        }
        let unfinished = standing.stage.as_ref().is_none_or(|record| {
            !matches!(record.phase, StagePhase::Completed | StagePhase::RolledBack)
        });
        if let Some(doubt) = doubt.filter(|_| !overruled && unfinished && !self.deployment.paused) {
            // Nothing else matters while this lasts.
            self.gate = Some(GateWait::Doubt {
                silent: doubt.silent,
                of: doubt.of,
                deployment: self.key.name.clone(),
            });
        }
        context
    }

    pub(super) fn standing_undo_is_over(&self) -> bool {
        let undo = self.deployment.standing.undo.as_ref();
        undo.is_some_and(|undo| self.deployment.update.as_ref() != Some(&undo.from))
    }

    pub(super) fn outcome(&self, revision: &RevisionName) -> Outcome {
        let known = self.deployment.revisions.get(revision);
        known.map_or(Outcome::Pending, |known| known.outcome)
    }

    pub(super) fn record<T>(&self, read: impl FnOnce(&StageRecord) -> T) -> Option<T> {
        self.deployment.standing.stage.as_ref().map(read)
    }

    pub(super) fn stage_name(&self, place: usize) -> StageName {
        self.stages.get(place).map_or_else(
            || StageName::fixed("all"),
            |group| group.divided.stage.name.clone(),
        )
    }

    pub(super) fn begin(&mut self, update: &RevisionName) {
        // One that was stopped and is asked for again is tried again.
        let stopped = self.outcome(update) == Outcome::Stopped;
        if stopped {
            let stage = self.stage_name(0);
            self.note_outcome(
                update,
                Outcome::Pending,
                stage,
                "Progressing",
                String::new(),
                Vec::new(),
            );
        }
        let known = self.deployment.revisions.entry(update.clone()).or_default();
        known.attempt = known.attempt.saturating_add(u32::from(stopped)).max(1);
        let attempt = known.attempt;
        // Attempts are counted by revision: what was to be forgotten of another one says nothing here.
        if self.deployment.standing.forget_verdicts_before != attempt {
            self.deployment.standing.forget_verdicts_before = 0;
        }
        self.clock.baking_since = None;
        self.clock.counting_since = None;
        self.deployment.standing.stage = Some(StageRecord {
            revision: update.clone(),
            attempt,
            name: self.stage_name(0),
            index: 0,
            of: short(self.stages.len()),
            phase: StagePhase::Progressing,
            baked_seconds: 0,
            elapsed_seconds: 0,
            passed: Vec::new(),
            aborted: false,
            doubt_overruled: false,
        });
        self.transitions.push(Transition::RolloutStarted {
            revision: update.clone(),
            stages: short(self.stages.len()),
        });
        if self.deployment.standing.current.as_ref() != Some(update) {
            self.stage_started(update, 0);
        }
    }

    pub(super) fn stage_started(&mut self, update: &RevisionName, place: usize) {
        if let Some(group) = self.stages.get(place) {
            self.transitions.push(Transition::StageStarted {
                stage: group.divided.stage.name.clone(),
                revision: update.clone(),
                clusters: group.tally.of(Flag::Member),
            });
        }
    }

    /// The revision is the promoted one: every stage is released, none has to be passed again.
    pub(super) fn complete(&mut self, update: &RevisionName) {
        let last = self.stages.len().saturating_sub(1);
        let (name, of) = (self.stage_name(last), short(self.stages.len()));
        if let Some(record) = &mut self.deployment.standing.stage {
            record.name = name.clone();
            record.index = short(last);
            record.of = of;
            record.phase = StagePhase::Completed;
            record.baked_seconds = 0;
        }
        self.clock.baking_since = None;
        self.note_outcome(
            update,
            Outcome::Promoted,
            name,
            "Promoted",
            "went through all stages".to_owned(),
            Vec::new(),
        );
    }

    pub(super) fn note_outcome(
        &mut self,
        revision: &RevisionName,
        outcome: Outcome,
        stage: StageName,
        reason: &'static str,
        message: String,
        problems: Vec<(ClusterName, Problem)>,
    ) {
        let known = self
            .deployment
            .revisions
            .entry(revision.clone())
            .or_default();
        if known.outcome == outcome {
            return;
        }
        known.outcome = outcome;
        known.message.clone_from(&message);
        let change = OutcomeChange {
            outcome,
            stage,
            reason,
            message,
            problems,
        };
        self.outcomes.insert(revision.clone(), change);
    }

    /// Judges stage after stage until one has to wait.
    pub(super) fn run_stages(
        &mut self,
        update: &RevisionName,
        ledgers: &Ledgers,
        now: Timestamp,
        context: &mut Context,
    ) {
        let Some(record) = &self.deployment.standing.stage else {
            return;
        };
        let mut index = locate(record, &self.stages_divided());
        loop {
            self.stand_at(index);
            let at = At {
                update,
                index,
                ledgers,
                now,
            };
            match self.gates(at) {
                Gate::Fail(Failure::Condemned { failed }) => {
                    self.fail(update, index, failed, context);
                    return;
                }
                // Silence is not believed while the hub doubts its ears: nobody is stopped by it.
                Gate::Fail(Failure::Stopped { .. })
                    if context.doubt.is_some()
                        && context.motion == Motion::Frozen
                        && self.outcome(update) != Outcome::Stopped =>
                {
                    return;
                }
                Gate::Fail(Failure::Stopped { failed }) => {
                    self.stop(update, index, failed, context);
                    return;
                }
                Gate::Wait(wait) => {
                    self.gate = Some(wait);
                    return;
                }
                Gate::Pass if context.motion == Motion::Frozen || context.listening => return,
                Gate::Pass => {}
            }
            let last = index + 1 == self.stages.len();
            if last && self.total().of(Flag::Proven) == 0 {
                // Nothing living ever ran it: not even an empty stage may promote it.
                return;
            }
            let because = self.stages.get(index).map_or(PassedBecause::Reached, |it| {
                gate::because(&it.divided, &it.tally)
            });
            self.pass(update, index, because);
            if last {
                return;
            }
            index += 1;
        }
    }

    pub(super) fn stages_divided(&self) -> Vec<super::stages::Divided> {
        self.stages
            .iter()
            .map(|group| group.divided.clone())
            .collect()
    }

    pub(super) fn stand_at(&mut self, index: usize) {
        let (name, of) = (self.stage_name(index), short(self.stages.len()));
        if let Some(record) = &mut self.deployment.standing.stage {
            record.index = short(index);
            record.of = of;
            record.name = name;
        }
    }

    /// The end of a stage, gate by gate: the first that does not pass decides.
    pub(super) fn gates(&mut self, at: At<'_>) -> Gate {
        for gate in GATES {
            match gate(self, at) {
                Gate::Pass => {}
                stands => return stands,
            }
        }
        Gate::Pass
    }

    /// Not more failed than the stage allows. What was stopped and is no more goes on.
    fn failures_gate(&mut self, at: At<'_>) -> Gate {
        if let Some(failure) = self.judge_failures(at.index) {
            return Gate::Fail(failure);
        }
        self.go_on(at.update, at.index);
        Gate::Pass
    }

    /// Enough is proven by clusters that live. A bake rests until then.
    fn evidence_gate(&mut self, at: At<'_>) -> Gate {
        let Some(group) = self.stages.get(at.index) else {
            return Gate::Pass;
        };
        let gate = evidence(Seen {
            stage: &group.divided,
            tally: &group.tally,
            policy: &self.deployment.policy,
            deployment: &self.key.name,
            past: self.past_at(at.index),
        });
        if gate != Gate::Pass {
            let anew = group.tally.of(Flag::Regressed) > 0;
            self.interrupt_bake(at, anew);
        }
        gate
    }

    /// It has baked.
    fn bake_gate(&mut self, at: At<'_>) -> Gate {
        self.bake(at).map_or(Gate::Pass, Gate::Wait)
    }

    pub(super) fn pass(&mut self, update: &RevisionName, index: usize, because: PassedBecause) {
        let stage = self.stage_name(index);
        self.clock.baking_since = None;
        self.transitions.push(Transition::StagePassed {
            stage,
            revision: update.clone(),
            because,
        });
        if index + 1 == self.stages.len() {
            self.promote(update);
            return;
        }
        self.stand_at(index + 1);
        if let Some(record) = &mut self.deployment.standing.stage {
            record.phase = StagePhase::Progressing;
            record.baked_seconds = 0;
        }
        self.stage_started(update, index + 1);
    }

    pub(super) fn promote(&mut self, update: &RevisionName) {
        let standing = &mut self.deployment.standing;
        standing.previous = standing.current.replace(update.clone());
        self.transitions.push(Transition::Promoted {
            revision: update.clone(),
        });
        self.complete(update);
    }

    pub(super) fn go_on(&mut self, update: &RevisionName, index: usize) {
        if self.outcome(update) == Outcome::Stopped {
            self.transitions.push(Transition::Resumed {
                revision: update.clone(),
            });
            let stage = self.stage_name(index);
            self.note_outcome(
                update,
                Outcome::Pending,
                stage,
                "Progressing",
                String::new(),
                Vec::new(),
            );
        }
        if let Some(record) = &mut self.deployment.standing.stage
            && !matches!(record.phase, StagePhase::Progressing | StagePhase::Baking)
        {
            record.phase = StagePhase::Progressing;
        }
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.clock.wake_at = self.clock.wake_at.into_iter().chain([at]).min();
    }
}
