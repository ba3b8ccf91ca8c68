//! Growing waits, one for each object: kube's own retry waits do not grow per object.
//!
//! Owns when an object may be tried again. Must never read the clock itself or sleep: time is handed in.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::{Duration, Instant};

/// The first wait.
const FIRST: Duration = Duration::from_secs(1);
/// The longest wait. People who repair a registry should not wait longer than this for the operator.
const LONGEST: Duration = Duration::from_secs(120);
/// 2^7 seconds exceed [`LONGEST`]; more doublings change nothing.
const DOUBLINGS_MAX: u32 = 7;

/// Waits per key. A key that never failed, or that succeeded since, waits for nothing.
#[derive(Debug)]
pub(crate) struct Backoffs<K> {
    failed: BTreeMap<K, Failed>,
}

#[derive(Clone, Copy, Debug)]
struct Failed {
    times: u32,
    not_before: Instant,
    /// The end of its wait was told.
    told: bool,
}

impl<K> Default for Backoffs<K> {
    fn default() -> Self {
        Self {
            failed: BTreeMap::new(),
        }
    }
}

impl<K: Ord + Hash> Backoffs<K> {
    /// Notes a failure and returns how long to wait: doubled each time, at most two minutes, up to a
    /// quarter less by a share that differs from key to key, so that many objects that failed together
    /// do not all come back together.
    pub(crate) fn failed(&mut self, key: K, now: Instant) -> Duration {
        let times = self.failed.get(&key).map_or(0, |failed| failed.times);
        let full = (FIRST * 2_u32.pow(times.min(DOUBLINGS_MAX))).min(LONGEST);
        let mut hasher = DefaultHasher::new();
        (&key, times).hash(&mut hasher);
        let share = u32::try_from(hasher.finish() % 256).unwrap_or(0);
        let wait = full - full * share / 1024;
        let not_before = now + wait;
        self.failed.insert(
            key,
            Failed {
                times: times.saturating_add(1),
                not_before,
                told: false,
            },
        );
        wait
    }

    /// Forgets a key's failures.
    pub(crate) fn succeeded(&mut self, key: &K) {
        self.failed.remove(key);
    }

    /// Says whether the key may be tried at `now`.
    pub(crate) fn may_try(&self, key: &K, now: Instant) -> bool {
        self.failed
            .get(key)
            .is_none_or(|failed| failed.not_before <= now)
    }

    /// When the key may be tried, if it failed.
    pub(crate) fn not_before(&self, key: &K) -> Option<Instant> {
        self.failed.get(key).map(|failed| failed.not_before)
    }

    /// Says whether the key failed and did not succeed since.
    pub(crate) fn has_failed(&self, key: &K) -> bool {
        self.failed.contains_key(key)
    }

    /// Keys whose wait ended since this was last asked.
    pub(crate) fn ended(&mut self, now: Instant) -> Vec<K>
    where
        K: Clone,
    {
        let failed = self.failed.iter_mut();
        let ended = failed.filter(|(_, failed)| !failed.told && failed.not_before <= now);
        ended
            .map(|(key, failed)| {
                failed.told = true;
                key.clone()
            })
            .collect()
    }

    /// Forgets keys that nobody tried again for so long after their wait.
    pub(crate) fn forget_idle(&mut self, now: Instant, idle: Duration) {
        self.failed
            .retain(|_, failed| now.saturating_duration_since(failed.not_before) < idle);
    }

    /// When the next waiting key may be tried.
    pub(crate) fn next(&self, now: Instant) -> Option<Instant> {
        self.failed
            .values()
            .map(|failed| failed.not_before)
            .filter(|at| *at > now)
            .min()
    }

    /// Forgets keys of objects that are no more.
    pub(crate) fn retain(&mut self, mut exists: impl FnMut(&K) -> bool) {
        self.failed.retain(|key, _| exists(key));
    }
}

#[cfg(test)]
mod tests {
    use super::{Backoffs, LONGEST};
    use std::time::{Duration, Instant};

    #[test]
    fn waits_grow_per_object_up_to_a_bound_and_end_with_success() {
        let mut backoffs = Backoffs::default();
        let now = Instant::now();
        let waits: Vec<_> = (0..12).map(|_| backoffs.failed("a", now)).collect();
        assert!(waits[0] <= Duration::from_secs(1));
        assert!(waits[3] > waits[0] * 4, "{waits:?}");
        assert!(waits.iter().all(|wait| *wait <= LONGEST));
        assert!(waits[11] > LONGEST / 2);
        assert!(!backoffs.may_try(&"a", now));
        assert!(backoffs.may_try(&"b", now), "others do not wait");
        assert_eq!(backoffs.next(now), Some(now + waits[11]));
        backoffs.succeeded(&"a");
        assert!(backoffs.may_try(&"a", now));
        assert_eq!(backoffs.next(now), None);
    }

    #[test]
    fn the_end_of_each_wait_is_told_once_and_idle_ones_are_forgotten() {
        let mut backoffs = Backoffs::default();
        let now = Instant::now();
        backoffs.failed("a", now);
        assert_eq!(backoffs.ended(now), [""; 0]);
        let later = now + Duration::from_secs(1);
        assert_eq!(backoffs.ended(later), ["a"]);
        assert_eq!(backoffs.ended(later), [""; 0]);
        backoffs.failed("a", later);
        assert_eq!(backoffs.ended(later + Duration::from_secs(2)), ["a"]);
        backoffs.forget_idle(later + Duration::from_secs(9), Duration::from_secs(60));
        assert!(backoffs.has_failed(&"a"));
        backoffs.forget_idle(later + Duration::from_secs(99), Duration::from_secs(60));
        assert!(!backoffs.has_failed(&"a"));
    }

    #[test]
    fn objects_that_are_gone_are_forgotten() {
        let mut backoffs = Backoffs::default();
        let now = Instant::now();
        backoffs.failed(1, now);
        backoffs.failed(2, now);
        backoffs.retain(|key| *key == 2);
        assert!(backoffs.may_try(&1, now));
        assert!(!backoffs.may_try(&2, now));
    }
}
