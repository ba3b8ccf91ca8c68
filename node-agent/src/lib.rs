//! Rimward's node agent: one binary, three processes (supervisor, host, preflight).

pub mod proto;
pub mod store;
