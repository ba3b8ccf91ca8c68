//! Entries that outlived the definition of their deployment.
//!
//! Owns telling a ModelDeployment that somebody deleted from one that went when its CustomResourceDefinition was
//! deleted: whoever deletes a definition, or makes it anew, orders no model off any site. An assignment that is older
//! than the definition was filled under another one, so what it has of deployments that are not there is kept, until
//! such a deployment is there again: from then on its end is somebody's order. Pure. Must never decide a rollout.

use std::collections::BTreeSet;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::ResourceExt as _;
use rimward_core::ids::DeploymentKey;
use rimward_crds::{Action, ClusterAssignment};

/// On an assignment that is older than the definition: when that was made, once every deployment of the assignment was
/// there again.
pub(crate) const ANNOTATION: &str = "rimward.dev/deployments-since";

/// What is kept, and what was there since this leader began.
#[derive(Debug, Default)]
pub(crate) struct Kept {
    definition: Option<Time>,
    orphans: BTreeSet<DeploymentKey>,
    existed: BTreeSet<DeploymentKey>,
}

impl Kept {
    /// Of a hub whose definition of ModelDeployment was made then; none if that is not known.
    pub(crate) fn since(definition: Option<Time>) -> Self {
        Self {
            definition,
            ..Self::default()
        }
    }

    /// A deployment is there.
    pub(crate) fn exists(&mut self, deployment: &DeploymentKey) {
        self.orphans.remove(deployment);
        self.existed.insert(deployment.clone());
    }

    /// Says whether a deployment that is not there went with its definition.
    pub(crate) fn is_orphan(&self, deployment: &DeploymentKey) -> bool {
        self.orphans.contains(deployment)
    }

    /// Takes an assignment; gives the deployments that it shows to have gone with their definition.
    pub(crate) fn orphans(
        &mut self,
        assignment: &ClusterAssignment,
        exists: &dyn Fn(&DeploymentKey) -> bool,
    ) -> Vec<DeploymentKey> {
        if !self.is_older(assignment) {
            return Vec::new();
        }
        let new: Vec<_> = running(assignment)
            .filter(|key| !self.existed.contains(key) && !exists(key))
            .filter(|key| self.orphans.insert(key.clone()))
            .collect();
        for deployment in &new {
            tracing::warn!(
                %deployment,
                "went with its CustomResourceDefinition, which nobody takes for an order: clusters keep its model \
                 until it is made again, and deleted"
            );
        }
        new
    }

    /// Says what is to be noted on an assignment that is older than the definition, once nothing of it is kept any
    /// more: a leader to come must not take a deployment that is deleted until then for one that went with it.
    pub(crate) fn mark(&self, assignment: &ClusterAssignment) -> Option<String> {
        let all_existed = || running(assignment).all(|key| self.existed.contains(&key));
        (self.is_older(assignment) && all_existed()).then(|| self.since_words())?
    }

    fn is_older(&self, assignment: &ClusterAssignment) -> bool {
        let made = assignment.metadata.creation_timestamp.as_ref();
        let older = matches!((made, &self.definition), (Some(made), Some(since)) if made < since);
        older && assignment.annotations().get(ANNOTATION) != self.since_words().as_ref()
    }

    fn since_words(&self) -> Option<String> {
        Some(self.definition.as_ref()?.0.to_string())
    }
}

fn running(assignment: &ClusterAssignment) -> impl Iterator<Item = DeploymentKey> {
    let running = assignment.spec.models.iter();
    let running = running.filter(|it| it.action == Action::Run);
    running.filter_map(|it| DeploymentKey::parse(&it.namespace, &it.name).ok())
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
    use k8s_openapi::jiff::Timestamp;
    use rimward_core::ids::DeploymentKey;
    use rimward_crds::ClusterAssignment;
    use serde_json::json;

    use super::{ANNOTATION, Kept};

    fn at(second: i64) -> Time {
        Time(Timestamp::from_second(second).unwrap())
    }

    fn key() -> DeploymentKey {
        DeploymentKey::parse("team", "digits").unwrap()
    }

    /// The assignment of a cluster that runs `digits`, made at 100 s.
    fn assignment(action: &str) -> ClusterAssignment {
        let mut assignment: ClusterAssignment = serde_json::from_value(json!({
            "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment", "metadata": {"name": "a"},
            "spec": {"models": [{
                "namespace": "team", "name": "digits", "revision": "digits-1", "endpointName": "digits",
                "package": {"repository": "r", "digest": format!("sha256:{}", "0".repeat(64))},
                "runtime": {}, "health": {}, "maxUnavailable": 1, "action": action,
                "progressDeadlineSeconds": 600,
            }]},
        }))
        .unwrap();
        assignment.metadata.creation_timestamp = Some(at(100));
        assignment
    }

    #[test]
    fn a_deployment_that_is_gone_under_the_definition_that_its_entries_were_made_under_was_deleted()
    {
        for definition in [None, Some(at(99)), Some(at(100))] {
            let mut kept = Kept::since(definition);
            assert!(kept.orphans(&assignment("Run"), &|_| false).is_empty());
            assert!(!kept.is_orphan(&key()));
        }
    }

    #[test]
    fn one_that_went_with_its_definition_is_kept_until_it_was_there_again() {
        let mut kept = Kept::since(Some(at(101)));
        let exists = Cell::new(false);
        let look = |kept: &mut Kept| kept.orphans(&assignment("Run"), &|_| exists.get()).len();
        assert_eq!(look(&mut kept), 1);
        assert_eq!(look(&mut kept), 0, "told once");
        assert!(kept.is_orphan(&key()));
        assert_eq!(kept.mark(&assignment("Run")), None);
        kept.exists(&key());
        exists.set(true);
        assert_eq!(look(&mut kept), 0);
        // From now on the assignment says so itself, to leaders to come.
        let mut marked = assignment("Run");
        let mark = kept.mark(&marked).unwrap();
        marked.metadata.annotations = Some([(ANNOTATION.to_owned(), mark)].into());
        assert_eq!(kept.mark(&marked), None, "once");
        let mut next = Kept::since(Some(at(101)));
        assert!(next.orphans(&marked, &|_| false).is_empty());
        let mut made_anew_again = Kept::since(Some(at(200)));
        assert_eq!(made_anew_again.orphans(&marked, &|_| false), [key()]);
        // And now somebody deletes it.
        exists.set(false);
        assert_eq!(look(&mut kept), 0);
        assert!(!kept.is_orphan(&key()));
    }

    #[test]
    fn a_removal_that_was_ordered_before_goes_on() {
        let mut kept = Kept::since(Some(at(101)));
        assert!(kept.orphans(&assignment("Remove"), &|_| false).is_empty());
    }
}
