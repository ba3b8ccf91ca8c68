//! The command line as a user types it.
#![allow(clippy::unwrap_used, reason = "helpers of tests are tests too")]

mod package;
