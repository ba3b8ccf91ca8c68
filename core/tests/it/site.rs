//! A simulated edge cluster: its session paces real plans, over a link that loses, delays and doubles.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rimward_core::cluster::{self, Assigned, Progress};
use rimward_core::fleet::{Action, Entry, Report};
use rimward_core::ids::{DeploymentKey, ModelKey, NodeName, RevisionName};
use rimward_core::selector::Selector;
use rimward_core::time::Timestamp;

use crate::choices::Choices;
use crate::device::Device;

#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    /// The link to the hub is cut.
    pub(crate) cut: bool,
    pub(crate) devices: BTreeMap<NodeName, Device>,
    mirror: Option<(u64, BTreeMap<DeploymentKey, Entry>)>,
    progress: BTreeMap<ModelKey, Progress>,
    outbox: VecDeque<Report>,
    own: Option<Report>,
}

impl Site {
    pub(crate) fn with_nodes(count: usize) -> Self {
        let devices =
            (0..count).map(|index| (format!("n{index}").parse().unwrap(), Device::default()));
        Self {
            devices: devices.collect(),
            ..Self::default()
        }
    }

    /// Mirrors the assignment, if the link lets it.
    pub(crate) fn mirror(&mut self, generation: u64, entries: &BTreeMap<DeploymentKey, Entry>) {
        if !self.cut && generation > 0 {
            self.mirror = Some((generation, entries.clone()));
        }
    }

    /// The session restarts and forgets what it kept in memory.
    pub(crate) fn restart(&mut self) {
        self.progress.clear();
    }

    /// The session plans, gives go-aheads and makes its report. Checks the nodes' budget by the truth.
    pub(crate) fn pace(&mut self, now: Timestamp) {
        let Some((generation, entries)) = &self.mirror else {
            return;
        };
        let generation = *generation;
        let assigned: BTreeMap<_, _> = entries
            .iter()
            .map(|(key, entry)| (key.clone(), assigned(entry)))
            .collect();
        let plan = cluster::plan(&assigned, &self.observed(), now);
        let before = self.truly_moving(&assigned);
        let rejected = self.truly_told_rejected(&assigned);
        let mut given: BTreeSet<(ModelKey, NodeName)> = BTreeSet::new();
        for (name, orders) in &plan.nodes {
            let device = self.devices.get_mut(name).unwrap();
            if &device.spec == orders {
                continue;
            }
            for (key, order) in orders {
                if order.action == Action::Run && device.spec.get(key) != Some(order) {
                    given.insert((key.clone(), name.clone()));
                }
            }
            device.spec.clone_from(orders);
            device.generation += 1;
        }
        self.progress.clone_from(&plan.progress);
        for (key, entry) in assigned
            .iter()
            .filter(|(_, entry)| entry.action == Action::Run)
        {
            let after = self.truly_moving(&assigned);
            let count = |all: &BTreeSet<(ModelKey, NodeName)>| {
                all.iter()
                    .filter(|(model, _)| model == key)
                    .cloned()
                    .collect::<BTreeSet<_>>()
            };
            let (before, after) = (count(&before), count(&after));
            let max = entry.max_unavailable.of(self.devices.len());
            assert!(
                after.len() <= max || after.is_subset(&before),
                "nodes: {key}: {after:?} on their way, {max} allowed, before {before:?}"
            );
            assert!(
                !rejected.contains(key) || !given.iter().any(|(model, _)| model == key),
                "nodes: {key}: go-ahead after a rejection was seen: {given:?}"
            );
        }
        let again = cluster::plan(&assigned, &self.observed(), now);
        assert_eq!(
            again.nodes, plan.nodes,
            "pacing again after applying changes something"
        );
        assert_eq!(
            again.progress, plan.progress,
            "progress changes when nothing happened"
        );
        self.reasons(&assigned, &plan);
        let report = Report {
            observed_generation: generation,
            models: plan.report,
        };
        if self.own.as_ref() != Some(&report) {
            self.own = Some(report);
        }
    }

    fn observed(&self) -> cluster::Observed<String> {
        cluster::Observed {
            nodes: self
                .devices
                .iter()
                .map(|(name, device)| (name.clone(), device.observed()))
                .collect(),
            progress: self.progress.clone(),
        }
    }

    fn reasons(
        &self,
        assigned: &BTreeMap<ModelKey, Assigned<String>>,
        plan: &cluster::Plan<String>,
    ) {
        for (key, entry) in assigned
            .iter()
            .filter(|(_, entry)| entry.action == Action::Run)
        {
            for (name, device) in &self.devices {
                let there = device.truly_serves(key) == Some(&entry.revision);
                let given = device
                    .spec
                    .get(key)
                    .is_some_and(|it| it.revision == entry.revision && it.action == Action::Run);
                let told = plan.waiting[key].iter().any(|(node, _)| node == name);
                assert!(told || there && given, "node {name} waits without a reason");
            }
        }
    }

    fn truly_moving(
        &self,
        assigned: &BTreeMap<ModelKey, Assigned<String>>,
    ) -> BTreeSet<(ModelKey, NodeName)> {
        let pairs = self.devices.iter().flat_map(|(name, device)| {
            assigned
                .keys()
                .filter(|key| device.truly_moving(key))
                .map(|key| (key.clone(), name.clone()))
        });
        pairs.collect()
    }

    /// Models of which the session was told that a node rejected the entry's revision.
    fn truly_told_rejected(
        &self,
        assigned: &BTreeMap<ModelKey, Assigned<String>>,
    ) -> BTreeSet<ModelKey> {
        let told = |key: &ModelKey, revision: &RevisionName| {
            self.devices.values().any(|device| {
                let observed = device.observed();
                let said = observed
                    .report
                    .as_ref()
                    .and_then(|report| report.models.get(key));
                device.truly_rejected(key, revision)
                    && said.is_some_and(|model| {
                        &model.revision == revision && model.state == cluster::NodeState::Rejected
                    })
            })
        };
        let keys = assigned
            .iter()
            .filter(|(key, entry)| told(key, &entry.revision));
        keys.map(|(key, _)| key.clone()).collect()
    }

    /// A report that reaches the hub now, maybe an old one, maybe one that came before.
    pub(crate) fn deliver(&mut self, calm: bool, choices: &mut Choices) -> Option<Report> {
        if self.cut {
            return None;
        }
        if let Some(own) = &self.own {
            self.outbox.push_back(own.clone());
        }
        if calm {
            self.outbox.clear();
            return self.own.clone();
        }
        while self.outbox.len() > 5 {
            self.outbox.pop_front();
        }
        match choices.below(4) {
            0 => None,
            1 => self.outbox.front().cloned(),
            2 => self.outbox.pop_front(),
            _ => self.outbox.back().cloned(),
        }
    }

    /// The truth: somewhere a node that has power is not yet where the hub's entry wants it.
    pub(crate) fn truly_on_its_way(&self, key: &DeploymentKey, entry: &Entry) -> bool {
        if entry.action == Action::Remove {
            return false;
        }
        let rejected = |device: &Device| device.truly_rejected(key, &entry.revision);
        let expired = self
            .progress
            .get(key)
            .is_some_and(|progress| progress.expired);
        if expired || self.devices.values().any(rejected) {
            // It failed: its session gives no further go-ahead.
            return false;
        }
        if self.devices.values().all(|device| device.silent) {
            return true;
        }
        self.devices
            .values()
            .filter(|device| !device.silent)
            .any(|device| {
                device.truly_serves(key) != Some(&entry.revision) || device.truly_moving(key)
            })
    }
}

fn assigned(entry: &Entry) -> Assigned<String> {
    Assigned {
        revision: entry.revision.clone(),
        action: entry.action,
        nodes: Selector::everything(),
        max_unavailable: entry.nodes_max_unavailable,
        progress_deadline_seconds: entry.progress_deadline_seconds,
        content: entry.revision.to_string(),
    }
}
