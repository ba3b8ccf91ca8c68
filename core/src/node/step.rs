//! The activation machine's step: every observation in every phase, with no wildcard.
//!
//! Owns what an observation means in a phase; what is done next is decided in `decide`. Must never do
//! anything: effects are done by the supervisor, which reports back with observations.

use super::blame::Blame;
use super::record::{Attempt, AttemptStage, Bad, Problem, Record, Shown, Target};
use super::state::{Effect, Millis, Observation, Order, Phase, State, Then};
use crate::ids::{Digest, RevisionName};
use crate::verdict::Samples;

/// Moves one deployment's machine by one observation, at monotonic time `now`.
///
/// Guarantees: effects are returned in the order in which they must be done; at most one of
/// staging, preflight and put is in flight; an observation that answers something that is no
/// longer in flight changes nothing.
#[must_use]
pub fn step(mut state: State, observation: Observation, now: Millis) -> (State, Vec<Effect>) {
    let effects = match observation {
        Observation::Ordered(order) => state.ordered(order),
        Observation::Held(held) => state.hold(held),
        Observation::TrustChanged => state.trust_changed(),
        Observation::Tick => state.tick(now),
        Observation::Staged(revision, install) => state.staged(&revision, install),
        Observation::StageBlocked(revision, problem) => {
            state.stage_blocked(&revision, problem, now)
        }
        Observation::StageRefused(revision, problem) => state.stage_refused(&revision, problem),
        Observation::PreflightPassed(revision) => state.preflight_passed(&revision),
        Observation::PreflightFailed(revision, problem) => match state.in_preflight(&revision) {
            true => state.reject(problem, None, false),
            false => Vec::new(),
        },
        Observation::PreflightBlocked(revision, problem) => match state.in_preflight(&revision) {
            true => state.wait(problem, now),
            false => Vec::new(),
        },
        Observation::PreflightInterrupted(revision, problem) => {
            match state.in_preflight(&revision) {
                true => state.wait_for_the_machine(problem, now),
                false => Vec::new(),
            }
        }
        Observation::Persisted => state.persisted(now),
        Observation::PersistFailed(problem) => state.persist_failed(problem, now),
        Observation::Loaded(revision) => state.loaded(&revision, now),
        Observation::LoadFailed(revision, problem) => state.load_failed(revision, problem, now),
        Observation::Unsound(revision, problem) => state.unsound(revision, problem, now),
        Observation::HostDied(problem, blame) => state.host_died(problem, blame, now),
        Observation::Sampled(revision, samples) => state.sampled(&revision, &samples, now),
        Observation::Stopping => state.stopping(now),
    };
    (state, effects)
}

impl State {
    fn ordered(&mut self, order: Order) -> Vec<Effect> {
        if self.order == order {
            return Vec::new();
        }
        self.order = order;
        self.retries = 0;
        self.interruptions = 0;
        let wanted = match &self.order {
            Order::Run(target) => Some(&target.revision),
            Order::Remove | Order::Unknown => None,
        };
        let attempted = self.record.attempt.as_ref();
        let same = wanted.is_some() && wanted == attempted.map(|it| &it.target.revision);
        match &self.phase {
            Phase::Settled | Phase::Waiting { .. } => self.advance(),
            Phase::Staging(target) if wanted == Some(&target.revision) => Vec::new(),
            Phase::Staging(_) => self.cancel(Effect::CancelStaging),
            Phase::Preflight if same => Vec::new(),
            Phase::Preflight => self.cancel(Effect::CancelPreflight),
            Phase::Starting | Phase::Trial { .. } if same => Vec::new(),
            Phase::Starting | Phase::Trial { .. } => self.advance(),
            // What is being written decides first; then the order is looked at again.
            Phase::Saving { .. } => Vec::new(),
        }
    }

    fn cancel(&mut self, cancel: Effect) -> Vec<Effect> {
        let mut effects = vec![cancel];
        effects.extend(self.advance());
        effects
    }

    fn hold(&mut self, held: bool) -> Vec<Effect> {
        self.held = held;
        match &self.phase {
            Phase::Settled => self.advance(),
            Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Saving { .. }
            | Phase::Preflight
            | Phase::Starting
            | Phase::Trial { .. } => Vec::new(),
        }
    }

    fn trust_changed(&mut self) -> Vec<Effect> {
        self.unsound.clear();
        match &self.phase {
            Phase::Settled => self.advance(),
            Phase::Waiting { .. } => {
                self.retries = 0;
                self.interruptions = 0;
                self.advance()
            }
            Phase::Staging(_)
            | Phase::Saving { .. }
            | Phase::Preflight
            | Phase::Starting
            | Phase::Trial { .. } => Vec::new(),
        }
    }

    fn tick(&mut self, now: Millis) -> Vec<Effect> {
        match &mut self.phase {
            Phase::Settled => self.advance(),
            Phase::Waiting { retry_at, .. } if now >= *retry_at => {
                // What kept a committed version from serving may have passed too.
                self.unsound.clear();
                self.advance()
            }
            Phase::Saving { record, failed, .. } => match failed {
                Some((retry_at, _)) if now >= *retry_at => {
                    *failed = None;
                    vec![Effect::Put(Record::clone(record))]
                }
                Some(_) | None => Vec::new(),
            },
            Phase::Trial { .. } => self.look(now),
            Phase::Staging(_) | Phase::Waiting { .. } | Phase::Preflight | Phase::Starting => {
                Vec::new()
            }
        }
    }

    /// The target of the staging in flight, if it is for this revision.
    fn staging(&self, revision: &RevisionName) -> Option<Target> {
        match &self.phase {
            Phase::Staging(target) if &target.revision == revision => Some(target.clone()),
            Phase::Staging(_)
            | Phase::Settled
            | Phase::Waiting { .. }
            | Phase::Saving { .. }
            | Phase::Preflight
            | Phase::Starting
            | Phase::Trial { .. } => None,
        }
    }

    fn staged(&mut self, revision: &RevisionName, install: Digest) -> Vec<Effect> {
        let Some(target) = self.staging(revision) else {
            return Vec::new();
        };
        self.unannounced = false;
        let attempt = Attempt {
            target,
            install,
            stage: AttemptStage::Staged,
            writes: 0,
            // This write announces the first one, too.
            preflights: 1,
        };
        self.save_attempt(attempt, Then::Settle)
    }

    fn stage_blocked(&mut self, revision: &RevisionName, why: Problem, now: Millis) -> Vec<Effect> {
        match self.staging(revision) {
            Some(_) => self.wait(why, now),
            None => Vec::new(),
        }
    }

    fn stage_refused(&mut self, revision: &RevisionName, why: Problem) -> Vec<Effect> {
        let Some(target) = self.staging(revision) else {
            return Vec::new();
        };
        let attempt = self.number_of(&target);
        let mut record = self.record.clone();
        record.reject(Bad {
            revision: target.revision,
            problem: why,
            in_trial: false,
            attempt,
        });
        self.save(record, Then::Collect, false)
    }

    /// Whether this revision's preflight is in flight.
    fn in_preflight(&self, revision: &RevisionName) -> bool {
        self.phase == Phase::Preflight && self.is_candidate(revision)
    }

    fn preflight_passed(&mut self, revision: &RevisionName) -> Vec<Effect> {
        if !self.in_preflight(revision) {
            return Vec::new();
        }
        if self.held {
            // The site said no while the child ran. The attempt stays staged until it says yes.
            self.phase = Phase::Settled;
            return Vec::new();
        }
        self.shown = Shown::default();
        self.start_first()
    }

    fn persisted(&mut self, now: Millis) -> Vec<Effect> {
        let (record, then) = match &self.phase {
            Phase::Saving { record, then, .. } => (record.clone(), then.clone()),
            Phase::Settled
            | Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Preflight
            | Phase::Starting
            | Phase::Trial { .. } => return Vec::new(),
        };
        self.record = *record;
        match then {
            Then::Settle => self.advance(),
            Then::Collect => {
                self.retries = 0;
                self.interruptions = 0;
                let mut effects = vec![Effect::Collect];
                effects.extend(self.advance());
                effects
            }
            Then::Start if self.is_overtaken() => self.drop_attempt(Then::Settle),
            Then::Start => {
                self.phase = Phase::Starting;
                Vec::new()
            }
            Then::Wait(problem) => self.wait(problem, now),
        }
    }

    fn persist_failed(&mut self, problem: Problem, now: Millis) -> Vec<Effect> {
        let retry_at = self.retry_at(now);
        match &mut self.phase {
            Phase::Saving { failed, .. } => *failed = Some((retry_at, problem)),
            Phase::Settled
            | Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Preflight
            | Phase::Starting
            | Phase::Trial { .. } => {}
        }
        Vec::new()
    }

    fn loaded(&mut self, revision: &RevisionName, now: Millis) -> Vec<Effect> {
        match &self.phase {
            Phase::Starting if self.is_candidate(revision) => {
                self.phase = Phase::Trial {
                    since: now,
                    notes: 0,
                    too_few: false,
                };
                Vec::new()
            }
            Phase::Starting
            | Phase::Settled
            | Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Saving { .. }
            | Phase::Preflight
            | Phase::Trial { .. } => Vec::new(),
        }
    }

    fn load_failed(&mut self, revision: RevisionName, why: Problem, now: Millis) -> Vec<Effect> {
        match &self.phase {
            Phase::Starting | Phase::Trial { .. } if self.is_candidate(&revision) => {
                self.add_up(now);
                self.start_again(why)
            }
            Phase::Starting
            | Phase::Trial { .. }
            | Phase::Settled
            | Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Saving { .. }
            | Phase::Preflight => self.pass_over(revision, why, now),
        }
    }

    fn unsound(&mut self, revision: RevisionName, why: Problem, now: Millis) -> Vec<Effect> {
        match &self.phase {
            // It may not run, now; that says nothing about its quality. Its traffic goes back to
            // the current version at once.
            Phase::Starting | Phase::Trial { .. } if self.is_candidate(&revision) => {
                self.drop_attempt(Then::Wait(why))
            }
            Phase::Preflight if self.is_candidate(&revision) => {
                let mut effects = vec![Effect::CancelPreflight];
                effects.extend(self.drop_attempt(Then::Wait(why)));
                effects
            }
            Phase::Starting
            | Phase::Trial { .. }
            | Phase::Settled
            | Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Saving { .. }
            | Phase::Preflight => self.pass_over(revision, why, now),
        }
    }

    /// Passes a committed version over until the next retry, start or change of trust.
    fn pass_over(&mut self, revision: RevisionName, why: Problem, now: Millis) -> Vec<Effect> {
        let known = self.record.good.iter().any(|it| it.revision == revision);
        if !known {
            return Vec::new();
        }
        self.unsound.insert(revision, why.clone());
        match &self.phase {
            Phase::Settled => {
                let effects = self.advance();
                // With no order to follow, the machine would never look at it again.
                if self.phase == Phase::Settled {
                    self.wait(why, now);
                }
                effects
            }
            Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Saving { .. }
            | Phase::Preflight
            | Phase::Starting
            | Phase::Trial { .. } => Vec::new(),
        }
    }

    fn host_died(&mut self, problem: Problem, blame: Blame, now: Millis) -> Vec<Effect> {
        match &mut self.phase {
            Phase::Starting | Phase::Trial { .. } => {
                self.add_up(now);
                match blame {
                    Blame::Candidate => self.start_again(problem),
                    Blame::Nobody => self.start_lost(problem),
                    Blame::Another => {
                        // Nothing is used up, so there is nothing to announce.
                        self.phase = Phase::Starting;
                        Vec::new()
                    }
                }
            }
            Phase::Saving {
                candidate_serves, ..
            } => {
                // A further start would need an announcement of its own.
                *candidate_serves = false;
                Vec::new()
            }
            Phase::Settled | Phase::Staging(_) | Phase::Waiting { .. } | Phase::Preflight => {
                Vec::new()
            }
        }
    }

    fn sampled(&mut self, revision: &RevisionName, more: &Samples, now: Millis) -> Vec<Effect> {
        let candidate = self.is_candidate(revision);
        match &self.phase {
            Phase::Trial { .. } if candidate => {
                self.shown.samples.merge(more);
                self.look(now)
            }
            // Of a start whose host is gone, or that another one takes over from: counted all the same.
            Phase::Starting if candidate => {
                self.shown.samples.merge(more);
                Vec::new()
            }
            Phase::Trial { .. }
            | Phase::Settled
            | Phase::Staging(_)
            | Phase::Waiting { .. }
            | Phase::Saving { .. }
            | Phase::Preflight
            | Phase::Starting => Vec::new(),
        }
    }

    fn stopping(&mut self, now: Millis) -> Vec<Effect> {
        match &self.phase {
            Phase::Starting | Phase::Trial { .. } => {
                self.add_up(now);
                self.note_orderly_end()
            }
            Phase::Preflight => self.note_orderly_end_of_preflight(),
            Phase::Settled | Phase::Staging(_) | Phase::Waiting { .. } | Phase::Saving { .. } => {
                Vec::new()
            }
        }
    }
}
