//! What a stage needs before the next one begins: a list of gates, each of which passes, waits or fails.
//!
//! Owns what counts as evidence and as failure. Bakes are here now; approvals, waits and analyses will be
//! further gates. Pure: counts in, an answer out.

use super::class::{Flag, Tally};
use super::context::Past;
use super::outcome::PassedBecause;
use super::policy::{AfterUpdate, Amount, Members, Policy, Stage};
use super::stages::Divided;
use crate::ids::StageName;

/// A gate's answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gate {
    Pass,
    Wait(GateWait),
    Fail(Failure),
}

/// Too many of a stage's clusters failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// Content was condemned: final.
    Condemned { failed: u32 },
    /// Time, silence or a hold that lasted too long: open to `retry`.
    Stopped { failed: u32 },
}

/// What a stage as a whole waits for. (What its clusters wait for is told cluster by cluster.)
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GateWait {
    /// The hub doubts its own ears.
    #[error(
        "{silent} of {of} clusters fell silent at once, so the hub doubts its own ears and moves nothing until they are back; to go on all the same type: kubectl rimward promote {deployment}"
    )]
    Doubt {
        /// Clusters that fell silent.
        silent: u32,
        /// Clusters heard before.
        of: u32,
        /// What a person types.
        deployment: crate::ids::DeploymentName,
    },
    /// No cluster belongs to it.
    #[error(
        "stage {stage} selects no cluster of the placement; correct its selector, set allowEmpty, or type: kubectl rimward promote {deployment}"
    )]
    Empty {
        /// The stage.
        stage: StageName,
        /// What a person types.
        deployment: crate::ids::DeploymentName,
    },
    /// None of its clusters is heard.
    #[error(
        "no cluster of stage {stage} is heard, so nothing proves the revision; it waits until one answers, or type: kubectl rimward promote {deployment}"
    )]
    NoneHeard {
        /// The stage.
        stage: StageName,
        /// What a person types.
        deployment: crate::ids::DeploymentName,
    },
    /// Clusters fell silent after they were given the revision.
    #[error(
        "stage {stage} stands: {count} of its clusters fell silent after they were given the revision; bring them back, or type: kubectl rimward promote {deployment} (go on), kubectl rimward abort {deployment} (take it back)"
    )]
    Suspects {
        /// The stage.
        stage: StageName,
        /// How many.
        count: u32,
        /// What a person types.
        deployment: crate::ids::DeploymentName,
    },
    /// Silent clusters that the policy waits for.
    #[error(
        "stage {stage} waits for {count} silent clusters (offline.beforeUpdate: Wait); to go on without them type: kubectl rimward promote {deployment}"
    )]
    Awaited {
        /// The stage.
        stage: StageName,
        /// How many.
        count: u32,
        /// What a person types.
        deployment: crate::ids::DeploymentName,
    },
    /// This leader has not heard all clusters yet.
    #[error("stage {stage} waits until {count} of its clusters are heard again or count as silent")]
    Unheard {
        /// The stage.
        stage: StageName,
        /// How many.
        count: u32,
    },
    /// Not enough proofs yet.
    #[error(
        "{proven} of {needed} clusters of stage {stage} have proven the revision; to go on all the same type: kubectl rimward promote {deployment}"
    )]
    Proofs {
        /// The stage.
        stage: StageName,
        /// How many have.
        proven: u32,
        /// How many must.
        needed: u32,
        /// What a person types.
        deployment: crate::ids::DeploymentName,
    },
    /// Time must pass.
    #[error("stage {stage} bakes for {seconds} s during which its clusters are heard")]
    Baking {
        /// The stage.
        stage: StageName,
        /// How long in all.
        seconds: u32,
    },
}

impl GateWait {
    /// Whether it may last until a person acts.
    #[must_use]
    pub const fn needs_a_person(&self) -> bool {
        matches!(
            self,
            Self::Doubt { .. }
                | Self::Empty { .. }
                | Self::NoneHeard { .. }
                | Self::Suspects { .. }
        )
    }

    /// CamelCase reason, from a closed list.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Doubt { .. } => "HubDoubtsItself",
            Self::Empty { .. } => "StageEmpty",
            Self::NoneHeard { .. } => "NoneHeard",
            Self::Suspects { .. } => "Suspect",
            Self::Awaited { .. } => "Offline",
            Self::Unheard { .. } => "Unheard",
            Self::Proofs { .. } => "MinProven",
            Self::Baking { .. } => "Baking",
        }
    }
}

/// A stage with its counts, and whether a person passed it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Seen<'a> {
    pub(super) stage: &'a Divided,
    pub(super) tally: &'a Tally,
    pub(super) policy: &'a Policy,
    pub(super) deployment: &'a crate::ids::DeploymentName,
    pub(super) past: Past,
}

/// Judges failures. `tally` counts the stage's clusters, and those of later stages that have the revision.
pub(super) fn failures(stage: &Stage, tally: &Tally, past: Past) -> Option<Failure> {
    let condemned = tally.of(Flag::Condemned);
    if condemned > stage.max_failures {
        return Some(Failure::Condemned { failed: condemned });
    }
    let failed = tally.of(Flag::Failing);
    let counted = failed.saturating_sub(past.failed);
    (counted > stage.max_failures).then_some(Failure::Stopped { failed })
}

/// Why a stage whose gates pass is passed.
pub(super) fn because(divided: &Divided, tally: &Tally) -> PassedBecause {
    if tally.of(Flag::Member) > 0 {
        PassedBecause::Done
    } else if means_nobody(divided) {
        PassedBecause::Empty
    } else {
        PassedBecause::Reached
    }
}

/// Its selector matches no cluster at all; other stages without clusters merely came to what earlier ones took.
fn means_nobody(divided: &Divided) -> bool {
    divided.matches_none && matches!(divided.stage.members, Members::Selector(_))
}

/// Judges the evidence: living proofs, and nobody left who has to be waited for.
pub(super) fn evidence(seen: Seen<'_>) -> Gate {
    let Seen {
        stage: divided,
        tally,
        policy,
        deployment,
        past,
    } = seen;
    let stage = &divided.stage;
    let count = |flag| tally.of(flag);
    let (name, deployment) = (stage.name.clone(), deployment.clone());
    let members = count(Flag::Member);
    if members == 0 {
        if means_nobody(divided) && !stage.allow_empty {
            return Gate::Wait(GateWait::Empty {
                stage: name,
                deployment,
            });
        }
        return Gate::Pass;
    }
    let suspects = count(Flag::Suspect);
    if suspects > past.suspects && policy.offline.after_update == AfterUpdate::Wait {
        return Gate::Wait(GateWait::Suspects {
            stage: name,
            count: suspects,
            deployment,
        });
    }
    if count(Flag::Unheard) > 0 {
        return Gate::Wait(GateWait::Unheard {
            stage: name,
            count: count(Flag::Unheard),
        });
    }
    if count(Flag::Awaited) > 0 {
        return Gate::Wait(GateWait::Awaited {
            stage: name,
            count: count(Flag::Awaited),
            deployment,
        });
    }
    if count(Flag::Heard) == 0 {
        return Gate::Wait(GateWait::NoneHeard {
            stage: name,
            deployment,
        });
    }
    let proven = count(Flag::Proven);
    let needed = match stage.min_proven {
        // A number is a number, however many are there.
        Some(Amount::Count(count)) => count,
        Some(share @ Amount::Percent(_)) => {
            let left_out = count(Flag::Skipped).saturating_add(count(Flag::KeptBack));
            let of = usize::try_from(members.saturating_sub(left_out)).unwrap_or(usize::MAX);
            u32::try_from(share.floor_of(of)).unwrap_or(u32::MAX)
        }
        None => count(Flag::Heard).saturating_sub(count(Flag::Excused)),
    }
    .max(1);
    if proven < needed {
        return Gate::Wait(GateWait::Proofs {
            stage: name,
            proven,
            needed,
            deployment,
        });
    }
    Gate::Pass
}
