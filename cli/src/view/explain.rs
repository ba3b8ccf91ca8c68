//! Why is this node on this revision: from the deployment down to the device's own reason.
//!
//! Owns the order: what is well comes first, what a device complains about last, and each fact is said
//! once, where it belongs.

use rimward_crds::EdgeNode;

use super::complaint::{Complaint, complaints, cut, is_wanted};
use super::model::{Cluster, Deployment, Revision};
use super::node::node;
use super::settle::{Facts, facts};
use super::tree::{asked, counts, nth, turned};
use super::{because, clean};

/// What was asked for is not there.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum NotFound {
    #[error(
        "cluster {0} has no order for {1}: its placement does not select it, or its stage has not begun"
    )]
    Cluster(String, String),
    #[error("cluster {1} has no EdgeNode {0}")]
    Node(String, String),
}

/// Walks down. `nodes` are the EdgeNodes of the one cluster asked about, when that cluster was asked too.
pub(crate) fn explain(
    view: &Deployment,
    cluster: Option<&str>,
    of: Option<&str>,
    nodes: Option<&[EdgeNode]>,
) -> Result<String, NotFound> {
    let key = format!("{}/{}", view.namespace, view.name);
    let complaints = complaints(view);
    let mut clusters: Vec<(&str, &Cluster)> = view
        .stages
        .iter()
        .flat_map(|stage| stage.clusters.iter().map(|it| (stage.name.as_str(), it)))
        .filter(|(_, it)| cluster.is_none_or(|name| it.name == name))
        .collect();
    clusters.sort_by_key(|(_, it)| complaints.iter().any(|one| one.cluster == it.name));
    if let Some(name) = cluster
        && clusters.is_empty()
    {
        return Err(NotFound::Cluster(name.to_owned(), key));
    }
    let mut out = String::new();
    let mut say = |depth: usize, text: &str| {
        out.push_str(&format!("{}{text}\n", "  ".repeat(depth)));
    };
    let Facts { why, wait } = deployment(view, &complaints);
    let why = why.map(|why| format!(": {why}")).unwrap_or_default();
    say(
        0,
        &format!(
            "{key} wants model {} and is {}{}{why}",
            view.model,
            view.state,
            turned(view)
        ),
    );
    if let Some(wait) = wait {
        say(1, &wait);
    }
    // What is not decided yet, and the last that was.
    for (_, one) in
        (view.actions.iter().enumerate()).filter(|(at, it)| *at == 0 || it.outcome.is_none())
    {
        say(1, &asked(one));
    }
    for one in view.revisions.iter().filter(|it| matters(view, it)) {
        say(1, &revision(view, one, &complaints));
    }
    for (stage, one) in clusters {
        say(1, &order(stage, one));
        if let Some(away) = &one.away {
            say(2, &format!("it is not available: {}", clean(away)));
        }
        let asked = nodes.filter(|_| cluster.is_some());
        if let Some(nodes) = asked {
            let matching: Vec<_> = nodes
                .iter()
                .filter(|it| of.is_none_or(|name| it.metadata.name.as_deref() == Some(name)))
                .collect();
            if let (Some(name), true) = (of, matching.is_empty()) {
                return Err(NotFound::Node(name.to_owned(), one.name.clone()));
            }
            for object in matching {
                for line in node(object, &view.namespace, &view.name) {
                    say(2, &line);
                }
            }
            continue;
        }
        let of_cluster = || complaints.iter().filter(|it| it.cluster == one.name);
        let matching: Vec<_> = of_cluster()
            .filter(|it| of.is_none_or(|name| it.node == name))
            .collect();
        for complaint in &matching {
            say(2, &complaint.line(&one.revision));
        }
        if let (Some(name), true) = (of, matching.is_empty()) {
            say(
                2,
                &format!(
                    "its cluster reports no problem of node {name} (the five worst are sent up); \
                     give --edge-kubeconfig to ask the node's own object"
                ),
            );
        }
    }
    if cluster.is_none() {
        for line in left(view, &complaints) {
            say(1, &line);
        }
    }
    Ok(out)
}

/// Complaints of clusters that have no order any more, such as after a first rollout that failed.
fn left(view: &Deployment, complaints: &[Complaint<'_>]) -> Vec<String> {
    let ordered = |name: &str| {
        let mut all = view.stages.iter().flat_map(|stage| &stage.clusters);
        all.any(|it| it.name == name)
    };
    let mut lines = Vec::new();
    let mut last = "";
    for complaint in complaints.iter().filter(|it| !ordered(it.cluster)) {
        if last != complaint.cluster {
            let name = clean(complaint.cluster);
            lines.push(format!("cluster {name} is ordered nothing any more"));
        }
        last = complaint.cluster;
        lines.push(format!("  {}", complaint.line("")));
    }
    lines
}

/// Why the deployment stands where it stands, less what the lines of revisions and nodes say.
fn deployment(view: &Deployment, complaints: &[Complaint<'_>]) -> Facts {
    let mut messages = view.revisions.iter().filter(|it| is_wanted(view, it));
    let failure = messages.find_map(|it| it.message.as_deref()).map(clean);
    let less = |text: &String| {
        let text = match failure.as_deref().and_then(|it| text.strip_suffix(it)) {
            Some(rest) if !rest.is_empty() => rest.trim_end_matches([':', ' ']).to_owned(),
            _ => text.clone(),
        };
        cut(&text, complaints)
    };
    // The message may be the whole failure: then `facts` still finds that both are one.
    let Facts { why, wait } = facts(
        view.state,
        view.reason.as_deref(),
        view.message.as_deref(),
        view.waiting_for.as_deref(),
    );
    Facts {
        why: why.as_ref().map(less),
        wait: wait.as_ref().map(less),
    }
}

/// What runs, what is rolled out, and what failed last.
fn matters(view: &Deployment, revision: &Revision) -> bool {
    let name = Some(&revision.name);
    let failed = |it: &&Revision| ["Failed", "Stopped"].contains(&it.outcome.as_str());
    let last_failed = view.revisions.iter().find(failed);
    name == view.current_revision.as_ref()
        || name == view.update_revision.as_ref()
        || last_failed == Some(revision)
}

fn revision(view: &Deployment, revision: &Revision, complaints: &[Complaint<'_>]) -> String {
    let Revision {
        name,
        model,
        version,
        outcome,
        attempt,
        stage,
        reason,
        message,
        problems: _,
    } = revision;
    let what = format!("revision {name} (model {model} {version})");
    let message = message.as_deref().map(|text| cut(text, complaints));
    let why = because(reason.as_deref(), message.as_deref());
    let why = if why.is_empty() {
        why
    } else {
        format!(": {why}")
    };
    let stage = stage
        .as_ref()
        .map(|stage| format!(" in stage {stage}"))
        .unwrap_or_default();
    let stage = format!("{stage}{}", nth(*attempt));
    match outcome.as_str() {
        "Failed" => format!("{what} failed{stage}{why}"),
        "Stopped" => format!(
            "{what} stopped{stage}, and `kubectl rimward retry {}` opens it again{why}",
            view.name
        ),
        "Promoted" if Some(name) == view.current_revision.as_ref() => {
            format!("{what} is promoted: what a cluster runs, or goes back to")
        }
        "Promoted" => format!("{what} was promoted once"),
        _ => format!("{what} is on its way{stage}{why}"),
    }
}

fn order(stage: &str, cluster: &Cluster) -> String {
    let stage = if stage.is_empty() {
        String::new()
    } else {
        format!(" in stage {stage}")
    };
    let what = if cluster.remove {
        "to remove it".to_owned()
    } else {
        format!("{}{stage}", cluster.revision)
    };
    format!(
        "cluster {} is ordered {what}: {}",
        cluster.name,
        counts(cluster)
    )
}
