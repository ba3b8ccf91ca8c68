//! A hub in a test: the incremental planner, fed and applied as the operator does it.

use rimward_core::fleet::{
    self, ActionKind, ActionRequest, Because, Cluster, ConnectionState, Deployment, DeploymentPlan,
    Desired, Fleet, ModelReport, Observed, Plan,
};
use rimward_core::ids::{ClusterName, DeploymentKey};
use rimward_core::time::Timestamp;

use crate::fixtures::{NOW, all_on, key, named, persist, say};

pub(crate) struct Hub {
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    pub(crate) fleet: Fleet,
    pub(crate) now: Timestamp,
    pub(crate) said: std::collections::BTreeMap<DeploymentKey, DeploymentPlan>,
}

impl Hub {
    pub(crate) fn new(desired: Desired, observed: Observed) -> Self {
        let fleet = fleet::fleet(&desired, &observed);
        Self {
            desired,
            observed,
            fleet,
            now: NOW,
            said: std::collections::BTreeMap::new(),
        }
    }

    /// Plans, and does what the operator does with a plan.
    pub(crate) fn turn(&mut self) -> Plan {
        let plan = self.fleet.plan(self.now);
        for (key, answer) in &plan.deployments {
            if let Some(deployment) = self.desired.deployments.get_mut(key) {
                persist(deployment, answer);
                self.fleet.set_deployment(key, deployment.clone());
            }
            self.said.insert(key.clone(), answer.clone());
        }
        for (name, entries) in &plan.clusters {
            let cluster = self.observed.clusters.get_mut(name).unwrap();
            if &cluster.entries != entries {
                cluster.entries.clone_from(entries);
                cluster.generation += 1;
            }
            self.fleet.set_cluster(name, cluster.clone());
        }
        plan
    }

    /// The hub dies, and another one begins with what was persisted.
    pub(crate) fn restart(&mut self) {
        for cluster in self.observed.clusters.values_mut() {
            if let ConnectionState::Heard { .. } = cluster.connection {
                cluster.connection = ConnectionState::Unheard { since: self.now };
            }
        }
        self.fleet = fleet::fleet(&self.desired, &self.observed);
    }

    pub(crate) fn later(&mut self, seconds: u32) {
        self.now = self.now.plus_seconds(seconds);
    }

    pub(crate) fn cluster(&mut self, name: &str, change: impl FnOnce(&mut Cluster)) {
        let name = named(name);
        let cluster = self.observed.clusters.get_mut(&name).unwrap();
        change(cluster);
        self.fleet.set_cluster(&name, cluster.clone());
    }

    pub(crate) fn edit(&mut self, change: impl FnOnce(&mut Deployment)) {
        let key = key("digits");
        let deployment = self.desired.deployments.get_mut(&key).unwrap();
        change(deployment);
        self.fleet.set_deployment(&key, deployment.clone());
    }

    pub(crate) fn beat(&mut self, name: &str) {
        let at = self.now;
        self.cluster(name, |it| it.connection = ConnectionState::Heard { at });
    }

    pub(crate) fn beat_all(&mut self, but: &[&str]) {
        let names: Vec<ClusterName> = self.observed.clusters.keys().cloned().collect();
        for name in names.iter().filter(|it| !but.contains(&it.as_str())) {
            self.beat(name.as_str());
        }
    }

    pub(crate) fn says(&mut self, name: &str, says: ModelReport) {
        self.cluster(name, |it| say(it, &key("digits"), Some(says)));
    }

    /// Every cluster but `but` says that it did as told.
    pub(crate) fn obey(&mut self, but: &[&str]) {
        let told: Vec<_> = self
            .observed
            .clusters
            .iter()
            .filter(|(name, _)| !but.contains(&name.as_str()))
            .map(|(name, it)| (name.to_string(), it.entries.get(&key("digits")).cloned()))
            .collect();
        for (name, entry) in told {
            let says = entry
                .filter(|entry| entry.action == fleet::Action::Run)
                .map(|entry| {
                    let mut says = all_on(entry.revision.as_str());
                    says.attempt = entry.attempt;
                    says
                });
            self.cluster(&name, |it| say(it, &key("digits"), says));
        }
    }

    /// Turns, with everybody but `but` beating and obeying, `turns` times, `seconds` apart.
    pub(crate) fn run(&mut self, turns: usize, seconds: u32, but: &[&str]) {
        for _ in 0..turns {
            self.turn();
            self.later(seconds);
            self.beat_all(but);
            self.obey(but);
        }
        self.turn();
    }

    /// Everybody is on r1, by what they say.
    pub(crate) fn update_r1(&mut self) {
        self.turn();
        self.obey(&[]);
        self.turn();
    }

    pub(crate) fn answer(&self) -> &DeploymentPlan {
        &self.said[&key("digits")]
    }

    pub(crate) fn why(&self, name: &str) -> Option<Because> {
        self.fleet
            .decisions(&key("digits"))
            .remove(&named(name))?
            .because
    }

    /// Clusters that are told to run `revision`.
    pub(crate) fn told(&self, revision: &str) -> Vec<String> {
        let runs = |it: &&Cluster| {
            let entry = it.entries.get(&key("digits"));
            entry.is_some_and(|it| {
                it.revision.as_str() == revision && it.action == fleet::Action::Run
            })
        };
        self.observed
            .clusters
            .iter()
            .filter(|(_, it)| runs(it))
            .map(|(name, _)| name.to_string())
            .collect()
    }

    /// What a person asks for now.
    pub(crate) fn request(&self, kind: ActionKind, revision: Option<&str>) -> ActionRequest {
        let uid = format!("u{}", self.now.0);
        ActionRequest {
            name: uid.clone(),
            uid,
            created: self.now,
            kind,
            revision: revision.map(crate::fixtures::rev),
            attempt: None,
        }
    }

    /// A person asks for something; gives what became of it.
    pub(crate) fn ask(&mut self, kind: ActionKind) -> (bool, String) {
        self.ask_of(kind, None)
    }

    pub(crate) fn ask_of(&mut self, kind: ActionKind, revision: Option<&str>) -> (bool, String) {
        let request = self.request(kind, revision);
        let uid = request.uid.clone();
        self.edit(|it| it.actions.push(request));
        self.turn();
        let standing = &self.desired.deployments[&key("digits")].standing;
        let decided = standing.decided.iter().find(|it| it.uid == uid).unwrap();
        let answer = (decided.applied, decided.message.clone());
        self.edit(|it| it.actions.clear());
        self.later(1);
        answer
    }
}
