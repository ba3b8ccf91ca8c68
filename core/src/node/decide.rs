//! What the activation machine does next: goes on, announces a start, commits, rejects, or waits.
//!
//! Owns every change of the record, and the bounds on starts, writes and retries: each attempt ends. What
//! an observation means in a phase is told in `step`.

use super::record::{Attempt, AttemptStage, Judged, Problem, Reason, Record};
use super::state::{Effect, Millis, Order, Phase, State, Then};
use crate::ids::RevisionName;
use crate::verdict::{Failure, Verdict, judge};

/// Starts that a candidate gets before it is rolled back: one, and four after a death of the host,
/// the agent or the device. Each is announced by a durable write before it happens.
pub const STARTS_MAX: u8 = 5;
/// Durable writes that one attempt may cost; more mean a loop that wears the flash out.
pub const WRITES_MAX: u8 = 28;
/// First wait after a blocked step, doubled with each further one.
pub const RETRY_MILLISECONDS_MIN: Millis = 1_000;
/// Longest wait: a missing signature is noticed within a minute of being there.
pub const RETRY_MILLISECONDS_MAX: Millis = 60_000;

impl State {
    /// Decides what to do when nothing is in flight; leaves the machine settled if that is nothing.
    pub(super) fn advance(&mut self) -> Vec<Effect> {
        self.phase = Phase::Settled;
        let attempt = self.record.attempt.clone();
        let wanted = match (&self.order, &attempt) {
            (Order::Remove, _) if self.record.is_removed() => return Vec::new(),
            (Order::Remove, _) => return self.remove(),
            (Order::Run(target), _) => target.clone(),
            (Order::Unknown, Some(attempt)) => attempt.target.clone(),
            (Order::Unknown, None) => return Vec::new(),
        };
        if let Some(attempt) = attempt {
            if attempt.target.revision == wanted.revision {
                return self.resume(attempt);
            }
            // Overtaken by another order: that says nothing against it. It is dropped at once, so
            // that no restart in between tries it.
            return self.drop_attempt(Then::Settle);
        }
        let settled = self
            .current()
            .is_some_and(|current| current.revision == wanted.revision)
            || self.record.why_bad(&wanted.revision).is_some()
            || self.held;
        if settled {
            return Vec::new();
        }
        self.phase = Phase::Staging(wanted.clone());
        vec![Effect::Stage(wanted)]
    }

    /// Goes on with the record's attempt, after a restart or a wait.
    pub(super) fn resume(&mut self, attempt: Attempt) -> Vec<Effect> {
        match &attempt.stage {
            AttemptStage::Staged if self.held => Vec::new(),
            AttemptStage::Staged => {
                self.phase = Phase::Preflight;
                vec![Effect::Preflight(attempt)]
            }
            AttemptStage::Trial { .. } => {
                let problem = Problem::new(
                    Reason::STARTS_USED_UP,
                    format!("the version did not end its trial in {STARTS_MAX} starts"),
                );
                self.start_again(problem)
            }
        }
    }

    pub(super) fn save(
        &mut self,
        record: Record,
        then: Then,
        candidate_serves: bool,
    ) -> Vec<Effect> {
        self.phase = Phase::Saving {
            record: Box::new(record.clone()),
            then,
            candidate_serves,
            failed: None,
        };
        vec![Effect::Put(record)]
    }

    /// Saves the attempt's next stage, unless the attempt has written too often.
    pub(super) fn save_attempt(&mut self, attempt: Attempt, then: Then) -> Vec<Effect> {
        if attempt.writes >= WRITES_MAX {
            let problem = Problem::new(
                Reason::TOO_MANY_WRITES,
                format!("the attempt took {WRITES_MAX} durable writes without an end"),
            );
            return self.reject(problem, None, false);
        }
        let mut record = self.record.clone();
        record.attempt = Some(Attempt {
            writes: attempt.writes + 1,
            ..attempt
        });
        self.save(record, then, false)
    }

    pub(super) fn remove(&mut self) -> Vec<Effect> {
        // What was rejected here stays rejected, should the same revision come back.
        let record = Record {
            bad: self.record.bad.clone(),
            ..Record::default()
        };
        self.save(record, Then::Collect, false)
    }

    pub(super) fn drop_attempt(&mut self, then: Then) -> Vec<Effect> {
        let mut record = self.record.clone();
        record.attempt = None;
        self.save(record, then, false)
    }

    /// Rejects the attempt's revision for good: rollback, where it had traffic.
    pub(super) fn reject(
        &mut self,
        problem: Problem,
        judged: Option<Judged>,
        serves: bool,
    ) -> Vec<Effect> {
        let mut record = self.record.clone();
        if let Some(attempt) = record.attempt.take() {
            let in_trial = attempt.stage != AttemptStage::Staged;
            record.reject(attempt.target.revision, problem, in_trial);
        }
        record.judged = judged.or(record.judged);
        self.save(record, Then::Collect, serves)
    }

    /// Announces another start of the candidate, or rolls back when none is left.
    pub(super) fn start_again(&mut self, problem: Problem) -> Vec<Effect> {
        let Some(attempt) = self.record.attempt.clone() else {
            return Vec::new();
        };
        let tries_left = match attempt.stage {
            AttemptStage::Staged => STARTS_MAX,
            AttemptStage::Trial { tries_left, .. } => tries_left,
        };
        let Some(tries_left) = tries_left.checked_sub(1) else {
            return self.reject(problem, None, false);
        };
        let stage = AttemptStage::Trial {
            tries_left,
            boot_id: self.boot_id.clone(),
        };
        self.save_attempt(Attempt { stage, ..attempt }, Then::Start)
    }

    pub(super) fn wait(&mut self, problem: Problem, now: Millis) -> Vec<Effect> {
        let retry_at = self.retry_at(now);
        self.phase = Phase::Waiting { problem, retry_at };
        Vec::new()
    }

    pub(super) fn retry_at(&mut self, now: Millis) -> Millis {
        let wait = RETRY_MILLISECONDS_MIN << self.retries.min(16);
        self.retries = self.retries.saturating_add(1);
        now.saturating_add(wait.min(RETRY_MILLISECONDS_MAX))
    }

    pub(super) fn is_candidate(&self, revision: &RevisionName) -> bool {
        self.record
            .attempt
            .as_ref()
            .is_some_and(|attempt| &attempt.target.revision == revision)
    }

    /// Whether the order has moved on from the record's attempt.
    pub(super) fn is_overtaken(&self) -> bool {
        match &self.order {
            Order::Unknown => false,
            Order::Remove => true,
            Order::Run(target) => !self.is_candidate(&target.revision),
        }
    }

    pub(super) fn judge(&mut self, now: Millis) -> Vec<Effect> {
        let (Phase::Trial { since, samples }, Some(attempt)) = (&self.phase, &self.record.attempt)
        else {
            return Vec::new();
        };
        let target = &attempt.target;
        let judged = |passed| Judged::new(target.revision.clone(), passed, samples);
        match judge(&target.health, samples, now.saturating_sub(*since)) {
            Verdict::Watching | Verdict::TooFewSamples => Vec::new(),
            Verdict::Passed => {
                let mut record = self.record.clone();
                record.commit(attempt);
                record.attempt = None;
                record.judged = Some(judged(true));
                self.unsound.remove(&target.revision.clone());
                self.save(record, Then::Collect, true)
            }
            Verdict::Failed(failure) => {
                let reason = match failure {
                    Failure::Errors { .. } => Reason::TOO_MANY_ERRORS,
                    Failure::Latency { .. } => Reason::TOO_SLOW,
                };
                let judged = judged(false);
                self.reject(
                    Problem::new(reason, failure.to_string()),
                    Some(judged),
                    true,
                )
            }
        }
    }
}
