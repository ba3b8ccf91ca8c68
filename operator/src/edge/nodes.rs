//! The nodes of a cluster: as seen, and as they shall be written.
//!
//! Owns the difference between the two. A node whose object does not parse counts as silent and is never
//! written.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use kube::ResourceExt as _;
use rimward_core::cluster::{self, Assigned, GoAhead, Hearing, Plan};
use rimward_core::fleet::Action;
use rimward_core::ids::{ModelKey, NodeName};
use rimward_crds::{self as crds, EdgeNode, NodeModel};

use super::liveness::Liveness;
use super::observe::{Node, Written, readable};
use super::parse;
use super::unsettled::Unsettled;

/// The nodes at one moment.
pub(crate) struct Seen {
    /// With whether its agent is heard.
    readable: BTreeMap<NodeName, (EdgeNode, Hearing)>,
    /// Their labels.
    unreadable: BTreeMap<NodeName, BTreeMap<String, String>>,
}

/// One EdgeNode whose spec shall change.
#[derive(Debug)]
pub(crate) struct Write {
    /// As it was planned on.
    pub(crate) node: EdgeNode,
    /// All its entries.
    pub(crate) models: Vec<NodeModel>,
}

impl Seen {
    /// Sorts the nodes out, with the session's own writes laid over them.
    pub(crate) fn new(
        nodes: &[Arc<Node>],
        written: &mut Written<EdgeNode>,
        unsettled: &mut Unsettled,
        liveness: &Mutex<Liveness>,
    ) -> Self {
        let now = Instant::now();
        let mut liveness = liveness.lock().unwrap_or_else(PoisonError::into_inner);
        let mut seen = Self {
            readable: BTreeMap::new(),
            unreadable: BTreeMap::new(),
        };
        for node in nodes {
            // The API server refuses names that are none.
            let Ok(name) = node.name_any().parse::<NodeName>() else {
                continue;
            };
            match readable(node) {
                Ok(node) => {
                    let hearing = liveness.hearing(name.as_str(), now);
                    let node = written.over(node);
                    unsettled.settle(&node);
                    seen.readable.insert(name, (node, hearing));
                }
                Err(error) => {
                    tracing::warn!(node = %name, %error, "an EdgeNode does not parse");
                    let labels = error.metadata.labels.clone().unwrap_or_default();
                    seen.unreadable.insert(name, labels);
                }
            }
        }
        liveness.keep(|name| seen.has(name));
        written.keep(|name| seen.has(name));
        unsettled.keep(|name| seen.has(name));
        seen
    }

    /// The names of all.
    pub(crate) fn names(&self) -> impl Iterator<Item = &NodeName> {
        self.readable.keys().chain(self.unreadable.keys())
    }

    /// It is there, and parses.
    pub(crate) fn has(&self, name: &str) -> bool {
        let parsed = name.parse::<NodeName>();
        parsed.is_ok_and(|name| self.readable.contains_key(&name))
    }

    /// Those whose object parses, with whether their agent is heard.
    pub(crate) fn readable(&self) -> impl Iterator<Item = (&EdgeNode, Hearing)> {
        let all = self.readable.values();
        all.map(|(node, hearing)| (node, *hearing))
    }

    /// How many do not parse.
    pub(crate) fn unreadable_count(&self) -> usize {
        self.unreadable.len()
    }

    /// All, as the planner takes them. `refused` says why a node's spec cannot be written for now.
    pub(crate) fn parsed(
        &self,
        unsettled: &Unsettled,
        refused: impl Fn(&EdgeNode) -> Option<String>,
    ) -> BTreeMap<NodeName, cluster::Node<NodeModel>> {
        let readable = self.readable.iter().map(|(name, (node, hearing))| {
            let may_be = unsettled.may_be(name.as_str(), *hearing);
            let refused = refused(node);
            let node = parse::node(node, may_be, *hearing, refused.as_deref());
            (name.clone(), node)
        });
        let unreadable = self
            .unreadable
            .iter()
            .map(|(name, labels)| (name.clone(), parse::unreadable_node(labels)));
        readable.chain(unreadable).collect()
    }
}

/// Notes what an earlier process may have begun to write while these orders stood, to nodes that do not have them.
pub(crate) fn presume(
    unsettled: &mut Unsettled,
    seen: &Seen,
    stood: &BTreeMap<ModelKey, Assigned<NodeModel>>,
) {
    let now = Instant::now();
    for (node, _) in seen.readable.values() {
        let labels = node.metadata.labels.clone().unwrap_or_default();
        let given = stood.values().filter(|it| it.action == Action::Run);
        let given = given.filter(|it| it.nodes.matches(&labels));
        let given: Vec<NodeModel> = given.map(|it| entry(&it.go_ahead())).collect();
        if given.iter().any(|model| !node.spec.models.contains(model)) {
            unsettled.presume(node, given, now);
        }
    }
}

/// Which specs differ from the plan, and what they shall be.
///
/// Entries that the assignment has but that do not parse stay on the nodes as they are.
pub(crate) fn writes(
    plan: &Plan<NodeModel>,
    seen: &Seen,
    unreadable_entries: &BTreeMap<(String, String), String>,
) -> Vec<Write> {
    let one = |(name, wanted): (&NodeName, &BTreeMap<ModelKey, GoAhead<NodeModel>>)| {
        let (node, _) = seen.readable.get(name)?;
        let stays = node.spec.models.iter().filter(|model| {
            unreadable_entries.contains_key(&(model.namespace.clone(), model.name.clone()))
        });
        let mut models: Vec<NodeModel> = wanted.values().map(entry).chain(stays.cloned()).collect();
        let mut has = node.spec.models.clone();
        let by_key =
            |a: &NodeModel, b: &NodeModel| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name));
        models.sort_by(by_key);
        has.sort_by(by_key);
        (models != has).then(|| Write {
            node: node.clone(),
            models,
        })
    };
    plan.nodes.iter().filter_map(one).collect()
}

fn entry(go_ahead: &GoAhead<NodeModel>) -> NodeModel {
    let GoAhead {
        revision,
        attempt,
        forget_verdicts_before,
        action,
        content,
    } = go_ahead;
    NodeModel {
        revision: revision.to_string(),
        attempt: *attempt,
        forget_verdicts_before: *forget_verdicts_before,
        action: match action {
            Action::Run => crds::Action::Run,
            Action::Remove => crds::Action::Remove,
        },
        ..content.clone()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use kube::core::DeserializeGuard;
    use rimward_core::time::Timestamp;
    use serde_json::json;

    use super::*;

    fn object(value: serde_json::Value) -> Arc<Node> {
        let node: DeserializeGuard<EdgeNode> = serde_json::from_value(value).unwrap();
        Arc::new(node)
    }

    fn entry(name: &str) -> serde_json::Value {
        json!({"namespace": "team", "name": name, "endpointName": name, "revision": "r-1",
            "package": {"repository": "r", "digest": format!("sha256:{}", "0".repeat(64))}})
    }

    fn seen(nodes: &[Arc<Node>]) -> Seen {
        let liveness = Mutex::new(Liveness::new(Duration::from_secs(60), Instant::now()));
        let mut unsettled = Unsettled::new();
        Seen::new(nodes, &mut Written::default(), &mut unsettled, &liveness)
    }

    fn plan(seen: &Seen) -> Plan<NodeModel> {
        let nodes = seen.parsed(&Unsettled::new(), |_| None);
        let observed = cluster::Observed {
            nodes,
            ..Default::default()
        };
        cluster::plan(&BTreeMap::new(), &observed, Timestamp(0))
    }

    #[test]
    fn a_node_that_does_not_parse_is_as_good_as_silent_and_never_written() {
        let bad = object(json!({"metadata": {"name": "n1"}, "spec": {"models": "none"}}));
        let seen = seen(&[bad]);
        assert_eq!(seen.unreadable_count(), 1);
        let parsed = seen.parsed(&Unsettled::new(), |_| None);
        let mut parsed = parsed.values();
        assert!(parsed.all(|node| node.hearing == Hearing::Silent));
        let mut plan = plan(&seen);
        let wanted = GoAhead {
            revision: "r-1".parse().unwrap(),
            attempt: 1,
            forget_verdicts_before: 0,
            action: Action::Run,
            content: serde_json::from_value(entry("digits")).unwrap(),
        };
        let key = ModelKey::parse("team", "digits").unwrap();
        plan.nodes
            .insert("n1".parse().unwrap(), [(key, wanted)].into());
        assert!(writes(&plan, &seen, &BTreeMap::new()).is_empty());
    }

    #[test]
    fn an_entry_that_does_not_parse_stays_on_the_nodes_as_it_is() {
        let node =
            object(json!({"metadata": {"name": "n1"}, "spec": {"models": [entry("digits")]}}));
        let seen = seen(&[node]);
        let mut plan = plan(&seen);
        plan.nodes.values_mut().for_each(BTreeMap::clear);
        let unreadable = [(("team".to_owned(), "digits".to_owned()), String::new())].into();
        assert!(writes(&plan, &seen, &unreadable).is_empty());
        let taken = writes(&plan, &seen, &BTreeMap::new());
        assert_eq!(taken[0].models, []);
    }

    #[test]
    fn the_order_of_a_spec_is_no_difference() {
        let models = json!([entry("tide"), entry("digits")]);
        let node = object(json!({"metadata": {"name": "n1"}, "spec": {"models": models}}));
        let seen = seen(&[node]);
        assert!(writes(&plan(&seen), &seen, &BTreeMap::new()).is_empty());
    }
}
