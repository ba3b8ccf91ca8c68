//! Health verdicts from samples: counts that merge by sums, and the rule that judges them.
//!
//! Owns what "good enough" means for a version in trial. Must never read a clock or decide what
//! happens next: [`crate::node`] and the rollout planner act on the verdict.

use serde::{Deserialize, Serialize};

/// Sub-buckets per octave of the latency histogram; 8 keeps the error of a quantile under 12.5 %.
const BUCKETS_PER_OCTAVE: u64 = 8;
const OCTAVE_BITS: u32 = BUCKETS_PER_OCTAVE.ilog2();
/// Octaves above the first, linear one: the last bucket starts above 71 minutes.
const OCTAVES: usize = 30;
const BUCKETS_MAX: usize = (OCTAVES + 1) * BUCKETS_PER_OCTAVE as usize;
/// How many requests an early failing verdict imagines when the policy names no minimum: without
/// it the first failed request of a trial would be a ratio of one.
const EARLY_SAMPLES_MIN: u64 = 20;

/// A bounded log-linear histogram of latencies, in microseconds.
///
/// Two histograms merge by adding their buckets, so nodes and hosts sum without losing anything.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Histogram {
    /// Counts per bucket; trailing zero buckets are left out.
    buckets: Vec<u64>,
}

impl Histogram {
    /// Counts one latency. Values past the last bucket are counted in it.
    pub fn record(&mut self, latency_microseconds: u64) {
        self.add_bucket(bucket_of(latency_microseconds), 1);
    }

    /// Adds `count` latencies to one bucket, as another process counted them. An index past the
    /// last bucket counts as the last.
    pub fn add_bucket(&mut self, index: u16, count: u64) {
        let index = usize::from(index).min(BUCKETS_MAX - 1);
        if self.buckets.len() <= index {
            self.buckets.resize(index + 1, 0);
        }
        if let Some(bucket) = self.buckets.get_mut(index) {
            *bucket = bucket.saturating_add(count);
        }
    }

    /// Adds the counts of another histogram. Buckets past the last one are ignored, so that a
    /// hostile peer cannot make this one grow.
    pub fn merge(&mut self, other: &Self) {
        let len = self.buckets.len().max(other.buckets.len()).min(BUCKETS_MAX);
        self.buckets.resize(len, 0);
        for (mine, theirs) in self.buckets.iter_mut().zip(&other.buckets) {
            *mine = mine.saturating_add(*theirs);
        }
    }

    /// How many latencies were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.buckets
            .iter()
            .fold(0, |sum, bucket| sum.saturating_add(*bucket))
    }

    /// The upper edge, in microseconds, of the bucket that holds the nearest-rank quantile; `None`
    /// when nothing was counted.
    #[must_use]
    pub fn quantile_microseconds(&self, permille: u16) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (u128::from(count) * u128::from(permille.min(1000)))
            .div_ceil(1000)
            .max(1);
        let mut seen = 0_u128;
        self.buckets
            .iter()
            .position(|bucket| {
                seen += u128::from(*bucket);
                seen >= rank
            })
            .map(upper_edge_of)
    }
}

fn bucket_of(value: u64) -> u16 {
    if value < BUCKETS_PER_OCTAVE {
        return u16::try_from(value).unwrap_or(0);
    }
    let octave = value.ilog2() - OCTAVE_BITS;
    let within = (value >> octave) - BUCKETS_PER_OCTAVE;
    let index = u64::from(octave + 1) * BUCKETS_PER_OCTAVE + within;
    u16::try_from(index).unwrap_or(u16::MAX)
}

/// The largest value that falls into a bucket.
fn upper_edge_of(index: usize) -> u64 {
    let index = index as u64;
    if index < BUCKETS_PER_OCTAVE {
        return index;
    }
    let octave = index / BUCKETS_PER_OCTAVE - 1;
    let within = index % BUCKETS_PER_OCTAVE;
    ((BUCKETS_PER_OCTAVE + within + 1) << octave) - 1
}

/// What a version answered since it was started: sums of what [`crate::sample::weigh`] says, so that they
/// merge. A client's mistake is in neither; a request that only the previous version answered is in both.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Samples {
    /// Requests that say something about the version.
    pub requests: u64,
    /// Those of them that it failed, or refused alone.
    pub errors: u64,
    /// Latencies of those that it answered.
    pub latency: Histogram,
}

impl Samples {
    /// Adds the sums of another host, node or cluster.
    pub fn merge(&mut self, other: &Self) {
        self.requests = self.requests.saturating_add(other.requests);
        self.errors = self.errors.saturating_add(other.errors);
        self.latency.merge(&other.latency);
    }

    /// The 99th percentile of the latency, in microseconds.
    #[must_use]
    pub fn latency_p99_microseconds(&self) -> Option<u64> {
        self.latency.quantile_microseconds(990)
    }
}

/// What a version must show in trial.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Health {
    /// How long a candidate is watched before it may pass.
    pub probation_seconds: u32,
    /// How many samples there must be. Zero: surviving its probation is enough.
    pub samples_min: u32,
    /// The largest share of failed requests; `None`: not judged.
    pub errors_permille_max: Option<u16>,
    /// The largest 99th percentile of the latency; `None`: not judged.
    pub latency_p99_milliseconds_max: Option<u32>,
}

/// A judgement of one version in trial.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verdict {
    /// Its probation is not over.
    Watching,
    /// Its probation is over, but there are too few samples: silence is not success. The trial
    /// goes on until enough came; the rollout's progress deadline bounds the wait from above.
    TooFewSamples,
    /// It showed what the policy asks for.
    Passed,
    /// It did not, or cannot any more.
    Failed(Failure),
}

/// What a failed version missed, with both numbers.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Failure {
    /// Too many requests failed.
    #[error("{errors} of {requests} requests failed, at most {permille_max} in 1000 may")]
    Errors {
        /// Samples that are errors.
        errors: u64,
        /// All samples.
        requests: u64,
        /// The policy's limit.
        permille_max: u16,
    },
    /// It answered too slowly.
    #[error(
        "the 99th percentile of the latency is {p99_microseconds} us, at most {milliseconds_max} ms allowed"
    )]
    Latency {
        /// Measured, upper edge of the bucket.
        p99_microseconds: u64,
        /// The policy's limit.
        milliseconds_max: u32,
    },
}

/// Judges a version in trial by what it answered and by how long it has been watched.
///
/// Errors fail it early: as soon as their number is over the limit even if every request still
/// missing from the minimum were answered well. Latency is judged at the end of probation only,
/// since the first requests of a fresh instance are its slowest.
#[must_use]
pub fn judge(health: &Health, samples: &Samples, watched_milliseconds: u64) -> Verdict {
    let over = watched_milliseconds >= u64::from(health.probation_seconds) * 1000;
    let enough = samples.requests >= u64::from(health.samples_min);
    if let Some(permille_max) = health.errors_permille_max {
        let expected = match (over && enough, health.samples_min) {
            (true, _) => samples.requests,
            (false, 0) => samples.requests.max(EARLY_SAMPLES_MIN),
            (false, min) => samples.requests.max(u64::from(min)),
        };
        let share = u128::from(samples.errors) * 1000;
        if share > u128::from(expected) * u128::from(permille_max) {
            return Verdict::Failed(Failure::Errors {
                errors: samples.errors,
                requests: samples.requests,
                permille_max,
            });
        }
    }
    if !over {
        return Verdict::Watching;
    }
    if !enough {
        return Verdict::TooFewSamples;
    }
    match (
        health.latency_p99_milliseconds_max,
        samples.latency_p99_microseconds(),
    ) {
        (Some(milliseconds_max), Some(p99)) if p99 > u64::from(milliseconds_max) * 1000 => {
            Verdict::Failed(Failure::Latency {
                p99_microseconds: p99,
                milliseconds_max,
            })
        }
        (Some(_) | None, Some(_) | None) => Verdict::Passed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn samples(requests: u64, errors: u64, latency_microseconds: u64) -> Samples {
        let mut latency = Histogram::default();
        for _ in errors..requests {
            latency.record(latency_microseconds);
        }
        Samples {
            requests,
            errors,
            latency,
        }
    }

    fn health() -> Health {
        Health {
            probation_seconds: 10,
            samples_min: 50,
            errors_permille_max: Some(20),
            latency_p99_milliseconds_max: Some(100),
        }
    }

    fn fails_by_errors(verdict: &Verdict) -> bool {
        matches!(verdict, Verdict::Failed(Failure::Errors { .. }))
    }

    #[test]
    fn silence_is_not_success() {
        let verdict = judge(&health(), &Samples::default(), 60_000);
        assert_eq!(verdict, Verdict::TooFewSamples);
        let verdict = judge(&health(), &samples(49, 0, 1000), 60_000);
        assert_eq!(verdict, Verdict::TooFewSamples);
    }

    #[test]
    fn without_a_minimum_a_silent_version_passes_when_its_probation_is_over() {
        let health = Health {
            samples_min: 0,
            ..health()
        };
        assert_eq!(
            judge(&health, &Samples::default(), 9_999),
            Verdict::Watching
        );
        assert_eq!(judge(&health, &Samples::default(), 10_000), Verdict::Passed);
    }

    #[test]
    fn one_error_in_the_first_request_does_not_fail_a_trial_early() {
        let lenient = Health {
            samples_min: 0,
            errors_permille_max: Some(50),
            ..health()
        };
        assert_eq!(judge(&lenient, &samples(1, 1, 0), 0), Verdict::Watching);
        assert!(fails_by_errors(&judge(&lenient, &samples(2, 2, 0), 0)));
        assert!(fails_by_errors(&judge(&lenient, &samples(1, 1, 0), 10_000)));
    }

    #[test]
    fn a_trial_fails_as_soon_as_the_missing_samples_cannot_save_it() {
        assert_eq!(judge(&health(), &samples(2, 1, 1000), 0), Verdict::Watching);
        assert!(fails_by_errors(&judge(&health(), &samples(2, 2, 1000), 0)));
    }

    #[test]
    fn errors_at_the_limit_pass_and_one_more_fails() {
        assert_eq!(
            judge(&health(), &samples(100, 2, 10), 10_000),
            Verdict::Passed
        );
        assert!(fails_by_errors(&judge(
            &health(),
            &samples(100, 3, 10),
            10_000
        )));
    }

    #[test]
    fn a_slow_version_fails_at_the_end_of_probation_only() {
        let slow = samples(60, 0, 200_000);
        assert_eq!(judge(&health(), &slow, 9_999), Verdict::Watching);
        let verdict = judge(&health(), &slow, 10_000);
        let Verdict::Failed(failure) = verdict else {
            panic!("{verdict:?}");
        };
        assert!(failure.to_string().contains("at most 100 ms"), "{failure}");
    }

    #[test]
    fn the_largest_latency_is_counted_in_a_bounded_histogram() {
        let mut histogram = Histogram::default();
        histogram.record(u64::MAX);
        assert_eq!(histogram.count(), 1);
        assert!(histogram.buckets.len() <= BUCKETS_MAX);
    }

    #[test]
    fn a_histogram_longer_than_ours_does_not_make_ours_grow() {
        let hostile = Histogram {
            buckets: vec![1; BUCKETS_MAX + 5],
        };
        let mut ours = Histogram::default();
        ours.merge(&hostile);
        assert_eq!(ours.buckets.len(), BUCKETS_MAX);
    }

    proptest! {
        #[test]
        fn a_quantile_is_never_below_the_value_and_at_most_an_eighth_above(value in 0_u64..4_000_000_000) {
            let mut histogram = Histogram::default();
            histogram.record(value);
            let p99 = histogram.quantile_microseconds(990).unwrap();
            prop_assert!(p99 >= value && p99 <= value + value / 8, "{p99} for {value}");
        }

        #[test]
        fn merging_is_the_same_as_counting_together(
            left in prop::collection::vec(0_u64..10_000_000, 0..50),
            right in prop::collection::vec(0_u64..10_000_000, 0..50),
        ) {
            let count = |values: &[u64]| {
                let mut histogram = Histogram::default();
                values.iter().for_each(|value| histogram.record(*value));
                histogram
            };
            let mut merged = count(&left);
            merged.merge(&count(&right));
            prop_assert_eq!(merged, count(&[left, right].concat()));
        }
    }
}
