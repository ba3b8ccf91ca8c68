//! The planner of the whole fleet: fed by what changed, it plans what that touches.
//!
//! Owns which deployments a change touches, and the order in which they are planned. What it holds of a cluster
//! is its belief: an order counts as given from the plan on, since a write of it may have left, until what
//! stands on the hub is seen.
//!
//! # Guarantees
//! - The same calls give the same plans.
//! - A plan depends on each deployment's own clusters, and on what its clusters' assignments share (names, room).
//! - Planning again with nothing fed in between changes nothing.
//! - No cluster is sent forward beyond its stage's budgets; a condemned revision is given to no cluster.

use std::cmp::Reverse;
use std::collections::{BTreeMap, BTreeSet, BinaryHeap};

use super::decision::Decision;
use super::doubt::{Doubt, DoubtLimits, Ears};
use super::give::{Touched, entry_bytes};
use super::ledger::{ENTRY_BYTES_UNKNOWN, Ledger, Ledgers};
use super::outcome::Plan;
use super::policy::OFFLINE_GRACE_SECONDS_DEFAULT;
use super::rollout::{Kept, Rollout, StageGroup};
use super::strays::Strays;
use super::target::Order;
use super::types::{Cluster, ConnectionState, Deployment, Entry, Hearing, ModelReport};
use crate::ids::{ClusterName, DeploymentKey, EndpointName, RevisionName};
use crate::time::Timestamp;

/// Most rounds in which one plan may free what another deployment waits for.
///
/// Each further round needs a name or room that the one before set free, so two or three are usual. What
/// is left when this is reached comes with the next plan.
const ROUNDS_MAX: usize = 8;
/// Most steps of one deployment's plan: each passes a stage or gives an order. A bound, never reached.
const STEPS_MAX: usize = 64;

/// The planner.
#[derive(Debug)]
pub struct Fleet {
    pub(super) ledgers: Ledgers,
    pub(super) rollouts: BTreeMap<DeploymentKey, Rollout>,
    /// Entries whose deployment exists and cannot be read, or is gone.
    pub(super) strays: BTreeMap<DeploymentKey, Strays>,
    names: BTreeMap<EndpointName, BTreeSet<DeploymentKey>>,
    touched: BTreeMap<DeploymentKey, Reach>,
    silences: BinaryHeap<Reverse<(Timestamp, ClusterName, u32)>>,
    graces: BTreeSet<u32>,
    wakes: BTreeSet<(Timestamp, DeploymentKey)>,
    woken_at: BTreeMap<DeploymentKey, Timestamp>,
    ears: Ears,
    heard: BTreeSet<ClusterName>,
    /// Not heard by this leader yet, and not for so long that they count as silent.
    unheard: BTreeSet<ClusterName>,
    doubt: Option<Doubt>,
    listening: bool,
    grace_seconds: u32,
    now: Timestamp,
    dirty: BTreeSet<ClusterName>,
}

/// How much of a deployment a change touches.
#[derive(Debug)]
enum Reach {
    /// Some of its targets.
    Targets(BTreeSet<ClusterName>),
    /// Everything.
    All,
}

/// Who wants a name, for the question who is the elder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elders<'a> {
    rollouts: &'a BTreeMap<DeploymentKey, Rollout>,
    names: &'a BTreeMap<EndpointName, BTreeSet<DeploymentKey>>,
}

impl<'a> Elders<'a> {
    /// Every deployment that wants the name somewhere.
    pub(super) fn wanting(&self, name: &EndpointName) -> impl Iterator<Item = &'a DeploymentKey> {
        self.names.get(name).into_iter().flatten()
    }

    /// The elder deployment that wants the name on the cluster too.
    pub(super) fn of(
        &self,
        key: &DeploymentKey,
        created: Timestamp,
        name: &EndpointName,
        cluster: &ClusterName,
    ) -> Option<DeploymentKey> {
        let wanting = self.names.get(name)?;
        let elder = wanting.iter().filter(|other| *other != key).find(|other| {
            self.rollouts.get(*other).is_some_and(|rollout| {
                let target = rollout.targets.get(cluster).map(|kept| &kept.target);
                !rollout.deployment.deleting
                    && target.is_some_and(|target| target.place.is_some())
                    && (rollout.deployment.created, *other) < (created, key)
            })
        });
        elder.cloned()
    }
}

impl Default for Fleet {
    fn default() -> Self {
        Self::new(OFFLINE_GRACE_SECONDS_DEFAULT, DoubtLimits::default())
    }
}

impl Fleet {
    /// A planner that knows nothing yet. `grace_seconds` is by which the hub itself doubts its ears.
    #[must_use]
    pub fn new(grace_seconds: u32, doubt: DoubtLimits) -> Self {
        Self {
            ledgers: Ledgers::new(),
            rollouts: BTreeMap::new(),
            strays: BTreeMap::new(),
            names: BTreeMap::new(),
            touched: BTreeMap::new(),
            silences: BinaryHeap::new(),
            graces: BTreeSet::from([grace_seconds]),
            wakes: BTreeSet::new(),
            woken_at: BTreeMap::new(),
            ears: Ears::new(doubt),
            heard: BTreeSet::new(),
            unheard: BTreeSet::new(),
            doubt: None,
            listening: false,
            grace_seconds,
            now: Timestamp(i64::MIN),
            dirty: BTreeSet::new(),
        }
    }

    fn touch(&mut self, key: &DeploymentKey, cluster: &ClusterName) {
        match self
            .touched
            .entry(key.clone())
            .or_insert_with(|| Reach::Targets(BTreeSet::new()))
        {
            Reach::Targets(targets) => {
                targets.insert(cluster.clone());
            }
            Reach::All => {}
        }
    }

    fn touch_all(&mut self, key: &DeploymentKey) {
        self.touched.insert(key.clone(), Reach::All);
    }

    /// Takes in a deployment as it stands: its spec, and what its status persists.
    pub fn set_deployment(&mut self, key: &DeploymentKey, deployment: Deployment) {
        let grace = deployment.policy.offline.grace_seconds;
        self.watch_grace(grace);
        if let Some(rollout) = self.rollouts.get_mut(key) {
            let before = &rollout.deployment;
            if *before == deployment {
                return;
            }
            let bytes = |it: &Deployment| -> Vec<u32> {
                it.revisions
                    .values()
                    .map(|known| known.entry_bytes)
                    .collect()
            };
            let resized = bytes(before) != bytes(&deployment);
            let same_members = before.placement == deployment.placement;
            let renamed = before.endpoint_name != deployment.endpoint_name;
            let rival = renamed
                || before.created != deployment.created
                || before.deleting != deployment.deleting;
            let old_name = before.endpoint_name.clone();
            rollout.redivide |= !same_members
                || before.policy != deployment.policy
                || before.effective_update() != deployment.effective_update();
            rollout.deployment = deployment;
            rollout.rejudge = true;
            if renamed {
                self.unname(key, &old_name);
            }
            if rival {
                self.touch_rivals(key);
            }
            if !same_members {
                self.match_all(key);
            }
            if resized {
                self.resize(key);
            }
        } else {
            let mut rollout = Rollout::new(key.clone(), deployment);
            if let Some(strays) = self.strays.remove(key) {
                rollout.targets = strays.targets;
            }
            self.rollouts.insert(key.clone(), rollout);
            self.match_all(key);
            self.touch_rivals(key);
            self.resize(key);
        }
        if let Some(rollout) = self.rollouts.get(key) {
            let name = rollout.deployment.endpoint_name.clone();
            self.names.entry(name).or_default().insert(key.clone());
        }
        self.touch_all(key);
    }

    /// What its entries take of their assignments is known now, or another.
    fn resize(&mut self, key: &DeploymentKey) {
        let Some(rollout) = self.rollouts.get(key) else {
            return;
        };
        let mut freed = Vec::new();
        for (name, kept) in &rollout.targets {
            let (Some(order), Some(ledger)) = (&kept.target.order, self.ledgers.get_mut(name))
            else {
                continue;
            };
            let bytes = entry_bytes(&rollout.deployment, &order.entry.revision);
            let free = ledger.claim(key, Some(&order.entry), bytes);
            if free || ledger.is_tight() {
                freed.push(name.clone());
            }
        }
        for name in freed {
            for other in self.targets_of(&name) {
                self.touch(&other, &name);
            }
        }
    }

    /// Whoever else wants the deployment's name looks again.
    fn touch_rivals(&mut self, key: &DeploymentKey) {
        let name = self
            .rollouts
            .get(key)
            .map(|it| &it.deployment.endpoint_name);
        let wanting = name
            .and_then(|name| self.names.get(name))
            .into_iter()
            .flatten();
        let others: Vec<_> = wanting.filter(|other| *other != key).cloned().collect();
        for other in others {
            self.touch_all(&other);
        }
    }

    fn unname(&mut self, key: &DeploymentKey, name: &EndpointName) {
        if let Some(wanting) = self.names.get_mut(name) {
            wanting.remove(key);
            let others: Vec<_> = wanting.iter().cloned().collect();
            if wanting.is_empty() {
                self.names.remove(name);
            }
            for other in others {
                self.touch_all(&other);
            }
        }
    }

    /// Notes for every cluster whether the placement takes it.
    fn match_all(&mut self, key: &DeploymentKey) {
        let Some(rollout) = self.rollouts.get_mut(key) else {
            return;
        };
        let selector = rollout.deployment.placement.clusters.clone();
        for (name, ledger) in &self.ledgers {
            let matches = selector.matches(&ledger.labels);
            match rollout.targets.get_mut(name) {
                Some(kept) => kept.target.matches = matches,
                None if matches => {
                    let mut kept = Kept::default();
                    kept.target.matches = true;
                    rollout.targets.insert(name.clone(), kept);
                }
                None => {}
            }
        }
        rollout.redivide = true;
    }

    /// Takes in that a deployment is gone, or (`unreadable`) exists and cannot be read.
    pub fn remove_deployment(&mut self, key: &DeploymentKey, unreadable: bool) {
        if let Some(rollout) = self.rollouts.remove(key) {
            let name = rollout.deployment.endpoint_name.clone();
            self.unname(key, &name);
            let mut targets = rollout.targets;
            for kept in targets.values_mut() {
                kept.target.matches = false;
                kept.target.place = None;
            }
            let strays = self.strays.entry(key.clone()).or_default();
            strays.targets = targets;
        }
        if unreadable || self.strays.contains_key(key) {
            self.strays.entry(key.clone()).or_default().unreadable = unreadable;
        }
        self.touch_all(key);
    }

    /// Takes in a cluster as it stands, with its assignment.
    ///
    /// Must be told states in the order in which the server made them, the hub's own writes laid over a cache
    /// that lags.
    pub fn set_cluster(&mut self, name: &ClusterName, cluster: Cluster) {
        let Cluster {
            labels,
            connection,
            paused,
            held,
            generation,
            mut entries,
            report,
        } = cluster;
        let known = self.ledgers.contains_key(name);
        let ledger = self
            .ledgers
            .entry(name.clone())
            .or_insert_with(|| Ledger::new(labels.clone(), connection));
        let relabelled = !known || ledger.labels != labels;
        let turned = ledger.paused != paused || ledger.held != held;
        ledger.labels = labels;
        ledger.paused = paused;
        ledger.held = held;
        ledger.generation = generation;
        let reported = report.as_ref().map(|report| report.observed_generation);
        let before = std::mem::replace(&mut ledger.reported, reported);
        if !known {
            self.listen(name, connection);
        } else {
            self.hear(name, connection);
        }
        let mut models = report.map(|report| report.models).unwrap_or_default();
        let mut keys: BTreeSet<DeploymentKey> = entries.keys().cloned().collect();
        keys.extend(models.keys().cloned());
        if let Some(ledger) = self.ledgers.get(name) {
            keys.extend(ledger.claims.keys().cloned());
            keys.extend(ledger.untold.iter().cloned());
        }
        for key in keys {
            let (entry, report) = (entries.remove(&key), models.remove(&key));
            self.set_target(name, &key, entry, report, (generation, before));
        }
        if relabelled {
            self.match_cluster(name);
        }
        if turned {
            let keys: Vec<_> = self.targets_of(name);
            for key in keys {
                self.touch(&key, name);
            }
        }
    }

    fn targets_of(&self, name: &ClusterName) -> Vec<DeploymentKey> {
        self.rollouts
            .iter()
            .filter(|(_, rollout)| rollout.targets.contains_key(name))
            .map(|(key, _)| key.clone())
            .collect()
    }

    /// Notes for every deployment whether its placement takes the cluster.
    fn match_cluster(&mut self, name: &ClusterName) {
        let Some(ledger) = self.ledgers.get(name) else {
            return;
        };
        let mut touched = Vec::new();
        for (key, rollout) in &mut self.rollouts {
            let matches = rollout
                .deployment
                .placement
                .clusters
                .matches(&ledger.labels);
            let kept = rollout.targets.get_mut(name);
            match kept {
                Some(kept) => kept.target.matches = matches,
                None if matches => {
                    let mut kept = Kept::default();
                    kept.target.matches = true;
                    rollout.targets.insert(name.clone(), kept);
                }
                None => continue,
            }
            rollout.redivide = true;
            touched.push(key.clone());
        }
        for key in touched {
            self.touch_all(&key);
        }
    }

    /// Takes in one entry and what is said of it.
    fn set_target(
        &mut self,
        name: &ClusterName,
        key: &DeploymentKey,
        entry: Option<Entry>,
        report: Option<ModelReport>,
        (generation, reported_before): (u64, Option<u64>),
    ) {
        let sized = entry.as_ref().map(|entry| match self.rollouts.get(key) {
            Some(rollout) => entry_bytes(&rollout.deployment, &entry.revision),
            None => ENTRY_BYTES_UNKNOWN,
        });
        let targets = match self.rollouts.get_mut(key) {
            Some(rollout) => &mut rollout.targets,
            None => &mut self.strays.entry(key.clone()).or_default().targets,
        };
        let Some(ledger) = self.ledgers.get_mut(name) else {
            return;
        };
        let kept = targets.entry(name.clone()).or_default();
        let target = &mut kept.target;
        // Reports that act on other deployments' changes say nothing new of an order that they knew.
        let since = target.order.as_ref().and_then(|order| order.since);
        let acted = |reported: Option<u64>| since.is_some_and(|since| reported >= Some(since));
        let mut changed =
            acted(reported_before) != acted(ledger.reported) || target.report != report;
        target.report = report;
        let belief = target.order.as_ref().map(|order| &order.entry);
        let told = target.told.as_ref().map(|told| told.as_deref());
        if belief == entry.as_ref() {
            // What was believed stands. Its generation is known once the write is seen.
            if target.told.take().is_some() {
                ledger.untold.remove(key);
                changed = true;
            }
            if let Some(order) = &mut target.order
                && order.since.is_none()
            {
                order.since = Some(generation);
                changed = true;
            }
        } else if told == Some(entry.as_ref()) {
            // The write was not seen yet, or did not happen: the order may have left all the same.
        } else {
            let same_order = match (&target.order, &entry) {
                (Some(order), Some(entry)) => order.entry.same_order(entry),
                _ => false,
            };
            let since = target.order.as_ref().and_then(|order| order.since);
            let names = [target.order.as_ref().map(|it| &it.entry), entry.as_ref()];
            let names = names.map(|it| it.map(|entry| entry.endpoint_name.clone()));
            target.told = None;
            ledger.untold.remove(key);
            ledger.claim(key, entry.as_ref(), sized.unwrap_or_default());
            target.order = entry.map(|entry| Order {
                entry,
                since: Some(since.filter(|_| same_order).unwrap_or(generation)),
            });
            changed = true;
            let tight = ledger.is_tight();
            if names[0] != names[1] {
                for endpoint in names.into_iter().flatten() {
                    self.contend(key, &endpoint, name);
                }
            }
            if tight {
                for other in self.targets_of(name) {
                    self.touch(&other, name);
                }
            }
        }
        if changed {
            self.touch(key, name);
        }
    }

    /// Takes in that an EdgeCluster is gone.
    pub fn remove_cluster(&mut self, name: &ClusterName) {
        self.ears.forget(name);
        self.heard.remove(name);
        self.unheard.remove(name);
        self.dirty.remove(name);
        if self.ledgers.remove(name).is_none() {
            return;
        }
        let mut touched = Vec::new();
        for (key, rollout) in &mut self.rollouts {
            if rollout.targets.contains_key(name) {
                rollout.drop(name);
                rollout.redivide = true;
                touched.push(key.clone());
            }
        }
        for key in touched {
            self.touch_all(&key);
        }
        for strays in self.strays.values_mut() {
            strays.targets.remove(name);
        }
    }

    fn watch_grace(&mut self, grace_seconds: u32) {
        if self.graces.insert(grace_seconds) {
            for (name, ledger) in &self.ledgers {
                if let Some(at) = ledger.connection.turns_silent_at(grace_seconds) {
                    self.silences
                        .push(Reverse((at, name.clone(), grace_seconds)));
                }
            }
        }
    }

    /// Notes a new cluster's connection.
    fn listen(&mut self, name: &ClusterName, connection: ConnectionState) {
        for grace in &self.graces {
            if let Some(at) = connection.turns_silent_at(*grace) {
                self.silences.push(Reverse((at, name.clone(), *grace)));
            }
        }
        self.sort(name, connection);
    }

    /// Notes who is heard, and who is not yet.
    fn sort(&mut self, name: &ClusterName, connection: ConnectionState) {
        match connection {
            // Being told of an old beat again is no sign of life.
            ConnectionState::Heard { .. }
                if connection.hearing(self.doubting_grace(), self.now) == Hearing::Heard =>
            {
                self.unheard.remove(name);
                if !self.heard.contains(name) {
                    self.heard.insert(name.clone());
                }
                self.ears.forget(name);
            }
            ConnectionState::Heard { .. } => {}
            ConnectionState::Unheard { .. } => {
                self.unheard.insert(name.clone());
            }
            ConnectionState::Silent | ConnectionState::NeverJoined => {
                self.unheard.remove(name);
                self.heard.remove(name);
            }
        }
    }

    /// Takes in what a cluster's heartbeat says. A plain beat of one that is heard touches nothing.
    pub fn hear(&mut self, name: &ClusterName, connection: ConnectionState) {
        let Some(ledger) = self.ledgers.get_mut(name) else {
            return;
        };
        let before = std::mem::replace(&mut ledger.connection, connection);
        if before == connection {
            return;
        }
        let now = self.now;
        let mut turned: Vec<u32> = Vec::new();
        for grace in &self.graces {
            let (waited, due) = (
                before.turns_silent_at(*grace),
                connection.turns_silent_at(*grace),
            );
            // A silence is waited for already, and comes no sooner: it is looked at when that is due.
            let waits = waited.is_some_and(|at| at > now && due.is_none_or(|due| at <= due));
            if let Some(at) = due.filter(|_| !waits) {
                self.silences.push(Reverse((at, name.clone(), *grace)));
            }
            if before.hearing(*grace, now) != connection.hearing(*grace, now) {
                turned.push(*grace);
            }
        }
        for grace in turned {
            self.turned(name, grace);
        }
        self.sort(name, connection);
    }

    /// A cluster sounds differently by that grace.
    fn turned(&mut self, name: &ClusterName, grace_seconds: u32) {
        let mut touched = Vec::new();
        for (key, rollout) in &mut self.rollouts {
            if rollout.grace_seconds() == grace_seconds && rollout.targets.contains_key(name) {
                rollout.redivide |= rollout.membership_follows_hearing();
                touched.push(key.clone());
            }
        }
        for key in touched {
            self.touch(&key, name);
        }
    }

    /// The shortest grace: by it the hub doubts its ears, before any policy acts on the silence.
    fn doubting_grace(&self) -> u32 {
        let policies = self.rollouts.values().map(Rollout::grace_seconds);
        policies
            .min()
            .unwrap_or(self.grace_seconds)
            .min(self.grace_seconds)
    }

    /// Lets time pass: who fell silent, what is due.
    fn pass_time(&mut self, now: Timestamp) {
        // A clock that goes back would make silences longer than they are.
        self.now = self.now.max(now);
        let doubting = self.doubting_grace();
        self.watch_grace(doubting);
        while let Some(Reverse((at, _, _))) = self.silences.peek() {
            if *at > self.now {
                break;
            }
            let Some(Reverse((_, name, grace))) = self.silences.pop() else {
                break;
            };
            let Some(ledger) = self.ledgers.get(&name) else {
                continue;
            };
            let connection = ledger.connection;
            let Some(due) = connection.turns_silent_at(grace) else {
                continue;
            };
            if due > self.now {
                // It was heard meanwhile.
                self.silences.push(Reverse((due, name, grace)));
                continue;
            }
            if grace == doubting {
                self.heard.remove(&name);
                self.unheard.remove(&name);
                self.ears.fell_silent(&name, self.now);
            }
            self.turned(&name, grace);
        }
        let doubt = self.ears.judge(self.heard.len(), doubting, self.now);
        let listening = self.ears.listens(self.heard.len(), self.unheard.len());
        if doubt != self.doubt || listening != self.listening {
            self.doubt = doubt;
            self.listening = listening;
            let keys: Vec<_> = self.rollouts.keys().cloned().collect();
            for key in keys {
                self.touch_all(&key);
            }
        }
        while let Some((at, key)) = self.wakes.first().cloned() {
            if at > self.now {
                break;
            }
            self.wakes.remove(&(at, key.clone()));
            self.woken_at.remove(&key);
            self.touched
                .entry(key)
                .or_insert_with(|| Reach::Targets(BTreeSet::new()));
        }
    }

    /// Looks at everything again with the next plan, whether or not it was seen to change.
    pub fn resync(&mut self) {
        let keys: Vec<_> = self
            .rollouts
            .keys()
            .chain(self.strays.keys())
            .cloned()
            .collect();
        for key in keys {
            self.touch_all(&key);
        }
    }

    /// Plans what was touched. `now` is the leader's monotonic time.
    pub fn plan(&mut self, now: Timestamp) -> Plan {
        self.pass_time(now);
        let mut plan = Plan::default();
        let mut planned: BTreeSet<DeploymentKey> = BTreeSet::new();
        for _ in 0..ROUNDS_MAX {
            let touched = std::mem::take(&mut self.touched);
            if touched.is_empty() {
                break;
            }
            self.divide(&touched);
            for (key, reach) in touched {
                self.plan_one(&key, &reach);
                planned.insert(key);
            }
        }
        for key in planned {
            self.say(&key, &mut plan);
        }
        for name in &self.dirty {
            let entries = self.entries(name);
            plan.clusters.insert(name.clone(), entries);
        }
        let silence = self.silences.peek().map(|Reverse((at, _, _))| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        plan.wake_at = silence.into_iter().chain(wake).min();
        plan
    }

    fn divide(&mut self, touched: &BTreeMap<DeploymentKey, Reach>) {
        let mut moved = Vec::new();
        for key in touched.keys() {
            if let Some(rollout) = self.rollouts.get_mut(key)
                && rollout.redivide
            {
                let clusters = rollout.divide(&self.ledgers, self.now);
                let endpoint = &rollout.deployment.endpoint_name;
                moved.extend(clusters.into_iter().map(|name| (name, endpoint.clone())));
            }
        }
        // Whoever wants the same name there may have an elder now, or none any more.
        for (name, endpoint) in moved {
            let wanting = self.names.get(&endpoint).into_iter().flatten();
            let others: Vec<_> = wanting
                .filter(|it| !touched.contains_key(*it))
                .cloned()
                .collect();
            for other in others {
                self.touch(&other, &name);
            }
        }
    }

    /// Whoever else wants the name looks again on the cluster.
    fn contend(&mut self, key: &DeploymentKey, endpoint: &EndpointName, name: &ClusterName) {
        let wanting = self.names.get(endpoint).into_iter().flatten();
        let others: Vec<_> = wanting.filter(|other| *other != key).cloned().collect();
        for other in others {
            self.touch(&other, name);
        }
    }

    fn plan_one(&mut self, key: &DeploymentKey, reach: &Reach) {
        let mut touched = Touched::default();
        if let Some(mut rollout) = self.rollouts.remove(key) {
            self.run_rollout(&mut rollout, reach, &mut touched);
            self.rollouts.insert(key.clone(), rollout);
        } else {
            self.sweep(key, &mut touched);
        }
        for name in touched.clusters {
            self.dirty.insert(name);
        }
        for (other, name) in touched.freed {
            self.touch(&other, &name);
        }
        for name in touched.tight {
            for other in self.targets_of(&name) {
                if &other != key {
                    self.touch(&other, &name);
                }
            }
        }
        self.settle_dirty();
    }

    fn run_rollout(&mut self, rollout: &mut Rollout, reach: &Reach, touched: &mut Touched) {
        let now = self.now;
        let ledgers = &mut self.ledgers;
        let all = matches!(reach, Reach::All);
        if all {
            rollout.rejudge = true;
        }
        rollout.aim();
        if rollout.rejudge {
            rollout.judge_all(ledgers, now);
        } else if let Reach::Targets(targets) = reach {
            for name in targets {
                rollout.judge(name, ledgers, now);
            }
        }
        if rollout.act(self.doubt) {
            rollout.aim();
            rollout.divide(ledgers, now);
            rollout.judge_all(ledgers, now);
        }
        let mut names: Vec<ClusterName> = match reach {
            Reach::All => rollout.targets.keys().cloned().collect(),
            Reach::Targets(targets) => targets.iter().cloned().collect(),
        };
        for _ in 0..STEPS_MAX {
            let context = rollout.advance(ledgers, self.doubt, self.listening, now);
            if context != rollout.context {
                rollout.context = context;
                rollout.judge_all(ledgers, now);
                names = rollout.targets.keys().cloned().collect();
                continue;
            }
            let elders = Elders {
                rollouts: &self.rollouts,
                names: &self.names,
            };
            let mut given = Touched::default();
            let names = std::mem::take(&mut names);
            rollout.reconsider(&names, ledgers, &elders, now, &mut given);
            rollout.refresh(&names, ledgers, &elders, now, &mut given);
            rollout.give(ledgers, &elders, now, &mut given);
            let any = given.any;
            touched.any |= any;
            touched.freed.append(&mut given.freed);
            touched.tight.append(&mut given.tight);
            touched.clusters.append(&mut given.clusters);
            if !any {
                break;
            }
        }
        self.schedule(rollout);
    }

    fn schedule(&mut self, rollout: &Rollout) {
        let key = &rollout.key;
        if let Some(before) = self.woken_at.remove(key) {
            self.wakes.remove(&(before, key.clone()));
        }
        if let Some(at) = rollout.clock.wake_at {
            self.woken_at.insert(key.clone(), at);
            self.wakes.insert((at, key.clone()));
        }
    }

    /// Entries of a deployment that is gone are removed; those of one that cannot be read stay.
    fn sweep(&mut self, key: &DeploymentKey, touched: &mut Touched) {
        let Some(mut strays) = self.strays.remove(key) else {
            return;
        };
        strays.sweep(key, &mut self.ledgers, touched);
        if strays.unreadable || !strays.targets.is_empty() {
            self.strays.insert(key.clone(), strays);
        }
    }

    fn say(&mut self, key: &DeploymentKey, plan: &mut Plan) {
        if let Some(rollout) = self.rollouts.get_mut(key) {
            let said = rollout.say(&self.ledgers, self.now);
            plan.deployments.insert(key.clone(), said);
        }
    }

    /// Clusters whose entries are what stands on the hub need no write.
    fn settle_dirty(&mut self) {
        let ledgers = &self.ledgers;
        self.dirty
            .retain(|name| ledgers.get(name).is_some_and(|it| !it.untold.is_empty()));
    }

    /// The complete list of entries that a cluster's assignment shall have.
    #[must_use]
    pub fn entries(&self, name: &ClusterName) -> BTreeMap<DeploymentKey, Entry> {
        let Some(ledger) = self.ledgers.get(name) else {
            return BTreeMap::new();
        };
        let entry = |key: &DeploymentKey| {
            let order = self.target(key, name)?.target.order.as_ref()?;
            Some((key.clone(), order.entry.clone()))
        };
        ledger.claims.keys().filter_map(entry).collect()
    }

    pub(super) fn now(&self) -> Timestamp {
        self.now
    }

    pub(super) fn order(&self, key: &DeploymentKey, name: &ClusterName) -> Option<&Entry> {
        let order = self.target(key, name)?.target.order.as_ref()?;
        Some(&order.entry)
    }

    fn target(&self, key: &DeploymentKey, name: &ClusterName) -> Option<&Kept> {
        match self.rollouts.get(key) {
            Some(rollout) => rollout.targets.get(name),
            None => self.strays.get(key)?.targets.get(name),
        }
    }

    /// What is decided for each cluster of a deployment, as of the last plan.
    #[must_use]
    pub fn decisions(&self, key: &DeploymentKey) -> BTreeMap<ClusterName, Decision> {
        let Some(rollout) = self.rollouts.get(key) else {
            return BTreeMap::new();
        };
        let decision = |name: &ClusterName| {
            Some((
                name.clone(),
                rollout.decision(name, &self.ledgers, self.now)?,
            ))
        };
        rollout.targets.keys().filter_map(decision).collect()
    }

    /// A deployment's stages as its budgets see them.
    #[must_use]
    pub fn stages(&self, key: &DeploymentKey) -> Vec<StageGroup> {
        let Some(rollout) = self.rollouts.get(key) else {
            return Vec::new();
        };
        let mut groups: Vec<StageGroup> = rollout.stages.iter().map(StageGroup::of).collect();
        for (name, kept) in &rollout.targets {
            if let Some(group) = kept.target.place.and_then(|place| groups.get_mut(place)) {
                group.members.push(name.clone());
            }
        }
        groups
    }

    /// Every revision of a deployment that a cluster has, had, or may have been told to have.
    #[must_use]
    pub fn revisions_in_use(&self, key: &DeploymentKey) -> BTreeSet<RevisionName> {
        let targets = match (self.rollouts.get(key), self.strays.get(key)) {
            (Some(rollout), _) => &rollout.targets,
            (None, Some(strays)) => &strays.targets,
            (None, None) => return BTreeSet::new(),
        };
        let mut used = BTreeSet::new();
        for kept in targets.values() {
            let target = &kept.target;
            let told = target.told.iter().flatten().map(|entry| &**entry);
            for entry in told.chain(target.order.as_ref().map(|order| &order.entry)) {
                used.insert(entry.revision.clone());
            }
            if let Some(report) = &target.report {
                used.insert(report.revision.clone());
                used.extend(report.last_good.clone());
            }
        }
        used
    }

    /// The doubt that keeps everything where it is, if there is one.
    #[must_use]
    pub const fn doubt(&self) -> Option<Doubt> {
        self.doubt
    }

    /// Takes back a deployment's orders that were not written, since something that goes before them could not
    /// be. Orders to `unsettled` clusters may have been written, and stay.
    pub fn revert(&mut self, key: &DeploymentKey, unsettled: &BTreeSet<ClusterName>) {
        let Some(rollout) = self.rollouts.get_mut(key) else {
            return;
        };
        let mut names = Vec::new();
        for (name, kept) in &mut rollout.targets {
            let Some(ledger) = self.ledgers.get_mut(name) else {
                continue;
            };
            if unsettled.contains(name) {
                continue;
            }
            let Some(told) = kept.target.told.take() else {
                continue;
            };
            ledger.untold.remove(key);
            let size = told
                .as_ref()
                .map_or(0, |entry| entry_bytes(&rollout.deployment, &entry.revision));
            ledger.claim(key, told.as_deref(), size);
            kept.target.order = told.map(|entry| Order {
                entry: *entry,
                since: Some(ledger.generation),
            });
            names.push(name.clone());
        }
        for name in names {
            for other in self.targets_of(&name) {
                self.touch(&other, &name);
            }
        }
        self.settle_dirty();
    }
}
