//! The sync session of one edge cluster, and the `edge` role that runs it in pull mode.
//!
//! Owns everything between a cluster's assignment on the hub and its nodes' specs. Must never decide
//! which cluster runs what (that is the hub) nor what a node does with it (that is its agent).

mod identity_conflict;
mod link;
mod liveness;
mod mirror;
mod nodes;
mod observe;
pub(crate) mod pace;
mod parse;
mod pauses;
mod progress;
mod reconcile;
mod role;
pub(crate) mod session;
mod status;
mod status_budget;
pub(crate) mod told;
pub(crate) mod unsettled;
mod watch;
mod write;

pub(crate) use role::{EdgeArgs, run};
