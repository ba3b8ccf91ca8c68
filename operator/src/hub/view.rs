//! What the leader knows of deployments and clusters: objects parsed, and told to the planner.
//!
//! Owns the step from objects to core's types, one object at a time: what did not change is not parsed again. One that
//! does not parse is named, and holds up no other. Must never write.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use rimward_core::fleet::{Cluster, ConnectionState, Fleet, Policy};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::time::Timestamp;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{
    ClusterAssignment, EdgeCluster, Model, ModelDeployment, ModelRevision, RolloutAction,
    RolloutPolicy,
};

use super::heartbeats::{self, Heartbeats};
use super::index::{Index, Named, key};
use super::kept::Kept;
use super::observe::Caches;
use super::parse::{self, DeploymentFacts, Graces, Invalid};
use super::revisions;
use super::status::cluster::{self, Connection};
use super::status::deployment::Trouble;
use super::status::find;
use crate::cache::Guarded;
use crate::metrics::Kind;

/// Everything that the leader knows.
pub(crate) struct View {
    pub(crate) fleet: Fleet,
    pub(crate) index: Index,
    pub(crate) deployments: BTreeMap<DeploymentKey, Known>,
    pub(crate) clusters: BTreeMap<ClusterName, ClusterView>,
    /// EdgeClusters, or their assignments, that do not parse: their entries stay as they stand.
    pub(crate) broken: BTreeMap<String, Invalid>,
    /// Deployments whose very name does not parse.
    pub(crate) nameless: BTreeMap<Named, Invalid>,
    pub(super) graces: Graces,
    pub(crate) kept: Kept,
    /// The planner's clock: seconds since this leader began.
    began: Instant,
}

/// One deployment.
pub(crate) struct Known {
    pub(crate) object: Guarded<ModelDeployment>,
    /// The revision that it asks for.
    pub(crate) target: Option<RevisionName>,
    /// Its revisions, a new one included.
    pub(crate) revisions: BTreeMap<String, ModelRevision>,
    /// One that is to be made first.
    pub(crate) new_revision: Option<ModelRevision>,
    /// What is wrong with its references, or with itself.
    pub(crate) trouble: Option<Trouble>,
    /// It could be told to the planner.
    pub(crate) planned: bool,
    /// Its policy's stages, for what is odd about them.
    pub(crate) policy: Option<Policy>,
}

/// One cluster.
pub(crate) struct ClusterView {
    pub(crate) object: Guarded<EdgeCluster>,
    pub(crate) assignment: Option<Guarded<ClusterAssignment>>,
    pub(crate) connection: Connection,
}

impl View {
    pub(crate) fn new(fleet: Fleet, graces: Graces, began: Instant) -> Self {
        Self {
            fleet,
            index: Index::default(),
            deployments: BTreeMap::new(),
            clusters: BTreeMap::new(),
            broken: BTreeMap::new(),
            nameless: BTreeMap::new(),
            graces,
            kept: Kept::default(),
            began,
        }
    }

    /// The same on a hub whose definition of ModelDeployment was made then.
    pub(crate) fn since(mut self, definition: Option<Time>) -> Self {
        self.kept = Kept::since(definition);
        self
    }

    /// The planner's time. It begins far from zero, so that what was heard before the lead has a place in it.
    pub(crate) fn now(&self, instant: Instant) -> Timestamp {
        let after = instant.saturating_duration_since(self.began).as_secs();
        // What a standby heard before it led lies before the beginning.
        let before = self.began.saturating_duration_since(instant).as_secs();
        let signed = |seconds: u64| i64::try_from(seconds).unwrap_or(i64::MAX);
        Timestamp(
            EPOCH
                .saturating_add(signed(after))
                .saturating_sub(signed(before)),
        )
    }

    fn connection(
        &self,
        name: &str,
        was_offline: bool,
        beats: &Heartbeats,
        at: Instant,
    ) -> ConnectionState {
        // Told by the moment itself, not by how long ago it is: the same beat must always be the same to the planner.
        let changed = beats.changed(name).map_or(self.now(at), |it| self.now(it));
        match beats.state(name, was_offline, at) {
            heartbeats::ConnectionState::NeverJoined => ConnectionState::NeverJoined,
            heartbeats::ConnectionState::Silent => ConnectionState::Silent,
            heartbeats::ConnectionState::Unheard { .. } => {
                ConnectionState::Unheard { since: changed }
            }
            // Silent for the whole grace before this leader began, and called so by an earlier one: no news, or every
            // change of leader would take those that died over months for a fleet that falls silent at once.
            heartbeats::ConnectionState::Heard { .. }
                if was_offline
                    && changed.plus_seconds(self.graces.offline_seconds) <= Timestamp(EPOCH) =>
            {
                ConnectionState::Silent
            }
            heartbeats::ConnectionState::Heard { .. } => ConnectionState::Heard { at: changed },
        }
    }

    /// Tells the planner of every heartbeat as it is now.
    pub(crate) fn hear_all(&mut self, beats: &Heartbeats, at: Instant) {
        let names: Vec<(ClusterName, ConnectionState)> = self
            .clusters
            .iter()
            .map(|(name, site)| {
                let offline = site.object.0.as_ref().is_ok_and(cluster::was_offline);
                (
                    name.clone(),
                    self.connection(name.as_str(), offline, beats, at),
                )
            })
            .collect();
        for (name, state) in names {
            self.fleet.hear(&name, state);
        }
    }

    /// Looks at one cluster again.
    pub(crate) fn look_at_cluster(&mut self, caches: &Caches, name: &str, at: Instant) {
        let of_name = (String::new(), name.to_owned());
        let object = caches.get::<EdgeCluster>(&key(Kind::EdgeCluster, &of_name));
        let assignment = caches.get::<ClusterAssignment>(&key(Kind::ClusterAssignment, &of_name));
        self.broken.remove(name);
        let parsed_name = name.parse::<ClusterName>();
        let Some(object) = object.filter(|it| it.metadata().deletion_timestamp.is_none()) else {
            if let Ok(name) = parsed_name {
                self.clusters.remove(&name);
                self.fleet.remove_cluster(&name);
            }
            // As long as it is there, nobody knows which revisions it names.
            if assignment.is_some_and(|it| it.0.is_err()) {
                self.broken.insert(name.to_owned(), unreadable());
            }
            return;
        };
        let parsed = parsed_name
            .map_err(|error| Invalid::at("metadata.name", error))
            .and_then(|name| {
                let site = self.site(caches, &name, &object, assignment.as_ref(), at)?;
                Ok((name, site))
            });
        match parsed {
            Ok((name, (cluster, connection))) => {
                let exists = |of: &DeploymentKey| {
                    let of = (of.namespace.to_string(), of.name.to_string());
                    caches
                        .get::<ModelDeployment>(&key(Kind::ModelDeployment, &of))
                        .is_some()
                };
                let before = assignment.as_ref().and_then(|it| it.0.as_ref().ok());
                for orphan in before
                    .into_iter()
                    .flat_map(|it| self.kept.orphans(it, &exists))
                {
                    self.fleet.remove_deployment(&orphan, true);
                }
                self.fleet.set_cluster(&name, cluster);
                let site = ClusterView {
                    object,
                    assignment,
                    connection,
                };
                self.clusters.insert(name, site);
            }
            Err(error) => {
                // What it runs stays as it stands, and counts for nothing until it can be read.
                if let Ok(name) = name.parse::<ClusterName>() {
                    self.clusters.remove(&name);
                    self.fleet.remove_cluster(&name);
                }
                self.broken.insert(name.to_owned(), error);
            }
        }
    }

    fn site(
        &self,
        caches: &Caches,
        known_as: &ClusterName,
        object: &Guarded<EdgeCluster>,
        assignment: Option<&Guarded<ClusterAssignment>>,
        at: Instant,
    ) -> Result<(Cluster, Connection), Invalid> {
        let object = object
            .0
            .as_ref()
            .map_err(|error| Invalid::at("EdgeCluster", error))?;
        let assignment = match assignment {
            Some(assignment) => Some(assignment.0.as_ref().map_err(|_| unreadable())?),
            None => None,
        };
        let name = object.name_any();
        let offline = cluster::was_offline(object);
        let state = caches.heartbeats(|beats| self.connection(&name, offline, beats, at));
        let hearing = state.hearing(self.graces.offline_seconds, self.now(at));
        let report = assignment.and_then(|assignment| assignment.status.as_ref());
        // What was said of silence before there were enough to doubt it is taken back.
        let doubts = self.fleet.doubt().is_some();
        let doubted = doubts && (!offline || self.fleet.doubts(known_as));
        let grace = self.graces.offline_seconds;
        let connection = cluster::connection(object, report, hearing, grace, doubted);
        let frozen = matches!(connection, Connection::IdentityConflict { .. });
        Ok((
            parse::cluster(object, assignment, state, frozen)?,
            connection,
        ))
    }

    /// Looks at one deployment again, with all that it names.
    pub(crate) fn look_at_deployment(&mut self, caches: &Caches, named: &Named) {
        self.nameless.remove(named);
        let object = caches.get::<ModelDeployment>(&key(Kind::ModelDeployment, named));
        let parsed = DeploymentKey::parse(&named.0, &named.1);
        let deployment = match parsed {
            Ok(key) => key,
            Err(error) => {
                if object.is_some() {
                    self.nameless
                        .insert(named.clone(), Invalid::at("metadata", error));
                }
                return;
            }
        };
        let Some(object) = object else {
            self.deployments.remove(&deployment);
            let kept = self.kept.is_orphan(&deployment);
            self.fleet.remove_deployment(&deployment, kept);
            return;
        };
        self.kept.exists(&deployment);
        let Ok(valid) = object.0.as_ref() else {
            self.deployments.remove(&deployment);
            self.fleet.remove_deployment(&deployment, true);
            return;
        };
        let mut known = Known {
            object: object.clone(),
            target: None,
            revisions: BTreeMap::new(),
            new_revision: None,
            trouble: None,
            planned: false,
            policy: None,
        };
        match self.parse_deployment(caches, named, valid, &mut known) {
            Ok(parsed) => {
                known.planned = true;
                known.policy = Some(parsed.policy.clone());
                self.fleet.set_deployment(&deployment, parsed);
            }
            Err(trouble) => {
                self.fleet.remove_deployment(&deployment, true);
                known.new_revision = None;
                known.trouble = Some(trouble);
            }
        }
        self.deployments.insert(deployment, known);
    }

    fn parse_deployment(
        &self,
        caches: &Caches,
        named: &Named,
        object: &ModelDeployment,
        known: &mut Known,
    ) -> Result<rimward_core::fleet::Deployment, Trouble> {
        let mut taken = BTreeSet::new();
        for name in self.index.revisions_of(named) {
            taken.insert(name.1.clone());
            let revision = caches.get::<ModelRevision>(&key(Kind::ModelRevision, &name));
            let revision = revision.as_ref().and_then(|it| it.0.as_ref().ok());
            if let Some(revision) = revision.filter(|it| revisions::is_of(it, object)) {
                known.revisions.insert(name.1, revision.clone());
            }
        }
        let policy = match &object.spec.rollout_policy_ref {
            None => None,
            Some(reference) => {
                Some(self.policy(caches, (named.0.clone(), reference.name.clone()))?)
            }
        };
        let model = (named.0.clone(), object.spec.model_ref.name.clone());
        self.target(caches, object, &model, &taken, known);
        let actions = self.index.actions_of(named);
        let actions = actions.iter().filter_map(|name| {
            let action = caches.get::<RolloutAction>(&key(Kind::RolloutAction, name))?;
            parse::action(action.0.as_ref().ok()?).ok()
        });
        let facts = DeploymentFacts {
            target: known.target.clone(),
            revisions: &known.revisions,
            policy,
            actions: actions.collect(),
            offline_grace_seconds: self.graces.offline_seconds,
        };
        parse::deployment(object, facts).map_err(|error| Trouble {
            reason: HubReason::ObjectInvalid,
            message: error.to_string(),
            stalled: true,
        })
    }

    fn policy(&self, caches: &Caches, named: Named) -> Result<Policy, Trouble> {
        let name = &named.1;
        let found = caches.get::<RolloutPolicy>(&key(Kind::RolloutPolicy, &named));
        let Some(object) = found.as_ref().and_then(|it| it.0.as_ref().ok()) else {
            return Err(Trouble {
                reason: HubReason::PolicyNotFound,
                message: format!(
                    "spec.rolloutPolicyRef: RolloutPolicy {name} does not exist or does not parse"
                ),
                stalled: false,
            });
        };
        parse::policy(&object.spec, self.graces).map_err(|error| Trouble {
            reason: HubReason::ObjectInvalid,
            message: format!("RolloutPolicy {name}: {error}"),
            stalled: true,
        })
    }

    /// Finds the revision that the deployment asks for, or what is in its way. `taken` are the names of all revisions
    /// of a deployment of this name: one of an earlier deployment may still stand there.
    fn target(
        &self,
        caches: &Caches,
        object: &ModelDeployment,
        model: &Named,
        taken: &BTreeSet<String>,
        known: &mut Known,
    ) {
        let found = caches.get::<Model>(&key(Kind::Model, model));
        let Some(found) = found.as_ref().and_then(|it| it.0.as_ref().ok()) else {
            known.trouble = Some(Trouble {
                reason: HubReason::ModelNotFound,
                message: format!(
                    "spec.modelRef: Model {}/{} does not exist",
                    model.0, model.1
                ),
                stalled: false,
            });
            return;
        };
        let Some(content) = revisions::content(object, found) else {
            known.trouble = Some(not_ready(found));
            return;
        };
        let name = match revisions::find(object, content, &known.revisions, taken) {
            Ok(name) => name,
            Err(new) => {
                let name = new.name_any();
                known.revisions.insert(name.clone(), (*new).clone());
                known.new_revision = Some(*new);
                name
            }
        };
        known.target = name.parse().ok();
    }
}

fn unreadable() -> Invalid {
    Invalid::at("ClusterAssignment", "does not parse")
}

/// Where the planner's time begins.
const EPOCH: i64 = 1 << 40;

fn not_ready(model: &Model) -> Trouble {
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
            model.namespace().unwrap_or_default(),
            model.name_any()
        ),
        stalled,
    }
}

/// An object's metadata, whether or not the rest parses.
trait Metadata {
    fn metadata(&self) -> &kube::api::ObjectMeta;
}

impl<K: kube::Resource> Metadata for kube::core::DeserializeGuard<K> {
    fn metadata(&self) -> &kube::api::ObjectMeta {
        kube::Resource::meta(self)
    }
}

#[cfg(test)]
#[path = "view_tests.rs"]
mod tests;
