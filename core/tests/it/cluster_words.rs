//! Tables for the pacing inside one cluster.

use std::collections::BTreeMap;

use rimward_core::cluster::{self, Hearing, NodeReport, NodeState, NodeWaiting};
use rimward_core::fleet::Action;
use rimward_core::selector::Selector;
use rimward_core::summary::Phase;

use crate::fixtures::{NOW, key, labels, rev};
use crate::node_fixtures::{
    assigned, check, new_node, node, nodes, on, plan, report, silent, waiting,
};

#[test]
fn nodes_get_the_go_ahead_within_the_budget() {
    let three = nodes([on("r1"), on("r1"), on("r1")]);
    check(&plan("r2", 1, &three), &["r2", "r1", "r1"]);
    check(&plan("r2", 2, &three), &["r2", "r2", "r1"]);
    assert!(matches!(
        waiting(&plan("r2", 1, &three), "n1"),
        Some(NodeWaiting::Budget { max: 1 })
    ));
}

#[test]
fn the_next_node_follows_once_the_first_has_committed() {
    let moving = [
        NodeState::Pending,
        NodeState::Staging,
        NodeState::Blocked,
        NodeState::Trial,
        NodeState::Held,
    ];
    for state in moving {
        check(
            &plan("r2", 1, &nodes([node("r2", state), on("r1")])),
            &["r2", "r1"],
        );
    }
    check(&plan("r2", 1, &nodes([on("r2"), on("r1")])), &["r2", "r2"]);
}

/// Was `a_silent_node_counts_as_unavailable_and_gets_nothing`: it still gets nothing, but one that was
/// silent before its go-ahead costs no budget any more, since a single dead device stopped its cluster
/// and then, by the deadline, a good release everywhere.
#[test]
fn a_node_silent_before_its_go_ahead_costs_no_budget_and_gets_nothing() {
    let two = nodes([silent(on("r1")), on("r1")]);
    let given = plan("r2", 1, &two);
    check(&given, &["r1", "r2"]);
    assert_eq!(report(&given).nodes.silent, 1);
    assert_eq!(waiting(&given, "n0").unwrap().reason(), "Silent");
}

#[test]
fn a_node_that_does_not_serve_is_updated_first_and_costs_no_serving_node() {
    let mut broken = on("r1");
    broken
        .report
        .as_mut()
        .unwrap()
        .models
        .get_mut(&key("digits"))
        .unwrap()
        .serving = false;
    check(&plan("r2", 1, &nodes([on("r1"), broken])), &["r1", "r2"]);
}

#[test]
fn a_node_whose_go_ahead_is_refused_takes_no_place_from_others() {
    let mut refused = on("r1");
    refused.refused = Some("admission webhook denied the request".to_owned());
    let plan = plan("r2", 1, &nodes([refused, on("r1")]));
    check(&plan, &["r1", "r2"]);
    assert_eq!(
        report(&plan).problems[0].message,
        "its go-ahead is refused, and tried again: admission webhook denied the request"
    );
}

#[test]
fn a_report_older_than_the_spec_does_not_free_a_place() {
    let mut stale = on("r2");
    stale.generation = 2;
    check(&plan("r2", 1, &nodes([stale, on("r1")])), &["r2", "r1"]);
}

#[test]
fn one_rejecting_node_stops_the_go_aheads_of_that_revision_only() {
    let cluster = nodes([node("r2", NodeState::Rejected), on("r1"), on("r1")]);
    let stopped = plan("r2", 3, &cluster);
    check(&stopped, &["r2", "r1", "r1"]);
    assert_eq!(report(&stopped).phase, Phase::Failed);
    assert_eq!(report(&stopped).nodes.rolled_back, 1);
    assert_eq!(
        report(&stopped).problems[0].message,
        "golden vector 3: expected 7, got 1"
    );
    assert_eq!(
        waiting(&stopped, "n1").unwrap().to_string(),
        "node n0 rejected revision r2, no further node gets it"
    );
    check(&plan("r3", 3, &cluster), &["r3", "r3", "r3"]);
}

#[test]
fn sums_are_made_from_nodes_and_p99_is_their_maximum() {
    let mut slow = on("r2");
    let model = slow
        .report
        .as_mut()
        .unwrap()
        .models
        .get_mut(&key("digits"))
        .unwrap();
    model.measures.latency_p99_microseconds = Some(900);
    let plan = plan("r2", 1, &nodes([on("r2"), slow]));
    let measures = report(&plan).measures;
    assert_eq!((measures.samples, measures.errors), (20, 2));
    assert_eq!(measures.latency_p99_microseconds, Some(900));
    assert_eq!(report(&plan).phase, Phase::Passed);
    assert_eq!(report(&plan).last_good, Some(rev("r0")));
}

#[test]
fn at_most_five_problems_go_up_and_the_worst_come_first() {
    let mut all: Vec<_> = (0..6).map(|_| node("r2", NodeState::Blocked)).collect();
    let mut rejecting = node("r2", NodeState::Rejected);
    rejecting
        .report
        .as_mut()
        .unwrap()
        .models
        .get_mut(&key("digits"))
        .unwrap()
        .serving = false;
    all.push(rejecting);
    let plan = plan("r2", 9, &nodes(all));
    let told: Vec<_> = report(&plan)
        .problems
        .iter()
        .map(|it| it.node.to_string())
        .collect();
    assert_eq!(told, ["n6", "n0", "n1", "n2", "n3"]);
}

#[test]
fn only_selected_nodes_run_it_and_others_remove_it() {
    let mut selected = on("r1");
    selected.labels = labels(&[("gpu", "yes")]);
    let mut entries = assigned("r1", 1);
    entries.get_mut(&key("digits")).unwrap().nodes = Selector::label("gpu", "yes");
    let plan = cluster::plan(&entries, &nodes([selected, on("r1"), new_node()]), NOW);
    check(&plan, &["r1", "-r1", ""]);
    assert_eq!(report(&plan).nodes.desired, 1);
}

#[test]
fn removal_is_reported_done_once_every_node_that_answers_confirms() {
    let mut entries = assigned("r1", 1);
    entries.get_mut(&key("digits")).unwrap().action = Action::Remove;
    let mut cluster = nodes([on("r1"), silent(on("r1"))]);
    let ordered = cluster::plan(&entries, &cluster, NOW);
    check(&ordered, &["-r1", "-r1"]);
    assert!(ordered.report.contains_key(&key("digits")));
    for (name, node) in &mut cluster.nodes {
        node.entries.clone_from(&ordered.nodes[name]);
        node.generation = 2;
        if node.hearing == Hearing::Heard {
            node.report = Some(NodeReport {
                observed_generation: 2,
                models: BTreeMap::new(),
            });
        }
    }
    let done = cluster::plan(&entries, &cluster, NOW);
    assert!(done.report.is_empty());
    check(&done, &["", "-r1"]);
    check(
        &cluster::plan(&BTreeMap::new(), &cluster, NOW),
        &["", "-r1"],
    );
}

#[test]
fn a_node_that_was_silent_during_a_removal_is_told_when_it_returns() {
    let mut entries = assigned("r1", 1);
    entries.get_mut(&key("digits")).unwrap().action = Action::Remove;
    let mut cluster = nodes([silent(on("r1"))]);
    let ordered = cluster::plan(&entries, &cluster, NOW);
    let node = cluster.nodes.values_mut().next().unwrap();
    node.entries = ordered.nodes.into_values().next().unwrap();
    node.generation = 2;
    assert!(cluster::plan(&entries, &cluster, NOW).report.is_empty());
    // The hub forgot the entry; the node's object has not.
    let none = BTreeMap::new();
    cluster.nodes.values_mut().next().unwrap().hearing = Hearing::Heard;
    check(&cluster::plan(&none, &cluster, NOW), &["-r1"]);
    let node = cluster.nodes.values_mut().next().unwrap();
    node.report = Some(NodeReport {
        observed_generation: 2,
        models: BTreeMap::new(),
    });
    check(&cluster::plan(&none, &cluster, NOW), &[""]);
}

#[test]
fn a_removal_waits_for_a_node_made_anew_to_say_what_it_has() {
    let mut entries = assigned("r1", 1);
    entries.get_mut(&key("digits")).unwrap().action = Action::Remove;
    let mut anew = new_node();
    anew.report = None;
    let unheard = cluster::plan(&entries, &nodes([anew]), NOW);
    assert!(unheard.report.contains_key(&key("digits")));
    assert_eq!(waiting(&unheard, "n0"), Some(&NodeWaiting::NotReported));
    let mut has_it = on("r1");
    has_it.entries.clear();
    let heard = cluster::plan(&entries, &nodes([has_it]), NOW);
    check(&heard, &["-r1"]);
    assert!(heard.report.contains_key(&key("digits")));
}

#[test]
fn a_node_that_left_the_selection_is_told_to_remove_until_it_confirms() {
    let mut entries = assigned("r1", 1);
    entries.get_mut(&key("digits")).unwrap().nodes = Selector::label("gpu", "yes");
    let mut cluster = nodes([on("r1")]);
    let node = cluster.nodes.values_mut().next().unwrap();
    // As after its object was made anew: only the report says that it has it.
    node.entries.clear();
    let told = cluster::plan(&entries, &cluster, NOW);
    check(&told, &["-r1"]);
    let node = cluster.nodes.values_mut().next().unwrap();
    node.entries = told.nodes.into_values().next().unwrap();
    node.generation += 1;
    check(&cluster::plan(&entries, &cluster, NOW), &["-r1"]);
    let node = cluster.nodes.values_mut().next().unwrap();
    node.report = Some(NodeReport {
        observed_generation: node.generation,
        models: BTreeMap::new(),
    });
    check(&cluster::plan(&entries, &cluster, NOW), &[""]);
}

#[test]
fn an_entry_that_vanished_is_no_order() {
    check(
        &cluster::plan(&BTreeMap::new(), &nodes([on("r1")]), NOW),
        &["r1"],
    );
}

#[test]
fn a_node_made_anew_gets_its_entry_again_and_a_vanished_one_is_forgotten() {
    let plan = plan("r2", 1, &nodes([new_node()]));
    check(&plan, &["r2"]);
    assert_eq!(report(&plan).nodes.desired, 1);
}

#[test]
fn changed_content_of_the_same_revision_is_paced_too() {
    let mut entries = assigned("r1", 1);
    entries.get_mut(&key("digits")).unwrap().content = "r1 with other settings";
    let plan = cluster::plan(&entries, &nodes([on("r1"), on("r1")]), NOW);
    let contents: Vec<_> = plan
        .nodes
        .values()
        .map(|it| it[&key("digits")].content)
        .collect();
    assert_eq!(contents, ["r1 with other settings", "r1"]);
}

#[test]
fn another_models_go_ahead_does_not_change_this_ones_numbers() {
    let mut cluster = nodes([on("r1"), on("r1")]);
    cluster.progress = plan("r1", 1, &cluster).progress;
    cluster
        .nodes
        .values_mut()
        .for_each(|node| node.generation += 1);
    assert_eq!(report(&plan("r1", 1, &cluster)).nodes.updated, 2);
    cluster.progress.clear();
    assert_eq!(report(&plan("r1", 1, &cluster)).nodes.updated, 0);
}
