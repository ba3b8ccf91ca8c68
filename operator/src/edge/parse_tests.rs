use serde_json::json;

use super::*;

fn assigned_model(name: &str, revision: &str) -> crds::AssignedModel {
    serde_json::from_value(json!({
        "namespace": "team", "name": name, "endpointName": "digits", "revision": revision,
        "package": {"repository": "r.example/digits", "digest": format!("sha256:{}", "0".repeat(64))},
        "runtime": {}, "health": {}, "maxUnavailable": "25%", "action": "Run",
        "nodeSelector": {"matchLabels": {"tier": "canary"}}, "progressDeadlineSeconds": 60,
    }))
    .unwrap()
}

#[test]
fn an_entry_that_does_not_parse_is_named_and_stops_no_other() {
    let entries = entries(&[
        assigned_model("good", "good-1"),
        assigned_model("bad", "Not A Name"),
    ]);
    let keys: Vec<_> = entries.assigned.keys().map(ToString::to_string).collect();
    assert_eq!(keys, ["team/good"]);
    let error = &entries.unreadable[&("team".to_owned(), "bad".to_owned())];
    assert!(error.contains("revision name \"Not A Name\""), "{error}");
}

#[test]
fn an_entry_without_a_node_selector_is_for_all_nodes() {
    let mut model = assigned_model("digits", "digits-1");
    let (_, entry) = assigned(&model).unwrap();
    assert!(!entry.nodes.matches(&BTreeMap::new()));
    assert_eq!(entry.max_unavailable, Amount::Percent(25));
    model.node_selector = None;
    let (_, entry) = assigned(&model).unwrap();
    assert!(entry.nodes.matches(&BTreeMap::new()));
}

fn check_node(status: serde_json::Value) -> Node<crds::NodeModel> {
    let object: crds::EdgeNode = serde_json::from_value(json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "EdgeNode",
        "metadata": {"name": "n1", "generation": 3, "annotations": {"rimward.dev/hold": "x".repeat(600)}},
        "spec": {}, "status": status,
    }))
    .unwrap();
    node(&object, &[], Hearing::Heard, None)
}

#[test]
fn a_node_whose_agent_never_reported_has_no_report() {
    assert_eq!(check_node(json!({"observedGeneration": -1})).report, None);
    assert_eq!(check_node(json!({})).report, None);
}

#[test]
fn a_report_is_read_with_the_devices_own_words_and_what_was_removed_is_absent() {
    let node = check_node(json!({"observedGeneration": 3, "models": [
        {"namespace": "team", "name": "digits", "revision": "digits-2", "state": "Rejected",
         "reason": "GoldenVectorMismatch", "message": "golden vector 3: expected 7, got 1",
         "servingRevision": "digits-1", "lastGoodRevision": "digits-1"},
        {"namespace": "team", "name": "old", "revision": "old-1", "state": "Removed"},
    ]}));
    assert_eq!(node.generation, 3);
    assert_eq!(node.held.unwrap().len(), TEXT_CHARS_MAX, "bounded");
    let models = node.report.unwrap().models;
    assert_eq!(models.len(), 1);
    let model = models.values().next().unwrap();
    assert_eq!(model.state, NodeState::Rejected);
    assert!(model.serving);
    assert_eq!(model.message, "golden vector 3: expected 7, got 1");
}
