//! Tests of the decisions: tables for the words, laws over any state, and a seeded fleet.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test may fail loudly")]

mod action_words;
mod bake_words;
mod choices;
mod cluster_laws;
mod cluster_silence;
mod cluster_words;
mod device;
mod failure_words;
mod fixtures;
mod fleet_laws;
mod fleet_words;
mod hearing_words;
mod hub;
mod laws;
mod leader;
mod member_words;
mod no_traffic;
mod node_fixtures;
mod outpost;
mod past_words;
mod people;
mod policy_words;
mod silence_words;
mod silent_node;
mod simulation;
mod site;
mod truth;
mod world;
