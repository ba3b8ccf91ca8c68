//! What is decided for one cluster: its entry, and why it is where it is.
//!
//! Owns the one place that works a reason out: words, conditions and events are made from it alone.

use std::cmp::Ordering;

use super::because::{Because, SuspectPlace};
use super::class::Flag;
use super::classify::{Judged, Want};
use super::context::{Context, Course, Motion};
use super::ledger::removal_budget;
use super::rollout::Rollout;
use super::target::{Refused, Sight};
use super::types::{Action, Entry, Hearing};
use crate::ids::RevisionName;

/// What is decided for one cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decision {
    /// The entry that its assignment shall have; none: it shall have none.
    pub entry: Option<Entry>,
    /// Why it is not where the spec wants it; none when it is.
    pub because: Option<Because>,
}

impl Rollout {
    /// Why a target is not where the spec wants it; none if it is.
    pub(super) fn because(&self, sight: &Sight<'_>, judged: Judged) -> Option<Because> {
        let context = &self.context;
        if context.course == Course::Away {
            return sight.entry().map(|_| Because::Removing);
        }
        if sight.target.place.is_none() {
            return self.leaving(sight);
        }
        let Some(update) = &context.update else {
            return Some(self.in_the_way(sight).unwrap_or(Because::NotResolved));
        };
        let class = judged.class;
        if class.has(Flag::Condemned) {
            return Some(failure(sight, update));
        }
        if class.has(Flag::Suspect) {
            return Some(Because::Suspect {
                revision: update.clone(),
                after: self.deployment.policy.offline.after_update,
                place: self.suspect_place(sight),
                deployment: self.key.name.clone(),
            });
        }
        let forward = matches!(
            context.course,
            Course::Forward | Course::Undone | Course::None
        );
        if let Some(refused) = &sight.target.refused {
            return Some(match refused {
                Refused::NameTaken(by) => Because::EndpointNameTaken { by: by.clone() },
                Refused::TooLarge => Because::AssignmentTooLarge,
            });
        }
        if forward && sight.settled(update) {
            return None;
        }
        if let Some(blocked) = self.in_the_way(sight) {
            return Some(blocked);
        }
        if !forward {
            return Some(self.taken_back(sight, update, judged));
        }
        if class.has(Flag::TimedOut) {
            let report = sight.about_order();
            return Some(Because::TimedOut {
                revision: update.clone(),
                reason: report.map(|it| it.reason.clone()).unwrap_or_default(),
                problem: report.and_then(|it| it.problems.first().cloned()),
                deployment: self.key.name.clone(),
            });
        }
        if let Some(silence) = self.silence(sight, judged) {
            return Some(silence);
        }
        if let Some(reason) = sight
            .facts
            .held
            .filter(|_| context.respects_hold(self.deployment.policy.hold.mode))
            && !sight.runs(update)
        {
            return Some(Because::Held {
                reason: reason.to_owned(),
            });
        }
        if sight.runs(update) && context.attempted(sight, update) {
            return on_its_way(sight, update);
        }
        Some(self.not_given(sight, update, judged))
    }

    /// How the rollout stands to a suspect's stage.
    fn suspect_place(&self, sight: &Sight<'_>) -> SuspectPlace {
        let place = sight.target.place.unwrap_or_default();
        let released = self.context.released;
        match self.context.past(place).suspects {
            0 if released == usize::MAX => SuspectPlace::Present,
            0 => match place.saturating_add(1).cmp(&released) {
                Ordering::Less => SuspectPlace::Passed,
                Ordering::Equal => SuspectPlace::Present,
                Ordering::Greater => SuspectPlace::Ahead,
            },
            count => SuspectPlace::GonePast(count),
        }
    }

    /// What keeps every cluster where it is.
    fn in_the_way(&self, sight: &Sight<'_>) -> Option<Because> {
        if self.deployment.paused {
            return Some(Because::DeploymentPaused);
        }
        if sight.facts.paused {
            return Some(Because::ClusterPaused);
        }
        self.context
            .doubt
            .filter(|_| self.context.motion == Motion::Frozen)
            .map(|doubt| Because::Doubt {
                silent: doubt.silent,
                of: doubt.of,
                deployment: self.key.name.clone(),
            })
    }

    fn leaving(&self, sight: &Sight<'_>) -> Option<Because> {
        let entry = sight.entry()?;
        if let Some(blocked) = self.in_the_way(sight) {
            return Some(blocked);
        }
        Some(match entry.action {
            Action::Remove => Because::Removing,
            Action::Run => Because::RemovalPaced {
                removing: self.outside.of(Flag::Removing),
                max: removal_budget(&self.deployment.policy, self.targets.len()),
            },
        })
    }

    fn silence(&self, sight: &Sight<'_>, judged: Judged) -> Option<Because> {
        match sight.facts.hearing {
            Hearing::NeverJoined => Some(Because::NeverJoined),
            Hearing::Silent => Some(Because::Silent {
                grace_seconds: self.grace_seconds(),
                awaited: judged.class.has(Flag::Awaited),
            }),
            Hearing::Unheard => Some(Because::Unheard),
            Hearing::Heard if sight.nodes_away() => Some(Because::NodesAway {
                desired: sight
                    .target
                    .report
                    .as_ref()
                    .map_or(0, |it| it.nodes.desired),
                awaited: judged.class.has(Flag::Awaited),
            }),
            Hearing::Heard => None,
        }
    }

    /// The content was condemned, or a person took it back.
    fn taken_back(&self, sight: &Sight<'_>, update: &RevisionName, judged: Judged) -> Because {
        let failed = update.clone();
        if self.context.course == Course::Pause {
            return Because::Paused { failed };
        }
        if judged.want == Some(Want::Back) {
            let total = self.total();
            let members = usize::try_from(total.of(Flag::Member)).unwrap_or(usize::MAX);
            return Because::RollbackPaced {
                moving: total.of(Flag::GoingBack),
                max: self.deployment.policy.rollback_max_concurrency.of(members),
            };
        }
        match (sight.entry(), &self.context.current) {
            (Some(entry), _) if entry.action == Action::Remove => Because::Removing,
            (Some(entry), Some(current)) if &entry.revision == current => {
                if sight.arrived(current) {
                    return Because::RolledBack {
                        failed,
                        on: current.clone(),
                    };
                }
                let counts = sight
                    .about_order()
                    .map(|report| report.nodes)
                    .unwrap_or_default();
                Because::RollingBack {
                    from: failed,
                    to: current.clone(),
                    updated: counts.updated,
                    desired: counts.desired,
                }
            }
            (Some(entry), _) => Because::RolledBack {
                failed,
                on: entry.revision.clone(),
            },
            (None, _) => Because::NothingToRun { failed },
        }
    }

    /// It has not the order that it will have.
    fn not_given(&self, sight: &Sight<'_>, update: &RevisionName, judged: Judged) -> Because {
        let context: &Context = &self.context;
        let place = sight.target.place.unwrap_or_default();
        let stage = |at: usize| self.stages.get(at).map(|it| it.divided.stage.name.clone());
        let record = self.deployment.standing.stage.as_ref();
        let current = record.map(|record| record.name.clone());
        if context.stopped {
            return Because::Stopped {
                revision: update.clone(),
                stage: current
                    .or_else(|| stage(0))
                    .unwrap_or_else(|| crate::ids::StageName::fixed("all")),
                deployment: self.key.name.clone(),
            };
        }
        if context.listening {
            return Because::Listening;
        }
        if let (Some(Want::Forward), Some(group)) = (judged.want, self.stages.get(place)) {
            return group.denial(context.past(place));
        }
        match (stage(place), current.or_else(|| stage(0))) {
            (Some(stage), Some(current)) if place >= context.released => {
                Because::StageNotReached { stage, current }
            }
            _ => Because::NotReported,
        }
    }
}

fn failure(sight: &Sight<'_>, update: &RevisionName) -> Because {
    let report = sight.about_order();
    Because::Failed {
        revision: update.clone(),
        reason: report.map(|it| it.reason.clone()).unwrap_or_default(),
        problem: report.and_then(|it| it.problems.first().cloned()),
    }
}

/// It has its order and is not done with it, as far as it said.
fn on_its_way(sight: &Sight<'_>, update: &RevisionName) -> Option<Because> {
    let Some(report) = sight.about_order() else {
        return Some(Because::NotReported);
    };
    let nodes = report.nodes;
    let expected = nodes.desired.saturating_sub(nodes.silent);
    let problem = report.problems.first().cloned();
    let quiet = nodes.silent.saturating_add(nodes.suspect);
    if nodes.held > 0 && nodes.updated.saturating_add(nodes.held) >= expected {
        return Some(Because::NodesHeld {
            held: nodes.held,
            desired: nodes.desired,
            problem,
        });
    }
    if expected > 0 && nodes.updated >= expected {
        return Some(Because::NotReady {
            revision: update.clone(),
            ready: nodes.ready,
            desired: nodes.desired,
        });
    }
    if nodes.desired > 0 && nodes.updated.saturating_add(quiet) >= nodes.desired {
        return Some(Because::NodesSilent {
            silent: quiet,
            desired: nodes.desired,
            problem,
        });
    }
    Some(Because::Updating {
        revision: update.clone(),
        updated: nodes.updated,
        desired: nodes.desired,
        problem,
    })
}
