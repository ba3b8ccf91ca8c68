//! Who is heard, who fell silent, and when time alone may change something.
//!
//! Owns the planner's sense of time. A plain beat of a cluster that is heard costs one look-up and touches nothing.

use std::collections::BTreeSet;

use super::planner::{Fleet, Reach};
use super::rollout::Rollout;
use super::types::{ConnectionState, Hearing};
use crate::ids::ClusterName;
use crate::time::Timestamp;

impl Fleet {
    pub(super) fn watch_grace(&mut self, grace_seconds: u32) {
        if self.graces.insert(grace_seconds) {
            for (name, ledger) in &self.ledgers {
                if let Some(at) = ledger.connection.turns_silent_at(grace_seconds) {
                    self.silences.insert((at, name.clone(), grace_seconds));
                }
            }
        }
    }

    /// Notes a new cluster's connection.
    pub(super) fn listen(&mut self, name: &ClusterName, connection: ConnectionState) {
        for grace in &self.graces {
            if let Some(at) = connection.turns_silent_at(*grace) {
                self.silences.insert((at, name.clone(), *grace));
            }
        }
        self.sort(name, connection);
    }

    /// Notes who is heard, and who is not yet.
    pub(super) fn sort(&mut self, name: &ClusterName, connection: ConnectionState) {
        match connection {
            // Being told of an old beat again is no sign of life.
            ConnectionState::Heard { .. }
                if connection.hearing(self.doubting_seconds, self.now) == Hearing::Heard =>
            {
                self.unheard.remove(name);
                if !self.heard.contains(name) {
                    self.heard.insert(name.clone());
                }
                self.ears.forget(name);
            }
            ConnectionState::Heard { .. } => {}
            ConnectionState::Unheard { .. } => {
                self.unheard.insert(name.clone());
            }
            ConnectionState::Silent | ConnectionState::NeverJoined => {
                self.unheard.remove(name);
                self.heard.remove(name);
            }
        }
    }

    /// Takes in what a cluster's heartbeat says. A plain beat of one that is heard touches nothing.
    pub fn hear(&mut self, name: &ClusterName, connection: ConnectionState) {
        let Some(ledger) = self.ledgers.get_mut(name) else {
            return;
        };
        let before = std::mem::replace(&mut ledger.connection, connection);
        if before == connection {
            return;
        }
        self.rest_bakes(name, before, connection);
        let now = self.now;
        let mut turned: Vec<u32> = Vec::new();
        for grace in &self.graces {
            let (waited, due) = (
                before.turns_silent_at(*grace),
                connection.turns_silent_at(*grace),
            );
            // A silence is waited for already, and comes no sooner: it is looked at when that is due.
            let waits = waited.is_some_and(|at| at > now && due.is_none_or(|due| at <= due));
            if let Some(at) = due.filter(|_| !waits) {
                self.silences.insert((at, name.clone(), *grace));
            }
            if before.hearing(*grace, now) != connection.hearing(*grace, now) {
                turned.push(*grace);
            }
        }
        for grace in turned {
            self.turned(name, grace);
        }
        self.sort(name, connection);
    }

    /// A silence that began and ended between two plans was one all the same: nothing baked meanwhile.
    fn rest_bakes(&mut self, name: &ClusterName, before: ConnectionState, now: ConnectionState) {
        let (ConnectionState::Heard { at: last }, ConnectionState::Heard { at }) = (before, now)
        else {
            return;
        };
        let seconds = at.seconds_since(last);
        if seconds < u64::from(self.doubting_seconds) {
            return;
        }
        for rollout in self.rollouts.values_mut() {
            if seconds >= u64::from(rollout.grace_seconds()) && rollout.targets.contains_key(name) {
                let since = &mut rollout.clock.baking_since;
                *since = since.map(|since| since.max(at));
            }
        }
    }

    /// A cluster sounds differently by that grace.
    pub(super) fn turned(&mut self, name: &ClusterName, grace_seconds: u32) {
        let mut touched = Vec::new();
        for (key, rollout) in &mut self.rollouts {
            if rollout.grace_seconds() == grace_seconds && rollout.targets.contains_key(name) {
                rollout.redivide |= rollout.membership_follows_hearing();
                touched.push(key.clone());
            }
        }
        for key in touched {
            self.touch(&key, name);
        }
    }

    /// The shortest grace: by it the hub doubts its ears, before any policy acts on the silence.
    pub(super) fn find_doubting_grace(&mut self) {
        let policies = self.rollouts.values().map(Rollout::grace_seconds);
        let graces: BTreeSet<u32> = policies.chain([self.grace_seconds]).collect();
        self.doubting_seconds = graces.first().copied().unwrap_or(self.grace_seconds);
        // What nobody goes by any more is not waited for, and waited for anew when somebody does again.
        self.graces = graces;
    }

    /// Lets time pass: who fell silent, what is due.
    pub(super) fn pass_time(&mut self, now: Timestamp) {
        // A clock that goes back would make silences longer than they are.
        self.now = self.now.max(now);
        let doubting = self.doubting_seconds;
        while let Some((at, name, grace)) = self.silences.pop_first() {
            if at > self.now {
                self.silences.insert((at, name, grace));
                break;
            }
            if !self.graces.contains(&grace) {
                continue;
            }
            let Some(ledger) = self.ledgers.get(&name) else {
                continue;
            };
            let connection = ledger.connection;
            let Some(due) = connection.turns_silent_at(grace) else {
                continue;
            };
            if due > self.now {
                // It was heard meanwhile.
                self.silences.insert((due, name, grace));
                continue;
            }
            if grace == doubting {
                // One that was silent before, by another grace, does not fall silent now.
                if self.heard.remove(&name) | self.unheard.remove(&name) {
                    self.ears.fell_silent(&name, self.now);
                }
            }
            self.turned(&name, grace);
        }
        let doubt = self.ears.judge(self.heard.len(), doubting, self.now);
        let listening = self.ears.listens(self.heard.len(), self.unheard.len());
        if doubt != self.doubt || listening != self.listening {
            self.doubt = doubt;
            self.listening = listening;
            let keys: Vec<_> = self.rollouts.keys().cloned().collect();
            for key in keys {
                self.touch_all(&key);
            }
        }
        while let Some((at, key)) = self.wakes.first().cloned() {
            if at > self.now {
                break;
            }
            self.wakes.remove(&(at, key.clone()));
            self.woken_at.remove(&key);
            self.touched
                .entry(key)
                .or_insert_with(|| Reach::Targets(BTreeSet::new()));
        }
    }
}
