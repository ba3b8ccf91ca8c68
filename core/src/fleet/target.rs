//! One deployment on one cluster: the order that it has, and what can be said of it.
//!
//! Owns the meaning of *fresh*, *exposed*, *moving*, *complete* and *condemned*. Decides nothing.
//!
//! An order is fresh in a report once the session had acted on the generation of the assignment in which the
//! order took its present form. Other deployments' changes move the generation on and leave that as it is.

use super::ledger::Ledger;
use super::types::{Action, Entry, Hearing, ModelReport};
use crate::ids::{DeploymentKey, EndpointName, RevisionName};
use crate::summary::Phase;

/// An entry as it stands, or as a write that may have happened left it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Order {
    pub(super) entry: Entry,
    /// Generation of the assignment in which it took this form; none until the write was seen.
    pub(super) since: Option<u64>,
}

/// Names that were seen last: most clusters of a fleet have the same, which then stand in memory once.
#[derive(Debug, Default)]
pub(super) struct Shared(Option<Entry>);

impl Shared {
    /// Makes equal names one.
    pub(super) fn share(&mut self, entry: Option<&mut Entry>, report: Option<&mut ModelReport>) {
        fn one<T: Clone + PartialEq>(name: &mut T, shared: &T) {
            if name == shared {
                *name = shared.clone();
            }
        }
        if let Some(entry) = entry {
            match &self.0 {
                Some(shared) if shared.revision == entry.revision => {
                    one(&mut entry.revision, &shared.revision);
                    one(&mut entry.stage, &shared.stage);
                    one(&mut entry.endpoint_name, &shared.endpoint_name);
                }
                _ => self.0 = Some(entry.clone()),
            }
        }
        if let (Some(report), Some(shared)) = (report, &self.0) {
            one(&mut report.revision, &shared.revision);
            if let Some(last_good) = &mut report.last_good {
                one(last_good, &shared.revision);
            }
        }
    }
}

/// What is kept of one deployment on one cluster.
#[derive(Clone, Debug, Default)]
pub(super) struct Target {
    pub(super) order: Option<Order>,
    /// What stands on the hub, where that is not (yet) the order.
    pub(super) told: Option<Option<Box<Entry>>>,
    /// The last report on the deployment, whatever it is about.
    pub(super) report: Option<ModelReport>,
    /// The placement's selector takes the cluster.
    pub(super) matches: bool,
    /// Its stage; none when it is not, or no longer, in the placement.
    pub(super) place: Option<usize>,
    /// Why the cluster alone is refused its next order.
    pub(super) refused: Option<Refused>,
}

/// What is new to the planner in what a cluster has and says.
#[derive(Debug, Default)]
pub(super) struct News {
    /// Endpoint names that were given up or taken.
    pub(super) names: [Option<EndpointName>; 2],
    /// Another order stands than was believed.
    pub(super) reordered: bool,
}

impl Target {
    /// It has nothing and is not meant to have anything: none at all.
    pub(super) fn is_empty(&self) -> bool {
        !self.matches && self.order.is_none() && self.told.is_none() && self.report.is_none()
    }

    /// Takes in what stands on the hub and what is said of it, against what the planner believes. `bytes` is the size
    /// of the entry. None: nothing is new.
    pub(super) fn take_in(
        &mut self,
        key: &DeploymentKey,
        entry: Option<Entry>,
        report: Option<ModelReport>,
        ledger: &mut Ledger,
        reported_before: Option<u64>,
        bytes: Option<u32>,
    ) -> Option<News> {
        // Reports that act on other deployments' changes say nothing new of an order that they knew.
        let since = self.order.as_ref().and_then(|order| order.since);
        let acted = |reported: Option<u64>| since.is_some_and(|since| reported >= Some(since));
        let mut changed = acted(reported_before) != acted(ledger.reported) || self.report != report;
        self.report = report;
        let belief = self.order.as_ref().map(|order| &order.entry);
        let told = self.told.as_ref().map(|told| told.as_deref());
        if belief == entry.as_ref() {
            // What was believed stands. Its generation is known once the write is seen.
            if self.told.take().is_some() {
                ledger.untold.remove(key);
                changed = true;
            }
            if let Some(order) = &mut self.order
                && order.since.is_none()
            {
                order.since = Some(ledger.generation);
                changed = true;
            }
        } else if told == Some(entry.as_ref()) {
            // The write was not seen yet, or did not happen: the order may have left all the same.
        } else {
            let same_order = match (&self.order, &entry) {
                (Some(order), Some(entry)) => order.entry.same_order(entry),
                _ => false,
            };
            let names = [self.order.as_ref().map(|it| &it.entry), entry.as_ref()];
            let names = names.map(|it| it.map(|entry| entry.endpoint_name.clone()));
            self.told = None;
            ledger.untold.remove(key);
            ledger.claim(key, entry.as_ref(), bytes.unwrap_or_default());
            self.order = entry.map(|entry| Order {
                entry,
                since: Some(since.filter(|_| same_order).unwrap_or(ledger.generation)),
            });
            let names = if names[0] == names[1] {
                [None, None]
            } else {
                names
            };
            return Some(News {
                names,
                reordered: true,
            });
        }
        changed.then(News::default)
    }
}

/// Why one cluster cannot have an order though everything else would let it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Refused {
    /// Its endpoint name belongs to another deployment there.
    NameTaken(DeploymentKey),
    /// Its assignment would grow over its bound.
    TooLarge,
}

/// A cluster's state as far as every deployment on it sees the same.
#[derive(Clone, Copy, Debug)]
pub(super) struct Facts<'a> {
    pub(super) hearing: Hearing,
    pub(super) paused: bool,
    pub(super) held: Option<&'a str>,
    /// Generation that the session's last report had acted on.
    pub(super) reported: Option<u64>,
}

/// A deployment's view of one cluster.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sight<'a> {
    pub(super) target: &'a Target,
    pub(super) facts: Facts<'a>,
}

impl<'a> Sight<'a> {
    pub(super) fn entry(&self) -> Option<&'a Entry> {
        self.target.order.as_ref().map(|order| &order.entry)
    }

    fn run(&self) -> Option<&'a Entry> {
        self.entry().filter(|entry| entry.action == Action::Run)
    }

    /// The revision that it is told to run.
    pub(super) fn running(&self) -> Option<&'a RevisionName> {
        self.run().map(|entry| &entry.revision)
    }

    pub(super) fn runs(&self, revision: &RevisionName) -> bool {
        self.running() == Some(revision)
    }

    /// The session had acted on the order, whatever it says of it.
    fn acted(&self) -> bool {
        let since = self.target.order.as_ref().and_then(|order| order.since);
        matches!((since, self.facts.reported), (Some(since), Some(reported)) if reported >= since)
    }

    /// The last report, if it is about the order; maybe from before it was given anew.
    pub(super) fn about_order(&self) -> Option<&'a ModelReport> {
        let run = self.run()?;
        let report = self.target.report.as_ref()?;
        (report.revision == run.revision && report.attempt == run.attempt).then_some(report)
    }

    /// The last report, if it is about the order as it stands.
    pub(super) fn fresh(&self) -> Option<&'a ModelReport> {
        self.about_order().filter(|_| self.acted())
    }

    /// What it says of its order, for better or worse. Of one that is not heard its last word stands, whatever became
    /// of the assignment since: a leader that begins then does not know in which generation the order was given.
    fn verdict(&self) -> Option<&'a ModelReport> {
        let stands = self.acted() || self.facts.hearing != Hearing::Heard;
        self.about_order().filter(|_| stands)
    }

    /// The session has confirmed that nothing of the deployment runs there any more.
    pub(super) fn removal_confirmed(&self) -> bool {
        self.target.report.is_none() && self.acted()
    }

    /// An order to run `revision` may have left, and no later report says that it was taken back.
    ///
    /// An order names one revision that it replaced: of several orders in a row that the cluster never acted on, the
    /// first is forgotten.
    pub(super) fn exposed(&self, revision: &RevisionName) -> bool {
        let Some(entry) = self.entry() else {
            return false;
        };
        &entry.revision == revision || entry.replaces.as_ref() == Some(revision) && !self.acted()
    }

    /// It once had `revision`, by the order that stands.
    pub(super) fn left(&self, revision: &RevisionName) -> bool {
        self.entry().is_some_and(|entry| {
            entry.replaces.as_ref() == Some(revision)
                || &entry.revision == revision && entry.action == Action::Remove
        })
    }

    /// Its session answers, and by its last word none of its nodes does, nor fell silent over an order.
    pub(super) fn nodes_away(&self) -> bool {
        let away = |report: &ModelReport| {
            report.nodes.desired > 0 && report.nodes.silent >= report.nodes.desired
        };
        let said = match self.run() {
            Some(_) => self.fresh(),
            None => self.target.report.as_ref(),
        };
        self.facts.hearing == Hearing::Heard && said.is_some_and(away)
    }

    /// Nothing can be expected of it: no session answers, or none of its nodes.
    pub(super) fn silent(&self) -> bool {
        matches!(self.facts.hearing, Hearing::Silent | Hearing::NeverJoined) || self.nodes_away()
    }

    /// It was told to run something and is, for all that is known, not yet there.
    pub(super) fn moving(&self) -> bool {
        self.run().is_some() && !self.fresh().is_some_and(is_over)
    }

    /// By a report on its order it serves something good, on all nodes but as many as may be unavailable.
    pub(super) fn available(&self) -> bool {
        self.fresh().is_some_and(|report| report.nodes.available())
    }

    /// By a report on its order it runs it everywhere and serves.
    pub(super) fn complete(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.fresh().is_some_and(is_complete)
    }

    /// By its last word about its order it runs it everywhere and serves.
    pub(super) fn settled(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.about_order().is_some_and(is_complete)
    }

    /// By its last word about its order its nodes need nothing more to be there, or refuse it.
    pub(super) fn arrived(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.about_order().is_some_and(is_over)
    }

    /// By its verdict on its order, a device condemned it.
    pub(super) fn condemned(&self, revision: &RevisionName) -> bool {
        self.runs(revision) && self.verdict().is_some_and(condemns)
    }

    /// By a report on its order it was there, and is not as it should be any more.
    pub(super) fn fell_back(&self, revision: &RevisionName) -> bool {
        let there = |report: &ModelReport| report.nodes.settled() && !is_complete(report);
        self.runs(revision) && self.about_order().is_some_and(there)
    }

    /// By its verdict on its order, its time ran out.
    pub(super) fn timed_out(&self, revision: &RevisionName) -> bool {
        let timed_out = |report: &ModelReport| report.phase == Phase::TimedOut;
        self.runs(revision) && self.verdict().is_some_and(timed_out)
    }

    /// By its last word it serves something good, whichever revision, on all nodes but as many as may be
    /// unavailable at once.
    pub(super) fn serving(&self) -> bool {
        let Some(report) = &self.target.report else {
            return false;
        };
        let nodes = report.nodes;
        let heard = nodes
            .desired
            .saturating_sub(nodes.silent)
            .saturating_sub(nodes.suspect);
        let budget = self.run().map_or(0, |run| {
            let total = usize::try_from(nodes.desired).unwrap_or(usize::MAX);
            u32::try_from(run.nodes_max_unavailable.of(total)).unwrap_or(u32::MAX)
        });
        nodes.ready > 0 && nodes.ready.saturating_add(budget) >= heard || nodes.desired == 0
    }
}

/// A node rejected the revision for what it is.
pub(super) fn condemns(report: &ModelReport) -> bool {
    report.nodes.rejected() > 0 || report.phase == Phase::Failed
}

/// It failed, for whatever reason.
pub(super) fn failed(report: &ModelReport) -> bool {
    condemns(report) || report.phase == Phase::TimedOut
}

fn is_complete(report: &ModelReport) -> bool {
    !condemns(report) && report.nodes.complete()
}

/// Nothing more is under way: every node that answers has the revision, or it failed.
fn is_over(report: &ModelReport) -> bool {
    let expected = report.nodes.desired.saturating_sub(report.nodes.silent);
    let nobody = expected == 0 && report.nodes.desired > 0;
    failed(report) || report.nodes.updated >= expected && !nobody
}
