//! The end-to-end stories: one per file, on real parts.

mod control_plane;
mod edge_session;
mod fleet;
mod guard;
mod crds;
