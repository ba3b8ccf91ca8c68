//! The plan's entries → a ClusterAssignment's spec, with each revision's frozen content.
//!
//! Owns what an assignment says. Pure: what a cluster runs is decided by the plan, which this only spells out.

use std::collections::BTreeMap;

use rimward_core::fleet::{Action, Amount, Entry};
use rimward_core::ids::DeploymentKey;
use rimward_crds::stored::stored_bytes;
use rimward_crds::{
    AssignedModel, ClusterAssignmentSpec, CountOrPercent, ModelDeployment, ModelRevision,
};
use thiserror::Error;

/// An entry cannot be spelled out, so the cluster keeps what it has of that deployment.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
#[error("ModelRevision {revision} of deployment {deployment} is gone")]
pub(crate) struct RevisionGone {
    /// The deployment.
    pub(crate) deployment: DeploymentKey,
    /// Its revision.
    pub(crate) revision: String,
}

/// Where the content of a deployment's entries comes from.
#[derive(Clone, Copy)]
pub(crate) struct Content<'a> {
    /// The deployment, where it could be read.
    pub(crate) deployment: Option<&'a ModelDeployment>,
    /// Its revisions, by name.
    pub(crate) revisions: &'a BTreeMap<String, ModelRevision>,
}

/// Finds the content of a deployment's entries; none when it is gone.
pub(crate) type Contents<'a> = dyn Fn(&DeploymentKey) -> Option<Content<'a>> + 'a;

/// Spells out one cluster's entries. Returns the spec and the entries that could not be spelled out, which stay as
/// they stand.
pub(crate) fn assignment(
    planned: &BTreeMap<DeploymentKey, Entry>,
    standing: &ClusterAssignmentSpec,
    contents: &Contents<'_>,
) -> (ClusterAssignmentSpec, Vec<RevisionGone>) {
    let old: BTreeMap<DeploymentKey, &AssignedModel> = standing
        .models
        .iter()
        .filter_map(|model| {
            let key = DeploymentKey::parse(&model.namespace, &model.name).ok()?;
            Some((key, model))
        })
        .collect();
    let mut models = Vec::new();
    let mut gone = Vec::new();
    for (key, entry) in planned {
        let standing = old.get(key).copied();
        match spelled_out(key, entry, standing, contents) {
            Ok(model) => models.push(model),
            Err(error) => {
                gone.push(error);
                models.extend(standing.cloned());
            }
        }
    }
    (ClusterAssignmentSpec { models }, gone)
}

fn spelled_out(
    key: &DeploymentKey,
    entry: &Entry,
    standing: Option<&AssignedModel>,
    contents: &Contents<'_>,
) -> Result<AssignedModel, RevisionGone> {
    let Entry {
        revision,
        attempt,
        forget_verdicts_before,
        action,
        replaces,
        stage,
        endpoint_name,
        nodes_max_unavailable,
        nodes_max_failures,
        progress_deadline_seconds,
    } = entry;
    let content = contents(key);
    let frozen = content.and_then(|content| content.revisions.get(revision.as_str()));
    // A deployment that was deleted took its revisions with it; its entries are still to be removed.
    let same = standing.filter(|standing| standing.revision == revision.as_str());
    let (package, runtime, health) = match (frozen, same) {
        (Some(frozen), _) => (
            &frozen.spec.package,
            &frozen.spec.runtime,
            &frozen.spec.health,
        ),
        (None, Some(same)) => (&same.package, &same.runtime, &same.health),
        (None, None) => {
            return Err(RevisionGone {
                deployment: key.clone(),
                revision: revision.to_string(),
            });
        }
    };
    let deployment = content.and_then(|content| content.deployment);
    let node_selector = match (deployment, action, standing) {
        (Some(deployment), Action::Run, _) => deployment.spec.placement.node_selector.clone(),
        // What is removed is removed from where it was put.
        (_, _, Some(standing)) => standing.node_selector.clone(),
        (_, _, None) => None,
    };
    Ok(AssignedModel {
        namespace: key.namespace.to_string(),
        name: key.name.to_string(),
        endpoint_name: endpoint_name.to_string(),
        revision: revision.to_string(),
        attempt: *attempt,
        forget_verdicts_before: *forget_verdicts_before,
        replaces: replaces.as_ref().map(ToString::to_string),
        package: package.clone(),
        runtime: runtime.clone(),
        health: health.clone(),
        node_selector,
        max_unavailable: match *nodes_max_unavailable {
            Amount::Count(count) => CountOrPercent::Count(count),
            Amount::Percent(percent) => {
                CountOrPercent::Percent(u8::try_from(percent).unwrap_or(100))
            }
        },
        max_failures: *nodes_max_failures,
        action: match action {
            Action::Run => rimward_crds::Action::Run,
            Action::Remove => rimward_crds::Action::Remove,
        },
        stage: Some(stage.to_string()),
        progress_deadline_seconds: *progress_deadline_seconds,
    })
}

/// Bytes of the revision's largest entry as stored: the longest names and numbers counted.
pub(crate) fn bytes(deployment: &ModelDeployment, revision: &ModelRevision) -> u32 {
    let name = deployment.metadata.name.clone().unwrap_or_default();
    let entry = AssignedModel {
        namespace: deployment.metadata.namespace.clone().unwrap_or_default(),
        endpoint_name: deployment
            .spec
            .endpoint_name
            .clone()
            .unwrap_or_else(|| name.clone()),
        name,
        revision: revision.metadata.name.clone().unwrap_or_default(),
        attempt: u32::MAX,
        forget_verdicts_before: u32::MAX,
        replaces: Some("r".repeat(63)),
        package: revision.spec.package.clone(),
        runtime: revision.spec.runtime.clone(),
        health: revision.spec.health.clone(),
        node_selector: deployment.spec.placement.node_selector.clone(),
        max_unavailable: CountOrPercent::Count(100_000),
        max_failures: 100_000,
        action: rimward_crds::Action::Remove,
        stage: Some("s".repeat(63)),
        progress_deadline_seconds: 604_800,
    };
    u32::try_from(stored_bytes(&entry)).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests {
    use super::{Content, assignment};
    use rimward_core::fleet::{Action, Amount, Entry};
    use rimward_core::ids::DeploymentKey;
    use rimward_crds::{ClusterAssignmentSpec, ModelRevision};
    use std::collections::BTreeMap;

    fn key(name: &str) -> DeploymentKey {
        DeploymentKey::parse("team", name).unwrap()
    }

    fn entry(revision: &str, action: Action) -> Entry {
        Entry {
            revision: revision.parse().unwrap(),
            attempt: 1,
            forget_verdicts_before: 0,
            action,
            replaces: None,
            stage: "all".parse().unwrap(),
            endpoint_name: "digits".parse().unwrap(),
            nodes_max_unavailable: Amount::ONE,
            nodes_max_failures: 0,
            progress_deadline_seconds: 60,
        }
    }

    fn revision(name: &str) -> (String, ModelRevision) {
        let text = format!(
            "{{apiVersion: rimward.dev/v1alpha1, kind: ModelRevision, metadata: {{name: {name}}},
               spec: {{deploymentName: d, model: {{name: m, family: f, version: 1.0.0}}, health: {{}},
                       package: {{repository: r.example.com/{name}, digest: 'sha256:aa'}},
                       runtime: {{memory: 64Mi, concurrency: 3, timeoutMilliseconds: 9}}}}}}"
        );
        (name.to_owned(), serde_yaml::from_str(&text).unwrap())
    }

    /// Spells out one entry of deployment `d` beside what stands; returns revisions and packages.
    fn check(
        planned: Option<Entry>,
        standing: &ClusterAssignmentSpec,
        known: &[&str],
    ) -> (ClusterAssignmentSpec, usize) {
        let revisions: BTreeMap<_, _> = known.iter().map(|name| revision(name)).collect();
        let contents = |_: &DeploymentKey| {
            Some(Content {
                deployment: None,
                revisions: &revisions,
            })
        };
        let planned = planned.map(|entry| (key("d"), entry)).into_iter().collect();
        let (spec, gone) = assignment(&planned, standing, &contents);
        (spec, gone.len())
    }

    /// What stands once deployment `d` was given `d-1`.
    fn standing() -> ClusterAssignmentSpec {
        let run = entry("d-1", Action::Run);
        let (spec, gone) = check(Some(run), &ClusterAssignmentSpec::default(), &["d-1"]);
        assert_eq!(gone, 0);
        spec
    }

    #[test]
    fn an_entry_carries_its_revisions_frozen_content() {
        let spec = standing();
        assert_eq!(spec.models[0].package.repository, "r.example.com/d-1");
        assert_eq!(spec.models[0].runtime.concurrency, 3);
    }

    #[test]
    fn an_entry_can_be_removed_after_its_deployment_took_the_revision_away() {
        let standing = standing();
        let (spec, gone) = check(Some(entry("d-1", Action::Remove)), &standing, &[]);
        assert_eq!(gone, 0);
        assert_eq!(spec.models[0].action, rimward_crds::Action::Remove);
        assert_eq!(spec.models[0].package, standing.models[0].package);
    }

    #[test]
    fn an_entry_whose_content_is_nowhere_leaves_what_stands_and_is_told() {
        let standing = standing();
        let (spec, gone) = check(Some(entry("d-2", Action::Run)), &standing, &["d-1"]);
        assert_eq!((spec, gone), (standing, 1));
    }
}
