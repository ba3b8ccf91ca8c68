//! One size of fleet, measured in a process of its own: memory that an earlier size left behind would be counted.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use rimward_core::fleet::{
    self, Cluster, ConnectionState, Deployment, Desired, DoubtLimits, Fleet, Observed, Plan,
};
use rimward_core::ids::{ClusterName, DeploymentKey};
use serde::{Deserialize, Serialize};

use super::world::{NOW, cluster, cluster_name, deployment, done, key, ordered, persist, released};

/// Reports that are measured.
const REPORTS: usize = 200;
/// Specs that are measured, each of another deployment.
const SPECS: usize = 9;
/// Whole plans from nothing.
const WHOLE: usize = 3;
const GRACE_SECONDS: u32 = 300;
/// From one heartbeat to the next, as by default.
const BEAT_SECONDS: u32 = 30;

/// What was found, in microseconds.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Found {
    /// Telling a planner that knows nothing of everything, and its first plan.
    pub(super) start: f64,
    /// One report of a cluster that is on its way, and the plan that follows.
    pub(super) reports: Vec<f64>,
    /// One spec that asks for another release, and the plan that follows.
    pub(super) specs: Vec<f64>,
    /// One plain heartbeat, and the plan that follows.
    pub(super) beat: f64,
    /// A plan of the whole fleet from nothing.
    pub(super) whole: Vec<f64>,
    /// Anonymous memory of the planner for each cluster × deployment.
    pub(super) bytes_per_unit: f64,
}

/// A planner with what a hub knows beside it.
struct World {
    planner: Fleet,
    deployments: BTreeMap<DeploymentKey, Deployment>,
    /// Clusters that differ from all others.
    clusters: BTreeMap<ClusterName, Cluster>,
    count: usize,
}

/// Measures one size.
pub(super) fn measure(clusters: usize, deployments: usize) -> Result<Found> {
    let before = anonymous()?;
    let mut planner = Fleet::new(GRACE_SECONDS, DoubtLimits::default());
    let mut start = 0.0;
    let mut kept = BTreeMap::new();
    for number in 0..deployments {
        let (key, told) = (key(number)?, deployment(number)?);
        kept.insert(key.clone(), told.clone());
        let began = Used::now();
        planner.set_deployment(&key, told);
        start += microseconds(began);
    }
    for number in 0..clusters {
        let (name, told) = (cluster_name(number)?, cluster(deployments)?);
        let began = Used::now();
        planner.set_cluster(&name, told);
        start += microseconds(began);
    }
    let began = Used::now();
    let plan = planner.plan(NOW);
    start += microseconds(began);
    ensure!(plan.clusters.is_empty(), "nothing is to be done at first");
    drop(plan);
    let units = clusters as f64 * deployments as f64;
    let bytes_per_unit = (anonymous()? - before) / units;

    let mut world = World {
        planner,
        deployments: kept,
        clusters: BTreeMap::new(),
        count: deployments,
    };
    let (first, under_way) = world.release(0)?;
    let mut specs = vec![first];
    let reports = world.reports(under_way)?;
    for number in 1..deployments.min(SPECS) {
        specs.push(world.release(number)?.0);
    }
    let beat = world.beats(clusters)?;
    drop(world);
    Ok(Found {
        start,
        reports,
        specs,
        beat,
        whole: whole(clusters, deployments)?,
        bytes_per_unit,
    })
}

impl World {
    /// A deployment's spec asks for its second release: how long that took, and who is on the way now.
    fn release(&mut self, number: usize) -> Result<(f64, Vec<ClusterName>)> {
        let key = key(number)?;
        let kept = self.deployments.get(&key).cloned();
        let told = released(kept.context("no such deployment")?, number, 2)?;
        self.deployments.insert(key.clone(), told.clone());
        let began = Used::now();
        self.planner.set_deployment(&key, told);
        let plan = self.planner.plan(NOW);
        let took = microseconds(began);
        let under_way = self.carry_out(plan)?;
        ensure!(!under_way.is_empty(), "a new release goes to nobody");
        Ok((took, under_way))
    }

    /// Those on their way are done, one after the other: how long each report took.
    fn reports(&mut self, mut under_way: Vec<ClusterName>) -> Result<Vec<f64>> {
        let mut took = Vec::new();
        while let Some(name) = under_way.pop() {
            let cluster = self.clusters.get_mut(&name).context("never ordered")?;
            done(cluster)?;
            let told = cluster.clone();
            let began = Used::now();
            self.planner.set_cluster(&name, told);
            let plan = self.planner.plan(NOW);
            took.push(microseconds(began));
            under_way.splice(0..0, self.carry_out(plan)?);
            if took.len() == REPORTS {
                break;
            }
        }
        Ok(took)
    }

    /// Every cluster beats once: how long one beat took, as a mean, since the clock's grain is coarser than one.
    fn beats(&mut self, clusters: usize) -> Result<f64> {
        let names = (0..clusters).map(cluster_name);
        let names = names.collect::<Result<Vec<_>>>()?;
        let at = NOW.plus_seconds(BEAT_SECONDS);
        // What the time brings by itself is no beat's cost.
        drop(self.planner.plan(at));
        let began = Used::now();
        for name in &names {
            self.planner.hear(name, ConnectionState::Heard { at });
            let plan = self.planner.plan(at);
            ensure!(plan.clusters.is_empty(), "a heartbeat orders something");
        }
        Ok(microseconds(began) / clusters as f64)
    }

    /// What the hub does with a plan, and what its own watches tell it of that: not measured.
    fn carry_out(&mut self, plan: Plan) -> Result<Vec<ClusterName>> {
        let mut under_way = Vec::new();
        for (name, entries) in plan.clusters {
            let cluster = match self.clusters.remove(&name) {
                Some(cluster) => cluster,
                None => cluster(self.count)?,
            };
            let cluster = self.clusters.entry(name.clone()).or_insert(cluster);
            ordered(cluster, entries);
            self.planner.set_cluster(&name, cluster.clone());
            under_way.push(name);
        }
        for (key, answer) in &plan.deployments {
            let deployment = self.deployments.get_mut(key).context("unknown")?;
            persist(deployment, answer);
            self.planner.set_deployment(key, deployment.clone());
        }
        let again = self.planner.plan(NOW);
        ensure!(again.clusters.is_empty(), "planning again orders something");
        Ok(under_way)
    }
}

/// The whole fleet from nothing.
fn whole(clusters: usize, deployments: usize) -> Result<Vec<f64>> {
    let mut observed = Observed::default();
    for number in 0..clusters {
        observed
            .clusters
            .insert(cluster_name(number)?, cluster(deployments)?);
    }
    let mut desired = Desired::default();
    for number in 0..deployments {
        desired
            .deployments
            .insert(key(number)?, deployment(number)?);
    }
    let mut took = Vec::new();
    for _ in 0..WHOLE {
        let began = Used::now();
        let plan = fleet::plan(&desired, &observed, NOW);
        took.push(microseconds(began));
        drop(plan);
    }
    Ok(took)
}

/// Processor time of this thread: the planner waits for nothing, and other programs may run beside.
struct Used(rustix::time::Timespec);

impl Used {
    fn now() -> Self {
        Self(rustix::time::clock_gettime(
            rustix::time::ClockId::ThreadCPUTime,
        ))
    }
}

/// Processor time since.
fn microseconds(began: Used) -> f64 {
    let (before, after) = (began.0, Used::now().0);
    (after.tv_sec - before.tv_sec) as f64 * 1e6 + (after.tv_nsec - before.tv_nsec) as f64 / 1e3
}

/// Anonymous memory of this process, in bytes: the program's own pages, which come in as it runs, are no part of a
/// fleet.
fn anonymous() -> Result<f64> {
    let text = std::fs::read_to_string("/proc/self/status").context("/proc/self/status")?;
    let line = text.lines().find_map(|line| line.strip_prefix("RssAnon:"));
    let kibibytes = line.and_then(|line| line.split_whitespace().next());
    Ok(kibibytes.context("no RssAnon")?.parse::<f64>()? * 1024.0)
}
