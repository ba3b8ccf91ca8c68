//! One module per command: `Args` for clap, and `run`.

pub(crate) mod act;
pub(crate) mod cluster;
pub(crate) mod explain;
pub(crate) mod get;
pub(crate) mod infer;
pub(crate) mod node;
pub(crate) mod package;
pub(crate) mod status;
pub(crate) mod verify;
