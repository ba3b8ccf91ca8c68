//! Tables for what happens when a stage fails: going back, stopping, never again.

use rimward_core::fleet::{Because, Desired, Members, Observed, OnFailure, Outcome, StagePhase};

use crate::fixtures::{
    Planned, all_on, apply, cluster, deployment, fleet_of, key, named, one, rev, say, with,
};
use crate::fleet_words::{answer, canary_then_rest, check_told, fail_at, obey, plan, waiting};

fn failed_canary(on_failure: OnFailure, current: Option<&str>) -> (Desired, Observed, Planned) {
    let mut it = canary_then_rest("r2", current);
    it.policy.on_failure = on_failure;
    let mut desired = one(it);
    let start = || current.map_or_else(cluster, |current| with(current, all_on(current)));
    let mut observed = fleet_of(["c0", "c1"].map(|name| (name, start())));
    let first = plan(&desired, &observed);
    apply(&mut desired, &mut observed, &first);
    fail_at(&mut observed, "c0", "r2");
    if let Some(current) = current {
        say(
            observed.clusters.get_mut(&named("c1")).unwrap(),
            &key("digits"),
            Some(all_on(current)),
        );
    }
    let plan = plan(&desired, &observed);
    (desired, observed, plan)
}

#[test]
fn a_failed_stage_sends_every_cluster_back_in_the_devices_own_words() {
    let (mut desired, mut observed, failed) = failed_canary(OnFailure::RollbackAll, Some("r1"));
    check_told(&failed, &[("c0", "r1"), ("c1", "r1")]);
    let outcome = &answer(&failed).outcomes[&rev("r2")];
    assert_eq!(outcome.outcome, Outcome::Failed);
    assert!(
        outcome
            .message
            .contains("golden vector 3: expected 7, got 1"),
        "{}",
        outcome.message
    );
    let (cluster, problem) = &outcome.problems[0];
    assert_eq!((cluster, outcome.problems.len()), (&named("c0"), 1));
    assert_eq!(problem.message, "golden vector 3: expected 7, got 1");
    assert!(answer(&failed).conditions.degraded.status);
    assert!(answer(&failed).conditions.reconciling.status);
    obey(&mut desired, &mut observed, &failed);
    let back = plan(&desired, &observed);
    check_told(&back, &[("c0", "r1"), ("c1", "r1")]);
    assert_eq!(
        answer(&back).standing.stage.as_ref().unwrap().phase,
        StagePhase::RolledBack
    );
    assert_eq!(answer(&back).conditions.stalled.reason, "RevisionFailed");
    assert!(matches!(waiting(&back, "c0"), Because::RolledBack { .. }));
}

#[test]
fn a_first_rollout_that_fails_is_removed_everywhere() {
    let (mut desired, mut observed, failed) = failed_canary(OnFailure::RollbackAll, None);
    check_told(&failed, &[("c0", "-r2"), ("c1", "")]);
    obey(&mut desired, &mut observed, &failed);
    let gone = plan(&desired, &observed);
    check_told(&gone, &[("c0", ""), ("c1", "")]);
    assert!(matches!(waiting(&gone, "c0"), Because::NothingToRun { .. }));
}

#[test]
fn pause_stops_and_setting_back_or_a_new_revision_leaves_it() {
    let (mut desired, mut observed, failed) = failed_canary(OnFailure::Pause, Some("r1"));
    check_told(&failed, &[("c0", "r2"), ("c1", "r1")]);
    assert_eq!(
        answer(&failed).standing.stage.as_ref().unwrap().phase,
        StagePhase::Failed
    );
    assert!(matches!(waiting(&failed, "c1"), Because::Paused { .. }));
    apply(&mut desired, &mut observed, &failed);

    let target = |desired: &Desired, name: &str| {
        let mut desired = desired.clone();
        let it = desired.deployments.get_mut(&key("digits")).unwrap();
        it.update = Some(rev(name));
        it.revisions.entry(rev(name)).or_default();
        desired
    };
    let back = plan(&target(&desired, "r1"), &observed);
    check_told(&back, &[("c0", "r1"), ("c1", "r1")]);
    assert_eq!(
        answer(&back).standing.stage.as_ref().unwrap().phase,
        StagePhase::Completed
    );
    let new = plan(&target(&desired, "r3"), &observed);
    check_told(&new, &[("c0", "r3"), ("c1", "r1")]);
}

#[test]
fn a_failed_revision_is_not_tried_again() {
    let mut it = deployment("r2", Some("r1"));
    it.revisions.get_mut(&rev("r2")).unwrap().outcome = Outcome::Failed;
    let plan = plan(&one(it), &fleet_of([("c0", with("r1", all_on("r1")))]));
    check_told(&plan, &[("c0", "r1")]);
    assert_eq!(answer(&plan).refusals[0].reason(), "RevisionFailed");
}

#[test]
fn failures_within_the_allowance_do_not_stop_the_stage() {
    let mut it = canary_then_rest("r2", Some("r1"));
    it.policy.stages[0].members = Members::Count(2);
    it.policy.stages[0].max_failures = 1;
    let mut desired = one(it);
    let mut observed = fleet_of(["c0", "c1", "c2"].map(|name| (name, with("r1", all_on("r1")))));
    let first = plan(&desired, &observed);
    obey(&mut desired, &mut observed, &first);
    fail_at(&mut observed, "c0", "r2");
    check_told(
        &plan(&desired, &observed),
        &[("c0", "r2"), ("c1", "r2"), ("c2", "r2")],
    );
    fail_at(&mut observed, "c1", "r2");
    let stopped = plan(&desired, &observed);
    assert_eq!(
        answer(&stopped).outcomes[&rev("r2")].outcome,
        Outcome::Failed
    );
}
