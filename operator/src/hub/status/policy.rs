//! A RolloutPolicy's status: whether it can be used, and what its stages would take today.

use k8s_openapi::jiff::Timestamp;
use rimward_crds::reasons::{HubReason, condition};
use rimward_crds::{RolloutPolicy, RolloutPolicyStatus};

use super::{Says, conditions};
use crate::hub::parse::Invalid;

/// What the status shall say. `notes` name stages that take no cluster of a deployment that uses them.
pub(crate) fn policy(
    object: &RolloutPolicy,
    invalid: Option<&Invalid>,
    notes: &[String],
    now: Timestamp,
) -> RolloutPolicyStatus {
    let old = object
        .status
        .as_ref()
        .map(|status| status.conditions.as_slice())
        .unwrap_or_default();
    let generation = object.metadata.generation;
    let (ready, reason, message) = match invalid {
        Some(error) => (false, HubReason::ObjectInvalid, error.to_string()),
        None if notes.is_empty() => (true, HubReason::Valid, "the policy can be used".to_owned()),
        None => (true, HubReason::Valid, notes.join("; ")),
    };
    let reason = reason.as_str();
    let says = [
        Says::new(condition::READY, ready, reason, message.clone()),
        Says::new(condition::RECONCILING, false, reason, ""),
        Says::new(
            condition::STALLED,
            !ready,
            reason,
            if ready { String::new() } else { message },
        ),
    ];
    RolloutPolicyStatus {
        observed_generation: generation,
        conditions: conditions(old, generation, now, says),
    }
}
