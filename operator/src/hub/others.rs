//! The statuses of Models, policies and EdgeClusters that changed, and of objects that do not parse.
//!
//! Owns which of them are looked at in a turn. What they say is `status`', what differs is `report`'s.

use rimward_core::ids::{ClusterName, DeploymentKey};
use rimward_crds::{
    EdgeCluster, Model, ModelDeployment, ModelRevision, RolloutAction, RolloutPolicy,
};

use super::index::{Named, Work, key};
use super::models::Resolver;
use super::observe::Caches;
use super::parse::{self, Invalid};
use super::push::PushSessions;
use super::report::{NOTES_MAX, Reporter, Statuses, selector_notes};
use super::view::View;
use crate::metrics::Kind;

/// What statuses are made from.
pub(super) struct Seen<'a> {
    pub(super) caches: &'a Caches,
    pub(super) view: &'a View,
    pub(super) resolver: &'a Resolver,
    pub(super) push: &'a PushSessions,
}

/// Finds out which statuses differ, of what changed.
pub(super) fn statuses(
    seen: &Seen<'_>,
    work: &Work,
    reporter: &mut Reporter,
    changes: &mut Statuses,
) {
    for named in &work.models {
        let key = key(Kind::Model, named);
        let object = seen.caches.get::<Model>(&key);
        if let Some(model) = object.as_ref().and_then(|it| it.0.as_ref().ok()) {
            changes.model(model, seen.resolver);
        }
        reporter.check::<Model>(key, object.as_ref(), None, changes);
    }
    for named in &work.policies {
        policy(seen, named, reporter, changes);
    }
    for name in &work.clusters {
        cluster(seen, name, reporter, changes);
    }
    for named in &work.deployments {
        let key = key(Kind::ModelDeployment, named);
        let object = seen.caches.get::<ModelDeployment>(&key);
        let error = seen.view.nameless.get(named);
        reporter.check::<ModelDeployment>(key, object.as_ref(), error, changes);
    }
    for named in &work.revisions {
        let key = key(Kind::ModelRevision, named);
        let object = seen.caches.get::<ModelRevision>(&key);
        reporter.check::<ModelRevision>(key, object.as_ref(), None, changes);
    }
    for named in &work.actions {
        let key = key(Kind::RolloutAction, named);
        let object = seen.caches.get::<RolloutAction>(&key);
        reporter.check::<RolloutAction>(key, object.as_ref(), None, changes);
    }
}

fn policy(seen: &Seen<'_>, named: &Named, reporter: &mut Reporter, changes: &mut Statuses) {
    let key = key(Kind::RolloutPolicy, named);
    let object = seen.caches.get::<RolloutPolicy>(&key);
    if let Some(policy) = object.as_ref().and_then(|it| it.0.as_ref().ok()) {
        let invalid: Option<Invalid> = parse::policy(&policy.spec, seen.view.graces).err();
        let notes = notes(seen, named);
        changes.policy(policy, invalid.as_ref(), &notes);
    }
    reporter.check::<RolloutPolicy>(key, object.as_ref(), None, changes);
}

/// What is odd about a policy's stages for the deployments that use it.
fn notes(seen: &Seen<'_>, named: &Named) -> Vec<String> {
    let mut notes = Vec::new();
    for (namespace, name) in seen.view.index.users_of_policy(named) {
        let Ok(deployment) = DeploymentKey::parse(&namespace, &name) else {
            continue;
        };
        let known = seen.view.deployments.get(&deployment);
        let Some((known, policy)) = known.and_then(|it| Some((it, it.policy.as_ref()?))) else {
            continue;
        };
        let Ok(object) = known.object.0.as_ref() else {
            continue;
        };
        let placement = parse::selector(object.spec.placement.cluster_selector.as_ref());
        let labels: Vec<_> = seen
            .view
            .clusters
            .values()
            .filter_map(|site| site.object.0.as_ref().ok())
            .map(|object| object.metadata.labels.clone().unwrap_or_default())
            .filter(|labels| placement.matches(labels))
            .collect();
        let labels: Vec<_> = labels.iter().collect();
        let found = selector_notes(policy, &labels);
        notes.extend(
            found
                .iter()
                .map(|note| format!("{note} of deployment {name}")),
        );
        if notes.len() >= NOTES_MAX {
            break;
        }
    }
    notes.truncate(NOTES_MAX);
    notes
}

fn cluster(seen: &Seen<'_>, name: &str, reporter: &mut Reporter, changes: &mut Statuses) {
    let key = key(Kind::EdgeCluster, &(String::new(), name.to_owned()));
    let object = seen.caches.get::<EdgeCluster>(&key);
    let site = name
        .parse::<ClusterName>()
        .ok()
        .and_then(|name| seen.view.clusters.get(&name));
    if let Some(site) = site
        && let Ok(cluster) = site.object.0.as_ref()
    {
        let assignment = site.assignment.as_ref();
        let report = assignment
            .and_then(|it| it.0.as_ref().ok())
            .and_then(|it| it.status.as_ref());
        changes.cluster(cluster, report, &site.connection, &seen.push.known(name));
    }
    let error = seen.view.broken.get(name);
    reporter.check::<EdgeCluster>(key, object.as_ref(), error, changes);
}
