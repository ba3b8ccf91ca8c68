//! Rimward's node agent: one binary, three processes (supervisor, host, preflight).

pub mod child;
pub mod facts;
pub mod host;
pub mod parse;
pub mod preflight;
pub mod proto;
pub mod report;
pub mod store;
pub mod supervisor;
