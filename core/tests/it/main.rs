//! Tests of the decisions: tables for the words, laws over any state, and a seeded fleet.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod choices;
mod cluster_words;
mod device;
mod failure_words;
mod fixtures;
mod fleet_words;
mod laws;
mod policy_words;
mod simulation;
mod site;
mod world;
