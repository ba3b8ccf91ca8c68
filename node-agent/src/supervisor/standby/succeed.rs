//! How a standby becomes the holder: the folder's lock, then the folder, then a supervisor.
//!
//! Owns the order of it. Nothing is written to the folder before the lock is held.

use std::sync::Arc;
use std::time::Duration;

use rimward_core::node::Observation;
use tokio::time::Instant;

use super::super::Supervisor;
use super::super::check::words;
use super::super::open::Recovered;
use super::Standby;
use crate::store::{Lock, OpenError};

/// Between two tries to take over a folder that does not let itself be opened.
const TAKE_OVER_PERIOD: Duration = Duration::from_secs(5);

impl Standby {
    /// Takes the folder's lock once its holder is gone, however it went.
    pub(super) fn look_at_lock(&mut self) {
        if self.lock.is_some() {
            return;
        }
        match Lock::take_over(&self.ends.config.data_folder) {
            Ok(lock) => {
                tracing::info!("the folder's holder is gone; this agent takes over");
                self.lock = Some((Arc::new(lock), Instant::now()));
            }
            Err(OpenError::Locked) => {}
            Err(error) => self.tell(format!("the folder's lock: {}", words(&error))),
        }
    }

    /// Opens the folder as its holder. What cannot be opened is tried again: what serves goes on serving.
    pub(super) fn recover(&mut self) -> Option<Recovered> {
        let (lock, _) = self.lock.as_ref()?;
        if self.retry_at.is_some_and(|at| Instant::now() < at) {
            return None;
        }
        let config = &self.ends.config;
        let boot_id = &self.ends.facts.boot_id;
        match Recovered::open(&config.data_folder, Arc::clone(lock), boot_id) {
            Ok(recovered) => Some(recovered),
            Err(error) => {
                self.retry_at = Some(Instant::now() + TAKE_OVER_PERIOD);
                self.tell(format!("cannot take over: {error:#}"));
                None
            }
        }
    }

    pub(super) fn take_over(self, recovered: Recovered) -> Supervisor {
        recovered.cache.adopt(&self.cache);
        let unsound = self.followers.iter().flat_map(|(key, follower)| {
            follower.unsound().map(|(revision, problem)| {
                let observation = Observation::Unsound(revision.clone(), problem.clone());
                (key.clone(), observation)
            })
        });
        let unsound = unsound.collect();
        tracing::info!("took over");
        Supervisor::begin(self.ends, recovered, self.trust, unsound)
    }
}
