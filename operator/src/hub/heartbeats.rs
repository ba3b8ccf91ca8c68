//! How long each cluster has been silent, by our own monotonic time.
//!
//! Owns when a heartbeat Lease last *changed*. What its `renewTime` says is never compared with a clock of
//! ours: clocks at the edge are wrong. Pure: time is handed in.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
use rimward_core::fleet::Connection;

/// Heartbeats by the name of their cluster.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    beats: BTreeMap<String, Beat>,
    grace: Duration,
}

#[derive(Clone, Debug)]
struct Beat {
    renewed: MicroTime,
    changed: Instant,
    /// It changed while we looked; a first sight alone proves nothing.
    lives: bool,
}

impl Heartbeats {
    /// Starts without knowledge. `grace` is how long a cluster may be silent.
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            beats: BTreeMap::new(),
            grace,
        }
    }

    /// Notes a Lease as it stands now. Says whether that is news to a plan: the first beat, or the first
    /// after a silence. A plain beat wakes nobody.
    pub(crate) fn note(&mut self, name: &str, renewed: Option<MicroTime>, now: Instant) -> bool {
        let Some(renewed) = renewed else {
            return self.beats.remove(name).is_some();
        };
        match self.beats.get_mut(name) {
            Some(beat) if beat.renewed == renewed => false,
            Some(beat) => {
                let news = !beat.lives || now.duration_since(beat.changed) >= self.grace;
                *beat = Beat {
                    renewed,
                    changed: now,
                    lives: true,
                };
                news
            }
            None => {
                let beat = Beat {
                    renewed,
                    changed: now,
                    lives: false,
                };
                self.beats.insert(name.to_owned(), beat);
                true
            }
        }
    }

    /// Forgets a Lease that is no more.
    pub(crate) fn forget(&mut self, name: &str) -> bool {
        self.beats.remove(name).is_some()
    }

    /// What a cluster's heartbeat says. `was_offline`: its status said so before we looked; it stays so
    /// until it beats, lest every restart of the hub take dead clusters for living ones.
    ///
    /// The age never exceeds the grace: how much longer a silence lasts changes no plan, and words that
    /// count seconds would be written again and again.
    pub(crate) fn connection(&self, name: &str, was_offline: bool, now: Instant) -> Connection {
        let Some(beat) = self.beats.get(name) else {
            return Connection::NeverJoined;
        };
        let age = if was_offline && !beat.lives {
            self.grace
        } else {
            now.duration_since(beat.changed).min(self.grace)
        };
        Connection::Beat {
            age_seconds: age.as_secs(),
        }
    }

    /// When the next cluster becomes silent for too long, if it does not beat.
    pub(crate) fn next_silence(&self, now: Instant) -> Option<Instant> {
        self.beats
            .values()
            .map(|beat| beat.changed + self.grace)
            .filter(|at| *at > now)
            .min()
    }
}

#[cfg(test)]
mod tests {
    use super::Heartbeats;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;
    use rimward_core::fleet::Connection;
    use std::time::{Duration, Instant};

    fn at(second: i64) -> Option<MicroTime> {
        Timestamp::from_second(second).ok().map(MicroTime)
    }

    fn beat(age_seconds: u64) -> Connection {
        Connection::Beat { age_seconds }
    }

    #[test]
    fn silence_is_counted_from_the_last_change_whatever_the_clock_of_the_edge_says() {
        let start = Instant::now();
        let after = |seconds| start + Duration::from_secs(seconds);
        let mut beats = Heartbeats::new(Duration::from_secs(300));
        assert!(beats.note("a", at(4_000_000_000), start));
        assert_eq!(beats.connection("a", false, after(10)), beat(10));
        assert!(
            !beats.note("a", at(4_000_000_000), after(20)),
            "nothing changed"
        );
        assert_eq!(beats.connection("a", false, after(20)), beat(20));
        // The clock of the edge was set back: a beat all the same.
        assert!(beats.note("a", at(5), after(30)));
        assert!(
            !beats.note("a", at(6), after(40)),
            "a plain beat wakes nobody"
        );
        assert_eq!(beats.connection("a", false, after(41)), beat(1));
        assert_eq!(beats.next_silence(after(41)), Some(after(340)));
        assert_eq!(beats.connection("a", false, after(9_999)), beat(300));
        assert!(beats.note("a", at(7), after(9_999)), "a return is news");
    }

    #[test]
    fn a_lease_made_beforehand_is_no_heartbeat() {
        let now = Instant::now();
        let mut beats = Heartbeats::new(Duration::from_secs(300));
        assert!(!beats.note("a", None, now));
        assert_eq!(beats.connection("a", false, now), Connection::NeverJoined);
    }

    #[test]
    fn a_cluster_that_was_offline_before_a_restart_stays_so_until_it_beats() {
        let now = Instant::now();
        let mut beats = Heartbeats::new(Duration::from_secs(300));
        beats.note("a", at(1), now);
        assert_eq!(beats.connection("a", true, now), beat(300));
        beats.note("a", at(2), now);
        assert_eq!(beats.connection("a", true, now), beat(0));
    }
}
