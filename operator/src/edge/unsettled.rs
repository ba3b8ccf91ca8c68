//! Go-aheads of which nobody knows whether they were written.
//!
//! Owns what a node's spec *may* hold: a write that got no answer may have been taken, and then its place is
//! taken too. Every write names the version that it was planned on, so one thing settles it: a later version.
//! It outlives a session that begins anew in the same process. What an earlier process may have written is presumed.
//! Pure: time is handed in. Must never make anybody wait.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kube::ResourceExt as _;
use rimward_core::cluster::Hearing;
use rimward_crds::{EdgeNode, NodeModel};

use super::session::REQUEST_SECONDS_MAX;
use crate::objects;

/// So long after a write began no API server takes it any more: 60 s (its `--request-timeout`) after it got it,
/// which was while we waited for the answer. A read that was begun later and shows the old version tells that
/// the write was lost.
const TAKEN_WITHIN: Duration = Duration::from_secs(60 + REQUEST_SECONDS_MAX);

/// Different specs that one node may have. No further one is tried before they are settled.
const SPECS_MAX: usize = 4;

/// A read that settles a write, and was not done or did not tell, is tried again after this at the earliest.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// Nodes that are read in one round at most: the plan waits for them.
const READS_MAX: usize = 16;

/// By node, what was written without an answer.
#[derive(Debug)]
pub(crate) struct Unsettled {
    open: BTreeMap<String, Open>,
    /// A write that began and did not end: with its session it is one without an answer.
    begun: Option<(String, Open)>,
    /// No session of this process has looked yet at what one of another process may have left.
    inherits: bool,
}

#[derive(Debug)]
struct Open {
    uid: Option<String>,
    /// The version that the writes were planned on.
    version: Option<u128>,
    may_be: Vec<Vec<NodeModel>>,
    /// When the last of them began.
    asked: Instant,
    /// Nobody knows of such a write; an earlier process may have begun one.
    presumed: bool,
}

impl Unsettled {
    /// What a process that begins to run sessions knows: nothing, least of all what another one left.
    pub(crate) const fn new() -> Self {
        Self {
            open: BTreeMap::new(),
            begun: None,
            inherits: true,
        }
    }

    /// Whether an earlier process may have left something; asked once.
    pub(crate) const fn inherits(&mut self) -> bool {
        std::mem::replace(&mut self.inherits, false)
    }

    /// Presumes that an earlier process began to write `models` to `node`, before `now`.
    pub(crate) fn presume(&mut self, node: &EdgeNode, models: Vec<NodeModel>, now: Instant) {
        let open = Open {
            presumed: true,
            ..Open::new(node, models, now)
        };
        self.open.entry(node.name_any()).or_insert(open);
    }

    /// A write of `models`, planned on `node`, begins at `asked`.
    pub(crate) fn begin(&mut self, node: &EdgeNode, models: Vec<NodeModel>, asked: Instant) {
        self.begun = Some((node.name_any(), Open::new(node, models, asked)));
    }

    /// It was answered, and was taken or was not.
    pub(crate) fn answered(&mut self) {
        self.begun = None;
    }

    /// Nothing is known of what became of it, as of a write that began and whose session ended.
    pub(crate) fn unanswered(&mut self) {
        let Some((name, new)) = self.begun.take() else {
            return;
        };
        let open = self.open.entry(name).or_insert(Open {
            may_be: Vec::new(),
            ..new
        });
        open.asked = new.asked;
        open.presumed = false;
        for models in new.may_be {
            if !open.may_be.contains(&models) {
                open.may_be.push(models);
            }
        }
    }

    /// Settles what `node`, as it is seen, tells: whoever wrote it later, none of the open writes can be
    /// taken any more, and one that was is in it.
    pub(crate) fn settle(&mut self, node: &EdgeNode) {
        let name = node.name_any();
        let settled = self
            .open
            .get(&name)
            .is_some_and(|open| open.uid != node.uid() || objects::version(node) > open.version);
        if settled {
            self.open.remove(&name);
        }
    }

    /// A read of a node that began at `asked` has shown `node`.
    pub(crate) fn read(&mut self, name: &str, node: Option<&EdgeNode>, asked: Instant) {
        if node.is_none() || self.open.get(name).is_some_and(|open| open.is_due(asked)) {
            self.open.remove(name);
        }
        if let Some(node) = node {
            self.settle(node);
        }
    }

    /// The specs that a node may have instead of the one that is seen.
    ///
    /// What is only presumed counts until the node is heard, or is known to be silent: sessions give places in one
    /// order, so one that is heard gets its own again before another gets it, and that write settles it.
    pub(crate) fn may_be(&self, name: &str, hearing: Hearing) -> &[Vec<NodeModel>] {
        let open = self.open.get(name);
        let open = open.filter(|open| !open.presumed || hearing == Hearing::Unheard);
        open.map_or(&[], |open| open.may_be.as_slice())
    }

    /// Whether `models` may be tried: the same again, or one of a few.
    pub(crate) fn may_try(&self, name: &str, models: &Vec<NodeModel>) -> bool {
        let open = self.open.get(name);
        open.is_none_or(|open| open.may_be.len() < SPECS_MAX || open.may_be.contains(models))
    }

    /// Nodes that a read would settle now: some of them, those first that wait longest.
    pub(crate) fn to_read(&self, now: Instant) -> Vec<String> {
        let due = self.open.iter().filter(|(_, open)| open.is_due(now));
        let mut due: Vec<_> = due.map(|(name, open)| (open.asked, name)).collect();
        due.sort();
        due.truncate(READS_MAX);
        due.into_iter().map(|(_, name)| name.clone()).collect()
    }

    /// How long until a read may settle the next; never at once, since one that is due now was just tried.
    pub(crate) fn next_read(&self, now: Instant) -> Option<Duration> {
        let left = |open: &Open| (open.asked + TAKEN_WITHIN).saturating_duration_since(now);
        self.open
            .values()
            .map(left)
            .min()
            .map(|left| left.max(READ_AGAIN))
    }

    /// Drops notes of nodes that are gone: with them, their places are free.
    pub(crate) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.open.retain(|name, _| exists(name));
    }
}

impl Open {
    fn new(node: &EdgeNode, models: Vec<NodeModel>, asked: Instant) -> Self {
        Self {
            uid: node.uid(),
            version: objects::version(node),
            may_be: vec![models],
            asked,
            presumed: false,
        }
    }

    /// No server takes it any more.
    fn is_due(&self, now: Instant) -> bool {
        now.saturating_duration_since(self.asked) >= TAKEN_WITHIN
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::edge_node;

    fn note(unsettled: &mut Unsettled, models: Vec<NodeModel>, now: Instant) {
        unsettled.begin(&edge_node("a", "10"), models, now);
        unsettled.unanswered();
    }

    fn unsettled(now: Instant) -> Unsettled {
        let mut unsettled = Unsettled::new();
        note(&mut unsettled, Vec::new(), now);
        unsettled
    }

    fn holds(unsettled: &Unsettled) -> bool {
        !unsettled.may_be("n1", Hearing::Heard).is_empty()
    }

    fn check(seen: (&str, &str)) -> bool {
        let mut unsettled = unsettled(Instant::now());
        unsettled.settle(&edge_node(seen.0, seen.1));
        !holds(&unsettled)
    }

    #[test]
    fn only_a_later_version_or_another_object_settles_a_write_without_an_answer() {
        assert!(!check(("a", "9")));
        assert!(!check(("a", "10")));
        assert!(check(("a", "11")));
        assert!(check(("b", "5")));
    }

    #[test]
    fn a_write_whose_session_ended_before_its_answer_is_one_without() {
        let now = Instant::now();
        let mut unsettled = Unsettled::new();
        unsettled.begin(&edge_node("a", "10"), Vec::new(), now);
        unsettled.answered();
        unsettled.unanswered();
        assert!(!holds(&unsettled), "it was answered");
        unsettled.begin(&edge_node("a", "10"), Vec::new(), now);
        unsettled.unanswered();
        assert!(holds(&unsettled));
    }

    #[test]
    fn a_read_settles_it_once_no_server_can_take_it_any_more() {
        let now = Instant::now();
        let mut unsettled = unsettled(now);
        let old = edge_node("a", "10");
        unsettled.read("n1", Some(&old), now + TAKEN_WITHIN / 2);
        assert!(holds(&unsettled), "it may still be taken");
        let late = now + TAKEN_WITHIN;
        assert_eq!(unsettled.to_read(late), ["n1"]);
        unsettled.read("n1", Some(&old), late);
        assert!(!holds(&unsettled));
    }

    #[test]
    fn a_read_that_is_due_and_was_not_done_is_not_asked_for_at_once() {
        let now = Instant::now();
        let unsettled = unsettled(now);
        assert_eq!(unsettled.next_read(now), Some(TAKEN_WITHIN));
        let late = now + TAKEN_WITHIN * 2;
        assert_eq!(unsettled.next_read(late), Some(READ_AGAIN));
    }

    #[test]
    fn a_round_reads_a_few_nodes() {
        let now = Instant::now();
        let mut unsettled = Unsettled::new();
        for number in 0..=READS_MAX {
            let mut node = edge_node("a", "10");
            node.metadata.name = Some(format!("n{number}"));
            unsettled.presume(&node, Vec::new(), now);
        }
        assert_eq!(unsettled.to_read(now + TAKEN_WITHIN).len(), READS_MAX);
    }

    #[test]
    fn what_another_process_may_have_written_counts_until_the_node_is_heard() {
        let now = Instant::now();
        let mut unsettled = Unsettled::new();
        assert!(unsettled.inherits());
        assert!(!unsettled.inherits(), "once");
        unsettled.presume(&edge_node("a", "10"), vec![model()], now);
        assert_eq!(unsettled.may_be("n1", Hearing::Unheard).len(), 1);
        for hearing in [Hearing::Heard, Hearing::Silent] {
            assert!(unsettled.may_be("n1", hearing).is_empty());
        }
        // This one is known.
        note(&mut unsettled, Vec::new(), now);
        assert!(holds(&unsettled));
    }

    #[test]
    fn a_node_that_is_gone_holds_nothing() {
        let now = Instant::now();
        let mut gone = unsettled(now);
        gone.read("n1", None, now);
        assert!(!holds(&gone));
        let mut gone = unsettled(now);
        gone.keep(|_| false);
        assert!(!holds(&gone));
    }

    #[test]
    fn what_a_node_may_have_is_bounded() {
        let now = Instant::now();
        let mut unsettled = Unsettled::new();
        let models = |count: usize| vec![model(); count];
        for count in 0..SPECS_MAX {
            assert!(unsettled.may_try("n1", &models(count)));
            note(&mut unsettled, models(count), now);
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
