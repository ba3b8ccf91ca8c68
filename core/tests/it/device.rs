//! A simulated node: the truth about what a device runs, and the late words that others see of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rimward_core::cluster::{GoAhead, Node, NodeModel, NodeReport, NodeState};
use rimward_core::fleet::Action;
use rimward_core::ids::{ModelKey, RevisionName};
use rimward_core::selector::Labels;
use rimward_core::summary::Measures;

use crate::choices::Choices;

#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    committed: Option<RevisionName>,
    bad: BTreeSet<RevisionName>,
    attempt: Option<(RevisionName, u32)>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    pub(crate) spec: BTreeMap<ModelKey, GoAhead<String>>,
    pub(crate) generation: u64,
    /// Cut off from its API server; goes on with what it knows.
    pub(crate) silent: bool,
    seen: (u64, BTreeMap<ModelKey, GoAhead<String>>),
    installed: BTreeMap<ModelKey, Installed>,
    sent: VecDeque<NodeReport>,
    visible: Option<NodeReport>,
}

impl Device {
    /// The agent lives a moment: maybe reads its spec, works on it, maybe reports.
    pub(crate) fn step(&mut self, bad: &BTreeSet<RevisionName>, calm: bool, choices: &mut Choices) {
        if !self.silent && (calm || choices.chance(60)) {
            self.seen = (self.generation, self.spec.clone());
        }
        for (key, order) in &self.seen.1 {
            match order.action {
                Action::Remove => {
                    self.installed.remove(key);
                }
                Action::Run => {
                    let model = self.installed.entry(key.clone()).or_default();
                    work(model, &order.revision, bad, choices);
                }
            }
        }
        if self.silent || !(calm || choices.chance(60)) {
            return;
        }
        self.sent.push_back(self.report());
        while self.sent.len() > 4 || calm && !self.sent.is_empty() {
            self.visible = self.sent.pop_front();
        }
        if choices.chance(50) && !self.sent.is_empty() {
            self.visible = self.sent.pop_front();
        }
    }

    fn report(&self) -> NodeReport {
        let models = self.seen.1.iter().filter_map(|(key, order)| {
            let installed = self.installed.get(key)?;
            Some((key.clone(), told(installed, &order.revision)))
        });
        NodeReport {
            observed_generation: self.seen.0,
            models: models.collect(),
        }
    }

    /// What the session sees of it.
    pub(crate) fn observed(&self) -> Node<String> {
        Node {
            labels: Labels::new(),
            alive: !self.silent,
            held: None,
            generation: self.generation,
            entries: self.spec.clone(),
            report: self.visible.clone(),
        }
    }

    /// The truth: it was told to run something that it neither runs nor rejected.
    pub(crate) fn truly_moving(&self, key: &ModelKey) -> bool {
        self.spec.get(key).is_some_and(|order| {
            order.action == Action::Run && {
                let installed = self.installed.get(key);
                !installed.is_some_and(|it| {
                    it.bad.contains(&order.revision)
                        || it.committed.as_ref() == Some(&order.revision)
                })
            }
        })
    }

    /// The truth: what it serves.
    pub(crate) fn truly_serves(&self, key: &ModelKey) -> Option<&RevisionName> {
        self.installed
            .get(key)
            .and_then(|installed| installed.committed.as_ref())
    }

    pub(crate) fn truly_rejected(&self, key: &ModelKey, revision: &RevisionName) -> bool {
        self.installed
            .get(key)
            .is_some_and(|it| it.bad.contains(revision))
    }
}

fn work(
    model: &mut Installed,
    to: &RevisionName,
    bad: &BTreeSet<RevisionName>,
    choices: &mut Choices,
) {
    if model.bad.contains(to) || model.committed.as_ref() == Some(to) {
        model.attempt = None;
        return;
    }
    match &mut model.attempt {
        Some((revision, left)) if revision == to && *left > 0 => *left -= 1,
        Some((revision, _)) if revision == to => {
            if bad.contains(to) {
                model.bad.insert(to.clone());
            } else {
                model.committed = Some(to.clone());
            }
            model.attempt = None;
        }
        _ => model.attempt = Some((to.clone(), choices.small(4))),
    }
}

fn told(installed: &Installed, revision: &RevisionName) -> NodeModel {
    let (state, reason, message) = if installed.bad.contains(revision) {
        (
            NodeState::Rejected,
            "GoldenVectorFailed",
            "golden vector 3: expected 7, got 1",
        )
    } else if installed.committed.as_ref() == Some(revision) {
        (NodeState::Committed, "", "")
    } else if installed.attempt.is_some() {
        (NodeState::Trial, "", "")
    } else {
        (NodeState::Pending, "", "")
    };
    NodeModel {
        revision: revision.clone(),
        state,
        serving: installed.committed.is_some(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_good: installed.committed.clone(),
        measures: Measures::default(),
    }
}
