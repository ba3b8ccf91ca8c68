//! Tests of packages, trust and the registry client, named after what they protect.

#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod build;
mod cosign;
mod hostile;
mod server;
mod support;
mod trust;
mod verify;
