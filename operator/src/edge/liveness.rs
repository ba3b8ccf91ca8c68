//! Whether a node's agent is alive, from its Lease, by this process's monotonic time.
//!
//! Owns when a `renewTime` last *changed*. Must never compare a Lease's time with any clock: clocks at
//! the edge are wrong.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// The last change seen of each node's Lease.
#[derive(Debug)]
pub(crate) struct Liveness {
    silence: Duration,
    beats: BTreeMap<String, Beat>,
}

#[derive(Debug)]
struct Beat {
    /// `renewTime` as the Lease had it; none when the node has no Lease, or one without a time.
    renewed: Option<String>,
    changed: Instant,
}

impl Liveness {
    /// Nodes whose Lease did not change for `silence` are silent.
    pub(crate) const fn new(silence: Duration) -> Self {
        Self {
            silence,
            beats: BTreeMap::new(),
        }
    }

    /// Notes what a node's Lease says now. Returns whether the node was unknown or silent and is
    /// alive again, which is worth a plan.
    ///
    /// The first sight counts as a change: after a restart every node gets one silence of grace.
    pub(crate) fn saw(&mut self, node: &str, renewed: Option<String>, now: Instant) -> bool {
        match self.beats.get_mut(node) {
            None => {
                let changed = now;
                self.beats
                    .insert(node.to_owned(), Beat { renewed, changed });
                true
            }
            Some(beat) if beat.renewed == renewed => false,
            Some(beat) => {
                let was_silent = now.saturating_duration_since(beat.changed) >= self.silence;
                *beat = Beat {
                    renewed,
                    changed: now,
                };
                was_silent
            }
        }
    }

    /// Says whether a node is alive. A node without a Lease is given one silence from its first sight.
    pub(crate) fn alive(&mut self, node: &str, now: Instant) -> bool {
        let silence = self.silence;
        let beat = self.beats.entry(node.to_owned()).or_insert(Beat {
            renewed: None,
            changed: now,
        });
        now.saturating_duration_since(beat.changed) < silence
    }

    /// Drops what is known of nodes that are not there any more, so that names cannot pile up.
    pub(crate) fn keep(&mut self, known: impl Fn(&str) -> bool) {
        self.beats.retain(|node, _| known(node));
    }

    /// How long until the next node that is alive now would be silent.
    pub(crate) fn next_silence(&self, now: Instant) -> Option<Duration> {
        self.beats
            .values()
            .filter_map(|beat| {
                (beat.changed + self.silence)
                    .checked_duration_since(now)
                    .filter(|left| !left.is_zero())
            })
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn at(seconds: u32) -> Option<String> {
        Some(format!("2001-01-01T00:00:{seconds:02}.000000Z"))
    }

    #[test]
    fn a_node_is_alive_as_long_as_its_lease_changes_whatever_time_it_names() {
        let start = Instant::now();
        let mut liveness = Liveness::new(SECOND * 10);
        assert!(liveness.saw("n1", at(30), start));
        // The device's clock was set back: still a change, still alive.
        assert!(!liveness.saw("n1", at(3), start + SECOND * 9));
        assert!(liveness.alive("n1", start + SECOND * 18));
        assert!(!liveness.alive("n1", start + SECOND * 19));
    }

    #[test]
    fn the_same_time_seen_again_is_no_sign_of_life_and_a_new_one_is_worth_a_plan() {
        let start = Instant::now();
        let mut liveness = Liveness::new(SECOND * 10);
        liveness.saw("n1", at(1), start);
        assert!(!liveness.saw("n1", at(1), start + SECOND * 9));
        assert!(!liveness.alive("n1", start + SECOND * 10));
        assert!(liveness.saw("n1", at(2), start + SECOND * 11));
        assert!(liveness.alive("n1", start + SECOND * 12));
    }

    #[test]
    fn a_node_without_a_lease_is_silent_after_one_silence() {
        let start = Instant::now();
        let mut liveness = Liveness::new(SECOND * 10);
        assert!(liveness.alive("n1", start));
        assert_eq!(liveness.next_silence(start + SECOND * 4), Some(SECOND * 6));
        assert!(!liveness.alive("n1", start + SECOND * 10));
        assert_eq!(liveness.next_silence(start + SECOND * 10), None);
    }

    #[test]
    fn nodes_that_are_gone_are_forgotten() {
        let start = Instant::now();
        let mut liveness = Liveness::new(SECOND);
        liveness.saw("n1", at(1), start);
        liveness.saw("n2", at(1), start);
        liveness.keep(|node| node == "n2");
        assert_eq!(liveness.beats.len(), 1);
    }
}
