//! One module per command: `Args` for clap, and `run`.

pub(crate) mod cluster;
pub(crate) mod package;
pub(crate) mod verify;
