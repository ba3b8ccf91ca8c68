//! Assignments: which are written now, and what they say.
//!
//! Owns their making and deleting. Must never decide entries: the planner's are spelled out.

use std::collections::BTreeMap;
use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use rimward_core::fleet::{Plan, in_turns};
use rimward_core::ids::DeploymentKey;
use rimward_crds::{AssignedModel, ClusterAssignment, ClusterAssignmentSpec, EdgeCluster};

use super::apply::{Outcome, Target, Writer};
use super::entries::{self, Content};
use super::index::{Work, key};
use super::kept;
use super::observe::Caches;
use super::reconcile::assignment_key;
use super::steps::{delete, fleet_wide, orders};
use super::view::View;
use crate::metrics::Kind;
use crate::objects::ObjectKey;

/// Step 4. An assignment is first made empty, so that a cluster can watch it before it gets anything.
pub(super) async fn assignments(
    writer: &Writer,
    caches: &Caches,
    view: &View,
    plan: &Plan,
    work: &Work,
    prepared: Duration,
) {
    let (mut creates, mut marks) = (Vec::new(), Vec::new());
    let mut orphans = Vec::new();
    for name in &work.clusters {
        let of_name = (String::new(), name.clone());
        let cluster = caches.get::<EdgeCluster>(&key(Kind::EdgeCluster, &of_name));
        let assignment = caches.get::<ClusterAssignment>(&assignment_key(name));
        match (cluster, assignment) {
            (Some(cluster), None) => {
                let object = cluster.0.as_ref().ok();
                let object = object.filter(|it| it.metadata.deletion_timestamp.is_none());
                creates.extend(object.map(empty_assignment));
            }
            // An EdgeCluster that is deleted takes its assignment with it; this one lost it otherwise.
            (None, Some(assignment)) => {
                orphans.push(Target::of(Kind::ClusterAssignment, &*assignment));
            }
            (Some(_), Some(assignment)) => {
                let object = assignment.0.as_ref().ok();
                let mark = object.and_then(|it| Some((it, view.kept.mark(it)?)));
                marks
                    .extend(mark.map(|(it, mark)| (Target::of(Kind::ClusterAssignment, it), mark)));
            }
            (None, None) => {}
        }
    }
    let contents = |key: &DeploymentKey| {
        let known = view.deployments.get(key)?;
        Some(Content {
            deployment: known.object.0.as_ref().ok(),
            revisions: &known.revisions,
        })
    };
    let mut applies = Vec::new();
    let mut changed = Vec::new();
    for name in plan.clusters.keys() {
        let assignment = view
            .clusters
            .get(name)
            .and_then(|site| site.assignment.as_ref());
        let Some(assignment) = assignment.and_then(|it| it.0.as_ref().ok()) else {
            continue;
        };
        // As they are now: orders of a deployment whose record could not be written were taken back since.
        let planned = view.fleet.entries(name);
        let (spec, gone) = entries::assignment(&planned, &assignment.spec, &contents);
        for error in gone {
            tracing::error!(cluster = %name, %error, "entry kept as it stands");
        }
        let changes = changes(&spec, &assignment.spec);
        if !changes.is_empty() {
            changed.push(changes);
            applies.push((Target::of(Kind::ClusterAssignment, assignment), spec));
        }
    }
    // Orders first: they may be rollbacks.
    let applies = in_turns(&changed).into_iter().map(|at| {
        let (target, spec) = &applies[at];
        (target.key.clone(), writer.entries(target, spec))
    });
    let _: Vec<Outcome> = orders(&caches.feed, prepared, applies).await;
    let creates = creates.iter().map(|assignment| {
        let key = ObjectKey::of(Kind::ClusterAssignment, assignment);
        (key, writer.create(Kind::ClusterAssignment, assignment))
    });
    let _: Vec<Outcome> = fleet_wide(&caches.feed, prepared, creates).await;
    let marks = marks.iter().map(|(target, mark)| {
        let write = writer.annotate(target, kept::ANNOTATION, mark);
        (target.key.clone(), write)
    });
    let _: Vec<Outcome> = fleet_wide(&caches.feed, prepared, marks).await;
    delete(writer, &caches.feed, &orphans).await;
}

/// Whose entries differ. They are a set, keyed by namespace and name.
fn changes(one: &ClusterAssignmentSpec, other: &ClusterAssignmentSpec) -> Vec<(String, String)> {
    let (one, other) = (keyed(one), keyed(other));
    let there = one
        .iter()
        .filter(|(key, model)| other.get(*key) != Some(model));
    let gone = other.keys().filter(|key| !one.contains_key(*key));
    let keys = there.map(|(key, _)| key).chain(gone);
    let owned = |(namespace, name): &(&str, &str)| ((*namespace).to_owned(), (*name).to_owned());
    keys.map(owned).collect()
}

fn keyed(spec: &ClusterAssignmentSpec) -> BTreeMap<(&str, &str), &AssignedModel> {
    let models = spec.models.iter();
    models
        .map(|it| ((it.namespace.as_str(), it.name.as_str()), it))
        .collect()
}

fn empty_assignment(cluster: &EdgeCluster) -> ClusterAssignment {
    let mut assignment =
        ClusterAssignment::new(&cluster.name_any(), ClusterAssignmentSpec::default());
    // An EdgeCluster that is deleted takes its assignment with it, with or without a hub.
    assignment.metadata.owner_references = cluster.controller_owner_ref(&()).map(|owner| {
        vec![OwnerReference {
            block_owner_deletion: Some(false),
            ..owner
        }]
    });
    assignment
}

#[cfg(test)]
mod tests {
    use rimward_crds::ClusterAssignmentSpec;

    use super::changes;

    fn spec(models: &[(&str, &str)]) -> ClusterAssignmentSpec {
        let models: Vec<_> = models
            .iter()
            .map(|(name, revision)| {
                serde_json::json!({
                    "namespace": "team", "name": name, "revision": revision, "endpointName": name,
                    "package": {"repository": "r", "digest": format!("sha256:{}", "0".repeat(64))},
                    "runtime": {}, "health": {}, "maxUnavailable": 1, "action": "Run",
                    "progressDeadlineSeconds": 600,
                })
            })
            .collect();
        serde_json::from_value(serde_json::json!({ "models": models })).unwrap()
    }

    #[test]
    fn what_comes_what_goes_and_what_is_another_is_a_change_and_order_is_none() {
        let stands = spec(&[("a", "1"), ("b", "1"), ("c", "1")]);
        let same = spec(&[("c", "1"), ("b", "1"), ("a", "1")]);
        assert_eq!(changes(&same, &stands), []);
        let next = spec(&[("a", "1"), ("b", "2"), ("d", "1")]);
        let names: Vec<_> = changes(&next, &stands).into_iter().map(|it| it.1).collect();
        assert_eq!(names, ["b", "d", "c"]);
    }
}
