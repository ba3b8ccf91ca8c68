//! What a package is: its description, tensors and golden vectors, and how one is built from a folder.

pub mod build;
pub mod config;
pub mod golden;
pub mod half;
mod layout;
mod modelpack;
pub mod names;
pub mod path;
pub mod source;
pub mod tensor;

pub use build::{BuildError, BuiltBlob, BuiltPackage, build};
pub use config::PackageConfig;
pub use golden::GoldenVectors;
pub use tensor::{Datatype, TensorSpec};
