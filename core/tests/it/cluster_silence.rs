//! Tables for silence, time and blame inside one cluster: rules 12 and 13 of silence.md.

use rimward_core::cluster::{
    self, Assigned, GoAhead, Hearing, NodeState, NodeWaiting, PROGRESS_DEADLINE_EXCEEDED, Plan,
};
use rimward_core::fleet::{Action, Amount};
use rimward_core::ids::ModelKey;
use rimward_core::summary::Phase;
use rimward_core::time::Timestamp;

use std::collections::BTreeMap;

use crate::fixtures::{NOW, key, rev};
use crate::node_fixtures::{
    Cluster, answers, apply, assigned, check, named, node, nodes, on, plan, report, said, silent,
    waiting,
};

type Entries = BTreeMap<ModelKey, Assigned<&'static str>>;

fn at(entries: &Entries, cluster: &Cluster, seconds: i64) -> Plan<&'static str> {
    cluster::plan(entries, cluster, Timestamp(NOW.0 + seconds))
}

/// Plans once, and does it.
fn step(entries: &Entries, cluster: &mut Cluster, seconds: i64) {
    let plan = at(entries, cluster, seconds);
    apply(cluster, &plan);
}

/// Plans every minute, as a session does, from one second after `from` up to `to`.
fn listen(entries: &Entries, cluster: &mut Cluster, from: i64, to: i64) -> Plan<&'static str> {
    let mut second = from;
    loop {
        second = (second + 60).min(to);
        let plan = at(entries, cluster, second);
        apply(cluster, &plan);
        if second == to {
            return plan;
        }
    }
}

fn set(cluster: &mut Cluster, name: &str, hearing: Hearing) {
    named(cluster, name).hearing = hearing;
}

fn retry(revision: &'static str, max: u32, attempt: u32, forget: bool) -> Entries {
    let mut entries = assigned(revision, max);
    let entry = entries.get_mut(&key("digits")).unwrap();
    entry.attempt = attempt;
    entry.forget_verdicts_before = if forget { attempt } else { 0 };
    entries
}

#[test]
fn a_node_that_is_dead_from_the_start_delays_and_condemns_nothing() {
    let entries = assigned("r2", 1);
    let mut cluster = nodes([silent(on("r1")), on("r1")]);
    step(&entries, &mut cluster, 0);
    answers(&mut cluster, "n1", NodeState::Committed);
    let done = listen(&entries, &mut cluster, 0, 6000);
    assert_eq!(report(&done).phase, Phase::Passed, "{:?}", report(&done));
    assert_eq!(
        (report(&done).nodes.updated, report(&done).nodes.silent),
        (1, 1)
    );
    assert_eq!(done.wake_at, None);
    // Nor does it when it is the only one: nothing was tried, so nothing failed.
    let mut alone = nodes([silent(on("r1"))]);
    let waits = listen(&entries, &mut alone, 0, 6000);
    assert_eq!(report(&waits).phase, Phase::Pending);
}

#[test]
fn a_node_that_falls_silent_after_its_go_ahead_keeps_its_place_and_stops_the_rest() {
    let mut cluster = nodes([silent(node("r2", NodeState::Trial)), on("r1")]);
    for max in [1, 2] {
        let stopped = plan("r2", max, &cluster);
        check(&stopped, &["r2", "r1"]);
        assert_eq!(report(&stopped).nodes.suspect, 1);
        assert_eq!(report(&stopped).problems[0].reason, "Suspect");
    }
    assert_eq!(
        waiting(&plan("r2", 2, &cluster), "n1").unwrap().to_string(),
        "node n0 fell silent after revision r2 may have reached it, no further node gets it; if it is gone \
         for good: kubectl rimward node forget n0; to try again: kubectl rimward retry -n team digits"
    );
    // One that had committed is one as well, and keeps its cluster from completion.
    cluster = nodes([silent(on("r2")), on("r2")]);
    let suspect = plan("r2", 1, &cluster);
    assert_eq!(report(&suspect).phase, Phase::Pending);
    assert_eq!(
        (
            report(&suspect).nodes.updated,
            report(&suspect).nodes.suspect
        ),
        (1, 1)
    );
    // Forgotten by a person, it delays nobody.
    cluster.nodes.retain(|name, _| name.as_str() != "n0");
    assert_eq!(report(&plan("r2", 1, &cluster)).phase, Phase::Passed);
}

#[test]
fn nodes_max_failures_says_how_many_may_be_condemned_or_suspect() {
    let mut entries = assigned("r2", 3);
    entries.get_mut(&key("digits")).unwrap().max_failures = 1;
    let one = nodes([silent(node("r2", NodeState::Trial)), on("r1"), on("r1")]);
    check(&at(&entries, &one, 0), &["r2", "r2", "r2"]);
    let both = nodes([
        silent(node("r2", NodeState::Trial)),
        node("r2", NodeState::Rejected),
        on("r1"),
    ]);
    let stopped = at(&entries, &both, 0);
    check(&stopped, &["r2", "r2", "r1"]);
    let words = waiting(&stopped, "n2").unwrap().to_string();
    assert_eq!(
        words,
        "node n1 rejected revision r2, node n0 fell silent after revision r2 may have reached it, no further node gets it"
    );
    assert_ne!(report(&stopped).phase, Phase::Failed, "one may");
    let tolerated = nodes([on("r2"), node("r2", NodeState::Rejected)]);
    assert_eq!(report(&at(&entries, &tolerated, 0)).phase, Phase::Passed);
}

#[test]
fn a_suspect_holds_no_place_against_another_release_and_stops_it_not() {
    let cluster = nodes([silent(node("r2", NodeState::Trial)), on("r2")]);
    check(&plan("r3", 1, &cluster), &["r2", "r3"]);
    check(&plan("r1", 1, &cluster), &["r2", "r1"]);
}

#[test]
fn going_back_is_not_stopped_by_a_node_that_died_long_before() {
    let (old, new) = (assigned("r1", 1), assigned("r2", 1));
    let mut cluster = nodes([silent(on("r1")), on("r1")]);
    step(&new, &mut cluster, 0);
    check(&at(&new, &cluster, 0), &["r1", "r2"]);
    answers(&mut cluster, "n1", NodeState::Rejected);
    said(&mut cluster, "n1").serving = true;
    let back = at(&old, &cluster, 10);
    check(&back, &["r1", "r1"]);
    assert_eq!(report(&back).nodes.silent, 1, "it died before");
    apply(&mut cluster, &back);
    assert_eq!(
        report(&at(&old, &cluster, 20)).nodes.silent,
        1,
        "and that is remembered"
    );
    // Heard again, and silent again: now it is after.
    set(&mut cluster, "n0", Hearing::Heard);
    step(&old, &mut cluster, 30);
    set(&mut cluster, "n0", Hearing::Silent);
    assert_eq!(report(&at(&old, &cluster, 40)).nodes.suspect, 1);
}

#[test]
fn nothing_but_the_budget_holds_up_going_back() {
    let (old, new) = (assigned("r1", 2), assigned("r2", 2));
    let mut cluster = nodes([on("r1"), on("r1"), on("r1")]);
    step(&old, &mut cluster, 0);
    step(&new, &mut cluster, 1);
    answers(&mut cluster, "n0", NodeState::Committed);
    answers(&mut cluster, "n1", NodeState::Trial);
    step(&new, &mut cluster, 2);
    // One is told to go back, and is dead already: of what it was on, but that is known later.
    let back = at(&old, &cluster, 3);
    check(&back, &["r2", "r1", "r1"]);
    apply(&mut cluster, &back);
    set(&mut cluster, "n1", Hearing::Silent);
    let on = at(&old, &cluster, 70);
    check(&on, &["r1", "r1", "r1"]);
    assert_eq!(
        (report(&on).nodes.silent, report(&on).nodes.suspect),
        (1, 0)
    );
}

#[test]
fn a_node_that_was_recalled_while_silent_is_still_exposed() {
    let mut entries = assigned("r2", 1);
    let mut cluster = nodes([silent(node("r2", NodeState::Trial)), on("r1")]);
    entries.get_mut(&key("digits")).unwrap().action = Action::Remove;
    let recalled = at(&entries, &cluster, 0);
    check(&recalled, &["-r2", "-r1"]);
    apply(&mut cluster, &recalled);
    cluster.progress.clear();
    let again = plan("r2", 1, &cluster);
    check(&again, &["-r2", "-r1"]);
    assert_eq!(report(&again).nodes.suspect, 1);
}

#[test]
fn an_unheard_node_is_neither_silent_nor_heard() {
    let mut cluster = nodes([on("r1"), on("r1")]);
    cluster.progress = plan("r1", 1, &cluster).progress;
    set(&mut cluster, "n0", Hearing::Unheard);
    let unheard = plan("r2", 2, &cluster);
    check(&unheard, &["r1", "r2"]);
    assert!(unheard.listening.contains(&key("digits")));
    assert_eq!(waiting(&unheard, "n0"), Some(&NodeWaiting::Unheard));
    // It proves nothing by what it said to an earlier session.
    let memory = plan("r1", 2, &cluster);
    assert_eq!(
        (report(&memory).phase, report(&memory).nodes.pending),
        (Phase::Pending, 1)
    );
    assert_eq!(report(&memory).nodes.ready, 2);
}

#[test]
fn nobody_gets_what_an_unheard_node_may_have_died_of() {
    let mut cluster = nodes([node("r2", NodeState::Trial), on("r1")]);
    set(&mut cluster, "n0", Hearing::Unheard);
    let listens = plan("r2", 2, &cluster);
    check(&listens, &["r2", "r1"]);
    assert_eq!(
        waiting(&listens, "n1").unwrap().to_string(),
        "waits until node n0 answers or is silent: it may have revision r2"
    );
    set(&mut cluster, "n0", Hearing::Heard);
    check(&plan("r2", 2, &cluster), &["r2", "r2"]);
}

#[test]
fn a_go_ahead_of_unknown_outcome_holds_its_place() {
    let mut cluster = nodes([on("r1"), on("r1")]);
    let order = GoAhead {
        revision: rev("r2"),
        attempt: 1,
        forget_verdicts_before: 0,
        action: Action::Run,
        content: "r2",
    };
    let unsure = named(&mut cluster, "n1");
    unsure.maybe.insert(key("digits"), vec![order]);
    check(&plan("r2", 1, &cluster), &["r1", "r2"]);
    // Fallen silent, it may have died of it.
    set(&mut cluster, "n1", Hearing::Silent);
    let stopped = plan("r2", 2, &cluster);
    check(&stopped, &["r1", "r1"]);
    assert_eq!(report(&stopped).nodes.suspect, 1);
}

#[test]
fn each_nodes_deadline_runs_from_its_own_go_ahead_and_stops_the_go_aheads() {
    let entries = assigned("r2", 1);
    let mut cluster = nodes([on("r1"), on("r1"), on("r1")]);
    step(&entries, &mut cluster, 0);
    answers(&mut cluster, "n0", NodeState::Staging);
    listen(&entries, &mut cluster, 0, 590);
    answers(&mut cluster, "n0", NodeState::Committed);
    // The second starts with a whole deadline of its own.
    step(&entries, &mut cluster, 590);
    answers(&mut cluster, "n1", NodeState::Staging);
    let before = listen(&entries, &mut cluster, 590, 1189);
    assert_eq!(report(&before).phase, Phase::Staging);
    let over = listen(&entries, &mut cluster, 1189, 1190);
    assert_eq!(report(&over).phase, Phase::TimedOut);
    assert_eq!(report(&over).reason, PROGRESS_DEADLINE_EXCEEDED);
    check(&over, &["r2", "r2", "r1"]);
    assert_eq!(
        waiting(&over, "n2").unwrap().to_string(),
        "the progress deadline of revision r2 ran out on node n1, no further node gets it; \
         to try again: kubectl rimward retry -n team digits"
    );
    assert_eq!(report(&over).nodes.rejected(), 0, "time condemns nothing");
    // It gets there after all: the deadline does not outlive its cause.
    answers(&mut cluster, "n1", NodeState::Committed);
    let on = listen(&entries, &mut cluster, 1190, 1200);
    check(&on, &["r2", "r2", "r2"]);
}

#[test]
fn a_block_uses_up_the_deadline_and_condemns_nothing() {
    let entries = assigned("r2", 1);
    let mut cluster = nodes([node("r2", NodeState::Blocked), on("r1")]);
    said(&mut cluster, "n0").reason = "FetchFailed".to_owned();
    let over = listen(&entries, &mut cluster, -60, 600);
    assert_eq!(report(&over).phase, Phase::TimedOut);
    let problem = &report(&over).problems[0];
    assert_eq!(problem.reason, "FetchFailed");
    assert_eq!(
        problem.message,
        "not on revision r2 within its progress deadline (blocked: golden vector 3: expected 7, got 1); \
         to start its time again: kubectl rimward retry -n team digits"
    );
}

#[test]
fn only_heard_seconds_count() {
    let entries = assigned("r2", 1);
    let mut cluster = nodes([node("r2", NodeState::Staging), on("r1")]);
    step(&entries, &mut cluster, 0);
    listen(&entries, &mut cluster, 0, 300);
    for rests in [Hearing::Silent, Hearing::Unheard] {
        set(&mut cluster, "n0", rests);
        step(&entries, &mut cluster, 300);
        listen(&entries, &mut cluster, 300, 90_000);
        set(&mut cluster, "n0", Hearing::Heard);
        step(&entries, &mut cluster, 300);
    }
    let before = listen(&entries, &mut cluster, 300, 599);
    assert_eq!(report(&before).phase, Phase::Staging);
    assert_eq!(
        report(&listen(&entries, &mut cluster, 599, 600)).phase,
        Phase::TimedOut
    );
}

#[test]
fn a_session_that_did_not_listen_counts_a_minute_at_most_whatever_the_clock_says() {
    let entries = assigned("r2", 1);
    let mut cluster = nodes([node("r2", NodeState::Staging), on("r1")]);
    step(&entries, &mut cluster, 0);
    let ten_years = 315_360_000;
    for seconds in [ten_years, -ten_years, ten_years] {
        let plan = at(&entries, &cluster, seconds);
        assert_eq!(report(&plan).phase, Phase::Staging);
        assert!(
            plan.wake_at.unwrap() <= Timestamp(NOW.0 + seconds + 60),
            "it asks to be asked"
        );
        apply(&mut cluster, &plan);
    }
}

#[test]
fn a_held_node_is_not_waited_for_and_its_deadline_rests() {
    let mut held = on("r1");
    held.held = Some("harvest".to_owned());
    let entries = assigned("r2", 2);
    let mut cluster = nodes([on("r2"), held.clone()]);
    let first = at(&entries, &cluster, 0);
    check(&first, &["r2", "r1"]);
    assert_eq!(first.wake_at, None);
    assert_eq!(
        (report(&first).nodes.held, report(&first).phase),
        (1, Phase::Passed)
    );
    cluster = nodes([held]);
    assert_eq!(
        report(&at(&entries, &cluster, 0)).phase,
        Phase::Held,
        "nobody proved it"
    );
    cluster = nodes([node("r2", NodeState::Held)]);
    let later = listen(&entries, &mut cluster, 0, 9000);
    assert_eq!(report(&later).phase, Phase::Held);
}

#[test]
fn a_new_attempt_gives_time_anew_and_disturbs_no_node_that_is_done() {
    let mut cluster = nodes([node("r2", NodeState::Blocked), on("r2"), on("r1")]);
    let over = listen(&assigned("r2", 1), &mut cluster, -60, 600);
    assert_eq!(report(&over).phase, Phase::TimedOut);
    let second = retry("r2", 1, 2, false);
    let again = at(&second, &cluster, 601);
    let attempts: Vec<_> = again
        .nodes
        .values()
        .map(|it| it[&key("digits")].attempt)
        .collect();
    assert_eq!(
        attempts,
        [2, 2, 1],
        "in its own place, for nothing, and not yet"
    );
    assert_eq!(report(&again).phase, Phase::Pending);
    apply(&mut cluster, &again);
    let before = listen(&second, &mut cluster, 601, 1200);
    assert_eq!(
        report(&before).nodes.updated,
        1,
        "what was committed stays so"
    );
    assert_eq!(
        report(&before).phase,
        Phase::Pending,
        "an answer to the first attempt is none"
    );
    assert_eq!(
        report(&listen(&second, &mut cluster, 1200, 1201)).phase,
        Phase::TimedOut
    );
}

#[test]
fn a_new_attempt_goes_on_past_a_node_that_was_lost_to_an_earlier_one() {
    let cluster = nodes([silent(node("r2", NodeState::Trial)), on("r1")]);
    check(&plan("r2", 1, &cluster), &["r2", "r1"]);
    let past = at(&retry("r2", 1, 2, false), &cluster, 0);
    check(&past, &["r2", "r2"]);
    assert_eq!(report(&past).nodes.silent, 1);
}

#[test]
fn a_verdict_stands_under_a_new_attempt_unless_it_is_to_be_forgotten() {
    let mut cluster = nodes([node("r2", NodeState::Rejected), on("r1")]);
    let stands = at(&retry("r2", 1, 2, false), &cluster, 0);
    check(&stands, &["r2", "r1"]);
    assert_eq!(report(&stands).phase, Phase::Failed);
    let forget = retry("r2", 1, 2, true);
    let void = at(&forget, &cluster, 0);
    assert_eq!(report(&void).nodes.rejected(), 0);
    check(&void, &["r2", "r1"]);
    apply(&mut cluster, &void);
    // It condemned the content again, under the attempt that counts.
    answers(&mut cluster, "n0", NodeState::Rejected);
    assert_eq!(report(&at(&forget, &cluster, 10)).phase, Phase::Failed);
}

#[test]
fn nodes_that_serve_nothing_go_first_then_by_name() {
    let mut cluster = nodes([on("r1"), on("r1"), on("r1")]);
    said(&mut cluster, "n2").serving = false;
    check(&plan("r2", 1, &cluster), &["r1", "r1", "r2"]);
    let mut entries = assigned("r2", 1);
    entries.get_mut(&key("digits")).unwrap().max_unavailable = Amount::Count(2);
    check(&at(&entries, &cluster, 0), &["r2", "r1", "r2"]);
}
