//! What the activation machine does next: goes on, announces a start, commits, rejects, or waits.
//!
//! Owns every change of the record, and the bounds on starts, writes and retries: each attempt ends. What
//! an observation means in a phase is told in `step`.

use super::record::{
    Attempt, AttemptStage, Bad, Judged, MESSAGE_CHARS_MAX, Problem, Reason, Record, Shown, Target,
};
use super::state::{Effect, Millis, Order, Phase, State, Then};
use crate::ids::RevisionName;
use crate::verdict::{Failure, Verdict, judge};

/// Starts that a candidate gets before it is rolled back, counting those that it died of itself: one, and four
/// after such a death. Each is announced by a durable write before it happens.
pub const STARTS_MAX: u8 = 5;
/// Starts in a row that may end unseen (the agent or the whole device went down, or the host for no known reason)
/// while the candidate shows nothing. A vehicle's ignition may go ten times before there is a request to answer; a
/// candidate that takes its board down at each start is the same to look at, and must end.
pub const LOST_STARTS_MAX: u8 = 12;
/// A candidate that lived for so long in one start has shown something, also where nobody asked it anything.
pub const STEADY_MILLISECONDS: Millis = 30_000;
/// The first pause between two notes of what a candidate has shown; doubled after each, in one start.
pub const NOTE_MILLISECONDS_MIN: Millis = 15_000;
/// Durable writes that one attempt may cost in a row without showing anything; more mean a loop that wears the
/// flash out. Those that announce preflights have a bound of their own, which comes on top.
pub const WRITES_MAX: u8 = 28 + LOST_PREFLIGHTS_MAX;
/// Preflights in a row that the machine may interrupt before nobody tries again by himself.
pub const INTERRUPTIONS_MAX: u32 = 8;
/// Preflights in a row that agent or device may go down in. As with starts in trial, ten ignitions must not be too many.
pub const LOST_PREFLIGHTS_MAX: u8 = 12;
/// First wait after one that was interrupted, doubled with each further one: the last is over half an hour.
pub const INTERRUPTED_MILLISECONDS_MIN: Millis = 30_000;
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
        if self.record.forgets(&wanted) {
            let mut record = self.record.clone();
            record.forget(&wanted.revision);
            return self.save(record, Then::Settle, false);
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
            AttemptStage::Staged => self.preflight(attempt),
            AttemptStage::Trial { .. } => {
                let problem = Problem::new(
                    Reason::STARTS_USED_UP,
                    format!(
                        "agent or device went down in {LOST_STARTS_MAX} starts in a row, before the version had shown anything in trial"
                    ),
                );
                self.start_lost(problem)
            }
        }
    }

    /// Begins the preflight, the first one and after a wait at once. After a restart it is announced first: what takes its
    /// agent down with it, such as by the memory limit of a container, must come to an end.
    fn preflight(&mut self, attempt: Attempt) -> Vec<Effect> {
        let number = self.number_of(&attempt.target);
        let is_asked_again = number > attempt.target.attempt;
        if attempt.preflights >= LOST_PREFLIGHTS_MAX && !is_asked_again && self.unannounced {
            let message = format!(
                "agent or device went down in {LOST_PREFLIGHTS_MAX} preflights of this version in a row: it may need more memory \
                 than they have (the limit of the agent's container?); it is not tried again before a retry is asked for (kubectl rimward retry)"
            );
            self.phase = Phase::Waiting {
                problem: Problem::new(Reason::new("PreflightInterrupted"), message),
                retry_at: Millis::MAX,
            };
            return Vec::new();
        }
        if !self.unannounced {
            self.phase = Phase::Preflight;
            return vec![Effect::Preflight(attempt)];
        }
        self.unannounced = false;
        let begun = match is_asked_again {
            true => 0,
            false => attempt.preflights,
        };
        let target = Target {
            attempt: number,
            ..attempt.target
        };
        let announced = Attempt {
            target,
            preflights: begun + 1,
            ..attempt
        };
        self.save_attempt(announced, Then::Settle)
    }

    /// The number of the attempt that works on a target: the order may have counted on meanwhile.
    pub(super) fn number_of(&self, target: &Target) -> u32 {
        match &self.order {
            Order::Run(ordered) if ordered.revision == target.revision => ordered.attempt,
            Order::Run(_) | Order::Remove | Order::Unknown => target.attempt,
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
            let number = self.number_of(&attempt.target);
            record.reject(Bad {
                in_trial: attempt.stage != AttemptStage::Staged,
                revision: attempt.target.revision,
                problem,
                attempt: number,
            });
        }
        record.judged = judged.or(record.judged);
        self.save(record, Then::Collect, serves)
    }

    /// Announces the candidate's first start.
    pub(super) fn start_first(&mut self) -> Vec<Effect> {
        self.announce(STARTS_MAX - 1, 1)
    }

    /// Announces another start after one that the candidate died of, or rolls back when none is left.
    pub(super) fn start_again(&mut self, problem: Problem) -> Vec<Effect> {
        let (tries_left, lost) = self.counts();
        match tries_left.checked_sub(1) {
            // The new start takes the old one's place: how that one ended is known.
            Some(tries_left) => self.announce(tries_left, lost.max(1)),
            None => self.reject(problem, None, false),
        }
    }

    /// Announces another start after one that ended nobody knows how, or rolls back after too many of them.
    pub(super) fn start_lost(&mut self, problem: Problem) -> Vec<Effect> {
        let (tries_left, lost) = self.counts();
        if lost >= LOST_STARTS_MAX {
            return self.reject(problem, None, false);
        }
        self.announce(tries_left, lost + 1)
    }

    /// Starts left and starts lost of the record's attempt.
    fn counts(&self) -> (u8, u8) {
        match self.record.attempt.as_ref().map(|attempt| &attempt.stage) {
            Some(AttemptStage::Trial {
                tries_left,
                lost,
                boot_id: _,
                shown: _,
            }) => (*tries_left, *lost),
            Some(AttemptStage::Staged) | None => (STARTS_MAX, 0),
        }
    }

    fn announce(&mut self, tries_left: u8, lost: u8) -> Vec<Effect> {
        let stage = self.in_trial(tries_left, lost);
        match self.record.attempt.clone() {
            Some(attempt) => self.save_attempt(Attempt { stage, ..attempt }, Then::Start),
            None => Vec::new(),
        }
    }

    fn in_trial(&self, tries_left: u8, lost: u8) -> AttemptStage {
        AttemptStage::Trial {
            tries_left,
            boot_id: self.boot_id.clone(),
            lost,
            shown: self.shown.clone(),
        }
    }

    /// Adds the time since the last look to what the candidate has shown.
    pub(super) fn add_up(&mut self, now: Millis) {
        if let Phase::Trial { since, .. } = &mut self.phase {
            let watched = now.saturating_sub(*since);
            *since = now;
            self.shown.watched_milliseconds =
                self.shown.watched_milliseconds.saturating_add(watched);
        }
    }

    /// Judges the trial; while it goes on, notes what was shown where that is due.
    pub(super) fn look(&mut self, now: Millis) -> Vec<Effect> {
        let effects = self.judge(now);
        let Phase::Trial { since, notes, .. } = self.phase else {
            return effects;
        };
        if !self.note_is_due(now.saturating_sub(since), notes) {
            return effects;
        }
        self.add_up(now);
        if let Phase::Trial { notes, .. } = &mut self.phase {
            *notes = notes.saturating_add(1);
        }
        // Something was shown: what came before was no loop, nor was the start lost.
        let (tries_left, _) = self.counts();
        let first = notes == 0;
        self.note(tries_left, 0, |writes| if first { 1 } else { writes + 1 })
    }

    /// Whether what the candidate has shown is worth a write, so that no more than half of a start is forgotten
    /// when the power goes: at once when a start shows something for the first time, then later and later.
    fn note_is_due(&self, elapsed: Millis, notes: u32) -> bool {
        let Some(Attempt {
            stage: AttemptStage::Trial { shown: noted, .. },
            target,
            writes,
            install: _,
            preflights: _,
        }) = &self.record.attempt
        else {
            return false;
        };
        let Some(earlier) = notes.checked_sub(1) else {
            return self.shown.good() > noted.good() || elapsed >= STEADY_MILLISECONDS;
        };
        let probation = u64::from(target.health.probation_seconds) * 1000;
        let is_news = self.shown.samples != noted.samples || noted.watched_milliseconds < probation;
        is_news && *writes < WRITES_MAX && elapsed >= NOTE_MILLISECONDS_MIN << earlier.min(16)
    }

    /// Notes that a preflight ends because the agent does, which counts for nothing.
    pub(super) fn note_orderly_end_of_preflight(&mut self) -> Vec<Effect> {
        let Some(attempt) = &mut self.record.attempt else {
            return Vec::new();
        };
        attempt.preflights = attempt.preflights.saturating_sub(1);
        attempt.writes = attempt.writes.saturating_sub(1);
        vec![Effect::Note(self.record.clone())]
    }

    /// Notes an end that is known before it comes: it takes back what the announcement of this start counted.
    pub(super) fn note_orderly_end(&mut self) -> Vec<Effect> {
        let (tries_left, lost) = self.counts();
        self.note(tries_left, lost.saturating_sub(1), |writes| {
            writes.saturating_sub(1)
        })
    }

    fn note(&mut self, tries_left: u8, lost: u8, writes: impl FnOnce(u8) -> u8) -> Vec<Effect> {
        let stage = self.in_trial(tries_left, lost);
        let Some(attempt) = &mut self.record.attempt else {
            return Vec::new();
        };
        attempt.stage = stage;
        attempt.writes = writes(attempt.writes);
        vec![Effect::Note(self.record.clone())]
    }

    /// Waits longer and longer for a machine that has no room for a preflight, and at last for a person.
    pub(super) fn wait_for_the_machine(&mut self, problem: Problem, now: Millis) -> Vec<Effect> {
        let pause = INTERRUPTED_MILLISECONDS_MIN << self.interruptions.min(16);
        self.interruptions = self.interruptions.saturating_add(1);
        self.phase = if self.interruptions < INTERRUPTIONS_MAX {
            Phase::Waiting {
                problem,
                retry_at: now.saturating_add(pause),
            }
        } else {
            let Problem { reason, message } = problem;
            // The words that say what to do must not be those that are cut.
            let said: String = message.chars().take(MESSAGE_CHARS_MAX / 2).collect();
            let message = format!(
                "{said}; after {INTERRUPTIONS_MAX} such tries it is not tried again before a retry is asked for (kubectl rimward retry), the trust file changes or the agent is started anew"
            );
            Phase::Waiting {
                problem: Problem::new(reason, message),
                retry_at: Millis::MAX,
            }
        };
        Vec::new()
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

    fn judge(&mut self, now: Millis) -> Vec<Effect> {
        let (Phase::Trial { since, .. }, Some(attempt)) = (&self.phase, &self.record.attempt)
        else {
            return Vec::new();
        };
        let Shown {
            samples,
            watched_milliseconds,
        } = &self.shown;
        let watched = watched_milliseconds.saturating_add(now.saturating_sub(*since));
        let target = &attempt.target;
        let judged = |passed| Judged::new(target.revision.clone(), passed, samples);
        let verdict = judge(&target.health, samples, watched);
        match verdict {
            Verdict::Watching | Verdict::TooFewSamples => {
                if let Phase::Trial { too_few, .. } = &mut self.phase {
                    *too_few = verdict == Verdict::TooFewSamples;
                }
                Vec::new()
            }
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
