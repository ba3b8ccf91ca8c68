//! Whether a node's agent is heard, from its Lease, by this process's monotonic time.
//!
//! Owns when a `renewTime` last *changed*, and how long nobody listened. Must never compare a Lease's time
//! with any clock: clocks at the edge are wrong. Silence is a statement about the node only while somebody
//! listens: time in which the watch was away, or this process did not run, is nobody's silence.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use rimward_core::cluster::Hearing;

/// The last change seen of each node's Lease.
#[derive(Debug)]
pub(crate) struct Liveness {
    silence: Duration,
    beats: BTreeMap<String, Beat>,
    /// When somebody last looked here.
    attended: Instant,
    /// Since when nothing can be heard.
    deaf: Option<Instant>,
    /// It was quiet, and that was told.
    asked: bool,
}

#[derive(Debug)]
struct Beat {
    /// `renewTime` as the Lease had it; none when the node has no Lease, or one without a time.
    renewed: Option<String>,
    /// When that was first seen.
    since: Instant,
    /// It was seen to change.
    changed: bool,
}

/// How a Lease came to be seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Sight {
    /// In a list: it may be from before anybody listened.
    Listed,
    /// By the watch, as it changed or was made.
    Watched,
}

impl Liveness {
    /// Nodes whose Lease did not change for `silence` are silent.
    pub(crate) const fn new(silence: Duration, now: Instant) -> Self {
        Self {
            silence,
            beats: BTreeMap::new(),
            attended: now,
            deaf: None,
            asked: false,
        }
    }

    /// Notes what a node's Lease says now. Returns whether the node was not heard and is now, or is new:
    /// both are worth a plan. The first sight in a list proves nothing.
    pub(crate) fn saw(
        &mut self,
        node: &str,
        renewed: Option<String>,
        sight: Sight,
        now: Instant,
    ) -> bool {
        self.attend(now);
        let before = self.beats.get(node);
        if before.is_some_and(|beat| beat.renewed == renewed) {
            return false;
        }
        let heard = before.is_some_and(|beat| self.judge(beat, now) == Hearing::Heard);
        let changed = before.is_some_and(|beat| beat.renewed.is_some())
            || sight == Sight::Watched && renewed.is_some();
        let beat = Beat {
            renewed,
            since: now,
            changed,
        };
        self.beats.insert(node.to_owned(), beat);
        self.asked &= !changed;
        !heard
    }

    /// Says whether a node is heard. One without a Lease is unheard for one silence from its first sight.
    pub(crate) fn hearing(&mut self, node: &str, now: Instant) -> Hearing {
        self.attend(now);
        let new = Beat {
            renewed: None,
            since: now,
            changed: false,
        };
        if !self.beats.contains_key(node) {
            self.beats.insert(node.to_owned(), new);
        }
        self.beats
            .get(node)
            .map_or(Hearing::Unheard, |beat| self.judge(beat, now))
    }

    fn judge(&self, beat: &Beat, now: Instant) -> Hearing {
        let until = self.deaf.unwrap_or(now);
        if until.saturating_duration_since(beat.since) >= self.silence {
            Hearing::Silent
        } else if self.deaf.is_none() && beat.changed {
            Hearing::Heard
        } else {
            Hearing::Unheard
        }
    }

    /// The watch broke off: nothing is heard from now on, and nobody falls silent by it.
    pub(crate) fn deaf(&mut self, now: Instant) {
        self.attend(now);
        self.deaf.get_or_insert(now);
    }

    /// The watch answers (again).
    pub(crate) fn listens(&mut self, now: Instant) {
        self.attend(now);
        if let Some(since) = self.deaf.take() {
            self.forgive(since, now);
        }
    }

    /// To be called often: a process that did not run for a while did not listen either.
    pub(crate) fn attend(&mut self, now: Instant) {
        let since = std::mem::replace(&mut self.attended, now);
        if self.deaf.is_none() && now.saturating_duration_since(since) >= self.silence / 2 {
            self.forgive(since, now);
        }
    }

    /// Takes the time from `since` to `now` out of everybody's silence. After a whole silence nothing is
    /// known any more: what changed in it may be long over.
    fn forgive(&mut self, since: Instant, now: Instant) {
        let gap = now.saturating_duration_since(since);
        let silence = self.silence;
        if gap >= silence {
            self.beats.clear();
            return;
        }
        for beat in self.beats.values_mut() {
            if since.saturating_duration_since(beat.since) < silence {
                beat.since = (beat.since + gap).min(now);
            }
        }
    }

    /// Says, once, that none of those who are heard was for half a silence: a watch on a connection that
    /// is half open looks just so, and is worth beginning anew before anybody is called silent.
    pub(crate) fn quiet(&mut self, now: Instant) -> bool {
        self.attend(now);
        let heard = |beat: &&Beat| self.judge(beat, now) == Hearing::Heard;
        let mut heard = self.beats.values().filter(heard).peekable();
        let quiet = heard.peek().is_some()
            && heard.all(|beat| now.saturating_duration_since(beat.since) >= self.silence / 2);
        quiet && !std::mem::replace(&mut self.asked, true)
    }

    /// Drops what is known of nodes that are not there any more, so that names cannot pile up.
    pub(crate) fn keep(&mut self, known: impl Fn(&str) -> bool) {
        self.beats.retain(|node, _| known(node));
    }

    /// How long until the next node would be silent.
    pub(crate) fn next_silence(&self, now: Instant) -> Option<Duration> {
        self.beats
            .values()
            .filter_map(|beat| {
                (beat.since + self.silence)
                    .checked_duration_since(now)
                    .filter(|left| !left.is_zero())
            })
            .min()
    }
}

#[cfg(test)]
#[path = "liveness_tests.rs"]
mod tests;
