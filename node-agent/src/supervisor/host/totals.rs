//! What every version did since the agent started.
//!
//! Owns sums over hosts and loads: a slot's own counters begin anew with each, these never fall. Must never
//! judge: a trial has samples of its own.

use std::collections::BTreeMap;

use rimward_core::ids::RevisionName;

use crate::parse::Key;
use crate::proto::SlotStats;

/// Revisions of one deployment that are kept, those loaded last.
const REVISIONS_MAX: usize = 16;

/// Counters of one version.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Requests that it was asked to answer.
    pub requests: u64,
    /// Those that it failed, or refused alone.
    pub errors: u64,
    /// Those that were the client's mistake.
    pub client_errors: u64,
    /// Requests turned away unseen.
    pub rejected: u64,
    /// Sum of its latencies.
    pub latency_microseconds: u64,
}

impl Counts {
    fn add(&mut self, before: &SlotStats, now: &SlotStats) {
        let grow = |total: &mut u64, before: u64, now: u64| {
            *total = total.saturating_add(now.saturating_sub(before));
        };
        grow(&mut self.requests, before.requests, now.requests);
        grow(&mut self.errors, before.errors, now.errors);
        grow(
            &mut self.client_errors,
            before.client_errors,
            now.client_errors,
        );
        grow(&mut self.rejected, before.rejected, now.rejected);
        grow(
            &mut self.latency_microseconds,
            before.latency_sum_microseconds,
            now.latency_sum_microseconds,
        );
    }
}

/// Counters of every version of the deployments that are here.
#[derive(Debug, Default)]
pub(super) struct Totals(BTreeMap<Key, Vec<(RevisionName, Counts)>>);

impl Totals {
    /// A version can answer: its counters are there from now on, from zero where it is new.
    pub(super) fn loaded(&mut self, key: &Key, revision: &RevisionName) {
        let counts = self.take(key, revision);
        self.put(key, revision, counts);
    }

    /// Adds what one slot counted between two looks.
    pub(super) fn add(
        &mut self,
        key: &Key,
        revision: &RevisionName,
        before: &SlotStats,
        now: &SlotStats,
    ) {
        let versions = self.0.entry(key.clone()).or_default();
        if let Some((_, counts)) = versions.iter_mut().find(|(had, _)| had == revision) {
            counts.add(before, now);
            return;
        }
        let mut counts = Counts::default();
        counts.add(before, now);
        self.put(key, revision, counts);
    }

    /// The deployment is gone.
    pub(super) fn forget(&mut self, key: &Key) {
        self.0.remove(key);
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&Key, &RevisionName, Counts)> {
        self.0.iter().flat_map(|(key, versions)| {
            let versions = versions.iter();
            versions.map(move |(revision, counts)| (key, revision, *counts))
        })
    }

    fn take(&mut self, key: &Key, revision: &RevisionName) -> Counts {
        let versions = self.0.entry(key.clone()).or_default();
        match versions.iter().position(|(had, _)| had == revision) {
            Some(index) => versions.remove(index).1,
            None => Counts::default(),
        }
    }

    fn put(&mut self, key: &Key, revision: &RevisionName, counts: Counts) {
        let versions = self.0.entry(key.clone()).or_default();
        versions.push((revision.clone(), counts));
        let over = versions.len().saturating_sub(REVISIONS_MAX);
        versions.drain(..over);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(requests: u64) -> SlotStats {
        SlotStats {
            requests,
            errors: requests / 2,
            latency_sum_microseconds: requests * 10,
            ..SlotStats::default()
        }
    }

    fn key() -> Key {
        "shop/digits".parse().unwrap()
    }

    fn requests(totals: &Totals) -> Vec<(String, u64)> {
        totals
            .iter()
            .map(|(_, revision, counts)| (revision.to_string(), counts.requests))
            .collect()
    }

    #[test]
    fn a_version_loaded_again_goes_on_counting_where_it_was() {
        let (mut totals, v1) = (Totals::default(), "v1".parse().unwrap());
        totals.loaded(&key(), &v1);
        assert_eq!(requests(&totals), [("v1".to_owned(), 0)]);
        totals.add(&key(), &v1, &SlotStats::default(), &stats(10));
        totals.add(&key(), &v1, &stats(10), &stats(14));
        // Another host, or the same one again: its slot begins at zero.
        totals.loaded(&key(), &v1);
        totals.add(&key(), &v1, &SlotStats::default(), &stats(2));
        let (_, _, counts) = totals.iter().next().unwrap();
        assert_eq!((counts.requests, counts.errors), (16, 8));
        assert_eq!(counts.latency_microseconds, 160);
    }

    #[test]
    fn the_revisions_loaded_last_are_kept_and_no_more() {
        let mut totals = Totals::default();
        let name = |index: usize| format!("v{index}").parse().unwrap();
        totals.loaded(&key(), &name(0));
        for index in 1..REVISIONS_MAX {
            totals.loaded(&key(), &name(index));
        }
        totals.loaded(&key(), &name(0));
        totals.loaded(&key(), &name(REVISIONS_MAX));
        let kept = requests(&totals);
        assert_eq!(kept.len(), REVISIONS_MAX);
        assert!(kept.iter().any(|(revision, _)| revision == "v0"));
        assert!(kept.iter().all(|(revision, _)| revision != "v1"));
        totals.forget(&key());
        assert_eq!(requests(&totals), []);
    }
}
