//! Counters of one slot. Written by requests without a lock, read by the control loop.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rimward_core::sample::{Ending, Sample, weigh};

use super::engine::lock;
use super::slot::NoAnswer;
use crate::proto::{Histogram, SlotStats};

/// Buckets that a latency can fall into.
const BUCKETS: usize = 496;
/// The longest error text that is kept.
const ERROR_BYTES_MAX: usize = 1024;

#[derive(Debug)]
pub(super) struct Counters {
    requests: AtomicU64,
    errors: AtomicU64,
    client_errors: AtomicU64,
    fallbacks: AtomicU64,
    rejected: AtomicU64,
    latency_sum_microseconds: AtomicU64,
    latency: Box<[AtomicU64]>,
    last_error: Mutex<Option<String>>,
    inflight: AtomicU64,
    queued: AtomicU64,
}

impl Counters {
    pub(super) fn new() -> Self {
        Self {
            requests: AtomicU64::new(0),
            errors: AtomicU64::new(0),
            client_errors: AtomicU64::new(0),
            fallbacks: AtomicU64::new(0),
            rejected: AtomicU64::new(0),
            latency_sum_microseconds: AtomicU64::new(0),
            latency: (0..BUCKETS).map(|_| AtomicU64::new(0)).collect(),
            last_error: Mutex::new(None),
            inflight: AtomicU64::new(0),
            queued: AtomicU64::new(0),
        }
    }

    /// Joins the queue unless it is full.
    pub(super) fn enqueue(&self, queue_max: u64) -> Option<Gauge<'_>> {
        let joined = self
            .queued
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
                (queued < queue_max).then_some(queued + 1)
            });
        joined.ok().map(|_| Gauge(&self.queued))
    }

    /// Counts a request in flight for as long as the gauge lives.
    pub(super) fn begin(&self) -> Gauge<'_> {
        self.inflight.fetch_add(1, Ordering::Relaxed);
        Gauge(&self.inflight)
    }

    pub(super) fn busy(&self) -> u64 {
        self.inflight.load(Ordering::Relaxed) + self.queued.load(Ordering::Relaxed)
    }

    /// Counts a request: answered where there is no `why` not. Where the previous version was asked
    /// instead, only once it is known what that one made of it.
    pub(super) fn count(&self, why: Option<&NoAnswer>, previous: Option<Ending>, took: Duration) {
        let ending = why.map_or(Ending::Answered, NoAnswer::ending);
        match ending {
            Ending::TurnedAway | Ending::NoRoom => {
                self.rejected.fetch_add(1, Ordering::Relaxed);
                return;
            }
            Ending::Answered | Ending::Failed => self.time(took),
            // How fast a refusal was says nothing about how fast the model is.
            Ending::Refused => {}
        }
        match weigh(ending, previous) {
            Some(Sample::Good) => {}
            Some(Sample::Error) => {
                self.errors.fetch_add(1, Ordering::Relaxed);
                *lock(&self.last_error) = why.map(|why| clip(&why.to_string()));
                if matches!(previous, Some(Ending::Answered)) {
                    self.fallbacks.fetch_add(1, Ordering::Relaxed);
                }
            }
            None => {
                self.client_errors.fetch_add(1, Ordering::Relaxed);
            }
        }
        // Last: whoever sees a request here sees in the others what became of it.
        self.requests.fetch_add(1, Ordering::Release);
    }

    fn time(&self, took: Duration) {
        let microseconds = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.latency_sum_microseconds
            .fetch_add(microseconds, Ordering::Relaxed);
        if let Some(bucket) = self
            .latency
            .get(usize::from(Histogram::index(microseconds)))
        {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn snapshot(&self) -> SlotStats {
        let requests = self.requests.load(Ordering::Acquire);
        let mut latency = Histogram::default();
        for (index, count) in (0u16..).zip(&self.latency) {
            latency.add(index, count.load(Ordering::Relaxed));
        }
        SlotStats {
            requests,
            errors: self.errors.load(Ordering::Relaxed),
            client_errors: self.client_errors.load(Ordering::Relaxed),
            fallbacks: self.fallbacks.load(Ordering::Relaxed),
            rejected: self.rejected.load(Ordering::Relaxed),
            latency_sum_microseconds: self.latency_sum_microseconds.load(Ordering::Relaxed),
            latency,
            last_error: lock(&self.last_error).clone(),
            inflight: self.inflight.load(Ordering::Relaxed),
            queued: self.queued.load(Ordering::Relaxed),
            metrics: std::collections::BTreeMap::new(),
        }
    }
}

fn clip(text: &str) -> String {
    text[..text.floor_char_boundary(ERROR_BYTES_MAX)].to_owned()
}

/// Counts itself out when dropped.
#[derive(Debug)]
pub(super) struct Gauge<'a>(&'a AtomicU64);

impl Drop for Gauge<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
