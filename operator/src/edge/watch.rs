//! Watches that never end: each hands on what it sees, and survives errors and single bad objects.
//!
//! Owns reconnecting. Nothing is listed anew by the clock: a watch says what changes, and one whose connection
//! hangs ends by its own bound, which is `pages`'. Must never decide what an absence means.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures::StreamExt;
use kube::core::DeserializeGuard;
use kube::runtime::watcher::{self, Event};
use kube::{Api, Resource as _};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use super::pace::{Pace, random};
use crate::metrics::{Kind, Metrics};
use crate::objects;
use crate::pages::Pages;

/// What the watches of one session share.
#[derive(Clone)]
pub(crate) struct Watching {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) retry_max: Duration,
    pub(crate) shutdown: CancellationToken,
}

/// What a watch saw, without what nobody reads; none when it broke off: what it saw last stands.
pub(crate) type News<K> = Option<Event<DeserializeGuard<K>>>;

/// Whether a watch has listed everything once, and whether its last request worked.
#[derive(Debug, Default)]
pub(crate) struct Reach {
    listed: AtomicBool,
    away: AtomicBool,
    lists_anew: bool,
}

impl Reach {
    /// Of a watch that lists anew each time it broke off, so that it is known when it works again: a watch
    /// that goes on where it was says nothing until something changes.
    pub(crate) fn that_lists_anew() -> Self {
        Self {
            lists_anew: true,
            ..Self::default()
        }
    }

    /// It has listed everything at least once.
    pub(crate) fn listed(&self) -> bool {
        self.listed.load(Ordering::Acquire)
    }
}

impl Watching {
    /// Follows `api` until shutdown, handing all news to `on`. `again` makes it start anew at once.
    ///
    /// Whatever the server answers (401, 403 and 404 included), the last state seen stands.
    pub(crate) async fn follow<K>(
        &self,
        kind: Kind,
        api: Api<DeserializeGuard<K>>,
        config: watcher::Config,
        reach: &Reach,
        again: &Notify,
        mut on: impl FnMut(News<K>),
    ) where
        K: kube::Resource + Clone + serde::de::DeserializeOwned + std::fmt::Debug,
        K: Send + Sync + 'static,
        K::DynamicType: Clone + Default,
    {
        let mut pages = Pages::default();
        let mut pace = Pace::new(self.retry_max);
        while !self.shutdown.is_cancelled() {
            let mut stream =
                std::pin::pin!(watcher::watcher(api.clone(), pages.config(config.clone())));
            loop {
                let item = tokio::select! {
                    biased;
                    () = self.shutdown.cancelled() => return,
                    () = again.notified() => break,
                    item = stream.next() => item,
                };
                match item {
                    Some(Ok(mut event)) => {
                        if matches!(event, Event::InitDone | Event::Apply(_) | Event::Delete(_)) {
                            pace.succeeded();
                            reach.listed.store(true, Ordering::Release);
                            if reach.away.swap(false, Ordering::AcqRel) {
                                tracing::info!(?kind, "watch works again");
                            }
                        }
                        if let Event::InitApply(object) | Event::Apply(object) = &mut event {
                            objects::strip(object.meta_mut());
                        }
                        on(Some(event));
                    }
                    Some(Err(error)) => {
                        self.metrics.watch_failed(kind);
                        if !reach.away.swap(true, Ordering::AcqRel) {
                            tracing::warn!(?kind, %error, "watch broke off, trying again");
                        }
                        on(None);
                        if pages.halved(&error) {
                            break;
                        }
                        let wait = pace.failed(random());
                        tokio::select! {
                            () = self.shutdown.cancelled() => return,
                            () = again.notified() => break,
                            () = tokio::time::sleep(wait) => {}
                        }
                        if reach.lists_anew {
                            break;
                        }
                    }
                    None => break,
                }
            }
        }
    }
}
