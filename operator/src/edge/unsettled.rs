//! Go-aheads of which nobody knows whether they were written.
//!
//! Owns what a node's spec *may* hold: a write that got no answer may have been taken, and then its place is
//! taken too. Every write names the version that it was planned on, so one thing settles it: a later version.
//! Pure: time is handed in. Must never make anybody wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use rimward_crds::{EdgeNode, NodeModel};

use super::session::REQUEST_SECONDS_MAX;
use crate::objects;

/// So long after a write began no API server takes it any more: 60 s (its `--request-timeout`) after it got it,
/// which was while we waited for the answer. A read that was begun later and shows the old version tells that
/// the write was lost.
const TAKEN_WITHIN: Duration = Duration::from_secs(60 + REQUEST_SECONDS_MAX);

/// Different specs that one node may have. No further one is tried before they are settled.
const SPECS_MAX: usize = 4;

/// By node, what was written without an answer.
#[derive(Debug, Default)]
pub(crate) struct Unsettled(BTreeMap<String, Open>);

#[derive(Debug)]
struct Open {
    uid: Option<String>,
    /// The version that the writes were planned on.
    version: Option<u128>,
    may_be: Vec<Vec<NodeModel>>,
    /// When the last of them began.
    asked: Instant,
}

impl Unsettled {
    /// Notes a write of `models`, planned on `node`, that began at `asked` and of which nothing is known.
    pub(crate) fn note(&mut self, node: &EdgeNode, models: Vec<NodeModel>, asked: Instant) {
        let new = Open {
            uid: node.uid(),
            version: objects::version(node),
            may_be: Vec::new(),
            asked,
        };
        let open = self.0.entry(node.name_any()).or_insert(new);
        open.asked = asked;
        if !open.may_be.contains(&models) {
            open.may_be.push(models);
        }
    }

    /// Settles what `node`, as it is seen, tells: whoever wrote it later, none of the open writes can be
    /// taken any more, and one that was is in it.
    pub(crate) fn settle(&mut self, node: &EdgeNode) {
        let name = node.name_any();
        let settled = self
            .0
            .get(&name)
            .is_some_and(|open| open.uid != node.uid() || objects::version(node) > open.version);
        if settled {
            self.0.remove(&name);
        }
    }

    /// A read of a node that began at `asked` has shown `node`.
    pub(crate) fn read(&mut self, name: &str, node: Option<&EdgeNode>, asked: Instant) {
        let late = |open: &Open| asked.saturating_duration_since(open.asked) >= TAKEN_WITHIN;
        if node.is_none() || self.0.get(name).is_some_and(late) {
            self.0.remove(name);
        }
        if let Some(node) = node {
            self.settle(node);
        }
    }

    /// The specs that a node may have instead of the one that is seen.
    pub(crate) fn may_be(&self, name: &str) -> &[Vec<NodeModel>] {
        self.0.get(name).map_or(&[], |open| open.may_be.as_slice())
    }

    /// Whether `models` may be tried: the same again, or one of a few.
    pub(crate) fn may_try(&self, name: &str, models: &Vec<NodeModel>) -> bool {
        let may_be = self.may_be(name);
        may_be.len() < SPECS_MAX || may_be.contains(models)
    }

    /// Nodes that a read would settle now.
    pub(crate) fn to_read(&self, now: Instant) -> Vec<String> {
        let due = |open: &Open| now.saturating_duration_since(open.asked) >= TAKEN_WITHIN;
        let all = self.0.iter().filter(|(_, open)| due(open));
        all.map(|(name, _)| name.clone()).collect()
    }

    /// How long until a read settles the next.
    pub(crate) fn next_read(&self, now: Instant) -> Option<Duration> {
        let left = |open: &Open| (open.asked + TAKEN_WITHIN).saturating_duration_since(now);
        self.0.values().map(left).min()
    }

    /// Drops notes of nodes that are gone: with them, their places are free.
    pub(crate) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| exists(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rimward_crds::EdgeNodeSpec;

    fn node(uid: &str, version: &str) -> EdgeNode {
        let mut node = EdgeNode::new("n1", EdgeNodeSpec::default());
        node.metadata.uid = Some(uid.to_owned());
        node.metadata.resource_version = Some(version.to_owned());
        node
    }

    fn unsettled(now: Instant) -> Unsettled {
        let mut unsettled = Unsettled::default();
        unsettled.note(&node("a", "10"), Vec::new(), now);
        unsettled
    }

    fn check(seen: (&str, &str)) -> bool {
        let mut unsettled = unsettled(Instant::now());
        unsettled.settle(&node(seen.0, seen.1));
        unsettled.may_be("n1").is_empty()
    }

    #[test]
    fn only_a_later_version_or_another_object_settles_a_write_without_an_answer() {
        assert!(!check(("a", "9")));
        assert!(!check(("a", "10")));
        assert!(check(("a", "11")));
        assert!(check(("b", "5")));
    }

    #[test]
    fn a_read_settles_it_once_no_server_can_take_it_any_more() {
        let now = Instant::now();
        let mut unsettled = unsettled(now);
        let old = node("a", "10");
        unsettled.read("n1", Some(&old), now + TAKEN_WITHIN / 2);
        assert_eq!(unsettled.may_be("n1").len(), 1, "it may still be taken");
        let late = now + TAKEN_WITHIN;
        assert_eq!(unsettled.to_read(late), ["n1"]);
        unsettled.read("n1", Some(&old), late);
        assert!(unsettled.may_be("n1").is_empty());
    }

    #[test]
    fn a_node_that_is_gone_holds_nothing() {
        let now = Instant::now();
        let mut gone = unsettled(now);
        gone.read("n1", None, now);
        assert!(gone.may_be("n1").is_empty());
        let mut gone = unsettled(now);
        gone.keep(|_| false);
        assert!(gone.may_be("n1").is_empty());
    }

    #[test]
    fn what_a_node_may_have_is_bounded() {
        let now = Instant::now();
        let mut unsettled = Unsettled::default();
        let models = |count: usize| vec![model(); count];
        for count in 0..SPECS_MAX {
            assert!(unsettled.may_try("n1", &models(count)));
            unsettled.note(&node("a", "10"), models(count), now);
        }
        assert!(!unsettled.may_try("n1", &models(SPECS_MAX)));
        assert!(unsettled.may_try("n1", &models(0)), "the same again");
    }

    fn model() -> NodeModel {
        serde_json::from_value(serde_json::json!({
            "namespace": "team", "name": "digits", "endpointName": "digits", "revision": "r-1",
            "package": {"repository": "r", "digest": format!("sha256:{}", "0".repeat(64))},
        }))
        .unwrap()
    }
}
