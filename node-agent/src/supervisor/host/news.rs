//! What hosts say, taken: each message changes what is known of one host.
//!
//! Owns nothing. Must never decide what a death or a failure means for a version: the machines do.

use std::time::Duration;

use tokio::time::Instant;

use super::process::Ended;
use super::slots::Stage;
use super::{Death, Gauges, Heard, Hosts, News};
use crate::proto::{FromHost, SlotId, SlotStats};

impl Hosts {
    /// Takes a host's news; gives what the machines must hear.
    pub(crate) fn news(&mut self, generation: u64, news: News) -> Option<Heard> {
        match news {
            News::Ended(ended) => self.ended(generation, ended),
            News::Message(message) => self.message(generation, message),
        }
    }

    fn ended(&mut self, generation: u64, ended: Ended) -> Option<Heard> {
        let Ended { words, over_memory } = ended;
        if self.leaving.remove(&generation).is_some() {
            tracing::info!(words, "the replaced host left");
            return None;
        }
        if self
            .replacing
            .as_ref()
            .is_some_and(|host| host.generation == generation)
        {
            tracing::warn!(words, "the replacing host died");
            self.replacing = None;
            self.replace_wanted = Some(Instant::now() + Duration::from_secs(10));
            return None;
        }
        if self
            .serving
            .as_ref()
            .is_none_or(|host| host.generation != generation)
        {
            return None;
        }
        tracing::warn!(words, "the host died");
        let ran = self.serving.take().map(|host| host.ran());
        self.gauges.deaths += 1;
        self.wait_before_restart(Instant::now());
        Some(Heard::Died(Death {
            words,
            over_memory,
            ran: ran.unwrap_or_default(),
        }))
    }

    fn message(&mut self, generation: u64, message: FromHost) -> Option<Heard> {
        let message = match message {
            FromHost::SlotStats { slot, stats } => return self.counted(generation, slot, stats),
            message => message,
        };
        if self.leaving.contains_key(&generation) {
            return None;
        }
        let serving = self.serving.as_ref().map(|host| host.generation) == Some(generation);
        match message {
            FromHost::Ready {} => {
                self.host(generation)?.ready = true;
                None
            }
            FromHost::Loaded { slot, runs } => {
                let slot = self.host(generation)?.slots.loading(slot)?;
                slot.stage = Stage::Loaded(runs);
                let slot = slot.clone();
                self.totals.loaded(&slot.key, &slot.version.revision);
                Some(Heard::Loaded(slot))
            }
            FromHost::LoadFailed {
                slot,
                reason,
                message,
            } => {
                let slots = &mut self.host(generation)?.slots;
                slots.loading(slot)?;
                let slot = slots.remove(slot)?;
                let slot = self.unless_replacing(generation, slot)?;
                Some(Heard::LoadFailed {
                    slot,
                    reason,
                    message,
                })
            }
            FromHost::Routed { endpoint, done } => {
                if !done {
                    tracing::error!(endpoint, "the host refused a route");
                }
                self.host(generation)?.slots.routed();
                None
            }
            FromHost::HostStats {
                inflight,
                connections,
                written_off_threads,
                resident_bytes,
            } => {
                if serving {
                    self.gauges = Gauges {
                        inflight,
                        connections,
                        written_off_threads,
                        resident_bytes,
                        ..self.gauges
                    };
                }
                None
            }
            FromHost::Unhealthy { reason } => {
                if serving {
                    self.replace(&reason);
                }
                None
            }
            FromHost::Unloaded { slot } => {
                self.host(generation)?.slots.remove(slot);
                None
            }
            FromHost::SlotStats { .. } | FromHost::Drained { .. } | FromHost::Pong {} => None,
        }
    }

    /// Takes a slot's counters, of whichever host: one that leaves answers requests too.
    fn counted(&mut self, generation: u64, id: SlotId, now: Box<SlotStats>) -> Option<Heard> {
        let slots = match self.leaving.get_mut(&generation) {
            Some(leaving) => &mut leaving.slots,
            None => &mut self.host(generation)?.slots,
        };
        let slot = slots.get_mut(id)?;
        let before = Box::new(std::mem::replace(&mut slot.seen, (*now).clone()));
        let slot = slot.clone();
        let (key, revision) = (&slot.key, &slot.version.revision);
        self.totals.add(key, revision, &before, &now);
        Some(Heard::Sampled {
            slot,
            stats: now,
            before,
        })
    }
}
