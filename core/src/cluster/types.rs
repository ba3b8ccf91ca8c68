//! What the pacing inside one cluster is made from: the assignment's entries and the nodes as seen.
//!
//! Owns the words. `E` is the resolved content of an entry as a node gets it; the plan moves it about
//! and compares it, and never looks inside.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::fleet::{Action, Amount, ModelReport};
use crate::ids::{ModelKey, NodeName, RevisionName};
use crate::selector::{Labels, Selector};
use crate::summary::Measures;
use crate::time::Timestamp;

use super::waiting::NodeWaiting;

/// The reason of a cluster whose progress deadline ran out.
pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

/// One entry of the assignment, as mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned<E> {
    /// The revision to run or remove.
    pub revision: RevisionName,
    /// What to do.
    pub action: Action,
    /// Which nodes; an absent `nodeSelector` is [`Selector::everything`].
    pub nodes: Selector,
    /// How many of these nodes may be unavailable at once.
    pub max_unavailable: Amount,
    /// How long this entry may be without progress.
    pub progress_deadline_seconds: u32,
    /// What a node gets to read.
    pub content: E,
}

/// Everything that was seen of the cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observed<E> {
    /// Every EdgeNode.
    pub nodes: BTreeMap<NodeName, Node<E>>,
    /// How far each entry was at the last plan, as that plan gave it and as it was applied; empty
    /// after a restart that lost it (the deadline then starts again, and reports older than a
    /// node's spec say nothing).
    pub progress: BTreeMap<ModelKey, Progress>,
}

impl<E> Default for Observed<E> {
    fn default() -> Self {
        Self {
            nodes: BTreeMap::new(),
            progress: BTreeMap::new(),
        }
    }
}

/// One EdgeNode.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node<E> {
    /// Its labels.
    pub labels: Labels,
    /// Its Lease is renewed, judged by the observer's monotonic time.
    pub alive: bool,
    /// The reason in its hold annotation: it takes no update for now.
    pub held: Option<String>,
    /// `metadata.generation` of the EdgeNode.
    pub generation: u64,
    /// The go-aheads that its spec has.
    pub entries: BTreeMap<ModelKey, GoAhead<E>>,
    /// What its agent reported; none before the first report.
    pub report: Option<NodeReport>,
}

/// One entry of an EdgeNode's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAhead<E> {
    /// The revision.
    pub revision: RevisionName,
    /// Run or remove.
    pub action: Action,
    /// The whole resolved entry.
    pub content: E,
}

/// What an agent reported.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeReport {
    /// Generation of the EdgeNode's spec that the agent had acted on.
    pub observed_generation: u64,
    /// Per model. One that is absent is not on the device.
    pub models: BTreeMap<ModelKey, NodeModel>,
}

/// What an agent reported of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeModel {
    /// The revision that `state` is about: the one of the go-ahead that the agent acted on.
    pub revision: RevisionName,
    /// How far that revision is.
    pub state: NodeState,
    /// Whether the node serves a committed version now, whichever it is.
    pub serving: bool,
    /// CamelCase reason of the state; empty when there is none.
    pub reason: String,
    /// The device's sentence.
    pub message: String,
    /// What the node would go back to.
    pub last_good: Option<RevisionName>,
    /// The verdict's measures.
    pub measures: Measures,
}

/// How far a revision is on a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum NodeState {
    /// The agent knows of it.
    Pending,
    /// Fetched, verified, tried in preflight.
    Staging,
    /// Cannot go on for now (fetch, space, signature); tried again by itself.
    Blocked,
    /// Refused for now by the application or the site.
    Held,
    /// Serving on probation.
    Trial,
    /// Committed.
    Committed,
    /// Rejected, in preflight or in trial: never tried again on this device.
    Rejected,
    /// Being removed.
    Removing,
}

/// How far an entry is, from one plan to the next.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// The revision that it is about.
    pub revision: RevisionName,
    /// Nodes that had it.
    pub updated: u32,
    /// Nothing was left to do, or only what a hold keeps back: the deadline did not run.
    pub resting: bool,
    /// When one of these last changed.
    pub since: Timestamp,
    /// The deadline ran out. It stays so until all is done or the entry names another revision.
    pub expired: bool,
    /// Nodes on their way, or of which that is not known since what earlier plans did was forgotten.
    /// A caller that restores a record without it puts every node in.
    pub moving: BTreeSet<NodeName>,
}

/// A cluster's plan.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan<E> {
    /// For every node, the complete list of entries that its EdgeNode's spec shall have.
    pub nodes: BTreeMap<NodeName, BTreeMap<ModelKey, GoAhead<E>>>,
    /// For every entry, what to report to the hub. An entry whose removal is confirmed is absent.
    pub report: BTreeMap<ModelKey, ModelReport>,
    /// To hand to the next plan.
    pub progress: BTreeMap<ModelKey, Progress>,
    /// For every entry, the nodes that are not where it wants them, and why.
    pub waiting: BTreeMap<ModelKey, Vec<(NodeName, NodeWaiting)>>,
    /// When to plan again though nothing was seen to change.
    pub wake_at: Option<Timestamp>,
}

impl std::fmt::Display for NodeState {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Pending => "pending",
            Self::Staging => "staging",
            Self::Blocked => "blocked",
            Self::Held => "held",
            Self::Trial => "in trial",
            Self::Committed => "committed",
            Self::Rejected => "rejected",
            Self::Removing => "being removed",
        })
    }
}
