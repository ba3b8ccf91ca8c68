//! Decisions, pure: no clock, no I/O, no kube, no tokio, no wasmtime.

pub mod ids;
pub mod verdict;
