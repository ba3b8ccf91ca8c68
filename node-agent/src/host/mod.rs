//! The host: sandboxes, inference engines and the endpoint, in a process without credentials.
//!
//! Owns everything between a client's request and its answer. Never fetches, verifies, compiles or
//! decides: it loads what the supervisor hands over and routes as it is told.

pub mod backend;
pub mod contract;
mod control;
pub mod engine;
pub mod native;
mod routes;
pub mod sandbox;
pub mod serve;
mod slot;
mod stats;
pub mod tensor;
mod trial;
mod watch;

pub use control::main;

/// The module of packages that have none: hands tensors to the model and back without a copy.
pub static PASS_THROUGH: &[u8] = include_bytes!("../../../wasm-models/modules/passthrough.wasm");
