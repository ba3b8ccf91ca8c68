//! One node of two is dead for good. A good release must still reach the other one.
//!
//! An input that failed on real parts: the dead node held the only place, the deadline ran out, and the
//! release was condemned for the whole fleet.

use std::collections::BTreeMap;

use rimward_core::cluster::{
    Assigned, GoAhead, Hearing, Node, NodeModel, NodeReport, NodeState, Observed, plan,
};
use rimward_core::fleet::{Action, Amount};
use rimward_core::ids::{ModelKey, NodeName};
use rimward_core::selector::Selector;
use rimward_core::summary::{Measures, Phase};
use rimward_core::time::Timestamp;

const DEADLINE_SECONDS: u32 = 600;

fn key() -> ModelKey {
    ModelKey::parse("shop", "digits").unwrap()
}

/// A node that committed the old release and serves it.
fn old(hearing: Hearing) -> Node<&'static str> {
    let model = NodeModel {
        revision: "digits-old".parse().unwrap(),
        attempt: 1,
        state: NodeState::Committed,
        serving: true,
        reason: String::new(),
        message: String::new(),
        last_good: Some("digits-old".parse().unwrap()),
        measures: Measures::default(),
    };
    let go_ahead = GoAhead {
        revision: "digits-old".parse().unwrap(),
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        content: "old",
    };
    Node {
        labels: BTreeMap::new(),
        hearing,
        held: None,
        refused: None,
        generation: 1,
        entries: [(key(), go_ahead)].into(),
        maybe: BTreeMap::new(),
        report: Some(NodeReport {
            observed_generation: 1,
            models: [(key(), model)].into(),
        }),
    }
}

fn wanted() -> BTreeMap<ModelKey, Assigned<&'static str>> {
    let entry = Assigned {
        revision: "digits-new".parse().unwrap(),
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        nodes: Selector::everything(),
        max_unavailable: Amount::ONE,
        max_failures: 0,
        progress_deadline_seconds: DEADLINE_SECONDS,
        content: "new",
    };
    [(key(), entry)].into()
}

fn site() -> Observed<&'static str> {
    Observed {
        nodes: [
            ("alive".parse().unwrap(), old(Hearing::Heard)),
            ("dead".parse().unwrap(), old(Hearing::Silent)),
        ]
        .into(),
        progress: BTreeMap::new(),
    }
}

#[test]
fn the_node_that_answers_gets_the_release() {
    let alive: NodeName = "alive".parse().unwrap();
    let first = plan(&wanted(), &site(), Timestamp(0));
    assert_eq!(first.nodes[&alive][&key()].revision.as_str(), "digits-new");
}

#[test]
fn a_site_where_nothing_was_tried_does_not_condemn_the_release() {
    let mut site = site();
    site.progress = plan(&wanted(), &site, Timestamp(0)).progress;
    let later = Timestamp(i64::from(DEADLINE_SECONDS));
    let last = plan(&wanted(), &site, later);
    let report = &last.report[&key()];
    assert_ne!(report.phase, Phase::Failed, "{}", report.reason);
}
