//! What became of RolloutActions: told in their status once the effect stands, and for how long they are kept.
//!
//! Owns their statuses and their end. Must never decide one: the planner did, and its decision was written together
//! with the effect.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use rimward_core::fleet::Decided;
use rimward_core::ids::DeploymentKey;
use rimward_crds::common::Time;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::rollout_action::{ActionOutcome, RolloutActionStatus};
use rimward_crds::{ModelDeployment, RolloutAction};

use super::apply::{Outcome, Target, Writer};
use super::index::{Named, Work, is_open, key};
use super::observe::Caches;
use super::parse;
use super::status::{Says, conditions, whole_seconds};
use super::steps::{delete, side_by_side};
use crate::events::clip;
use crate::metrics::Kind;

/// Bytes of a message, as the schema has it.
const MESSAGE_BYTES_MAX: usize = 1024;
/// The longest time after which finished actions are looked through again.
const SWEEP_LONGEST: Duration = Duration::from_secs(600);
/// The shortest.
const SWEEP_SHORTEST: Duration = Duration::from_secs(1);

/// Tells outcomes: those that plans decided, and those of actions that no plan is asked about.
pub(super) async fn statuses(
    writer: &Writer,
    caches: &Caches,
    decided: impl Iterator<Item = (&DeploymentKey, &Decided)>,
    work: &Work,
) {
    let mut tells = BTreeMap::new();
    for (deployment, decided) in decided {
        let named = (deployment.namespace.to_string(), decided.name.clone());
        let object = open(caches, &named);
        let object = object.filter(|it| it.metadata.uid.as_deref() == Some(&decided.uid));
        if let Some(object) = object {
            tells.insert(named, (object, decided.clone()));
        }
    }
    for named in &work.actions {
        if let Some(object) = open(caches, named).filter(|_| !tells.contains_key(named))
            && let Some(told) = hopeless(caches, &object)
        {
            tells.insert(named.clone(), (object, told));
        }
    }
    let now = Timestamp::now();
    let writes = tells.values().map(|(object, told)| async move {
        let target = Target::of(Kind::RolloutAction, object);
        writer.status(&target, &status(object, told, now)).await
    });
    let keys = tells.keys().map(|named| key(Kind::RolloutAction, named));
    let _: Vec<Outcome> = side_by_side(&caches.feed, keys.zip(writes)).await;
}

/// One that has no outcome yet.
fn open(caches: &Caches, named: &Named) -> Option<RolloutAction> {
    let object = caches.get::<RolloutAction>(&key(Kind::RolloutAction, named))?;
    object.0.as_ref().ok().filter(|it| is_open(it)).cloned()
}

/// When finished actions are looked through: some may have been kept long enough.
#[derive(Debug, Default)]
pub(super) struct Sweep {
    /// None: not yet.
    at: Option<Instant>,
    /// There was one that is kept on.
    kept: bool,
}

impl Sweep {
    /// Removes actions that were kept long enough, when it is time. Gives when to look again.
    pub(super) async fn turn(
        &mut self,
        writer: &Writer,
        caches: &Caches,
        work: &Work,
        retention: Duration,
    ) -> Option<Duration> {
        let now = Instant::now();
        let pause = retention.clamp(SWEEP_SHORTEST, SWEEP_LONGEST);
        // One that was finished since may be over before the others.
        if !work.actions.is_empty() {
            self.kept = true;
            self.at = self.at.map(|at| at.min(now + pause));
        }
        if self.at.is_none_or(|at| at <= now) {
            let mut over = Vec::new();
            self.kept = false;
            for object in caches.all::<RolloutAction>().valid() {
                self.kept |= !is_open(object);
                if is_over(object, retention, Timestamp::now()) {
                    over.push(Target::of(Kind::RolloutAction, object));
                }
            }
            delete(writer, &caches.feed, &over).await;
            self.at = Some(now + pause);
        }
        let left = self.at.map(|at| at.saturating_duration_since(now));
        left.filter(|_| self.kept)
    }
}

/// An action that no planner will ever be asked about: of a deployment that is not there, or one that does not parse.
fn hopeless(caches: &Caches, object: &RolloutAction) -> Option<Decided> {
    let namespace = object.namespace().unwrap_or_default();
    let deployment = (namespace, object.spec.deployment_name.clone());
    let exists = caches
        .get::<ModelDeployment>(&key(Kind::ModelDeployment, &deployment))
        .is_some();
    let message = match parse::action(object) {
        Err(error) => error.to_string(),
        Ok(_) if !exists => format!(
            "there is no ModelDeployment {} in namespace {}",
            deployment.1, deployment.0
        ),
        Ok(_) => return None,
    };
    Some(Decided {
        uid: object.metadata.uid.clone().unwrap_or_default(),
        name: object.name_any(),
        applied: false,
        message,
    })
}

fn status(object: &RolloutAction, decided: &Decided, now: Timestamp) -> RolloutActionStatus {
    let message = clip(&decided.message, MESSAGE_BYTES_MAX).to_owned();
    let reason = if decided.applied {
        HubReason::ActionApplied
    } else {
        HubReason::ActionRefused
    }
    .as_str();
    let generation = object.metadata.generation;
    let says = [
        Says::new(condition::READY, decided.applied, reason, message.clone()),
        Says::new(condition::RECONCILING, false, reason, ""),
        Says::new(
            condition::STALLED,
            !decided.applied,
            reason,
            if decided.applied {
                String::new()
            } else {
                message.clone()
            },
        ),
    ];
    RolloutActionStatus {
        observed_generation: generation,
        conditions: conditions(&[], generation, now, says),
        outcome: Some(if decided.applied {
            ActionOutcome::Applied
        } else {
            ActionOutcome::Refused
        }),
        message: Some(message),
        completed_time: Some(Time(whole_seconds(now))),
    }
}

/// It was finished so long ago, by the hub's clock both times. A clock that jumps makes it go earlier or later, and
/// changes nothing else.
fn is_over(object: &RolloutAction, retention: Duration, now: Timestamp) -> bool {
    let completed = object
        .status
        .as_ref()
        .and_then(|status| status.completed_time.as_ref());
    let retention = SignedDuration::try_from(retention).unwrap_or(SignedDuration::MAX);
    completed.is_some_and(|completed| now.duration_since(completed.0) >= retention)
}

#[cfg(test)]
#[path = "actions_tests.rs"]
mod tests;
