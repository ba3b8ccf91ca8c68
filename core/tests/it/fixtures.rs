//! Small makers, so that a test says only what it is about. An API change touches this file.

use std::collections::BTreeMap;

use rimward_core::fleet::{
    self, Action, Amount, Because, Cluster, ConnectionState, Deployment, DeploymentPlan, Desired,
    Entry, Fleet, Members, ModelReport, Observed, Outcome, Placement, Plan, Policy, Report,
    Revision, Stage, Standing,
};
use rimward_core::ids::{ClusterName, DeploymentKey, RevisionName};
use rimward_core::selector::{Labels, Selector};
use rimward_core::summary::{Counts, Measures, Phase, Problem};
use rimward_core::time::Timestamp;

/// An earlier leader called it silent.
pub(crate) const SILENT: ConnectionState = ConnectionState::Silent;

/// Heard just now.
pub(crate) const ALIVE: ConnectionState = ConnectionState::Heard { at: NOW };

pub(crate) const NOW: Timestamp = Timestamp(1_000_000);

pub(crate) fn key(name: &str) -> DeploymentKey {
    DeploymentKey::parse("team", name).unwrap()
}

pub(crate) fn rev(name: &str) -> RevisionName {
    name.parse().unwrap()
}

pub(crate) fn named(name: &str) -> ClusterName {
    name.parse().unwrap()
}

pub(crate) fn labels(pairs: &[(&str, &str)]) -> Labels {
    pairs
        .iter()
        .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
        .collect()
}

/// A deployment of revision `update` on every cluster, under the default policy.
pub(crate) fn deployment(update: &str, current: Option<&str>) -> Deployment {
    let mut revisions = BTreeMap::from([(
        rev(update),
        Revision {
            entry_bytes: 1000,
            ..Revision::default()
        },
    )]);
    if let Some(current) = current {
        let promoted = Revision {
            outcome: Outcome::Promoted,
            entry_bytes: 1000,
            ..Revision::default()
        };
        revisions.insert(rev(current), promoted);
    }
    Deployment {
        endpoint_name: "digits".parse().unwrap(),
        created: Timestamp(0),
        update: Some(rev(update)),
        revisions,
        placement: Placement {
            clusters: Selector::everything(),
            max_clusters: None,
        },
        policy: Policy::default(),
        paused: false,
        deleting: false,
        min_available: None,
        progress_deadline_seconds: 600,
        standing: Standing {
            current: current.map(rev),
            ..Standing::default()
        },
        actions: Vec::new(),
    }
}

pub(crate) fn stage(name: &str, members: Members) -> Stage {
    Stage {
        name: name.parse().unwrap(),
        members,
        max_concurrency: Amount::Count(100),
        max_unavailable: None,
        max_failures: 0,
        min_proven: None,
        allow_empty: false,
        bake_seconds: 0,
        progress_deadline_seconds: None,
    }
}

/// An alive cluster that has nothing yet.
pub(crate) fn cluster() -> Cluster {
    Cluster {
        labels: Labels::new(),
        connection: ALIVE,
        paused: false,
        held: None,
        generation: 1,
        entries: BTreeMap::new(),
        report: Some(Report {
            observed_generation: 1,
            models: BTreeMap::new(),
        }),
    }
}

pub(crate) fn entry(revision: &str) -> Entry {
    Entry {
        revision: rev(revision),
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        replaces: None,
        stage: "all".parse().unwrap(),
        endpoint_name: "digits".parse().unwrap(),
        nodes_max_unavailable: Amount::ONE,
        nodes_max_failures: 0,
        progress_deadline_seconds: 600,
    }
}

pub(crate) fn report(revision: &str, nodes: Counts, phase: Phase) -> ModelReport {
    ModelReport {
        revision: rev(revision),
        attempt: 1,
        nodes,
        phase,
        reason: String::new(),
        measures: Measures::default(),
        problems: Vec::new(),
        last_good: None,
    }
}

pub(crate) fn all_on(revision: &str) -> ModelReport {
    let nodes = Counts {
        desired: 2,
        updated: 2,
        ready: 2,
        ..Counts::default()
    };
    report(revision, nodes, Phase::Passed)
}

pub(crate) fn rejecting(revision: &str) -> ModelReport {
    let nodes = Counts {
        desired: 2,
        ready: 2,
        rolled_back: 1,
        pending: 1,
        ..Counts::default()
    };
    let mut report = report(revision, nodes, Phase::Failed);
    report.reason = "GoldenVectorFailed".to_owned();
    report.problems = vec![Problem {
        node: "n0".parse().unwrap(),
        reason: "GoldenVectorFailed".to_owned(),
        message: "golden vector 3: expected 7, got 1".to_owned(),
    }];
    report
}

/// A cluster that was told `revision` and says `says`.
pub(crate) fn with(revision: &str, says: ModelReport) -> Cluster {
    let mut cluster = cluster();
    say(&mut cluster, &key("digits"), Some(says));
    cluster.entries.insert(key("digits"), entry(revision));
    cluster
}

pub(crate) fn say(cluster: &mut Cluster, key: &DeploymentKey, says: Option<ModelReport>) {
    let generation = cluster.generation;
    let report = cluster.report.get_or_insert_default();
    report.observed_generation = generation;
    report.models.remove(key);
    if let Some(says) = says {
        report.models.insert(key.clone(), says);
    }
}

pub(crate) fn fleet_of(clusters: impl IntoIterator<Item = (&'static str, Cluster)>) -> Observed {
    Observed {
        clusters: clusters
            .into_iter()
            .map(|(name, it)| (named(name), it))
            .collect(),
    }
}

pub(crate) fn one(deployment: Deployment) -> Desired {
    Desired {
        deployments: BTreeMap::from([(key("digits"), deployment)]),
        ..Desired::default()
    }
}

/// Does what the hub does with a plan.
pub(crate) fn apply(desired: &mut Desired, observed: &mut Observed, plan: &Plan) {
    for (name, cluster) in &mut observed.clusters {
        let after = plan.clusters.get(name).cloned().unwrap_or_default();
        if cluster.entries != after {
            cluster.entries = after;
            cluster.generation += 1;
        }
    }
    for (key, answer) in &plan.deployments {
        let deployment = desired.deployments.get_mut(key).unwrap();
        persist(deployment, answer);
    }
}

/// Does what the hub does with a deployment's plan.
pub(crate) fn persist(deployment: &mut Deployment, answer: &DeploymentPlan) {
    deployment.standing.clone_from(&answer.standing);
    for (name, change) in &answer.outcomes {
        let revision = deployment.revisions.entry(name.clone()).or_default();
        revision.outcome = change.outcome;
        revision.message.clone_from(&change.message);
    }
    if let Some((name, attempt)) = &answer.attempt {
        let revision = deployment.revisions.entry(name.clone()).or_default();
        revision.attempt = revision.attempt.max(*attempt);
    }
}

/// A plan with the planner that made it.
#[derive(Debug)]
pub(crate) struct Planned {
    pub(crate) plan: Plan,
    pub(crate) fleet: Fleet,
}

impl std::ops::Deref for Planned {
    type Target = Plan;

    fn deref(&self) -> &Plan {
        &self.plan
    }
}

impl Planned {
    /// Why a cluster waits.
    pub(crate) fn why(&self, key: &DeploymentKey, cluster: &str) -> Option<Because> {
        self.fleet.decisions(key).remove(&named(cluster))?.because
    }

    /// Everybody who waits, and why.
    pub(crate) fn waiting(&self, key: &DeploymentKey) -> Vec<(ClusterName, Because)> {
        let all = self.fleet.decisions(key).into_iter();
        all.filter_map(|(name, it)| Some((name, it.because?)))
            .collect()
    }
}

/// Plans from nothing.
pub(crate) fn plan_at(
    desired: &Desired,
    observed: &Observed,
    now: rimward_core::time::Timestamp,
) -> Planned {
    let mut fleet = fleet::fleet(desired, observed);
    let mut plan = fleet.plan(now);
    plan.clusters = observed
        .clusters
        .keys()
        .map(|name| (name.clone(), fleet.entries(name)))
        .collect();
    Planned { plan, fleet }
}
