//! The machine's state: the durable record, what is in flight, and what follows from both.
//!
//! Owns the answers to "what serves" and "what is reported". Must never decide: that is
//! [`super::step`].

use std::collections::BTreeMap;

use super::blame::Blame;
use super::record::{Attempt, AttemptStage, Problem, Record, Shown, Target, Version};
use crate::ids::{Digest, RevisionName};
use crate::verdict::Samples;

/// Monotonic milliseconds of the agent's process; only differences mean anything.
pub type Millis = u64;

/// What the centre wants of this deployment, as far as the device knows.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Order {
    /// Not heard yet, or the centre is away: what was begun is finished, what serves goes on.
    #[default]
    Unknown,
    /// This revision is to run.
    Run(Target),
    /// The deployment is to be taken off this device.
    Remove,
}

/// What happened: the closed list of everything that moves the machine.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Observation {
    /// The centre's order was read.
    Ordered(Order),
    /// The site holds updates back, or lets them go again.
    Held(bool),
    /// The trust file, or what the device shows to registries, changed: what they blocked deserves another try
    /// at once.
    TrustChanged,
    /// Time passed.
    Tick,
    /// The revision's package is verified and durable in the store.
    Staged(RevisionName, Digest),
    /// Staging met something that may pass by itself.
    StageBlocked(RevisionName, Problem),
    /// Staging found that this package can never run here.
    StageRefused(RevisionName, Problem),
    /// The preflight child ended well.
    PreflightPassed(RevisionName),
    /// The preflight child says that the version is no good.
    PreflightFailed(RevisionName, Problem),
    /// Preflight could not be done; that says nothing about the version.
    PreflightBlocked(RevisionName, Problem),
    /// The machine ended a preflight, or did not let it run: it is dear to try again, and not tried for ever.
    PreflightInterrupted(RevisionName, Problem),
    /// The record of the last [`Effect::Put`] is durable.
    Persisted,
    /// It is not, and the old one is untouched. (Where that is not certain the process must die
    /// instead and recover.)
    PersistFailed(Problem),
    /// The host has loaded the revision and it can answer.
    Loaded(RevisionName),
    /// The host cannot load the revision.
    LoadFailed(RevisionName, Problem),
    /// The stored revision does not pass the offline check: bytes, signatures, revocation, floors.
    Unsound(RevisionName, Problem),
    /// The host process died and takes what it had loaded with it; and whom this is laid at.
    HostDied(Problem, Blame),
    /// What the revision answered since the last such observation.
    Sampled(RevisionName, Samples),
    /// The agent is about to end in good order.
    Stopping,
}

/// What the supervisor must do, in order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    /// Bring the package into the store, verified; answers with `Staged…`.
    Stage(Target),
    /// Stop staging; nothing of it is needed.
    CancelStaging,
    /// Run the candidate's preflight; answers with `Preflight…`.
    Preflight(Attempt),
    /// Kill the preflight child.
    CancelPreflight,
    /// Make this record durable; answers with `Persist…`.
    Put(Record),
    /// Make this record durable if that can be done; nobody waits for it, and the next one says the same again.
    Note(Record),
    /// Delete what no record names any more.
    Collect,
}

/// What is in flight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Phase {
    /// Nothing.
    Settled,
    /// A package is being fetched and verified.
    Staging(Target),
    /// A blocked step waits for its next try.
    Waiting {
        /// What blocks it.
        problem: Problem,
        /// When it is tried again.
        retry_at: Millis,
    },
    /// A record is being made durable.
    Saving {
        /// What the record will be.
        record: Box<Record>,
        /// What follows once it is durable.
        then: Then,
        /// Whether the candidate keeps its traffic meanwhile.
        candidate_serves: bool,
        /// Set after a failed write: when it is tried again, and what failed.
        failed: Option<(Millis, Problem)>,
    },
    /// The preflight child of the record's staged attempt is running.
    Preflight,
    /// The candidate of the record's trial is being loaded; it has no traffic yet.
    Starting,
    /// The candidate has the traffic and is watched.
    Trial {
        /// Until when the time for which it was watched is added up in what it has shown.
        since: Millis,
        /// How often that was noted in this start.
        notes: u32,
        /// Its probation is over, and it still waits for requests to be judged by.
        too_few: bool,
    },
}

/// What follows a durable write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Then {
    /// Look what is next.
    Settle,
    /// Delete what is no longer needed, then look what is next.
    Collect,
    /// Load the candidate.
    Start,
    /// Wait because of this, then look what is next.
    Wait(Problem),
}

/// Which versions the host should have loaded, and who gets the requests. Derived, never stored:
/// the supervisor brings the host there from wherever it is.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Serving {
    /// The version that answers requests.
    pub active: Option<Version>,
    /// The version that answers what the active one fails; present only while that is in trial.
    pub fallback: Option<Version>,
    /// A version to load without giving it traffic.
    pub starting: Option<Version>,
}

/// One deployment's activation machine on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// What is durable.
    pub(super) record: Record,
    /// What is in flight.
    pub(super) phase: Phase,
    /// What the centre wants.
    pub(super) order: Order,
    /// Whether the site holds updates back.
    pub(super) held: bool,
    /// Committed versions that cannot serve at the moment, and why. Not durable: each start looks
    /// again, and so does each change of the trust file.
    pub(super) unsound: BTreeMap<RevisionName, Problem>,
    /// What the candidate has shown in trial, the record's and what came since.
    pub(super) shown: Shown,
    /// Blocked tries in a row.
    pub(super) retries: u32,
    /// Interrupted preflights in a row.
    pub(super) interruptions: u32,
    /// The record's attempt was found staged, and that its preflight begins once more is not durable yet.
    pub(super) unannounced: bool,
    /// This boot's identity, for the record.
    pub(super) boot_id: String,
}

impl State {
    /// A machine at start, from its durable record. Feed it [`Observation::Tick`] to make it move.
    #[must_use]
    pub fn recover(record: Record, boot_id: impl Into<String>) -> Self {
        let shown = match record.attempt.as_ref().map(|attempt| &attempt.stage) {
            Some(AttemptStage::Trial { shown, .. }) => shown.clone(),
            Some(AttemptStage::Staged) | None => Shown::default(),
        };
        let attempt = record.attempt.as_ref();
        Self {
            unannounced: attempt.is_some_and(|attempt| attempt.stage == AttemptStage::Staged),
            record,
            phase: Phase::Settled,
            order: Order::Unknown,
            held: false,
            unsound: BTreeMap::new(),
            shown,
            retries: 0,
            interruptions: 0,
            boot_id: boot_id.into(),
        }
    }

    /// What is durable.
    #[must_use]
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// What is in flight.
    #[must_use]
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// What the centre wants.
    #[must_use]
    pub fn order(&self) -> &Order {
        &self.order
    }

    /// The newest committed version that can serve.
    #[must_use]
    pub fn current(&self) -> Option<&Version> {
        self.record
            .good
            .iter()
            .find(|version| !self.unsound.contains_key(&version.revision))
    }

    /// What the host should have loaded and route to.
    #[must_use]
    pub fn serving(&self) -> Serving {
        let current = self.current().cloned();
        let candidate = || self.record.attempt.as_ref().map(Attempt::candidate);
        let in_trial = match &self.phase {
            Phase::Trial { .. } => true,
            Phase::Saving {
                candidate_serves, ..
            } => *candidate_serves,
            Phase::Starting => {
                return Serving {
                    active: current,
                    fallback: None,
                    starting: candidate(),
                };
            }
            Phase::Settled | Phase::Staging(_) | Phase::Waiting { .. } | Phase::Preflight => false,
        };
        if in_trial {
            Serving {
                active: candidate(),
                fallback: current,
                starting: None,
            }
        } else {
            Serving {
                active: current,
                fallback: None,
                starting: None,
            }
        }
    }

    /// What the candidate has shown in trial so far.
    #[must_use]
    pub fn shown(&self) -> &Shown {
        &self.shown
    }

    /// When the machine wants its next [`Observation::Tick`] at the latest, if it waits for time.
    /// A trial is ticked by whoever samples it.
    #[must_use]
    pub fn wakes_at(&self) -> Option<Millis> {
        match &self.phase {
            Phase::Waiting { retry_at, .. } => Some(*retry_at),
            Phase::Saving { failed, .. } => failed.as_ref().map(|(at, _)| *at),
            Phase::Settled
            | Phase::Staging(_)
            | Phase::Preflight
            | Phase::Starting
            | Phase::Trial { .. } => None,
        }
    }
}
