//! What a standby serves of one deployment: what the record's holder has committed, and nothing else.
//!
//! Owns the choice among the committed versions of a record that another agent writes. Must never ask for anything to
//! be done: there is no effect here, so whoever follows can neither stage, nor try, nor write.
//!
//! Invariants, each held by a test in this module:
//! - what answers was committed, and is sound as far as is known; a candidate of the holder's never answers;
//! - a version that takes another's place is loaded first; the one before it answers until then;
//! - one that is not committed any more is gone within [`LINGER_MILLISECONDS`], an unsound one at once.

use std::collections::BTreeMap;

use super::decide::{RETRY_MILLISECONDS_MAX, RETRY_MILLISECONDS_MIN};
use super::record::{Problem, Version};
use super::state::{Millis, Serving};
use crate::ids::RevisionName;

/// How long a version that is not committed any more may answer while the one in its place is loaded.
pub const LINGER_MILLISECONDS: Millis = 10_000;

/// Everything that a follower is told.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sight {
    /// These versions are committed by the holder's record, newest first. What it tries is not told.
    Committed(Vec<Version>),
    /// The host has loaded the revision and it can answer.
    Loaded(RevisionName),
    /// This agent cannot run the revision, or could not try; that says nothing about what the holder can.
    CannotRun(RevisionName, Problem),
    /// The stored revision does not pass the offline check: bytes, signatures, revocation, floors.
    Unsound(RevisionName, Problem),
    /// The host process died and took what it had loaded with it.
    HostDied,
    /// The trust file changed.
    TrustChanged,
    /// Time passed.
    Tick,
}

/// A committed version that is passed over.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Passed {
    why: Problem,
    is_unsound: bool,
    tries: u32,
    /// When it is tried again; none while it is being tried.
    retry_at: Option<Millis>,
}

/// One deployment, followed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Follower {
    good: Vec<Version>,
    /// The version that answers, once it was loaded.
    answers: Option<Version>,
    /// Since when what answers is not committed any more.
    lingers_since: Option<Millis>,
    passed: BTreeMap<RevisionName, Passed>,
}

impl Follower {
    /// Takes what was seen, at monotonic time `now`.
    #[must_use]
    pub fn see(mut self, sight: Sight, now: Millis) -> Self {
        match sight {
            Sight::Committed(good) => {
                self.passed
                    .retain(|revision, _| good.iter().any(|it| &it.revision == revision));
                self.good = good;
                if self.good.is_empty() {
                    self.answers = None;
                }
            }
            Sight::Loaded(revision) => self.loaded(&revision),
            Sight::CannotRun(revision, why) => self.pass_over(&revision, why, false, now),
            Sight::Unsound(revision, why) => {
                if self
                    .answers
                    .as_ref()
                    .is_some_and(|it| it.revision == revision)
                {
                    self.answers = None;
                }
                self.pass_over(&revision, why, true, now);
            }
            Sight::HostDied => self.answers = None,
            Sight::TrustChanged => self.passed.clear(),
            Sight::Tick => {
                for passed in self.passed.values_mut() {
                    if passed.retry_at.is_some_and(|at| now >= at) {
                        passed.retry_at = None;
                    }
                }
            }
        }
        self.linger(now);
        self
    }

    /// What the host should have loaded and route to.
    #[must_use]
    pub fn serving(&self) -> Serving {
        let target = self.target().cloned();
        match (&self.answers, target) {
            (Some(answers), Some(target)) if *answers != target => Serving {
                active: Some(answers.clone()),
                fallback: None,
                starting: Some(target),
            },
            (answers, target) => Serving {
                active: target.or_else(|| answers.clone()),
                fallback: None,
                starting: None,
            },
        }
    }

    /// Whether the newest committed version that may run answers here, or none may.
    ///
    /// # Errors
    /// What is still to come, or why it cannot.
    pub fn is_caught_up(&self) -> Result<(), String> {
        let is_unsound = |version: &&Version| {
            let passed = self.passed.get(&version.revision);
            passed.is_some_and(|passed| passed.is_unsound)
        };
        let Some(newest) = self.good.iter().find(|version| !is_unsound(version)) else {
            return Ok(());
        };
        if self.answers.as_ref() == Some(newest) {
            return Ok(());
        }
        Err(match self.passed.get(&newest.revision) {
            Some(Passed { why, .. }) => format!(
                "{} cannot run here: {}: {}",
                newest.revision,
                why.reason.as_str(),
                why.message
            ),
            None => format!("{} is being loaded", newest.revision),
        })
    }

    /// The versions that are not sound, and why: what the agent must know when it takes over. That one could not be
    /// loaded beside another agent's host says nothing of what this one can when it is alone.
    pub fn unsound(&self) -> impl Iterator<Item = (&RevisionName, &Problem)> {
        self.passed
            .iter()
            .filter(|(_, passed)| passed.is_unsound)
            .map(|(revision, passed)| (revision, &passed.why))
    }

    /// Every committed version.
    #[must_use]
    pub fn committed(&self) -> &[Version] {
        &self.good
    }

    /// The newest committed version that is not passed over.
    fn target(&self) -> Option<&Version> {
        let is_passed = |version: &&Version| {
            let passed = self.passed.get(&version.revision);
            passed.is_some_and(|passed| passed.retry_at.is_some())
        };
        self.good.iter().find(|version| !is_passed(version))
    }

    fn loaded(&mut self, revision: &RevisionName) {
        if self.target().is_some_and(|it| &it.revision == revision) {
            self.answers = self.target().cloned();
            self.passed.remove(revision);
        }
    }

    fn pass_over(&mut self, revision: &RevisionName, why: Problem, is_unsound: bool, now: Millis) {
        if !self
            .good
            .iter()
            .any(|version| &version.revision == revision)
        {
            return;
        }
        let before = self.passed.get(revision);
        let tries = before.map_or(0, |passed| passed.tries.saturating_add(1));
        let wait = (RETRY_MILLISECONDS_MIN << tries.min(16)).min(RETRY_MILLISECONDS_MAX);
        let passed = Passed {
            why,
            is_unsound,
            tries,
            retry_at: Some(now.saturating_add(wait)),
        };
        self.passed.insert(revision.clone(), passed);
    }

    fn linger(&mut self, now: Millis) {
        let is_committed = self
            .answers
            .as_ref()
            .is_none_or(|it| self.good.contains(it));
        if is_committed {
            self.lingers_since = None;
            return;
        }
        let since = *self.lingers_since.get_or_insert(now);
        if now.saturating_sub(since) >= LINGER_MILLISECONDS {
            self.answers = None;
            self.lingers_since = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::Reason;
    use super::*;
    use crate::ids::Digest;
    use proptest::prelude::*;

    fn version(number: u8) -> Version {
        Version {
            revision: format!("v-{number}").parse().unwrap(),
            package: Digest::from_sha256([number; 32]),
            install: Digest::from_sha256([number; 32]),
        }
    }

    fn name(number: u8) -> RevisionName {
        version(number).revision
    }

    fn problem() -> Problem {
        Problem::new(Reason::CORRUPT, "words")
    }

    fn committed(good: &[u8]) -> Sight {
        Committed(good.iter().map(|number| version(*number)).collect())
    }

    fn after(sights: &[(Sight, Millis)]) -> Follower {
        let follower = Follower::default();
        sights
            .iter()
            .cloned()
            .fold(follower, |follower, (sight, now)| follower.see(sight, now))
    }

    /// The versions that answer and that are loaded beside it, by number; 0 for none.
    fn check(sights: &[(Sight, Millis)], active: u8, starting: u8, caught_up: bool) {
        let follower = after(sights);
        let serving = follower.serving();
        let wanted = |number: u8| (number > 0).then(|| version(number));
        let found = (serving.active, serving.fallback, serving.starting);
        assert_eq!(
            found,
            (wanted(active), None, wanted(starting)),
            "{sights:?}"
        );
        assert_eq!(follower.is_caught_up().is_ok(), caught_up, "{sights:?}");
    }

    use Sight::{CannotRun, Committed, HostDied, Loaded, Tick, TrustChanged, Unsound};

    #[test]
    fn what_is_committed_is_served_whatever_the_holder_tries() {
        let on_trial = committed(&[2, 1]);
        check(&[], 0, 0, true);
        check(&[(on_trial.clone(), 0)], 2, 0, false);
        check(&[(on_trial.clone(), 0), (Loaded(name(2)), 1)], 2, 0, true);
        // The candidate's name says nothing here.
        check(&[(on_trial.clone(), 0), (Loaded(name(3)), 1)], 2, 0, false);
        let nothing = committed(&[]);
        check(&[(nothing, 0)], 0, 0, true);
    }

    #[test]
    fn a_commit_or_a_way_back_is_followed_without_a_gap() {
        let first = [(committed(&[1]), 0), (Loaded(name(1)), 1)];
        let then = |more: &[(Sight, Millis)]| [&first[..], more].concat();
        let commit = (committed(&[2, 1]), 10);
        check(&then(std::slice::from_ref(&commit)), 1, 2, false);
        check(&then(&[commit.clone(), (Loaded(name(2)), 11)]), 2, 0, true);
        // What is committed still may answer for as long as the new one takes.
        let later = (Tick, 10 + 2 * LINGER_MILLISECONDS);
        check(&then(&[commit.clone(), later.clone()]), 1, 2, false);
        // What is not may not.
        let other = (committed(&[3]), 10);
        check(&then(std::slice::from_ref(&other)), 1, 3, false);
        check(&then(&[other.clone(), (Loaded(name(3)), 11)]), 3, 0, true);
        check(&then(&[other, later]), 3, 0, false);
        let removed = (committed(&[]), 10);
        check(&then(&[removed]), 0, 0, true);
    }

    #[test]
    fn what_is_unsound_goes_at_once_and_the_next_good_one_answers() {
        let first = [(committed(&[2, 1]), 0), (Loaded(name(2)), 1)];
        let then = |more: &[(Sight, Millis)]| [&first[..], more].concat();
        let revoked = (Unsound(name(2), problem()), 5);
        check(&then(std::slice::from_ref(&revoked)), 1, 0, false);
        check(&then(&[revoked.clone(), (Loaded(name(1)), 6)]), 1, 0, true);
        let both = [revoked.clone(), (Unsound(name(1), problem()), 6)];
        check(&then(&both), 0, 0, true);
        // Every change of the trust file is another chance, and so is time.
        let trust = (TrustChanged, 7);
        check(
            &then(&[revoked.clone(), (Loaded(name(1)), 6), trust]),
            1,
            2,
            false,
        );
        let again = (Tick, 5 + RETRY_MILLISECONDS_MIN);
        check(
            &then(&[revoked.clone(), (Loaded(name(1)), 6), again]),
            1,
            2,
            true,
        );
        let early = (Tick, 4 + RETRY_MILLISECONDS_MIN);
        check(&then(&[revoked, (Loaded(name(1)), 6), early]), 1, 0, true);
    }

    #[test]
    fn an_agent_that_cannot_run_what_is_committed_has_not_caught_up() {
        let cannot = [
            (committed(&[2, 1]), 0),
            (CannotRun(name(2), problem()), 1),
            (Loaded(name(1)), 2),
        ];
        check(&cannot, 1, 0, false);
        let words = after(&cannot).is_caught_up().unwrap_err();
        assert!(
            words.contains("v-2 cannot run here: Corrupt: words"),
            "{words}"
        );
        // What is tried again is no word about the version; what is unsound is one, to the next holder as well.
        assert_eq!(after(&cannot).unsound().count(), 0);
        let unsound = [(committed(&[2, 1]), 0), (Unsound(name(2), problem()), 1)];
        assert_eq!(after(&unsound).unsound().count(), 1);
        // A version that is not committed is nobody's trouble.
        let other = [(committed(&[1]), 0), (Unsound(name(9), problem()), 1)];
        assert_eq!(after(&other).unsound().count(), 0);
    }

    #[test]
    fn a_host_that_died_has_nothing_loaded() {
        let died = [(committed(&[2, 1]), 0), (Loaded(name(2)), 1), (HostDied, 2)];
        check(&died, 2, 0, false);
    }

    fn any_sight() -> impl Strategy<Value = Sight> {
        let number = 1..6_u8;
        let good = proptest::collection::btree_set(1..5_u8, 0..4);
        prop_oneof![
            good.prop_map(|good| {
                let good: Vec<u8> = good.into_iter().rev().collect();
                committed(&good)
            }),
            number.clone().prop_map(|it| Loaded(name(it))),
            number.clone().prop_map(|it| CannotRun(name(it), problem())),
            number.prop_map(|it| Unsound(name(it), problem())),
            Just(HostDied),
            Just(TrustChanged),
            Just(Tick),
        ]
    }

    proptest! {
        #[test]
        fn nothing_answers_that_was_not_committed_or_is_known_as_unsound(
            sights in proptest::collection::vec((any_sight(), 0..4_000_u64), 0..60)
        ) {
            let mut follower = Follower::default();
            let (mut now, mut ever, mut committed_at) = (0, std::collections::BTreeSet::new(), BTreeMap::new());
            for (sight, later) in sights {
                now += later;
                if let Committed(good) = &sight {
                    ever.extend(good.iter().map(|it| it.revision.clone()));
                }
                let unsound = match &sight {
                    Unsound(revision, _) => Some(revision.clone()),
                    _ => None,
                };
                let gap = now;
                follower = follower.see(sight, now);
                for version in follower.committed() {
                    committed_at.insert(version.revision.clone(), gap);
                }
                if let Some(active) = follower.serving().active {
                    prop_assert!(ever.contains(&active.revision));
                    prop_assert_ne!(&active.revision, &name(5));
                    prop_assert_ne!(Some(&active.revision), unsound.as_ref());
                    let since = committed_at.get(&active.revision).copied().unwrap_or_default();
                    prop_assert!(now - since < LINGER_MILLISECONDS + 4_000, "{} ms", now - since);
                }
            }
        }
    }
}
