//! Integration tests of the node agent: real child processes, real modules, real sockets.

mod host_client;
mod host_limits;
mod host_preflight;
mod host_rest;
mod host_support;
mod host_traffic;
