//! Kubernetes events for what happened to a deployment on this node.
//!
//! Owns which changes are told: entering a state, with its reason. Never repeats itself.

use kube::runtime::events::{Event, EventType, Recorder, Reporter};
use kube::{Client, Resource};
use rimward_crds::{EdgeNode, EdgeNodeStatus, NodeModelState, NodeModelStatus};

/// Tells events about this node's EdgeNode.
#[derive(Clone)]
pub(super) struct Teller(Recorder);

impl Teller {
    pub(super) fn new(client: Client, node_name: &str) -> Self {
        Self(Recorder::new(
            client,
            Reporter {
                controller: "rimward-node-agent".to_owned(),
                instance: Some(node_name.to_owned()),
            },
        ))
    }

    /// Tells what became of each deployment between two statuses. An event that cannot be written
    /// is lost: status says the same.
    pub(super) async fn tell(
        &self,
        before: &EdgeNodeStatus,
        now: &EdgeNodeStatus,
        node: &EdgeNode,
    ) {
        for event in events(before, now) {
            if let Err(error) = self.0.publish(&event, &node.object_ref(&())).await {
                tracing::debug!(%error, "event is not written");
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
    Some(Event {
        type_,
        reason: model
            .reason
            .clone()
            .unwrap_or_else(|| format!("{:?}", model.state)),
        note: Some(
            format!(
                "{}/{} revision {revision} is {:?}{separator}{words}",
                model.namespace, model.name, model.state
            )
            .chars()
            .take(1000)
            .collect(),
        ),
        action: action.to_owned(),
        secondary: None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
}
