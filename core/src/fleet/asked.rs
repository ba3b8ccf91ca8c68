//! What people asked of a rollout, decided in the order in which they did, but for what this leader cannot judge before
//! it has listened: that waits, and later things do not wait for it.
//!
//! Owns that each action is decided once, and noted with its effect. What each does is `action`'s.

use std::collections::BTreeMap;

use super::action::{self, Applied, DECIDED_MAX, Ground};
use super::class::Flag;
use super::doubt::Doubt;
use super::outcome::{OutcomeChange, PassedBecause, Transition};
use super::rollout::Rollout;
use super::stages::locate;
use super::types::Outcome;
use crate::ids::{RevisionName, StageName};

impl Rollout {
    pub(super) fn outcomes_known(&self) -> BTreeMap<RevisionName, Outcome> {
        let known = self.deployment.revisions.iter();
        known
            .map(|(name, revision)| (name.clone(), revision.outcome))
            .collect()
    }

    /// Notes what an action opened again, to be persisted.
    pub(super) fn note_reopened(&mut self, before: &BTreeMap<RevisionName, Outcome>) {
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

    /// Decides the actions that people asked for, in the order in which they did.
    pub(super) fn act(&mut self, doubt: Option<Doubt>, listening: bool) -> bool {
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
            let stages = self.stages_divided();
            let index = self.record(|record| locate(record, &stages)).unwrap_or(0);
            let total = self.total();
            let past = self.to_go_past(index);
            let ground = Ground {
                proven: total.of(Flag::Proven) > 0,
                unheard: listening || total.of(Flag::Unheard) > 0,
                suspects: self.has_suspects(),
                past: &past,
                last_stage: index + 1 >= self.stages.len(),
                settled: total.of(Flag::Unready) == 0 && self.failed.is_none(),
                doubt: doubt.is_some(),
            };
            let before = self.outcomes_known();
            let decided = action::decide(&self.key, &mut self.deployment, &request, ground);
            // This leader does not know enough yet.
            let Some((decided, applied)) = decided else {
                continue;
            };
            self.note_reopened(&before);
            if applied == Some(Applied::PassStage)
                && let Some(update) = self.deployment.effective_update().cloned()
            {
                self.pass(&update, index, PassedBecause::ByPerson);
                self.carry_past(index);
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
