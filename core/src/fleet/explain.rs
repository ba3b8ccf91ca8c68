//! How a deployment stands, in counts, refusals and the first of its reasons.
//!
//! Owns the mapping from counts to what people read. Decides nothing: every reason was found with its decision.

use super::class::Flag;
use super::conditions::conditions;
use super::context::Course;
use super::ledger::Ledgers;
use super::outcome::{DeploymentPlan, Refusal};
use super::rollout::Rollout;
use super::target::{Refused, Sight};
use crate::ids::ClusterName;
use crate::summary::Counts;
use crate::time::Timestamp;

impl Rollout {
    /// Says how the deployment stands; what is new in it is told once.
    pub(super) fn say(&mut self, ledgers: &Ledgers, now: Timestamp) -> DeploymentPlan {
        let first = self
            .open
            .first()
            .map(|(_, name)| name.clone())
            .and_then(|name| {
                let because = self.decision(&name, ledgers, now)?.because?;
                Some((name, because))
            });
        let refusals = self.refusals(first.as_ref().map(|(name, _)| name));
        let total = self.total();
        let conditions = conditions(self, &total, first.as_ref(), &refusals);
        let record = self.deployment.standing.stage.as_ref();
        DeploymentPlan {
            standing: self.deployment.standing.clone(),
            outcomes: std::mem::take(&mut self.outcomes),
            attempt: record.map(|record| (record.revision.clone(), record.attempt)),
            clusters: Counts {
                desired: total.of(Flag::Member),
                updated: total.of(Flag::Updated),
                pending: total.of(Flag::Pending),
                held: total.of(Flag::Held),
                silent: total.of(Flag::Silent),
                suspect: total.of(Flag::Suspect),
                failed: total.of(Flag::Failed),
                rolled_back: total.of(Flag::RolledBack),
                ready: total.of(Flag::Serving),
            },
            nodes: self.nodes,
            open: u32::try_from(self.open.len()).unwrap_or(u32::MAX),
            first,
            gate: self.gate.clone(),
            refusals,
            transitions: std::mem::take(&mut self.transitions),
            conditions,
        }
    }

    /// What is decided for one cluster.
    pub(super) fn decision(
        &self,
        name: &ClusterName,
        ledgers: &Ledgers,
        now: Timestamp,
    ) -> Option<super::Decision> {
        let (kept, ledger) = (self.targets.get(name)?, ledgers.get(name)?);
        let sight = Sight {
            target: &kept.target,
            facts: ledger.facts(self.grace_seconds(), now),
        };
        Some(super::Decision {
            entry: sight.entry().cloned(),
            because: self.because(&sight, kept.judged),
        })
    }

    fn refusals(&self, first: Option<&ClusterName>) -> Vec<Refusal> {
        let mut refusals = Vec::new();
        if self.context.course == Course::Away {
            return refusals;
        }
        let total = self.total();
        if total.of(Flag::Member) == 0 {
            refusals.push(Refusal::NoClusters);
        }
        if let Some(undo) = &self.deployment.standing.undo {
            refusals.push(Refusal::Undone {
                from: undo.from.clone(),
                to: undo.to.clone(),
                deployment: self.key.name.clone(),
            });
        }
        if let (Some(message), Some(update)) = (&self.failed, &self.context.update) {
            let aborted = self
                .deployment
                .standing
                .stage
                .as_ref()
                .is_some_and(|record| record.aborted);
            refusals.push(if aborted || self.context.stopped {
                Refusal::Stopped {
                    aborted,
                    message: message.clone(),
                }
            } else {
                Refusal::RevisionFailed {
                    revision: update.clone(),
                    message: message.clone(),
                }
            });
        }
        // Clusters that are refused alone stop the deployment only when nothing else is left to do.
        let refused = total
            .of(Flag::NameTaken)
            .saturating_add(total.of(Flag::TooLarge));
        if refused > 0 && total.of(Flag::Unready) <= refused {
            refusals.extend(first.and_then(|name| self.refused_alone(name)));
        }
        refusals
    }

    fn refused_alone(&self, name: &ClusterName) -> Option<Refusal> {
        Some(match self.targets.get(name)?.target.refused.as_ref()? {
            Refused::NameTaken(by) => Refusal::EndpointNameTaken {
                endpoint: self.deployment.endpoint_name.clone(),
                by: by.clone(),
                cluster: name.clone(),
            },
            Refused::TooLarge => Refusal::AssignmentTooLarge {
                cluster: name.clone(),
            },
        })
    }
}
