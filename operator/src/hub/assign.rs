//! Assignments: which are written now, and what they say.
//!
//! Owns their making and deleting. Must never decide entries: the planner's are spelled out.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::{Resource as _, ResourceExt as _};
use rimward_core::fleet::Plan;
use rimward_core::ids::DeploymentKey;
use rimward_crds::{ClusterAssignment, ClusterAssignmentSpec, EdgeCluster};

use super::apply::{Outcome, Target, Writer};
use super::entries::{self, Content};
use super::index::{Work, key};
use super::observe::Caches;
use super::reconcile::assignment_key;
use super::steps::{delete, side_by_side};
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
        if !same_entries(&spec, &assignment.spec) {
            applies.push((Target::of(Kind::ClusterAssignment, assignment), spec));
        }
    }
    // Orders first: they may be rollbacks.
    let applies = applies
        .iter()
        .map(|(target, spec)| (target.key.clone(), writer.entries(target, spec)));
    let _: Vec<Outcome> = side_by_side(&caches.feed, applies).await;
    let creates = creates.iter().map(|assignment| {
        let key = ObjectKey::of(Kind::ClusterAssignment, assignment);
        (key, writer.create(Kind::ClusterAssignment, assignment))
    });
    let _: Vec<Outcome> = side_by_side(&caches.feed, creates).await;
    delete(writer, &caches.feed, &orphans).await;
}

/// Entries are a set, keyed by namespace and name.
fn same_entries(one: &ClusterAssignmentSpec, other: &ClusterAssignmentSpec) -> bool {
    let keyed = |spec: &ClusterAssignmentSpec| -> BTreeMap<_, _> {
        spec.models
            .iter()
            .map(|model| ((model.namespace.clone(), model.name.clone()), model.clone()))
            .collect()
    };
    one.models.len() == other.models.len() && keyed(one) == keyed(other)
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
