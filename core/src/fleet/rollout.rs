//! One deployment's rollout as the planner keeps it: its targets, and every count and queue over them.
//!
//! Owns that counts and queues follow the targets: a target is judged, and what it counted as before is
//! taken away. So a report costs what it changes, and nothing per cluster of the fleet. Decides nothing itself.

use std::collections::{BTreeMap, BTreeSet};

use litemap::LiteMap;

use super::advance::At;
use super::because::Because;
use super::class::{Flag, Tally};
use super::classify::{Judged, Want, classify};
use super::context::{Context, Course};
use super::gate::GateWait;
use super::ledger::{Ledger, Ledgers, side_by_side};
use super::outcome::{OutcomeChange, Transition};
use super::policy::{AfterUpdate, Members};
use super::queue::{Cost, Queue, Seat, cost};
use super::stages::{Candidate, Divided, divide};
use super::target::{Facts, Shared, Sight, Target};
use super::types::{ConnectionState, Deployment};
use crate::ids::{ClusterName, DeploymentKey, RevisionName, StageName};
use crate::summary::Counts;
use crate::time::Timestamp;

/// One deployment's rollout.
#[derive(Debug)]
pub(super) struct Rollout {
    pub(super) key: DeploymentKey,
    pub(super) deployment: Deployment,
    pub(super) targets: Targets,
    pub(super) shared: Shared,
    pub(super) stages: Vec<Group>,
    /// Targets outside the placement.
    pub(super) outside: Tally,
    pub(super) back: BTreeSet<Seat>,
    pub(super) leave: BTreeSet<Seat>,
    pub(super) at_once: BTreeSet<Seat>,
    pub(super) open: BTreeSet<(u8, ClusterName)>,
    pub(super) nodes: Counts,
    pub(super) context: Context,
    pub(super) clock: Clock,
    /// What the present stage as a whole waits for.
    pub(super) gate: Option<GateWait>,
    /// Why the content failed, or the rollout stopped.
    pub(super) failed: Option<String>,
    pub(super) outcomes: BTreeMap<RevisionName, OutcomeChange>,
    pub(super) transitions: Vec<Transition>,
    /// Membership has to be looked at again.
    pub(super) redivide: bool,
    /// Every target has to be judged again.
    pub(super) rejudge: bool,
    /// How many orders named the revision when that was last looked at.
    named: u32,
}

/// What runs between two persisted states of the record. Lost with the leader, and then counted anew.
#[derive(Clone, Debug, Default)]
pub(super) struct Clock {
    /// Since when the bake counts beyond what is persisted.
    pub(super) baking_since: Option<Timestamp>,
    /// Since when the rollout counts beyond what is persisted.
    pub(super) counting_since: Option<Timestamp>,
    /// When time alone may change something.
    pub(super) wake_at: Option<Timestamp>,
}

/// Targets by cluster, as one sorted list. Boxed, since the list is moved when a cluster joins.
pub(super) type Targets = LiteMap<ClusterName, Box<Kept>>;

/// A target with what it counts as now.
#[derive(Debug, Default)]
pub(super) struct Kept {
    pub(super) target: Target,
    pub(super) judged: Judged,
    seat: Option<Cost>,
    rank: Option<u8>,
    nodes: Counts,
}

impl Kept {
    /// A target that the placement takes, and of which nothing else is known.
    pub(super) fn matching() -> Box<Self> {
        let mut kept = Box::<Self>::default();
        kept.target.matches = true;
        kept
    }
}

/// One stage with its counts, and who wants to go forward in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Group {
    pub(super) divided: Divided,
    pub(super) tally: Tally,
    pub(super) forward: Queue,
}

/// A stage of a deployment as its budgets see it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StageGroup {
    /// The stage's name.
    pub name: StageName,
    /// Its clusters, by name.
    pub members: Vec<ClusterName>,
    /// How many may be on their way at once.
    pub moving_max: usize,
    /// How many may be unavailable at once; none: not bounded.
    pub unavailable_max: Option<usize>,
}

/// Where a target waits.
enum Line<'a> {
    Forward(&'a mut Queue),
    Other(&'a mut BTreeSet<Seat>),
}

impl StageGroup {
    pub(super) fn of(group: &Group) -> Self {
        let stage = &group.divided.stage;
        Self {
            name: stage.name.clone(),
            members: Vec::new(),
            moving_max: stage.max_concurrency.of(group.counted()),
            unavailable_max: stage.max_unavailable.map(|it| it.of(group.counted())),
        }
    }
}

impl Group {
    fn new(divided: Divided) -> Self {
        Self {
            divided,
            tally: Tally::default(),
            forward: Queue::default(),
        }
    }

    /// Clusters that budgets are shares of: those that are not left out.
    pub(super) fn counted(&self) -> usize {
        let counted = self
            .tally
            .of(Flag::Member)
            .saturating_sub(self.tally.of(Flag::Skipped));
        usize::try_from(counted).unwrap_or(usize::MAX)
    }
}

impl Rollout {
    pub(super) fn new(key: DeploymentKey, deployment: Deployment) -> Self {
        Self {
            key,
            deployment,
            targets: Targets::new(),
            shared: Shared::default(),
            stages: Vec::new(),
            outside: Tally::default(),
            back: BTreeSet::new(),
            leave: BTreeSet::new(),
            at_once: BTreeSet::new(),
            open: BTreeSet::new(),
            nodes: Counts::default(),
            context: Context::default(),
            clock: Clock::default(),
            gate: None,
            failed: None,
            outcomes: BTreeMap::new(),
            transitions: Vec::new(),
            redivide: true,
            rejudge: true,
            named: 0,
        }
    }

    pub(super) fn grace_seconds(&self) -> u32 {
        self.deployment.policy.offline.grace_seconds
    }

    /// The placement's selector takes the cluster.
    pub(super) fn takes(&self, ledger: &Ledger) -> bool {
        let selector = &self.deployment.placement.clusters;
        selector.matches(&ledger.labels)
    }

    /// The counts of all members.
    pub(super) fn total(&self) -> Tally {
        self.stages
            .iter()
            .fold(Tally::default(), |sum, group| sum.plus(&group.tally))
    }

    /// Divides the placement anew. Gives the clusters whose membership changed.
    pub(super) fn divide(&mut self, ledgers: &Ledgers, now: Timestamp) -> Vec<ClusterName> {
        self.redivide = false;
        let grace = self.grace_seconds();
        let update = self.deployment.effective_update().cloned();
        let stages = &self.deployment.policy.stages;
        let record = self.deployment.standing.stage.as_ref();
        let record = record.filter(|record| Some(&record.revision) == update.as_ref());
        let past = |place: usize| {
            let name = stages.get(place).map(|stage| &stage.name);
            let mut passed = record.into_iter().flat_map(|record| &record.passed);
            passed.any(|it| it.suspects > 0 && Some(&it.stage) == name)
        };
        let mut members: Vec<Candidate<'_>> = Vec::with_capacity(self.targets.len());
        let mut taken: Vec<(bool, bool, &ClusterName)> = Vec::new();
        let bounded = self.deployment.placement.max_clusters;
        let walk = side_by_side(self.targets.iter(), ledgers.iter());
        for (slot, (name, kept, ledger)) in walk.enumerate() {
            let Some(ledger) = ledger.filter(|_| kept.target.matches) else {
                continue;
            };
            let facts = ledger.facts(grace, now);
            let target = &kept.target;
            let sight = Sight { target, facts };
            if bounded.is_some() {
                taken.push((sight.running().is_none(), target.place.is_none(), name));
            }
            let exposed = update.as_ref().is_some_and(|it| sight.exposed(it));
            // A new leader knows the stage of those that have the revision by their orders.
            let was = target.place.or_else(|| {
                let entry = sight.entry().filter(|_| exposed)?;
                stages.iter().position(|stage| stage.name == entry.stage)
            });
            members.push(Candidate {
                name,
                slot,
                labels: &ledger.labels,
                exposed,
                was,
                hearing: facts.hearing,
            });
        }
        if let Some(max) = bounded {
            let max = usize::try_from(max).unwrap_or(usize::MAX);
            if taken.len() > max {
                taken.sort_unstable();
                taken.truncate(max);
                let stay: BTreeSet<_> = taken.into_iter().map(|(_, _, name)| name).collect();
                members.retain(|it| stay.contains(it.name));
            }
        }
        let mut division = divide(&self.deployment.policy, &members, self.targets.len(), past);
        let mut changed = Vec::new();
        for ((name, kept), place) in self.targets.iter_mut().zip(division.places.drain(..)) {
            if kept.target.place.is_some() != place.is_some() {
                changed.push(name.clone());
            }
            kept.target.place = place;
        }
        self.stages = division.stages.into_iter().map(Group::new).collect();
        self.rejudge = true;
        changed
    }

    /// Makes what targets are judged by fit the revision and the attempt that are asked for now.
    pub(super) fn aim(&mut self) {
        let update = self.deployment.effective_update();
        let standing = &self.deployment.standing;
        if self.context.update.as_ref() != update {
            // What most will be judged by, so that they are judged once: the rollout that is over.
            let over = update.is_some() && update == standing.current.as_ref();
            self.context = Context {
                update: update.cloned(),
                current: standing.current.clone(),
                course: if over { Course::Forward } else { Course::None },
                released: if over { usize::MAX } else { 0 },
                ..Context::default()
            };
            self.clock = Clock::default();
            self.rejudge = true;
            self.named = 0;
        }
        let update = self.context.update.as_ref();
        let record = standing.stage.as_ref();
        let record = record.filter(|record| Some(&record.revision) == update);
        let known = update.and_then(|update| self.deployment.revisions.get(update));
        let attempt = record.map_or_else(
            || known.map_or(1, |known| known.attempt.max(1)),
            |record| record.attempt,
        );
        let forget = standing.forget_verdicts_before;
        self.rejudge |=
            self.context.attempt != attempt || self.context.forget_verdicts_before != forget;
        self.context.attempt = attempt;
        self.context.forget_verdicts_before = forget;
    }

    /// Judges every target anew, with all counts and queues from nothing.
    pub(super) fn judge_all(&mut self, ledgers: &Ledgers, now: Timestamp) {
        self.rejudge = false;
        for group in &mut self.stages {
            *group = Group::new(group.divided.clone());
        }
        self.outside = Tally::default();
        self.back.clear();
        self.leave.clear();
        self.at_once.clear();
        self.open.clear();
        self.nodes = Counts::default();
        let grace = self.grace_seconds();
        let mut targets = std::mem::take(&mut self.targets);
        for (name, kept, ledger) in side_by_side(targets.iter_mut(), ledgers.iter()) {
            if let Some(ledger) = ledger {
                kept.judged = Judged::default();
                kept.seat = None;
                kept.rank = None;
                kept.nodes = Counts::default();
                self.note(name, kept, ledger.facts(grace, now));
            }
        }
        self.targets = targets;
    }

    /// Judges one target anew.
    pub(super) fn judge(&mut self, name: &ClusterName, ledgers: &Ledgers, now: Timestamp) {
        let mut targets = std::mem::take(&mut self.targets);
        if let Some(kept) = targets.get_mut(name) {
            self.unnote(name, kept);
            match ledgers.get_key_value(name) {
                // The name as it is kept already: most stand in memory once.
                Some((name, ledger)) if !kept.target.is_empty() => {
                    self.note(name, kept, ledger.facts(self.grace_seconds(), now));
                }
                _ => {
                    targets.remove(name);
                }
            }
        }
        self.targets = targets;
    }

    /// Drops a target whose cluster is gone.
    pub(super) fn drop(&mut self, name: &ClusterName) {
        if let Some(mut kept) = self.targets.remove(name) {
            self.unnote(name, &mut kept);
        }
    }

    fn note(&mut self, name: &ClusterName, kept: &mut Kept, facts: Facts<'_>) {
        let sight = Sight {
            target: &kept.target,
            facts,
        };
        let mut judged = classify(&self.deployment, &self.context, &sight);
        let because = self.because(&sight, judged);
        judged.class.set(Flag::Open, because.is_some());
        let unready = because.as_ref().is_some_and(|it| !it.is_tolerated());
        judged.class.set(Flag::Unready, unready);
        let rank = because.as_ref().map(Because::rank);
        let nodes = if judged.class.has(Flag::Member) {
            nodes(&sight, self.context.update.as_ref())
        } else {
            Counts::default()
        };
        kept.judged = judged;
        kept.rank = rank;
        kept.nodes = nodes;
        kept.seat = judged.want.map(|_| cost(judged));
        self.nodes = self.nodes + nodes;
        if let Some(rank) = rank {
            self.open.insert((rank, name.clone()));
        }
        self.tally(kept.target.place).add(judged.class);
        if let (Some(want), Some(cost)) = (judged.want, kept.seat) {
            match self.queue(want, kept.target.place) {
                Line::Forward(queue) => queue.insert(cost, name),
                Line::Other(seats) => {
                    let name = name.clone();
                    seats.insert(Seat { cost, name });
                }
            }
        }
    }

    fn unnote(&mut self, name: &ClusterName, kept: &mut Kept) {
        self.nodes = self.nodes.minus(kept.nodes);
        if let Some(rank) = kept.rank.take() {
            self.open.remove(&(rank, name.clone()));
        }
        self.tally(kept.target.place).take(kept.judged.class);
        if let (Some(want), Some(cost)) = (kept.judged.want, kept.seat.take()) {
            match self.queue(want, kept.target.place) {
                Line::Forward(queue) => queue.remove(cost, name),
                Line::Other(seats) => {
                    let name = name.clone();
                    seats.remove(&Seat { cost, name });
                }
            }
        }
        kept.judged = Judged::default();
        kept.nodes = Counts::default();
    }

    fn tally(&mut self, place: Option<usize>) -> &mut Tally {
        let groups = &mut self.stages;
        match place.and_then(|place| groups.get_mut(place)) {
            Some(group) => &mut group.tally,
            None => &mut self.outside,
        }
    }

    fn queue(&mut self, want: Want, place: Option<usize>) -> Line<'_> {
        Line::Other(match want {
            Want::Back => &mut self.back,
            Want::Leave => &mut self.leave,
            Want::Now => &mut self.at_once,
            Want::Forward => match place.and_then(|place| self.stages.get_mut(place)) {
                Some(group) => return Line::Forward(&mut group.forward),
                None => &mut self.at_once,
            },
        })
    }

    /// Whether a cluster's coming or going may change who is in which stage.
    pub(super) fn membership_follows_hearing(&self) -> bool {
        // Asked for already, though its record may not be written yet.
        let standing = &self.deployment.standing;
        let record = standing.stage.as_ref().map(|record| &record.revision);
        let current = standing.current.as_ref();
        let in_progress =
            record.is_none() || record != current || self.deployment.effective_update() != current;
        in_progress
            && self.stages.len() > 1
            && self
                .stages
                .iter()
                .any(|group| !matches!(group.divided.stage.members, Members::Selector(_)))
    }

    /// How many orders name the revision of the rollout.
    pub(super) fn named(&self) -> u32 {
        self.total().plus(&self.outside).of(Flag::Named)
    }

    /// Says, once, that an order that named the revision is gone (a write that did not happen, the removal of an earlier
    /// attempt): whose membership stuck to it is looked at again.
    pub(super) fn comes_loose(&mut self) -> bool {
        if self.context.course != Course::Forward {
            return false;
        }
        let now = self.named();
        let before = std::mem::replace(&mut self.named, now);
        now < before && self.membership_follows_hearing()
    }

    /// Until when all were heard whose proof a stage rests on: its own members, or where it has none those of the
    /// stages before. `suspects`: those that just fell silent too, where the policy waits for such.
    pub(super) fn all_heard_until(
        &self,
        at: At<'_>,
        since: Timestamp,
        suspects: bool,
    ) -> Timestamp {
        let waits = suspects && self.deployment.policy.offline.after_update == AfterUpdate::Wait;
        let own = self.stages.get(at.index);
        let own = own.is_some_and(|group| group.tally.of(Flag::Member) > 0);
        let members = self.targets.iter().filter(|(_, kept)| {
            let class = kept.judged.class;
            let here = kept.target.place.is_some_and(|place| match own {
                true => place == at.index,
                false => place < at.index,
            });
            here && (class.has(Flag::Proven) || class.has(Flag::Suspect) && waits)
        });
        let heard = members.filter_map(|(name, _)| match at.ledgers.get(name)?.connection {
            ConnectionState::Heard { at } => Some(at),
            _ => Some(since),
        });
        heard.min().unwrap_or(since).max(since).min(at.now)
    }
}

/// The cluster's nodes. Of a report on another revision, only what it says beside the revision counts.
fn nodes(sight: &Sight<'_>, update: Option<&RevisionName>) -> Counts {
    let Some(report) = &sight.target.report else {
        return Counts::default();
    };
    if update.is_some_and(|update| sight.runs(update)) && sight.about_order().is_some() {
        return report.nodes;
    }
    let silent = report.nodes.silent.saturating_add(report.nodes.suspect);
    Counts {
        desired: report.nodes.desired,
        pending: report.nodes.desired.saturating_sub(silent),
        silent,
        ready: report.nodes.ready,
        ..Counts::default()
    }
}
