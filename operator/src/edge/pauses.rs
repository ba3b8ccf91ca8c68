//! When a write that was refused is tried again: object by object, after a pause that grows.
//!
//! Owns that one refused object keeps no other waiting. Pure: time and versions are handed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::pace::{Pace, random};

/// What a session writes.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Target {
    /// The mirror's spec and annotations.
    Mirror,
    /// The mirror's status.
    Status,
    /// The status on the hub.
    HubStatus,
    /// A node's spec.
    Node(String),
}

/// Pauses, by target. One that never failed, or that succeeded since, waits for nothing.
#[derive(Debug)]
pub(crate) struct Pauses {
    longest: Duration,
    failed: BTreeMap<Target, Failed>,
}

#[derive(Debug)]
struct Failed {
    pace: Pace,
    until: Instant,
    /// The version on which the write lost to another: once another is seen, there is nothing to wait for.
    lost_on: Option<u128>,
    /// Why it was refused, if it was.
    refused: Option<String>,
}

impl Pauses {
    /// Pauses that grow up to `longest`.
    pub(crate) const fn new(longest: Duration) -> Self {
        Self {
            longest,
            failed: BTreeMap::new(),
        }
    }

    /// Says whether a write may be tried, on the version `seen`.
    pub(crate) fn may_try(&self, target: &Target, seen: Option<u128>, now: Instant) -> bool {
        self.failed.get(target).is_none_or(|failed| {
            failed.until <= now || failed.lost_on.is_some_and(|lost_on| seen != Some(lost_on))
        })
    }

    /// Why a write was refused that may not be tried again yet.
    pub(crate) fn refused(&self, target: &Target, now: Instant) -> Option<&str> {
        let failed = self
            .failed
            .get(target)
            .filter(|failed| failed.until > now)?;
        failed.refused.as_deref()
    }

    /// Notes a failure; `lost_on` is the version on which it lost to another writer, `refused` the words of
    /// who refused it, if that is why.
    pub(crate) fn failed(
        &mut self,
        target: Target,
        lost_on: Option<u128>,
        refused: Option<String>,
        now: Instant,
    ) {
        let longest = self.longest;
        let failed = self.failed.entry(target).or_insert_with(|| Failed {
            pace: Pace::new(longest),
            until: now,
            lost_on: None,
            refused: None,
        });
        failed.until = now + failed.pace.failed(random());
        failed.lost_on = lost_on;
        failed.refused = refused;
    }

    /// Forgets a target's failures.
    pub(crate) fn succeeded(&mut self, target: &Target) {
        self.failed.remove(target);
    }

    /// How long until the next pause ends.
    pub(crate) fn next(&self, now: Instant) -> Option<Duration> {
        let ends = self.failed.values().map(|failed| failed.until);
        let left = ends.map(|until| until.saturating_duration_since(now));
        left.filter(|left| !left.is_zero()).min()
    }

    /// Drops nodes that are gone.
    pub(crate) fn keep(&mut self, exists: impl Fn(&str) -> bool) {
        self.failed.retain(|target, _| match target {
            Target::Node(name) => exists(name),
            Target::Mirror | Target::Status | Target::HubStatus => true,
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_object_waits_longer_each_time_and_keeps_no_other_waiting() {
        let now = Instant::now();
        let mut pauses = Pauses::new(Duration::from_secs(30));
        let (one, other) = (Target::Node("n1".into()), Target::Node("n2".into()));
        pauses.failed(one.clone(), None, None, now);
        let first = pauses.next(now).unwrap();
        for _ in 0..9 {
            pauses.failed(one.clone(), None, None, now);
        }
        assert!(pauses.next(now).unwrap() > first * 8);
        assert!(!pauses.may_try(&one, Some(1), now));
        assert!(pauses.may_try(&other, Some(1), now));
        assert!(pauses.may_try(&one, Some(1), now + Duration::from_secs(30)));
        pauses.succeeded(&one);
        assert!(pauses.may_try(&one, Some(1), now));
    }

    #[test]
    fn one_that_lost_to_another_writer_waits_for_what_that_one_wrote_only() {
        let now = Instant::now();
        let mut pauses = Pauses::new(Duration::from_secs(30));
        pauses.failed(Target::Mirror, Some(7), None, now);
        assert!(!pauses.may_try(&Target::Mirror, Some(7), now));
        assert!(pauses.may_try(&Target::Mirror, Some(8), now));
    }

    #[test]
    fn nodes_that_are_gone_are_forgotten() {
        let now = Instant::now();
        let mut pauses = Pauses::new(Duration::from_secs(30));
        pauses.failed(Target::Node("n1".into()), None, None, now);
        pauses.failed(Target::Status, None, None, now);
        pauses.keep(|_| false);
        assert_eq!(pauses.failed.len(), 1);
    }
}
