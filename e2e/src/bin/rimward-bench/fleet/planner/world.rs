//! A fleet as a planner is told of it: every cluster runs every deployment's first release, one rollout goes on.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use rimward_core::fleet::{
    Action, Amount, Cluster, ConnectionState, Deployment, DeploymentPlan, Entry, Members,
    ModelReport, Outcome, Placement, Policy, Report, Revision, Stage, StagePhase, StageRecord,
    Standing,
};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::selector::{Labels, Selector};
use rimward_core::summary::{Counts, Measures, Phase};
use rimward_core::time::Timestamp;

/// When everything happens.
pub(super) const NOW: Timestamp = Timestamp(1_000_000);
/// Clusters that may be on their way at once: the same at every size, so that an event asks for as much.
const AT_ONCE: u32 = 10;
/// Bytes of an entry as JSON.
const ENTRY_BYTES: u32 = 700;

pub(super) fn key(deployment: usize) -> Result<DeploymentKey> {
    Ok(DeploymentKey::parse(
        "team",
        &format!("model-{deployment:03}"),
    )?)
}

pub(super) fn cluster_name(cluster: usize) -> Result<ClusterName> {
    Ok(format!("site-{cluster:05}").parse()?)
}

/// A release of a deployment, by its number.
pub(super) fn revision(deployment: usize, release: usize) -> Result<RevisionName> {
    Ok(format!("model-{deployment:03}-r{release}").parse()?)
}

/// A deployment whose first release went through its one stage long ago.
pub(super) fn deployment(number: usize) -> Result<Deployment> {
    let first = revision(number, 1)?;
    let promoted = Revision {
        outcome: Outcome::Promoted,
        entry_bytes: ENTRY_BYTES,
        attempt: 1,
        ..Revision::default()
    };
    let stage = Stage {
        name: "everyone".parse()?,
        members: Members::Percent(100),
        max_concurrency: Amount::Count(AT_ONCE),
        max_unavailable: None,
        max_failures: 0,
        min_proven: None,
        allow_empty: false,
        bake_seconds: 3600,
        progress_deadline_seconds: None,
    };
    Ok(Deployment {
        endpoint_name: format!("model-{number:03}").parse()?,
        created: Timestamp(0),
        update: Some(first.clone()),
        revisions: BTreeMap::from([(first.clone(), promoted)]),
        placement: Placement {
            clusters: Selector::everything(),
            max_clusters: None,
        },
        policy: Policy {
            stages: vec![stage],
            ..Policy::default()
        },
        min_available: None,
        paused: false,
        deleting: false,
        progress_deadline_seconds: 600,
        standing: Standing {
            current: Some(first.clone()),
            stage: Some(StageRecord {
                revision: first,
                attempt: 1,
                name: "everyone".parse()?,
                index: 0,
                of: 1,
                phase: StagePhase::Completed,
                baked_seconds: 3600,
                elapsed_seconds: 3600,
                passed: Vec::new(),
                aborted: false,
                doubt_overruled: false,
            }),
            ..Standing::default()
        },
        actions: Vec::new(),
    })
}

/// The same deployment when its spec asks for another release.
pub(super) fn released(
    mut deployment: Deployment,
    number: usize,
    release: usize,
) -> Result<Deployment> {
    let next = revision(number, release)?;
    let fresh = Revision {
        entry_bytes: ENTRY_BYTES,
        ..Revision::default()
    };
    deployment.revisions.insert(next.clone(), fresh);
    deployment.update = Some(next);
    Ok(deployment)
}

/// What the hub persists of a plan.
pub(super) fn persist(deployment: &mut Deployment, answer: &DeploymentPlan) {
    deployment.standing.clone_from(&answer.standing);
    for (name, change) in &answer.outcomes {
        let revision = deployment.revisions.entry(name.clone()).or_default();
        revision.outcome = change.outcome;
    }
    if let Some((name, attempt)) = &answer.attempt {
        let revision = deployment.revisions.entry(name.clone()).or_default();
        revision.attempt = revision.attempt.max(*attempt);
    }
}

/// A cluster that runs the first release of every deployment, and says so.
pub(super) fn cluster(deployments: usize) -> Result<Cluster> {
    let mut entries = BTreeMap::new();
    let mut models = BTreeMap::new();
    for number in 0..deployments {
        entries.insert(key(number)?, entry(number)?);
        models.insert(key(number)?, says(&revision(number, 1)?));
    }
    Ok(Cluster {
        labels: Labels::from([("ring".to_owned(), "main".to_owned())]),
        connection: ConnectionState::Heard { at: NOW },
        paused: false,
        held: None,
        generation: 1,
        entries,
        report: Some(Report {
            observed_generation: 1,
            models,
        }),
    })
}

fn entry(number: usize) -> Result<Entry> {
    Ok(Entry {
        revision: revision(number, 1)?,
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        replaces: None,
        stage: "everyone".parse()?,
        endpoint_name: format!("model-{number:03}").parse()?,
        nodes_max_unavailable: Amount::ONE,
        nodes_max_failures: 0,
        progress_deadline_seconds: 600,
    })
}

/// The cluster with entries that were written, before its session has acted on them.
pub(super) fn ordered(cluster: &mut Cluster, entries: BTreeMap<DeploymentKey, Entry>) {
    cluster.entries = entries;
    cluster.generation += 1;
}

/// The cluster's session has carried its entries out on all nodes.
pub(super) fn done(cluster: &mut Cluster) -> Result<()> {
    let report = cluster.report.as_mut().context("no report")?;
    report.observed_generation = cluster.generation;
    for (key, entry) in &cluster.entries {
        report.models.insert(key.clone(), says(&entry.revision));
    }
    Ok(())
}

fn says(revision: &RevisionName) -> ModelReport {
    ModelReport {
        revision: revision.clone(),
        attempt: 1,
        nodes: Counts {
            desired: 2,
            updated: 2,
            ready: 2,
            ..Counts::default()
        },
        phase: Phase::Passed,
        reason: String::new(),
        measures: Measures::default(),
        problems: Vec::new(),
        last_good: Some(revision.clone()),
    }
}
