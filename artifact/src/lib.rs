//! Packages: their format, who may sign them, and how they come from a registry.
//!
//! | module | owns |
//! |---|---|
//! | [`reference`] | `host/repository:tag@digest`, parsed |
//! | [`package`] | the package's config, tensors, golden vectors, and building one from a folder |
//! | [`manifest`] | the OCI manifest of a package, strict |
//! | [`trust`] | the device's trust file |
//! | [`verify`] | the decision whether a package may run here: pure, no clock, no I/O |
//! | [`registry`] | the bounded registry client |
//! | [`fetch`] | fetch, verify, and only then stream the layers |
//!
//! Everything here that comes from the network or from a package is hostile: bounded before it is parsed,
//! parsed once into types that cannot be wrong, and refused with an error that names file, field, limit and
//! value. This crate must never decide what runs *when*, keep state, or write to a device's store.

pub mod fetch;
pub mod hash;
pub mod json;
pub mod limits;
pub mod manifest;
pub mod media;
pub mod package;
pub mod reference;
pub mod registry;
mod text;
pub mod trust;
pub mod verify;

pub use limits::Limits;
pub use rimward_core::ids::Digest;
