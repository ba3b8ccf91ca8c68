//! The host: sandboxes, inference engines and the endpoint, in a process without credentials.
//!
//! Owns everything between a client's request and its answer. Never fetches, verifies, compiles or
//! decides: it loads what the supervisor hands over and routes as it is told.

pub mod backend;
pub mod contract;
pub mod engine;
pub mod native;
pub mod sandbox;
pub mod tensor;

/// The module of packages that have none: hands tensors to the model and back without a copy.
pub static PASS_THROUGH: &[u8] = include_bytes!("../../../wasm-models/modules/passthrough.wasm");
