//! Time that counts: bakes, and how long holds are respected.
//!
//! Owns that only heard seconds count, and that what was counted outlives a leader but for one checkpoint. Must
//! never compare the clocks of two leaders.

use super::advance::At;
use super::class::Flag;
use super::context::{Context, Motion};
use super::gate::GateWait;
use super::outcome::Transition;
use super::policy::HoldMode;
use super::rollout::Rollout;
use super::types::StagePhase;
use crate::time::Timestamp;

/// Persisted states of a time that counts: one for each such part of it, so that a crash gives back no more.
const CHECKPOINTS: u32 = 8;
/// Seconds between two of them, at least.
const CHECKPOINT_SECONDS_MIN: u32 = 10;

impl Rollout {
    /// Starts or goes on with the bake; gives what is waited for while it is not over.
    pub(super) fn bake(&mut self, at: At<'_>) -> Option<GateWait> {
        let now = at.now;
        let stage = self.stages.get(at.index)?.divided.stage.clone();
        let seconds = stage.bake_seconds;
        let reached = self.stages.iter().take(at.index.saturating_add(1));
        // A stage that adds nobody bakes on those before it; where nobody is at all, nothing bakes.
        if seconds == 0
            || reached
                .map(|it| it.tally.of(Flag::Member))
                .all(|it| it == 0)
        {
            return None;
        }
        let mut reached = self.stages.iter().take(at.index.saturating_add(1));
        if !reached.any(|it| it.tally.of(Flag::Proven) > 0) {
            // Nobody lives on whom it could bake.
            self.interrupt_bake(at, false);
            return Some(GateWait::NoneHeard {
                stage: stage.name,
                deployment: self.key.name.clone(),
            });
        }
        let baked = self.record(|record| record.baked_seconds).unwrap_or(0);
        if self.record(|record| record.phase) != Some(StagePhase::Baking) {
            if baked == 0 {
                self.transitions.push(Transition::BakeStarted {
                    stage: stage.name.clone(),
                    revision: at.update.clone(),
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
            let heard = self.all_heard_until(at, since, false);
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
    ///
    /// One that comes late, since it was away before, merely lets it rest.
    pub(super) fn interrupt_bake(&mut self, at: At<'_>, begun_anew: bool) {
        let since = self.clock.baking_since.take();
        let heard = since.map_or(0, |since| {
            let until = self.all_heard_until(at, since, true);
            u32::try_from(until.seconds_since(since)).unwrap_or(u32::MAX)
        });
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

    /// Counts how long the rollout has run, where a hold's deadline depends on it.
    pub(super) fn count_hold(&mut self, now: Timestamp, context: &mut Context) {
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
}
