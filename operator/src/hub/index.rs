//! Which deployments and clusters a change of an object touches.
//!
//! Owns the names only, kept up by what the loop looks at. Must never hold an object, nor decide anything.

use std::collections::{BTreeMap, BTreeSet};

use rimward_crds::{ModelDeployment, ModelRevision, RolloutAction};

use super::feed::Dirty;
use super::observe::Caches;
use crate::metrics::Kind;
use crate::objects::ObjectKey;

/// A namespace and a name in it.
pub(crate) type Named = (String, String);

/// Names that refer to each other.
#[derive(Debug, Default)]
pub(crate) struct Index {
    /// Deployments by the Model that they name, and which each names.
    by_model: Links,
    /// Deployments by the policy that they name.
    by_policy: Links,
    /// ModelRevisions by their deployment.
    by_revision: Links,
    /// RolloutActions without an outcome, by their deployment.
    by_action: Links,
}

/// Many-to-one: what each names, and who names it.
#[derive(Debug, Default)]
struct Links {
    names: BTreeMap<Named, Named>,
    named_by: BTreeMap<Named, BTreeSet<Named>>,
}

impl Links {
    fn set(&mut self, from: &Named, to: Option<Named>) -> Option<Named> {
        let before = match &to {
            Some(to) => self.names.insert(from.clone(), to.clone()),
            None => self.names.remove(from),
        };
        if before == to {
            return before;
        }
        if let Some(before) = &before
            && let Some(from_all) = self.named_by.get_mut(before)
        {
            from_all.remove(from);
            if from_all.is_empty() {
                self.named_by.remove(before);
            }
        }
        if let Some(to) = to {
            self.named_by.entry(to).or_default().insert(from.clone());
        }
        before
    }

    fn of(&self, to: &Named) -> BTreeSet<Named> {
        self.named_by.get(to).cloned().unwrap_or_default()
    }
}

/// What the loop has to look at.
#[derive(Debug, Default)]
pub(crate) struct Work {
    /// ModelDeployments.
    pub(crate) deployments: BTreeSet<Named>,
    /// EdgeClusters, with their assignments and heartbeats.
    pub(crate) clusters: BTreeSet<String>,
    /// Models.
    pub(crate) models: BTreeSet<Named>,
    /// RolloutPolicies.
    pub(crate) policies: BTreeSet<Named>,
    /// ModelRevisions, for whether they parse.
    pub(crate) revisions: BTreeSet<Named>,
    /// RolloutActions.
    pub(crate) actions: BTreeSet<Named>,
}

fn named(key: &ObjectKey) -> Named {
    (key.namespace.clone().unwrap_or_default(), key.name.clone())
}

/// The name of an object of a kind that the hub knows.
pub(crate) fn key(kind: Kind, named: &Named) -> ObjectKey {
    ObjectKey {
        kind,
        namespace: Some(named.0.clone()).filter(|namespace| !namespace.is_empty()),
        name: named.1.clone(),
    }
}

impl Index {
    /// Finds out what a change touches, and takes in who names whom now.
    pub(crate) fn work(&mut self, caches: &Caches, dirty: &Dirty) -> Work {
        let mut work = Work::default();
        match dirty {
            Dirty::Keys(keys) => {
                for key in keys {
                    self.touch(caches, key, &mut work);
                }
            }
            Dirty::Everything => {
                for key in caches.keys() {
                    self.touch(caches, &key, &mut work);
                }
                // Those that are known and gone.
                let known = self.by_model.names.keys().cloned();
                work.deployments.extend(known);
            }
        }
        work
    }

    fn touch(&mut self, caches: &Caches, key: &ObjectKey, work: &mut Work) {
        let name = named(key);
        match key.kind {
            Kind::ModelDeployment => {
                self.deployment(caches, key, &name);
                work.deployments.insert(name.clone());
                // What its policies say about stages may be other words now.
                if let Some(policy) = self.by_policy.names.get(&name) {
                    work.policies.insert(policy.clone());
                }
                // One that waits for a deployment that is gone now has to be told.
                work.actions.extend(self.by_action.of(&name));
            }
            Kind::Model => {
                work.deployments.extend(self.by_model.of(&name));
                work.models.insert(name);
            }
            Kind::RolloutPolicy => {
                work.deployments.extend(self.by_policy.of(&name));
                work.policies.insert(name);
            }
            Kind::ModelRevision => {
                let revision = caches.get::<ModelRevision>(key);
                let of = revision.as_ref().and_then(|it| it.0.as_ref().ok());
                let of = of.map(|it| (name.0.clone(), it.spec.deployment_name.clone()));
                let before = self.by_revision.set(&name, of.clone());
                work.deployments.extend(before.into_iter().chain(of));
                work.revisions.insert(name);
            }
            Kind::RolloutAction => {
                let action = caches.get::<RolloutAction>(key);
                let open = action.as_ref().and_then(|it| it.0.as_ref().ok());
                let open = open.filter(|it| is_open(it));
                let of = open.map(|it| (name.0.clone(), it.spec.deployment_name.clone()));
                let before = self.by_action.set(&name, of.clone());
                work.deployments.extend(before.into_iter().chain(of));
                work.actions.insert(name);
            }
            Kind::EdgeCluster => {
                work.clusters.insert(name.1);
            }
            Kind::ClusterAssignment | Kind::Lease => {
                work.clusters.insert(name.1);
            }
            Kind::EdgeNode | Kind::Secret | Kind::Event => {}
        }
    }

    fn deployment(&mut self, caches: &Caches, key: &ObjectKey, name: &Named) {
        let object = caches.get::<ModelDeployment>(key);
        let object = object.as_ref().and_then(|it| it.0.as_ref().ok());
        let model = object.map(|it| (name.0.clone(), it.spec.model_ref.name.clone()));
        let policy = object.and_then(|it| it.spec.rollout_policy_ref.as_ref());
        let policy = policy.map(|it| (name.0.clone(), it.name.clone()));
        self.by_model.set(name, model);
        self.by_policy.set(name, policy);
    }

    /// Names of a deployment's revisions, of earlier deployments of that name too.
    pub(crate) fn revisions_of(&self, deployment: &Named) -> BTreeSet<Named> {
        self.by_revision.of(deployment)
    }

    /// Actions on a deployment that have no outcome yet.
    pub(crate) fn actions_of(&self, deployment: &Named) -> BTreeSet<Named> {
        self.by_action.of(deployment)
    }

    /// Deployments that name a policy.
    pub(crate) fn users_of_policy(&self, policy: &Named) -> BTreeSet<Named> {
        self.by_policy.of(policy)
    }
}

/// It was neither applied nor refused yet.
pub(crate) fn is_open(action: &RolloutAction) -> bool {
    let status = action.status.as_ref();
    status.is_none_or(|status| status.outcome.is_none())
        && action.metadata.deletion_timestamp.is_none()
}

#[cfg(test)]
mod tests {
    use kube::core::DynamicObject;
    use serde_json::{Value, json};

    use super::{Index, Named, key};
    use crate::hub::feed::Dirty;
    use crate::hub::observe::Caches;
    use crate::metrics::Kind;

    fn named(name: &str) -> Named {
        ("team".to_owned(), name.to_owned())
    }

    fn wrote(caches: &Caches, kind: Kind, name: &str, spec: &Value) {
        let object: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": format!("{kind:?}"),
            "metadata": {"name": name, "namespace": "team", "uid": name, "resourceVersion": "5"},
            "spec": spec,
        }))
        .unwrap();
        caches.wrote(kind, object);
    }

    #[test]
    fn a_deployment_that_goes_leads_to_the_actions_that_wait_for_it() {
        let (caches, mut index) = (Caches::unwatched(), Index::default());
        let spec = json!({"deploymentName": "digits", "action": "Retry", "by": "anna"});
        wrote(&caches, Kind::RolloutAction, "again", &spec);
        let deployment = key(Kind::ModelDeployment, &named("digits"));
        wrote(
            &caches,
            Kind::ModelDeployment,
            "digits",
            &json!({"modelRef": {"name": "digits-1"}, "placement": {}}),
        );
        index.work(&caches, &Dirty::Everything);
        caches.asked(&deployment, 5, None);
        let work = index.work(&caches, &Dirty::Keys([deployment].into()));
        assert!(work.deployments.contains(&named("digits")));
        assert_eq!(work.actions, [named("again")].into());
    }
}
