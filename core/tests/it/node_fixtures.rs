//! Small makers for the nodes of one cluster. An API change touches this file.

use std::collections::BTreeMap;

use rimward_core::cluster::{
    self, Assigned, GoAhead, Hearing, Node, NodeModel, NodeReport, NodeState, NodeWaiting,
    Observed, Plan,
};
use rimward_core::fleet::{Action, Amount, ModelReport};
use rimward_core::ids::ModelKey;
use rimward_core::selector::Selector;
use rimward_core::summary::Measures;

use crate::fixtures::{NOW, key, labels, rev};

pub(crate) type Cluster = Observed<&'static str>;

pub(crate) fn assigned(
    revision: &'static str,
    max: u32,
) -> BTreeMap<ModelKey, Assigned<&'static str>> {
    let entry = Assigned {
        revision: rev(revision),
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        nodes: Selector::everything(),
        max_unavailable: Amount::Count(max),
        max_failures: 0,
        progress_deadline_seconds: 600,
        content: revision,
    };
    [(key("digits"), entry)].into()
}

pub(crate) fn new_node() -> Node<&'static str> {
    Node {
        labels: labels(&[]),
        hearing: Hearing::Heard,
        held: None,
        refused: None,
        generation: 1,
        entries: BTreeMap::new(),
        maybe: BTreeMap::new(),
        report: Some(NodeReport {
            observed_generation: 1,
            models: BTreeMap::new(),
        }),
    }
}

/// A node that was told `revision` and says `state` of it.
pub(crate) fn node(revision: &'static str, state: NodeState) -> Node<&'static str> {
    let go_ahead = GoAhead {
        revision: rev(revision),
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        content: revision,
    };
    let model = NodeModel {
        revision: rev(revision),
        attempt: 1,
        state,
        serving: true,
        reason: "GoldenVectorFailed".to_owned(),
        message: "golden vector 3: expected 7, got 1".to_owned(),
        last_good: Some(rev("r0")),
        measures: Measures {
            samples: 10,
            errors: 1,
            latency_p99_microseconds: Some(500),
        },
    };
    let mut node = new_node();
    node.entries.insert(key("digits"), go_ahead);
    node.report
        .as_mut()
        .unwrap()
        .models
        .insert(key("digits"), model);
    node
}

pub(crate) fn on(revision: &'static str) -> Node<&'static str> {
    node(revision, NodeState::Committed)
}

pub(crate) fn silent(mut node: Node<&'static str>) -> Node<&'static str> {
    node.hearing = Hearing::Silent;
    node
}

pub(crate) fn nodes(all: impl IntoIterator<Item = Node<&'static str>>) -> Cluster {
    let named = all.into_iter().enumerate();
    Observed {
        nodes: named
            .map(|(index, node)| (format!("n{index}").parse().unwrap(), node))
            .collect(),
        progress: BTreeMap::new(),
    }
}

/// What each node is told to run.
pub(crate) fn check(plan: &Plan<&'static str>, expected: &[&str]) {
    let found: Vec<_> = plan
        .nodes
        .values()
        .map(|entries| match entries.get(&key("digits")) {
            None => String::new(),
            Some(it) if it.action == Action::Remove => format!("-{}", it.revision),
            Some(it) => it.revision.to_string(),
        })
        .collect();
    assert_eq!(found, expected);
}

pub(crate) fn plan(revision: &'static str, max: u32, cluster: &Cluster) -> Plan<&'static str> {
    cluster::plan(&assigned(revision, max), cluster, NOW)
}

pub(crate) fn report<'a>(plan: &'a Plan<&'static str>) -> &'a ModelReport {
    &plan.report[&key("digits")]
}

pub(crate) fn waiting<'a>(plan: &'a Plan<&'static str>, node: &str) -> Option<&'a NodeWaiting> {
    let all = &plan.waiting[&key("digits")];
    all.iter()
        .find(|(name, _)| name.as_str() == node)
        .map(|(_, reason)| reason)
}

pub(crate) fn named<'a>(cluster: &'a mut Cluster, name: &str) -> &'a mut Node<&'static str> {
    cluster.nodes.get_mut(&name.parse().unwrap()).unwrap()
}

/// What a node last said of the model, to be changed.
pub(crate) fn said<'a>(cluster: &'a mut Cluster, node: &str) -> &'a mut NodeModel {
    let node = named(cluster, node);
    let report = node.report.as_mut().unwrap();
    report.models.get_mut(&key("digits")).unwrap()
}

/// Does what a session does with a plan; nodes report nothing new by it.
pub(crate) fn apply(cluster: &mut Cluster, plan: &Plan<&'static str>) {
    for (name, node) in &mut cluster.nodes {
        if node.entries != plan.nodes[name] {
            node.entries.clone_from(&plan.nodes[name]);
            node.generation += 1;
        }
    }
    cluster.progress.clone_from(&plan.progress);
}

/// A node's agent has read its spec and says `state` of the order that stands there.
pub(crate) fn answers(cluster: &mut Cluster, name: &str, state: NodeState) {
    let node = named(cluster, name);
    let order = node.entries[&key("digits")].clone();
    let report = node.report.get_or_insert_default();
    report.observed_generation = node.generation;
    let model = report.models.entry(key("digits")).or_insert(NodeModel {
        revision: order.revision.clone(),
        attempt: order.attempt,
        state,
        serving: false,
        reason: String::new(),
        message: String::new(),
        last_good: None,
        measures: Measures::default(),
    });
    model.revision = order.revision;
    model.attempt = order.attempt;
    model.state = state;
    model.serving |= state == NodeState::Committed;
}
