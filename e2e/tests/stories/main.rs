//! The end-to-end stories: one per file, on real parts.

mod control_plane;
mod fleet;
mod guard;
mod crds;
