//! A deployment as a tree: revisions, stages, clusters, counts, and what it waits for.

use rimward_crds::{NodeCounts, VerdictPhase};

use super::model::{Cluster, Deployment, Revision};
use super::{because, clean};

/// One line and what hangs below it.
struct Branch {
    text: String,
    below: Vec<Branch>,
}

impl Branch {
    fn leaf(text: String) -> Self {
        let below = Vec::new();
        Self { text, below }
    }

    fn draw(&self, prefix: &str, out: &mut String) {
        for (index, branch) in self.below.iter().enumerate() {
            let last = index + 1 == self.below.len();
            let (knot, bar) = if last {
                ("└─ ", "   ")
            } else {
                ("├─ ", "│  ")
            };
            out.push_str(&format!("{prefix}{knot}{}\n", branch.text));
            branch.draw(&format!("{prefix}{bar}"), out);
        }
    }
}

/// Draws the tree. `wide` adds what nodes complain about and what they would go back to.
pub(crate) fn tree(view: &Deployment, wide: bool) -> String {
    let mut below: Vec<Branch> = view
        .revisions
        .iter()
        .filter(|it| is_shown(view, it) || wide)
        .map(|it| Branch::leaf(revision(view, it)))
        .collect();
    for stage in &view.stages {
        let name = if stage.name.is_empty() {
            "-"
        } else {
            &stage.name
        };
        let text = match &stage.phase {
            Some(phase) => format!("stage {name}  {phase}"),
            None if stage.clusters.is_empty() => format!("stage {name}  not begun"),
            None => format!("stage {name}"),
        };
        below.push(Branch {
            text,
            below: stage.clusters.iter().map(|it| cluster(it, wide)).collect(),
        });
    }
    if let Some(waiting) = &view.waiting_for {
        below.push(Branch::leaf(format!("waiting for: {}", clean(waiting))));
    }
    // What the last branch says already is not said here too.
    let said = |message: &&str| {
        let waiting = view.waiting_for.as_deref().unwrap_or_default();
        waiting.contains(*message)
    };
    let message = view.message.as_deref().filter(|it| !said(it));
    let why = because(view.reason.as_deref(), message);
    let progress = view.progress.as_deref().unwrap_or("0/0");
    let root = Branch {
        text: format!(
            "{}/{}  {}{}  {progress} clusters",
            view.namespace,
            view.name,
            view.state,
            if why.is_empty() {
                why
            } else {
                format!(" ({why})")
            },
        ),
        below,
    };
    let mut out = format!("{}\n", root.text);
    root.draw("", &mut out);
    out
}

/// The revisions that matter now; older ones are shown with `-o wide`.
fn is_shown(view: &Deployment, revision: &Revision) -> bool {
    let name = Some(&revision.name);
    name == view.current_revision.as_ref()
        || name == view.update_revision.as_ref()
        || revision.outcome == "Failed" && view.revisions.first() == Some(revision)
}

fn revision(view: &Deployment, revision: &Revision) -> String {
    let Revision {
        name,
        model,
        version,
        outcome,
        stage: _,
        reason,
        message,
        problems: _,
    } = revision;
    let why = because(reason.as_deref(), message.as_deref());
    let colon = if why.is_empty() { "" } else { ": " };
    let current = if Some(name) == view.current_revision.as_ref() {
        ", current"
    } else {
        ""
    };
    format!("revision {name} ({model} {version})  {outcome}{current}{colon}{why}")
}

fn cluster(cluster: &Cluster, wide: bool) -> Branch {
    let order = if cluster.remove {
        "is removing it".to_owned()
    } else {
        cluster.revision.clone()
    };
    let mut text = format!("cluster {}  {order}  {}", cluster.name, counts(cluster));
    if let Some(away) = &cluster.away {
        text.push_str(&format!("  [{}]", clean(away)));
    }
    let problems = cluster.problems.iter().map(|problem| {
        let why = because(Some(&problem.reason), Some(&problem.message));
        Branch::leaf(format!("node {}  {why}", clean(&problem.node)))
    });
    let last_good = cluster
        .last_good_revision
        .iter()
        .filter(|_| wide)
        .map(|name| Branch::leaf(format!("last good revision {name}")));
    Branch {
        text,
        below: problems.chain(last_good).collect(),
    }
}

/// The counts of a cluster, those that are zero left out.
pub(super) fn counts(cluster: &Cluster) -> String {
    let Some(phase) = cluster.phase else {
        return "has not reported on it yet".to_owned();
    };
    let NodeCounts {
        desired,
        updated,
        pending: _,
        held,
        silent,
        suspect,
        failed,
        rolled_back,
        ready,
    } = cluster.nodes;
    let mut text = format!("{updated}/{desired} nodes updated, {ready} ready");
    for (count, what) in [
        (held, "held"),
        (silent, "silent"),
        (suspect, "suspect"),
        (failed, "failed"),
        (rolled_back, "rolled back"),
    ] {
        if count > 0 {
            text.push_str(&format!(", {count} {what}"));
        }
    }
    if phase != VerdictPhase::Passed {
        text.push_str(&format!("  {phase:?}"));
    }
    text
}
