//! A latency histogram with a bounded relative error, mergeable by adding.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Sub-buckets per power of two: a value is known to within an eighth.
const SUB_BUCKETS_LOG2: u32 = 3;
const SUB_BUCKETS: u64 = 1 << SUB_BUCKETS_LOG2;
/// Index of the bucket of `u64::MAX`.
const INDEX_MAX: u16 = 495;

/// Counts of microseconds in log-linear buckets: exact below 8, then eight per power of two.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "Vec<(u16, u64)>", into = "Vec<(u16, u64)>")]
pub struct Histogram {
    /// Count per bucket index, empty ones left out.
    buckets: BTreeMap<u16, u64>,
}

/// Pairs on the wire: a map with numbers as keys does not survive in a tagged message.
impl From<Vec<(u16, u64)>> for Histogram {
    fn from(buckets: Vec<(u16, u64)>) -> Self {
        let mut histogram = Self::default();
        for (index, count) in buckets {
            histogram.add(index, count);
        }
        histogram
    }
}

impl From<Histogram> for Vec<(u16, u64)> {
    fn from(histogram: Histogram) -> Self {
        histogram.buckets().collect()
    }
}

impl Histogram {
    /// The bucket that holds `microseconds`.
    pub fn index(microseconds: u64) -> u16 {
        if microseconds < SUB_BUCKETS {
            return microseconds as u16;
        }
        let log2 = 63 - microseconds.leading_zeros();
        let shift = log2 - SUB_BUCKETS_LOG2;
        let within = (microseconds >> shift) - SUB_BUCKETS;
        ((shift + 1) as u64 * SUB_BUCKETS + within) as u16
    }

    /// The largest value that the bucket holds.
    pub fn upper_bound_microseconds(index: u16) -> u64 {
        let index = u64::from(index.min(INDEX_MAX));
        if index < SUB_BUCKETS {
            return index;
        }
        let shift = index / SUB_BUCKETS - 1;
        let within = index % SUB_BUCKETS + SUB_BUCKETS;
        ((u128::from(within) + 1) << shift)
            .saturating_sub(1)
            .min(u128::from(u64::MAX)) as u64
    }

    /// Adds `count` samples to one bucket.
    pub fn add(&mut self, index: u16, count: u64) {
        if count > 0 {
            let bucket = self.buckets.entry(index.min(INDEX_MAX)).or_default();
            *bucket = bucket.saturating_add(count);
        }
    }

    /// Adds one sample.
    pub fn record(&mut self, microseconds: u64) {
        self.add(Self::index(microseconds), 1);
    }

    /// The number of samples.
    pub fn count(&self) -> u64 {
        self.buckets
            .values()
            .fold(0, |sum, count| sum.saturating_add(*count))
    }

    /// Index and count of each bucket that is not empty, ascending.
    pub fn buckets(&self) -> impl Iterator<Item = (u16, u64)> + '_ {
        self.buckets.iter().map(|(index, count)| (*index, *count))
    }

    /// The samples in `self` that were not yet in `earlier`, a former state of the same histogram.
    pub fn since(&self, earlier: &Self) -> Self {
        let mut delta = Self::default();
        for (index, count) in self.buckets() {
            delta.add(
                index,
                count.saturating_sub(earlier.buckets.get(&index).copied().unwrap_or(0)),
            );
        }
        delta
    }

    /// The smallest bucket bound that at least `permille` of the samples do not exceed; `None`
    /// where there are no samples.
    pub fn quantile_microseconds(&self, permille: u32) -> Option<u64> {
        let count = self.count();
        if count == 0 {
            return None;
        }
        let rank = (u128::from(count) * u128::from(permille.min(1000)))
            .div_ceil(1000)
            .max(1);
        let mut seen = 0u128;
        for (index, count) in self.buckets() {
            seen += u128::from(count);
            if seen >= rank {
                return Some(Self::upper_bound_microseconds(index));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn a_bucket_holds_its_values_to_within_an_eighth(value in any::<u64>()) {
            let index = Histogram::index(value);
            prop_assert!(index <= INDEX_MAX);
            let upper = Histogram::upper_bound_microseconds(index);
            prop_assert!(upper >= value);
            prop_assert!(upper - value <= value / 8);
        }

        #[test]
        fn buckets_keep_the_order_of_values(a in any::<u64>(), b in any::<u64>()) {
            prop_assert_eq!(Histogram::index(a.min(b)) <= Histogram::index(a.max(b)), true);
        }
    }

    #[test]
    fn the_quantile_is_the_bound_that_enough_samples_do_not_exceed() {
        let mut histogram = Histogram::default();
        for value in 1..=7 {
            histogram.record(value);
        }
        histogram.record(1_000_000);
        assert_eq!(histogram.quantile_microseconds(500), Some(4));
        assert!(histogram.quantile_microseconds(990).unwrap() >= 1_000_000);
        assert_eq!(Histogram::default().quantile_microseconds(990), None);
    }

    #[test]
    fn since_leaves_only_new_samples() {
        let mut earlier = Histogram::default();
        earlier.record(5);
        let mut later = earlier.clone();
        later.record(5);
        later.record(900);
        assert_eq!(later.since(&earlier).count(), 2);
    }
}
