//! A Model's status: the digest, pinned for ever, and what the package says.

use k8s_openapi::jiff::Timestamp;
use rimward_artifact::fetch::Inspected;
use rimward_artifact::package::tensor::TensorSpec;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{Model, ModelStatus, TensorInfo, VariantInfo};

use super::{Says, conditions};
use crate::hub::models::Resolution;

/// What the status shall say. A digest that stands there stays, whatever the registry says by now.
pub(crate) fn model(object: &Model, result: Option<&Resolution>, now: Timestamp) -> ModelStatus {
    let old = object.status.clone().unwrap_or_default();
    let generation = object.metadata.generation;
    let says = |status: &ModelStatus, says| ModelStatus {
        observed_generation: generation,
        conditions: conditions(&old.conditions, generation, now, says),
        ..status.clone()
    };
    if old.digest.is_some() {
        return says(&old, resolved(&old));
    }
    match result {
        Some(Resolution::Resolved {
            repository,
            package,
        }) => {
            let pinned = described(repository, package);
            says(&pinned, resolved(&pinned))
        }
        Some(Resolution::Failed { reason, message }) => {
            says(&ModelStatus::default(), failed(*reason, message))
        }
        // Tried before this replica led: what that one found stands until there is news.
        None if old.observed_generation == generation && !old.conditions.is_empty() => old,
        None => says(
            &ModelStatus::default(),
            vec![
                Says::new(
                    condition::RESOLVED,
                    false,
                    HubReason::Progressing.as_str(),
                    "the package is being read",
                ),
                Says::new(
                    condition::READY,
                    false,
                    HubReason::Progressing.as_str(),
                    "the package is being read",
                ),
                Says::new(
                    condition::RECONCILING,
                    true,
                    HubReason::Progressing.as_str(),
                    "the package is being read",
                ),
                Says::new(
                    condition::STALLED,
                    false,
                    HubReason::Progressing.as_str(),
                    "",
                ),
            ],
        ),
    }
}

fn resolved(status: &ModelStatus) -> Vec<Says> {
    let reason = HubReason::Resolved.as_str();
    let message = format!(
        "{}@{}",
        status.repository.as_deref().unwrap_or_default(),
        status.digest.as_deref().unwrap_or_default()
    );
    vec![
        Says::new(condition::RESOLVED, true, reason, message.clone()),
        Says::new(condition::READY, true, reason, message),
        Says::new(condition::RECONCILING, false, reason, ""),
        Says::new(condition::STALLED, false, reason, ""),
    ]
}

fn failed(reason: HubReason, message: &str) -> Vec<Says> {
    let permanent = Resolution::is_permanent(reason);
    let reason = reason.as_str();
    vec![
        Says::new(condition::RESOLVED, false, reason, message),
        Says::new(condition::READY, false, reason, message),
        Says::new(condition::RECONCILING, !permanent, reason, message),
        Says::new(condition::STALLED, permanent, reason, message),
    ]
}

fn described(repository: &str, package: &Inspected) -> ModelStatus {
    let Inspected {
        digest,
        manifest,
        config,
    } = package;
    let signed = |number: u64| i64::try_from(number).unwrap_or(i64::MAX);
    ModelStatus {
        observed_generation: None,
        conditions: Vec::new(),
        repository: Some(repository.to_owned()),
        digest: Some(digest.to_string()),
        size_bytes: Some(signed(manifest.total_bytes())),
        release_counter: Some(signed(config.release_counter)),
        variants: config
            .variants
            .iter()
            .map(|variant| VariantInfo {
                name: variant.name.as_str().to_owned(),
                format: variant.format.as_str().to_owned(),
                precision: variant.precision.as_str().to_owned(),
            })
            .collect(),
        inputs: config.inputs.iter().map(tensor).collect(),
        outputs: config.outputs.iter().map(tensor).collect(),
    }
}

fn tensor(spec: &TensorSpec) -> TensorInfo {
    TensorInfo {
        name: spec.name.as_str().to_owned(),
        datatype: spec.datatype.name().to_owned(),
        shape: spec.shape.clone(),
    }
}

#[cfg(test)]
mod tests {
    use super::model;
    use crate::hub::models::Resolution;
    use crate::hub::status::find;
    use k8s_openapi::jiff::Timestamp;
    use rimward_crds::Model;
    use rimward_crds::reasons::HubReason;

    fn object(status: &str) -> Model {
        serde_yaml::from_str(&format!(
            "{{apiVersion: rimward.dev/v1alpha1, kind: Model, metadata: {{name: m, generation: 2}},
               spec: {{family: digits, version: 1.0.0, image: 'r.example.com/d:1'}}, status: {status}}}"
        ))
        .unwrap()
    }

    fn failure(reason: HubReason) -> Resolution {
        Resolution::Failed {
            reason,
            message: "r.example.com/d:1: not found".to_owned(),
        }
    }

    #[test]
    fn a_missing_tag_stalls_and_an_absent_registry_does_not() {
        for (reason, stalled) in [
            (HubReason::ImageNotFound, "True"),
            (HubReason::RegistryUnavailable, "False"),
        ] {
            let status = model(&object("{}"), Some(&failure(reason)), Timestamp::UNIX_EPOCH);
            let found = find(&status.conditions, "Stalled").unwrap();
            assert_eq!(found.status, stalled, "{reason}");
            assert_eq!(found.reason, reason.as_str());
            assert!(found.message.contains("r.example.com/d:1"));
            assert_eq!(status.observed_generation, Some(2));
        }
    }

    #[test]
    fn a_pinned_digest_outlives_its_tag() {
        let pinned = object("{repository: r.example.com/d, digest: 'sha256:aa', sizeBytes: 7}");
        let status = model(
            &pinned,
            Some(&failure(HubReason::ImageNotFound)),
            Timestamp::UNIX_EPOCH,
        );
        assert_eq!(status.digest.as_deref(), Some("sha256:aa"));
        assert_eq!(status.size_bytes, Some(7));
        assert_eq!(find(&status.conditions, "Ready").unwrap().status, "True");
    }

    #[test]
    fn a_new_leader_keeps_what_the_old_one_found() {
        let failed = model(
            &object("{}"),
            Some(&failure(HubReason::ImageNotFound)),
            Timestamp::UNIX_EPOCH,
        );
        let mut stored = object("{}");
        stored.status = Some(failed.clone());
        assert_eq!(model(&stored, None, Timestamp::now()), failed);
    }
}
