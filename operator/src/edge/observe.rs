//! What a session sees at one moment: the hub's assignment, the edge's, and the nodes.
//!
//! Owns the laying of the session's own writes over what its watches know so far: a plan from a cache
//! that lags would spend the same budget twice. Must never write.

use std::collections::BTreeMap;
use std::sync::Arc;

use kube::core::DeserializeGuard;
use kube::core::error_boundary::InvalidObject;
use kube::runtime::reflector::Store;
use kube::{Resource, ResourceExt as _};
use rimward_crds::{ClusterAssignment, EdgeNode};

use crate::objects::is_older;

/// A ClusterAssignment that may not parse.
pub(crate) type Assignment = DeserializeGuard<ClusterAssignment>;
/// An EdgeNode that may not parse.
pub(crate) type Node = DeserializeGuard<EdgeNode>;

/// Everything seen.
pub(crate) struct Observed {
    pub(crate) hub: Option<Arc<Assignment>>,
    pub(crate) edge: Option<Arc<Assignment>>,
    pub(crate) nodes: Vec<Arc<Node>>,
}

impl Observed {
    /// Takes what the watches know now.
    pub(crate) fn new(
        hub: &Store<Assignment>,
        edge: &Store<Assignment>,
        nodes: &Store<Node>,
    ) -> Self {
        let mut nodes = nodes.state();
        nodes.sort_by_key(|node| node.name_any());
        Self {
            hub: hub.state().into_iter().next(),
            edge: edge.state().into_iter().next(),
            nodes,
        }
    }
}

/// What a session wrote and its watches may not have heard of yet, by name.
#[derive(Debug)]
pub(crate) struct Written<K>(BTreeMap<String, K>);

impl<K> Default for Written<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Resource + Clone> Written<K> {
    /// Notes what the API server answered to a write.
    pub(crate) fn note(&mut self, object: K) {
        self.0.insert(object.name_any(), object);
    }

    /// Lays an own write over `seen`, if `seen` is the same object before that write. Otherwise the
    /// watch has caught up (or the object was made anew), and the note goes.
    pub(crate) fn over(&mut self, seen: K) -> K {
        let name = seen.name_any();
        let Some(mine) = self.0.get(&name) else {
            return seen;
        };
        if mine.uid() == seen.uid() && is_older(&seen, mine) {
            return mine.clone();
        }
        self.0.remove(&name);
        seen
    }

    /// Drops notes of objects that are gone.
    pub(crate) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.0.retain(|name, _| exists(name));
    }
}

/// Splits a guarded object.
pub(crate) fn readable<K: Clone>(guarded: &DeserializeGuard<K>) -> Result<K, &InvalidObject> {
    guarded.0.as_ref().cloned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::edge_node;

    fn check(mine: (&str, &str), seen: (&str, &str)) -> Option<String> {
        let mut written = Written::default();
        written.note(edge_node(mine.0, mine.1));
        written.over(edge_node(seen.0, seen.1)).resource_version()
    }

    #[test]
    fn an_own_write_stands_until_the_watch_has_caught_up() {
        assert_eq!(check(("a", "10"), ("a", "9")).as_deref(), Some("10"));
        assert_eq!(check(("a", "10"), ("a", "10")).as_deref(), Some("10"));
        assert_eq!(check(("a", "10"), ("a", "11")).as_deref(), Some("11"));
    }

    #[test]
    fn an_object_made_anew_is_not_hidden_by_a_write_to_its_predecessor() {
        assert_eq!(check(("a", "10"), ("b", "5")).as_deref(), Some("5"));
    }
}
