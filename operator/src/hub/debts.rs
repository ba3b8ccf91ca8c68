//! What is not known of writes, and when one that failed may be tried again.
//!
//! Owns unknown outcomes, object by object: a write that timed out may have been taken, so whatever it would give
//! away counts as given until a read or a later write settles it. Pure: time and versions are handed in. Must never
//! make anybody wait.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::apply::{Outcome, WRITE_SECONDS_MAX};
use crate::backoff::Backoffs;
use crate::objects::ObjectKey;

/// So long after a write began no API server takes it any more: 60 s (its `--request-timeout`) after it got it, which
/// was while we waited for the answer. A read that was begun later and shows the version from before tells that
/// the write was lost.
const TAKEN_WITHIN: Duration = Duration::from_secs(60 + WRITE_SECONDS_MAX);
/// The first wait before an object is asked for, since the watch will mostly tell.
const LOOK_FIRST: Duration = Duration::from_secs(2);
/// The longest wait before an object is asked for again.
const LOOK_LONGEST: Duration = Duration::from_secs(60);
/// Writes of one object of which nothing is known. No further one is tried before they are settled.
const WRITES_MAX: usize = 8;
/// A failure that nobody tried to mend for so long is forgotten.
const FORGET: Duration = Duration::from_secs(600);

/// Writes of one object of which nobody knows whether they were taken.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Unsettled {
    /// How many there are. The version that was planned on stands if none was taken.
    pub(crate) writes: usize,
    /// The newest version that any of them was based on; none for an object that was to be made.
    based_on: Option<u128>,
    /// When the last of them began.
    asked: Instant,
}

/// An object that is to be asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Look {
    pub(crate) key: ObjectKey,
    /// The version that our own write left and that the watch did not show yet.
    pub(crate) unshown: Option<u128>,
}

/// The memory of all that.
#[derive(Debug, Default)]
pub(crate) struct Debts(Mutex<Inner>);

#[derive(Debug, Default)]
struct Inner {
    unsettled: BTreeMap<ObjectKey, Unsettled>,
    backoffs: Backoffs<ObjectKey>,
    /// The version that was seen when a write lost: once another is seen, it may be tried at once.
    lost_on: BTreeMap<ObjectKey, Option<u128>>,
    /// When an object is asked for next, and how long after the last time that is.
    looks: BTreeMap<ObjectKey, (Instant, Duration)>,
}

/// A write that is under way.
pub(crate) struct UnderWay<'a> {
    debts: &'a Debts,
    key: &'a ObjectKey,
    based_on: Option<u128>,
    asked: Instant,
    ended: bool,
}

impl Debts {
    /// Says whether a write may be tried. `seen`: the version that the caches show.
    pub(crate) fn may_write(&self, key: &ObjectKey, seen: Option<u128>, now: Instant) -> bool {
        let mut inner = self.lock();
        inner.settle(key, seen);
        if inner
            .unsettled
            .get(key)
            .is_some_and(|it| it.writes >= WRITES_MAX)
        {
            return false;
        }
        let moved = inner
            .lost_on
            .get(key)
            .is_some_and(|lost_on| *lost_on != seen);
        moved || inner.backoffs.may_try(key, now)
    }

    /// A write begins. One that is dropped before [`UnderWay::end`] is one of which nobody knows.
    pub(crate) fn begin<'a>(
        &'a self,
        key: &'a ObjectKey,
        based_on: Option<u128>,
        asked: Instant,
    ) -> UnderWay<'a> {
        UnderWay {
            debts: self,
            key,
            based_on,
            asked,
            ended: false,
        }
    }

    /// What may have been written, if nobody knows; `seen`: the version that the caches show.
    pub(crate) fn unsettled(&self, key: &ObjectKey, seen: Option<u128>) -> Option<Unsettled> {
        let mut inner = self.lock();
        inner.settle(key, seen);
        inner.unsettled.get(key).copied()
    }

    /// Objects whose pause ended, or that became settled by what the caches show, since this was last asked.
    pub(crate) fn ended(
        &self,
        now: Instant,
        seen: impl Fn(&ObjectKey) -> Option<u128>,
    ) -> Vec<ObjectKey> {
        let mut inner = self.lock();
        let mut ended = inner.backoffs.ended(now);
        let unsettled: Vec<ObjectKey> = inner.unsettled.keys().cloned().collect();
        ended.extend(
            unsettled
                .into_iter()
                .filter(|key| inner.settle(key, seen(key))),
        );
        inner.backoffs.forget_idle(now, FORGET);
        let Inner {
            lost_on, backoffs, ..
        } = &mut *inner;
        lost_on.retain(|key, _| backoffs.has_failed(key));
        ended
    }

    /// Objects that it is time to ask for: those of which something is not known, and `unshown`.
    pub(crate) fn due(&self, unshown: Vec<(ObjectKey, u128)>, now: Instant) -> Vec<Look> {
        let mut inner = self.lock();
        let Inner {
            unsettled, looks, ..
        } = &mut *inner;
        let unshown: BTreeMap<_, _> = unshown.into_iter().collect();
        looks.retain(|key, _| unsettled.contains_key(key) || unshown.contains_key(key));
        let mut due = Vec::new();
        for key in unsettled.keys().chain(unshown.keys()) {
            let (at, wait) = looks
                .entry(key.clone())
                .or_insert((now + LOOK_FIRST, LOOK_FIRST));
            if *at > now {
                continue;
            }
            *wait = (*wait * 2).min(LOOK_LONGEST);
            *at = now + *wait;
            // From then on one look settles it.
            let telling = unsettled.get(key).map(|it| it.asked + TAKEN_WITHIN);
            if let Some(telling) = telling.filter(|telling| *telling > now) {
                *at = telling.min(*at);
            }
            due.push(Look {
                key: key.clone(),
                unshown: unshown.get(key).copied(),
            });
        }
        due
    }

    /// A read that was begun at `asked` showed an object in `version`; none when it is not there. Says whether that
    /// settled anything.
    pub(crate) fn looked(&self, key: &ObjectKey, version: Option<u128>, asked: Instant) -> bool {
        let mut inner = self.lock();
        let settled = inner.unsettled.get(key).is_some_and(|unsettled| {
            unsettled.is_taken(version) || asked >= unsettled.asked + TAKEN_WITHIN
        });
        if settled {
            inner.unsettled.remove(key);
        }
        settled
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Unsettled {
    /// Whether `version` tells that no write is open any more: all of them were based on an older one, and none
    /// of those can be taken now. An object that is gone takes none; one that was to be made is there.
    fn is_taken(&self, version: Option<u128>) -> bool {
        match (self.based_on, version) {
            (Some(based_on), Some(version)) => version > based_on,
            (Some(_), None) | (None, Some(_)) => true,
            (None, None) => false,
        }
    }
}

impl Inner {
    fn settle(&mut self, key: &ObjectKey, seen: Option<u128>) -> bool {
        let settled = self.unsettled.get(key).is_some_and(|it| it.is_taken(seen));
        if settled {
            self.unsettled.remove(key);
        }
        settled
    }

    fn give_up(&mut self, key: &ObjectKey, based_on: Option<u128>, asked: Instant) {
        let unsettled = self.unsettled.entry(key.clone()).or_insert(Unsettled {
            writes: 0,
            based_on,
            asked,
        });
        unsettled.based_on = unsettled.based_on.max(based_on);
        unsettled.asked = unsettled.asked.max(asked);
        unsettled.writes += 1;
        // What was looked at before tells nothing of this one.
        self.looks.remove(key);
    }
}

impl UnderWay<'_> {
    /// Notes what became of it; returns how long this object's next write has to wait.
    pub(crate) fn end(mut self, outcome: &Outcome, seen: Option<u128>, now: Instant) -> Duration {
        let mut inner = self.debts.lock();
        self.ended = true;
        match outcome {
            Outcome::Done(_) => {
                // Whatever was based on an older version can never be taken now.
                inner.unsettled.remove(self.key);
                inner.backoffs.succeeded(self.key);
                inner.lost_on.remove(self.key);
                return Duration::ZERO;
            }
            Outcome::Unknown(_) => {
                inner.lost_on.remove(self.key);
                inner.give_up(self.key, self.based_on, self.asked);
            }
            Outcome::Conflict => {
                inner.lost_on.insert(self.key.clone(), seen);
            }
            Outcome::Refused(_) | Outcome::Paused => {
                inner.lost_on.remove(self.key);
            }
        }
        inner.backoffs.failed(self.key.clone(), now)
    }
}

impl Drop for UnderWay<'_> {
    fn drop(&mut self) {
        if !self.ended {
            let mut inner = self.debts.lock();
            inner.give_up(self.key, self.based_on, self.asked);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::{Debts, Look, TAKEN_WITHIN, WRITES_MAX};
    use crate::hub::apply::{Outcome, Stands};
    use crate::metrics::Kind;
    use crate::objects::ObjectKey;

    const SECOND: Duration = Duration::from_secs(1);

    fn key(name: &str) -> ObjectKey {
        ObjectKey {
            kind: Kind::ClusterAssignment,
            namespace: None,
            name: name.to_owned(),
        }
    }

    fn unknown() -> Outcome {
        Outcome::Unknown("no answer".to_owned())
    }

    /// One write of `a`, based on a version, that ends like this.
    fn write(debts: &Debts, based_on: Option<u128>, outcome: &Outcome, at: Instant) {
        let _ = debts
            .begin(&key("a"), based_on, at)
            .end(outcome, based_on, at);
    }

    /// A write on version 5 of which nobody knows.
    fn open() -> (Debts, Instant) {
        let (debts, start) = (Debts::default(), Instant::now());
        write(&debts, Some(5), &unknown(), start);
        (debts, start)
    }

    #[test]
    fn a_write_of_which_nobody_knows_is_held_until_something_newer_is_seen() {
        let (debts, _) = open();
        let unsettled = debts.unsettled(&key("a"), Some(5)).unwrap();
        assert_eq!(unsettled.writes, 1);
        assert!(debts.unsettled(&key("b"), Some(5)).is_none());
        assert!(
            debts.unsettled(&key("a"), Some(4)).is_some(),
            "a cache that lags"
        );
        assert!(debts.unsettled(&key("a"), Some(6)).is_none());
        assert!(debts.unsettled(&key("a"), Some(5)).is_none(), "for good");
    }

    #[test]
    fn an_object_that_is_gone_takes_no_write_and_one_that_is_there_was_made() {
        let (debts, start) = open();
        assert!(debts.unsettled(&key("a"), None).is_none());
        write(&debts, None, &unknown(), start);
        assert!(debts.unsettled(&key("a"), None).is_some());
        assert!(debts.unsettled(&key("a"), Some(1)).is_none());
    }

    #[test]
    fn a_write_that_succeeds_settles_those_before_it_and_one_that_fails_does_not() {
        let (debts, start) = open();
        for failed in [Outcome::Conflict, Outcome::Refused("no".to_owned())] {
            write(&debts, Some(5), &failed, start);
            let unsettled = debts.unsettled(&key("a"), Some(5)).unwrap();
            assert_eq!(unsettled.writes, 1);
        }
        write(&debts, Some(5), &Outcome::Done(Stands::default()), start);
        assert!(debts.unsettled(&key("a"), Some(5)).is_none());
    }

    #[test]
    fn a_read_that_shows_the_version_from_before_tells_only_when_no_server_can_take_the_write_any_more()
     {
        let (debts, start) = open();
        let early = start + TAKEN_WITHIN - SECOND;
        assert!(!debts.looked(&key("a"), Some(5), early));
        assert!(debts.unsettled(&key("a"), Some(5)).is_some());
        assert!(debts.looked(&key("a"), Some(5), start + TAKEN_WITHIN));
        assert!(debts.unsettled(&key("a"), Some(5)).is_none());
        let (debts, start) = open();
        assert!(
            debts.looked(&key("a"), Some(6), start + SECOND),
            "it was taken, or lost to another"
        );
    }

    #[test]
    fn a_write_that_is_dropped_half_way_is_one_of_which_nobody_knows() {
        let (debts, key) = (Debts::default(), key("a"));
        drop(debts.begin(&key, Some(5), Instant::now()));
        assert!(debts.unsettled(&key, Some(5)).is_some());
    }

    #[test]
    fn an_object_is_asked_for_at_growing_intervals_and_once_when_the_answer_tells() {
        let (debts, start) = open();
        let look = |unshown| Look {
            key: key("a"),
            unshown,
        };
        let mut asked = Vec::new();
        for seconds in 0..=200 {
            let now = start + SECOND * seconds;
            if debts.due(Vec::new(), now) == [look(None)] {
                asked.push(seconds);
                if debts.looked(&key("a"), Some(5), now) {
                    break;
                }
            }
        }
        assert_eq!(asked, [2, 6, 14, 30, 62, 75]);
        assert_eq!(debts.due(Vec::new(), start), [], "settled");
        let unshown = vec![(key("a"), 9)];
        assert_eq!(debts.due(unshown.clone(), start), []);
        assert_eq!(debts.due(unshown, start + SECOND * 2), [look(Some(9))]);
    }

    #[test]
    fn a_refused_object_waits_longer_each_time_and_no_other_waits_for_it() {
        let (debts, start) = (Debts::default(), Instant::now());
        let refused = Outcome::Refused("no".to_owned());
        write(&debts, Some(5), &refused, start);
        assert!(!debts.may_write(&key("a"), Some(5), start));
        assert!(
            !debts.may_write(&key("a"), Some(6), start),
            "a report mends no refusal"
        );
        assert!(debts.may_write(&key("b"), Some(5), start));
        let later = start + SECOND;
        assert_eq!(
            debts.ended(later, |_| Some(5)),
            [key("a")],
            "the loop is woken"
        );
        assert_eq!(debts.ended(later, |_| Some(5)), [], "once");
        assert!(debts.may_write(&key("a"), Some(5), later));
        for _ in 0..9 {
            write(&debts, Some(5), &refused, later);
        }
        assert!(!debts.may_write(&key("a"), Some(5), later + SECOND * 60));
        assert_eq!(debts.ended(later + SECOND * 120, |_| Some(5)), [key("a")]);
    }

    #[test]
    fn a_write_that_lost_is_tried_at_once_on_another_version_and_later_on_the_same() {
        let (debts, now) = (Debts::default(), Instant::now());
        write(&debts, Some(5), &Outcome::Conflict, now);
        assert!(
            !debts.may_write(&key("a"), Some(5), now),
            "it would lose again"
        );
        assert!(debts.may_write(&key("a"), Some(6), now));
        assert!(debts.may_write(&key("a"), Some(5), now + SECOND));
    }

    #[test]
    fn there_is_a_bound_on_what_may_be() {
        let (debts, now) = (Debts::default(), Instant::now());
        let later = now + SECOND * 999;
        for _ in 0..WRITES_MAX {
            assert!(debts.may_write(&key("a"), Some(5), later));
            write(&debts, Some(5), &unknown(), now);
        }
        assert!(!debts.may_write(&key("a"), Some(5), later));
        assert!(debts.may_write(&key("a"), Some(6), later));
    }
}
