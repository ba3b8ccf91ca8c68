//! Whom a person went on past: those who were suspects, or had failed, when they promoted.
//!
//! Owns what is noted of them, and when it is forgotten. What follows for budgets and gates is theirs.

use super::advance::wide;
use super::class::Flag;
use super::context::Past;
use super::policy::AfterUpdate;
use super::rollout::{Group, Rollout};
use super::types::{Passed, StageRecord};
use crate::ids::StageName;

impl Rollout {
    /// What a person went on past in a stage, by the record as it stands: a new leader's targets are judged by it only
    /// after the first look.
    pub(super) fn past_at(&self, place: usize) -> Past {
        let name = self.stages.get(place).map(|it| &it.divided.stage.name);
        let record = self.deployment.standing.stage.iter();
        let mut passed = record.flat_map(|record| &record.passed);
        let found = passed.find(|passed| Some(&passed.stage) == name);
        found.map_or(Past::default(), |passed| Past {
            suspects: passed.suspects,
            failed: passed.failed,
        })
    }

    /// By stage, what a person went on past; nothing where nobody did.
    pub(super) fn past(&self, record: &StageRecord) -> Vec<Past> {
        match record.passed.as_slice() {
            [] => Vec::new(),
            _ => (0..self.stages.len())
                .map(|place| self.past_at(place))
                .collect(),
        }
    }

    /// Whoever came back, or is done after all, is no longer one of those that a person went on past. That is known
    /// once this leader has heard a stage's clusters.
    pub(super) fn forget_past(&mut self) {
        let Some(record) = &self.deployment.standing.stage else {
            return;
        };
        if record.passed.is_empty() {
            return;
        }
        let now = self.to_go_past(self.stages.len().saturating_sub(1));
        let listened = |name: &StageName| {
            let group = self.stages.iter().find(|it| &it.divided.stage.name == name);
            group.is_some_and(|group| group.tally.of(Flag::Unheard) == 0)
        };
        let least = |passed: &Passed| match now.iter().find(|it| it.stage == passed.stage) {
            Some(now) if listened(&passed.stage) => Passed {
                stage: passed.stage.clone(),
                suspects: passed.suspects.min(now.suspects),
                failed: passed.failed.min(now.failed),
            },
            _ => passed.clone(),
        };
        let passed = record.passed.iter().map(least).collect();
        if let Some(record) = &mut self.deployment.standing.stage {
            record.passed = passed;
        }
    }

    /// Suspects of a stage that hold a place: the policy may ignore such.
    fn holding(&self, group: &Group) -> u32 {
        match self.deployment.policy.offline.after_update {
            AfterUpdate::Ignore => 0,
            AfterUpdate::Wait | AfterUpdate::Fail => group.tally.of(Flag::Suspect),
        }
    }

    /// Whom a person goes on past now, in each stage up to this one.
    pub(super) fn to_go_past(&self, index: usize) -> Vec<Passed> {
        let current = self.record(|record| wide(record.index)).unwrap_or(0);
        let stages = self.stages.iter().enumerate();
        let past = stages.take(index.saturating_add(1)).map(|(place, group)| {
            let failing = self.failing(place, current).of(Flag::Failing);
            let stage = &group.divided.stage;
            Passed {
                stage: stage.name.clone(),
                suspects: self.holding(group),
                failed: failing.saturating_sub(stage.max_failures),
            }
        });
        past.collect()
    }

    /// Whether any stage stands, or is slow, for clusters that fell silent after they were given the revision.
    pub(super) fn has_suspects(&self) -> bool {
        let stages = self.stages.iter().enumerate();
        let mut holding = stages.map(|(place, group)| (self.holding(group), place));
        holding.any(|(holding, place)| holding > self.past_at(place).suspects)
    }

    /// Failures of clusters that now belong to later stages count for the stage that is current now: a person went past
    /// those too.
    pub(super) fn carry_past(&mut self, from: usize) {
        let next = from.saturating_add(1);
        let later = self.stages.iter().skip(next);
        let failing = later.map(|group| group.tally.of(Flag::Failing));
        let failing = failing.fold(0, u32::saturating_add);
        let Some(stage) = self.stages.get(next).map(|group| &group.divided.stage) else {
            return;
        };
        let passed = Passed {
            stage: stage.name.clone(),
            suspects: 0,
            failed: failing.saturating_sub(stage.max_failures),
        };
        if let Some(record) = &mut self.deployment.standing.stage
            && passed.failed > 0
        {
            record.passed.retain(|it| it.stage != passed.stage);
            record.passed.push(passed);
        }
    }
}
