//! Integration tests of the node agent: real child processes, real modules, real sockets.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    unreachable_pub,
    reason = "helpers of tests fail as tests do"
)]

mod host_client;
mod host_connections;
mod host_limits;
mod host_orphans;
mod host_preflight;
mod host_rest;
mod host_room;
mod host_support;
mod host_traffic;
mod host_trial;
