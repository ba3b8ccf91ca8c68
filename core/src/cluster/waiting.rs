//! Why a node waits, as a type with words.
//!
//! Owns the sentences, and what a person can type. Decides nothing. Words hold no running numbers: a
//! status that changes by itself would be written for ever.

use std::fmt;

use thiserror::Error;

use super::types::NodeState;
use crate::ids::{ModelKey, NodeName, RevisionName};

/// How many nodes a sentence names.
const NAMES_MAX: usize = 3;

/// Why a node is not where its cluster's entry wants it.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum NodeWaiting {
    /// It rejected the revision.
    #[error("rejected revision {revision}: {reason}: {message}")]
    Rejected {
        /// The revision.
        revision: RevisionName,
        /// The device's reason.
        reason: String,
        /// The device's sentence.
        message: String,
        /// It serves its last good version.
        serving: bool,
    },
    /// It cannot go on for now and tries again by itself.
    #[error("blocked: {reason}: {message}")]
    Blocked {
        /// The device's reason.
        reason: String,
        /// The device's sentence.
        message: String,
    },
    /// It refuses for now.
    #[error("held: {reason}")]
    Held {
        /// Who holds it and why.
        reason: String,
    },
    /// It fell silent before its go-ahead.
    #[error(
        "silent since before revision {revision} could reach it: not waited for, and updated when it answers"
    )]
    Silent {
        /// The revision.
        revision: RevisionName,
    },
    /// It fell silent after its go-ahead.
    #[error(
        "fell silent after revision {revision} may have reached it, and keeps its place; \
         if it is gone for good: kubectl rimward node forget {node}"
    )]
    Suspect {
        /// The revision.
        revision: RevisionName,
        /// The node.
        node: NodeName,
    },
    /// This session has not heard it yet.
    #[error("not heard yet by the session that began to listen")]
    Unheard,
    /// Nobody gets a go-ahead until nodes that may have the revision were heard, or are silent.
    #[error(
        "waits until {} answers or is silent: it may have revision {revision}",
        Names(nodes)
    )]
    Listening {
        /// The revision.
        revision: RevisionName,
        /// The nodes.
        nodes: Vec<NodeName>,
    },
    /// It has its go-ahead and works on it.
    #[error("on its way to revision {revision} ({state}{})", Words(message))]
    Updating {
        /// The revision.
        revision: RevisionName,
        /// How far it is.
        state: NodeState,
        /// The device's reason why that takes long; mostly empty.
        reason: String,
        /// The device's sentence; mostly empty.
        message: String,
    },
    /// Its agent has not yet read the go-ahead.
    #[error("its agent has not reported on its entry yet")]
    NotReported,
    /// Its deadline ran out. It counts again if it gets there after all.
    #[error(
        "not on revision {revision} within its progress deadline ({state}{}); \
         to start its time again: kubectl rimward retry -n {} {}",
        Words(message), model.namespace, model.name
    )]
    TimedOut {
        /// The revision.
        revision: RevisionName,
        /// The deployment.
        model: ModelKey,
        /// How far it is.
        state: NodeState,
        /// The device's reason; may be empty.
        reason: String,
        /// The device's sentence; may be empty.
        message: String,
    },
    /// It committed the revision but serves nothing now.
    #[error("on revision {revision}, not serving: {message}")]
    NotServing {
        /// The revision.
        revision: RevisionName,
        /// The device's reason; may be empty.
        reason: String,
        /// The device's sentence.
        message: String,
    },
    /// Its go-ahead was refused where it is written, and is tried again.
    #[error("its go-ahead is refused, and tried again: {message}")]
    Refused {
        /// The API server's sentence.
        message: String,
    },
    /// Too many nodes are unavailable.
    #[error("waits for a place: at most {max} of these nodes may be unavailable at once")]
    Budget {
        /// Allowed.
        max: usize,
    },
    /// More nodes than the policy allows were lost to the revision: no further go-ahead in this cluster.
    #[error("{stop}")]
    Stopped {
        /// Why.
        stop: Box<Stop>,
    },
    /// It is removing the model.
    #[error("removing the model")]
    Removing {
        /// It is silent: told, and not waited for.
        silent: bool,
    },
}

/// Whom a revision cost its further go-aheads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stop {
    /// The revision.
    pub revision: RevisionName,
    /// The deployment.
    pub model: ModelKey,
    /// Nodes that rejected it.
    pub rejected_by: Vec<NodeName>,
    /// Nodes that fell silent after it may have reached them.
    pub lost: Vec<NodeName>,
    /// Nodes whose deadline ran out.
    pub late: Vec<NodeName>,
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            revision,
            model,
            rejected_by,
            lost,
            late,
        } = self;
        let mut parts = Vec::new();
        if !rejected_by.is_empty() {
            parts.push(format!(
                "{} rejected revision {revision}",
                Names(rejected_by)
            ));
        }
        if !lost.is_empty() {
            let names = Names(lost);
            parts.push(format!(
                "{names} fell silent after revision {revision} may have reached it"
            ));
        }
        if !late.is_empty() {
            let names = Names(late);
            parts.push(format!(
                "the progress deadline of revision {revision} ran out on {names}"
            ));
        }
        write!(f, "{}, no further node gets it", parts.join(", "))?;
        if let (Some(first), true) = (lost.first(), rejected_by.is_empty()) {
            write!(
                f,
                "; if it is gone for good: kubectl rimward node forget {first}"
            )?;
        }
        if rejected_by.is_empty() {
            let ModelKey { namespace, name } = model;
            write!(
                f,
                "; to try again: kubectl rimward retry -n {namespace} {name}"
            )?;
        }
        Ok(())
    }
}

/// A few nodes by name.
struct Names<'a>(&'a [NodeName]);

impl fmt::Display for Names<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let first: Vec<_> = self
            .0
            .iter()
            .take(NAMES_MAX)
            .map(NodeName::as_str)
            .collect();
        let noun = if self.0.len() == 1 { "node" } else { "nodes" };
        write!(f, "{noun} {}", first.join(", "))?;
        if self.0.len() > NAMES_MAX {
            f.write_str(" and others")?;
        }
        Ok(())
    }
}

/// A device's words after a colon, if it has any.
struct Words<'a>(&'a str);

impl fmt::Display for Words<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_empty() {
            return Ok(());
        }
        write!(f, ": {}", self.0)
    }
}

impl NodeWaiting {
    /// CamelCase reason, from a closed list.
    #[must_use]
    pub fn reason(&self) -> &'static str {
        match self {
            Self::Rejected { .. } => "Rejected",
            Self::Blocked { .. } => "Blocked",
            Self::Held { .. } => "Held",
            Self::Silent { .. } => "Silent",
            Self::Suspect { .. } => "Suspect",
            Self::Unheard => "Unheard",
            Self::Listening { .. } => "Listening",
            Self::Updating { .. } => "Updating",
            Self::NotReported => "NotReported",
            Self::TimedOut { .. } => super::PROGRESS_DEADLINE_EXCEEDED,
            Self::NotServing { .. } => "NotServing",
            Self::Refused { .. } => "Refused",
            Self::Budget { .. } => "MaxUnavailable",
            Self::Stopped { stop } if stop.rejected_by.is_empty() && stop.lost.is_empty() => {
                super::PROGRESS_DEADLINE_EXCEEDED
            }
            Self::Stopped { .. } => "Stopped",
            Self::Removing { .. } => "Removing",
        }
    }

    /// A node's progress deadline runs while it waits for this.
    ///
    /// Not while it is held, silent or unheard: only heard seconds count. A block counts, but says
    /// nothing about the content: what runs out is time.
    pub(super) const fn spends_time(&self) -> bool {
        matches!(
            self,
            Self::NotReported | Self::Updating { .. } | Self::Blocked { .. }
        )
    }
}
