//! What nodes complain about: gathered from clusters and from failed revisions, and cut out of all else.
//!
//! Owns the rule that an explanation gives the device's words once, on the node's own line.

use super::model::{Deployment, Revision};
use super::{because, clean};

/// What one node says of one revision.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Complaint<'a> {
    pub(super) cluster: &'a str,
    pub(super) node: &'a str,
    revision: &'a str,
    reason: &'a str,
    message: &'a str,
}

impl Complaint<'_> {
    /// The line under its cluster, which is ordered `order`.
    pub(super) fn line(&self, order: &str) -> String {
        let on = if self.revision == order {
            String::new()
        } else {
            format!(" on {}", clean(self.revision))
        };
        let why = because(Some(self.reason), Some(self.message));
        format!("node {}{on}: {why}", clean(self.node))
    }

    /// The cleaned text without what this complaint's own line says, in any of the operator's wordings.
    fn cut_from(&self, text: &str) -> String {
        let Self {
            cluster,
            node,
            revision: _,
            reason,
            message,
        } = self;
        [
            format!("; cluster {cluster}, node {node}: {reason}: {message}"),
            format!(": node {node}: {reason}: {message}"),
            format!("; {node}: {message}"),
        ]
        .iter()
        .fold(text.to_owned(), |text, said| text.replace(&clean(said), ""))
    }
}

/// What nodes say now, and what they said of the wanted revision when it failed, if they went back since.
pub(super) fn complaints(view: &Deployment) -> Vec<Complaint<'_>> {
    let clusters = view.stages.iter().flat_map(|stage| &stage.clusters);
    let mut all: Vec<_> = clusters
        .flat_map(|cluster| {
            cluster.problems.iter().map(|problem| Complaint {
                cluster: &cluster.name,
                node: &problem.node,
                revision: &cluster.revision,
                reason: &problem.reason,
                message: &problem.message,
            })
        })
        .collect();
    for revision in view.revisions.iter().filter(|it| is_wanted(view, it)) {
        for problem in &revision.problems {
            let then = Complaint {
                cluster: &problem.cluster,
                node: &problem.node,
                revision: &revision.name,
                reason: &problem.reason,
                message: &problem.message,
            };
            if !all.contains(&then) {
                all.push(then);
            }
        }
    }
    all
}

pub(super) fn is_wanted(view: &Deployment, revision: &Revision) -> bool {
    Some(&revision.name) == view.update_revision.as_ref()
}

/// The text, cleaned, without what the lines of these complaints say.
pub(super) fn cut(text: &str, complaints: &[Complaint<'_>]) -> String {
    complaints
        .iter()
        .fold(clean(text), |text, one| one.cut_from(&text))
}
