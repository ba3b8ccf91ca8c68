//! Between the API's words and `core`'s, for simulated sites: entries in, status out.
//!
//! Owns both directions. Sums are core's; a column that core counts goes up under its own name.

use std::collections::BTreeMap;
use std::hash::{DefaultHasher, Hash as _, Hasher as _};

use rimward_core::cluster::Assigned;
use rimward_core::fleet::{Action, Amount, ModelReport};
use rimward_core::ids::{DeploymentKey, ModelKey, RevisionName};
use rimward_core::selector::Selector;
use rimward_core::summary::Phase;
use rimward_crds::{AssignedModel, CountOrPercent};
use serde::Serialize;
use serde_json::{Value, json};

type Entries = BTreeMap<ModelKey, Assigned<u64>>;

/// The entries, and how each revision is described. Simulated nodes have no labels: selectors take all of them.
pub(super) fn entries(models: &[AssignedModel]) -> (Entries, BTreeMap<RevisionName, String>) {
    let mut entries = Entries::new();
    let mut about = BTreeMap::new();
    for model in models {
        let key = DeploymentKey::parse(&model.namespace, &model.name);
        let revision = model.revision.parse::<RevisionName>();
        let (Ok(key), Ok(revision)) = (key, revision) else {
            continue;
        };
        let package = &model.package;
        let config = &model.runtime.config;
        about.insert(
            revision.clone(),
            format!(
                "{revision} {}@{} {config:?}",
                package.repository, package.digest
            ),
        );
        entries.insert(key, entry(model, revision));
    }
    (entries, about)
}

fn entry(model: &AssignedModel, revision: RevisionName) -> Assigned<u64> {
    Assigned {
        revision,
        attempt: model.attempt,
        forget_verdicts_before: model.forget_verdicts_before,
        action: match model.action {
            rimward_crds::Action::Run => Action::Run,
            rimward_crds::Action::Remove => Action::Remove,
        },
        nodes: Selector::everything(),
        max_unavailable: match model.max_unavailable {
            CountOrPercent::Count(count) => Amount::Count(count),
            CountOrPercent::Percent(percent) => Amount::Percent(u32::from(percent)),
        },
        max_failures: model.max_failures,
        progress_deadline_seconds: model.progress_deadline_seconds,
        content: content(model),
    }
}

/// What a node gets of an entry, as a number that differs when it does.
fn content(model: &AssignedModel) -> u64 {
    let content = json!([
        model.endpoint_name,
        model.package,
        model.runtime,
        model.health
    ]);
    let mut hasher = DefaultHasher::new();
    content.to_string().hash(&mut hasher);
    hasher.finish()
}

/// What stands beside the models in a site's status.
pub(super) struct Facts<'a> {
    pub(super) name: &'a str,
    pub(super) generation: i64,
    /// Nodes that answer, and all.
    pub(super) nodes: (u32, u32),
    /// When it is, for conditions.
    pub(super) now: String,
}

/// A site's status, without what has to do with times.
pub(super) fn status(facts: &Facts<'_>, report: &BTreeMap<ModelKey, ModelReport>) -> Value {
    let models: Vec<Value> = report.iter().map(|(key, one)| model(key, one)).collect();
    json!({
        "observedGeneration": facts.generation,
        "clusterUID": format!("simulated-{}", facts.name),
        "versions": {"operator": env!("CARGO_PKG_VERSION"), "kubernetes": "v1.36.3"},
        "nodes": {"total": facts.nodes.1, "ready": facts.nodes.0},
        "capabilities": {"architectures": ["amd64"], "backends": ["rten"]},
        "models": models,
    })
}

/// A number that differs when two statuses do; the order of models and conditions aside, which the server may change.
pub(super) fn fingerprint(status: &Value) -> u64 {
    let mut status = status.clone();
    if let Some(status) = status.as_object_mut() {
        status.remove("conditions");
    }
    let mut hasher = DefaultHasher::new();
    status.to_string().hash(&mut hasher);
    hasher.finish()
}

/// Ready, Reconciling and Stalled.
pub(super) fn conditions(facts: &Facts<'_>, report: &BTreeMap<ModelKey, ModelReport>) -> Value {
    let open = report.values().any(|one| one.phase != Phase::Passed);
    let failed = report.values().any(|one| one.phase == Phase::Failed);
    let condition = |name: &str, is_true: bool| {
        json!({
            "type": name,
            "status": if is_true { "True" } else { "False" },
            "reason": if is_true == (name == "Ready") { "AsDesired" } else { "Progressing" },
            "message": "",
            "observedGeneration": facts.generation,
            "lastTransitionTime": facts.now,
        })
    };
    json!([
        condition("Ready", !open),
        condition("Reconciling", open && !failed),
        condition("Stalled", failed),
    ])
}

fn model(key: &ModelKey, report: &ModelReport) -> Value {
    let mut verdict = json!({
        "phase": format!("{:?}", report.phase),
        "samples": report.measures.samples,
        "errors": report.measures.errors,
        "latencyP99Microseconds": report.measures.latency_p99_microseconds.unwrap_or(0),
    });
    if !report.reason.is_empty() {
        verdict["reason"] = json!(report.reason);
    }
    let mut model = json!({
        "namespace": key.namespace.to_string(),
        "name": key.name.to_string(),
        "revision": report.revision.to_string(),
        "attempt": report.attempt,
        "nodes": in_camel_case(&report.nodes),
        "verdict": verdict,
    });
    if let Some(revision) = &report.last_good {
        model["lastGoodRevision"] = json!(revision.to_string());
    }
    if !report.problems.is_empty() {
        let words = report.problems.iter().map(|problem| {
            json!({"node": problem.node.to_string(), "reason": problem.reason, "message": problem.message})
        });
        model["problems"] = words.collect();
    }
    model
}

/// A structure of core's with its fields' names as the API writes them.
fn in_camel_case(value: &impl Serialize) -> Value {
    let Ok(Value::Object(fields)) = serde_json::to_value(value) else {
        return Value::Null;
    };
    let renamed = fields.into_iter().map(|(name, value)| {
        let mut words = name.split('_');
        let mut camel = words.next().unwrap_or_default().to_owned();
        for word in words {
            let (first, rest) = word.split_at(word.len().min(1));
            camel.push_str(&first.to_uppercase());
            camel.push_str(rest);
        }
        (camel, value)
    });
    Value::Object(renamed.collect())
}
