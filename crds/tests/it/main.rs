//! What the kinds promise, without an API server: the real one judges the same samples in the end-to-end stories.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test that cannot go on panics"
)]

mod bounds;
mod generated;
mod parse;
mod samples;
