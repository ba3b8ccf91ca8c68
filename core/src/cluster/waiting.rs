//! Why a node waits, as a type with words.
//!
//! Owns the sentences. Decides nothing.

use thiserror::Error;

use super::types::NodeState;
use crate::ids::{NodeName, RevisionName};

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
    /// It is silent.
    #[error("silent, counts as unavailable")]
    Silent,
    /// It has its go-ahead and works on it.
    #[error("on its way to revision {revision} ({state})")]
    Updating {
        /// The revision.
        revision: RevisionName,
        /// How far it is.
        state: NodeState,
    },
    /// Its agent has not yet read the go-ahead.
    #[error("its agent has not reported on its entry yet")]
    NotReported,
    /// It committed the revision but serves nothing now.
    #[error("on revision {revision}, not serving: {message}")]
    NotServing {
        /// The revision.
        revision: RevisionName,
        /// The device's sentence.
        message: String,
    },
    /// Too many nodes are unavailable.
    #[error("{unavailable} of at most {max} nodes are unavailable")]
    Budget {
        /// Unavailable now.
        unavailable: usize,
        /// Allowed.
        max: usize,
    },
    /// Another node rejected the revision: no further go-ahead in this cluster.
    #[error("node {by} rejected revision {revision}, no further node gets it")]
    Stopped {
        /// The revision.
        revision: RevisionName,
        /// The node that rejected it.
        by: NodeName,
    },
    /// The deadline ran out: no further go-ahead in this cluster.
    #[error("the progress deadline of revision {revision} ran out, no further node gets it")]
    DeadlineExceeded {
        /// The revision.
        revision: RevisionName,
    },
    /// It is removing the model.
    #[error("removing the model")]
    Removing,
}

impl NodeWaiting {
    /// CamelCase reason, from a closed list.
    #[must_use]
    pub const fn reason(&self) -> &'static str {
        match self {
            Self::Rejected { .. } => "Rejected",
            Self::Blocked { .. } => "Blocked",
            Self::Held { .. } => "Held",
            Self::Silent => "Silent",
            Self::Updating { .. } => "Updating",
            Self::NotReported => "NotReported",
            Self::NotServing { .. } => "NotServing",
            Self::Budget { .. } => "MaxUnavailable",
            Self::Stopped { .. } => "Stopped",
            Self::DeadlineExceeded { .. } => super::PROGRESS_DEADLINE_EXCEEDED,
            Self::Removing => "Removing",
        }
    }
}
