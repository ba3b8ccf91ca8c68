//! Turns the edge cluster's objects into what `core::cluster` plans on, once.
//!
//! Owns that edge: past it, names and selectors are types. One entry that does not parse stops no
//! other; it is named, and what nodes run of it stays as it is. Must never decide anything.

use std::collections::BTreeMap;

use rimward_core::cluster::{Assigned, GoAhead, Hearing, Node, NodeModel, NodeReport, NodeState};
use rimward_core::fleet::{Action, Amount};
use rimward_core::ids::{DeploymentKey, ModelKey, NameError};
use rimward_core::selector::{Requirement, Selector};
use rimward_core::summary::Measures;
use rimward_crds as crds;
use rimward_crds::common::SelectorOperator;

/// Annotation by which a site refuses updates for now.
pub(crate) const HOLD: &str = "rimward.dev/hold";

/// The number of a revision's first attempt.
const FIRST_ATTEMPT: u32 = 1;

/// Longest text that is taken over from a device, in characters: the schema's bound.
const TEXT_CHARS_MAX: usize = 512;

/// An assignment's entries, and those that do not parse.
#[derive(Debug, Default)]
pub(crate) struct Entries {
    pub(crate) assigned: BTreeMap<ModelKey, Assigned<crds::NodeModel>>,
    /// Namespace and name as they stand there, and why they do not parse.
    pub(crate) unreadable: BTreeMap<(String, String), String>,
}

/// Parses every entry of an assignment.
pub(crate) fn entries(models: &[crds::AssignedModel]) -> Entries {
    let mut entries = Entries::default();
    for model in models {
        match assigned(model) {
            Ok((key, assigned)) => {
                entries.assigned.insert(key, assigned);
            }
            Err(error) => {
                let raw = (model.namespace.clone(), model.name.clone());
                entries.unreadable.insert(raw, error.to_string());
            }
        }
    }
    entries
}

fn assigned(
    model: &crds::AssignedModel,
) -> Result<(ModelKey, Assigned<crds::NodeModel>), NameError> {
    let crds::AssignedModel {
        namespace,
        name,
        endpoint_name,
        revision,
        attempt,
        forget_verdicts_before,
        replaces: _,
        package,
        runtime,
        health,
        node_selector,
        max_unavailable,
        max_failures,
        action,
        stage: _,
        progress_deadline_seconds,
    } = model;
    let assigned = Assigned {
        revision: revision.parse()?,
        attempt: *attempt,
        forget_verdicts_before: *forget_verdicts_before,
        action: parse_action(*action),
        nodes: node_selector
            .as_ref()
            .map_or_else(Selector::everything, selector),
        max_unavailable: match max_unavailable {
            crds::CountOrPercent::Count(count) => Amount::Count(*count),
            crds::CountOrPercent::Percent(percent) => Amount::Percent(u32::from(*percent)),
        },
        max_failures: *max_failures,
        progress_deadline_seconds: *progress_deadline_seconds,
        content: without_order(crds::NodeModel {
            namespace: namespace.clone(),
            name: name.clone(),
            endpoint_name: endpoint_name.clone(),
            revision: revision.clone(),
            attempt: *attempt,
            forget_verdicts_before: *forget_verdicts_before,
            package: package.clone(),
            runtime: runtime.clone(),
            health: health.clone(),
            action: *action,
        }),
    };
    Ok((DeploymentKey::parse(namespace, name)?, assigned))
}

/// The content of an entry, the same under every attempt: a new number alone is nothing new to run.
fn without_order(mut content: crds::NodeModel) -> crds::NodeModel {
    content.attempt = FIRST_ATTEMPT;
    content.forget_verdicts_before = 0;
    content
}

const fn parse_action(action: crds::Action) -> Action {
    match action {
        crds::Action::Run => Action::Run,
        crds::Action::Remove => Action::Remove,
    }
}

fn selector(selector: &crds::LabelSelector) -> Selector {
    let crds::LabelSelector {
        match_labels,
        match_expressions,
    } = selector;
    let labels = match_labels.iter().map(|(key, value)| Requirement::Equals {
        key: key.clone(),
        value: value.clone(),
    });
    let expressions = match_expressions.iter().map(|one| {
        let key = one.key.clone();
        let values = one.values.iter().cloned().collect();
        match one.operator {
            SelectorOperator::In => Requirement::In { key, values },
            SelectorOperator::NotIn => Requirement::NotIn { key, values },
            SelectorOperator::Exists => Requirement::Exists { key },
            SelectorOperator::DoesNotExist => Requirement::DoesNotExist { key },
        }
    });
    Selector::All(labels.chain(expressions).collect())
}

/// Parses one EdgeNode. `may_be` are specs that it may have instead.
pub(crate) fn node(
    node: &crds::EdgeNode,
    may_be: &[Vec<crds::NodeModel>],
    hearing: Hearing,
    refused: Option<&str>,
) -> Node<crds::NodeModel> {
    let metadata = &node.metadata;
    let entries: BTreeMap<_, _> = node.spec.models.iter().filter_map(go_ahead).collect();
    let mut maybe: BTreeMap<ModelKey, Vec<_>> = BTreeMap::new();
    for (key, order) in may_be.iter().flatten().filter_map(go_ahead) {
        if entries.get(&key) != Some(&order) {
            maybe.entry(key).or_default().push(order);
        }
    }
    Node {
        labels: metadata.labels.clone().unwrap_or_default(),
        hearing,
        held: metadata
            .annotations
            .as_ref()
            .and_then(|annotations| annotations.get(HOLD))
            .map(|reason| bounded(reason)),
        refused: refused.map(bounded),
        generation: generation(metadata.generation),
        entries,
        maybe,
        report: node.status.as_ref().and_then(report),
    }
}

/// A node that exists but whose object does not parse: as good as silent, and left alone.
pub(crate) fn unreadable_node(labels: &BTreeMap<String, String>) -> Node<crds::NodeModel> {
    Node {
        labels: labels.clone(),
        hearing: Hearing::Silent,
        held: None,
        refused: None,
        generation: 0,
        entries: BTreeMap::new(),
        maybe: BTreeMap::new(),
        report: None,
    }
}

fn generation(raw: Option<i64>) -> u64 {
    raw.and_then(|number| u64::try_from(number).ok())
        .unwrap_or(0)
}

fn go_ahead(model: &crds::NodeModel) -> Option<(ModelKey, GoAhead<crds::NodeModel>)> {
    let key = DeploymentKey::parse(&model.namespace, &model.name).ok()?;
    let go_ahead = GoAhead {
        revision: model.revision.parse().ok()?,
        attempt: model.attempt,
        forget_verdicts_before: model.forget_verdicts_before,
        action: parse_action(model.action),
        content: without_order(model.clone()),
    };
    Some((key, go_ahead))
}

/// None while the agent has not reported: the schema's default is an observed generation of -1.
fn report(status: &crds::EdgeNodeStatus) -> Option<NodeReport> {
    let observed_generation = u64::try_from(status.observed_generation?).ok()?;
    Some(NodeReport {
        observed_generation,
        models: status.models.iter().filter_map(model).collect(),
    })
}

fn model(status: &crds::NodeModelStatus) -> Option<(ModelKey, NodeModel)> {
    let key = DeploymentKey::parse(&status.namespace, &status.name).ok()?;
    let parse = |name: &Option<String>| name.as_ref().and_then(|name| name.parse().ok());
    let state = match status.state {
        crds::NodeModelState::Pending => NodeState::Pending,
        crds::NodeModelState::Staging | crds::NodeModelState::Preflight => NodeState::Staging,
        crds::NodeModelState::Trial => NodeState::Trial,
        crds::NodeModelState::Committed => NodeState::Committed,
        crds::NodeModelState::Blocked => NodeState::Blocked,
        crds::NodeModelState::Rejected | crds::NodeModelState::RolledBack => NodeState::Rejected,
        crds::NodeModelState::Held => NodeState::Held,
        // What was taken away is not on the device any more.
        crds::NodeModelState::Removed => return None,
    };
    let verdict = status.verdict.clone().unwrap_or_default();
    let count = |number: i64| u64::try_from(number).unwrap_or(0);
    let model = NodeModel {
        revision: parse(&status.revision)?,
        attempt: status.attempt,
        state,
        serving: status.serving_revision.is_some(),
        reason: status.reason.clone().unwrap_or_default(),
        message: status.message.as_deref().map(bounded).unwrap_or_default(),
        last_good: parse(&status.last_good_revision),
        measures: Measures {
            samples: count(verdict.samples),
            errors: count(verdict.errors),
            latency_p99_microseconds: Some(count(verdict.latency_p99_microseconds))
                .filter(|p99| *p99 > 0),
        },
    };
    Some((key, model))
}

/// The first [`TEXT_CHARS_MAX`] characters.
pub(crate) fn bounded(text: &str) -> String {
    text.chars().take(TEXT_CHARS_MAX).collect()
}

#[cfg(test)]
#[path = "parse_tests.rs"]
mod tests;
