//! Kubernetes events, once each.
//!
//! Owns when an event is new. Must never decide what happened: plans say that, in their own words.

use std::collections::HashMap;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::ObjectReference;
use kube::Client;
use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::metrics::{Category, Kind, Metrics};

/// The same words about the same object within this time are one event.
const SAME_WITHIN: Duration = Duration::from_secs(600);
/// How many sent events are remembered.
const REMEMBERED_MAX: usize = 4096;
/// What `events.k8s.io` takes as a note, in bytes.
const NOTE_BYTES_MAX: usize = 1024;
/// Events that wait to be published.
const QUEUED_MAX: usize = 1024;
/// How long publishing one may take: events are worth less than what comes after them.
const PUBLISH_SECONDS_MAX: u64 = 5;

/// One thing to tell about an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Notice {
    /// Whether it is a warning.
    pub(crate) warning: bool,
    /// CamelCase reason, from a closed list.
    pub(crate) reason: &'static str,
    /// What the operator was doing, CamelCase (`Rollout`, `Resolve`).
    pub(crate) action: &'static str,
    /// One sentence.
    pub(crate) note: String,
}

/// Takes notices; each is published once within ten minutes.
///
/// Nobody waits for an event: they are put into a queue that a task of its own serves, until this is dropped. What
/// the queue has no room for is dropped and counted.
pub(crate) struct Events {
    queue: mpsc::Sender<(ObjectReference, Notice)>,
    metrics: Arc<Metrics>,
    sent: Mutex<Sent>,
    _publisher: JoinSet<()>,
}

/// What was put into the queue lately, by its hash.
#[derive(Default)]
struct Sent {
    at: HashMap<u64, Instant>,
    /// The queue had no room when last something was put into it.
    full: bool,
}

impl Events {
    /// Starts a publisher under the name `rimward-operator`.
    pub(crate) fn start(client: Client, identity: String, metrics: Arc<Metrics>) -> Self {
        let reporter = Reporter {
            controller: "rimward-operator".to_owned(),
            instance: Some(identity),
        };
        let (queue, mut waiting) = mpsc::channel(QUEUED_MAX);
        let publisher = Publisher {
            client,
            reporter,
            metrics: metrics.clone(),
        };
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            // One after the other: they are read in the order in which things happened.
            while let Some((about, notice)) = waiting.recv().await {
                publisher.publish(&about, &notice).await;
            }
        });
        Self {
            queue,
            metrics,
            sent: Mutex::default(),
            _publisher: tasks,
        }
    }

    /// Has a notice published, unless just that was said lately.
    pub(crate) fn tell(&self, about: &ObjectReference, notice: &Notice) {
        let now = Instant::now();
        let hash = hash(about, notice);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        if !sent.is_new(hash, now) {
            return;
        }
        let queued = self.queue.try_send((about.clone(), notice.clone()));
        let was_full = std::mem::replace(&mut sent.full, queued.is_err());
        if queued.is_ok() {
            sent.remember(hash, now);
            return;
        }
        drop(sent);
        self.metrics.failed(Category::Api);
        // One line for all that are dropped one after the other.
        if !was_full {
            let reason = notice.reason;
            tracing::warn!(reason, "event dropped: {QUEUED_MAX} wait to be published");
        }
    }
}

impl Sent {
    fn is_new(&mut self, hash: u64, now: Instant) -> bool {
        self.at
            .retain(|_, at| now.duration_since(*at) < SAME_WITHIN);
        !self.at.contains_key(&hash)
    }

    fn remember(&mut self, hash: u64, now: Instant) {
        if self.at.len() >= REMEMBERED_MAX
            && let Some(oldest) = self.at.iter().min_by_key(|(_, at)| **at)
        {
            let oldest = *oldest.0;
            self.at.remove(&oldest);
        }
        self.at.insert(hash, now);
    }
}

fn hash(about: &ObjectReference, notice: &Notice) -> u64 {
    let mut hasher = DefaultHasher::new();
    let Notice {
        warning,
        reason,
        action,
        note,
    } = notice;
    (&about.uid, &about.kind, &about.namespace, &about.name).hash(&mut hasher);
    (warning, reason, action, note).hash(&mut hasher);
    hasher.finish()
}

struct Publisher {
    client: Client,
    reporter: Reporter,
    metrics: Arc<Metrics>,
}

impl Publisher {
    /// A failure is logged and counted, and nothing more: events are for people, nothing depends on them.
    async fn publish(&self, about: &ObjectReference, notice: &Notice) {
        let event = Event {
            type_: if notice.warning {
                EventType::Warning
            } else {
                EventType::Normal
            },
            reason: notice.reason.to_owned(),
            note: Some(clip(&notice.note, NOTE_BYTES_MAX).to_owned()),
            action: notice.action.to_owned(),
            secondary: None,
        };
        // A recorder's memory joins events of one reason into a series and keeps only the first one's
        // words; "stage two begins" would read "stage one begins (2x)". So each gets a fresh one.
        let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
        let publish = recorder.publish(&event, about);
        match tokio::time::timeout(Duration::from_secs(PUBLISH_SECONDS_MAX), publish).await {
            Ok(Ok(())) => self.metrics.wrote(Kind::Event),
            Ok(Err(error)) => {
                self.metrics.failed(Category::Api);
                tracing::warn!(reason = notice.reason, %error, "event not published");
            }
            Err(_) => {
                self.metrics.failed(Category::Api);
                tracing::warn!(reason = notice.reason, "event not published in time");
            }
        }
    }
}

/// The longest start of `text` that has at most `bytes_max` bytes and ends between characters.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::time::{Duration, Instant};

    use axum::http::Method;
    use futures::FutureExt as _;
    use k8s_openapi::api::core::v1::ObjectReference;
    use tokio::sync::mpsc;

    use super::{Events, Notice, QUEUED_MAX, clip};
    use crate::metrics::Metrics;
    use crate::testing;

    fn notice(nth: usize) -> Notice {
        Notice {
            warning: false,
            reason: "Ready",
            action: "Status",
            note: format!("note {nth}"),
        }
    }

    /// Events to a server that passes on what it is given, and answers or hangs.
    fn check(answers: bool) -> (Events, Arc<Metrics>, mpsc::UnboundedReceiver<String>) {
        let (log, published) = mpsc::unbounded_channel();
        let uri = testing::serve(move |asked| {
            if asked.method == Method::POST {
                let note = asked.body["note"].as_str().unwrap_or_default();
                log.send(note.to_owned()).unwrap();
            }
            async move { answers.then_some((200, asked.body)) }.boxed()
        });
        let metrics = Arc::new(Metrics::default());
        let client = testing::client(&uri);
        let events = Events::start(client, "test".to_owned(), metrics.clone());
        (events, metrics, published)
    }

    fn about() -> ObjectReference {
        ObjectReference {
            namespace: Some("team".to_owned()),
            name: Some("digits".to_owned()),
            ..ObjectReference::default()
        }
    }

    #[tokio::test]
    async fn each_is_published_once_and_in_order() {
        let (events, _, mut published) = check(true);
        for nth in [1, 2, 1, 3] {
            events.tell(&about(), &notice(nth));
        }
        for nth in 1..=3 {
            let note = tokio::time::timeout(Duration::from_secs(20), published.recv()).await;
            assert_eq!(note.unwrap().unwrap(), format!("note {nth}"));
        }
    }

    #[tokio::test]
    async fn a_server_that_hangs_holds_nobody_up_and_what_has_no_room_is_counted() {
        let (events, metrics, mut published) = check(false);
        events.tell(&about(), &notice(0));
        published.recv().await.unwrap();
        let began = Instant::now();
        for nth in 1..=QUEUED_MAX + 3 {
            events.tell(&about(), &notice(nth));
        }
        assert!(began.elapsed() < Duration::from_secs(4), "somebody waited");
        let text = metrics.text();
        assert!(
            text.contains("rimward_errors_total{category=\"Api\"} 3"),
            "{text}"
        );
        // What was dropped was not said: it may be told again.
        let sent = events.sent.lock().unwrap();
        assert_eq!(sent.at.len(), QUEUED_MAX + 1);
        assert!(sent.full);
    }

    #[test]
    fn text_is_clipped_between_characters() {
        assert_eq!(clip("abc", 9), "abc");
        assert_eq!(clip("abc", 2), "ab");
        assert_eq!(clip("aé", 2), "a");
    }
}
