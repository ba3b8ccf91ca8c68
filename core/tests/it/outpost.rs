//! A simulated site: the truth about what its nodes run, and the words that it sends up, late or never.
//!
//! Nothing heals what dies here. It acts on the orders that it mirrored even while its link is cut.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use rimward_core::fleet::{Action, Entry, ModelReport, Report};
use rimward_core::ids::{DeploymentKey, RevisionName};
use rimward_core::summary::{Counts, Phase};

use crate::choices::Choices;
use crate::fixtures::report;

/// What a release does to a site, by the truth.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Good,
    /// A device condemns it.
    Condemned,
    /// The site falls silent for ever when it gets it.
    Killer,
    /// The site completes it, and dies of it a while later.
    LateKiller,
    /// Its deadline runs out, and it completes after all.
    Slow,
    /// It is never done, and no deadline runs out.
    Endless,
}

/// What a site's surroundings are like at the moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Around<'a> {
    pub(crate) kinds: &'a BTreeMap<RevisionName, Kind>,
    pub(crate) registry_away: bool,
    pub(crate) seconds: u32,
    /// Nothing is late.
    pub(crate) calm: bool,
}

#[derive(Debug)]
pub(crate) struct Outpost {
    pub(crate) alive: bool,
    /// The link to the hub is cut.
    pub(crate) cut: bool,
    /// Cut and mended in turns of so many seconds.
    pub(crate) flaps_seconds: Option<u32>,
    nodes: u32,
    dark: u32,
    choices: Choices,
    mirror: Option<(u64, BTreeMap<DeploymentKey, Entry>)>,
    works: BTreeMap<DeploymentKey, Work>,
    outbox: VecDeque<Report>,
    own: Option<Report>,
    /// Everything that ever reached it.
    pub(crate) got: BTreeSet<RevisionName>,
    /// Everything that a device of it ever condemned.
    pub(crate) condemned: BTreeSet<RevisionName>,
}

/// One model's work.
#[derive(Debug, Default)]
struct Work {
    runs: Option<RevisionName>,
    order: Option<(RevisionName, u32)>,
    bad: BTreeMap<RevisionName, u32>,
    seconds: u32,
    moments_left: u32,
    fetched: bool,
    timed_out: bool,
    /// Nodes that died since the order came.
    suspect: u32,
    dies_in: Option<u32>,
}

impl Work {
    fn is_bad(&self, revision: &RevisionName) -> bool {
        self.bad.contains_key(revision)
    }
}

impl Outpost {
    pub(crate) fn new(nodes: u32, seed: u64) -> Self {
        Self {
            alive: true,
            cut: false,
            flaps_seconds: None,
            nodes,
            dark: 0,
            choices: Choices::new(seed),
            mirror: None,
            works: BTreeMap::new(),
            outbox: VecDeque::new(),
            own: None,
            got: BTreeSet::new(),
            condemned: BTreeSet::new(),
        }
    }

    pub(crate) fn answers(&self) -> bool {
        self.alive && !self.cut
    }

    /// Its link comes and goes by the wall clock, where it flaps.
    pub(crate) fn flap(&mut self, elapsed_seconds: i64) {
        if let Some(period) = self.flaps_seconds {
            self.cut = elapsed_seconds / i64::from(period) % 2 == 1;
        }
    }

    /// One of its nodes dies for ever.
    pub(crate) fn lose_a_node(&mut self) {
        if self.dark < self.nodes {
            self.dark += 1;
            for work in self.works.values_mut() {
                work.suspect += 1;
            }
        }
    }

    pub(crate) fn has_living_nodes(&self) -> bool {
        self.alive && self.dark < self.nodes
    }

    /// The session restarts: what it had not sent is lost.
    pub(crate) fn restart(&mut self) {
        self.outbox.clear();
        self.own = None;
    }

    /// Mirrors its assignment, works on what it mirrored, and maybe sends a report, which it gives.
    pub(crate) fn step(
        &mut self,
        generation: u64,
        entries: &BTreeMap<DeploymentKey, Entry>,
        around: Around<'_>,
    ) -> Option<Report> {
        if !self.alive {
            return None;
        }
        if !self.cut && generation > 0 && (around.calm || self.choices.chance(60)) {
            self.mirror = Some((generation, entries.clone()));
        }
        let (generation, entries) = self.mirror.clone()?;
        self.works.retain(|key, _| {
            let entry = entries.get(key);
            entry.is_some_and(|entry| entry.action == Action::Run)
        });
        let mut killed = false;
        for (key, entry) in &entries {
            if entry.action == Action::Run {
                killed |= self.work(key, entry, around);
            }
        }
        if killed {
            self.alive = false;
            return None;
        }
        let own = self.report(generation, &entries);
        if self.own.as_ref() != Some(&own) {
            self.outbox.push_back(own.clone());
            self.own = Some(own);
        }
        self.send(around.calm)
    }

    fn send(&mut self, calm: bool) -> Option<Report> {
        if self.cut {
            return None;
        }
        if calm {
            self.outbox.clear();
            return self.own.clone();
        }
        if self.outbox.len() > 4 {
            self.outbox.pop_front();
        }
        match self.choices.below(10) {
            0..3 => None,
            3 => self.outbox.front().cloned(),
            _ => self.outbox.pop_front(),
        }
    }

    /// Works on one order. Says whether the site dies of it.
    fn work(&mut self, key: &DeploymentKey, entry: &Entry, around: Around<'_>) -> bool {
        let work = self.works.entry(key.clone()).or_default();
        let revision = &entry.revision;
        let kind = around.kinds.get(revision).copied().unwrap_or(Kind::Good);
        let order = (revision.clone(), entry.attempt);
        if work.order.as_ref() != Some(&order) {
            let other = work.order.as_ref().is_none_or(|it| &it.0 != revision);
            work.order = Some(order);
            work.seconds = 0;
            work.timed_out = false;
            if other {
                work.suspect = 0;
                work.dies_in = None;
                work.fetched = false;
                work.moments_left = 1 + self.choices.small(4);
            }
        }
        if work
            .bad
            .get(revision)
            .is_some_and(|given| *given < entry.forget_verdicts_before)
        {
            work.bad.remove(revision);
        }
        if let Some(left) = &mut work.dies_in {
            *left = left.saturating_sub(1);
            return *left == 0 && work.runs.as_ref() == Some(revision);
        }
        if work.runs.as_ref() == Some(revision) || work.is_bad(revision) || self.dark >= self.nodes
        {
            return false;
        }
        work.seconds = work.seconds.saturating_add(around.seconds);
        work.timed_out |= kind != Kind::Endless && work.seconds >= entry.progress_deadline_seconds;
        if around.registry_away && !work.fetched {
            return false;
        }
        work.fetched = true;
        self.got.insert(revision.clone());
        let slow = kind == Kind::Slow && work.seconds < entry.progress_deadline_seconds + 300;
        work.moments_left = work.moments_left.saturating_sub(1);
        match kind {
            Kind::Killer => return true,
            _ if work.moments_left > 0 || slow => {}
            Kind::Endless => {}
            Kind::Condemned => {
                work.bad.insert(revision.clone(), entry.attempt);
                self.condemned.insert(revision.clone());
            }
            Kind::LateKiller => {
                work.runs = Some(revision.clone());
                work.dies_in = Some(3 + self.choices.small(30));
            }
            Kind::Good | Kind::Slow => work.runs = Some(revision.clone()),
        }
        false
    }

    fn report(&self, generation: u64, entries: &BTreeMap<DeploymentKey, Entry>) -> Report {
        let says = |(key, work): (&DeploymentKey, &Work)| {
            let entry = entries.get(key)?;
            Some((key.clone(), self.says(work, entry)))
        };
        Report {
            observed_generation: generation,
            models: self.works.iter().filter_map(says).collect(),
        }
    }

    fn says(&self, work: &Work, entry: &Entry) -> ModelReport {
        let revision = &entry.revision;
        let living = self.nodes - self.dark;
        let suspect = work.suspect.min(self.dark);
        let mut nodes = Counts {
            desired: self.nodes,
            silent: self.dark - suspect,
            suspect,
            ready: if work.runs.is_some() { living } else { 0 },
            ..Counts::default()
        };
        let mut phase = if work.timed_out {
            Phase::TimedOut
        } else {
            Phase::Staging
        };
        if work.is_bad(revision) && living > 0 {
            match work.runs {
                Some(_) => nodes.rolled_back = 1,
                None => nodes.failed = 1,
            }
            phase = Phase::Failed;
        } else if work.runs.as_ref() == Some(revision) {
            nodes.updated = living;
            phase = Phase::Passed;
        }
        let mut says = report(revision.as_str(), nodes.with_pending(), phase);
        says.attempt = entry.attempt;
        says
    }

    /// For the words of a failure.
    pub(crate) fn work_on(&self, key: &DeploymentKey) -> impl std::fmt::Debug {
        self.works.get(key)
    }

    /// The truth: something of the deployment is there.
    pub(crate) fn has(&self, key: &DeploymentKey) -> bool {
        self.works.contains_key(key)
    }

    /// The truth: it lives, and all of its living nodes run the revision.
    pub(crate) fn truly_runs(&self, key: &DeploymentKey, revision: &RevisionName) -> bool {
        self.dark < self.nodes && self.runs(key) == Some(revision)
    }

    /// The truth: every node of it was dead before the order came.
    pub(crate) fn nobody_got(&self, key: &DeploymentKey) -> bool {
        let reached = self
            .works
            .get(key)
            .is_some_and(|it| it.fetched || it.suspect > 0);
        self.dark >= self.nodes && !reached
    }

    /// The truth: its session had a node that runs the revision. (That the node died since is not told yet.)
    pub(crate) fn ran(&self, key: &DeploymentKey, revision: &RevisionName) -> bool {
        self.runs(key) == Some(revision)
    }

    fn runs(&self, key: &DeploymentKey) -> Option<&RevisionName> {
        self.works.get(key)?.runs.as_ref()
    }

    /// The truth: it runs the revision, or a device condemned it, or its time ran out.
    pub(crate) fn truly_over(&self, key: &DeploymentKey, revision: &RevisionName) -> bool {
        self.works.get(key).is_some_and(|work| {
            let ordered = work.order.as_ref().is_some_and(|it| &it.0 == revision);
            work.runs.as_ref() == Some(revision)
                || work.is_bad(revision)
                || ordered && work.timed_out
        })
    }

    /// The truth: by the last orders that it saw, it is to run the revision, whatever the hub says by now.
    pub(crate) fn truly_told(&self, key: &DeploymentKey, revision: &RevisionName) -> bool {
        let entry = self
            .mirror
            .as_ref()
            .and_then(|(_, entries)| entries.get(key));
        entry.is_some_and(|it| &it.revision == revision && it.action == Action::Run)
    }
}
