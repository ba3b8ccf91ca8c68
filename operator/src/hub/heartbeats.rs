//! How long each cluster has been silent, by our own monotonic time.
//!
//! Owns when a heartbeat Lease last *changed*. What its `renewTime` says is never compared with a clock of
//! ours: clocks at the edge are wrong. Pure: time is handed in.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// What is known of a cluster's heartbeat.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ConnectionState {
    /// It has no Lease, or one that was made beforehand and never renewed.
    NeverJoined,
    /// It has a Lease that did not change since we first saw it: a first sight proves nothing.
    Unheard {
        /// How long we have been listening.
        waited_seconds: u64,
    },
    /// Unheard, and its status already said that it is offline: it stays so until it beats, lest every restart of
    /// the hub take dead clusters for living ones.
    Silent,
    /// Its Lease changed while we looked.
    Heard {
        /// How long ago.
        seconds_ago: u64,
    },
}

/// Heartbeats by the name of their cluster.
#[derive(Debug)]
pub(crate) struct Heartbeats {
    beats: BTreeMap<Arc<str>, Beat>,
    /// When each that is not silent becomes so, if it does not beat.
    silences: BTreeSet<(Instant, Arc<str>)>,
    grace: Duration,
    /// The shortest silence that matters to anyone: policies have graces of their own.
    patience: Duration,
}

#[derive(Clone, Debug)]
struct Beat {
    renewed: MicroTime,
    changed: Instant,
    /// It changed while we looked; a first sight alone proves nothing.
    lives: bool,
    /// Its silence was told.
    silent: bool,
}

impl Heartbeats {
    /// Starts without knowledge. `grace` is the silence after which a cluster's own status says that it is offline.
    pub(crate) fn new(grace: Duration) -> Self {
        Self {
            beats: BTreeMap::new(),
            silences: BTreeSet::new(),
            grace,
            patience: grace,
        }
    }

    /// Notes a Lease as it stands now. Says whether that is news to a plan: the first sight, the first beat, or the
    /// first after a silence. A plain beat wakes nobody.
    pub(crate) fn note(&mut self, name: &str, renewed: Option<MicroTime>, now: Instant) -> bool {
        let Some(renewed) = renewed else {
            return self.forget(name);
        };
        let before = self.beats.get(name);
        if before.is_some_and(|beat| beat.renewed == renewed) {
            return false;
        }
        let news = before.is_none_or(|beat| {
            !beat.lives || beat.silent || now.duration_since(beat.changed) >= self.patience
        });
        let lives = before.is_some();
        let name: Arc<str> = match self.beats.get_key_value(name) {
            Some((name, beat)) => {
                self.silences
                    .remove(&(beat.changed + self.grace, name.clone()));
                name.clone()
            }
            None => name.into(),
        };
        self.silences.insert((now + self.grace, name.clone()));
        let beat = Beat {
            renewed,
            changed: now,
            lives,
            silent: false,
        };
        self.beats.insert(name, beat);
        news
    }

    /// Forgets a Lease that is no more.
    pub(crate) fn forget(&mut self, name: &str) -> bool {
        let Some((name, beat)) = self.beats.remove_entry(name) else {
            return false;
        };
        self.silences.remove(&(beat.changed + self.grace, name));
        true
    }

    /// Forgets Leases that a new list does not name; returns their names.
    pub(crate) fn keep(&mut self, named: &BTreeSet<String>) -> Vec<String> {
        let gone = self.beats.keys().filter(|name| !named.contains(&***name));
        let gone: Vec<String> = gone.map(|name| (**name).to_owned()).collect();
        for name in &gone {
            self.forget(name);
        }
        gone
    }

    /// When a cluster's Lease last changed, or was first seen.
    pub(crate) fn changed(&self, name: &str) -> Option<Instant> {
        self.beats.get(name).map(|beat| beat.changed)
    }

    /// What a cluster's heartbeat says. `was_offline`: its status said so.
    pub(crate) fn state(&self, name: &str, was_offline: bool, now: Instant) -> ConnectionState {
        let beat = self.beats.get(name);
        beat.map_or(ConnectionState::NeverJoined, |beat| {
            beat.state(was_offline, now)
        })
    }

    /// Names of clusters that became silent since this was last asked.
    pub(crate) fn fallen_silent(&mut self, now: Instant) -> Vec<String> {
        let mut fallen = Vec::new();
        while let Some((at, name)) = self.silences.pop_first() {
            if at > now {
                self.silences.insert((at, name));
                break;
            }
            if let Some(beat) = self.beats.get_mut(&name) {
                beat.silent = true;
            }
            fallen.push((*name).to_owned());
        }
        fallen
    }

    /// When the next cluster becomes silent for too long, if it does not beat.
    pub(crate) fn next_silence(&self) -> Option<Instant> {
        self.silences.first().map(|(at, _)| *at)
    }

    /// Sets the shortest silence that matters to anyone: the first beat after it is news. When such a silence begins
    /// the planner knows by itself.
    pub(crate) const fn set_patience(&mut self, patience: Duration) {
        self.patience = patience;
    }
}

impl Beat {
    fn state(&self, was_offline: bool, now: Instant) -> ConnectionState {
        let seconds = now.duration_since(self.changed).as_secs();
        if self.lives {
            ConnectionState::Heard {
                seconds_ago: seconds,
            }
        } else if was_offline {
            ConnectionState::Silent
        } else {
            ConnectionState::Unheard {
                waited_seconds: seconds,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::ConnectionState::{Heard, NeverJoined, Silent, Unheard};
    use super::Heartbeats;
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    use k8s_openapi::jiff::Timestamp;
    use std::time::{Duration, Instant};

    fn at(second: i64) -> Option<MicroTime> {
        Timestamp::from_second(second).ok().map(MicroTime)
    }

    fn beats() -> (Heartbeats, impl Fn(u64) -> Instant) {
        let start = Instant::now();
        let after = move |seconds| start + Duration::from_secs(seconds);
        (Heartbeats::new(Duration::from_secs(300)), after)
    }

    #[test]
    fn silence_is_counted_from_the_last_change_whatever_the_clock_of_the_edge_says() {
        let (mut beats, after) = beats();
        assert!(beats.note("a", at(4_000_000_000), after(0)));
        assert!(
            !beats.note("a", at(4_000_000_000), after(20)),
            "nothing changed"
        );
        assert_eq!(
            beats.state("a", false, after(20)),
            Unheard { waited_seconds: 20 }
        );
        // The clock of the edge was set back: a beat all the same, and the first that we hear.
        assert!(beats.note("a", at(5), after(30)));
        assert!(
            !beats.note("a", at(6), after(40)),
            "a plain beat wakes nobody"
        );
        assert_eq!(beats.state("a", false, after(41)), Heard { seconds_ago: 1 });
        assert_eq!(beats.next_silence(), Some(after(340)));
        assert_eq!(
            beats.state("a", false, after(9_999)),
            Heard { seconds_ago: 9_959 }
        );
        assert!(beats.note("a", at(7), after(9_999)), "a return is news");
    }

    #[test]
    fn a_lease_made_beforehand_is_no_heartbeat() {
        let (mut beats, after) = beats();
        assert!(!beats.note("a", None, after(0)));
        assert_eq!(beats.state("a", false, after(0)), NeverJoined);
    }

    #[test]
    fn a_cluster_that_was_offline_before_a_restart_stays_so_until_it_beats() {
        let (mut beats, after) = beats();
        beats.note("a", at(1), after(0));
        assert_eq!(beats.state("a", true, after(7)), Silent);
        beats.note("a", at(2), after(8));
        assert_eq!(beats.state("a", true, after(9)), Heard { seconds_ago: 1 });
    }

    #[test]
    fn each_silence_and_each_return_is_told_once() {
        let (mut beats, after) = beats();
        for name in ["a", "b", "c"] {
            beats.note(name, at(1), after(0));
        }
        beats.note("b", at(2), after(100));
        assert!(beats.forget("c"));
        assert_eq!(beats.fallen_silent(after(299)), [""; 0]);
        assert_eq!(beats.fallen_silent(after(300)), ["a"]);
        assert_eq!(beats.fallen_silent(after(300)), [""; 0], "told");
        assert_eq!(beats.next_silence(), Some(after(400)));
        assert_eq!(beats.fallen_silent(after(400)), ["b"]);
        assert_eq!(beats.next_silence(), None);
        assert!(beats.note("b", at(3), after(401)), "it returned");
        assert!(!beats.note("b", at(4), after(402)));
        assert_eq!(beats.state("a", true, after(402)), Silent);
        assert_eq!(
            beats.state("b", false, after(402)),
            Heard { seconds_ago: 0 }
        );
    }

    #[test]
    fn leases_that_a_new_list_does_not_name_are_gone() {
        let (mut beats, after) = beats();
        for name in ["a", "b"] {
            beats.note(name, at(1), after(0));
        }
        assert_eq!(beats.keep(&["b".to_owned()].into()), ["a"]);
        assert_eq!(beats.state("a", false, after(1)), NeverJoined);
        assert_eq!(beats.fallen_silent(after(999)), ["b"]);
    }

    #[test]
    fn a_return_is_news_as_soon_as_a_policy_may_have_acted_on_the_silence() {
        let (mut beats, after) = beats();
        for second in 1..=2 {
            beats.note("a", at(second), after(second.unsigned_abs()));
        }
        assert!(!beats.note("a", at(3), after(100)), "by the hub's own 300");
        beats.set_patience(Duration::from_secs(60));
        assert!(!beats.note("a", at(4), after(159)));
        assert!(beats.note("a", at(5), after(219)));
        // What its own status says of silence goes by the hub's grace all the same.
        assert_eq!(beats.fallen_silent(after(518)), [""; 0]);
        assert_eq!(beats.fallen_silent(after(519)), ["a"]);
        beats.forget("a");
        assert_eq!(beats.next_silence(), None, "nothing is left behind");
    }

    #[test]
    fn ten_thousand_clusters_are_asked_for_in_no_time() {
        let (mut beats, after) = beats();
        let names: Vec<_> = (0..10_000).map(|nth| format!("cluster-{nth}")).collect();
        for second in 0..3 {
            for name in &names {
                beats.note(name, at(second), after(second.unsigned_abs()));
            }
        }
        let began = Instant::now();
        let heard = names
            .iter()
            .map(|name| beats.state(name, false, after(5)))
            .filter(|it| *it == Heard { seconds_ago: 3 });
        assert_eq!(heard.count(), 10_000);
        assert_eq!(beats.fallen_silent(after(200)).len(), 0);
        // Some milliseconds when nothing is optimised; far from a second.
        assert!(
            began.elapsed() < Duration::from_secs(1),
            "{:?}",
            began.elapsed()
        );
    }
}
