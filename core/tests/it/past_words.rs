//! What a person goes on past, and that it is no more than that; what counts as a failure, and how often.

use rimward_core::fleet::{
    ActionKind, AfterUpdate, Amount, Because, ConnectionState, Hold, HoldMode, Members, Outcome,
    StagePhase, SuspectPlace,
};

use crate::fixtures::{key, rejecting, rev};
use crate::hub::Hub;
use crate::silence_words::{canary, hub, pass, timed_out};

const PROMOTE: ActionKind = ActionKind::Promote { stage: None };
const FAILS_SOON: Hold = Hold {
    mode: HoldMode::Fail,
    deadline_seconds: 600,
};

fn phase(hub: &Hub) -> StagePhase {
    hub.answer().standing.stage.as_ref().unwrap().phase
}

/// A release that silences every site it reaches, and a person who goes on past the first of them.
#[test]
fn who_goes_on_past_one_suspect_goes_past_that_one() {
    for count in [10, 3] {
        let mut it = canary(false);
        it.policy.stages[0].members = Members::Count(count);
        let mut hub = hub(it);
        let march = |hub: &mut Hub| {
            for _ in 0..10 {
                hub.turn();
                let dead = hub.told("r2");
                hub.later(330);
                let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
                hub.beat_all(&dead);
                hub.obey(&dead);
            }
            hub.turn();
            hub.told("r2").len()
        };
        assert_eq!(march(&mut hub), 1);
        let (applied, words) = hub.ask(PROMOTE);
        assert!(applied, "{words}");
        // In its stage, and in the next one, one more each: whoever comes after is waited for.
        let more = march(&mut hub);
        assert!((2..=3).contains(&more), "{more} of 10, canary of {count}");
        hub.restart();
        assert_eq!(march(&mut hub), more, "nor does a restart let more go");
    }
}

/// The suspect comes back, and goes again: nobody went past that.
#[test]
fn whoever_was_gone_past_and_falls_silent_again_is_waited_for_again() {
    let mut it = canary(true);
    it.policy.stages.truncate(1);
    it.policy.stages[0].members = Members::Percent(100);
    let mut hub = hub(it);
    hub.turn();
    pass(&mut hub, 8, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"]);
    assert!(hub.ask(PROMOTE).0);
    assert_eq!(hub.told("r2").len(), 2, "its place is free");
    let record = |hub: &Hub| hub.answer().standing.stage.clone().unwrap();
    assert_eq!(record(&hub).passed[0].suspects, 1);
    hub.later(1);
    hub.beat("c0");
    hub.turn();
    assert_eq!(record(&hub).passed[0].suspects, 0);
}

/// Nobody waits for it any more, so its sentence must not make a person pass a stage in which nothing is proven.
#[test]
fn a_suspect_of_a_passed_stage_is_not_what_the_rollout_waits_for() {
    let mut hub = hub(canary(true));
    hub.turn();
    pass(&mut hub, 8, &["c0"]);
    let waits = hub.answer().waiting_for().unwrap();
    assert!(waits.contains("the first of them is cluster c0"), "{waits}");
    assert!(
        hub.why("c0")
            .unwrap()
            .to_string()
            .contains("promote digits")
    );
    assert!(hub.ask(PROMOTE).0);
    let why = hub.why("c0").unwrap();
    let place = SuspectPlace::GonePast(1);
    assert!(matches!(why, Because::Suspect { place: it, .. } if it == place));
    assert!(!why.to_string().contains("promote"), "{why}");
    let waits = hub.answer().waiting_for().unwrap();
    assert!(!waits.contains("cluster c0"), "{waits}");
}

#[test]
fn one_cluster_is_one_failure_for_however_many_reasons() {
    let stopped = |change: &dyn Fn(&mut Hub)| {
        let mut it = canary(true);
        it.policy.offline.after_update = AfterUpdate::Fail;
        it.policy.hold = FAILS_SOON;
        it.policy.stages[0].max_failures = 1;
        it.policy.stages[0].max_unavailable = None;
        it.policy.stages[0].members = Members::Percent(100);
        let mut hub = hub(it);
        hub.turn();
        hub.says("c0", timed_out("r2"));
        hub.turn();
        change(&mut hub);
        phase(&hub) == StagePhase::Stopped
    };
    assert!(!stopped(&|hub| pass(hub, 8, &["c0"])), "late, then silent");
    assert!(
        !stopped(&|hub| {
            hub.cluster("c0", |it| it.held = Some("harvest".to_owned()));
            for _ in 0..15 {
                hub.later(60);
                hub.beat_all(&[]);
                hub.obey(&["c0"]);
                hub.turn();
            }
        }),
        "late, then held"
    );
    assert!(
        stopped(&|hub| {
            hub.says("c1", timed_out("r2"));
            hub.turn();
        }),
        "two are two"
    );
}

/// It is left out of the budgets, so it fails nothing either.
#[test]
fn a_held_cluster_that_is_silent_fails_nothing() {
    let mut it = canary(true);
    it.policy.hold = FAILS_SOON;
    it.policy.stages[1].bake_seconds = 1200;
    let mut hub = hub(it);
    hub.cluster("c3", |it| {
        it.held = Some("harvest".to_owned());
        it.connection = ConnectionState::Silent;
    });
    pass(&mut hub, 40, &["c3"]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

#[test]
fn who_goes_past_a_failure_goes_past_that_one() {
    let mut it = canary(true);
    it.policy.stages[1].max_unavailable = None;
    let mut hub = hub(it);
    hub.turn();
    hub.says("c0", timed_out("r2"));
    hub.turn();
    assert_eq!(phase(&hub), StagePhase::Stopped);
    let (applied, words) = hub.ask(PROMOTE);
    assert!(applied, "{words}");
    assert_eq!(hub.told("r2").len(), 10);
    assert_eq!(phase(&hub), StagePhase::Progressing);
    hub.says("c4", timed_out("r2"));
    hub.turn();
    assert_eq!(phase(&hub), StagePhase::Stopped);
}

/// Flapping must not expose more than standing still: it serves nothing, heard or not.
#[test]
fn what_condemned_the_release_and_fell_silent_keeps_its_place_among_the_unavailable() {
    let mut it = canary(true);
    it.policy.stages.truncate(1);
    it.policy.stages[0].members = Members::Percent(100);
    it.policy.stages[0].max_failures = 5;
    let mut hub = hub(it);
    hub.turn();
    let mut says = rejecting("r2");
    says.nodes.ready = 0;
    says.nodes.rolled_back = 0;
    says.nodes.failed = 2;
    says.nodes.pending = 0;
    hub.says("c0", says);
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"], "heard: one is unavailable");
    pass(&mut hub, 8, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"], "silent: it still is");
    assert_eq!(hub.answer().clusters.failed, 1);
    // Another deployment's order, and a leader that did not see in which generation this one was given.
    hub.cluster("c0", |it| it.generation += 1);
    hub.restart();
    hub.turn();
    assert_eq!(hub.answer().clusters.failed, 1, "at once");
    pass(&mut hub, 8, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"], "and so it is to the next leader");
    assert_eq!(hub.answer().clusters.failed, 1);
}

/// Another deployment's order, and a leader that did not see in which generation this one was given.
#[test]
fn a_rollout_that_time_stopped_stays_stopped_for_the_next_leader() {
    let mut it = canary(true);
    it.policy.stages.truncate(1);
    it.policy.stages[0].members = Members::Percent(100);
    it.policy.stages[0].max_concurrency = Amount::Count(2);
    it.policy.stages[0].max_unavailable = None;
    let mut hub = hub(it);
    hub.turn();
    hub.says("c0", timed_out("r2"));
    hub.turn();
    assert_eq!(phase(&hub), StagePhase::Stopped);
    let told = hub.told("r2");
    hub.cluster("c0", |it| it.generation += 1);
    hub.restart();
    for _ in 0..8 {
        hub.turn();
        assert_eq!(phase(&hub), StagePhase::Stopped);
        hub.later(60);
        hub.beat_all(&["c0"]);
        hub.obey(&["c0"]);
    }
    assert_eq!(hub.told("r2"), told);
}

#[test]
fn two_who_undo_at_once_undo_once() {
    let mut hub = hub(canary(true));
    pass(&mut hub, 30, &[]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    assert!(hub.ask(ActionKind::Undo).0);
    assert_eq!(hub.told("r1").len(), 10);
    let (applied, words) = hub.ask(ActionKind::Undo);
    assert!(!applied && words.contains("is undone already"), "{words}");
    assert_eq!(hub.told("r1").len(), 10);
    let (applied, words) = hub.ask_of(ActionKind::Undo, Some("r2"));
    assert!(applied, "who names where to go is understood: {words}");
    assert_eq!(hub.told("r2").len(), 1, "forward, within its budgets");
}

#[test]
fn a_number_of_proofs_is_that_number_however_many_are_there() {
    let mut it = canary(false);
    it.policy.stages[0].members = Members::Count(4);
    it.policy.stages[0].min_proven = Some(Amount::Count(3));
    let mut hub = hub(it);
    let away = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    for name in away {
        hub.cluster(name, |it| it.connection = ConnectionState::Silent);
    }
    pass(&mut hub, 20, &away);
    assert_eq!(
        hub.answer().standing.current,
        Some(rev("r1")),
        "two are not three"
    );
    let waits = hub.answer().waiting_for().unwrap();
    assert!(
        waits.contains("2 of 3") && waits.contains("promote digits"),
        "{waits}"
    );
}

#[test]
fn every_share_of_proofs_leaves_out_who_is_held() {
    let mut it = canary(true);
    it.policy.stages[1].min_proven = Some(Amount::Percent(100));
    let mut hub = hub(it);
    hub.cluster("c3", |it| it.held = Some("harvest".to_owned()));
    pass(&mut hub, 30, &[]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

/// It is left out once: twice would ask for one proof less.
#[test]
fn who_is_held_and_silent_is_left_out_of_a_share_once() {
    let mut it = canary(true);
    it.policy.stages[1].min_proven = Some(Amount::Percent(100));
    it.policy.stages[1].max_unavailable = None;
    let mut hub = hub(it);
    hub.cluster("c3", |it| {
        it.held = Some("harvest".to_owned());
        it.connection = ConnectionState::Silent;
    });
    hub.turn();
    for _ in 0..5 {
        hub.later(60);
        hub.beat_all(&["c3"]);
        hub.obey(&["c3", "c5"]);
        hub.turn();
    }
    assert_eq!(hub.told("r2").len(), 9);
    assert_eq!(hub.answer().standing.current, Some(rev("r1")), "c5 has not");
    pass(&mut hub, 2, &["c3"]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

#[test]
fn a_floor_of_so_many_clusters_is_one_however_few_are_heard() {
    let mut it = canary(true);
    it.min_available = Some(Amount::Count(5));
    let mut hub = hub(it);
    pass(&mut hub, 30, &[]);
    assert!(hub.answer().conditions.available.status);
    let dead = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7"];
    for name in dead {
        hub.cluster(name, |it| it.connection = ConnectionState::Silent);
    }
    pass(&mut hub, 8, &dead);
    let available = &hub.answer().conditions.available;
    assert!(!available.status, "{}", available.message);
    let known = &hub.desired.deployments[&key("digits")].revisions[&rev("r2")];
    assert_eq!(known.outcome, Outcome::Promoted);
}

/// What was gone past is known to a new leader from its first look on: it neither stops the rollout nor opens it again.
#[test]
fn a_new_leader_does_not_stop_over_what_was_gone_past() {
    let mut it = canary(true);
    it.policy.stages[1].bake_seconds = 3600;
    let mut hub = hub(it);
    hub.turn();
    hub.says("c0", timed_out("r2"));
    hub.turn();
    assert!(hub.ask(PROMOTE).0);
    hub.beat_all(&[]);
    hub.turn();
    for _ in 0..3 {
        hub.restart();
        for _ in 0..3 {
            let plan = hub.turn();
            for answer in plan.deployments.values() {
                assert!(answer.transitions.is_empty(), "{:?}", answer.transitions);
                assert!(answer.outcomes.is_empty(), "{:?}", answer.outcomes);
            }
            hub.later(5);
            hub.beat_all(&[]);
        }
    }
}

/// The same of a hold whose deadline is over, which only the second look knows.
#[test]
fn a_leader_that_stood_by_keeps_what_was_gone_past_though_a_hold_is_over() {
    let mut it = canary(true);
    it.policy.hold = FAILS_SOON;
    let mut hub = hub(it);
    hub.cluster("c0", |it| it.held = Some("harvest".to_owned()));
    pass(&mut hub, 15, &[]);
    assert_eq!(phase(&hub), StagePhase::Stopped);
    assert!(hub.ask(PROMOTE).0);
    let passed = |hub: &Hub| hub.answer().standing.stage.clone().unwrap().passed;
    let before = passed(&hub);
    assert_eq!(before[0].failed, 1);
    hub.fleet = rimward_core::fleet::fleet(&hub.desired, &hub.observed);
    hub.turn();
    assert_eq!(passed(&hub), before);
    assert_ne!(phase(&hub), StagePhase::Stopped);
}

/// With Ignore a suspect holds no place, so going past it frees none.
#[test]
fn where_suspects_are_ignored_a_promote_widens_no_budget() {
    let mut it = canary(true);
    it.policy.offline.after_update = AfterUpdate::Ignore;
    it.policy.stages[0].bake_seconds = 7200;
    it.policy.stages[0].members = Members::Count(2);
    let mut hub = hub(it);
    hub.turn();
    pass(&mut hub, 10, &["c0"]);
    assert_eq!(hub.told("r2").len(), 2, "c1 proved it, and bakes");
    assert!(hub.ask(PROMOTE).0);
    assert_eq!(hub.told("r2").len(), 3, "one at a time");
    let record = hub.answer().standing.stage.clone().unwrap();
    assert!(record.passed.iter().all(|it| it.suspects == 0));
}

/// c0 ran out of time as the canary, and lost that label: it counts where the rollout is, and was gone past there.
#[test]
fn a_failure_that_belongs_to_a_later_stage_is_gone_past_too() {
    let mut it = canary(true);
    it.policy.stages[0].members = Members::Count(1);
    it.policy.stages[1].max_unavailable = None;
    let mut hub = hub(it);
    hub.turn();
    hub.says("c0", timed_out("r2"));
    hub.turn();
    hub.edit(|it| {
        let canary = rimward_core::selector::Selector::label("tier", "other");
        it.policy.stages[0].members = Members::Selector(canary);
        it.policy.stages[0].allow_empty = true;
    });
    hub.turn();
    assert_eq!(phase(&hub), StagePhase::Stopped);
    assert!(hub.ask(PROMOTE).0);
    assert_eq!(phase(&hub), StagePhase::Progressing);
}
