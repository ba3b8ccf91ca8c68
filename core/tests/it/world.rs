//! A simulated hub over simulated sites. Every plan that it makes is checked before it is applied.

use std::collections::{BTreeMap, BTreeSet};

use rimward_core::fleet::{
    self, Amount, Cluster, Connection, Deployment, Desired, Members, Observed, Offline,
    OfflineMode, OnFailure, Policy, Revision, stage_groups,
};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::lint;
use rimward_core::selector::Selector;
use rimward_core::time::Timestamp;

use crate::choices::Choices;
use crate::fixtures::{NOW, apply, cluster, deployment, key, labels, named, rev, stage};
use crate::site::Site;

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) sites: BTreeMap<ClusterName, Site>,
    pub(crate) now: Timestamp,
    pub(crate) bad: BTreeSet<RevisionName>,
    pub(crate) choices: Choices,
    last_beat: BTreeMap<ClusterName, Timestamp>,
    /// Clusters that a plan put on their way and that, by the truth, have not arrived.
    granted: BTreeSet<(DeploymentKey, ClusterName)>,
    revisions: u32,
}

impl World {
    pub(crate) fn new(seed: u64) -> Self {
        let mut choices = Choices::new(seed);
        let count = 1 + choices.below(7);
        let mut observed = Observed::default();
        let mut sites = BTreeMap::new();
        for index in 0..count {
            let name = named(&format!("c{index}"));
            let mut hub_side = cluster();
            hub_side.labels = labels(&[("tier", choices.pick(&["canary", "main", "late"]))]);
            hub_side.report = None;
            hub_side.generation = 0;
            observed.clusters.insert(name.clone(), hub_side);
            sites.insert(name, Site::with_nodes(1 + choices.below(3)));
        }
        let mut world = Self {
            desired: Desired::default(),
            last_beat: observed
                .clusters
                .keys()
                .map(|name| (name.clone(), NOW))
                .collect(),
            observed,
            sites,
            now: NOW,
            bad: BTreeSet::new(),
            choices,
            granted: BTreeSet::new(),
            revisions: 0,
        };
        for name in ["a", "b"].iter().take(1 + world.choices.below(2)) {
            let mut new = deployment("none", None);
            new.endpoint_name = name.parse().unwrap();
            new.target = None;
            new.revisions.clear();
            new.policy = policy(&mut world.choices);
            world.desired.deployments.insert(key(name), new);
            world.release(&key(name), None);
        }
        world
    }

    /// People ask for a new revision; `good` says what it is, else chance does.
    pub(crate) fn release(&mut self, key: &DeploymentKey, good: Option<bool>) {
        self.revisions += 1;
        let name = rev(&format!("{}-{}", key.name, self.revisions));
        if !good.unwrap_or_else(|| self.choices.chance(65)) {
            self.bad.insert(name.clone());
        }
        let deployment = self.desired.deployments.get_mut(key).unwrap();
        let fresh = Revision {
            entry_bytes: 1000,
            ..Revision::default()
        };
        deployment.revisions.insert(name.clone(), fresh);
        deployment.target = Some(name);
    }

    /// A moment passes. In calm nothing breaks and nothing is late.
    pub(crate) fn step(&mut self, calm: bool) {
        self.now = Timestamp(self.now.0 + 1 + i64::from(self.choices.small(40)));
        if !calm {
            self.trouble();
        }
        let now = self.now;
        for (name, site) in &mut self.sites {
            for device in site.devices.values_mut() {
                device.step(&self.bad, calm, &mut self.choices);
            }
            let hub_side = self.observed.clusters.get_mut(name).unwrap();
            if calm || self.choices.chance(60) {
                site.mirror(hub_side.generation, &hub_side.entries);
            }
            if calm || self.choices.chance(70) {
                site.pace(now);
            }
            if let Some(report) = site.deliver(calm, &mut self.choices) {
                hub_side.report = Some(report);
            }
            if !site.cut && (calm || self.choices.chance(80)) {
                self.last_beat.insert(name.clone(), now);
            }
            let age = now.seconds_since(self.last_beat[name]);
            if hub_side.connection != Connection::NeverJoined || age == 0 {
                hub_side.connection = Connection::Beat { age_seconds: age };
            }
        }
        let (sites, observed) = (&self.sites, &self.observed);
        self.granted.retain(|(key, name)| {
            let entry = observed.clusters[name].entries.get(key);
            entry.is_some_and(|entry| sites[name].truly_on_its_way(key, entry))
        });
        if calm || self.choices.chance(70) {
            self.plan();
        }
    }

    /// Links break, nodes fall silent, sessions restart, people change their minds.
    fn trouble(&mut self) {
        let choices = &mut self.choices;
        for (name, site) in &mut self.sites {
            if choices.chance(5) {
                site.cut = !site.cut;
            }
            if choices.chance(5) {
                site.restart();
            }
            for device in site.devices.values_mut() {
                if choices.chance(4) {
                    device.silent = !device.silent;
                }
            }
            let hub_side = self.observed.clusters.get_mut(name).unwrap();
            if choices.chance(1) {
                hub_side.paused = !hub_side.paused;
            }
            if choices.chance(1) {
                hub_side.held = hub_side.held.is_none().then(|| "harvest".to_owned());
            }
            if choices.chance(1) {
                hub_side.labels = labels(&[("tier", choices.pick(&["canary", "main", "late"]))]);
            }
        }
        let keys: Vec<_> = self.desired.deployments.keys().cloned().collect();
        for key in keys {
            match self.choices.below(60) {
                0 => self.release(&key, None),
                1 => self.go_back(&key),
                2 => {
                    let deployment = self.desired.deployments.get_mut(&key).unwrap();
                    deployment.paused = !deployment.paused;
                }
                3 => {
                    let edited = policy(&mut self.choices);
                    self.desired.deployments.get_mut(&key).unwrap().policy = edited;
                }
                4 => {
                    let max = self.choices.chance(50).then(|| 1 + self.choices.small(4));
                    self.desired
                        .deployments
                        .get_mut(&key)
                        .unwrap()
                        .placement
                        .max_clusters = max;
                }
                _ => {}
            }
        }
    }

    fn go_back(&mut self, key: &DeploymentKey) {
        let known: Vec<_> = self.desired.deployments[key]
            .revisions
            .keys()
            .cloned()
            .collect();
        let to = self.choices.pick(&known);
        self.desired.deployments.get_mut(key).unwrap().target = Some(to);
    }

    /// All is well again, and people ask for a good revision everywhere.
    pub(crate) fn heal(&mut self) {
        for (name, site) in &mut self.sites {
            site.cut = false;
            for device in site.devices.values_mut() {
                device.silent = false;
            }
            let hub_side = self.observed.clusters.get_mut(name).unwrap();
            hub_side.paused = false;
            hub_side.held = None;
        }
        let keys: Vec<_> = self.desired.deployments.keys().cloned().collect();
        for key in keys {
            self.release(&key, Some(true));
            let deployment = self.desired.deployments.get_mut(&key).unwrap();
            deployment.paused = false;
            deployment.placement.max_clusters = None;
        }
    }

    fn plan(&mut self) {
        let plan = fleet::plan(&self.desired, &self.observed, self.now);
        let broken = lint::check(&self.desired, &self.observed, &plan);
        assert!(broken.is_empty(), "lint: {}", broken[0]);
        self.true_budgets(&plan);
        apply(&mut self.desired, &mut self.observed, &plan);
        let again = fleet::plan(&self.desired, &self.observed, self.now);
        same(&plan, &again);
        for (key, deployment) in &self.desired.deployments {
            let current = deployment.current.as_ref();
            assert!(
                !current.is_some_and(|it| self.bad.contains(it)),
                "{key}: promoted a bad one"
            );
        }
    }

    /// By the truth, clusters that plans put on their way stay within the budgets.
    fn true_budgets(&mut self, plan: &fleet::Plan) {
        for key in self.desired.deployments.keys() {
            let before = self.granted.clone();
            for (name, hub_side) in &self.observed.clusters {
                let entry = plan.clusters.get(name).and_then(|entries| entries.get(key));
                let runs = |entry: &fleet::Entry| {
                    (entry.action == fleet::Action::Run).then(|| entry.revision.clone())
                };
                let after = entry.and_then(runs);
                if after.is_some() && after != hub_side.entries.get(key).and_then(runs) {
                    self.granted.insert((key.clone(), name.clone()));
                }
            }
            for group in stage_groups(&self.desired, &self.observed, key) {
                let mine = |all: &BTreeSet<(DeploymentKey, ClusterName)>| {
                    let counted = group.counted.iter().map(|(name, _)| name);
                    counted
                        .filter(|name| all.contains(&(key.clone(), (*name).clone())))
                        .count()
                };
                let max = group
                    .moving_max
                    .min(group.unavailable_max.unwrap_or(usize::MAX));
                let (was, is) = (mine(&before), mine(&self.granted));
                assert!(
                    is <= max || is <= was,
                    "{key}: stage {}: {is} of {max} on their way: {}",
                    group.name,
                    self.describe(key, &group.members, plan)
                );
            }
        }
    }

    fn describe(&self, key: &DeploymentKey, members: &[ClusterName], plan: &fleet::Plan) -> String {
        let lines = members.iter().map(|name| {
            let hub_side = &self.observed.clusters[name];
            let told = hub_side.entries.get(key).map(|entry| (&entry.revision, entry.action));
            let said = hub_side.report.as_ref().map(|it| (it.observed_generation, it.models.get(key)));
            let after = plan.clusters[name].get(key).map(|entry| &entry.revision);
            let granted = self.granted.contains(&(key.clone(), name.clone()));
            let generation = hub_side.generation;
            let nodes: Vec<_> = self.sites[name].devices.values().collect();
            format!(
                "\n{name} granted {granted}: generation {generation} {told:?} => {after:?}, said {said:?}, is {nodes:?}"
            )
        });
        lines.collect()
    }

    pub(crate) fn hub_side(&self, name: &ClusterName) -> &Cluster {
        &self.observed.clusters[name]
    }

    pub(crate) fn deployment(&self, key: &DeploymentKey) -> &Deployment {
        &self.desired.deployments[key]
    }
}

/// Planning again says the same, with nothing new.
pub(crate) fn same(plan: &fleet::Plan, again: &fleet::Plan) {
    assert_eq!(
        plan.clusters, again.clusters,
        "planning again changes entries"
    );
    assert_eq!(
        plan.wake_at, again.wake_at,
        "planning again changes when to wake"
    );
    for (key, second) in &again.deployments {
        assert!(
            second.outcomes.is_empty(),
            "{key}: new outcomes: {:?}",
            second.outcomes
        );
        assert!(
            second.transitions.is_empty(),
            "{key}: new events: {:?}",
            second.transitions
        );
        let mut first = plan.deployments[key].clone();
        first.outcomes.clear();
        first.transitions.clear();
        assert_eq!(&first, second, "{key}: planning again says something else");
    }
}

pub(crate) fn policy(choices: &mut Choices) -> Policy {
    let stages = (0..choices.below(4)).map(|index| {
        let members = match choices.below(4) {
            0 => Members::Selector(Selector::label(
                "tier",
                choices.pick(&["canary", "main", "late"]),
            )),
            1 => Members::Selector(Selector::Nothing),
            2 => Members::Count(choices.small(5)),
            _ => Members::Percent(choices.small(101)),
        };
        let amount = |choices: &mut Choices| {
            if choices.chance(50) {
                Amount::Count(1 + choices.small(3))
            } else {
                Amount::Percent(1 + choices.small(100))
            }
        };
        let mut stage = stage(&format!("s{index}"), members);
        stage.max_concurrency = amount(choices);
        stage.max_unavailable = choices.chance(50).then(|| amount(choices));
        stage.max_failures = choices.small(3) / 2;
        stage.bake_seconds = if choices.chance(30) {
            choices.small(200)
        } else {
            0
        };
        stage
    });
    let stages = stages.collect();
    Policy {
        stages,
        nodes_max_unavailable: Amount::Count(1 + choices.small(2)),
        offline: Offline {
            mode: if choices.chance(70) {
                OfflineMode::Exclude
            } else {
                OfflineMode::Count
            },
            grace_seconds: 300,
        },
        on_failure: if choices.chance(70) {
            OnFailure::RollbackAll
        } else {
            OnFailure::Pause
        },
    }
}
