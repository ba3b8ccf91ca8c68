//! A hub's leader in the simulated fleet: it is fed late, its writes get lost, and it dies between any two.
//!
//! Does what the operator does around the planner, and has every plan judged.

use std::collections::{BTreeMap, BTreeSet};

use rimward_core::fleet::{
    Cluster, ConnectionState, DeploymentPlan, Desired, DoubtLimits, Entry, Fleet, Hearing,
    OFFLINE_GRACE_SECONDS_DEFAULT, Observed, Plan, Transition,
};
use rimward_core::ids::{ClusterName, DeploymentKey};
use rimward_core::time::Timestamp;

use crate::truth;
use crate::world::{Late, World};

const DECADE_SECONDS: i64 = 315_360_000;

#[derive(Debug)]
pub(crate) struct Leader {
    pub(crate) fleet: Fleet,
    /// What the planner was told; entries are what it believes.
    pub(crate) desired: Desired,
    pub(crate) observed: Observed,
    /// What is known to stand at the server.
    stands: BTreeMap<ClusterName, (u64, BTreeMap<DeploymentKey, Entry>)>,
    versions: BTreeMap<DeploymentKey, u64>,
    /// Clusters with a write of unknown outcome.
    unsettled: BTreeSet<ClusterName>,
    /// By the world's time.
    pub(crate) heard_at: BTreeMap<ClusterName, i64>,
    clock: i64,
}

/// What becomes of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Done,
    Lost,
    /// The answer is lost; the write was done, was not, or is on its way.
    UnknownDone,
    UnknownLost,
    Late,
}

impl Leader {
    /// A new leader reads everything, with a clock of its own.
    pub(crate) fn new(world: &mut World) -> Self {
        let clock = match world.hub_choices.below(4) {
            0 => 1_000_000,
            1 => DECADE_SECONDS,
            2 => -DECADE_SECONDS,
            _ => i64::from(world.hub_choices.small(u32::MAX)),
        };
        let mut leader = Self {
            fleet: Fleet::new(OFFLINE_GRACE_SECONDS_DEFAULT, DoubtLimits::default()),
            desired: Desired::default(),
            observed: Observed::default(),
            stands: BTreeMap::new(),
            versions: BTreeMap::new(),
            unsettled: BTreeSet::new(),
            heard_at: BTreeMap::new(),
            clock,
        };
        let now = leader.now(world);
        let keys: Vec<_> = world.deployments.keys().cloned().collect();
        for key in keys {
            leader.read_deployment(world, &key);
        }
        // One that stood by, or led before, has heard the fleet all the while.
        let stood_by = world.hub_choices.chance(35);
        for (name, object) in &mut world.objects {
            // It leads only once no write of the one before can arrive any more.
            object.settle(&mut world.hub_choices);
            object.unseen.clear();
            let mut cluster = object.now.clone();
            let heard = object.beat_at.filter(|_| stood_by);
            let heard = heard.map(|beat| (beat, Timestamp(clock + beat)));
            let grace = OFFLINE_GRACE_SECONDS_DEFAULT;
            cluster.connection = match (object.joined, object.called_silent, heard) {
                (false, _, _) => ConnectionState::NeverJoined,
                (true, true, Some((_, at))) if at.plus_seconds(grace) <= now => {
                    ConnectionState::Silent
                }
                (true, _, Some((beat, at))) => {
                    leader.heard_at.insert(name.clone(), beat);
                    ConnectionState::Heard { at }
                }
                (true, true, None) => ConnectionState::Silent,
                (true, false, None) => ConnectionState::Unheard { since: now },
            };
            leader.see(name, cluster);
        }
        leader
    }

    fn now(&self, world: &World) -> Timestamp {
        Timestamp(self.clock + world.elapsed_seconds)
    }

    /// Takes in a cluster's state, with the hub's own writes laid over one that is older.
    fn see(&mut self, name: &ClusterName, mut cluster: Cluster) {
        if let Some((generation, entries)) = self.stands.get(name)
            && *generation > cluster.generation
        {
            cluster.generation = *generation;
            cluster.entries.clone_from(entries);
        }
        if let Some(before) = self.observed.clusters.get(name) {
            cluster.connection = before.connection;
        }
        let stands = (cluster.generation, cluster.entries.clone());
        self.stands.insert(name.clone(), stands);
        self.fleet.set_cluster(name, cluster.clone());
        cluster.entries = self.fleet.entries(name);
        self.observed.clusters.insert(name.clone(), cluster);
    }

    fn read_deployment(&mut self, world: &World, key: &DeploymentKey) {
        let Some((deployment, version)) = world.deployments.get(key) else {
            self.fleet.remove_deployment(key, false);
            self.desired.deployments.remove(key);
            self.versions.remove(key);
            return;
        };
        self.fleet.set_deployment(key, deployment.clone());
        self.desired
            .deployments
            .insert(key.clone(), deployment.clone());
        self.versions.insert(key.clone(), *version);
    }

    /// Hears, watches, plans and writes. Says whether it is still alive.
    pub(crate) fn turn(&mut self, world: &mut World) -> bool {
        self.watch(world);
        self.hear(world);
        let late = world.trouble.late;
        if world.hub_choices.chance(late) {
            return true;
        }
        let now = self.now(world);
        let plan = self.fleet.plan(now);
        world.planner_steps += 1;
        self.judge(world, &plan, now);
        let alive = self.write(world, &plan);
        for name in world.objects.keys() {
            if let Some(cluster) = self.observed.clusters.get_mut(name) {
                cluster.entries = self.fleet.entries(name);
            }
        }
        self.call_silent(world, now);
        alive
    }

    fn watch(&mut self, world: &mut World) {
        let late = world.trouble.late;
        let mut seen = Vec::new();
        for (name, object) in &mut world.objects {
            if world.hub_choices.chance(late) || object.unseen.is_empty() {
                if self.unsettled.contains(name) && world.hub_choices.chance(30) {
                    // A read after the write's last moment settles it.
                    object.settle(&mut world.hub_choices);
                    seen.push((name.clone(), object.now.clone(), true));
                    object.unseen.clear();
                }
                continue;
            }
            let skipped = if late == 0 {
                object.unseen.len() - 1
            } else {
                world.hub_choices.below(object.unseen.len())
            };
            object.unseen.drain(..skipped);
            if let Some(state) = object.unseen.pop_front() {
                // An event from before a write that may still arrive settles nothing.
                let newest = object.unseen.is_empty() && object.late.is_none();
                seen.push((name.clone(), state, newest));
            }
        }
        for (name, state, newest) in seen {
            if newest {
                self.unsettled.remove(&name);
            }
            self.see(&name, state);
        }
        let known = self.versions.clone();
        for key in world
            .deployments
            .keys()
            .chain(known.keys())
            .cloned()
            .collect::<BTreeSet<_>>()
        {
            let stands = world.deployments.get(&key).map(|it| it.1);
            if stands != known.get(&key).copied() && !world.hub_choices.chance(late) {
                self.read_deployment(world, &key);
            }
        }
    }

    fn hear(&mut self, world: &mut World) {
        let at = self.now(world);
        let lost = if world.trouble.late == 0 { 0 } else { 20 };
        for (name, site) in &world.sites {
            if site.answers() && !world.hub_choices.chance(lost) {
                let connection = ConnectionState::Heard { at };
                self.fleet.hear(name, connection);
                self.heard_at.insert(name.clone(), world.elapsed_seconds);
                if let Some(cluster) = self.observed.clusters.get_mut(name) {
                    cluster.connection = connection;
                }
                let object = world.objects.get_mut(name).unwrap();
                object.joined = true;
                object.called_silent = false;
                object.beat_at = Some(world.elapsed_seconds);
            }
        }
    }

    /// What the next leader is to know: but not of those that fell silent while the hub doubts its ears.
    fn call_silent(&self, world: &mut World, now: Timestamp) {
        if self.fleet.doubt().is_some() {
            for (name, object) in &mut world.objects {
                object.called_silent &= !self.fleet.doubts(name);
            }
            return;
        }
        for (name, cluster) in &self.observed.clusters {
            let hearing = cluster
                .connection
                .hearing(OFFLINE_GRACE_SECONDS_DEFAULT, now);
            if hearing == Hearing::Silent {
                world.objects.get_mut(name).unwrap().called_silent = true;
            }
        }
    }

    fn judge(&mut self, world: &World, plan: &Plan, now: Timestamp) {
        truth::judge(world, self, plan, now);
        let again = self.fleet.plan(now);
        assert_eq!(
            again.clusters, plan.clusters,
            "planning again changes entries"
        );
        assert!(
            again.deployments.is_empty(),
            "planning again says {:?}",
            again.deployments
        );
        if world.planner_steps.is_multiple_of(16) {
            let audit = self.fleet.audit();
            assert!(audit.is_ok(), "{audit:?}");
        }
    }

    fn fate(world: &mut World) -> Fate {
        if !world.hub_choices.chance(world.trouble.writes) {
            return Fate::Done;
        }
        world
            .hub_choices
            .pick(&[Fate::Lost, Fate::UnknownDone, Fate::UnknownLost, Fate::Late])
    }

    /// Whether the hub dies before its next write.
    fn dies(world: &mut World) -> bool {
        let chance = world.trouble.crashes;
        world.hub_choices.chance(chance)
    }

    /// Revisions first, then the deployment, then the assignments. Says whether the hub lives on.
    fn write(&mut self, world: &mut World, plan: &Plan) -> bool {
        for (key, answer) in &plan.deployments {
            if Self::dies(world) {
                return false;
            }
            if !self.write_deployment(world, key, answer) {
                self.fleet.revert(key, &self.unsettled);
                self.read_deployment(world, key);
            }
        }
        for name in plan.clusters.keys() {
            if Self::dies(world) {
                return false;
            }
            self.write_cluster(world, name);
        }
        true
    }

    /// Says whether everything is known to be written.
    fn write_deployment(
        &mut self,
        world: &mut World,
        key: &DeploymentKey,
        answer: &DeploymentPlan,
    ) -> bool {
        if Self::fate(world) == Fate::Lost {
            return false;
        }
        let Some((deployment, version)) = world.deployments.get_mut(key) else {
            return false;
        };
        for (name, change) in &answer.outcomes {
            let revision = deployment.revisions.entry(name.clone()).or_default();
            revision.outcome = change.outcome;
            revision.message.clone_from(&change.message);
        }
        if let Some((name, attempt)) = &answer.attempt {
            let revision = deployment.revisions.entry(name.clone()).or_default();
            revision.attempt = revision.attempt.max(*attempt);
        }
        if *version != self.versions[key] {
            return false;
        }
        let fate = Self::fate(world);
        if matches!(fate, Fate::Done | Fate::UnknownDone) {
            let (deployment, version) = world.deployments.get_mut(key).unwrap();
            if deployment.standing != answer.standing {
                deployment.standing.clone_from(&answer.standing);
                *version += 1;
            }
            for transition in &answer.transitions {
                world.told.push((key.clone(), transition.clone()));
                if let Transition::ActionDecided { name, .. } = transition {
                    let times = world.decided.entry(name.clone()).or_default();
                    *times += 1;
                    assert_eq!(*times, 1, "{key}: action {name} is decided twice");
                }
            }
        }
        if fate != Fate::Done {
            return false;
        }
        self.tell_actions(world, key, answer);
        self.read_deployment(world, key);
        true
    }

    /// Writes the outcome of actions that were decided; then nothing asks for them any more.
    fn tell_actions(&self, world: &mut World, key: &DeploymentKey, answer: &DeploymentPlan) {
        let (deployment, version) = world.deployments.get_mut(key).unwrap();
        for decided in &answer.standing.decided {
            if world.hub_choices.chance(80)
                && deployment.actions.iter().any(|it| it.uid == decided.uid)
            {
                deployment.actions.retain(|it| it.uid != decided.uid);
                *version += 1;
            }
        }
    }

    fn write_cluster(&mut self, world: &mut World, name: &ClusterName) {
        let fate = Self::fate(world);
        let entries = self.fleet.entries(name);
        let (over, stands) = &self.stands[name];
        if stands == &entries && !self.unsettled.contains(name) {
            return;
        }
        let write = Late {
            over: *over,
            entries,
        };
        let object = world.objects.get_mut(name).unwrap();
        match fate {
            Fate::Lost => {}
            Fate::Done => {
                let written = object.write(write);
                let state = object.now.clone();
                if !written {
                    // Somebody wrote in between: read before the next try.
                    object.unseen.clear();
                    self.unsettled.remove(name);
                    self.see(name, state);
                    return;
                }
                let mut seen = self.observed.clusters[name].clone();
                seen.entries.clone_from(&state.entries);
                seen.generation = state.generation;
                self.unsettled.remove(name);
                self.see(name, seen);
            }
            Fate::UnknownDone => {
                object.write(write);
                self.unsettled.insert(name.clone());
            }
            Fate::UnknownLost => {
                self.unsettled.insert(name.clone());
            }
            Fate::Late => {
                object.late = Some(write);
                self.unsettled.insert(name.clone());
            }
        }
    }
}
