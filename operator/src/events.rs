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

use crate::metrics::{Category, Kind, Metrics};

/// The same words about the same object within this time are one event.
const SAME_WITHIN: Duration = Duration::from_secs(600);
/// How many sent events are remembered.
const REMEMBERED_MAX: usize = 4096;
/// What `events.k8s.io` takes as a note, in bytes.
const NOTE_BYTES_MAX: usize = 1024;
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

/// Publishes notices; each once within ten minutes.
pub(crate) struct Events {
    client: Client,
    reporter: Reporter,
    metrics: Arc<Metrics>,
    sent: Mutex<HashMap<u64, Instant>>,
}

impl Events {
    /// Makes a publisher under the name `rimward-operator`.
    pub(crate) fn new(client: Client, identity: String, metrics: Arc<Metrics>) -> Self {
        Self {
            client,
            reporter: Reporter {
                controller: "rimward-operator".to_owned(),
                instance: Some(identity),
            },
            metrics,
            sent: Mutex::default(),
        }
    }

    /// Publishes, unless it said just that lately. A failure is logged and counted, and nothing more:
    /// events are for people, nothing depends on them.
    pub(crate) async fn publish(&self, about: &ObjectReference, notice: &Notice) {
        if !self.is_new(about, notice, Instant::now()) {
            return;
        }
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

    fn is_new(&self, about: &ObjectReference, notice: &Notice, now: Instant) -> bool {
        let mut hasher = DefaultHasher::new();
        let Notice {
            warning,
            reason,
            action,
            note,
        } = notice;
        (&about.uid, &about.kind, &about.namespace, &about.name).hash(&mut hasher);
        (warning, reason, action, note).hash(&mut hasher);
        let mut sent = self.sent.lock().unwrap_or_else(PoisonError::into_inner);
        sent.retain(|_, at| now.duration_since(*at) < SAME_WITHIN);
        if sent.len() >= REMEMBERED_MAX
            && let Some(oldest) = sent.iter().min_by_key(|(_, at)| **at).map(|(key, _)| *key)
        {
            sent.remove(&oldest);
        }
        sent.insert(hasher.finish(), now).is_none()
    }
}

/// The longest start of `text` that has at most `bytes_max` bytes and ends between characters.
pub(crate) fn clip(text: &str, bytes_max: usize) -> &str {
    &text[..text.floor_char_boundary(bytes_max)]
}

#[cfg(test)]
mod tests {
    use super::clip;

    #[test]
    fn text_is_clipped_between_characters() {
        assert_eq!(clip("abc", 9), "abc");
        assert_eq!(clip("abc", 2), "ab");
        assert_eq!(clip("aé", 2), "a");
    }
}
