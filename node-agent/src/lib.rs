//! Rimward's node agent: one binary, three processes (supervisor, host, preflight).

pub mod agent;
pub mod child;
pub mod cli;
pub mod definition;
pub mod facts;
mod handover;
pub mod host;
pub mod manifests;
mod orphans;
pub mod parse;
pub mod preflight;
pub mod prepare;
mod probes;
pub mod proto;
pub mod report;
pub mod store;
pub mod supervisor;
pub mod watch;
