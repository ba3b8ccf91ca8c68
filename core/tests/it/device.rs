//! A simulated node: the truth about what a device runs, and the late words that others see of it.
//!
//! What died stays dead: nothing here heals a device, and no step of the world does.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rimward_core::cluster::{GoAhead, Hearing, Node, NodeModel, NodeReport, NodeState};
use rimward_core::fleet::Action;
use rimward_core::ids::{ModelKey, RevisionName};
use rimward_core::selector::Labels;
use rimward_core::summary::Measures;

use crate::choices::Choices;

/// The orders in a node's spec.
pub(crate) type Orders = BTreeMap<ModelKey, GoAhead<String>>;

#[derive(Clone, Debug, Default)]
pub(crate) struct Installed {
    committed: Option<RevisionName>,
    /// Condemned, and under which attempt.
    bad: BTreeMap<RevisionName, u32>,
    /// What it works on, and how many steps are left.
    work: Option<(RevisionName, u32)>,
}

/// What befalls devices of the revisions that they run, and of their surroundings.
#[derive(Clone, Debug, Default)]
pub(crate) struct Fate {
    /// Who begins to run one of these never says anything again.
    pub(crate) deadly: BTreeSet<RevisionName>,
    /// The registry is away: nobody gets further than to fetch.
    pub(crate) registry_away: bool,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Device {
    pub(crate) spec: Orders,
    pub(crate) generation: u64,
    /// Cut off from its API server; goes on with what it knows.
    pub(crate) silent: bool,
    /// For ever: it neither works nor reports.
    pub(crate) dead: bool,
    pub(crate) fate: Fate,
    /// How often its Lease was renewed.
    pub(crate) beats: u64,
    /// All that it ever began to run.
    pub(crate) ran: BTreeSet<RevisionName>,
    seen: (u64, Orders),
    installed: BTreeMap<ModelKey, Installed>,
    sent: VecDeque<NodeReport>,
    visible: Option<NodeReport>,
}

impl Device {
    /// The agent lives a moment: maybe reads its spec, works on it, maybe reports.
    pub(crate) fn step(&mut self, bad: &BTreeSet<RevisionName>, calm: bool, choices: &mut Choices) {
        if self.dead {
            return;
        }
        if !self.silent {
            self.beats += 1;
            if calm || choices.chance(60) {
                self.seen = (self.generation, self.spec.clone());
            }
        }
        for (key, order) in &self.seen.1 {
            match order.action {
                Action::Remove => {
                    self.installed.remove(key);
                }
                Action::Run => {
                    let model = self.installed.entry(key.clone()).or_default();
                    let before = order.forget_verdicts_before;
                    model.bad.retain(|_, attempt| *attempt >= before);
                    if !self.fate.registry_away || model.committed.as_ref() == Some(&order.revision)
                    {
                        work(model, order, bad, choices);
                        self.ran.insert(order.revision.clone());
                    }
                    self.dead |=
                        self.fate.deadly.contains(&order.revision) && !self.fate.registry_away;
                }
            }
        }
        if self.dead || self.silent || !(calm || choices.chance(60)) {
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
            let away = self.fate.registry_away;
            Some((key.clone(), told(installed, order, away)))
        });
        NodeReport {
            observed_generation: self.seen.0,
            models: models.collect(),
        }
    }

    /// What a session that hears it so sees of it.
    pub(crate) fn observed(&self, hearing: Hearing) -> Node<String> {
        Node {
            labels: Labels::new(),
            hearing,
            held: None,
            refused: None,
            generation: self.generation,
            entries: self.spec.clone(),
            maybe: BTreeMap::new(),
            report: self.visible.clone(),
        }
    }

    /// The truth: it was told to run something that it neither runs nor rejected.
    pub(crate) fn truly_moving(&self, key: &ModelKey) -> bool {
        self.spec.get(key).is_some_and(|order| {
            order.action == Action::Run && {
                let installed = self.installed.get(key);
                !installed.is_some_and(|it| {
                    it.bad.contains_key(&order.revision)
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
            .is_some_and(|it| it.bad.contains_key(revision))
    }
}

fn work(
    model: &mut Installed,
    order: &GoAhead<String>,
    bad: &BTreeSet<RevisionName>,
    choices: &mut Choices,
) {
    let to = &order.revision;
    if model.bad.contains_key(to) || model.committed.as_ref() == Some(to) {
        model.work = None;
        return;
    }
    match &mut model.work {
        Some((revision, left)) if revision == to && *left > 0 => *left -= 1,
        Some((revision, _)) if revision == to => {
            if bad.contains(to) {
                model.bad.insert(to.clone(), order.attempt);
            } else {
                model.committed = Some(to.clone());
            }
            model.work = None;
        }
        _ => model.work = Some((to.clone(), choices.small(4))),
    }
}

fn told(installed: &Installed, order: &GoAhead<String>, registry_away: bool) -> NodeModel {
    let revision = &order.revision;
    let (state, reason, message) = if installed.bad.contains_key(revision) {
        (
            NodeState::Rejected,
            "GoldenVectorFailed",
            "golden vector 3: expected 7, got 1",
        )
    } else if installed.committed.as_ref() == Some(revision) {
        (NodeState::Committed, "", "")
    } else if registry_away {
        (NodeState::Blocked, "FetchFailed", "the registry is away")
    } else if installed.work.is_some() {
        (NodeState::Trial, "", "")
    } else {
        (NodeState::Pending, "", "")
    };
    NodeModel {
        revision: revision.clone(),
        attempt: order.attempt,
        state,
        serving: installed.committed.is_some(),
        reason: reason.to_owned(),
        message: message.to_owned(),
        last_good: installed.committed.clone(),
        measures: Measures::default(),
    }
}
