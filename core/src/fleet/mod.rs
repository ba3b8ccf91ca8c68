//! The fleet's plan: which cluster runs which revision, who is next, who waits and why.
//!
//! Owns every decision of the hub. Pure: the same three arguments give the same plan, always.
//! Must never read a clock, a file, the environment or the network, nor hold an API object.

mod advance;
mod budget;
mod conditions;
mod endpoints;
mod entries;
mod explain;
mod outcome;
mod plan;
mod rollback;
mod room;
mod site;
mod stages;
mod types;
mod waiting;

pub use outcome::{
    Condition, Conditions, DeploymentPlan, FAILURES_MAX, OutcomeChange, PassedBecause, Plan,
    Refusal, Transition,
};
pub use plan::plan;
pub use stages::{StageGroup, stage_groups};
pub use types::{
    Action, Amount, Cluster, Connection, Deployment, Desired, ENTRIES_BYTES_MAX, ENTRIES_MAX,
    Entry, Members, ModelReport, OFFLINE_GRACE_SECONDS_DEFAULT, Observed, Offline, OfflineMode,
    OnFailure, Outcome, Placement, Policy, Report, Revision, Stage, StagePhase, StageRecord,
};
pub use waiting::Waiting;
