//! What a package is: its description, tensors and golden vectors, and how one is built from a folder.

pub mod config;
pub mod golden;
pub mod modelpack;
pub mod names;
pub mod path;
pub mod tensor;

pub use config::PackageConfig;
pub use golden::GoldenVectors;
pub use tensor::{Datatype, TensorSpec};
