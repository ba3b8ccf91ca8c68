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
        line(&object).starts_with("team/digits: Pending"),
        "{}",
        line(&object)
    );
}

#[test]
fn a_line_says_where_the_rollout_is_and_what_it_waits_for() {
    assert_eq!(
        line(&mdep(&[("Reconciling", "Progressing", "")])),
        "team/digits: Progressing, 0/2 clusters, stage canary (1/2) Failed: Progressing; waiting for: a new revision"
    );
}
