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

/// The reason of a node, and of a cluster, whose progress deadline ran out.
pub const PROGRESS_DEADLINE_EXCEEDED: &str = "ProgressDeadlineExceeded";

/// One entry of the assignment, as mirrored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Assigned<E> {
    /// The revision to run or remove.
    pub revision: RevisionName,
    /// Which try of that revision this is, from 1. Revision and attempt together are an *order*.
    pub attempt: u32,
    /// Verdicts that were given under an attempt lower than this are void; 0 voids none.
    pub forget_verdicts_before: u32,
    /// What to do.
    pub action: Action,
    /// Which nodes; an absent `nodeSelector` is [`Selector::everything`].
    pub nodes: Selector,
    /// How many of these nodes may be unavailable at once.
    pub max_unavailable: Amount,
    /// How many of them may be condemned, suspect or late before go-aheads stop.
    pub max_failures: u32,
    /// How long each node may take, from its go-ahead, in seconds during which it is heard.
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
    /// after a restart that lost it (deadlines then start again, and reports older than a node's
    /// spec say nothing).
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
    /// Whether its agent is heard.
    pub hearing: Hearing,
    /// The reason in its hold annotation: it takes no update for now.
    pub held: Option<String>,
    /// Why its go-ahead cannot be written for now: it takes no place until that is tried again.
    pub refused: Option<String>,
    /// `metadata.generation` of the EdgeNode.
    pub generation: u64,
    /// The go-aheads that its spec has.
    pub entries: BTreeMap<ModelKey, GoAhead<E>>,
    /// Go-aheads that its spec may have instead: of writes whose outcome is not known. They take the
    /// places that they would take had the write succeeded.
    pub maybe: BTreeMap<ModelKey, Vec<GoAhead<E>>>,
    /// What its agent reported; none before the first report.
    pub report: Option<NodeReport>,
}

/// Whether a node's agent is heard, judged by the observer's monotonic time alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Hearing {
    /// Its Lease changed within the silence, and this observer saw it change.
    Heard,
    /// Its Lease did not change for the silence.
    Silent,
    /// This observer has not listened long enough to say either.
    Unheard,
}

/// One entry of an EdgeNode's spec.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GoAhead<E> {
    /// The revision.
    pub revision: RevisionName,
    /// Which try of the revision.
    pub attempt: u32,
    /// Verdicts under lower attempts are void.
    pub forget_verdicts_before: u32,
    /// Run or remove.
    pub action: Action,
    /// The whole resolved entry.
    pub content: E,
}

impl<E: PartialEq> GoAhead<E> {
    /// It is exactly the order of the entry to run it.
    #[must_use]
    pub fn is(&self, entry: &Assigned<E>) -> bool {
        let Self {
            revision,
            attempt,
            forget_verdicts_before,
            action,
            content,
        } = self;
        *action == Action::Run
            && *revision == entry.revision
            && *attempt == entry.attempt
            && *forget_verdicts_before == entry.forget_verdicts_before
            && *content == entry.content
    }
}

impl<E: Clone> Assigned<E> {
    /// The order to run it, as a node gets it.
    #[must_use]
    pub fn go_ahead(&self) -> GoAhead<E> {
        GoAhead {
            revision: self.revision.clone(),
            attempt: self.attempt,
            forget_verdicts_before: self.forget_verdicts_before,
            action: Action::Run,
            content: self.content.clone(),
        }
    }
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
    /// The attempt of that go-ahead.
    pub attempt: u32,
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// The revision that it is about.
    pub revision: RevisionName,
    /// Which try of it.
    pub attempt: u32,
    /// When it was made.
    pub at: Timestamp,
    /// Nodes on their way, or of which that is not known since what earlier plans did was forgotten.
    /// A caller that restores a record without it puts every node in.
    pub moving: BTreeSet<NodeName>,
    /// How much of its deadline each node that has the order and is not done has used up.
    pub used: BTreeMap<NodeName, Used>,
    /// Nodes that had exactly this order already when the entry came (back) to it, and that were not
    /// heard since: they fell silent *before* it, and are no suspects.
    pub silent_before: BTreeSet<NodeName>,
    /// This cluster was complete with this order at some time.
    pub passed: bool,
    /// Revisions with which it was complete before, newest first, at most [`PASSED_MAX`]. An order to
    /// run one of them goes back: nobody is suspected of it, and nothing but the budget holds it up.
    pub passed_before: Vec<RevisionName>,
}

/// How many revisions a cluster remembers to have been complete with.
pub const PASSED_MAX: usize = 3;

/// What a node has used up of its deadline.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Used {
    /// Seconds since its go-ahead during which it was heard and nothing held it.
    pub seconds: u32,
    /// Its time runs: what passes until the next plan counts.
    pub running: bool,
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
    /// Entries of which the report rests on memory: a node that may have the order was not heard by
    /// this observer yet. A report that says nothing worse may stand until it was.
    pub listening: BTreeSet<ModelKey>,
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
