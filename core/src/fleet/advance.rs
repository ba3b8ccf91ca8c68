//! How far a rollout is: begins, passes stages, bakes, promotes, fails, stops, goes back.
//!
//! Owns the life of the stage record and of a revision's outcome. Must never look at what the plan will
//! give: it judges what was seen, so that planning again says the same.

use std::collections::BTreeMap;

use super::action::{self, Applied, DECIDED_MAX, Ground};
use super::class::{Flag, Tally};
use super::context::{Context, Course, Motion};
use super::doubt::Doubt;
use super::gate::{Failure, Gate, GateWait, Seen, evidence, failures};
use super::ledger::Ledgers;
use super::outcome::{FAILURES_MAX, OutcomeChange, PassedBecause, Transition};
use super::policy::{HoldMode, OnFailure};
use super::rollout::Rollout;
use super::stages::locate;
use super::target::condemns;
use super::types::{Outcome, StagePhase, StageRecord};
use crate::ids::{ClusterName, RevisionName, StageName};
use crate::summary::Problem;
use crate::time::Timestamp;

/// Persisted states of a time that counts: one for each such part of it, so that a crash gives back no more.
const CHECKPOINTS: u32 = 8;
/// Seconds between two of them, at least.
const CHECKPOINT_SECONDS_MIN: u32 = 10;

pub(super) fn short(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

fn wide(number: u32) -> usize {
    usize::try_from(number).unwrap_or(usize::MAX)
}

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
            record.doubt_overruled &= doubt.is_some();
            record.doubt_overruled
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
            context.passed = self.passed_by_person(record);
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

    /// The stages that a person passed, a bit for each.
    fn passed_by_person(&self, record: &StageRecord) -> u64 {
        let passed = self
            .stages
            .iter()
            .zip(0u32..)
            .filter(|(group, _)| record.passed.contains(&group.divided.stage.name));
        passed.fold(0, |bits, (_, place)| {
            bits | 1u64.checked_shl(place).unwrap_or(0)
        })
    }

    fn standing_undo_is_over(&self) -> bool {
        let undo = self.deployment.standing.undo.as_ref();
        undo.is_some_and(|undo| self.deployment.update.as_ref() != Some(&undo.from))
    }

    pub(super) fn outcome(&self, revision: &RevisionName) -> Outcome {
        let known = self.deployment.revisions.get(revision);
        known.map_or(Outcome::Pending, |known| known.outcome)
    }

    fn record<T>(&self, read: impl FnOnce(&StageRecord) -> T) -> Option<T> {
        self.deployment.standing.stage.as_ref().map(read)
    }

    fn stage_name(&self, place: usize) -> StageName {
        self.stages.get(place).map_or_else(
            || StageName::fixed("all"),
            |group| group.divided.stage.name.clone(),
        )
    }

    fn begin(&mut self, update: &RevisionName) {
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

    fn stage_started(&mut self, update: &RevisionName, place: usize) {
        if let Some(group) = self.stages.get(place) {
            self.transitions.push(Transition::StageStarted {
                stage: group.divided.stage.name.clone(),
                revision: update.clone(),
                clusters: group.tally.of(Flag::Member),
            });
        }
    }

    /// The revision is the promoted one: every stage is released, none has to be passed again.
    fn complete(&mut self, update: &RevisionName) {
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

    fn note_outcome(
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
    fn run_stages(
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
            let because = match self.gates(update, index, ledgers, now) {
                Gate::Fail(Failure::Condemned { failed }) => {
                    self.fail(update, index, failed, context);
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
                Gate::Pass(_) if context.motion == Motion::Frozen || context.listening => return,
                Gate::Pass(because) => because,
            };
            let last = index + 1 == self.stages.len();
            if last && self.total().of(Flag::Proven) == 0 {
                // Nothing living ever ran it: not even an empty stage may promote it.
                return;
            }
            self.pass(update, index, because);
            if last {
                return;
            }
            index += 1;
        }
    }

    fn stages_divided(&self) -> Vec<super::stages::Divided> {
        self.stages
            .iter()
            .map(|group| group.divided.clone())
            .collect()
    }

    fn stand_at(&mut self, index: usize) {
        let (name, of) = (self.stage_name(index), short(self.stages.len()));
        if let Some(record) = &mut self.deployment.standing.stage {
            record.index = short(index);
            record.of = of;
            record.name = name;
        }
    }

    /// The first stage up to this one whose failures exceed its allowance.
    ///
    /// Failures of clusters that got the revision and now belong to a later stage count for the current one.
    fn judge_failures(&self, index: usize) -> Option<Failure> {
        let passed = |name: &StageName| self.record(|record| record.passed.contains(name));
        self.stages
            .iter()
            .enumerate()
            .take(index.saturating_add(1))
            .find_map(|(place, group)| {
                let mut tally = group.tally.clone();
                if place == index {
                    for later in self.stages.iter().skip(index + 1) {
                        tally = tally.plus(&later.tally);
                    }
                }
                let stage = &group.divided.stage;
                let by_person = passed(&stage.name).unwrap_or(false);
                failures(stage, &self.deployment.policy, &tally, by_person)
            })
    }

    /// The end of a stage, gate by gate: nothing failed, enough is proven, and it has baked.
    fn gates(
        &mut self,
        update: &RevisionName,
        index: usize,
        ledgers: &Ledgers,
        now: Timestamp,
    ) -> Gate {
        if let Some(failure) = self.judge_failures(index) {
            return Gate::Fail(failure);
        }
        self.go_on(update, index);
        let Some(group) = self.stages.get(index) else {
            return Gate::Pass(PassedBecause::Reached);
        };
        let seen = Seen {
            stage: &group.divided,
            tally: &group.tally,
            policy: &self.deployment.policy,
            deployment: &self.key.name,
            passed_by_person: self.context.passed_by_person(index),
        };
        let tally = group.tally.clone();
        let gate = evidence(seen);
        match gate {
            Gate::Pass(because) => match self.bake(update, index, ledgers, now) {
                Some(wait) => Gate::Wait(wait),
                None => Gate::Pass(because),
            },
            Gate::Wait(_) | Gate::Fail(_) => {
                self.interrupt_bake(index, &tally, ledgers, now);
                gate
            }
        }
    }

    /// Starts or goes on with the bake; gives what is waited for while it is not over.
    fn bake(
        &mut self,
        update: &RevisionName,
        index: usize,
        ledgers: &Ledgers,
        now: Timestamp,
    ) -> Option<GateWait> {
        let stage = self.stages.get(index).map(|it| it.divided.stage.clone())?;
        let seconds = stage.bake_seconds;
        if seconds == 0 {
            return None;
        }
        let baked = self.record(|record| record.baked_seconds).unwrap_or(0);
        if self.record(|record| record.phase) != Some(StagePhase::Baking) {
            if baked == 0 {
                self.transitions.push(Transition::BakeStarted {
                    stage: stage.name.clone(),
                    revision: update.clone(),
                    seconds,
                });
            }
            if let Some(record) = &mut self.deployment.standing.stage {
                record.phase = StagePhase::Baking;
            }
        }
        let since = *self.clock.baking_since.get_or_insert(now);
        let step = (seconds / CHECKPOINTS).max(CHECKPOINT_SECONDS_MIN);
        let left = seconds.saturating_sub(baked);
        let mut due = since.plus_seconds(left.min(step));
        if now >= due || left == 0 {
            // Only here are all members looked at: a bake counts while every one of them is heard.
            let heard = self.all_heard_until(index, ledgers, since, now);
            let more = u32::try_from(heard.seconds_since(since)).unwrap_or(u32::MAX);
            if more >= left {
                return None;
            }
            if more >= step {
                self.clock.baking_since = Some(heard);
                if let Some(record) = &mut self.deployment.standing.stage {
                    record.baked_seconds = baked.saturating_add(more);
                }
            }
            due = now.plus_seconds(1);
        }
        self.wake(due);
        Some(GateWait::Baking {
            stage: stage.name,
            seconds,
        })
    }

    /// What was baked counts on if members merely fell silent, and is lost if one is known not to be there.
    fn interrupt_bake(&mut self, index: usize, tally: &Tally, ledgers: &Ledgers, now: Timestamp) {
        let since = self.clock.baking_since.take();
        let heard = since.map_or(0, |since| {
            let until = self.all_heard_until(index, ledgers, since, now);
            u32::try_from(until.seconds_since(since)).unwrap_or(u32::MAX)
        });
        let begun_anew = tally.of(Flag::Regressed) > 0;
        if let Some(record) = &mut self.deployment.standing.stage {
            record.baked_seconds = match begun_anew {
                true => 0,
                false => record.baked_seconds.saturating_add(heard),
            };
            if record.baked_seconds == 0 {
                record.phase = StagePhase::Progressing;
            }
        }
    }

    fn pass(&mut self, update: &RevisionName, index: usize, because: PassedBecause) {
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

    fn promote(&mut self, update: &RevisionName) {
        let standing = &mut self.deployment.standing;
        standing.previous = standing.current.replace(update.clone());
        self.transitions.push(Transition::Promoted {
            revision: update.clone(),
        });
        self.complete(update);
    }

    /// The content was condemned: final.
    fn fail(&mut self, update: &RevisionName, index: usize, failed: u32, context: &mut Context) {
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
    fn condemnations(&self, update: &RevisionName) -> (String, Vec<(ClusterName, Problem)>) {
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
    fn after_failure(&mut self, update: &RevisionName, aborted: bool, context: &mut Context) {
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

    fn after_abort(&mut self, update: &RevisionName, context: &mut Context) {
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
    fn stop(&mut self, update: &RevisionName, index: usize, failed: u32, context: &mut Context) {
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

    fn go_on(&mut self, update: &RevisionName, index: usize) {
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

    /// Counts how long the rollout has run, where a hold's deadline depends on it.
    fn count_hold(&mut self, now: Timestamp, context: &mut Context) {
        let hold = self.deployment.policy.hold;
        let needed = hold.mode != HoldMode::Respect;
        let rests = context.motion == Motion::Frozen;
        let elapsed = self.record(|record| record.elapsed_seconds).unwrap_or(0);
        let since = self.clock.counting_since.filter(|_| needed);
        let more = since.map_or(0, |since| {
            u32::try_from(now.seconds_since(since)).unwrap_or(u32::MAX)
        });
        let total = elapsed.saturating_add(more);
        context.hold_over = needed && total >= hold.deadline_seconds;
        if !needed || elapsed >= hold.deadline_seconds {
            self.clock.counting_since = None;
            return;
        }
        let step = (hold.deadline_seconds / CHECKPOINTS).max(CHECKPOINT_SECONDS_MIN);
        if more >= step || context.hold_over || rests && more > 0 {
            if let Some(record) = &mut self.deployment.standing.stage {
                record.elapsed_seconds = total;
            }
            self.clock.counting_since = Some(now);
        }
        if rests {
            self.clock.counting_since = None;
            return;
        }
        let since = *self.clock.counting_since.get_or_insert(now);
        let elapsed = self.record(|record| record.elapsed_seconds).unwrap_or(0);
        let left = hold.deadline_seconds.saturating_sub(elapsed);
        self.wake(since.plus_seconds(left.min(step).max(1)));
    }

    fn outcomes_known(&self) -> BTreeMap<RevisionName, Outcome> {
        let known = self.deployment.revisions.iter();
        known
            .map(|(name, revision)| (name.clone(), revision.outcome))
            .collect()
    }

    /// Notes what an action opened again, to be persisted.
    fn note_reopened(&mut self, before: &BTreeMap<RevisionName, Outcome>) {
        for (name, known) in &self.deployment.revisions {
            let was = before.get(name).copied().unwrap_or_default();
            if was != known.outcome {
                let change = OutcomeChange {
                    outcome: known.outcome,
                    stage: StageName::fixed("all"),
                    reason: "Progressing",
                    message: String::new(),
                    problems: Vec::new(),
                };
                self.outcomes.insert(name.clone(), change);
            }
        }
    }

    pub(super) fn wake(&mut self, at: Timestamp) {
        self.clock.wake_at = self.clock.wake_at.into_iter().chain([at]).min();
    }

    /// Stages that stand, or are slow, for clusters that fell silent after they were given the revision.
    fn suspect_stages(&self) -> Vec<StageName> {
        let passed = |name: &StageName| self.record(|record| record.passed.contains(name));
        let stages = self.stages.iter();
        let suspects = stages.filter(|group| group.tally.of(Flag::Suspect) > 0);
        suspects
            .map(|group| group.divided.stage.name.clone())
            .filter(|name| passed(name) == Some(false))
            .collect()
    }

    /// Decides the actions that people asked for, in the order in which they did.
    pub(super) fn act(&mut self, doubt: Option<Doubt>) -> bool {
        let pending = &self.deployment.actions;
        self.deployment
            .standing
            .decided
            .retain(|decided| pending.iter().any(|request| request.uid == decided.uid));
        let decided = &self.deployment.standing.decided;
        let mut requests: Vec<_> = pending
            .iter()
            .filter(|request| !decided.iter().any(|it| it.uid == request.uid))
            .cloned()
            .collect();
        requests.sort_by(|a, b| (a.created, &a.name, &a.uid).cmp(&(b.created, &b.name, &b.uid)));
        let mut any = false;
        for request in requests {
            if self.deployment.standing.decided.len() >= DECIDED_MAX {
                break;
            }
            let index = self.record(|record| wide(record.index)).unwrap_or(0);
            let total = self.total();
            let suspects = self.suspect_stages();
            let ground = Ground {
                proven: total.of(Flag::Proven) > 0,
                suspects: &suspects,
                last_stage: index + 1 >= self.stages.len(),
                settled: total.of(Flag::Unready) == 0 && self.failed.is_none(),
                doubt: doubt.is_some(),
            };
            let before = self.outcomes_known();
            let (decided, applied) =
                action::decide(&self.key, &mut self.deployment, &request, ground);
            self.note_reopened(&before);
            if applied == Some(Applied::PassStage)
                && let Some(update) = self.deployment.effective_update().cloned()
            {
                self.pass(&update, index, PassedBecause::ByPerson);
            }
            any |= applied.is_some();
            self.transitions.push(Transition::ActionDecided {
                name: decided.name.clone(),
                applied: decided.applied,
                message: decided.message.clone(),
            });
            self.deployment.standing.decided.push(decided);
        }
        any
    }
}
