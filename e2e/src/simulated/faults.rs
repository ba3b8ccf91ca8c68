//! What goes wrong in simulated sites, and how fast they are.
//!
//! Owns the words that stories and `cargo xtask fleet` steer sites by. Decides nothing.

use std::time::Duration;

/// Whether a site is to be reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Reach {
    /// It is.
    #[default]
    Connected,
    /// Its line is cut: nothing goes to the hub, its nodes go on with what they were told.
    Offline,
    /// It has no power: nothing goes on in it until it is back.
    Dead,
}

/// How fast sites are.
#[derive(Clone, Copy, Debug)]
pub struct Timing {
    /// Between two heartbeats of a site.
    pub heartbeat: Duration,
    /// The longest wait before the hub is tried again.
    pub retry_max: Duration,
    /// From a node's go-ahead to its trial.
    pub staging: Duration,
    /// From a trial to its end.
    pub trial: Duration,
    /// Until a node tries again what is blocked.
    pub blocked_retry: Duration,
    /// A node that is silent for so long counts as silent.
    pub node_silence: Duration,
}

impl Default for Timing {
    /// Heartbeats as the edge role has them by default, nodes that need no time.
    fn default() -> Self {
        Self {
            heartbeat: Duration::from_secs(30),
            retry_max: Duration::from_secs(30),
            staging: Duration::ZERO,
            trial: Duration::ZERO,
            blocked_retry: Duration::from_secs(1),
            node_silence: Duration::from_secs(40),
        }
    }
}

/// Which releases do harm, and what kind. Each text names the releases whose revision, package or `runtime.config`
/// contains it.
#[derive(Clone, Debug, Default)]
pub struct Faults {
    /// The whole site dies when a node of it begins to run such a release.
    pub silences_site: Vec<String>,
    /// A node dies when it begins to run such a release.
    pub silences_node: Vec<String>,
    /// Nodes reject such a release in preflight.
    pub rejected: Vec<String>,
    /// Nodes cannot get such a release for now.
    pub blocked: Vec<String>,
}

/// What a release does to a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    Good,
    SilencesSite,
    SilencesNode,
    Rejected,
    Blocked,
}

impl Faults {
    /// What becomes of a release that is described so.
    pub(super) fn fate(&self, about: &str) -> Fate {
        let meant = |texts: &[String]| texts.iter().any(|text| about.contains(text.as_str()));
        if meant(&self.blocked) {
            Fate::Blocked
        } else if meant(&self.rejected) {
            Fate::Rejected
        } else if meant(&self.silences_site) {
            Fate::SilencesSite
        } else if meant(&self.silences_node) {
            Fate::SilencesNode
        } else {
            Fate::Good
        }
    }
}
