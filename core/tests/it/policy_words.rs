//! Tables for the words of a policy: membership, budgets, offline.

use rimward_core::fleet::{
    Amount, BeforeUpdate, ConnectionState, Members, Observed, Policy, Stage,
};
use rimward_core::selector::Selector;
use rimward_core::time::Timestamp;

use crate::fixtures::{
    NOW, SILENT, cluster, deployment, fleet_of, key, labels, named, one, plan_at, stage,
};

fn ten() -> Observed {
    fleet_of(
        ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"].map(|name| (name, cluster())),
    )
}

/// Checks which clusters each stage takes of `observed`.
fn check(stages: Vec<Stage>, observed: &Observed, expected: &[(&str, &[&str])]) {
    let mut deployment = deployment("r1", None);
    deployment.policy = Policy {
        stages,
        ..Policy::default()
    };
    let groups = plan_at(&one(deployment), observed, NOW)
        .fleet
        .stages(&key("digits"));
    let found: Vec<_> = groups
        .iter()
        .map(|group| {
            let mut members: Vec<_> = group.members.iter().map(ToString::to_string).collect();
            members.sort();
            (group.name.to_string(), members)
        })
        .collect();
    let expected: Vec<_> = expected
        .iter()
        .map(|(name, members)| {
            (
                (*name).to_owned(),
                members.iter().map(|&it| it.to_owned()).collect::<Vec<_>>(),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn without_a_policy_all_clusters_form_one_stage() {
    let observed = fleet_of([("c0", cluster()), ("c1", cluster())]);
    check(vec![], &observed, &[("all", &["c0", "c1"])]);
}

#[test]
fn count_and_percent_are_cumulative_over_the_placement_and_percent_rounds_up() {
    check(
        vec![
            stage("one", Members::Count(1)),
            stage("quarter", Members::Percent(25)),
            stage("four", Members::Count(4)),
            stage("half", Members::Percent(41)),
        ],
        &ten(),
        &[
            ("one", &["c0"]),
            ("quarter", &["c1", "c2"]),
            ("four", &["c3"]),
            ("half", &["c4"]),
            ("remaining", &["c5", "c6", "c7", "c8", "c9"]),
        ],
    );
}

#[test]
fn a_count_that_is_reached_already_makes_an_empty_stage() {
    check(
        vec![
            stage("five", Members::Count(5)),
            stage("three", Members::Count(3)),
            stage("all", Members::Percent(100)),
        ],
        &ten(),
        &[
            ("five", &["c0", "c1", "c2", "c3", "c4"]),
            ("three", &[]),
            ("all", &["c5", "c6", "c7", "c8", "c9"]),
        ],
    );
}

#[test]
fn a_selector_takes_what_no_earlier_stage_took_and_counts_towards_later_ones() {
    let mut observed = ten();
    for name in ["c0", "c7", "c8"] {
        observed.clusters.get_mut(&named(name)).unwrap().labels = labels(&[("tier", "canary")]);
    }
    let canary = Members::Selector(Selector::label("tier", "canary"));
    check(
        vec![
            stage("first", Members::Count(1)),
            stage("canary", canary.clone()),
            stage("again", canary),
            stage("five", Members::Count(5)),
            stage("nothing", Members::Selector(Selector::Nothing)),
        ],
        &observed,
        &[
            ("first", &["c0"]),
            ("canary", &["c7", "c8"]),
            ("again", &[]),
            ("five", &["c1", "c2"]),
            ("nothing", &[]),
            ("remaining", &["c3", "c4", "c5", "c6", "c9"]),
        ],
    );
}

#[test]
fn a_count_takes_clusters_that_answer_before_offline_ones() {
    let mut observed = fleet_of(["c0", "c1", "c2"].map(|name| (name, cluster())));
    let gone = observed.clusters.get_mut(&named("c0")).unwrap();
    gone.connection = SILENT;
    check(
        vec![stage("canary", Members::Count(1))],
        &observed,
        &[("canary", &["c1"]), ("remaining", &["c0", "c2"])],
    );
}

#[test]
fn budgets_round_down_and_are_at_least_one() {
    for (amount, total, expected) in [
        (Amount::Percent(25), 10, 2),
        (Amount::Percent(29), 10, 2),
        (Amount::Percent(5), 10, 1),
        (Amount::Percent(100), 10, 10),
        (Amount::Percent(50), 0, 1),
        (Amount::Count(3), 10, 3),
        (Amount::Count(0), 10, 1),
    ] {
        assert_eq!(amount.of(total), expected, "{amount:?} of {total}");
    }
}

#[test]
fn a_cluster_silent_before_the_update_leaves_the_budgets_unless_it_is_waited_for() {
    for (before_update, age_seconds, counted) in [
        (BeforeUpdate::Skip, 299, 2),
        (BeforeUpdate::Skip, 300, 1),
        (BeforeUpdate::Wait, 300, 2),
    ] {
        let mut observed = fleet_of([("c0", cluster()), ("c1", cluster())]);
        let silent = observed.clusters.get_mut(&named("c1")).unwrap();
        silent.connection = ConnectionState::Heard {
            at: Timestamp(NOW.0 - age_seconds),
        };
        let mut deployment = deployment("r1", None);
        deployment.policy.stages = vec![stage("all", Members::Percent(100))];
        deployment.policy.stages[0].max_concurrency = Amount::ALL;
        deployment.policy.offline.before_update = before_update;
        let plan = plan_at(&one(deployment), &observed, NOW);
        let group = &plan.fleet.stages(&key("digits"))[0];
        assert_eq!(
            group.moving_max.min(2),
            if counted == 1 { 1 } else { 2 },
            "{before_update:?} after {age_seconds} s"
        );
    }
}

#[test]
fn max_clusters_keeps_those_that_run_it_then_takes_by_name() {
    let mut observed = fleet_of(["c0", "c1", "c2"].map(|name| (name, cluster())));
    observed.clusters.get_mut(&named("c2")).unwrap().entries =
        [(key("digits"), crate::fixtures::entry("r1"))].into();
    let mut deployment = deployment("r1", None);
    deployment.placement.max_clusters = Some(2);
    let plan = plan_at(&one(deployment), &observed, NOW);
    assert!(plan.clusters[&named("c1")].is_empty());
    assert_eq!(plan.deployments[&key("digits")].clusters.desired, 2);
}
