//! One simulated node: what its spec says, what is on it, and how it gets from one to the other.
//!
//! Owns the walk of a release on a node (staging, trial, committed, or what goes wrong instead). Time is handed in,
//! in milliseconds. Must never decide whether it has the go-ahead.

use std::collections::BTreeMap;
use std::time::Duration;

use rimward_core::cluster::{GoAhead, Hearing, Node, NodeModel, NodeReport, NodeState};
use rimward_core::fleet::Action;
use rimward_core::ids::{ModelKey, RevisionName};
use rimward_core::summary::Measures;

use super::faults::{Fate, Timing};

/// A node.
#[derive(Debug, Default)]
pub(super) struct Device {
    generation: u64,
    entries: BTreeMap<ModelKey, GoAhead<u64>>,
    observed_generation: u64,
    models: BTreeMap<ModelKey, Release>,
    /// When it fell silent.
    silent_since: Option<u64>,
}

/// What is on a node of one model.
#[derive(Debug)]
struct Release {
    revision: RevisionName,
    attempt: u32,
    state: NodeState,
    since: u64,
    last_good: Option<RevisionName>,
    /// What it condemned, and under which attempt.
    rejected: BTreeMap<RevisionName, u32>,
}

/// What one look at a node gave.
#[derive(Debug, Default)]
pub(super) struct Step {
    /// Something is different now.
    pub(super) changed: bool,
    /// When something will be, in milliseconds.
    pub(super) next: Option<u64>,
    /// The whole site dies of it.
    pub(super) kills_site: bool,
}

impl Device {
    /// As the planner sees it.
    pub(super) fn seen(&self, now: u64, timing: &Timing) -> Node<u64> {
        let silence = milliseconds(timing.node_silence);
        let is_silent = |since: u64| now.saturating_sub(since) >= silence;
        let models = self.models.iter().map(|(key, it)| (key.clone(), it.said()));
        Node {
            labels: BTreeMap::new(),
            hearing: if self.silent_since.is_some_and(is_silent) {
                Hearing::Silent
            } else {
                Hearing::Heard
            },
            held: None,
            generation: self.generation,
            entries: self.entries.clone(),
            maybe: BTreeMap::new(),
            refused: None,
            report: Some(NodeReport {
                observed_generation: self.observed_generation,
                models: models.collect(),
            }),
        }
    }

    /// Takes its spec; says whether that is news.
    pub(super) fn order(&mut self, entries: &BTreeMap<ModelKey, GoAhead<u64>>) -> bool {
        if &self.entries == entries {
            return false;
        }
        self.entries.clone_from(entries);
        self.generation += 1;
        true
    }

    /// Whether it answers.
    pub(super) fn answers(&self) -> bool {
        self.silent_since.is_none()
    }

    /// Gives it power, or takes it. What was in trial begins anew: a release that it died of does the same again.
    pub(super) fn power(&mut self, on: bool, now: u64) {
        if on {
            let tried = self.models.values_mut();
            for release in tried.filter(|it| it.state == NodeState::Trial) {
                release.enter(NodeState::Staging, now);
            }
        }
        self.silent_since = if on {
            None
        } else {
            Some(self.silent_since.unwrap_or(now))
        };
    }

    /// What it serves of a model.
    pub(super) fn serves(&self, key: &ModelKey) -> Option<&RevisionName> {
        self.models.get(key)?.last_good.as_ref()
    }

    /// Goes as far as it gets by `now`.
    pub(super) fn step(
        &mut self,
        now: u64,
        timing: &Timing,
        fate: impl Fn(&RevisionName) -> Fate,
    ) -> Step {
        let mut step = Step::default();
        if let Some(since) = self.silent_since {
            let noticed = since + milliseconds(timing.node_silence);
            step.next = Some(noticed).filter(|noticed| *noticed > now);
            return step;
        }
        step.changed = self.observed_generation != self.generation;
        self.observed_generation = self.generation;
        for (key, entry) in &self.entries {
            if entry.action == Action::Remove {
                step.changed |= self.models.remove(key).is_some();
                continue;
            }
            let release = match self.models.remove(key) {
                Some(mut release) => {
                    step.changed |= release.take(entry, now);
                    release
                }
                None => {
                    step.changed = true;
                    Release::new(entry, now)
                }
            };
            let release = self.models.entry(key.clone()).or_insert(release);
            let before = release.state;
            let (next, dies) = release.walk(now, timing, fate(&entry.revision));
            step.changed |= before != release.state;
            step.next = step.next.into_iter().chain(next).min();
            step.kills_site |= dies == Some(Fate::SilencesSite);
            if dies == Some(Fate::SilencesNode) {
                self.silent_since = Some(now);
                step.next = Some(now + milliseconds(timing.node_silence));
                return step;
            }
        }
        step
    }
}

impl Release {
    fn new(entry: &GoAhead<u64>, now: u64) -> Self {
        Self {
            revision: entry.revision.clone(),
            attempt: entry.attempt,
            state: NodeState::Staging,
            since: now,
            last_good: None,
            rejected: BTreeMap::new(),
        }
    }

    /// Takes its go-ahead; says whether that is news. What is committed needs nothing but a new attempt's number,
    /// what is condemned stays so unless its verdict is void.
    fn take(&mut self, entry: &GoAhead<u64>, now: u64) -> bool {
        if (&self.revision, self.attempt) == (&entry.revision, entry.attempt) {
            return false;
        }
        self.revision = entry.revision.clone();
        self.attempt = entry.attempt;
        self.rejected
            .retain(|_, under| *under >= entry.forget_verdicts_before);
        self.since = now;
        self.state = if self.last_good.as_ref() == Some(&self.revision) {
            NodeState::Committed
        } else if self.rejected.contains_key(&self.revision) {
            NodeState::Rejected
        } else {
            NodeState::Staging
        };
        true
    }

    fn enter(&mut self, state: NodeState, now: u64) {
        self.state = state;
        self.since = now;
    }

    /// Goes on; says when something happens next, and what dies of it.
    fn walk(&mut self, now: u64, timing: &Timing, fate: Fate) -> (Option<u64>, Option<Fate>) {
        loop {
            let until = |span: Duration| self.since + milliseconds(span);
            match self.state {
                NodeState::Staging if until(timing.staging) > now => {
                    return (Some(until(timing.staging)), None);
                }
                NodeState::Blocked if until(timing.blocked_retry) > now => {
                    return (Some(until(timing.blocked_retry)), None);
                }
                NodeState::Trial if until(timing.trial) > now => {
                    return (Some(until(timing.trial)), None);
                }
                NodeState::Staging | NodeState::Blocked => match fate {
                    Fate::Blocked => {
                        self.enter(NodeState::Blocked, now);
                        return (Some(now + milliseconds(timing.blocked_retry).max(1)), None);
                    }
                    Fate::Rejected => {
                        self.rejected.insert(self.revision.clone(), self.attempt);
                        self.enter(NodeState::Rejected, now);
                    }
                    Fate::SilencesSite | Fate::SilencesNode => {
                        self.enter(NodeState::Trial, now);
                        return (None, Some(fate));
                    }
                    Fate::Good => self.enter(NodeState::Trial, now),
                },
                NodeState::Trial => {
                    self.last_good = Some(self.revision.clone());
                    self.enter(NodeState::Committed, now);
                }
                _ => return (None, None),
            }
        }
    }

    fn said(&self) -> NodeModel {
        let (reason, message) = match self.state {
            NodeState::Blocked => ("FetchFailed", "the registry does not answer"),
            NodeState::Rejected => ("GoldenVectorMismatch", "golden vector 3: expected 7, got 1"),
            _ => ("", ""),
        };
        NodeModel {
            revision: self.revision.clone(),
            attempt: self.attempt,
            state: self.state,
            serving: self.last_good.is_some(),
            reason: reason.to_owned(),
            message: message.to_owned(),
            last_good: self.last_good.clone(),
            measures: Measures::default(),
        }
    }
}

/// Whole milliseconds.
pub(super) fn milliseconds(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}
