//! Why one node is where it is, from its own EdgeNode.

use rimward_crds::{Action, EdgeNode, NodeModelState};

use super::{because, clean};

/// Annotation by which a site refuses updates for now.
const HOLD: &str = "rimward.dev/hold";

/// What the node says of the deployment, a sentence for each line.
pub(super) fn node(object: &EdgeNode, namespace: &str, name: &str) -> Vec<String> {
    let who = format!(
        "node {}",
        object.metadata.name.as_deref().unwrap_or_default()
    );
    let mut lines = Vec::new();
    let hold = object.metadata.annotations.as_ref();
    if let Some(reason) = hold.and_then(|annotations| annotations.get(HOLD)) {
        lines.push(format!("{who} is held by its site: {}", clean(reason)));
    }
    let mut models = object.spec.models.iter();
    let Some(order) = models.find(|it| it.namespace == namespace && it.name == name) else {
        lines.push(format!("{who} has no go-ahead for any revision"));
        return lines;
    };
    let revision = &order.revision;
    let again = super::tree::nth(Some(order.attempt));
    let status = object.status.clone().unwrap_or_default();
    let current = status.observed_generation == object.metadata.generation;
    let mut reports = status.models.iter();
    let report = reports.find(|it| it.namespace == namespace && it.name == name);
    if order.action == Action::Remove {
        lines.push(match report {
            None if current => format!("{who} has removed the model"),
            _ => format!("{who} is removing the model"),
        });
        return lines;
    }
    let Some(report) = report.filter(|it| it.revision.as_ref() == Some(revision)) else {
        lines.push(format!(
            "{who} has the go-ahead for {revision}{again}; its agent has not reported on it yet"
        ));
        return lines;
    };
    let does = match report.state {
        NodeModelState::Pending => format!("has not begun with {revision}"),
        NodeModelState::Staging => format!("is fetching and verifying {revision}"),
        NodeModelState::Preflight => format!("is trying {revision} in preflight"),
        NodeModelState::Trial => format!("has {revision} on trial"),
        NodeModelState::Committed => format!("has committed {revision}"),
        NodeModelState::Blocked => format!("cannot get {revision} for now and tries again"),
        NodeModelState::Rejected => format!("rejected {revision}"),
        NodeModelState::RolledBack => format!("tried {revision} and went back"),
        NodeModelState::Held => format!("holds {revision} back for now"),
        NodeModelState::Removed => "has removed the model".to_owned(),
    };
    let serves = match &report.serving_revision {
        Some(serving) if serving == revision => ", and serves it".to_owned(),
        Some(serving) => format!(", and serves {serving}"),
        None => ", and serves nothing".to_owned(),
    };
    let why = because(report.reason.as_deref(), report.message.as_deref());
    let colon = if why.is_empty() { "" } else { ": " };
    lines.push(format!("{who} {does}{serves}{colon}{why}"));
    lines
}
