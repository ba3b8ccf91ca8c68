//! What people ask of a rollout beside the spec: retry, promote, abort, undo.
//!
//! Owns what each does to the rollout's place, and why one is refused. An action is decided once: its effect
//! and the note that it was decided are parts of one [`Standing`](super::Standing), which is written whole.

use thiserror::Error;

use super::types::{Deployment, Outcome, Passed, StagePhase, StageRecord, Undo};
use crate::ids::{DeploymentKey, DeploymentName, RevisionName, StageName};
use crate::time::Timestamp;

/// Most decided actions that a status remembers; further ones wait until their outcome is told.
pub const DECIDED_MAX: usize = 16;

/// A RolloutAction without an outcome.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ActionRequest {
    /// The object's UID: what it is remembered by.
    pub uid: String,
    /// The object's name.
    pub name: String,
    /// When it was made; of two, the earlier goes first.
    pub created: Timestamp,
    /// What is asked.
    pub kind: ActionKind,
    /// It is meant for this revision only.
    pub revision: Option<RevisionName>,
    /// It is meant for this attempt only.
    pub attempt: Option<u32>,
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ActionKind {
    /// Open the rollout again, under a new attempt.
    Retry {
        /// Devices that condemned the content try it again.
        forget_verdicts: bool,
    },
    /// Go on past what the rollout waits for, once.
    Promote {
        /// Only if the rollout is in this stage.
        stage: Option<StageName>,
    },
    /// Take the rollout back.
    Abort,
    /// Go back to an earlier promoted revision (the request's, or the one promoted before).
    Undo,
}

/// What became of an action.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Decided {
    /// The object's UID.
    pub uid: String,
    /// The object's name.
    pub name: String,
    /// It was done; else it was refused.
    pub applied: bool,
    /// One sentence.
    pub message: String,
}

/// Why an action is refused.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub(super) enum ActionRefused {
    #[error("the deployment is being deleted")]
    Deleting,
    #[error("there is no rollout: the model is not resolved to a revision yet")]
    NoRollout,
    #[error("the rollout is of revision {now}, not of {meant}")]
    OtherRevision {
        now: RevisionName,
        meant: RevisionName,
    },
    #[error("the rollout is at attempt {now}, not at {meant}")]
    OtherAttempt { now: u32, meant: u32 },
    #[error("the rollout is in stage {now}, not in {meant}")]
    OtherStage { now: StageName, meant: StageName },
    #[error(
        "revision {revision} was condemned, which is final for its content; ask for a new revision, or retry with --forget-verdicts"
    )]
    Condemned { revision: RevisionName },
    #[error("revision {revision} is rolled out; there is nothing to try again")]
    NothingToRetry { revision: RevisionName },
    #[error("revision {revision} is promoted already")]
    PromotedAlready { revision: RevisionName },
    #[error("revision {revision} {outcome}; retry it, or ask for a new one")]
    NotRunning {
        revision: RevisionName,
        outcome: &'static str,
    },
    #[error("no cluster has proven revision {revision} yet, so it cannot be promoted")]
    NothingProven { revision: RevisionName },
    #[error(
        "revision {revision} is promoted: there is no rollout to take back; undo goes to an earlier one"
    )]
    NothingToAbort { revision: RevisionName },
    #[error("no revision was promoted before this one")]
    NothingToUndoTo,
    #[error(
        "revision {from} is undone already, {to} runs instead; name the revision to go to, or type: kubectl rimward retry {deployment}"
    )]
    UndoneAlready {
        from: RevisionName,
        to: RevisionName,
        deployment: DeploymentName,
    },
    #[error("there is no revision {revision} of this deployment")]
    NoSuchRevision { revision: RevisionName },
    #[error(
        "revision {revision} never went through all its stages; only such a one can be gone back to"
    )]
    NeverPromoted { revision: RevisionName },
    #[error("revision {revision} is what the deployment goes to already")]
    ThereAlready { revision: RevisionName },
}

/// What an applied action asks of the stages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Applied {
    /// Its effect stands in `standing` already.
    Done,
    /// The present stage is passed by a person.
    PassStage,
}

/// What the stages say that an action may depend on.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ground<'a> {
    /// At least one living proof anywhere.
    pub(super) proven: bool,
    /// This leader has not heard everybody yet whom it waits to hear.
    pub(super) unheard: bool,
    /// Somewhere clusters fell silent after they were given the revision, past which nobody went on yet.
    pub(super) suspects: bool,
    /// Whom a person goes on past now, in each stage up to the present one.
    pub(super) past: &'a [Passed],
    /// The record stands at the last stage.
    pub(super) last_stage: bool,
    /// Every member is where it should be.
    pub(super) settled: bool,
    /// The hub doubts its own ears.
    pub(super) doubt: bool,
}

/// Decides one action: changes `deployment.standing`, or refuses. None: not yet.
pub(super) fn decide(
    key: &DeploymentKey,
    deployment: &mut Deployment,
    request: &ActionRequest,
    ground: Ground<'_>,
) -> Option<(Decided, Option<Applied>)> {
    // What it goes past, a doubt, a suspect or a stage, hangs on who is silent.
    if ground.unheard && matches!(request.kind, ActionKind::Promote { .. }) {
        return None;
    }
    let (applied, message, effect) = match apply(key, deployment, request, ground) {
        Ok((message, effect)) => (true, message, Some(effect)),
        Err(refused) => (false, refused.to_string(), None),
    };
    let decided = Decided {
        uid: request.uid.clone(),
        name: request.name.clone(),
        applied,
        message,
    };
    Some((decided, effect))
}

type Answer = Result<(String, Applied), ActionRefused>;

fn apply(
    key: &DeploymentKey,
    deployment: &mut Deployment,
    request: &ActionRequest,
    ground: Ground<'_>,
) -> Answer {
    if deployment.deleting {
        return Err(ActionRefused::Deleting);
    }
    let update = deployment
        .effective_update()
        .cloned()
        .ok_or(ActionRefused::NoRollout)?;
    let meant = request
        .revision
        .as_ref()
        .filter(|_| request.kind != ActionKind::Undo);
    if let Some(meant) = meant.filter(|meant| **meant != update) {
        return Err(ActionRefused::OtherRevision {
            now: update,
            meant: meant.clone(),
        });
    }
    let record = deployment.standing.stage.as_ref();
    let now = record.map_or(0, |record| record.attempt);
    if let Some(meant) = request.attempt.filter(|meant| *meant != now) {
        return Err(ActionRefused::OtherAttempt { now, meant });
    }
    match &request.kind {
        ActionKind::Retry { forget_verdicts } => {
            retry(deployment, update, *forget_verdicts, ground)
        }
        ActionKind::Promote { stage } => promote(deployment, &update, stage.as_ref(), ground),
        ActionKind::Abort => abort(deployment, &update),
        ActionKind::Undo => undo(key, deployment, update, request.revision.as_ref()),
    }
}

fn outcome(deployment: &Deployment, revision: &RevisionName) -> Outcome {
    let known = deployment.revisions.get(revision);
    known.map_or(Outcome::Pending, |known| known.outcome)
}

fn retry(
    deployment: &mut Deployment,
    update: RevisionName,
    forget_verdicts: bool,
    ground: Ground<'_>,
) -> Answer {
    let undone = deployment.standing.undo.take();
    let revision = undone.as_ref().map_or(update, |undo| undo.from.clone());
    let failed = outcome(deployment, &revision) == Outcome::Failed;
    let refused = if failed && !forget_verdicts {
        Some(ActionRefused::Condemned {
            revision: revision.clone(),
        })
    } else if undone.is_none() && ground.settled && !failed {
        Some(ActionRefused::NothingToRetry {
            revision: revision.clone(),
        })
    } else {
        None
    };
    if let Some(refused) = refused {
        deployment.standing.undo = undone;
        return Err(refused);
    }
    let standing = &mut deployment.standing;
    let known = deployment.revisions.entry(revision.clone()).or_default();
    let record = standing
        .stage
        .as_mut()
        .filter(|record| record.revision == revision);
    let attempt = record
        .as_ref()
        .map_or(known.attempt, |record| record.attempt)
        .saturating_add(1);
    if forget_verdicts {
        standing.forget_verdicts_before = attempt;
    }
    let reopened = known.outcome != Outcome::Pending;
    known.outcome = Outcome::Pending;
    match record {
        // What went back begins at its first stage again; what merely stood goes on where it stood.
        Some(record) if undone.is_none() && !failed && !went_back(record) => {
            record.attempt = attempt;
            record.elapsed_seconds = 0;
            if record.phase != StagePhase::Completed {
                record.phase = StagePhase::Progressing;
            }
        }
        _ => {
            standing.stage = None;
            known.attempt = attempt;
            if standing.current.as_ref() == Some(&revision) {
                standing.current = standing.previous.clone();
            }
        }
    }
    let words = if reopened {
        "opened again"
    } else {
        "tried again"
    };
    Ok((
        format!("revision {revision} is {words}, as attempt {attempt}"),
        Applied::Done,
    ))
}

/// Its clusters were, or are being, taken back: by the record alone, since the revision's outcome is written
/// before it, and a leader may die in between.
fn went_back(record: &StageRecord) -> bool {
    let back = matches!(
        record.phase,
        StagePhase::Failed | StagePhase::RollingBack | StagePhase::RolledBack
    );
    back || record.aborted
}

fn promote(
    deployment: &mut Deployment,
    update: &RevisionName,
    stage: Option<&StageName>,
    ground: Ground<'_>,
) -> Answer {
    let current = deployment.standing.current.as_ref() == Some(update);
    let outcome = outcome(deployment, update);
    let record = deployment
        .standing
        .stage
        .as_mut()
        .filter(|record| &record.revision == update)
        .ok_or(ActionRefused::NoRollout)?;
    if let Some(meant) = stage.filter(|meant| **meant != record.name) {
        return Err(ActionRefused::OtherStage {
            now: record.name.clone(),
            meant: meant.clone(),
        });
    }
    let overruled = ground.doubt && !record.doubt_overruled;
    if current && !overruled && !ground.suspects {
        return Err(ActionRefused::PromotedAlready {
            revision: update.clone(),
        });
    }
    if outcome == Outcome::Failed || record.aborted {
        return Err(ActionRefused::NotRunning {
            revision: update.clone(),
            outcome: if record.aborted {
                "was taken back"
            } else {
                "was condemned"
            },
        });
    }
    if overruled {
        record.doubt_overruled = true;
        return Ok((
            "goes on though many clusters fell silent at once".to_owned(),
            Applied::Done,
        ));
    }
    let name = record.name.clone();
    if current || ground.last_stage && !ground.proven {
        if !ground.suspects {
            return Err(ActionRefused::NothingProven {
                revision: update.clone(),
            });
        }
        go_past(record, ground.past);
        return Ok((
            format!(
                "clusters that fell silent over revision {update} no longer keep others waiting"
            ),
            Applied::Done,
        ));
    }
    go_past(record, ground.past);
    Ok((
        format!("stage {name} of revision {update} is passed"),
        Applied::PassStage,
    ))
}

/// Notes past whom a person goes on, once: what was noted of a stage before gives way.
fn go_past(record: &mut StageRecord, past: &[Passed]) {
    let stale = |passed: &Passed| !past.iter().any(|it| it.stage == passed.stage);
    record.passed.retain(stale);
    let some = past.iter().filter(|it| it.suspects > 0 || it.failed > 0);
    record.passed.extend(some.cloned());
}

fn abort(deployment: &mut Deployment, update: &RevisionName) -> Answer {
    if deployment.standing.current.as_ref() == Some(update) {
        return Err(ActionRefused::NothingToAbort {
            revision: update.clone(),
        });
    }
    let record = deployment
        .standing
        .stage
        .as_mut()
        .filter(|record| &record.revision == update)
        .ok_or(ActionRefused::NoRollout)?;
    record.aborted = true;
    let to = deployment.standing.current.as_ref();
    let to = to.map_or("nothing", RevisionName::as_str);
    Ok((
        format!("revision {update} is taken back, clusters go to {to}"),
        Applied::Done,
    ))
}

fn undo(
    key: &DeploymentKey,
    deployment: &mut Deployment,
    update: RevisionName,
    to: Option<&RevisionName>,
) -> Answer {
    let standing = &deployment.standing;
    let undone = standing.undo.as_ref();
    let undone = undone.filter(|it| to.is_none() && deployment.update.as_ref() == Some(&it.from));
    // Of two people who undo the same, the second means what the first did.
    if let Some(undone) = undone {
        return Err(ActionRefused::UndoneAlready {
            from: undone.from.clone(),
            to: undone.to.clone(),
            deployment: key.name.clone(),
        });
    }
    let to = match to {
        Some(to) => to.clone(),
        None if standing.current.as_ref() != Some(&update) => standing
            .current
            .clone()
            .ok_or(ActionRefused::NothingToUndoTo)?,
        None => standing
            .previous
            .clone()
            .ok_or(ActionRefused::NothingToUndoTo)?,
    };
    let known = deployment
        .revisions
        .get(&to)
        .ok_or_else(|| ActionRefused::NoSuchRevision {
            revision: to.clone(),
        })?;
    if to == update {
        return Err(ActionRefused::ThereAlready { revision: to });
    }
    if known.outcome != Outcome::Promoted {
        return Err(ActionRefused::NeverPromoted { revision: to });
    }
    let from = deployment.update.clone().unwrap_or(update);
    let standing = &mut deployment.standing;
    if standing.current.as_ref() != Some(&to) {
        standing.previous = standing.current.replace(to.clone());
    }
    standing.stage = None;
    let message = format!(
        "goes back to revision {to} until the spec asks for another one than {from}, or: kubectl rimward retry {}",
        key.name
    );
    // To undo to what the spec asks for is to end an earlier undo.
    standing.undo = (to != from).then_some(Undo { from, to });
    Ok((message, Applied::Done))
}

impl Deployment {
    /// The revision to go to: the spec's, unless a person undid exactly that one.
    pub(super) fn effective_update(&self) -> Option<&RevisionName> {
        match &self.standing.undo {
            Some(undo) if self.update.as_ref() == Some(&undo.from) => Some(&undo.to),
            _ => self.update.as_ref(),
        }
    }
}
