use rimward_crds::EdgeNode;
use serde_json::json;

use super::fixture::{mdep, object, view};
use super::*;

#[test]
fn a_tree_shows_revisions_stages_clusters_counts_and_what_is_waited_for() {
    let expected = "\
team/digits  Degraded (StageFailed: 1 of 1 clusters failed)  0/2 clusters
├─ revision digits-aaa (digits-1.0.0 1.0.0)  Promoted, current
├─ revision digits-bbb (digits-1.1.0 1.1.0)  Failed: GoldenVectorMismatch: golden vector 3: expected 7, got 1
├─ stage canary  Failed
│  └─ cluster site-a  digits-bbb  0/2 nodes updated, 2 ready, 1 rolled back  Failed
│     └─ node n1  GoldenVectorMismatch: golden vector 3:\u{fffd}[31m expected 7, got 1
├─ stage rest
│  └─ cluster site-b  digits-aaa  3/3 nodes updated, 3 ready  [Offline: last heard of 400 s ago]
├─ stage all  not begun
└─ waiting for: a new revision
";
    assert_eq!(tree(&view(), false), expected);
}

#[test]
fn an_explanation_ends_in_the_devices_own_reason() {
    let text = explain(&view(), Some("site-a"), Some("n1"), None).unwrap();
    let last = text.lines().last().unwrap();
    assert_eq!(
        last,
        "    node n1: GoldenVectorMismatch: golden vector 3:\u{fffd}[31m expected 7, got 1"
    );
    assert!(
        text.starts_with(
            "team/digits wants model digits-2 and is Degraded: StageFailed: 1 of 1 clusters failed\n"
        ),
        "{text}"
    );
    assert!(!text.contains("site-b"));
    assert!(
        text.contains("revision digits-bbb (model digits-1.1.0 1.1.0) failed in stage canary:"),
        "{text}"
    );
}

#[test]
fn a_cluster_without_an_order_is_not_found() {
    let error = explain(&view(), Some("site-z"), None, None).unwrap_err();
    assert!(
        error
            .to_string()
            .starts_with("cluster site-z has no order for team/digits")
    );
}

fn check_node(spec: serde_json::Value, status: serde_json::Value) -> String {
    let node: EdgeNode = object(
        "EdgeNode",
        json!({"metadata": {"name": "n1", "generation": 3}, "spec": spec, "status": status}),
    );
    let text = explain(&view(), Some("site-a"), Some("n1"), Some(&[node])).unwrap();
    text.lines().last().unwrap().trim().to_owned()
}

#[test]
fn a_node_that_is_asked_itself_answers_in_its_own_words() {
    let order = |revision: &str| {
        json!({"models": [{"namespace": "team", "name": "digits", "endpointName": "digits",
            "revision": revision, "package": {"repository": "r", "digest": format!("sha256:{}", "0".repeat(64))}}]})
    };
    assert_eq!(
        check_node(json!({}), json!({})),
        "node n1 has no go-ahead for any revision"
    );
    assert_eq!(
        check_node(order("digits-bbb"), json!({})),
        "node n1 has the go-ahead for digits-bbb; its agent has not reported on it yet"
    );
    let report = json!({"observedGeneration": 3, "models": [{
        "namespace": "team", "name": "digits", "revision": "digits-bbb", "state": "Rejected",
        "reason": "GoldenVectorMismatch", "message": "golden vector 3: expected 7, got 1",
        "servingRevision": "digits-aaa"}]});
    assert_eq!(
        check_node(order("digits-bbb"), report),
        "node n1 rejected digits-bbb, and serves digits-aaa: GoldenVectorMismatch: golden vector 3: expected 7, got 1"
    );
}

#[test]
fn a_node_that_the_edge_does_not_have_is_not_found() {
    let error = explain(&view(), Some("site-a"), Some("n9"), Some(&[])).unwrap_err();
    assert_eq!(error.to_string(), "cluster site-a has no EdgeNode n9");
}

#[test]
fn a_rollout_is_settled_when_it_is_ready_or_cannot_go_on() {
    let check = |list: &[(&str, &str, &str)]| verdict(&mdep(list));
    let one = |kind| (kind, "Reason", "");
    assert_eq!(check(&[]), Verdict::Working);
    assert_eq!(check(&[one("Reconciling")]), Verdict::Working);
    assert_eq!(check(&[one("Ready"), one("Available")]), Verdict::Ready);
    assert_eq!(
        check(&[one("Stalled"), one("Reconciling")]),
        Verdict::Failed
    );
    assert_eq!(check(&[one("Degraded"), one("Ready")]), Verdict::Failed);
    // A rollback on its way has not settled yet.
    assert_eq!(
        check(&[one("Degraded"), one("Reconciling")]),
        Verdict::Working
    );
}

#[test]
fn what_the_operator_has_not_seen_yet_is_not_settled() {
    let mut object = mdep(&[("Ready", "AsDesired", "")]);
    object.metadata.generation = Some(3);
    assert_eq!(verdict(&object), Verdict::Working);
    assert!(
        line(&object).starts_with("team/digits  Pending"),
        "{}",
        line(&object)
    );
}

#[test]
fn a_line_says_where_the_rollout_is_and_what_it_waits_for() {
    assert_eq!(
        line(&mdep(&[("Reconciling", "Progressing", "")])),
        "team/digits  Progressing 0/2  stage canary 1/2 Failed  Progressing  waiting for: a new revision"
    );
}

#[test]
fn a_line_says_each_thing_once() {
    let check = |kind, reason, message: &str, waiting: &str, expected: &str| {
        let mut object = mdep(&[(kind, reason, message)]);
        object.status.as_mut().unwrap().waiting_for = Some(waiting.to_owned());
        let line = line(&object);
        let (_, end) = line.split_once("stage canary 1/2 Failed  ").unwrap();
        assert_eq!(end, expected);
    };
    let wait = "cluster a: updating to revision r2, 0 of 2 nodes";
    check(
        "Reconciling",
        "Updating",
        wait,
        &format!("{wait} (and 1 more waiting)"),
        &format!("waiting for: {wait} (and 1 more waiting)"),
    );
    let refused = "revision r2 failed and is not tried again: 1 cluster(s) failed";
    check(
        "Stalled",
        "RevisionFailed",
        refused,
        refused,
        &format!("RevisionFailed: {refused}"),
    );
    check(
        "Degraded",
        "RevisionFailed",
        "1 cluster(s) failed",
        refused,
        &format!("RevisionFailed: {refused}"),
    );
    check(
        "Ready",
        "RolledOut",
        "all run it",
        wait,
        &format!("RolledOut: all run it  waiting for: {wait}"),
    );
}

/// The fixture's fleet after the rollback: every cluster is ordered the good revision again.
fn rolled_back() -> Deployment {
    let mut view = view();
    let words = "golden vector 3:\u{1b}[31m expected 7, got 1";
    let failure = format!(
        "1 cluster(s) failed, 0 allowed; cluster site-a, node n1: GoldenVectorMismatch: {words}"
    );
    let refusal = format!(
        "revision digits-bbb failed and is not tried again, only a new revision is: {failure}"
    );
    view.state = "Stalled";
    view.reason = Some("RevisionFailed".to_owned());
    view.message = Some(refusal.clone());
    view.waiting_for = Some(refusal);
    let failed = view.revisions.iter_mut().find(|it| it.name == "digits-bbb");
    let failed = failed.unwrap();
    failed.reason = Some("StageFailed".to_owned());
    failed.message = Some(failure);
    failed.problems = vec![rimward_crds::RevisionProblem {
        cluster: "site-a".to_owned(),
        node: "n1".to_owned(),
        reason: "GoldenVectorMismatch".to_owned(),
        message: words.to_owned(),
    }];
    let cluster = &mut view.stages[0].clusters[0];
    cluster.revision = "digits-aaa".to_owned();
    cluster.problems.clear();
    view
}

#[test]
fn after_a_rollback_the_explanation_says_each_fact_once_and_still_ends_in_the_devices_words() {
    let expected = "\
team/digits wants model digits-2 and is Stalled: RevisionFailed: revision digits-bbb failed and is not tried again, only a new revision is
  revision digits-aaa (model digits-1.0.0 1.0.0) is promoted: what a cluster runs, or goes back to
  revision digits-bbb (model digits-1.1.0 1.1.0) failed in stage canary: StageFailed: 1 cluster(s) failed, 0 allowed
  cluster site-b is ordered digits-aaa in stage rest: 3/3 nodes updated, 3 ready
    it is not available: Offline: last heard of 400 s ago
  cluster site-a is ordered digits-aaa in stage canary: 0/2 nodes updated, 2 ready, 1 rolled back  Failed
    node n1 on digits-bbb: GoldenVectorMismatch: golden vector 3:\u{fffd}[31m expected 7, got 1
";
    assert_eq!(explain(&rolled_back(), None, None, None).unwrap(), expected);
}

#[test]
fn while_it_rolls_back_the_failure_is_told_once_too() {
    let mut view = rolled_back();
    view.state = "Degraded";
    view.message = view.revisions[1].message.clone();
    let text = explain(&view, None, None, None).unwrap();
    assert_eq!(text.matches("golden vector").count(), 1, "{text}");
    assert_eq!(text.matches("1 cluster(s) failed").count(), 1, "{text}");
}

#[test]
fn a_cluster_that_is_ordered_nothing_any_more_still_tells_why() {
    let mut view = rolled_back();
    view.stages[0].clusters.clear();
    let text = explain(&view, None, None, None).unwrap();
    let end = "
  cluster site-a is ordered nothing any more
    node n1 on digits-bbb: GoldenVectorMismatch: golden vector 3:\u{fffd}[31m expected 7, got 1
";
    assert!(text.ends_with(end), "{text}");
}

#[test]
fn what_a_node_cannot_do_for_now_is_told_on_its_own_line_only() {
    let mut view = view();
    view.state = "Progressing";
    view.reason = Some("Updating".to_owned());
    let problem = view.stages[0].clusters[0].problems[0].clone();
    let words = format!(
        "cluster site-a: updating to revision digits-bbb, 0 of 2 nodes; n1: {}",
        problem.message
    );
    view.message = Some(words.clone());
    view.waiting_for = Some(words);
    let text = explain(&view, None, None, None).unwrap();
    let begin = "\
team/digits wants model digits-2 and is Progressing
  waiting for: cluster site-a: updating to revision digits-bbb, 0 of 2 nodes
";
    assert!(text.starts_with(begin), "{text}");
    assert!(
        text.lines().last().unwrap().contains("node n1: Golden"),
        "{text}"
    );
    assert!(tree(&view, false).starts_with("team/digits  Progressing (Updating)  0/2 clusters\n"));
}

fn asked(action: &'static str, outcome: Option<&str>, message: &str) -> super::model::Asked {
    super::model::Asked {
        name: format!("digits-{}-x", action.to_lowercase()),
        action,
        by: "ann\u{1b}".to_owned(),
        outcome: outcome.map(ToOwned::to_owned),
        message: Some(message.to_owned()).filter(|message| !message.is_empty()),
    }
}

/// The fixture's fleet with a rollout that silence stopped, and what people asked of it.
fn stopped() -> Deployment {
    let mut view = view();
    view.state = "Stalled";
    view.reason = Some("RolloutStopped".to_owned());
    view.message = None;
    view.attempt = Some(2);
    view.clusters = Some(rimward_crds::ReadyCounts {
        desired: 5,
        pending: 1,
        silent: 2,
        suspect: 1,
        held: 1,
        ..rimward_crds::ReadyCounts::default()
    });
    let revision = &mut view.revisions[1];
    revision.outcome = "Stopped".to_owned();
    revision.attempt = Some(2);
    revision.reason = Some("Suspect".to_owned());
    revision.message = Some("cluster site-a fell silent".to_owned());
    let cluster = &mut view.stages[0].clusters[0];
    cluster.nodes.rolled_back = 0;
    cluster.nodes.silent = 1;
    cluster.nodes.suspect = 1;
    view.actions = vec![
        asked("Retry", None, ""),
        asked("Promote", Some("Refused"), "stage canary is over"),
        asked("Abort", Some("Applied"), "all go back"),
    ];
    view
}

#[test]
fn a_tree_says_who_is_silent_who_is_suspect_which_attempt_it_is_and_what_people_asked() {
    let text = tree(&stopped(), false);
    let has = |line: &str| assert!(text.contains(line), "no {line:?} in\n{text}");
    has(
        "team/digits  Stalled (RolloutStopped)  0/2 clusters, 1 held, 2 silent, 1 suspect, attempt 2\n",
    );
    has(
        "revision digits-bbb (digits-1.1.0 1.1.0)  Stopped at attempt 2: Suspect: cluster site-a fell silent\n",
    );
    has("0/2 nodes updated, 2 ready, 1 silent, 1 suspect  Failed\n");
    has("action Retry by ann\u{fffd} (digits-retry-x)  not decided yet\n");
    // One that was decided before the last is for those who ask for more.
    assert!(!text.contains("action Abort"), "{text}");
    let wide = tree(&stopped(), true);
    assert!(
        wide.contains("(digits-abort-x)  Applied: all go back\n"),
        "{wide}"
    );
}

#[test]
fn an_explanation_of_a_stopped_revision_says_what_to_type() {
    let text = explain(&stopped(), None, None, None).unwrap();
    let line = "revision digits-bbb (model digits-1.1.0 1.1.0) stopped in stage canary at attempt 2, \
                and `kubectl rimward retry digits` opens it again: Suspect: cluster site-a fell silent";
    assert!(text.contains(line), "{text}");
    assert!(text.contains("\n  action Retry by ann"), "{text}");
}

#[test]
fn what_a_person_took_back_or_undid_is_said_everywhere() {
    let mut view = stopped();
    view.aborted = true;
    view.undo = Some(rimward_crds::UndoStatus {
        from: "digits-bbb".to_owned(),
        to: "digits-aaa".to_owned(),
    });
    let words = ", attempt 2, aborted, undone: digits-aaa instead of digits-bbb";
    assert!(tree(&view, false).contains(words));
    assert!(explain(&view, None, None, None).unwrap().contains(words));
    let mut object = mdep(&[("Reconciling", "Progressing", "")]);
    let status = object.status.as_mut().unwrap();
    status.undo = view.undo;
    let stage = status.stage.as_mut().unwrap();
    (stage.attempt, stage.aborted) = (2, true);
    assert_eq!(
        line(&object),
        "team/digits  Progressing 0/2  stage canary 1/2 Failed attempt 2 aborted  \
         undone: digits-aaa instead of digits-bbb  Progressing  waiting for: a new revision"
    );
}
