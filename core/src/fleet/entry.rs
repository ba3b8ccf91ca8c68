//! Entries as the spec of today wants them.
//!
//! Owns what an order carries beside its revision. Decides nothing about who gets one.

use super::context::Context;
use super::ledger::ENTRY_BYTES_UNKNOWN;
use super::rollout::Group;
use super::types::{Action, Deployment, Entry};
use crate::ids::{RevisionName, StageName};

/// Whether an entry is what the spec says today beside revision and name.
pub(super) fn same_beside(deployment: &Deployment, stages: &[Group], standing: &Entry) -> bool {
    let policy = &deployment.policy;
    standing.nodes_max_unavailable == policy.nodes_max_unavailable
        && standing.nodes_max_failures == policy.nodes_max_failures
        && standing.progress_deadline_seconds == deadline_seconds(deployment, stages, standing)
}

pub(super) fn deadline_seconds(deployment: &Deployment, stages: &[Group], standing: &Entry) -> u32 {
    let mut stages = stages.iter().map(|group| &group.divided.stage);
    stages
        .find(|stage| stage.name == standing.stage)
        .and_then(|stage| stage.progress_deadline_seconds)
        .unwrap_or(deployment.progress_deadline_seconds)
}

/// An entry on the same revision, with what the spec says beside it today.
pub(super) fn beside(
    deployment: &Deployment,
    stages: &[Group],
    standing: &Entry,
    may_rename: bool,
) -> Entry {
    let policy = &deployment.policy;
    Entry {
        endpoint_name: if may_rename {
            deployment.endpoint_name.clone()
        } else {
            standing.endpoint_name.clone()
        },
        nodes_max_unavailable: policy.nodes_max_unavailable,
        nodes_max_failures: policy.nodes_max_failures,
        progress_deadline_seconds: deadline_seconds(deployment, stages, standing),
        ..standing.clone()
    }
}

/// What an entry of that revision takes of an assignment.
pub(super) fn entry_bytes(deployment: &Deployment, revision: &RevisionName) -> u32 {
    let known = deployment.revisions.get(revision);
    known.map_or(ENTRY_BYTES_UNKNOWN, |known| known.entry_bytes)
}

/// The entry for a revision. It names the one whose place it takes: until the cluster says otherwise, it may
/// still have that.
pub(super) fn run(
    deployment: &Deployment,
    context: &Context,
    revision: &RevisionName,
    place: Option<usize>,
    stages: &[Group],
    standing: Option<&Entry>,
) -> Entry {
    let stage = place.and_then(|place| stages.get(place));
    let is_update = context.update.as_ref() == Some(revision);
    let known = deployment.revisions.get(revision);
    let replaces = match standing {
        Some(standing) if &standing.revision == revision => standing.replaces.clone(),
        Some(standing) => Some(standing.revision.clone()),
        None => None,
    };
    Entry {
        revision: revision.clone(),
        attempt: if is_update {
            context.attempt.max(1)
        } else {
            known.map_or(1, |known| known.attempt.max(1))
        },
        forget_verdicts_before: if is_update {
            context.forget_verdicts_before
        } else {
            0
        },
        action: Action::Run,
        replaces,
        stage: stage.map_or_else(
            || StageName::fixed("all"),
            |stage| stage.divided.stage.name.clone(),
        ),
        endpoint_name: deployment.endpoint_name.clone(),
        nodes_max_unavailable: deployment.policy.nodes_max_unavailable,
        nodes_max_failures: deployment.policy.nodes_max_failures,
        progress_deadline_seconds: stage
            .and_then(|stage| stage.divided.stage.progress_deadline_seconds)
            .unwrap_or(deployment.progress_deadline_seconds),
    }
}
