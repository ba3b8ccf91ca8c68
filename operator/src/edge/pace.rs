//! How long to wait before trying again, for one link: growing, jittered, bounded.
//!
//! Owns no clock and no sleep. (The hub's `backoff.rs` keeps waits for many objects; this is one.)

use std::time::Duration;

/// The first wait.
const FIRST: Duration = Duration::from_millis(250);

/// Waits of one link.
#[derive(Clone, Debug)]
pub(crate) struct Pace {
    longest: Duration,
    failures: u32,
}

impl Pace {
    /// Waits that grow up to `longest`.
    pub(crate) const fn new(longest: Duration) -> Self {
        Self {
            longest,
            failures: 0,
        }
    }

    /// How long to wait after one more failure. `random` is spread over a whole `u64`; it takes up to
    /// half off, so that a thousand clusters do not come back to their hub in one instant.
    pub(crate) fn failed(&mut self, random: u64) -> Duration {
        let full = FIRST
            .saturating_mul(2_u32.saturating_pow(self.failures.min(16)))
            .min(self.longest);
        self.failures = self.failures.saturating_add(1);
        let share = u32::try_from(random % 512).unwrap_or(0);
        full - full.saturating_mul(share) / 1024
    }

    /// The link works again.
    pub(crate) const fn succeeded(&mut self) {
        self.failures = 0;
    }
}

/// A number that differs from call to call and from process to process; for jitter only.
pub(crate) fn random() -> u64 {
    use std::hash::{BuildHasher as _, Hasher as _};
    std::hash::RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_grow_to_their_bound_and_start_again_after_a_success() {
        let longest = Duration::from_secs(30);
        let mut pace = Pace::new(longest);
        let waits: Vec<_> = (0..40).map(|_| pace.failed(0)).collect();
        assert_eq!(waits[0], FIRST);
        assert!(waits.is_sorted());
        assert_eq!(waits[39], longest);
        assert!(pace.failed(511) > longest / 2 - Duration::from_millis(1));
        pace.succeeded();
        assert_eq!(pace.failed(0), FIRST);
    }
}
