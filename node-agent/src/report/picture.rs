//! What the supervisor tells of this node: everything that status shows, without times.
//!
//! Owns the mapping from machines to status. Two equal pictures mean that nothing is written.

use rimward_core::node::{Report, Standing};
use rimward_crds::{
    EdgeNodeStatus, NodeModel, NodeModelState, NodeModelStatus, NodeModelVerdict, TrustSummary,
};

use crate::facts::Facts;
use crate::supervisor::{Refused, Trust};

/// Longest message that status takes, in characters.
const MESSAGE_CHARS_MAX: usize = 512;

/// The node as it is now.
#[derive(Debug, Clone, PartialEq)]
pub struct Picture {
    /// Status without conditions.
    pub status: EdgeNodeStatus,
    /// Why the site holds updates back, if it does.
    pub held: Option<String>,
    /// Whether everything that is ordered is committed.
    pub ready: Result<(), (String, String)>,
}

impl Picture {
    /// Before anything is known.
    #[must_use]
    pub fn blank() -> Self {
        Self {
            status: EdgeNodeStatus::default(),
            held: None,
            ready: Ok(()),
        }
    }
}

/// What really runs of a deployment.
#[derive(Debug, Clone, Default)]
pub struct Running {
    /// The revision that answers.
    pub revision: Option<String>,
    /// Its variant.
    pub variant: Option<String>,
    /// Backend, device and precision.
    pub backend: Option<String>,
    /// Where it answers.
    pub endpoint: Option<String>,
}

fn cut(text: &str, chars_max: usize) -> String {
    text.chars().take(chars_max).collect()
}

fn state(standing: Standing) -> NodeModelState {
    match standing {
        Standing::Pending => NodeModelState::Pending,
        Standing::Staging => NodeModelState::Staging,
        Standing::Blocked => NodeModelState::Blocked,
        Standing::Preflight => NodeModelState::Preflight,
        Standing::Trial => NodeModelState::Trial,
        Standing::Ready => NodeModelState::Committed,
        Standing::Rejected => NodeModelState::Rejected,
        Standing::RolledBack => NodeModelState::RolledBack,
        Standing::Held => NodeModelState::Held,
        Standing::Removed => NodeModelState::Removed,
    }
}

/// The entry of one deployment.
#[must_use]
pub fn model(namespace: &str, name: &str, report: &Report, running: Running) -> NodeModelStatus {
    let to_i64 = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    NodeModelStatus {
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        revision: report.revision.as_ref().map(ToString::to_string),
        attempt: report.attempt.unwrap_or(1),
        state: state(report.standing),
        reason: report
            .problem
            .as_ref()
            .map(|problem| problem.reason.as_str().to_owned()),
        message: report
            .problem
            .as_ref()
            .map(|problem| cut(&problem.message, MESSAGE_CHARS_MAX)),
        serving_revision: running.revision,
        variant: running.variant,
        backend: running.backend,
        endpoint: running.endpoint,
        last_good_revision: report.last_good.as_ref().map(ToString::to_string),
        verdict: report.judged.as_ref().map(|judged| NodeModelVerdict {
            samples: to_i64(judged.requests),
            errors: to_i64(judged.errors),
            latency_p99_microseconds: to_i64(judged.latency_p99_microseconds.unwrap_or(0)),
        }),
    }
}

/// The entry of an order that cannot be followed.
#[must_use]
pub fn refused(refused: &Refused) -> NodeModelStatus {
    let NodeModel {
        namespace,
        name,
        revision,
        attempt,
        ..
    } = &refused.entry;
    NodeModelStatus {
        namespace: cut(namespace, 63),
        name: cut(name, 52),
        revision: Some(cut(revision, 63)),
        attempt: *attempt,
        state: NodeModelState::Blocked,
        reason: Some(refused.problem.reason.as_str().to_owned()),
        message: Some(cut(&refused.problem.message, MESSAGE_CHARS_MAX)),
        ..NodeModelStatus::default()
    }
}

/// Puts the picture together. `problem` is why the orders could not be read, if so.
#[must_use]
pub fn picture(
    facts: &Facts,
    trust: &Trust,
    generation: Option<i64>,
    mut models: Vec<NodeModelStatus>,
    held: Option<String>,
    problem: Option<&str>,
) -> Picture {
    models.sort_by(|a, b| (&a.namespace, &a.name).cmp(&(&b.namespace, &b.name)));
    models.dedup_by(|b, a| a.namespace == b.namespace && a.name == b.name);
    models.truncate(256);
    let models = super::budget::fit(models);
    let to_i64 = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
    let ready = ready(&models, trust, problem);
    Picture {
        status: EdgeNodeStatus {
            observed_generation: generation,
            conditions: Vec::new(),
            architecture: Some(facts.device.architecture.clone()),
            backends: facts.backends.clone(),
            memory_bytes: facts.memory_bytes.map(to_i64),
            disk_bytes: facts.disk_bytes.map(to_i64),
            agent_version: Some(env!("CARGO_PKG_VERSION").to_owned()),
            trust: Some(TrustSummary {
                signers: trust.in_force.as_ref().map_or_else(Vec::new, |trust| {
                    let names = trust.authorities().iter().map(|it| it.name.to_string());
                    names.take(32).collect()
                }),
                problem: trust
                    .problem
                    .as_ref()
                    .map(|problem| cut(&problem.message, MESSAGE_CHARS_MAX)),
            }),
            models,
        },
        held,
        ready,
    }
}

fn ready(
    models: &[NodeModelStatus],
    trust: &Trust,
    problem: Option<&str>,
) -> Result<(), (String, String)> {
    if let Some(problem) = problem {
        return Err(("OrdersUnreadable".to_owned(), cut(problem, 512)));
    }
    let working = models.iter().find(|model| {
        !matches!(
            model.state,
            NodeModelState::Committed | NodeModelState::Removed
        )
    });
    if let Some(model) = working {
        let reason = model
            .reason
            .clone()
            .unwrap_or_else(|| format!("{:?}", model.state));
        let words = model.message.as_deref().unwrap_or_default();
        let separator = if words.is_empty() { "" } else { ": " };
        let message = format!(
            "{}/{} is {:?}{separator}{words}",
            model.namespace, model.name, model.state
        );
        return Err((reason, cut(&message, 1024)));
    }
    match &trust.problem {
        Some(problem) => Err((
            problem.reason.as_str().to_owned(),
            cut(&problem.message, 1024),
        )),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with_state(name: &str, state: NodeModelState) -> NodeModelStatus {
        NodeModelStatus {
            namespace: "shop".into(),
            name: name.into(),
            state,
            message: Some("golden vector 3: expected 7, got 1".into()),
            ..NodeModelStatus::default()
        }
    }

    #[test]
    fn a_node_is_ready_when_everything_ordered_is_committed_and_else_says_what_is_not() {
        let trust = Trust {
            in_force: None,
            problem: None,
        };
        let good = with_state("a", NodeModelState::Committed);
        assert_eq!(ready(std::slice::from_ref(&good), &trust, None), Ok(()));
        let bad = with_state("b", NodeModelState::Rejected);
        let (_, message) = ready(&[good, bad], &trust, None).unwrap_err();
        assert_eq!(
            message,
            "shop/b is Rejected: golden vector 3: expected 7, got 1"
        );
    }
}
