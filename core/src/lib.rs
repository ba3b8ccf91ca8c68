//! Decisions, pure: no clock, no I/O, no kube, no tokio, no wasmtime.

pub mod cluster;
pub mod definitions;
pub mod fleet;
pub mod ids;
pub mod lint;
pub mod node;
pub mod sample;
pub mod selector;
pub mod summary;
pub mod time;
pub mod variant;
pub mod verdict;
