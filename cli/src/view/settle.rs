//! Whether a deployment has settled, and how.
//!
//! Owns the exit code of `status`. Reads conditions as kstatus does, and Degraded besides.

use rimward_crds::ModelDeployment;
use rimward_crds::reasons::condition;

use super::model::{condition, state};
use super::{because, clean};

/// How a deployment stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// Its spec is fully rolled out.
    Ready,
    /// It is on its way, a rollback included, or paused.
    Working,
    /// It stands, and not where its spec wants it.
    Failed,
}

/// Judges a deployment by its own conditions.
pub(crate) fn verdict(object: &ModelDeployment) -> Verdict {
    let Some(status) = &object.status else {
        return Verdict::Working;
    };
    if status.observed_generation != object.metadata.generation {
        return Verdict::Working;
    }
    let is = |kind| condition(&status.conditions, kind).is_some();
    if is(condition::STALLED) {
        return Verdict::Failed;
    }
    match (
        is(condition::RECONCILING),
        is(condition::DEGRADED),
        is(condition::READY),
    ) {
        (true, _, _) => Verdict::Working,
        (false, true, _) => Verdict::Failed,
        (false, false, true) => Verdict::Ready,
        (false, false, false) => Verdict::Working,
    }
}

/// One line on where it is and what it waits for.
pub(crate) fn line(object: &ModelDeployment) -> String {
    let status = object.status.clone().unwrap_or_default();
    let (state, reason, message) = state(object);
    let mut line = format!(
        "{}/{}  {state}",
        object.metadata.namespace.as_deref().unwrap_or_default(),
        object.metadata.name.as_deref().unwrap_or_default(),
    );
    if let Some(progress) = &status.progress {
        line.push_str(&format!(" {progress}"));
    }
    if let Some(stage) = &status.stage {
        let (name, index, of) = (&stage.name, stage.index, stage.of);
        line.push_str(&format!("  stage {name} {index}/{of} {:?}", stage.phase));
        if stage.attempt > 1 {
            line.push_str(&format!(" attempt {}", stage.attempt));
        }
        if stage.aborted {
            line.push_str(" aborted");
        }
    }
    if let Some(undo) = &status.undo {
        let (from, to) = (clean(&undo.from), clean(&undo.to));
        line.push_str(&format!("  undone: {to} instead of {from}"));
    }
    let waiting = status.waiting_for.as_deref();
    let Facts { why, wait } = facts(state, reason.as_deref(), message.as_deref(), waiting);
    for fact in why.into_iter().chain(wait) {
        line.push_str(&format!("  {fact}"));
    }
    line
}

/// Why a deployment stands where it stands, and what it waits for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Facts {
    pub(super) why: Option<String>,
    /// With `waiting for: ` before it.
    pub(super) wait: Option<String>,
}

/// Says each thing once: the operator often waits for the very thing that its condition tells.
pub(super) fn facts(
    state: &str,
    reason: Option<&str>,
    message: Option<&str>,
    waiting: Option<&str>,
) -> Facts {
    let same = waiting.filter(|waiting| message.is_some_and(|message| waiting.contains(message)));
    let (why, wait) = match same {
        Some(waiting) if state == "Progressing" => (String::new(), Some(waiting)),
        Some(waiting) => (because(reason, Some(waiting)), None),
        None => (because(reason, message), waiting),
    };
    Facts {
        why: Some(why).filter(|why| !why.is_empty()),
        wait: wait.map(|wait| format!("waiting for: {}", clean(wait))),
    }
}
