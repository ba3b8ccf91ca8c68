//! When a large part of the fleet falls silent at once, the hub doubts its own ears.
//!
//! Owns that judgement, as kube's node lifecycle makes it for zones. Pure: it is told who was heard and who
//! fell silent.

use std::collections::BTreeMap;

use crate::ids::ClusterName;
use crate::time::Timestamp;

/// How much of the fleet is a large part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DoubtLimits {
    /// Percent of the clusters that were heard before.
    pub percent: u32,
    /// Clusters, at least.
    pub clusters_min: u32,
}

impl Default for DoubtLimits {
    fn default() -> Self {
        Self {
            percent: 30,
            clusters_min: 5,
        }
    }
}

/// A large part of the fleet fell silent within one grace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Doubt {
    /// Clusters that fell silent, and are not back.
    pub silent: u32,
    /// Clusters that were heard before.
    pub of: u32,
}

/// Who fell silent lately.
#[derive(Clone, Debug, Default)]
pub(super) struct Ears {
    limits: DoubtLimits,
    fallen: BTreeMap<ClusterName, Timestamp>,
    doubts: bool,
}

impl Ears {
    pub(super) fn new(limits: DoubtLimits) -> Self {
        Self {
            limits,
            ..Self::default()
        }
    }

    pub(super) fn fell_silent(&mut self, cluster: &ClusterName, now: Timestamp) {
        self.fallen.entry(cluster.clone()).or_insert(now);
    }

    /// It is back, or gone from the fleet.
    pub(super) fn forget(&mut self, cluster: &ClusterName) {
        self.fallen.remove(cluster);
    }

    /// Whether it is one of those that fell silent lately.
    pub(super) fn has_fallen(&self, cluster: &ClusterName) -> bool {
        self.fallen.contains_key(cluster)
    }

    /// Judges. `heard` counts the clusters that are heard now.
    ///
    /// A doubt that began lasts until enough of those who began it are back: that a grace has passed since
    /// says nothing.
    pub(super) fn judge(
        &mut self,
        heard: usize,
        grace_seconds: u32,
        now: Timestamp,
    ) -> Option<Doubt> {
        if !self.doubts {
            self.fallen
                .retain(|_, at| now.seconds_since(*at) <= u64::from(grace_seconds));
        }
        let silent = self.fallen.len();
        let of = heard.saturating_add(silent);
        self.doubts = self.is_large(silent, of);
        let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
        self.doubts.then(|| Doubt {
            silent: count(silent),
            of: count(of),
        })
    }

    /// Whether a leader that has just begun should first listen: as large a part of the fleet was not heard by
    /// it yet as would make it doubt, and the one before may have.
    pub(super) fn listens(&self, heard: usize, unheard: usize) -> bool {
        self.is_large(unheard, heard.saturating_add(unheard))
    }

    fn is_large(&self, part: usize, of: usize) -> bool {
        let percent = usize::try_from(self.limits.percent).unwrap_or(usize::MAX);
        let least = usize::try_from(self.limits.clusters_min).unwrap_or(usize::MAX);
        percent > 0
            && part >= least.max(1)
            && part.saturating_mul(100) >= of.saturating_mul(percent)
    }
}
