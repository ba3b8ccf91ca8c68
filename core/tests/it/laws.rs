//! Laws over any state at all, however it came about: what was persisted and seen is arbitrary.

use proptest::prelude::{ProptestConfig, any, prop_assert, proptest};

use rimward_core::fleet::{
    self, Action, Cluster, Connection, Desired, Entry, ModelReport, Observed, Outcome, Report,
    Revision, StagePhase, StageRecord,
};
use rimward_core::ids::{DeploymentKey, RevisionName};
use rimward_core::lint;
use rimward_core::selector::Selector;
use rimward_core::summary::{Counts, Phase};
use rimward_core::time::Timestamp;

use crate::choices::Choices;
use crate::fixtures::{NOW, apply, cluster, deployment, entry, key, labels, named, rev};
use crate::world::{policy, same};

const REVISIONS: [&str; 4] = ["r0", "r1", "r2", "r3"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_plan_keeps_the_promises(seed in any::<u64>()) {
        let (desired, observed) = state(&mut Choices::new(seed));
        let plan = fleet::plan(&desired, &observed, NOW);
        let broken = lint::check(&desired, &observed, &plan);
        prop_assert!(broken.is_empty(), "{}", broken[0]);
    }

    #[test]
    fn planning_again_after_applying_leaves_nothing_to_do(seed in any::<u64>()) {
        let (mut desired, mut observed) = state(&mut Choices::new(seed));
        let plan = fleet::plan(&desired, &observed, NOW);
        apply(&mut desired, &mut observed, &plan);
        let again = fleet::plan(&desired, &observed, NOW);
        same(&plan, &again);
    }

    #[test]
    fn every_reason_has_words(seed in any::<u64>()) {
        let (desired, observed) = state(&mut Choices::new(seed));
        let plan = fleet::plan(&desired, &observed, NOW);
        for answer in plan.deployments.values() {
            for (_, waiting) in &answer.waiting {
                prop_assert!(!waiting.to_string().is_empty() && !waiting.reason().is_empty());
            }
            prop_assert!(answer.waiting.is_empty() || answer.waiting_for().is_some());
            let conditions = &answer.conditions;
            prop_assert!(!(conditions.ready.status && conditions.reconciling.status));
            prop_assert!(!(conditions.ready.status && conditions.stalled.status));
            prop_assert!(!(conditions.reconciling.status && conditions.stalled.status));
        }
    }
}

/// Any state: what was persisted need not fit what was seen.
fn state(choices: &mut Choices) -> (Desired, Observed) {
    let keys = [key("a"), key("b"), key("c")];
    let mut observed = Observed::default();
    for index in 0..choices.below(7) {
        observed
            .clusters
            .insert(named(&format!("c{index}")), any_cluster(&keys, choices));
    }
    let mut desired = Desired::default();
    for key in &keys {
        match choices.below(10) {
            0 => {}
            1 => {
                desired.unreadable.insert(key.clone());
            }
            _ => {
                let any = any_deployment(choices);
                desired.deployments.insert(key.clone(), any);
            }
        }
    }
    (desired, observed)
}

fn any_deployment(choices: &mut Choices) -> fleet::Deployment {
    let mut any = deployment("r0", None);
    any.endpoint_name = choices.pick(&["x", "y", "z"]).parse().unwrap();
    any.created = Timestamp(i64::from(choices.small(3)));
    any.revisions = REVISIONS
        .iter()
        .map(|name| {
            let outcome = choices.pick(&[Outcome::Pending, Outcome::Promoted, Outcome::Failed]);
            let entry_bytes = if choices.chance(5) { 700_000 } else { 1000 };
            (
                rev(name),
                Revision {
                    outcome,
                    entry_bytes,
                    message: "it failed".to_owned(),
                },
            )
        })
        .collect();
    let promoted: Vec<_> = any
        .revisions
        .iter()
        .filter(|(_, it)| it.outcome == Outcome::Promoted)
        .map(|(name, _)| name.clone())
        .collect();
    any.target = choices.chance(90).then(|| rev(choices.pick(&REVISIONS)));
    any.current = (!promoted.is_empty() && choices.chance(70)).then(|| choices.pick(&promoted));
    any.placement.clusters = match choices.below(6) {
        0 => Selector::Nothing,
        1 => Selector::label("tier", choices.pick(&["canary", "main"])),
        _ => Selector::everything(),
    };
    any.placement.max_clusters = choices.chance(20).then(|| choices.small(5));
    any.policy = policy(choices);
    any.paused = choices.chance(8);
    any.deleting = choices.chance(5);
    any.stage = choices.chance(70).then(|| StageRecord {
        revision: rev(choices.pick(&REVISIONS)),
        name: choices
            .pick(&["s0", "s1", "remaining", "gone"])
            .parse()
            .unwrap(),
        index: choices.small(5),
        of: 3,
        phase: choices.pick(&[
            StagePhase::Progressing,
            StagePhase::Baking,
            StagePhase::Completed,
            StagePhase::Failed,
            StagePhase::Stopped,
            StagePhase::RollingBack,
            StagePhase::RolledBack,
        ]),
        started: NOW,
        bake_started: choices
            .chance(50)
            .then(|| Timestamp(NOW.0 + 100 - i64::from(choices.small(400)))),
        last_progress: NOW,
        clusters_updated: choices.small(4),
    });
    any
}

fn any_cluster(keys: &[DeploymentKey], choices: &mut Choices) -> Cluster {
    let mut any = cluster();
    any.labels = labels(&[("tier", choices.pick(&["canary", "main", "late"]))]);
    any.connection = match choices.below(8) {
        0 => Connection::NeverJoined,
        1 => Connection::Beat { age_seconds: 299 },
        2 => Connection::Beat { age_seconds: 300 },
        _ => Connection::ALIVE,
    };
    any.paused = choices.chance(5);
    any.held = choices.chance(5).then(|| "harvest".to_owned());
    any.generation = 2;
    let mut report = Report {
        observed_generation: if choices.chance(80) { 2 } else { 1 },
        ..Report::default()
    };
    for key in keys {
        let told = rev(choices.pick(&REVISIONS));
        if choices.chance(70) {
            let action = if choices.chance(85) {
                Action::Run
            } else {
                Action::Remove
            };
            let endpoint_name = choices.pick(&["x", "y", "z"]).parse().unwrap();
            any.entries.insert(
                key.clone(),
                Entry {
                    revision: told.clone(),
                    action,
                    endpoint_name,
                    ..entry("r0")
                },
            );
        }
        if choices.chance(70) {
            let about = if choices.chance(80) {
                told
            } else {
                rev(choices.pick(&REVISIONS))
            };
            report
                .models
                .insert(key.clone(), any_report(about, choices));
        }
    }
    any.report = choices.chance(90).then_some(report);
    any
}

fn any_report(revision: RevisionName, choices: &mut Choices) -> ModelReport {
    let desired = choices.small(4);
    let up_to = |choices: &mut Choices| choices.small(desired + 1);
    let done = choices.chance(50);
    let nodes = Counts {
        desired,
        updated: if done { desired } else { up_to(choices) },
        ready: if done { desired } else { up_to(choices) },
        held: if choices.chance(10) {
            up_to(choices)
        } else {
            0
        },
        silent: if choices.chance(10) {
            up_to(choices)
        } else {
            0
        },
        failed: if choices.chance(10) {
            up_to(choices)
        } else {
            0
        },
        rolled_back: if choices.chance(10) {
            up_to(choices)
        } else {
            0
        },
        ..Counts::default()
    };
    let phase = choices.pick(&[Phase::Passed, Phase::Pending, Phase::Staging, Phase::Failed]);
    crate::fixtures::report(&revision.to_string(), nodes, phase)
}
