//! A simulated fleet around the incremental planner: the API server's objects, the sites, time, and a hub
//! that comes and goes.
//!
//! Owns the truth. Every plan is judged by it, not by what the planner leaves out.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rimward_core::fleet::{
    Action, Cluster, ConnectionState, Deployment, Entry, Policy, Revision, Transition,
};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::selector::Selector;

use crate::choices::Choices;
use crate::fixtures::{cluster, deployment, key, labels, named, rev};
use crate::leader::Leader;
use crate::outpost::{Around, Kind, Outpost};

/// What is written about one site at the API server.
#[derive(Debug)]
pub(crate) struct Object {
    /// As it stands. Its connection is not the server's to say.
    pub(crate) now: Cluster,
    /// States that the hub has not seen yet, oldest first; the last is `now`.
    pub(crate) unseen: VecDeque<Cluster>,
    /// A leader wrote that it is silent, and none has heard it since.
    pub(crate) called_silent: bool,
    /// When its session last beat, by the world's time: what a replica that stands by knows.
    pub(crate) beat_at: Option<i64>,
    pub(crate) joined: bool,
    /// A write on its way whose sender has given up: it lands later, or never.
    pub(crate) late: Option<Late>,
}

/// A write of entries over the generation that its sender knew.
#[derive(Clone, Debug)]
pub(crate) struct Late {
    pub(crate) over: u64,
    pub(crate) entries: BTreeMap<DeploymentKey, Entry>,
}

impl Object {
    fn new(now: Cluster) -> Self {
        Self {
            now,
            unseen: VecDeque::new(),
            called_silent: false,
            beat_at: None,
            joined: false,
            late: None,
        }
    }

    pub(crate) fn change(&mut self, change: impl FnOnce(&mut Cluster)) {
        let before = self.now.clone();
        change(&mut self.now);
        if before != self.now {
            self.unseen.push_back(self.now.clone());
        }
    }

    /// A write on its way arrives, or never will.
    pub(crate) fn settle(&mut self, choices: &mut Choices) {
        if let Some(late) = self.late.take()
            && choices.chance(50)
        {
            self.write(late);
        }
    }

    /// Writes entries, if nobody else wrote since. Says whether that was so.
    pub(crate) fn write(&mut self, late: Late) -> bool {
        if late.over != self.now.generation {
            return false;
        }
        self.change(|it| {
            if it.entries != late.entries {
                it.entries = late.entries;
                it.generation += 1;
            }
        });
        true
    }
}

/// How much goes wrong around the hub.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Trouble {
    /// Percent of writes that are lost, of unknown outcome or late.
    pub(crate) writes: usize,
    /// Percent of steps in which the hub dies.
    pub(crate) crashes: usize,
    /// Percent of steps in which a living hub does not get to plan, and of watch events that are late.
    pub(crate) late: usize,
}

#[derive(Debug)]
pub(crate) struct World {
    pub(crate) elapsed_seconds: i64,
    pub(crate) objects: BTreeMap<ClusterName, Object>,
    pub(crate) sites: BTreeMap<ClusterName, Outpost>,
    /// Deployments as they stand at the server, with a version that each write moves on.
    pub(crate) deployments: BTreeMap<DeploymentKey, (Deployment, u64)>,
    pub(crate) kinds: BTreeMap<RevisionName, Kind>,
    pub(crate) registry_away: bool,
    pub(crate) leader: Option<Leader>,
    pub(crate) trouble: Trouble,
    /// Chance in what happens to sites and people.
    pub(crate) choices: Choices,
    /// Chance in what happens to the hub, so that a history can be had with another hub.
    pub(crate) hub_choices: Choices,
    /// Steps for which no hub starts.
    pub(crate) hub_away_steps: u32,
    /// Sites at which an order to run a revision ever stood.
    pub(crate) ordered: BTreeMap<RevisionName, BTreeSet<ClusterName>>,
    /// What leaders wrote of what they did.
    pub(crate) told: Vec<(DeploymentKey, Transition)>,
    /// How often each action was decided, as leaders wrote it.
    pub(crate) decided: BTreeMap<String, u32>,
    pub(crate) planner_steps: u64,
    pub(crate) revisions: u32,
    pub(crate) requests: u32,
}

impl World {
    pub(crate) fn new(seed: u64, clusters: usize) -> Self {
        let mut choices = Choices::new(seed);
        let mut objects = BTreeMap::new();
        let mut sites = BTreeMap::new();
        for index in 0..clusters {
            let name = named(&format!("c{index}"));
            let mut it = cluster();
            it.labels = labels(&[("tier", choices.pick(&["canary", "main", "late"]))]);
            it.report = None;
            it.generation = 0;
            it.connection = ConnectionState::NeverJoined;
            objects.insert(name.clone(), Object::new(it));
            let seed = seed
                .wrapping_mul(31)
                .wrapping_add(1000 + u64::try_from(index).unwrap());
            sites.insert(name, Outpost::new(1 + choices.small(3), seed));
        }
        Self {
            elapsed_seconds: 0,
            objects,
            sites,
            deployments: BTreeMap::new(),
            kinds: BTreeMap::new(),
            registry_away: false,
            leader: None,
            trouble: Trouble::default(),
            choices,
            hub_choices: Choices::new(seed ^ 0xabcd_ef01),
            hub_away_steps: 0,
            ordered: BTreeMap::new(),
            told: Vec::new(),
            decided: BTreeMap::new(),
            planner_steps: 0,
            revisions: 0,
            requests: 0,
        }
    }

    /// A deployment on every cluster that asks for nothing yet.
    pub(crate) fn deploy(&mut self, name: &str, policy: Policy) -> DeploymentKey {
        let mut new = deployment("none", None);
        new.endpoint_name = name.parse().unwrap();
        new.update = None;
        new.revisions.clear();
        new.policy = policy;
        self.deployments.insert(key(name), (new, 1));
        key(name)
    }

    /// People ask for a new revision.
    pub(crate) fn release(&mut self, key: &DeploymentKey, kind: Kind) -> RevisionName {
        self.revisions += 1;
        let name = rev(&format!("{}-{}", key.name, self.revisions));
        self.kinds.insert(name.clone(), kind);
        let fresh = Revision {
            entry_bytes: 1000,
            ..Revision::default()
        };
        let update = name.clone();
        self.edit(key, |it| {
            it.revisions.insert(update.clone(), fresh);
            it.update = Some(update);
        });
        name
    }

    pub(crate) fn edit(&mut self, key: &DeploymentKey, change: impl FnOnce(&mut Deployment)) {
        let (deployment, version) = self.deployments.get_mut(key).unwrap();
        change(deployment);
        *version += 1;
    }

    pub(crate) fn deployment(&self, key: &DeploymentKey) -> &Deployment {
        &self.deployments[key].0
    }

    /// A moment passes.
    pub(crate) fn step(&mut self, seconds: u32) {
        self.elapsed_seconds += i64::from(seconds);
        let calm = self.trouble.late == 0;
        let around = Around {
            kinds: &self.kinds,
            registry_away: self.registry_away,
            seconds,
            calm,
        };
        for (name, site) in &mut self.sites {
            site.flap(self.elapsed_seconds);
            let object = self.objects.get_mut(name).unwrap();
            if self.hub_choices.chance(50) {
                object.settle(&mut self.hub_choices);
            }
            for entry in object
                .now
                .entries
                .values()
                .filter(|it| it.action == Action::Run)
            {
                let sites = self.ordered.entry(entry.revision.clone()).or_default();
                sites.insert(name.clone());
            }
            let said = site.step(object.now.generation, &object.now.entries, around);
            if let Some(report) = said {
                object.change(|it| it.report = Some(report));
            }
        }
        self.lead();
    }

    /// The hub lives a moment, if there is one.
    fn lead(&mut self) {
        if self.hub_away_steps > 0 {
            self.hub_away_steps -= 1;
            self.leader = None;
            return;
        }
        let mut leader = match self.leader.take() {
            Some(leader) if !self.hub_choices.chance(self.trouble.crashes) => leader,
            _ => Leader::new(self),
        };
        if leader.turn(self) {
            self.leader = Some(leader);
        }
    }

    /// The hub dies now, and another one begins in the next step.
    pub(crate) fn kill_hub(&mut self) {
        self.leader = None;
    }

    /// Sites at which an order to run the revision ever stood.
    pub(crate) fn exposed(&self, revision: &RevisionName) -> usize {
        self.ordered.get(revision).map_or(0, BTreeSet::len)
    }

    /// By the truth, every living site runs what every deployment asks for, and the hub knows.
    pub(crate) fn settled(&self) -> bool {
        self.deployments.iter().all(|(key, (deployment, _))| {
            let Some(update) = &deployment.update else {
                return false;
            };
            deployment.standing.current.as_ref() == Some(update)
                && self.everywhere(key, update, &deployment.placement.clusters)
        })
    }

    pub(crate) fn everywhere(
        &self,
        key: &DeploymentKey,
        revision: &RevisionName,
        placement: &Selector,
    ) -> bool {
        self.sites
            .iter()
            .filter(|(name, site)| {
                site.has_living_nodes() && placement.matches(&self.objects[*name].now.labels)
            })
            .all(|(_, site)| site.truly_runs(key, revision))
    }

    /// What went through or failed, as leaders wrote it: each once, sorted.
    pub(crate) fn fates(&self) -> BTreeSet<String> {
        let telling = self.told.iter().filter(|(_, it)| {
            matches!(
                it,
                Transition::StagePassed { .. }
                    | Transition::Promoted { .. }
                    | Transition::RevisionFailed { .. }
            )
        });
        telling
            .map(|(key, it)| match it {
                Transition::StagePassed {
                    stage, revision, ..
                } => {
                    format!("{key}: {revision} passed {stage}")
                }
                Transition::RevisionFailed { revision, .. } => format!("{key}: {revision} failed"),
                other => format!("{key}: {other}"),
            })
            .collect()
    }
}
