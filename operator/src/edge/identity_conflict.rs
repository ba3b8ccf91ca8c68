//! When two clusters report under one name: who writes over whom, and how soon.
//!
//! Owns the waiting. Pure: time is handed in. Must never judge which of the two is the right one: the hub does.

use std::time::{Duration, Instant};

/// Two clusters under one name: each lets the other's report stand for a resync, so that the hub sees both and
/// they do not answer each other without end.
#[derive(Debug, Default)]
pub(crate) struct IdentityConflict {
    /// Another's report was seen before.
    pub(crate) lost: bool,
    /// Since when another's report stands.
    since: Option<Instant>,
}

impl IdentityConflict {
    /// Whether to wait before writing over what stands. The first time there is no wait: a cluster that was made
    /// anew is to be known at once.
    pub(crate) fn yields(&mut self, others: bool, resync: Duration, now: Instant) -> bool {
        if !others {
            self.since = None;
            return false;
        }
        let patience = if self.lost { resync } else { Duration::ZERO };
        self.lost = true;
        let since = *self.since.get_or_insert(now);
        now.saturating_duration_since(since) < patience
    }
}

#[cfg(test)]
mod tests {
    use super::IdentityConflict;
    use std::time::{Duration, Instant};

    #[test]
    fn anothers_report_stands_for_a_resync_but_not_the_first_one() {
        let (start, resync) = (Instant::now(), Duration::from_secs(60));
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut conflict = IdentityConflict::default();
        let mut check = |others, seconds| conflict.yields(others, resync, at(seconds));
        assert!(!check(false, 0));
        assert!(!check(true, 1), "the first time");
        assert!(!check(false, 2));
        assert!(check(true, 10));
        assert!(check(true, 69));
        assert!(!check(true, 70));
        assert!(!check(true, 71), "a write that failed is tried again");
        assert!(!check(false, 72));
        assert!(check(true, 73), "each anew");
    }
}
