//! Rimward's node agent: one binary, three processes (supervisor, host, preflight).

pub mod child;
pub mod host;
pub mod preflight;
pub mod proto;
pub mod store;
