//! The plan of one edge cluster: which nodes get the go-ahead now, and what the cluster reports.
//!
//! Owns every decision of a sync session about nodes. It needs nothing from the hub but the mirrored
//! entries, so pacing goes on while the hub is away. Pure, like all of `core`.

mod decide;
mod member;
mod plan;
mod progress;
mod removal;
mod report;
mod types;
mod waiting;

pub use plan::plan;
pub use types::{
    Assigned, GoAhead, Hearing, Node, NodeModel, NodeReport, NodeState, Observed, PASSED_MAX,
    PROGRESS_DEADLINE_EXCEEDED, Plan, Progress, Used,
};
pub use waiting::{NodeWaiting, Stop};
