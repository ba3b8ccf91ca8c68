//! What became of RolloutActions: told in their status once the effect stands, and for how long they are kept.
//!
//! Owns their statuses and their end. Must never decide one: the planner did, and its decision was written together
//! with the effect.

use std::time::Duration;

use k8s_openapi::jiff::{SignedDuration, Timestamp};
use kube::ResourceExt as _;
use rimward_core::fleet::Decided;
use rimward_crds::common::Time;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::rollout_action::{ActionOutcome, RolloutActionStatus};
use rimward_crds::{ModelDeployment, RolloutAction};

use super::apply::{Target, Writer};
use super::index::{Work, is_open, key};
use super::observe::Caches;
use super::parse;
use super::status::{Says, conditions, whole_seconds};
use crate::events::clip;
use crate::metrics::Kind;

/// Bytes of a message, as the schema has it.
const MESSAGE_BYTES_MAX: usize = 1024;
/// How often finished actions are looked through, at most.
const SWEEP: Duration = Duration::from_secs(600);

/// Tells outcomes, and removes actions that were kept long enough. Gives when to look again.
pub(super) async fn statuses(
    writer: &Writer,
    caches: &Caches,
    decided: &[Decided],
    work: &Work,
    retention: Duration,
) -> Option<Duration> {
    let now = Timestamp::now();
    let all = caches.all::<RolloutAction>();
    let mut kept = false;
    for object in all.valid() {
        if is_open(object) {
            let uid = object.metadata.uid.as_deref().unwrap_or_default();
            let known = decided.iter().find(|decided| decided.uid == uid);
            let told = known.cloned().or_else(|| hopeless(caches, object, work));
            if let Some(told) = told {
                let status = status(object, &told, now);
                let target = Target::of(Kind::RolloutAction, object);
                let _ = writer.status(&target, &status).await;
            }
            continue;
        }
        kept = true;
        if is_over(object, retention, now) {
            let target = Target::of(Kind::RolloutAction, object);
            let _ = writer.delete(&target).await;
        }
    }
    kept.then_some(SWEEP.min(retention).max(Duration::from_secs(1)))
}

/// An action that no planner will ever be asked about: of a deployment that is not there, or one that does not parse.
fn hopeless(caches: &Caches, object: &RolloutAction, work: &Work) -> Option<Decided> {
    let namespace = object.namespace().unwrap_or_default();
    let named = (namespace.clone(), object.name_any());
    if !work.actions.contains(&named) {
        return None;
    }
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
