//! The words of a RolloutPolicy.
//!
//! Owns what a policy may say, and what is right for someone who says nothing. Decides nothing.

use serde::{Deserialize, Serialize};

use crate::ids::StageName;
use crate::selector::Selector;

/// How long a cluster may be silent before it is offline, where nobody says.
pub const OFFLINE_GRACE_SECONDS_DEFAULT: u32 = 300;

/// How a rollout goes through the fleet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// The stages, in order; clusters that none names form a last one.
    pub stages: Vec<Stage>,
    /// `nodes.maxUnavailable`: for the pacing inside each cluster.
    pub nodes_max_unavailable: Amount,
    /// `nodes.maxFailures`: nodes of one cluster that may be condemned or suspect.
    pub nodes_max_failures: u32,
    /// What a silent cluster means.
    pub offline: Offline,
    /// What a cluster means that its site keeps back.
    pub hold: Hold,
    /// How many clusters may be going back at once.
    pub rollback_max_concurrency: Amount,
    /// What condemned content means.
    pub on_failure: OnFailure,
}

impl Default for Policy {
    /// No policy: one stage, one cluster at a time, no failure allowed, everything goes back.
    fn default() -> Self {
        Self {
            stages: Vec::new(),
            nodes_max_unavailable: Amount::ONE,
            nodes_max_failures: 0,
            offline: Offline::default(),
            hold: Hold::default(),
            rollback_max_concurrency: Amount::ALL,
            on_failure: OnFailure::RollbackAll,
        }
    }
}

/// One stage of a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stage {
    /// Its name, unique in the policy.
    pub name: StageName,
    /// Which clusters it takes.
    pub members: Members,
    /// How many of its clusters may be on their way at once.
    pub max_concurrency: Amount,
    /// How many of its clusters may be unavailable at once; none: only `max_concurrency` bounds them.
    pub max_unavailable: Option<Amount>,
    /// How many of its clusters may fail before the rollout stops.
    pub max_failures: u32,
    /// How many of its clusters must have proven the revision; none: all that are heard.
    pub min_proven: Option<Amount>,
    /// Passes though its selector matches no cluster.
    pub allow_empty: bool,
    /// How long all its clusters must have been heard, updated and ready, before the next stage.
    pub bake_seconds: u32,
    /// How long a node may take, measured on the edge in heard seconds.
    pub progress_deadline_seconds: Option<u32>,
}

impl Stage {
    /// The stage of the clusters that no stage names: one at a time, no failure allowed.
    pub(super) fn last(only: bool) -> Self {
        Self {
            name: StageName::fixed(if only { "all" } else { "remaining" }),
            members: Members::Percent(100),
            max_concurrency: Amount::ONE,
            max_unavailable: None,
            max_failures: 0,
            min_proven: None,
            allow_empty: false,
            bake_seconds: 0,
            progress_deadline_seconds: None,
        }
    }
}

/// Which clusters a stage takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// Those that match and that no earlier stage took.
    Selector(Selector),
    /// So many of the placement that, with the earlier stages, this number is reached.
    Count(u32),
    /// So many that, with the earlier stages, this percentage of the placement is reached, rounded up.
    Percent(u32),
}

/// A number of clusters or nodes: absolute, or a percentage of a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Amount {
    /// So many.
    Count(u32),
    /// So many percent of the group.
    Percent(u32),
}

impl Amount {
    /// One at a time: the default of most budgets.
    pub const ONE: Self = Self::Count(1);
    /// The whole group.
    pub const ALL: Self = Self::Percent(100);

    /// The budget for a group of `total`: rounded down, at least 1.
    #[must_use]
    pub fn of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => share(percent, total) / 100,
        }
        .max(1)
    }

    /// The floor for a group of `total`: rounded up, at least 1, and no more than there are.
    #[must_use]
    pub fn floor_of(self, total: usize) -> usize {
        match self {
            Self::Count(count) => usize::try_from(count).unwrap_or(usize::MAX),
            Self::Percent(percent) => share(percent, total).div_ceil(100),
        }
        .min(total)
        .max(1)
    }
}

fn share(percent: u32, total: usize) -> usize {
    let percent = usize::try_from(percent.min(100)).unwrap_or(100);
    total.saturating_mul(percent)
}

/// What a silent cluster means for a rollout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offline {
    /// One that was silent before the revision could reach it.
    pub before_update: BeforeUpdate,
    /// One that fell silent after the revision may have reached it.
    pub after_update: AfterUpdate,
    /// How long without a heartbeat before a cluster is silent.
    pub grace_seconds: u32,
}

impl Default for Offline {
    fn default() -> Self {
        Self {
            before_update: BeforeUpdate::default(),
            after_update: AfterUpdate::default(),
            grace_seconds: OFFLINE_GRACE_SECONDS_DEFAULT,
        }
    }
}

/// What a cluster means that was silent before it was exposed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum BeforeUpdate {
    /// It costs no budget, proves nothing, and gets what is right by then when it returns.
    #[default]
    Skip,
    /// Its stage waits for it.
    Wait,
}

/// What a cluster means that fell silent after it was exposed. It is never a proof.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AfterUpdate {
    /// Its stage waits for it; it keeps its place in the budgets.
    #[default]
    Wait,
    /// It counts as failed, and keeps its place in the budgets.
    Fail,
    /// Its place is free again: for fleets where going dark is daily life.
    Ignore,
}

/// What a cluster means that its site keeps back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Hold {
    /// What becomes of it after `deadline_seconds`.
    pub mode: HoldMode,
    /// Seconds of the rollout after which `mode` applies, as the hub's leaders counted them.
    pub deadline_seconds: u32,
}

/// What becomes of a held cluster in the end.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HoldMode {
    /// It is left alone for as long as it is held.
    #[default]
    Respect,
    /// It counts as failed.
    Fail,
    /// It is updated all the same, unless it is paused or its identity is contested.
    Ignore,
}

/// What happens when content is condemned on more clusters than a stage allows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum OnFailure {
    /// Nothing moves forward any more, until the spec asks for another revision.
    Pause,
    /// Every cluster goes back to the promoted revision, or removes the model if there is none.
    #[default]
    RollbackAll,
}
