//! The plan of one edge cluster: which nodes get the go-ahead now, and what the cluster reports.
//!
//! Owns every decision of a sync session about nodes. It needs nothing from the hub but the mirrored
//! entries, so pacing goes on while the hub is away. Pure, like all of `core`.

mod member;
mod pacing;
mod plan;
mod progress;
mod report;
mod types;
mod waiting;

pub use plan::plan;
pub use types::{
    Assigned, GoAhead, Node, NodeModel, NodeReport, NodeState, Observed,
    PROGRESS_DEADLINE_EXCEEDED, Plan, Progress,
};
pub use waiting::NodeWaiting;
