//! Laws over any state at all, however it came about: what was persisted and seen is arbitrary.

use proptest::prelude::{ProptestConfig, TestCaseError, any, prop_assert, proptest};

use rimward_core::fleet::{
    self, Action, AfterUpdate, Amount, BeforeUpdate, Cluster, ConnectionState, Desired, Entry,
    Fleet, Hold, HoldMode, Members, ModelReport, Observed, Offline, OnFailure, Outcome, Passed,
    Policy, Report, Revision, StagePhase, StageRecord, Undo,
};
use rimward_core::ids::{DeploymentKey, RevisionName};
use rimward_core::lint::{self, Checked};
use rimward_core::selector::Selector;
use rimward_core::summary::{Counts, Phase};
use rimward_core::time::Timestamp;

use crate::choices::Choices;
use crate::fixtures::{
    ALIVE, NOW, SILENT, cluster, deployment, entry, key, labels, named, plan_at, rev, stage,
};
use crate::hub::Hub;
use crate::simulation::knob;

const REVISIONS: [&str; 4] = ["r0", "r1", "r2", "r3"];

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_plan_keeps_the_promises(seed in any::<u64>()) {
        check_any_plan_keeps_the_promises(replayed(seed))?;
    }

    #[test]
    fn planning_again_after_applying_leaves_nothing_to_do(seed in any::<u64>()) {
        check_planning_again_after_applying_leaves_nothing_to_do(replayed(seed))?;
    }

    #[test]
    fn what_is_kept_up_is_what_it_would_be_from_nothing(seed in any::<u64>()) {
        check_what_is_kept_up_is_what_it_would_be_from_nothing(replayed(seed))?;
    }

    #[test]
    fn every_reason_has_words(seed in any::<u64>()) {
        check_every_reason_has_words(replayed(seed))?;
    }
}

/// `RIMWARD_SEED` replays one case.
fn replayed(seed: u64) -> u64 {
    knob("RIMWARD_SEED").unwrap_or(seed)
}

fn check_any_plan_keeps_the_promises(seed: u64) -> Result<(), TestCaseError> {
    let (desired, observed) = state(&mut Choices::new(seed));
    let planned = plan_at(&desired, &observed, NOW);
    let broken = lint::check(Checked {
        desired: &desired,
        observed: &observed,
        fleet: &planned.fleet,
        plan: &planned.plan,
        now: NOW,
    });
    if knob("RIMWARD_SEED").is_some() {
        describe(&desired, &observed, &planned.fleet);
    }
    prop_assert!(broken.is_empty(), "{}", broken[0]);
    Ok(())
}

fn check_planning_again_after_applying_leaves_nothing_to_do(
    seed: u64,
) -> Result<(), TestCaseError> {
    let (desired, observed) = state(&mut Choices::new(seed));
    let mut hub = Hub::new(desired, observed);
    hub.turn();
    let first = hub.said.clone();
    hub.fleet.resync();
    let again = hub.turn();
    prop_assert!(again.clusters.is_empty(), "{:?}", again.clusters);
    for (key, second) in &again.deployments {
        prop_assert!(second.outcomes.is_empty(), "{key}: {:?}", second.outcomes);
        prop_assert!(
            second.transitions.is_empty(),
            "{key}: {:?}",
            second.transitions
        );
        let mut first = first[key].clone();
        first.outcomes.clear();
        first.transitions.clear();
        let (one, two) = (format!("{first:#?}"), format!("{second:#?}"));
        let differs: Vec<_> = one
            .lines()
            .zip(two.lines())
            .filter(|(a, b)| a != b)
            .collect();
        prop_assert!(&first == second, "{key}: {differs:?}");
    }
    // And a new leader, who knows only what stands there, changes nothing either, once the sessions have acted
    // on it; but that membership of stages by number does not stick over its head.
    let by_number = |it: &fleet::Deployment| {
        let mut stages = it.policy.stages.iter();
        it.placement.max_clusters.is_some()
            || stages.any(|it| !matches!(it.members, Members::Selector(_)))
    };
    if hub.desired.deployments.values().any(by_number) {
        return Ok(());
    }
    for _ in 0..20 {
        let names: Vec<_> = hub.observed.clusters.keys().cloned().collect();
        for name in names {
            hub.cluster(name.as_str(), |it| {
                if let Some(report) = &mut it.report {
                    report.observed_generation = it.generation;
                }
            });
        }
        if hub.turn().clusters.is_empty() {
            break;
        }
    }
    let told: Vec<_> = hub
        .observed
        .clusters
        .values()
        .map(|it| it.entries.clone())
        .collect();
    let state = (hub.desired.clone(), hub.observed.clone());
    if knob("RIMWARD_SEED").is_some() {
        describe(&state.0, &state.1, &hub.fleet);
    }
    hub.fleet = fleet::fleet(&hub.desired, &hub.observed);
    hub.turn();
    let after: Vec<_> = hub
        .observed
        .clusters
        .values()
        .map(|it| it.entries.clone())
        .collect();
    for (before, after) in told.iter().zip(&after) {
        let differs: Vec<_> = after
            .iter()
            .filter(|(key, it)| before.get(*key) != Some(*it))
            .collect();
        let was: Vec<_> = differs.iter().map(|(key, _)| before.get(*key)).collect();
        prop_assert!(before == after, "{differs:?} was {was:?}");
    }
    Ok(())
}

fn check_what_is_kept_up_is_what_it_would_be_from_nothing(seed: u64) -> Result<(), TestCaseError> {
    let choices = &mut Choices::new(seed);
    let (desired, observed) = state(choices);
    let (other_desired, other_observed) = state(choices);
    let mut fleet = fleet::fleet(&desired, &observed);
    fleet.plan(NOW);
    // Another state comes over it, object by object, in any order.
    for (name, cluster) in &other_observed.clusters {
        if choices.chance(70) {
            fleet.set_cluster(name, cluster.clone());
        }
        if choices.chance(20) {
            fleet.plan(NOW);
        }
    }
    for (key, deployment) in &other_desired.deployments {
        match choices.below(4) {
            0 => fleet.remove_deployment(key, choices.chance(30)),
            _ => fleet.set_deployment(key, deployment.clone()),
        }
        if choices.chance(30) {
            fleet.plan(NOW.plus_seconds(choices.small(400)));
        }
    }
    for name in observed.clusters.keys() {
        match choices.below(6) {
            0 => fleet.remove_cluster(name),
            1 => fleet.hear(name, SILENT),
            2 => fleet.hear(name, ConnectionState::Heard { at: NOW }),
            _ => {}
        }
    }
    fleet.plan(NOW.plus_seconds(500));
    let audit = fleet.audit();
    prop_assert!(audit.is_ok(), "{audit:?}");
    Ok(())
}

fn check_every_reason_has_words(seed: u64) -> Result<(), TestCaseError> {
    let (desired, observed) = state(&mut Choices::new(seed));
    let planned = plan_at(&desired, &observed, NOW);
    for (key, answer) in &planned.deployments {
        let waiting = planned.waiting(key);
        for (_, because) in &waiting {
            prop_assert!(!because.to_string().is_empty() && !because.reason().is_empty());
        }
        prop_assert!(waiting.is_empty() || answer.waiting_for().is_some());
        let conditions = &answer.conditions;
        prop_assert!(!(conditions.ready.status && conditions.reconciling.status));
        prop_assert!(!(conditions.ready.status && conditions.stalled.status));
        prop_assert!(!(conditions.reconciling.status && conditions.stalled.status));
    }
    Ok(())
}

/// What a replayed case is about.
fn describe(desired: &Desired, observed: &Observed, fleet: &Fleet) {
    for (key, deployment) in &desired.deployments {
        eprintln!("{key}: {deployment:#?}");
        for (name, cluster) in &observed.clusters {
            let report = cluster.report.as_ref();
            eprintln!(
                "{name} {:?} generation {} {:?}\n  said {:?} {:?}\n  {:?}",
                cluster.connection,
                cluster.generation,
                cluster.entries.get(key),
                report.map(|it| it.observed_generation),
                report.and_then(|it| it.models.get(key)),
                fleet.decisions(key).get(name),
            );
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
            let outcome = choices.pick(&[
                Outcome::Pending,
                Outcome::Promoted,
                Outcome::Failed,
                Outcome::Stopped,
            ]);
            let entry_bytes = if choices.chance(5) { 400_000 } else { 1000 };
            let known = Revision {
                outcome,
                entry_bytes,
                attempt: choices.small(3),
                message: "it failed".to_owned(),
            };
            (rev(name), known)
        })
        .collect();
    let promoted: Vec<_> = any
        .revisions
        .iter()
        .filter(|(_, it)| it.outcome == Outcome::Promoted)
        .map(|(name, _)| name.clone())
        .collect();
    any.update = choices.chance(90).then(|| rev(choices.pick(&REVISIONS)));
    let standing = &mut any.standing;
    standing.current =
        (!promoted.is_empty() && choices.chance(70)).then(|| choices.pick(&promoted));
    standing.forget_verdicts_before = choices.small(3);
    if choices.chance(8) && !promoted.is_empty() {
        standing.undo = Some(Undo {
            from: rev(choices.pick(&REVISIONS)),
            to: choices.pick(&promoted),
        });
    }
    any.placement.clusters = match choices.below(6) {
        0 => Selector::Nothing,
        1 => Selector::label("tier", choices.pick(&["canary", "main"])),
        _ => Selector::everything(),
    };
    any.placement.max_clusters = choices.chance(20).then(|| choices.small(5));
    any.policy = policy(choices);
    any.paused = choices.chance(8);
    any.deleting = choices.chance(5);
    any.standing.stage = choices.chance(70).then(|| StageRecord {
        revision: rev(choices.pick(&REVISIONS)),
        attempt: 1 + choices.small(2),
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
        baked_seconds: choices.small(200),
        elapsed_seconds: choices.small(200),
        passed: if choices.chance(10) {
            vec![Passed {
                stage: "s0".parse().unwrap(),
                suspects: choices.small(3),
                failed: choices.small(2),
            }]
        } else {
            Vec::new()
        },
        aborted: choices.chance(5),
        doubt_overruled: choices.chance(5),
    });
    any
}

pub(crate) fn policy(choices: &mut Choices) -> Policy {
    let stages = (0..choices.below(4)).map(|index| {
        let members = match choices.below(4) {
            0 => Members::Selector(Selector::label(
                "tier",
                choices.pick(&["canary", "main", "late"]),
            )),
            1 => Members::Selector(Selector::Nothing),
            2 => Members::Count(1 + choices.small(5)),
            _ => Members::Percent(1 + choices.small(100)),
        };
        let amount = |choices: &mut Choices| {
            if choices.chance(50) {
                Amount::Count(1 + choices.small(3))
            } else {
                Amount::Percent(1 + choices.small(100))
            }
        };
        let mut stage = stage(&format!("s{index}"), members);
        stage.max_concurrency = amount(choices);
        stage.max_unavailable = choices.chance(50).then(|| amount(choices));
        stage.max_failures = choices.small(3) / 2;
        stage.min_proven = choices.chance(20).then(|| amount(choices));
        stage.allow_empty = choices.chance(60);
        stage.bake_seconds = if choices.chance(30) {
            choices.small(200)
        } else {
            0
        };
        stage
    });
    let stages = stages.collect();
    Policy {
        stages,
        nodes_max_unavailable: Amount::Count(1 + choices.small(2)),
        nodes_max_failures: choices.small(2),
        offline: Offline {
            before_update: choices.pick(&[
                BeforeUpdate::Skip,
                BeforeUpdate::Skip,
                BeforeUpdate::Wait,
            ]),
            after_update: choices.pick(&[
                AfterUpdate::Wait,
                AfterUpdate::Wait,
                AfterUpdate::Fail,
                AfterUpdate::Ignore,
            ]),
            grace_seconds: choices.pick(&[300, 300, 60]),
        },
        hold: Hold {
            mode: choices.pick(&[HoldMode::Respect, HoldMode::Fail, HoldMode::Ignore]),
            deadline_seconds: 100 + choices.small(200),
        },
        rollback_max_concurrency: choices.pick(&[Amount::ALL, Amount::ALL, Amount::Count(1)]),
        on_failure: if choices.chance(70) {
            OnFailure::RollbackAll
        } else {
            OnFailure::Pause
        },
    }
}

fn any_cluster(keys: &[DeploymentKey], choices: &mut Choices) -> Cluster {
    let mut any = cluster();
    any.labels = labels(&[("tier", choices.pick(&["canary", "main", "late"]))]);
    any.connection = match choices.below(9) {
        0 => ConnectionState::NeverJoined,
        1 => ConnectionState::Heard {
            at: Timestamp(NOW.0 - 299),
        },
        2 => ConnectionState::Heard {
            at: Timestamp(NOW.0 - 300),
        },
        3 => SILENT,
        4 => ConnectionState::Unheard { since: NOW },
        _ => ALIVE,
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
        let attempt = 1 + choices.small(2);
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
                    attempt,
                    action,
                    replaces: choices.chance(40).then(|| rev(choices.pick(&REVISIONS))),
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
            let mut says = any_report(about, choices);
            says.attempt = attempt;
            report.models.insert(key.clone(), says);
        }
    }
    any.report = choices.chance(90).then_some(report);
    any
}

fn any_report(revision: RevisionName, choices: &mut Choices) -> ModelReport {
    let mut nodes = Counts {
        desired: choices.small(4),
        ..Counts::default()
    };
    for _ in 0..nodes.desired {
        let column = match choices.below(14) {
            0..8 => &mut nodes.updated,
            8 | 9 => &mut nodes.pending,
            10 => &mut nodes.held,
            11 => &mut nodes.silent,
            12 => &mut nodes.failed,
            _ => &mut nodes.rolled_back,
        };
        *column += 1;
    }
    nodes.ready = if choices.chance(70) {
        nodes.desired - nodes.silent
    } else {
        choices.small(nodes.desired + 1)
    };
    let phase = if nodes.rejected() > 0 {
        Phase::Failed
    } else {
        choices.pick(&[
            Phase::Passed,
            Phase::Pending,
            Phase::Staging,
            Phase::TimedOut,
        ])
    };
    crate::fixtures::report(&revision.to_string(), nodes, phase)
}
