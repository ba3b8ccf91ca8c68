//! The harness of the demo and of every end-to-end story: real processes, on loopback, that never
//! outlive it.
//!
//! Owns starting, stopping, killing and watching the real parts: a K3s-shaped control plane (API server,
//! kine on SQLite, controller manager), registries, cosign, kubectl, and Rimward's own binaries. It never
//! stands in for any of them, and it decides nothing that the product decides.
//!
//! What it promises, whichever way the process ends (a test that fails, Ctrl-C, SIGTERM, even kill -9 for
//! all but folders): no process that it started stays, and no folder either, except those of a story that
//! failed, which are named in the output.

pub mod audit;
pub mod certs;
pub mod command;
pub mod control_plane;
pub mod cosign;
pub mod device;
pub mod digits;
pub mod fleet;
pub mod guard;
pub mod helm;
pub mod http;
pub mod image_push;
pub mod images;
pub mod installed;
pub mod kubeconfig;
pub mod kubectl;
pub mod load;
pub mod node;
pub mod ports;
pub mod process;
pub mod registry;
pub mod rimward;
pub mod scratch;
pub mod service;
pub mod simulated;
pub mod story;
pub mod system;
pub mod tamper;
pub mod tools;
pub mod wait;

pub use control_plane::ControlPlane;
pub use cosign::Cosign;
pub use fleet::Fleet;
pub use helm::Helm;
pub use kubectl::Kubectl;
pub use process::Process;
pub use registry::Registry;
pub use scratch::Scratch;
pub use service::Service;
pub use story::{Story, story};
pub use wait::{Seen, wait_for};
