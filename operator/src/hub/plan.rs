//! Puts together what `rimward_core::fleet::plan` needs, and keeps what its answer has to be matched with.
//!
//! Pure: a snapshot in, a [`Planned`] out. Objects that do not parse are named, and hold up no other.

use std::collections::{BTreeMap, BTreeSet};

use kube::ResourceExt as _;
use rimward_core::fleet::{self, Connection, Desired, Observed, Plan, Policy};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::time::Timestamp;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{
    ClusterAssignment, EdgeCluster, Model, ModelDeployment, ModelRevision, RolloutPolicy,
};

use super::observe::{Snapshot, by_deployment};
use super::parse::{self, DeploymentFacts, Invalid};
use super::revisions;
use super::status::cluster::{self, Link};
use super::status::deployment::Trouble;
use super::status::find;

/// A plan, with the objects that it is about.
pub(crate) struct Planned<'a> {
    pub(crate) plan: Plan,
    /// Deployments by key; those without a plan are in `troubles`.
    pub(crate) deployments: BTreeMap<DeploymentKey, &'a ModelDeployment>,
    /// The revision that each asks for.
    pub(crate) targets: BTreeMap<DeploymentKey, RevisionName>,
    /// Their revisions, new ones included.
    pub(crate) revisions: BTreeMap<DeploymentKey, BTreeMap<String, ModelRevision>>,
    /// Revisions that are to be made first.
    pub(crate) new_revisions: BTreeMap<DeploymentKey, ModelRevision>,
    /// What is wrong with deployments' references, or with themselves.
    pub(crate) troubles: BTreeMap<DeploymentKey, Trouble>,
    /// Deployments whose very name does not parse.
    pub(crate) nameless: Vec<(&'a ModelDeployment, Invalid)>,
    /// Policies, with what is wrong with them.
    pub(crate) policies: Vec<(&'a RolloutPolicy, Option<Invalid>)>,
    /// Clusters.
    pub(crate) clusters: BTreeMap<ClusterName, Site<'a>>,
    /// EdgeClusters, or their assignments, that do not parse: their entries stay as they stand.
    pub(crate) broken_clusters: Vec<(&'a EdgeCluster, Invalid)>,
    /// Assignments whose EdgeCluster is gone.
    pub(crate) orphans: Vec<&'a ClusterAssignment>,
    /// What the planner saw, for what has to be said about stages.
    pub(crate) desired: Desired,
    /// What the planner saw of clusters.
    pub(crate) observed: Observed,
}

/// One cluster.
pub(crate) struct Site<'a> {
    pub(crate) object: &'a EdgeCluster,
    pub(crate) assignment: Option<&'a ClusterAssignment>,
    pub(crate) link: Link,
}

/// Plans on what was seen.
pub(crate) fn plan<'a>(
    seen: &'a Snapshot,
    offline_grace_seconds: u32,
    connection: impl Fn(&str, bool) -> Connection,
    now: Timestamp,
) -> Planned<'a> {
    let mut planned = Planned {
        plan: Plan::default(),
        deployments: BTreeMap::new(),
        targets: BTreeMap::new(),
        revisions: BTreeMap::new(),
        new_revisions: BTreeMap::new(),
        troubles: BTreeMap::new(),
        nameless: Vec::new(),
        policies: Vec::new(),
        clusters: BTreeMap::new(),
        broken_clusters: Vec::new(),
        orphans: Vec::new(),
        desired: Desired::default(),
        observed: Observed::default(),
    };
    planned.clusters(seen, offline_grace_seconds, connection);
    planned.deployments(seen, offline_grace_seconds);
    planned.plan = fleet::plan(&planned.desired, &planned.observed, now);
    planned
}

impl<'a> Planned<'a> {
    fn clusters(
        &mut self,
        seen: &'a Snapshot,
        grace_seconds: u32,
        connection: impl Fn(&str, bool) -> Connection,
    ) {
        let assignments: BTreeMap<String, &ClusterAssignment> = seen
            .assignments
            .valid()
            .map(|assignment| (assignment.name_any(), assignment))
            .collect();
        let unreadable: BTreeSet<&str> = seen
            .assignments
            .invalid()
            .filter_map(|object| object.metadata.name.as_deref())
            .collect();
        let mut exist: BTreeSet<String> = seen
            .edge_clusters
            .invalid()
            .filter_map(|object| object.metadata.name.clone())
            .collect();
        for object in seen.edge_clusters.valid() {
            let name = object.name_any();
            if object.metadata.deletion_timestamp.is_some() {
                continue;
            }
            exist.insert(name.clone());
            let assignment = assignments.get(&name).copied();
            let connection = connection(&name, cluster::was_offline(object));
            let report = assignment.and_then(|assignment| assignment.status.as_ref());
            let link = cluster::link(object, report, connection, grace_seconds);
            let frozen = matches!(link, Link::Clash { .. });
            let parsed = if unreadable.contains(name.as_str()) {
                Err(Invalid::at("ClusterAssignment", "does not parse"))
            } else {
                name.parse::<ClusterName>()
                    .map_err(|error| Invalid::at("metadata.name", error))
                    .and_then(|key| {
                        Ok((key, parse::cluster(object, assignment, connection, frozen)?))
                    })
            };
            match parsed {
                Ok((key, parsed)) => {
                    self.observed.clusters.insert(key.clone(), parsed);
                    let site = Site {
                        object,
                        assignment,
                        link,
                    };
                    self.clusters.insert(key, site);
                }
                Err(error) => self.broken_clusters.push((object, error)),
            }
        }
        self.orphans = assignments
            .into_values()
            .filter(|assignment| !exist.contains(&assignment.name_any()))
            .collect();
    }

    fn deployments(&mut self, seen: &'a Snapshot, grace_seconds: u32) {
        let named = |namespace: Option<String>, name: String| (namespace.unwrap_or_default(), name);
        let models: BTreeMap<_, &Model> = seen
            .models
            .valid()
            .map(|model| (named(model.namespace(), model.name_any()), model))
            .collect();
        let mut policies = BTreeMap::new();
        for object in seen.policies.valid() {
            let parsed = parse::policy(&object.spec, grace_seconds);
            self.policies.push((object, parsed.as_ref().err().cloned()));
            policies.insert(named(object.namespace(), object.name_any()), parsed);
        }
        let revisions = by_deployment(&seen.revisions);
        for invalid in seen.deployments.invalid() {
            let meta = &invalid.metadata;
            let (namespace, name) = (meta.namespace.as_deref(), meta.name.as_deref());
            let key = DeploymentKey::parse(namespace.unwrap_or_default(), name.unwrap_or_default());
            if let Ok(key) = key {
                self.desired.unreadable.insert(key);
            }
        }
        for object in seen.deployments.valid() {
            let (namespace, name) = named(object.namespace(), object.name_any());
            let key = match DeploymentKey::parse(&namespace, &name) {
                Ok(key) => key,
                Err(error) => {
                    self.nameless.push((object, Invalid::at("metadata", error)));
                    continue;
                }
            };
            let of_name = revisions.get(&(namespace.clone(), name));
            let own = of_name
                .into_iter()
                .flatten()
                .filter(|(_, revision)| revisions::is_of(revision, object))
                .map(|(name, revision)| (name.clone(), revision.clone()))
                .collect();
            self.deployments.insert(key.clone(), object);
            self.revisions.insert(key.clone(), own);
            let policy = match &object.spec.rollout_policy_ref {
                None => Ok(None),
                Some(reference) => policy(
                    reference,
                    policies.get(&(namespace.clone(), reference.name.clone())),
                ),
            };
            let model = models.get(&(namespace, object.spec.model_ref.name.clone()));
            let result = policy.and_then(|policy| {
                self.target(&key, object, model.copied());
                let facts = DeploymentFacts {
                    target: self.targets.get(&key).cloned(),
                    revisions: self.revisions.entry(key.clone()).or_default(),
                    policy,
                    offline_grace_seconds: grace_seconds,
                };
                parse::deployment(object, facts).map_err(|error| Trouble {
                    reason: HubReason::ObjectInvalid,
                    message: error.to_string(),
                    stalled: true,
                })
            });
            match result {
                Ok(parsed) => {
                    self.desired.deployments.insert(key, parsed);
                }
                Err(trouble) => {
                    self.desired.unreadable.insert(key.clone());
                    self.new_revisions.remove(&key);
                    self.troubles.insert(key, trouble);
                }
            }
        }
    }

    /// Finds the revision that the deployment asks for, or what is in its way.
    fn target(&mut self, key: &DeploymentKey, object: &ModelDeployment, model: Option<&Model>) {
        let name = &object.spec.model_ref.name;
        let Some(model) = model else {
            let trouble = Trouble {
                reason: HubReason::ModelNotFound,
                message: format!(
                    "spec.modelRef: Model {}/{name} does not exist",
                    key.namespace
                ),
                stalled: false,
            };
            self.troubles.insert(key.clone(), trouble);
            return;
        };
        let Some(content) = revisions::content(object, model) else {
            self.troubles.insert(key.clone(), not_ready(key, model));
            return;
        };
        let existing = self.revisions.entry(key.clone()).or_default();
        let found = revisions::find(object, content, existing).unwrap_or_else(|new| {
            let name = new.name_any();
            existing.insert(name.clone(), (*new).clone());
            self.new_revisions.insert(key.clone(), *new);
            name
        });
        if let Ok(target) = found.parse() {
            self.targets.insert(key.clone(), target);
        }
    }
}

fn policy(
    reference: &rimward_crds::LocalObjectReference,
    found: Option<&Result<Policy, Invalid>>,
) -> Result<Option<Policy>, Trouble> {
    let name = &reference.name;
    match found {
        Some(Ok(policy)) => Ok(Some(policy.clone())),
        Some(Err(error)) => Err(Trouble {
            reason: HubReason::ObjectInvalid,
            message: format!("RolloutPolicy {name}: {error}"),
            stalled: true,
        }),
        None => Err(Trouble {
            reason: HubReason::PolicyNotFound,
            message: format!(
                "spec.rolloutPolicyRef: RolloutPolicy {name} does not exist or does not parse"
            ),
            stalled: false,
        }),
    }
}

fn not_ready(key: &DeploymentKey, model: &Model) -> Trouble {
    let conditions = model.status.as_ref().map(|status| &status.conditions);
    let of = |type_| conditions.and_then(|conditions| find(conditions, type_));
    let stalled = of(condition::STALLED).is_some_and(|stalled| stalled.status == "True");
    let why = of(condition::READY).map_or_else(
        || "it was not looked at yet".to_owned(),
        |ready| format!("{}: {}", ready.reason, ready.message),
    );
    Trouble {
        reason: HubReason::ModelNotReady,
        message: format!(
            "Model {}/{} is not resolved: {why}",
            key.namespace,
            model.name_any()
        ),
        stalled,
    }
}
