//! Why is this node on this revision: from the deployment down to the device's own reason.

use rimward_crds::EdgeNode;

use super::model::{Cluster, Deployment, Revision};
use super::node::node;
use super::tree::counts;
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
    let clusters: Vec<(&str, &Cluster)> = view
        .stages
        .iter()
        .flat_map(|stage| stage.clusters.iter().map(|it| (stage.name.as_str(), it)))
        .filter(|(_, it)| cluster.is_none_or(|name| it.name == name))
        .collect();
    if let Some(name) = cluster
        && clusters.is_empty()
    {
        return Err(NotFound::Cluster(name.to_owned(), key));
    }
    let mut out = String::new();
    let mut say = |depth: usize, text: &str| {
        out.push_str(&format!("{}{text}\n", "  ".repeat(depth)));
    };
    say(0, &deployment(view, &key));
    if let Some(waiting) = &view.waiting_for {
        say(1, &format!("waiting for: {}", clean(waiting)));
    }
    for one in view.revisions.iter().filter(|it| matters(view, it)) {
        say(1, &revision(view, one));
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
        let problems: Vec<_> = one
            .problems
            .iter()
            .filter(|it| of.is_none_or(|name| it.node == name))
            .collect();
        for problem in &problems {
            let why = because(Some(&problem.reason), Some(&problem.message));
            say(2, &format!("node {}: {why}", clean(&problem.node)));
        }
        if let (Some(name), true) = (of, problems.is_empty()) {
            say(
                2,
                &format!(
                    "its cluster reports no problem of node {name} (the five worst are sent up); \
                     give --edge-kubeconfig to ask the node's own object"
                ),
            );
        }
    }
    Ok(out)
}

fn deployment(view: &Deployment, key: &str) -> String {
    let why = because(view.reason.as_deref(), view.message.as_deref());
    let why = if why.is_empty() {
        why
    } else {
        format!(": {why}")
    };
    format!(
        "{key} wants model {} and is {}{why}",
        view.model, view.state
    )
}

/// What runs, what is rolled out, and what failed last.
fn matters(view: &Deployment, revision: &Revision) -> bool {
    let name = Some(&revision.name);
    let last_failed = view.revisions.iter().find(|it| it.outcome == "Failed");
    name == view.current_revision.as_ref()
        || name == view.update_revision.as_ref()
        || last_failed == Some(revision)
}

fn revision(view: &Deployment, revision: &Revision) -> String {
    let Revision {
        name,
        model,
        version,
        outcome,
        stage,
        reason,
        message,
    } = revision;
    let what = format!("revision {name} (model {model} {version})");
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
    match outcome.as_str() {
        "Failed" => format!("{what} failed{stage}{why}"),
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
