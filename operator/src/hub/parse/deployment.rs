//! ModelDeployment, with its revisions and its policy → [`Deployment`].

use std::collections::BTreeMap;

use rimward_core::fleet::{
    ActionKind, ActionRequest, Decided, Deployment, Outcome, Passed, Placement, Policy, Revision,
    StagePhase, StageRecord, Standing, Undo,
};
use rimward_core::ids::{DeploymentName, EndpointName, RevisionName};
use rimward_crds::rollout_action::{ActionOutcome, ActionVerb};
use rimward_crds::{
    ModelDeployment, ModelDeploymentStatus, ModelRevision, RevisionOutcome, RolloutAction,
};

use super::policy::offline_default;
use super::{Invalid, amount, created, name, selector};
use crate::hub::entries;

/// What beside the object itself a deployment is parsed from.
pub(crate) struct DeploymentFacts<'a> {
    /// The revision that the spec asks for; none while its model is not resolved.
    pub(crate) target: Option<RevisionName>,
    /// The deployment's revisions, the target included.
    pub(crate) revisions: &'a BTreeMap<String, ModelRevision>,
    /// Its policy, parsed; none when it names none.
    pub(crate) policy: Option<Policy>,
    /// Actions that have no outcome yet.
    pub(crate) actions: Vec<ActionRequest>,
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
                attempt: status.attempt.unwrap_or(0),
                message: status.message.unwrap_or_default(),
            },
        );
    }
    Ok(Deployment {
        endpoint_name,
        created: created(object),
        update: facts.target,
        revisions,
        placement: Placement {
            clusters: selector(spec.placement.cluster_selector.as_ref()),
            max_clusters: spec.placement.max_clusters,
        },
        policy: facts.policy.unwrap_or_else(|| Policy {
            offline: offline_default(facts.offline_grace_seconds),
            ..Policy::default()
        }),
        paused: spec.paused,
        deleting: object.metadata.deletion_timestamp.is_some(),
        min_available: spec.min_available.as_ref().map(amount),
        progress_deadline_seconds: spec.progress_deadline_seconds,
        standing: standing(status)?,
        actions: facts.actions,
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

/// What the hub persisted.
fn standing(status: &ModelDeploymentStatus) -> Result<Standing, Invalid> {
    let revision = |field: &str, text: &Option<String>| {
        let text = text.as_deref();
        text.map(|text| name(field, text)).transpose()
    };
    let undo = match &status.undo {
        Some(undo) => Some(Undo {
            from: name("status.undo.from", &undo.from)?,
            to: name("status.undo.to", &undo.to)?,
        }),
        None => None,
    };
    let decided = status.actions.iter().map(|action| Decided {
        uid: action.uid.clone(),
        name: action.name.clone(),
        applied: action.outcome == ActionOutcome::Applied,
        message: action.message.clone(),
    });
    Ok(Standing {
        current: revision("status.currentRevision", &status.current_revision)?,
        previous: revision("status.previousRevision", &status.previous_revision)?,
        stage: record(status)?,
        undo,
        forget_verdicts_before: status.forget_verdicts_before,
        decided: decided.collect(),
    })
}

/// The rollout's place. Its revision is `updateRevision`.
fn record(status: &ModelDeploymentStatus) -> Result<Option<StageRecord>, Invalid> {
    let (Some(stage), Some(revision)) = (&status.stage, &status.update_revision) else {
        return Ok(None);
    };
    let passed = stage.passed.iter().map(|passed| {
        Ok(Passed {
            stage: name("status.stage.passed.stage", &passed.stage)?,
            suspects: passed.suspects,
            failed: passed.failed,
        })
    });
    Ok(Some(StageRecord {
        revision: name("status.updateRevision", revision)?,
        attempt: stage.attempt,
        name: name("status.stage.name", &stage.name)?,
        index: stage.index.saturating_sub(1),
        of: stage.of,
        phase: phase(stage.phase),
        baked_seconds: stage.baked_seconds,
        elapsed_seconds: stage.elapsed_seconds,
        passed: passed.collect::<Result<_, _>>()?,
        aborted: stage.aborted,
        doubt_overruled: stage.doubt_overruled,
    }))
}

/// A RolloutAction that has no outcome yet.
///
/// # Errors
/// [`Invalid`], naming the field.
pub(crate) fn action(object: &RolloutAction) -> Result<ActionRequest, Invalid> {
    let spec = &object.spec;
    let kind = match spec.action {
        ActionVerb::Retry => ActionKind::Retry {
            forget_verdicts: spec.forget_verdicts,
        },
        ActionVerb::Promote => ActionKind::Promote {
            stage: match &spec.stage {
                Some(stage) => Some(name("spec.stage", stage)?),
                None => None,
            },
        },
        ActionVerb::Abort => ActionKind::Abort,
        ActionVerb::Undo => ActionKind::Undo,
    };
    Ok(ActionRequest {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        name: object.metadata.name.clone().unwrap_or_default(),
        created: created(object),
        kind,
        revision: match &spec.revision {
            Some(revision) => Some(name("spec.revision", revision)?),
            None => None,
        },
        attempt: spec.attempt,
    })
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
