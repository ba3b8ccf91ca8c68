//! The end-to-end stories: one per file, on real parts.

mod actions;
mod agent_alone;
mod cli;
mod control_plane;
mod crds;
mod edge_fleet;
mod edge_rights;
mod edge_session;
mod edge_world;
mod fleet;
mod guard;
mod hub_bounds;
mod hub_push;
mod hub_refusals;
mod hub_rollout;
mod hub_world;
mod killed_at_random;
mod leader;
mod prober;
mod pull_secret;
mod releases;
mod sandbox;
mod steady_state;
mod swaps_under_load;
mod trials;
mod twins;
