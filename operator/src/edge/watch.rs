//! Watches that never end: each fills a store, survives errors and single bad objects, and lists
//! everything anew at every resync.
//!
//! Owns reconnecting. Must never decide what an absence means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::Api;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use tokio::sync::Notify;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::pace::{Pace, random};
use crate::metrics::{Kind, Metrics};

/// How long listing everything may take.
const LIST_MAX: Duration = Duration::from_secs(300);

/// What the watches of one session share.
#[derive(Clone)]
pub(crate) struct Watching {
    pub(crate) metrics: Arc<Metrics>,
    /// A whole new list at least this often: also bounds how long a half-open connection can hide.
    pub(crate) resync: Duration,
    pub(crate) retry_max: Duration,
    pub(crate) shutdown: CancellationToken,
}

/// Whether a watch has listed everything once, and whether its last request worked.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    listed: AtomicBool,
    away: AtomicBool,
}

impl Reach {
    /// It has listed everything at least once.
    pub(crate) fn listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }
}

impl Watching {
    /// Follows `api` until shutdown, handing every event to `on`. `again` makes it start anew at once.
    ///
    /// Whatever the server answers (401, 403 and 404 included), the last state seen stands.
    pub(crate) async fn follow<K>(
        &self,
        kind: Kind,
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        reach: &Reach,
        again: &Notify,
        mut on: impl FnMut(Event<DeserializeGuard<K>>),
    ) where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
        K: Send + Sync + 'static,
        K::DynamicType: Clone + Default,
    {
        let mut pace = Pace::new(self.retry_max);
        while !self.shutdown.is_cancelled() {
            // A list over a slow line may take longer than a resync; it is not cut off for that.
            let mut end = Instant::now() + self.resync.max(LIST_MAX);
            let mut stream = std::pin::pin!(watcher::watcher(api.clone(), config.clone()));
            loop {
                let item = tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => return,
                    () = again.notified() => break,
                    () = tokio::time::sleep_until(end) => break,
                    item = stream.next() => item,
                };
                match item {
                    Some(Ok(event)) => {
                        if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
                            pace.succeeded();
                            reach.listed.store(true, Ordering::Release);
                            if reach.away.swap(false, Ordering::AcqRel) {
                                tracing::info!(?kind, "watch works again");
                            }
                        }
                        if matches!(event, Event::InitDone) {
                            end = Instant::now() + self.resync;
                        }
                        on(event);
                    }
                    Some(Err(error)) => {
                        self.metrics.watch_failed(kind);
                        if !reach.away.swap(true, Ordering::AcqRel) {
                            tracing::warn!(?kind, %error, "watch broke off, trying again");
                        }
                        let wait = pace.failed(random());
                        tokio::select! {
                            () = self.shutdown.cancelled() => return,
                            () = again.notified() => break,
                            () = tokio::time::sleep(wait) => {}
                        }
                    }
                    None => break,
                }
            }
        }
    }
}
