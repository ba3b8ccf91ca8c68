//! A ModelDeployment's status: the plan's words, and the place of its rollout.

use k8s_openapi::jiff::Timestamp;
use rimward_core::fleet::{self, Decided, DeploymentPlan, StageRecord, Standing};
use rimward_core::ids::RevisionName;
use rimward_core::summary::Counts;
use rimward_crds::common::Time;
use rimward_crds::model_deployment::{DecidedAction, UndoStatus};
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::rollout_action::ActionOutcome;
use rimward_crds::{
    ModelDeployment, ModelDeploymentStatus, PassedStage, ReadyCounts, StagePhase, StageStatus,
};

use super::{Says, conditions};
use crate::events::clip;

/// Bytes of `waitingFor`, as the schema has it.
const WAITING_BYTES_MAX: usize = 1024;

/// Something about the deployment's references, which the plan does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    /// From the closed list.
    pub(crate) reason: HubReason,
    /// One sentence.
    pub(crate) message: String,
    /// Nothing goes on until someone acts.
    pub(crate) stalled: bool,
}

/// What the status of a planned deployment shall say.
pub(crate) fn planned(
    object: &ModelDeployment,
    plan: &DeploymentPlan,
    target: Option<&RevisionName>,
    trouble: Option<&Trouble>,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let generation = object.metadata.generation;
    let Standing {
        current,
        previous,
        stage: record,
        undo,
        forget_verdicts_before,
        decided,
    } = &plan.standing;
    let update = record.as_ref().map(|record| &record.revision).or(target);
    let before = object
        .status
        .as_ref()
        .and_then(|status| status.stage.as_ref());
    let same_rollout = object
        .status
        .as_ref()
        .is_some_and(|status| status.update_revision == update.map(ToString::to_string));
    let before = before.filter(|_| same_rollout);
    let progress = plan.progress();
    let further = object
        .status
        .as_ref()
        .is_none_or(|status| status.progress.as_ref() != Some(&progress));
    let waiting = trouble
        .map(|trouble| trouble.message.clone())
        .or_else(|| plan.waiting_for());
    ModelDeploymentStatus {
        observed_generation: generation,
        conditions: conditions(
            old(object),
            generation,
            now,
            said(&plan.conditions, trouble),
        ),
        current_revision: current.as_ref().map(ToString::to_string),
        previous_revision: previous.as_ref().map(ToString::to_string),
        forget_verdicts_before: *forget_verdicts_before,
        undo: undo.as_ref().map(|undo| UndoStatus {
            from: undo.from.to_string(),
            to: undo.to.to_string(),
        }),
        actions: decided.iter().map(action).collect(),
        update_revision: update.map(ToString::to_string),
        stage: record
            .as_ref()
            .map(|record| stage(record, before, further, now)),
        progress: Some(progress),
        clusters: Some(counts(&plan.clusters)),
        nodes: Some(counts(&plan.nodes)),
        waiting_for: waiting.map(|words| clip(&words, WAITING_BYTES_MAX).to_owned()),
    }
}

/// What the status of a deployment shall say that cannot be planned: all else stays as it stands, as does
/// what clusters run.
pub(crate) fn unplanned(
    object: &ModelDeployment,
    trouble: &Trouble,
    now: Timestamp,
) -> ModelDeploymentStatus {
    let generation = object.metadata.generation;
    let kept = object.status.clone().unwrap_or_default();
    let Trouble {
        reason,
        message,
        stalled,
    } = trouble;
    let mut says = vec![
        Says::new(condition::READY, false, reason.as_str(), message),
        Says::new(condition::RECONCILING, !stalled, reason.as_str(), message),
        Says::new(condition::STALLED, *stalled, reason.as_str(), message),
    ];
    for (type_, unknown) in [
        (condition::AVAILABLE, false),
        (condition::DEGRADED, false),
        (condition::PAUSED, object.spec.paused),
    ] {
        let standing = super::find(&kept.conditions, type_);
        let holds = standing.map_or(unknown, |standing| standing.status == "True");
        says.push(Says::new(type_, holds, reason.as_str(), message));
    }
    ModelDeploymentStatus {
        observed_generation: generation,
        conditions: conditions(old(object), generation, now, says),
        waiting_for: Some(clip(message, WAITING_BYTES_MAX).to_owned()),
        ..kept
    }
}

fn old(object: &ModelDeployment) -> &[rimward_crds::Condition] {
    object
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default()
}

fn said(plan: &fleet::Conditions, trouble: Option<&Trouble>) -> Vec<Says> {
    let fleet::Conditions {
        available,
        reconciling,
        ready,
        stalled,
        degraded,
        paused,
    } = plan;
    let mut says: Vec<_> = [
        (condition::AVAILABLE, available),
        (condition::RECONCILING, reconciling),
        (condition::READY, ready),
        (condition::STALLED, stalled),
        (condition::DEGRADED, degraded),
        (condition::PAUSED, paused),
    ]
    .into_iter()
    .map(|(type_, says)| Says::new(type_, says.status, says.reason, says.message.clone()))
    .collect();
    let Some(trouble) = trouble else {
        return says;
    };
    let reason = trouble.reason.as_str();
    for one in &mut says {
        let holds = match one.type_ {
            condition::READY => false,
            condition::STALLED => trouble.stalled,
            condition::RECONCILING => !trouble.stalled,
            _ => continue,
        };
        *one = Says::new(one.type_, holds, reason, trouble.message.clone());
    }
    says
}

/// The times are for people: a stage keeps its own until it is another one, and nothing is decided by them.
fn stage(
    record: &StageRecord,
    before: Option<&StageStatus>,
    further: bool,
    now: Timestamp,
) -> StageStatus {
    let StageRecord {
        revision: _,
        attempt,
        name,
        index,
        of,
        phase,
        baked_seconds,
        elapsed_seconds,
        passed,
        aborted,
        doubt_overruled,
    } = record;
    let name = name.to_string();
    let same = before.filter(|before| before.name == name && before.attempt == *attempt);
    let now = Some(Time(super::whole_seconds(now)));
    StageStatus {
        index: index.saturating_add(1),
        of: *of,
        phase: match phase {
            fleet::StagePhase::Progressing => StagePhase::Progressing,
            fleet::StagePhase::Baking => StagePhase::Baking,
            fleet::StagePhase::Completed => StagePhase::Completed,
            fleet::StagePhase::Failed => StagePhase::Failed,
            fleet::StagePhase::Stopped => StagePhase::Stopped,
            fleet::StagePhase::RollingBack => StagePhase::RollingBack,
            fleet::StagePhase::RolledBack => StagePhase::RolledBack,
        },
        attempt: *attempt,
        baked_seconds: *baked_seconds,
        elapsed_seconds: *elapsed_seconds,
        passed: passed.iter().map(self::passed).collect(),
        doubt_overruled: *doubt_overruled,
        aborted: *aborted,
        started_time: same.map_or_else(|| now.clone(), |same| same.started_time.clone()),
        last_progress_time: match same {
            Some(same) if !further => same.last_progress_time.clone(),
            _ => now,
        },
        name,
    }
}

fn passed(passed: &fleet::Passed) -> PassedStage {
    PassedStage {
        stage: passed.stage.to_string(),
        suspects: passed.suspects,
        failed: passed.failed,
    }
}

/// A decided action, until its own status says so.
fn action(decided: &Decided) -> DecidedAction {
    DecidedAction {
        uid: decided.uid.clone(),
        name: decided.name.clone(),
        outcome: if decided.applied {
            ActionOutcome::Applied
        } else {
            ActionOutcome::Refused
        },
        message: clip(&decided.message, WAITING_BYTES_MAX).to_owned(),
    }
}

fn counts(counts: &Counts) -> ReadyCounts {
    let Counts {
        desired,
        updated,
        pending,
        held,
        silent,
        suspect,
        failed,
        rolled_back,
        ready,
    } = *counts;
    ReadyCounts {
        desired,
        updated,
        pending,
        held,
        silent,
        suspect,
        failed,
        rolled_back,
        ready,
    }
}

#[cfg(test)]
mod tests {
    use rimward_crds::reasons::HubReason;

    /// Core knows no kinds, so it cannot name its reasons by the list; here its words are held against it.
    #[test]
    fn every_reason_that_a_plan_gives_is_in_the_closed_list() {
        let sources = [
            include_str!("../../../../core/src/fleet/because.rs"),
            include_str!("../../../../core/src/fleet/gate.rs"),
            include_str!("../../../../core/src/fleet/outcome.rs"),
            include_str!("../../../../core/src/fleet/conditions.rs"),
        ];
        let mut reasons = 0;
        for word in sources.iter().flat_map(|source| source.split('"')) {
            let camel = word.len() > 3
                && word.starts_with(|first: char| first.is_ascii_uppercase())
                && word.chars().all(|letter| letter.is_ascii_alphabetic())
                && word.chars().any(|letter| letter.is_ascii_lowercase());
            if camel {
                assert!(
                    word.parse::<HubReason>().is_ok(),
                    "{word} is not in HubReason"
                );
                reasons += 1;
            }
        }
        assert!(reasons > 30, "the sources were not read: {reasons}");
    }
}
