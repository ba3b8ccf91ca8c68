//! A simulated edge cluster: its session paces real plans, over a link that loses, delays and doubles.
//!
//! Checks each plan by the truth about the devices, and by nothing that the planner says of them.

use std::collections::{BTreeMap, BTreeSet};

use rimward_core::cluster::{self, Assigned, Hearing, NodeWaiting, Plan, Progress, Used};
use rimward_core::fleet::{Action, ModelReport, Report};
use rimward_core::ids::{ModelKey, NodeName, RevisionName};
use rimward_core::selector::Selector;
use rimward_core::time::Timestamp;

use crate::choices::Choices;
use crate::device::{Device, Orders};

/// A node whose Lease did not change for so long is silent. Steps are shorter.
pub(crate) const SILENCE_SECONDS: u64 = 60;

/// What a session has heard of a node.
#[derive(Clone, Copy, Debug)]
struct Ear {
    beats: u64,
    since: Timestamp,
    changed: bool,
}

/// A write of which the session does not know whether it was done.
#[derive(Clone, Debug)]
struct Unsure {
    /// The spec as the session last read it.
    read: (u64, Orders),
    /// What it wanted to write since, each time without an answer.
    wanted: Vec<Orders>,
}

#[derive(Clone, Debug, Default)]
pub(crate) struct Site {
    pub(crate) devices: BTreeMap<NodeName, Device>,
    /// How many of a hundred writes get no answer: half of these are done all the same.
    pub(crate) lossy_percent: usize,
    /// The last plan's waiting nodes.
    pub(crate) waiting: BTreeMap<ModelKey, Vec<(NodeName, NodeWaiting)>>,
    mirror: Option<(u64, BTreeMap<ModelKey, Assigned<String>>)>,
    progress: BTreeMap<ModelKey, Progress>,
    ears: BTreeMap<NodeName, Ear>,
    unsure: BTreeMap<NodeName, Unsure>,
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

    /// Takes over what the cluster's nodes shall run.
    pub(crate) fn assign(
        &mut self,
        generation: u64,
        entries: BTreeMap<ModelKey, Assigned<String>>,
    ) {
        self.mirror = Some((generation, entries));
    }

    /// The session restarts: it has heard nobody, and of its progress it finds what was written down,
    /// up to an eighth of each deadline ago.
    pub(crate) fn restart(&mut self) {
        self.ears.clear();
        self.unsure.clear();
        let Some((_, entries)) = &self.mirror else {
            return;
        };
        for (key, progress) in &mut self.progress {
            progress.moving = self.devices.keys().cloned().collect();
            let deadline = entries
                .get(key)
                .map_or(8, |it| it.progress_deadline_seconds);
            let step = (deadline / 8).max(1);
            for used in progress.used.values_mut() {
                *used = Used {
                    seconds: used.seconds / step * step,
                    running: false,
                };
            }
        }
    }

    /// The session restarts, and of the deadlines nothing was written down.
    pub(crate) fn forget(&mut self) {
        self.restart();
        // What went before is known of the mirror itself: which order stood there, and its status.
        for progress in self.progress.values_mut() {
            progress.used.clear();
            progress.silent_before.clear();
            progress.passed_before.clear();
        }
    }

    /// What the session says of a model.
    pub(crate) fn said(&self, key: &ModelKey) -> Option<&ModelReport> {
        self.own.as_ref()?.models.get(key)
    }

    /// The session listens for the nodes' Leases, by its own clock.
    fn listen(&mut self, now: Timestamp) {
        for (name, device) in &self.devices {
            let new = Ear {
                beats: device.beats,
                since: now,
                changed: false,
            };
            let ear = self.ears.entry(name.clone()).or_insert(new);
            if ear.beats != device.beats {
                *ear = Ear {
                    changed: true,
                    ..new
                };
            }
        }
    }

    pub(crate) fn hearing(&self, name: &NodeName, now: Timestamp) -> Hearing {
        match self.ears.get(name) {
            Some(ear) if now.seconds_since(ear.since) >= SILENCE_SECONDS => Hearing::Silent,
            Some(ear) if ear.changed => Hearing::Heard,
            _ => Hearing::Unheard,
        }
    }

    /// The session plans, gives go-aheads and makes its report. `now` is its own monotonic time.
    pub(crate) fn pace(&mut self, now: Timestamp) {
        let mut choices = Choices::new(u64::try_from(now.0).unwrap_or(0));
        self.listen(now);
        let Some((generation, assigned)) = self.mirror.clone() else {
            return;
        };
        // A write without an answer is settled by the next look at the object.
        self.unsure.retain(|_, _| choices.chance(50));
        let plan = cluster::plan(&assigned, &self.observed(now), now);
        let before = self.clone();
        self.write(&plan, &mut choices);
        self.progress.clone_from(&plan.progress);
        for (key, entry) in assigned.iter().filter(|(_, it)| it.action == Action::Run) {
            self.budget(key, entry, &before, now);
            before.no_order_after_failures(key, entry, &plan, now);
            adds_up(key, &plan.report[key]);
        }
        if self.unsure.is_empty() {
            let again = cluster::plan(&assigned, &self.observed(now), now);
            assert_eq!(
                again.nodes, plan.nodes,
                "pacing again after applying changes something"
            );
            assert_eq!(
                again.progress, plan.progress,
                "progress changes when nothing happened"
            );
        }
        self.reasons(&assigned, &plan);
        self.waiting.clone_from(&plan.waiting);
        let report = Report {
            observed_generation: generation,
            models: plan.report,
        };
        if self.own.as_ref() != Some(&report) {
            self.own = Some(report);
        }
    }

    fn write(&mut self, plan: &Plan<String>, choices: &mut Choices) {
        for (name, orders) in &plan.nodes {
            let device = self.devices.get_mut(name).unwrap();
            let read = match self.unsure.get(name) {
                Some(unsure) => unsure.read.clone(),
                None => (device.generation, device.spec.clone()),
            };
            if &read.1 == orders {
                continue;
            }
            let lost = choices.chance(self.lossy_percent);
            // A stale writer loses: what an earlier write without an answer did stands.
            let stale = device.generation != read.0;
            let dropped = lost && choices.chance(50);
            if !stale && !dropped {
                device.spec.clone_from(orders);
                device.generation += 1;
            }
            if lost {
                let wanted = Vec::new();
                let unsure = self.unsure.entry(name.clone());
                let unsure = unsure.or_insert(Unsure { read, wanted });
                unsure.wanted.push(orders.clone());
            } else if !stale {
                self.unsure.remove(name);
            }
        }
    }

    fn observed(&self, now: Timestamp) -> cluster::Observed<String> {
        let one = |(name, device): (&NodeName, &Device)| {
            let mut node = device.observed(self.hearing(name, now));
            if let Some(unsure) = self.unsure.get(name) {
                (node.generation, node.entries) = unsure.read.clone();
                let differs =
                    |(key, order): &(&ModelKey, &_)| unsure.read.1.get(*key) != Some(*order);
                for (key, order) in unsure.wanted.iter().flatten().filter(differs) {
                    let all = node.maybe.entry(key.clone()).or_default();
                    all.push(order.clone());
                }
            }
            (name.clone(), node)
        };
        cluster::Observed {
            nodes: self.devices.iter().map(one).collect(),
            progress: self.progress.clone(),
        }
    }

    /// By the truth: nobody is put on the way to the order while as many as may be are on it, or are
    /// lost to it. Of nodes on the way elsewhere, those count that the session can hear.
    fn budget(&self, key: &ModelKey, entry: &Assigned<String>, before: &Self, now: Timestamp) {
        let on_it = |site: &Self| -> BTreeSet<NodeName> {
            let takes = |(name, device): &(&NodeName, &Device)| {
                let order = device.spec.get(key);
                let to_it = order
                    .is_some_and(|it| it.revision == entry.revision && it.attempt == entry.attempt);
                device.truly_moving(key) && (to_it || site.hearing(name, now) != Hearing::Silent)
            };
            let all = site.devices.iter().filter(takes);
            all.map(|(name, _)| name.clone()).collect()
        };
        let (was, is) = (on_it(before), on_it(self));
        let max = entry.max_unavailable.of(self.devices.len());
        assert!(
            is.len() <= max || is.is_subset(&was),
            "nodes: {key}: {is:?} on their way, {max} allowed, before {was:?}"
        );
    }

    /// Once it was told of more rejections than it may have, or lost more nodes, it gives nothing.
    fn no_order_after_failures(
        &self,
        key: &ModelKey,
        entry: &Assigned<String>,
        plan: &Plan<String>,
        now: Timestamp,
    ) {
        let order = |device: &Device| {
            let order = device.spec.get(key)?;
            (order.action == Action::Run).then(|| (order.revision.clone(), order.attempt))
        };
        let wanted = Some((entry.revision.clone(), entry.attempt));
        let lost = |(name, device): &(&NodeName, &Device)| {
            let told = self.told_rejected(device, key, entry);
            let silent = self.hearing(name, now) == Hearing::Silent && order(device) == wanted;
            let before = self.progress.get(key);
            let before = before.is_some_and(|it| it.silent_before.contains(*name));
            told || silent && !before && !device.truly_rejected(key, &entry.revision)
        };
        // What the session's read lags behind is settled later; the truth here is about settled ones.
        let settled = |(name, _): &(&NodeName, &Device)| !self.unsure.contains_key(*name);
        let fresh_order = self.progress.get(key).is_some_and(|it| {
            it.revision == entry.revision
                && it.attempt == entry.attempt
                && !it.passed_before.contains(&entry.revision)
        });
        let failures = self.devices.iter().filter(settled).filter(lost).count();
        if !fresh_order || failures <= usize::try_from(entry.max_failures).unwrap() {
            return;
        }
        for (name, device) in &self.devices {
            let gets = plan.nodes[name].get(key).is_some_and(|it| {
                it.action == Action::Run
                    && (it.revision.clone(), it.attempt) == wanted.clone().unwrap()
            });
            let new = gets && order(device) != wanted && !self.unsure.contains_key(name);
            let there = device.truly_serves(key) == Some(&entry.revision);
            assert!(
                !new || there || device.truly_rejected(key, &entry.revision),
                "nodes: {key}: {name} gets a go-ahead after {failures} failures"
            );
        }
    }

    fn told_rejected(&self, device: &Device, key: &ModelKey, entry: &Assigned<String>) -> bool {
        let observed = device.observed(Hearing::Heard);
        let said = observed.report.as_ref().and_then(|it| it.models.get(key));
        device.truly_rejected(key, &entry.revision)
            && said.is_some_and(|model| {
                model.revision == entry.revision
                    && model.state == cluster::NodeState::Rejected
                    && model.attempt >= entry.forget_verdicts_before
            })
    }

    fn reasons(&self, assigned: &BTreeMap<ModelKey, Assigned<String>>, plan: &Plan<String>) {
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
                let told = plan.waiting[key].iter().find(|(node, _)| node == name);
                assert!(
                    told.is_some() || there && given,
                    "node {name} waits without a reason"
                );
                assert!(told.is_none_or(|(_, it)| !it.to_string().is_empty() && !it.reason().is_empty()));
            }
        }
    }
}

/// Law: each node stands in exactly one column.
fn adds_up(key: &ModelKey, report: &ModelReport) {
    let nodes = report.nodes;
    let sum = nodes.updated
        + nodes.pending
        + nodes.held
        + nodes.silent
        + nodes.suspect
        + nodes.failed
        + nodes.rolled_back;
    assert_eq!(sum, nodes.desired, "{key}: {nodes:?}");
    assert!(nodes.ready <= nodes.desired, "{key}: {nodes:?}");
}

/// The revision that is asked of a model.
pub(crate) fn order(
    revision: &RevisionName,
    attempt: u32,
    max_unavailable: u32,
    max_failures: u32,
) -> Assigned<String> {
    Assigned {
        revision: revision.clone(),
        attempt,
        forget_verdicts_before: 0,
        action: Action::Run,
        nodes: Selector::everything(),
        max_unavailable: rimward_core::fleet::Amount::Count(max_unavailable),
        max_failures,
        progress_deadline_seconds: 600,
        content: revision.to_string(),
    }
}
