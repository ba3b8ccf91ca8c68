//! Which ModelRevision a deployment asks for, and which ones history no longer needs.
//!
//! Pure. An existing revision is found by comparing content, never by hashing again: a field that an
//! upgrade of the operator adds must not roll the fleet.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use kube::api::ObjectMeta;
use kube::{Resource as _, ResourceExt as _};
use rimward_artifact::hash::sha256;
use rimward_crds::{
    Model, ModelDeployment, ModelRevision, ModelRevisionSpec, PackageRef, RevisionModel,
    RevisionOutcome,
};

/// Hex digits of the hash in a revision's name: with the longest deployment name, 63 characters.
const HASH_DIGITS: usize = 10;

/// What the deployment asks for; none while its model is not resolved.
pub(crate) fn content(deployment: &ModelDeployment, model: &Model) -> Option<ModelRevisionSpec> {
    let status = model.status.as_ref()?;
    Some(ModelRevisionSpec {
        deployment_name: deployment.metadata.name.clone()?,
        model: RevisionModel {
            name: model.metadata.name.clone()?,
            family: model.spec.family.clone(),
            version: model.spec.version.clone(),
        },
        package: PackageRef {
            repository: status.repository.clone()?,
            digest: status.digest.clone()?,
        },
        runtime: deployment.spec.runtime.clone(),
        health: deployment.spec.health.clone(),
    })
}

/// Is this revision one of this very deployment, not of an earlier one of the same name?
pub(crate) fn is_of(revision: &ModelRevision, deployment: &ModelDeployment) -> bool {
    let uid = deployment.metadata.uid.as_deref();
    revision.spec.deployment_name == deployment.name_any()
        && revision
            .owner_references()
            .iter()
            .any(|owner| Some(owner.uid.as_str()) == uid)
}

/// The revision with that content, or a new one to be made.
///
/// # Errors
/// The new revision, named after its content and owned by the deployment. Its name is none of `taken`: a revision of an
/// earlier deployment of the same name may have the same content, and would answer each try with a conflict.
pub(crate) fn find(
    deployment: &ModelDeployment,
    content: ModelRevisionSpec,
    existing: &BTreeMap<String, ModelRevision>,
    taken: &BTreeSet<String>,
) -> Result<String, Box<ModelRevision>> {
    if let Some((name, _)) = existing
        .iter()
        .find(|(_, revision)| revision.spec == content)
    {
        return Ok(name.clone());
    }
    let json = serde_json::to_vec(&content).unwrap_or_default();
    // Two contents of one short hash: practically never, and then the next name.
    let name = (0_u8..=255)
        .map(|salt| {
            let hash = sha256(&[json.as_slice(), &[salt]].concat()).hex();
            format!("{}-{}", content.deployment_name, &hash[..HASH_DIGITS])
        })
        .find(|name| !existing.contains_key(name) && !taken.contains(name))
        .unwrap_or_default();
    Err(Box::new(ModelRevision {
        metadata: ObjectMeta {
            name: Some(name),
            namespace: deployment.metadata.namespace.clone(),
            owner_references: Some(vec![OwnerReference {
                controller: Some(true),
                // Deleting the deployment in the foreground must not wait for its revisions.
                block_owner_deletion: Some(false),
                ..deployment.controller_owner_ref(&()).unwrap_or_default()
            }]),
            ..ObjectMeta::default()
        },
        spec: content,
        status: None,
    }))
}

/// Whether there may be anything to collect.
pub(crate) fn may_collect(
    deployment: &ModelDeployment,
    existing: &BTreeMap<String, ModelRevision>,
) -> bool {
    let limit = usize::try_from(deployment.spec.revision_history_limit).unwrap_or(usize::MAX);
    existing.len() > limit
}

/// Revisions that history no longer needs, oldest first: finished or superseded ones beyond
/// `revisionHistoryLimit`, never one that is in use; `previous` is what an undo goes to.
pub(crate) fn collectable(
    deployment: &ModelDeployment,
    existing: &BTreeMap<String, ModelRevision>,
    in_use: &BTreeSet<String>,
    previous: Option<&str>,
) -> Vec<String> {
    let limit = usize::try_from(deployment.spec.revision_history_limit).unwrap_or(usize::MAX);
    let mut idle: Vec<_> = existing
        .iter()
        .filter(|(name, _)| !in_use.contains(*name))
        .map(|(name, revision)| {
            let promoted = revision.status.as_ref().and_then(|status| status.outcome)
                == Some(RevisionOutcome::Promoted);
            let made = revision.creation_timestamp().map(|time| time.0);
            // Undo goes to the one promoted before: it is the last to go. Of one age, a promoted one is worth more.
            (
                Some(name.as_str()) == previous,
                made,
                promoted,
                name.clone(),
            )
        })
        .collect();
    idle.sort();
    let excess = idle.len().saturating_sub(limit);
    idle.into_iter()
        .take(excess)
        .map(|(_, _, _, name)| name)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::{collectable, content, find};
    use rimward_crds::{Model, ModelDeployment, ModelRevision};
    use std::collections::{BTreeMap, BTreeSet};

    fn deployment() -> ModelDeployment {
        serde_yaml::from_str(
            "{apiVersion: rimward.dev/v1alpha1, kind: ModelDeployment,
              metadata: {name: digits, namespace: team, uid: u1},
              spec: {modelRef: {name: digits-1}, placement: {}, revisionHistoryLimit: 1}}",
        )
        .unwrap()
    }

    fn model() -> Model {
        serde_yaml::from_str(&format!(
            "{{apiVersion: rimward.dev/v1alpha1, kind: Model, metadata: {{name: digits-1, namespace: team}},
               spec: {{family: digits, version: 1.0.0, image: 'r.example.com/d:1'}},
               status: {{repository: r.example.com/d, digest: 'sha256:{}'}}}}",
            "a".repeat(64)
        ))
        .unwrap()
    }

    #[test]
    fn a_revision_is_made_once_and_then_found_by_its_content() {
        let made = find(
            &deployment(),
            content(&deployment(), &model()).unwrap(),
            &BTreeMap::new(),
            &BTreeSet::new(),
        )
        .unwrap_err();
        let name = made.metadata.name.clone().unwrap();
        assert!(name.starts_with("digits-") && name.len() == 17, "{name}");
        assert_eq!(
            made.metadata.owner_references.as_ref().unwrap()[0].uid,
            "u1"
        );
        // Under another name than its content hashes to today: found all the same.
        let existing = BTreeMap::from([("digits-older".to_owned(), *made)]);
        let again = find(
            &deployment(),
            content(&deployment(), &model()).unwrap(),
            &existing,
            &BTreeSet::new(),
        );
        assert_eq!(again.unwrap(), "digits-older");
    }

    #[test]
    fn one_amount_of_memory_in_two_spellings_is_one_revision() {
        let spelled = |memory: &str| {
            let mut deployment = deployment();
            deployment.spec.runtime.memory = serde_yaml::from_str(memory).unwrap();
            let content = content(&deployment, &model()).unwrap();
            (deployment, content)
        };
        let (deployment, first) = spelled("64Mi");
        let made = find(&deployment, first, &BTreeMap::new(), &BTreeSet::new()).unwrap_err();
        let name = made.metadata.name.clone().unwrap();
        let existing = BTreeMap::from([(name.clone(), *made)]);
        for memory in ["65536Ki", "67108864", "64Mi"] {
            let (deployment, content) = spelled(memory);
            // Found, and where there is nothing to find it gets the same name.
            assert_eq!(
                find(&deployment, content.clone(), &existing, &BTreeSet::new()).unwrap(),
                name
            );
            let again = find(&deployment, content, &BTreeMap::new(), &BTreeSet::new()).unwrap_err();
            assert_eq!(again.metadata.name.as_deref(), Some(name.as_str()));
        }
        let (deployment, other) = spelled("64M");
        assert!(find(&deployment, other, &existing, &BTreeSet::new()).is_err());
    }

    /// An orphan of an earlier deployment of the same name would answer each try with a conflict, for ever.
    #[test]
    fn a_name_that_an_orphaned_revision_of_equal_content_has_is_not_tried() {
        let content = content(&deployment(), &model()).unwrap();
        let nothing = BTreeMap::new();
        let first = find(&deployment(), content.clone(), &nothing, &BTreeSet::new()).unwrap_err();
        let orphan = first.metadata.name.clone().unwrap();
        let taken = BTreeSet::from([orphan.clone()]);
        let second = find(&deployment(), content, &nothing, &taken).unwrap_err();
        assert_ne!(second.metadata.name, Some(orphan));
    }

    #[test]
    fn another_runtime_is_another_revision() {
        let first = find(
            &deployment(),
            content(&deployment(), &model()).unwrap(),
            &BTreeMap::new(),
            &BTreeSet::new(),
        )
        .unwrap_err();
        let mut changed = deployment();
        changed.spec.runtime.concurrency = 7;
        let existing = BTreeMap::from([(first.metadata.name.clone().unwrap(), *first)]);
        let second = find(
            &changed,
            content(&changed, &model()).unwrap(),
            &existing,
            &BTreeSet::new(),
        )
        .unwrap_err();
        assert!(!existing.contains_key(second.metadata.name.as_ref().unwrap()));
    }

    #[test]
    fn an_unresolved_model_gives_no_revision() {
        let mut model = model();
        model.status = None;
        assert!(content(&deployment(), &model).is_none());
    }

    #[test]
    fn history_keeps_what_is_in_use_and_the_newest_beyond() {
        let revision = |name: &str, day: u8| {
            let mut revision: ModelRevision = *find(
                &deployment(),
                content(&deployment(), &model()).unwrap(),
                &BTreeMap::new(),
                &BTreeSet::new(),
            )
            .unwrap_err();
            revision.metadata.creation_timestamp =
                serde_json::from_str(&format!("\"2026-01-{day:02}T00:00:00Z\"")).unwrap();
            (name.to_owned(), revision)
        };
        let existing = BTreeMap::from([
            revision("old", 1),
            revision("used", 2),
            revision("older", 3),
            revision("new", 4),
        ]);
        let in_use = BTreeSet::from(["used".to_owned()]);
        assert_eq!(
            collectable(&deployment(), &existing, &in_use, None),
            ["old", "older"]
        );
        let kept_for_undo = collectable(&deployment(), &existing, &in_use, Some("old"));
        assert_eq!(kept_for_undo, ["older", "new"]);
    }
}
