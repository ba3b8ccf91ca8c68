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

use std::collections::{BTreeMap, BTreeSet};

use super::doubt::{Doubt, DoubtLimits, Ears};
use super::entry::entry_bytes;
use super::give::Touched;
use super::ledger::Ledgers;
use super::outcome::Plan;
use super::policy::OFFLINE_GRACE_SECONDS_DEFAULT;
use super::rollout::Rollout;
use super::strays::Strays;
use super::target::Order;
use crate::ids::{ClusterName, DeploymentKey, EndpointName};
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
    pub(super) names: BTreeMap<EndpointName, BTreeSet<DeploymentKey>>,
    pub(super) touched: BTreeMap<DeploymentKey, Reach>,
    pub(super) silences: BTreeSet<(Timestamp, ClusterName, u32)>,
    pub(super) graces: BTreeSet<u32>,
    pub(super) wakes: BTreeSet<(Timestamp, DeploymentKey)>,
    pub(super) woken_at: BTreeMap<DeploymentKey, Timestamp>,
    pub(super) ears: Ears,
    pub(super) heard: BTreeSet<ClusterName>,
    /// Not heard by this leader yet, and not for so long that they count as silent.
    pub(super) unheard: BTreeSet<ClusterName>,
    pub(super) doubt: Option<Doubt>,
    pub(super) listening: bool,
    pub(super) grace_seconds: u32,
    pub(super) doubting_seconds: u32,
    pub(super) now: Timestamp,
    /// It has planned before.
    pub(super) planned: bool,
    pub(super) dirty: BTreeSet<ClusterName>,
}

/// How much of a deployment a change touches.
#[derive(Debug)]
pub(super) enum Reach {
    /// Some of its targets.
    Targets(BTreeSet<ClusterName>),
    /// Everything.
    All,
}

/// Who wants a name, for the question who is the elder.
#[derive(Clone, Copy, Debug)]
pub(super) struct Elders<'a> {
    rollouts: &'a BTreeMap<DeploymentKey, Rollout>,
    pub(super) names: &'a BTreeMap<EndpointName, BTreeSet<DeploymentKey>>,
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
            silences: BTreeSet::new(),
            graces: BTreeSet::from([grace_seconds]),
            wakes: BTreeSet::new(),
            woken_at: BTreeMap::new(),
            ears: Ears::new(doubt),
            heard: BTreeSet::new(),
            unheard: BTreeSet::new(),
            doubt: None,
            listening: false,
            grace_seconds,
            doubting_seconds: grace_seconds,
            now: Timestamp(i64::MIN),
            planned: false,
            dirty: BTreeSet::new(),
        }
    }

    pub(super) fn touch(&mut self, key: &DeploymentKey, cluster: &ClusterName) {
        if !self.planned {
            return;
        }
        match self.touched.get_mut(key) {
            Some(Reach::All) => {}
            Some(Reach::Targets(targets)) => {
                targets.insert(cluster.clone());
            }
            None => {
                let targets = BTreeSet::from([cluster.clone()]);
                self.touched.insert(key.clone(), Reach::Targets(targets));
            }
        }
    }

    pub(super) fn touch_all(&mut self, key: &DeploymentKey) {
        // The first plan looks at everything.
        if !self.planned {
            return;
        }
        match self.touched.get_mut(key) {
            Some(reach) => *reach = Reach::All,
            None => {
                self.touched.insert(key.clone(), Reach::All);
            }
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
        if !std::mem::replace(&mut self.planned, true) {
            self.resync();
        }
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
        let silence = self.silences.first().map(|(at, _, _)| *at);
        let wake = self.wakes.first().map(|(at, _)| *at);
        plan.wake_at = silence.into_iter().chain(wake).min();
        plan
    }

    pub(super) fn divide(&mut self, touched: &BTreeMap<DeploymentKey, Reach>) {
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
    pub(super) fn contend(
        &mut self,
        key: &DeploymentKey,
        endpoint: &EndpointName,
        name: &ClusterName,
    ) {
        if !self.planned {
            return;
        }
        let wanting = self.names.get(endpoint).into_iter().flatten();
        let others: Vec<_> = wanting.filter(|other| *other != key).cloned().collect();
        for other in others {
            self.touch(&other, name);
        }
    }

    pub(super) fn plan_one(&mut self, key: &DeploymentKey, reach: &Reach) {
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

    pub(super) fn run_rollout(
        &mut self,
        rollout: &mut Rollout,
        reach: &Reach,
        touched: &mut Touched,
    ) {
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
        if rollout.act(self.doubt, self.listening) {
            rollout.aim();
            rollout.divide(ledgers, now);
            rollout.judge_all(ledgers, now);
        }
        let mut names: Vec<ClusterName> = match reach {
            Reach::All => rollout.out_of_step(),
            Reach::Targets(targets) => targets.iter().cloned().collect(),
        };
        for _ in 0..STEPS_MAX {
            if rollout.comes_loose() {
                let moved = rollout.divide(ledgers, now);
                let wanting = self.names.get(&rollout.deployment.endpoint_name);
                for other in wanting.into_iter().flatten() {
                    let moved = moved.iter().filter(|_| *other != rollout.key);
                    touched
                        .freed
                        .extend(moved.map(|name| (other.clone(), name.clone())));
                }
                rollout.judge_all(ledgers, now);
                names = rollout.out_of_step();
            }
            let context = rollout.advance(ledgers, self.doubt, self.listening, now);
            if context != rollout.context {
                rollout.context = context;
                rollout.judge_all(ledgers, now);
                names = rollout.out_of_step();
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

    pub(super) fn schedule(&mut self, rollout: &Rollout) {
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
    pub(super) fn sweep(&mut self, key: &DeploymentKey, touched: &mut Touched) {
        let Some(mut strays) = self.strays.remove(key) else {
            return;
        };
        strays.sweep(key, &mut self.ledgers, touched);
        if strays.unreadable || !strays.targets.is_empty() {
            self.strays.insert(key.clone(), strays);
        }
    }

    pub(super) fn say(&mut self, key: &DeploymentKey, plan: &mut Plan) {
        if let Some(rollout) = self.rollouts.get_mut(key) {
            let said = rollout.say(&self.ledgers, self.now);
            plan.deployments.insert(key.clone(), said);
        }
    }

    /// Clusters whose entries are what stands on the hub need no write.
    pub(super) fn settle_dirty(&mut self) {
        let ledgers = &self.ledgers;
        self.dirty
            .retain(|name| ledgers.get(name).is_some_and(|it| !it.untold.is_empty()));
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
