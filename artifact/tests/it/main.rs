//! Tests of packages, trust and the registry client, named after what they protect.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod access;
mod build;
mod cosign;
mod fetch;
mod server;
mod sink;
mod support;
mod transfer;
mod trust;
mod verify;
