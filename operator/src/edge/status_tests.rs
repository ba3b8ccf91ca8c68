use rimward_core::summary::{Counts, Problem};

use super::*;

fn report(phase: Phase, reason: &str, message: &str) -> ModelReport {
    ModelReport {
        attempt: 1,
        revision: "digits-2".parse().unwrap(),
        nodes: Counts {
            desired: 2,
            updated: 1,
            ready: 2,
            ..Counts::default()
        },
        phase,
        reason: reason.to_owned(),
        measures: Measures::default(),
        problems: vec![Problem {
            node: "n1".parse().unwrap(),
            reason: reason.to_owned(),
            message: message.to_owned(),
        }],
        last_good: None,
    }
}

fn check(
    report: ModelReport,
    before: Option<&ClusterAssignmentStatus>,
    seconds: i64,
) -> ClusterAssignmentStatus {
    let report = [(ModelKey::parse("team", "digits").unwrap(), report)].into();
    let sources = Sources {
        facts: &Facts::default(),
        hub_generation: 4,
        report: &report,
        listening: &BTreeSet::new(),
        unreadable: &BTreeMap::new(),
        nodes: &NodeSummary::default(),
        capabilities: &Capabilities::default(),
    };
    let now = Time(Timestamp::from_second(seconds).unwrap());
    status(&sources, before, &now)
}

fn condition(status: &ClusterAssignmentStatus, kind: &str) -> Condition {
    let found = status.conditions.iter().find(|one| one.type_ == kind);
    found.unwrap().clone()
}

#[test]
fn a_rejection_is_stalled_with_the_devices_reason_and_words() {
    let status = check(
        report(
            Phase::Failed,
            "GoldenVectorMismatch",
            "golden vector 3: expected 7, got 1",
        ),
        None,
        1,
    );
    let stalled = condition(&status, "Stalled");
    assert_eq!(stalled.status, "True");
    assert_eq!(stalled.reason, "GoldenVectorMismatch");
    assert!(
        stalled
            .message
            .ends_with("revision digits-2 failed on node n1: golden vector 3: expected 7, got 1"),
        "{}",
        stalled.message
    );
    assert_eq!(condition(&status, "Ready").status, "False");
    assert_eq!(condition(&status, "Reconciling").status, "False");
}

#[test]
fn a_devices_reason_of_another_form_does_not_cost_the_whole_status() {
    let status = check(report(Phase::Failed, "not a reason!", "x"), None, 1);
    assert_eq!(condition(&status, "Stalled").reason, "StageFailed");
    assert_eq!(status.models[0].problems[0].reason, "not a reason!");
}

#[test]
fn work_that_goes_on_is_reconciling_and_a_settled_cluster_is_ready() {
    let working = check(report(Phase::Trial, "", ""), None, 1);
    assert_eq!(condition(&working, "Reconciling").status, "True");
    assert_eq!(condition(&working, "Stalled").status, "False");
    let done = check(report(Phase::Passed, "", ""), Some(&working), 9);
    assert_eq!(condition(&done, "Ready").status, "True");
    assert_eq!(done.observed_generation, Some(4));
}

#[test]
fn a_condition_keeps_its_time_until_it_turns() {
    let first = check(report(Phase::Staging, "", ""), None, 1);
    let second = check(report(Phase::Trial, "", ""), Some(&first), 5);
    let third = check(report(Phase::Passed, "", ""), Some(&second), 9);
    let time = |status| {
        condition(status, "Ready")
            .last_transition_time
            .0
            .as_second()
    };
    assert_eq!([time(&first), time(&second), time(&third)], [1, 1, 9]);
}

#[test]
fn the_same_said_later_or_in_another_order_is_the_same() {
    let left = check(report(Phase::Trial, "", ""), None, 1);
    let mut right = check(report(Phase::Trial, "", ""), None, 9);
    right.conditions.reverse();
    assert!(same(&left, &right));
    right.models[0].nodes.updated = 2;
    assert!(!same(&left, &right));
}

#[test]
fn a_deadline_that_ran_out_is_stalled_and_blames_nothing() {
    let words = "not on revision digits-2 within its progress deadline (blocked: no route)";
    let status = check(
        report(Phase::TimedOut, "ProgressDeadlineExceeded", words),
        None,
        1,
    );
    let stalled = condition(&status, "Stalled");
    assert_eq!(stalled.reason, "ProgressDeadlineExceeded");
    assert!(
        stalled
            .message
            .contains("ran out of time on node n1: not on"),
        "{}",
        stalled.message
    );
}

#[test]
fn to_begin_to_listen_is_no_news_but_a_rejection_is() {
    let stands = check(report(Phase::Passed, "", ""), None, 1);
    let key = ModelKey::parse("team", "digits").unwrap();
    let again = |phase: Phase, generation: i64| {
        let report = [(key.clone(), report(phase, "", ""))].into();
        let sources = Sources {
            facts: &Facts::default(),
            hub_generation: generation,
            report: &report,
            listening: &[key.clone()].into(),
            unreadable: &BTreeMap::new(),
            nodes: &NodeSummary::default(),
            capabilities: &Capabilities::default(),
        };
        let now = Time(Timestamp::from_second(9).unwrap());
        status(&sources, Some(&stands), &now)
    };
    assert!(same(&again(Phase::Pending, 4), &stands));
    assert_eq!(
        again(Phase::Failed, 4).models[0].verdict.phase,
        VerdictPhase::Failed
    );
    // What was said of an older order proves nothing of this one.
    assert_eq!(
        again(Phase::Pending, 5).models[0].verdict.phase,
        VerdictPhase::Pending
    );
}

#[test]
fn a_silent_node_is_not_ready_and_what_nodes_can_do_is_a_set() {
    let node: EdgeNode = serde_json::from_value(serde_json::json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "EdgeNode", "metadata": {"name": "n1"},
        "spec": {}, "status": {"architecture": "amd64",
            "backends": [{"name": "rten", "version": "1", "devices": ["cpu"]}],
            "conditions": [{"type": "Ready", "status": "True", "reason": "AsDesired",
                "message": "", "lastTransitionTime": "2001-01-01T00:00:00Z"}]},
    }))
    .unwrap();
    let (summary, capabilities) =
        nodes([(&node, Hearing::Heard), (&node, Hearing::Silent)].into_iter());
    assert_eq!((summary.total, summary.ready), (2, 1));
    assert_eq!(capabilities.architectures, ["amd64"]);
    assert_eq!(capabilities.backends, ["rten"]);
}
