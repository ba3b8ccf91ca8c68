//! One simulated site without its line: the assignment as it knows it, its nodes, and what it would report.
//!
//! Owns the round plan → go-aheads → nodes. Pure: time and faults are handed in. Which node is next is
//! `core::cluster::plan`'s.

use std::collections::BTreeMap;

use anyhow::Context as _;
use rimward_core::cluster::{self, Assigned, Observed, Progress};
use rimward_core::fleet::ModelReport;
use rimward_core::ids::{ModelKey, NodeName, RevisionName};
use rimward_core::time::Timestamp;
use rimward_crds::ClusterAssignment;

use super::device::Device;
use super::faults::{Faults, Timing};
use super::words;

/// Rounds that follow at once from one another; a release goes through all its states in less.
const ROUNDS_MAX: usize = 32;

/// A site.
#[derive(Debug)]
pub(super) struct Site {
    nodes: BTreeMap<NodeName, Device>,
    assigned: BTreeMap<ModelKey, Assigned<u64>>,
    /// How each revision of the assignment is described, for faults to find it by.
    about: BTreeMap<RevisionName, String>,
    progress: BTreeMap<ModelKey, Progress>,
    /// Generation of the hub's object; none before it was seen.
    pub(super) generation: Option<i64>,
    /// Revisions that ever came to run on a node of it.
    exposed: Vec<RevisionName>,
}

/// What one round gave.
#[derive(Debug)]
pub(super) struct Round {
    /// What it reports.
    pub(super) report: BTreeMap<ModelKey, ModelReport>,
    /// When something happens next, in milliseconds.
    pub(super) next: Option<u64>,
    /// What nodes were told to run.
    pub(super) given: Vec<(ModelKey, RevisionName)>,
    /// It is dead now.
    pub(super) dies: bool,
}

impl Site {
    /// A site whose nodes run nothing.
    pub(super) fn new(nodes: impl Iterator<Item = NodeName>) -> Self {
        Self {
            nodes: nodes.map(|name| (name, Device::default())).collect(),
            assigned: BTreeMap::new(),
            about: BTreeMap::new(),
            progress: BTreeMap::new(),
            generation: None,
            exposed: Vec::new(),
        }
    }

    /// Takes what the hub's object says; says whether that is news.
    pub(super) fn order(&mut self, assignment: &ClusterAssignment) -> bool {
        let generation = assignment.metadata.generation;
        if self.generation == generation {
            return false;
        }
        self.generation = generation;
        (self.assigned, self.about) = words::entries(&assignment.spec.models);
        true
    }

    /// Nodes that answer, and all.
    pub(super) fn count(&self) -> (u32, u32) {
        let answer = self.nodes.values().filter(|node| node.answers()).count();
        let number = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
        (number(answer), number(self.nodes.len()))
    }

    /// All nodes have power again.
    pub(super) fn revive(&mut self, now: u64) {
        let nodes = self.nodes.values_mut();
        nodes.for_each(|node| node.power(true, now));
    }

    /// Takes the power of a node, or gives it back.
    pub(super) fn power(&mut self, node: usize, on: bool, now: u64) -> anyhow::Result<()> {
        let node = self.nodes.values_mut().nth(node);
        node.context("no such node")?.power(on, now);
        Ok(())
    }

    /// The revision that every node that answers serves of a model, if it is one.
    pub(super) fn serves(&self, key: &ModelKey) -> Option<&RevisionName> {
        let nodes = self.nodes.values().filter(|node| node.answers());
        let mut served = nodes.map(|node| node.serves(key));
        let first = served.next()??;
        served.all(|it| it == Some(first)).then_some(first)
    }

    /// Whether a revision that is described so ever came to be ordered on a node of it.
    pub(super) fn was_exposed_to(&self, revision: &str) -> bool {
        self.exposed.iter().any(|it| it.as_str() == revision)
    }

    /// Goes as far as it gets by `now`.
    pub(super) fn round(&mut self, now: u64, timing: &Timing, faults: &Faults) -> Round {
        let mut round = Round {
            report: BTreeMap::new(),
            next: None,
            given: Vec::new(),
            dies: false,
        };
        for _ in 0..ROUNDS_MAX {
            let nodes = self.nodes.iter();
            let observed = Observed {
                nodes: nodes
                    .map(|(name, node)| (name.clone(), node.seen(now, timing)))
                    .collect(),
                progress: std::mem::take(&mut self.progress),
            };
            let seconds = i64::try_from(now / 1000).unwrap_or(i64::MAX);
            let plan = cluster::plan(&self.assigned, &observed, Timestamp(seconds));
            self.progress = plan.progress;
            round.report = plan.report;
            round.next = plan.wake_at.map(|at| {
                let seconds = u64::try_from(at.0).unwrap_or(u64::MAX);
                seconds.saturating_mul(1000).max(now + 1000)
            });
            let mut changed = false;
            for (name, node) in &mut self.nodes {
                if let Some(entries) = plan.nodes.get(name)
                    && node.order(entries)
                {
                    changed = true;
                    for (key, entry) in entries {
                        round.given.push((key.clone(), entry.revision.clone()));
                        if !self.exposed.contains(&entry.revision) {
                            self.exposed.push(entry.revision.clone());
                        }
                    }
                }
                let about = |revision: &RevisionName| self.about.get(revision);
                let step = node.step(now, timing, |revision| {
                    faults.fate(about(revision).map_or(revision.as_str(), String::as_str))
                });
                changed |= step.changed;
                round.next = round.next.into_iter().chain(step.next).min();
                if step.kills_site {
                    round.dies = true;
                    return round;
                }
            }
            if !changed {
                break;
            }
        }
        round
    }
}

#[cfg(test)]
#[path = "site_tests.rs"]
mod tests;
