//! A deployment as a tree: revisions, stages, clusters, counts, and what it waits for.

use rimward_crds::{NodeCounts, ReadyCounts, VerdictPhase};

use super::model::{Asked, Cluster, Deployment, Revision};
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

/// Draws the tree. `wide` adds what nodes complain about, what they would go back to, and actions that are long decided.
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
    // What is not decided, and the last decision; older ones are for those who ask for more.
    let recent = |(index, it): &(usize, &Asked)| wide || *index == 0 || it.outcome.is_none();
    let actions = view.actions.iter().enumerate().filter(recent);
    below.extend(actions.map(|(_, it)| Branch::leaf(asked(it))));
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
            "{}/{}  {}{}  {progress} clusters{}{}",
            view.namespace,
            view.name,
            view.state,
            if why.is_empty() {
                why
            } else {
                format!(" ({why})")
            },
            view.clusters.as_ref().map(standing).unwrap_or_default(),
            turned(view),
        ),
        below,
    };
    let mut out = format!("{}\n", root.text);
    root.draw("", &mut out);
    out
}

/// What a person asked, and what became of it.
pub(super) fn asked(asked: &Asked) -> String {
    let Asked {
        name,
        action,
        by,
        outcome,
        message,
    } = asked;
    let outcome = outcome.as_deref().unwrap_or("not decided yet");
    let message = message.as_deref().map(clean).unwrap_or_default();
    let colon = if message.is_empty() { "" } else { ": " };
    format!(
        "action {action} by {} ({name})  {outcome}{colon}{message}",
        clean(by)
    )
}

/// What a person turned the rollout to, and which attempt it is where it is not the first.
pub(super) fn turned(view: &Deployment) -> String {
    let mut text = String::new();
    if let Some(attempt) = view.attempt.filter(|attempt| *attempt > 1) {
        text.push_str(&format!(", attempt {attempt}"));
    }
    if view.aborted {
        text.push_str(", aborted");
    }
    if let Some(undo) = &view.undo {
        let (from, to) = (clean(&undo.from), clean(&undo.to));
        text.push_str(&format!(", undone: {to} instead of {from}"));
    }
    text
}

/// Clusters that stand elsewhere than on the way or at its end; those that are zero are left out.
fn standing(clusters: &ReadyCounts) -> String {
    let ReadyCounts {
        desired: _,
        updated: _,
        pending: _,
        held,
        silent,
        suspect,
        failed,
        rolled_back,
        ready: _,
    } = *clusters;
    elsewhere([held, silent, suspect, failed, rolled_back])
}

/// `, 1 held, 2 silent`.
fn elsewhere(counts: [u32; 5]) -> String {
    let words = ["held", "silent", "suspect", "failed", "rolled back"];
    counts
        .iter()
        .zip(words)
        .filter(|(count, _)| **count > 0)
        .map(|(count, word)| format!(", {count} {word}"))
        .collect()
}

/// The revisions that matter now; older ones are shown with `-o wide`.
fn is_shown(view: &Deployment, revision: &Revision) -> bool {
    let name = Some(&revision.name);
    name == view.current_revision.as_ref()
        || name == view.update_revision.as_ref()
        || ["Failed", "Stopped"].contains(&revision.outcome.as_str())
            && view.revisions.first() == Some(revision)
}

fn revision(view: &Deployment, revision: &Revision) -> String {
    let Revision {
        name,
        model,
        version,
        outcome,
        attempt,
        stage: _,
        reason,
        message,
        problems: _,
    } = revision;
    let attempt = nth(*attempt);
    let why = because(reason.as_deref(), message.as_deref());
    let colon = if why.is_empty() { "" } else { ": " };
    let current = if Some(name) == view.current_revision.as_ref() {
        ", current"
    } else {
        ""
    };
    format!("revision {name} ({model} {version})  {outcome}{attempt}{current}{colon}{why}")
}

/// The attempt, where it is not the first.
pub(super) fn nth(attempt: Option<u32>) -> String {
    attempt
        .filter(|attempt| *attempt > 1)
        .map(|attempt| format!(" at attempt {attempt}"))
        .unwrap_or_default()
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
    text.push_str(&elsewhere([held, silent, suspect, failed, rolled_back]));
    if phase != VerdictPhase::Passed {
        text.push_str(&format!("  {phase:?}"));
    }
    text
}
