//! Kubernetes events for what happened to a deployment on this node.
//!
//! Owns which changes are told: entering a state, with its reason. Never repeats itself.

use std::time::Duration;

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use rimward_crds::{EdgeNode, EdgeNodeStatus, NodeModelState, NodeModelStatus};
use tokio::time::timeout;

/// How long writing one event may take: events are worth less than what comes after them.
const PUBLISH_TIMEOUT: Duration = Duration::from_secs(5);
/// What `events.k8s.io` takes as a note, in bytes.
const NOTE_BYTES_MAX: usize = 1024;

/// Tells events about this node's EdgeNode.
#[derive(Clone)]
pub(super) struct Teller {
    client: Client,
    reporter: Reporter,
    publish_timeout: Duration,
}

impl Teller {
    pub(super) fn new(client: Client, node_name: &str) -> Self {
        Self {
            client,
            reporter: Reporter {
                controller: "rimward-node-agent".to_owned(),
                instance: Some(node_name.to_owned()),
            },
            publish_timeout: PUBLISH_TIMEOUT,
        }
    }

    /// Tells what became of each deployment between two statuses. An event that cannot be written
    /// is lost: status says the same.
    pub(super) async fn tell(
        &self,
        before: &EdgeNodeStatus,
        now: &EdgeNodeStatus,
        node: &EdgeNode,
    ) {
        let about = node.object_ref(&());
        for event in events(before, now) {
            // A recorder's memory joins events of one reason into a series and keeps only the first
            // one's words, whatever the second is about. So each gets a fresh one.
            let recorder = Recorder::new(self.client.clone(), self.reporter.clone());
            match timeout(self.publish_timeout, recorder.publish(&event, &about)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::debug!(%error, "event is not written"),
                Err(_) => {
                    tracing::debug!("no answer to an event; the rest is not written");
                    return;
                }
            }
        }
    }
}

fn events(before: &EdgeNodeStatus, now: &EdgeNodeStatus) -> Vec<Event> {
    let was = |model: &NodeModelStatus| {
        before
            .models
            .iter()
            .find(|had| had.namespace == model.namespace && had.name == model.name)
    };
    now.models
        .iter()
        .filter(|model| {
            was(model).is_none_or(|had| {
                (had.state, &had.reason, &had.revision)
                    != (model.state, &model.reason, &model.revision)
            })
        })
        .filter_map(event)
        .collect()
}

fn event(model: &NodeModelStatus) -> Option<Event> {
    let (type_, action) = match model.state {
        NodeModelState::Pending | NodeModelState::Staging | NodeModelState::Preflight => {
            return None;
        }
        NodeModelState::Trial => (EventType::Normal, "Try"),
        NodeModelState::Committed => (EventType::Normal, "Commit"),
        NodeModelState::Held => (EventType::Normal, "Hold"),
        NodeModelState::Removed => (EventType::Normal, "Remove"),
        NodeModelState::Blocked => (EventType::Warning, "Stage"),
        NodeModelState::Rejected => (EventType::Warning, "Reject"),
        NodeModelState::RolledBack => (EventType::Warning, "RollBack"),
    };
    let revision = model.revision.as_deref().unwrap_or("-");
    let words = model.message.as_deref().unwrap_or_default();
    let separator = if words.is_empty() { "" } else { ": " };
    let mut note = format!(
        "{}/{} revision {revision} is {:?}{separator}{words}",
        model.namespace, model.name, model.state
    );
    note.truncate(note.floor_char_boundary(NOTE_BYTES_MAX));
    Some(Event {
        type_,
        reason: model
            .reason
            .clone()
            .unwrap_or_else(|| format!("{:?}", model.state)),
        note: Some(note),
        action: action.to_owned(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::fake_api::FakeApi;

    fn status(state: NodeModelState) -> EdgeNodeStatus {
        EdgeNodeStatus {
            models: vec![NodeModelStatus {
                namespace: "shop".into(),
                name: "digits".into(),
                revision: Some("digits-2".into()),
                state,
                reason: Some("GoldenVectorMismatch".into()),
                message: Some("golden vector 3: expected 7, got 1".into()),
                ..NodeModelStatus::default()
            }],
            ..EdgeNodeStatus::default()
        }
    }

    #[test]
    fn a_rejection_is_told_once_in_the_devices_words() {
        let rejected = status(NodeModelState::Rejected);
        let told = events(&status(NodeModelState::Preflight), &rejected);
        assert_eq!(told.len(), 1);
        assert_eq!(told[0].reason, "GoldenVectorMismatch");
        let note = told[0].note.as_deref().unwrap();
        assert_eq!(
            note,
            "shop/digits revision digits-2 is Rejected: golden vector 3: expected 7, got 1"
        );
        assert!(events(&rejected, &rejected).is_empty());
    }

    fn rejected(words: &[&str]) -> EdgeNodeStatus {
        let mut all = status(NodeModelState::Rejected);
        let one = all.models.remove(0);
        all.models = words
            .iter()
            .map(|word| NodeModelStatus {
                name: format!("model-{word}"),
                message: Some((*word).to_owned()),
                ..one.clone()
            })
            .collect();
        all
    }

    #[tokio::test]
    async fn events_of_one_reason_keep_each_its_own_words() {
        let api = FakeApi::start().await;
        let teller = Teller::new(api.client(), "node-1");
        let node = EdgeNode::new("node-1", rimward_crds::EdgeNodeSpec::default());
        let none = EdgeNodeStatus::default();
        teller.tell(&none, &rejected(&["one", "two"]), &node).await;
        teller.tell(&none, &rejected(&["three"]), &node).await;
        let state = api.lock();
        let notes: Vec<_> = state
            .writes
            .iter()
            .map(|write| {
                assert_eq!(write.method, "POST", "{write:?}");
                write.body["note"].as_str().unwrap().rsplit(": ").next()
            })
            .collect();
        assert_eq!(notes, [Some("one"), Some("two"), Some("three")]);
    }

    #[tokio::test]
    async fn an_event_without_an_answer_does_not_hold_up_the_report() {
        let api = FakeApi::start().await;
        api.lock().events_hang = true;
        let mut teller = Teller::new(api.client(), "node-1");
        teller.publish_timeout = Duration::from_millis(50);
        let node = EdgeNode::new("node-1", rimward_crds::EdgeNodeSpec::default());
        let now = rejected(&["one", "two"]);
        let none = EdgeNodeStatus::default();
        timeout(Duration::from_secs(20), teller.tell(&none, &now, &node))
            .await
            .expect("it gives up");
        assert_eq!(api.lock().writes.len(), 1, "the rest is not tried");
    }

    #[test]
    fn a_note_is_clipped_in_bytes_between_characters() {
        let mut long = status(NodeModelState::Rejected);
        long.models[0].message = Some("é".repeat(1000));
        let note = events(&EdgeNodeStatus::default(), &long).remove(0).note;
        assert!((1020..=1024).contains(&note.unwrap().len()));
    }
}
