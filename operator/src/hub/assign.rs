//! Assignments: which are written now, and what they say.
//!
//! Owns their making and deleting. Must never decide entries: the planner's are spelled out.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use rimward_core::fleet::Plan;
use rimward_core::ids::DeploymentKey;
use rimward_crds::{AssignedModel, ClusterAssignment, ClusterAssignmentSpec, EdgeCluster};

use super::apply::{Outcome, Target, Writer};
use super::entries::{self, Content};
use super::index::{Work, key};
use super::observe::Caches;
use super::reconcile::assignment_key;
use super::steps::{delete, orders, side_by_side};
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
    began: Instant,
) {
    let mut creates = Vec::new();
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
            (Some(_), Some(_)) | (None, None) => {}
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
    let _: Vec<Outcome> = orders(&caches.feed, began.elapsed(), applies).await;
    let creates = creates.iter().map(|assignment| {
        let key = ObjectKey::of(Kind::ClusterAssignment, assignment);
        (key, writer.create(Kind::ClusterAssignment, assignment))
    });
    let _: Vec<Outcome> = side_by_side(&caches.feed, creates).await;
    delete(writer, &caches.feed, &orphans).await;
}

/// Whose entries differ. They are a set, keyed by namespace and name.
fn changes(one: &ClusterAssignmentSpec, other: &ClusterAssignmentSpec) -> Vec<(String, String)> {
    let keyed = |spec: &ClusterAssignmentSpec| -> BTreeMap<(String, String), AssignedModel> {
        let models = spec.models.iter();
        let keyed = models.map(|it| ((it.namespace.clone(), it.name.clone()), it.clone()));
        keyed.collect()
    };
    let (one, other) = (keyed(one), keyed(other));
    let names: BTreeSet<_> = one.keys().chain(other.keys()).collect();
    let differ = |key: &&&(String, String)| one.get(**key) != other.get(**key);
    names
        .iter()
        .filter(differ)
        .map(|key| (*key).clone())
        .collect()
}

/// In which order assignments are written: deployments take turns, so that one that goes to thousands of clusters keeps
/// none waiting that goes to a few. Pure: by assignment whose entries change, places in that list out.
fn in_turns<K: Ord>(changed: &[Vec<K>]) -> Vec<usize> {
    let mut before: BTreeMap<&K, usize> = BTreeMap::new();
    let mut ranked: Vec<(usize, usize)> = Vec::new();
    for (at, keys) in changed.iter().enumerate() {
        let ranks = keys.iter().map(|key| {
            let rank = before.entry(key).or_default();
            *rank += 1;
            *rank
        });
        ranked.push((ranks.min().unwrap_or(usize::MAX), at));
    }
    ranked.sort_unstable();
    ranked.into_iter().map(|(_, at)| at).collect()
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
    use super::in_turns;

    #[test]
    fn a_deployment_that_goes_to_many_clusters_keeps_none_waiting_that_goes_to_a_few() {
        let mut changed = vec![vec!["everywhere"]; 1000];
        changed.push(vec!["small"]);
        changed[500].push("other");
        let order = in_turns(&changed);
        assert_eq!(order[..3], [0, 500, 1000]);
        assert_eq!(order.len(), 1001);
        assert_eq!(in_turns::<&str>(&[vec![], vec!["a"]]), [1, 0]);
    }
}
