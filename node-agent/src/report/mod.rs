//! What this node tells: the only writer of its status.
//!
//! Owns EdgeNode, its status, its Lease and its events, or the status file. Must never decide: a
//! picture comes in, and is written where it differs from what is there.

pub mod cluster;
mod events;
pub mod file;
pub mod picture;
mod status;

pub use cluster::Cluster;
pub use picture::Picture;
