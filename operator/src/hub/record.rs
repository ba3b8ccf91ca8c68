//! The record of a deployment's rollout: what has to stand before its clusters are told anything.
//!
//! Owns steps 1 to 3 of a turn (`reconcile.rs` says what they are). Their order is kept within each deployment; no
//! deployment waits for another's write. Must never decide what is recorded.

use std::collections::BTreeSet;

use kube::ResourceExt;
use rimward_core::fleet::OutcomeChange;
use rimward_core::ids::{DeploymentKey, RevisionName};
use rimward_crds::{ModelDeployment, ModelDeploymentStatus, ModelRevision};

use super::apply::{Outcome, Target, Writer};
use super::feed::Feed;
use super::index::key;
use super::reconcile::Memory;
use super::status;
use super::steps::side_by_side;
use super::view::Known;
use crate::metrics::Kind;

/// What became of one deployment's record.
struct Recorded<'a> {
    key: &'a DeploymentKey,
    /// Revisions whose outcome stands now.
    outcomes: Vec<String>,
    /// All of it stands.
    whole: bool,
}

/// Writes the records of deployments. Gives those whose record does not stand.
pub(super) async fn write(
    writer: &Writer,
    feed: &Feed,
    memory: &mut Memory,
    touched: &BTreeSet<DeploymentKey>,
) -> BTreeSet<DeploymentKey> {
    let deployments = &memory.view.deployments;
    let known = touched.iter().filter(|key| deployments.contains_key(*key));
    // Those that were not begun in time have no record either.
    let mut failed: BTreeSet<DeploymentKey> = known.cloned().collect();
    let records: Vec<Recorded<'_>> = {
        let memory = &*memory;
        let known = touched
            .iter()
            .filter_map(|key| Some((key, memory.view.deployments.get(key)?)));
        let records = known.map(|(deployment, known)| {
            let named = (
                deployment.namespace.to_string(),
                deployment.name.to_string(),
            );
            let of = key(Kind::ModelDeployment, &named);
            (of, record(writer, memory, deployment, known))
        });
        side_by_side(feed, records).await
    };
    for Recorded {
        key,
        outcomes,
        whole,
    } in records
    {
        if let Some(owed) = memory.owed.get_mut(key) {
            owed.outcomes
                .retain(|changed, _| !outcomes.iter().any(|it| it == changed.as_str()));
        }
        if whole {
            failed.remove(key);
        }
    }
    failed
}

async fn record<'a>(
    writer: &Writer,
    memory: &Memory,
    key: &'a DeploymentKey,
    known: &Known,
) -> Recorded<'a> {
    let mut recorded = Recorded {
        key,
        outcomes: Vec::new(),
        whole: true,
    };
    if let Some(revision) = &known.new_revision {
        let write = writer.create(Kind::ModelRevision, revision).await;
        recorded.whole &= write.is_done();
        if is_unanswered(&write) {
            return recorded;
        }
    }
    let new = known.new_revision.as_ref().map(ResourceExt::name_any);
    let attempt = memory.said.get(key).and_then(|said| said.attempt.as_ref());
    let owed = memory.owed.get(key).map(|owed| &owed.outcomes);
    for (name, revision) in &known.revisions {
        if new.as_ref() == Some(name) {
            continue;
        }
        let is_this = |it: &RevisionName| it.as_str() == name;
        let change = owed.and_then(|owed| owed.iter().find(|(changed, _)| is_this(changed)));
        let attempt = attempt.filter(|(of, _)| is_this(of)).map(|it| it.1);
        let write = outcome(writer, revision, change.map(|it| it.1), attempt).await;
        if write.as_ref().is_none_or(Outcome::is_done) {
            recorded.outcomes.push(name.clone());
        } else {
            recorded.whole = false;
        }
        if write.as_ref().is_some_and(is_unanswered) {
            return recorded;
        }
    }
    if recorded.whole {
        recorded.whole = deployment(writer, memory, key, known).await;
    }
    recorded
}

/// A server that did not answer is not asked further for the same deployment: each time costs the turn as long as a
/// write may take.
const fn is_unanswered(outcome: &Outcome) -> bool {
    matches!(outcome, Outcome::Unknown(_))
}

/// Step 2, for one revision; none when it says so already.
async fn outcome(
    writer: &Writer,
    revision: &ModelRevision,
    change: Option<&OutcomeChange>,
    attempt: Option<u32>,
) -> Option<Outcome> {
    let mut old = revision.status.clone().unwrap_or_default();
    old.conditions = status::sorted(&old.conditions);
    let now = k8s_openapi::jiff::Timestamp::now();
    let next = status::revision::revision(revision, change, attempt, now);
    if next == old {
        return None;
    }
    let target = Target::of(Kind::ModelRevision, revision);
    Some(writer.status(&target, &next).await)
}

/// Step 3; says whether it stands.
async fn deployment(writer: &Writer, memory: &Memory, key: &DeploymentKey, known: &Known) -> bool {
    let Ok(object) = known.object.0.as_ref() else {
        return true;
    };
    let now = k8s_openapi::jiff::Timestamp::now();
    let said = memory.said.get(key).filter(|_| known.planned);
    let next = match (said, &known.trouble) {
        (Some(plan), trouble) => {
            let target = known.target.as_ref();
            status::deployment::planned(object, plan, target, trouble.as_ref(), now)
        }
        (None, Some(trouble)) => status::deployment::unplanned(object, trouble, now),
        (None, None) => return true,
    };
    if next == standing(object) {
        return true;
    }
    let target = Target::of(Kind::ModelDeployment, object);
    writer.status(&target, &next).await.is_done()
}

fn standing(object: &ModelDeployment) -> ModelDeploymentStatus {
    let mut status = object.status.clone().unwrap_or_default();
    status.conditions = status::sorted(&status.conditions);
    status
}

#[cfg(test)]
#[path = "record_tests.rs"]
mod tests;
