//! ModelDeployment, with its revisions and its policy → [`Deployment`].

use std::collections::BTreeMap;

use rimward_core::fleet::{
    Deployment, Outcome, Placement, Policy, Revision, StagePhase, StageRecord,
};
use rimward_core::ids::{DeploymentName, EndpointName, RevisionName};
use rimward_core::time::Timestamp;
use rimward_crds::common::Time;
use rimward_crds::{ModelDeployment, ModelDeploymentStatus, ModelRevision, RevisionOutcome};

use super::policy::offline;
use super::{Invalid, created, name, selector};
use crate::hub::entries;

/// What beside the object itself a deployment is parsed from.
pub(crate) struct DeploymentFacts<'a> {
    /// The revision that the spec asks for; none while its model is not resolved.
    pub(crate) target: Option<RevisionName>,
    /// The deployment's revisions, the target included.
    pub(crate) revisions: &'a BTreeMap<String, ModelRevision>,
    /// Its policy, parsed; none when it names none.
    pub(crate) policy: Option<Policy>,
    /// The operator's flag.
    pub(crate) offline_grace_seconds: u32,
}

/// Parses a deployment.
///
/// # Errors
/// [`Invalid`], naming the field.
pub(crate) fn deployment(
    object: &ModelDeployment,
    facts: DeploymentFacts<'_>,
) -> Result<Deployment, Invalid> {
    let spec = &object.spec;
    let own_name: DeploymentName = name(
        "metadata.name",
        object.metadata.name.as_deref().unwrap_or_default(),
    )?;
    let endpoint_name: EndpointName = name(
        "spec.endpointName",
        spec.endpoint_name.as_deref().unwrap_or(own_name.as_str()),
    )?;
    let default_status = ModelDeploymentStatus::default();
    let status = object.status.as_ref().unwrap_or(&default_status);
    let mut revisions = BTreeMap::new();
    for (text, revision) in facts.revisions {
        let key: RevisionName = name("revision", text)?;
        let status = revision.status.clone().unwrap_or_default();
        revisions.insert(
            key,
            Revision {
                outcome: outcome(status.outcome),
                entry_bytes: entries::bytes(object, revision),
                message: status.message.unwrap_or_default(),
            },
        );
    }
    Ok(Deployment {
        endpoint_name,
        created: created(object),
        target: facts.target,
        current: status
            .current_revision
            .as_deref()
            .map(|text| name("status.currentRevision", text))
            .transpose()?,
        revisions,
        placement: Placement {
            clusters: selector(spec.placement.cluster_selector.as_ref()),
            max_clusters: spec.placement.max_clusters,
        },
        policy: facts.policy.unwrap_or_else(|| Policy {
            offline: offline(facts.offline_grace_seconds),
            ..Policy::default()
        }),
        paused: spec.paused,
        deleting: object.metadata.deletion_timestamp.is_some(),
        progress_deadline_seconds: spec.progress_deadline_seconds,
        stage: record(status)?,
    })
}

fn outcome(outcome: Option<RevisionOutcome>) -> Outcome {
    match outcome {
        Some(RevisionOutcome::Promoted) => Outcome::Promoted,
        Some(RevisionOutcome::Failed) => Outcome::Failed,
        Some(RevisionOutcome::Stopped) => Outcome::Stopped,
        Some(RevisionOutcome::Pending) | None => Outcome::Pending,
    }
}

/// The rollout's place as the hub persisted it. Its revision is `updateRevision`, the number of
/// updated clusters `clusters.updated`.
fn record(status: &ModelDeploymentStatus) -> Result<Option<StageRecord>, Invalid> {
    let (Some(stage), Some(revision)) = (&status.stage, &status.update_revision) else {
        return Ok(None);
    };
    let time = |time: &Option<Time>| time.as_ref().map(|time| Timestamp(time.0.as_second()));
    let started = time(&stage.started_time).unwrap_or_default();
    Ok(Some(StageRecord {
        revision: name("status.updateRevision", revision)?,
        name: name("status.stage.name", &stage.name)?,
        index: stage.index.saturating_sub(1),
        of: stage.of,
        phase: phase(stage.phase),
        started,
        bake_started: time(&stage.bake_started_time),
        last_progress: time(&stage.last_progress_time).unwrap_or(started),
        clusters_updated: status
            .clusters
            .as_ref()
            .map_or(0, |clusters| clusters.updated),
    }))
}

fn phase(phase: rimward_crds::StagePhase) -> StagePhase {
    use rimward_crds::StagePhase as Api;
    match phase {
        Api::Progressing => StagePhase::Progressing,
        Api::Baking => StagePhase::Baking,
        Api::Completed => StagePhase::Completed,
        Api::Failed => StagePhase::Failed,
        Api::Stopped => StagePhase::Stopped,
        Api::RollingBack => StagePhase::RollingBack,
        Api::RolledBack => StagePhase::RolledBack,
    }
}
