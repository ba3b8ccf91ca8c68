//! Tests of the decisions: tables for the words, laws over any state, and a seeded fleet.

mod choices;
mod cluster_words;
mod debug;
mod device;
mod fixtures;
mod fleet_words;
mod laws;
mod policy_words;
mod simulation;
mod site;
mod world;
