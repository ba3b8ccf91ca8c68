//! A host's counters as samples of a trial.
//!
//! Owns which counters a verdict is made of. Must never judge.

use rimward_core::verdict::{Histogram, Samples};

use crate::proto::SlotStats;

/// What a slot's counters say more than they did before.
#[must_use]
pub(super) fn between(before: &SlotStats, now: &SlotStats) -> Samples {
    let mut latency = Histogram::default();
    for (index, count) in now.latency.since(&before.latency).buckets() {
        latency.add_bucket(index, count);
    }
    Samples {
        requests: judged(now).saturating_sub(judged(before)),
        errors: now.errors.saturating_sub(before.errors),
        latency,
    }
}

/// Requests that say something about the version: the client's mistakes do not.
fn judged(stats: &SlotStats) -> u64 {
    stats.requests.saturating_sub(stats.client_errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(requests: u64, client_errors: u64, errors: u64) -> SlotStats {
        SlotStats {
            requests,
            client_errors,
            errors,
            ..SlotStats::default()
        }
    }

    #[test]
    fn what_was_the_clients_mistake_is_no_sample() {
        let samples = between(&stats(10, 4, 1), &stats(110, 94, 3));
        assert_eq!((samples.requests, samples.errors), (10, 2));
        let samples = between(&SlotStats::default(), &stats(50, 50, 0));
        assert_eq!((samples.requests, samples.errors), (0, 0));
    }

    #[test]
    fn latencies_are_those_since_the_last_look() {
        let (mut before, mut now) = (stats(1, 0, 0), stats(3, 0, 0));
        before.latency.record(100_000);
        now.latency.record(100_000);
        now.latency.record(50);
        now.latency.record(50);
        let samples = between(&before, &now);
        assert_eq!(samples.latency.count(), 2);
        assert_eq!(samples.latency_p99_microseconds(), Some(51));
    }
}
