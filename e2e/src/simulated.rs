//! Many sites in one process, against a real hub: each has its own sync session on the wire and nodes that are in
//! memory only.
//!
//! Owns what a fleet of thousands looks like to a hub: a watch of its own for each site (by field selector, as its
//! own user), heartbeats with a start that is spread out, and status patches, in the form and under the field
//! manager that `operator/src/edge` has on the wire. Which node is next is `core::cluster::plan`'s to say, as on a
//! real site; nodes stage, try and commit after delays. It stands in for no part of a story that is about edge
//! clusters or devices: it is for stories and measurements of the hub.

mod device;
mod faults;
mod hub;
mod noted;
mod session;
mod site;
mod sites;
mod words;

pub use faults::{Faults, Reach, Timing};
pub use hub::{Hub, Parts, QUICK, TEAM, object};
pub use noted::{Came, Noted, SeenOrder};
pub use sites::{Counted, Plan, Sites};
