//! What silence, time and blame mean for clusters: scenes, and accidents of older relatives.

use rimward_core::fleet::{
    AfterUpdate, Amount, Because, BeforeUpdate, ConnectionState, Deployment, Hold, HoldMode,
    Members, Outcome, StagePhase,
};
use rimward_core::selector::Selector;
use rimward_core::summary::{Counts, Phase};

use crate::fixtures::{
    all_on, deployment, fleet_of, labels, one, rejecting, report, rev, stage, with,
};
use crate::hub::Hub;

pub(crate) const TEN: [&str; 10] = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"];

/// Canary `c0`, then everybody, one at a time.
pub(crate) fn canary(by_selector: bool) -> Deployment {
    let mut it = deployment("r2", Some("r1"));
    let members = match by_selector {
        true => Members::Selector(Selector::label("tier", "canary")),
        false => Members::Count(1),
    };
    it.policy.stages = vec![
        stage("canary", members),
        stage("all", Members::Percent(100)),
    ];
    for stage in &mut it.policy.stages {
        stage.max_unavailable = Some(Amount::Count(1));
    }
    it
}

pub(crate) fn hub(deployment: Deployment) -> Hub {
    let mut hub = Hub::new(
        one(deployment),
        fleet_of(TEN.map(|name| (name, with("r1", all_on("r1"))))),
    );
    hub.cluster("c0", |it| it.labels = labels(&[("tier", "canary")]));
    hub
}

/// So many turns of a minute, in which all but `dead` beat and obey.
pub(crate) fn pass(hub: &mut Hub, turns: usize, dead: &[&str]) {
    hub.run(turns, 60, dead);
}

pub(crate) fn timed_out(revision: &str) -> rimward_core::fleet::ModelReport {
    let nodes = Counts {
        desired: 2,
        ready: 2,
        pending: 2,
        ..Counts::default()
    };
    let mut says = report(revision, nodes, Phase::TimedOut);
    says.reason = "ProgressDeadlineExceeded".to_owned();
    says
}

#[test]
fn a_release_that_silences_every_site_it_reaches_stays_on_its_first() {
    for by_selector in [false, true] {
        let mut it = canary(by_selector);
        it.policy.stages[0].bake_seconds = 3600;
        let mut hub = hub(it);
        let mut dead: Vec<String> = Vec::new();
        for _ in 0..40 {
            hub.turn();
            dead = hub.told("r2");
            hub.later(330);
            let dead: Vec<&str> = dead.iter().map(String::as_str).collect();
            hub.beat_all(&dead);
            hub.obey(&dead);
        }
        assert_eq!(dead, ["c0"], "by selector: {by_selector}");
        assert!(matches!(hub.why("c0"), Some(Because::Suspect { .. })));
        let stalled = &hub.answer().conditions.stalled;
        assert_eq!((stalled.status, stalled.reason), (true, "Suspect"));
        assert!(stalled.message.contains("kubectl rimward promote digits"));
    }
}

#[test]
fn a_site_that_dies_after_it_had_the_release_keeps_the_stage_where_it_is() {
    let mut it = canary(false);
    it.policy.stages[0].bake_seconds = 3600;
    let mut hub = hub(it);
    pass(&mut hub, 10, &[]);
    assert_eq!(hub.told("r2"), ["c0"]);
    pass(&mut hub, 100, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"]);
    // What it says when it answers counts, and what was baked before is not lost.
    pass(&mut hub, 45, &[]);
    assert_eq!(hub.told("r2"), ["c0"]);
    pass(&mut hub, 10, &[]);
    assert!(hub.told("r2").len() > 1);
}

#[test]
fn sites_that_were_away_before_delay_nobody_and_get_what_is_right_when_they_return() {
    let mut hub = hub(canary(true));
    for away in ["c3", "c4"] {
        hub.cluster(away, |it| it.connection = ConnectionState::Silent);
    }
    pass(&mut hub, 20, &["c3", "c4"]);
    assert_eq!(hub.told("r2").len(), 8);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    assert!(hub.answer().conditions.ready.status);
    assert_eq!(hub.answer().clusters.silent, 2);
    pass(&mut hub, 3, &[]);
    assert_eq!(hub.told("r2").len(), 10);
}

#[test]
fn those_that_return_when_all_is_over_get_it_within_their_stages_budget() {
    let away = ["c3", "c4", "c5", "c6"];
    let mut hub = hub(canary(true));
    for name in away {
        hub.cluster(name, |it| it.connection = ConnectionState::Silent);
    }
    pass(&mut hub, 20, &away);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    hub.beat_all(&[]);
    hub.turn();
    assert_eq!(hub.told("r2").len(), 7, "one may be unavailable");
    hub.later(10);
    hub.beat_all(&[]);
    hub.turn();
    assert_eq!(hub.told("r2").len(), 7, "the next once that one is there");
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.told("r2").len(), 8);
}

#[test]
fn with_wait_the_stage_waits_for_a_site_that_was_away_before() {
    let mut it = canary(true);
    it.policy.offline.before_update = BeforeUpdate::Wait;
    let mut hub = hub(it);
    hub.cluster("c3", |it| it.connection = ConnectionState::Silent);
    pass(&mut hub, 20, &["c3"]);
    assert_eq!(hub.told("r2").len(), 9);
    assert_eq!(hub.answer().standing.current, Some(rev("r1")));
    pass(&mut hub, 3, &[]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

#[test]
fn a_canary_site_that_is_off_for_the_weekend_holds_the_rollout_until_it_is_back() {
    let mut hub = hub(canary(true));
    hub.cluster("c0", |it| it.connection = ConnectionState::Silent);
    pass(&mut hub, 48, &["c0"]);
    assert!(hub.told("r2").is_empty());
    assert_eq!(hub.answer().conditions.stalled.reason, "NoneHeard");
    pass(&mut hub, 30, &[]);
    assert_eq!(hub.told("r2").len(), 10);
}

#[test]
fn a_silent_suspect_counts_as_failed_where_the_policy_says_so_and_its_answer_lifts_that() {
    let mut it = canary(true);
    it.policy.offline.after_update = AfterUpdate::Fail;
    let mut hub = hub(it);
    hub.turn();
    pass(&mut hub, 8, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"]);
    let record = hub.answer().standing.stage.clone().unwrap();
    assert_eq!(record.phase, StagePhase::Stopped);
    assert_eq!(hub.answer().conditions.stalled.reason, "RolloutStopped");
    assert_eq!(hub.answer().clusters.suspect, 1);
    // A deadline abort that outlives its cause: not here.
    pass(&mut hub, 30, &[]);
    assert_eq!(hub.told("r2").len(), 10);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

#[test]
fn with_ignore_a_dark_site_frees_its_place_and_is_never_a_proof() {
    let mut it = canary(true);
    it.policy.offline.after_update = AfterUpdate::Ignore;
    it.policy.stages[0].members = Members::Count(3);
    let mut hub = hub(it);
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"]);
    pass(&mut hub, 7, &["c0"]);
    assert!(hub.told("r2").len() > 1, "its place is free again");
    pass(&mut hub, 30, &["c0"]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    // Where all of the stage went dark, nothing living speaks for the revision.
    let mut it = canary(true);
    it.policy.offline.after_update = AfterUpdate::Ignore;
    let mut hub = self::hub(it);
    hub.turn();
    pass(&mut hub, 40, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"]);
}

#[test]
fn membership_of_a_count_stage_sticks_so_that_flapping_exposes_no_more() {
    let mut it = canary(false);
    it.policy.stages[0].members = Members::Count(2);
    it.policy.stages[0].max_unavailable = None;
    it.policy.stages[0].bake_seconds = 3600;
    let mut hub = hub(it);
    for turn in 0..60 {
        // Whoever is told, flaps.
        let told = hub.told("r2");
        let told: Vec<&str> = told.iter().map(String::as_str).collect();
        let away = if turn % 12 < 8 { &told[..] } else { &[] };
        hub.run(1, 60, away);
    }
    assert!(hub.told("r2").len() <= 2, "{:?}", hub.told("r2"));
}

#[test]
fn a_held_a_paused_and_a_contested_cluster_do_not_block_and_count_in_their_own_column() {
    let mut hub = hub(canary(true));
    hub.cluster("c3", |it| it.held = Some("harvest".to_owned()));
    hub.cluster("c4", |it| it.paused = true);
    pass(&mut hub, 30, &[]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
    assert_eq!(hub.answer().clusters.held, 2);
    assert_eq!(hub.told("r2").len(), 8);
    hub.cluster("c3", |it| it.held = None);
    hub.cluster("c4", |it| it.paused = false);
    pass(&mut hub, 4, &[]);
    assert_eq!(hub.told("r2").len(), 10);
}

#[test]
fn after_its_deadline_a_hold_counts_as_the_policy_says() {
    for mode in [HoldMode::Fail, HoldMode::Ignore] {
        let mut it = canary(true);
        it.policy.hold = Hold {
            mode,
            deadline_seconds: 1800,
        };
        it.policy.stages[1].bake_seconds = 7200;
        let mut hub = hub(it);
        hub.cluster("c3", |it| it.held = Some("harvest".to_owned()));
        pass(&mut hub, 25, &[]);
        assert_eq!(hub.told("r2").len(), 9);
        // The hub's restart gives back an eighth of the deadline at most.
        hub.restart();
        pass(&mut hub, 12, &[]);
        let phase = hub.answer().standing.stage.as_ref().unwrap().phase;
        match mode {
            HoldMode::Fail => assert_eq!(phase, StagePhase::Stopped),
            _ => assert_eq!(hub.told("r2").len(), 10),
        }
    }
}

#[test]
fn a_cluster_that_timed_out_stops_the_rollout_and_counts_once_it_is_done_after_all() {
    let mut hub = hub(canary(true));
    hub.turn();
    hub.says("c0", timed_out("r2"));
    hub.turn();
    assert_eq!(hub.answer().outcomes[&rev("r2")].outcome, Outcome::Stopped);
    assert_eq!(
        hub.told("r2"),
        ["c0"],
        "time says nothing against the content: it stays"
    );
    assert!(
        hub.why("c1")
            .unwrap()
            .to_string()
            .contains("kubectl rimward retry digits")
    );
    assert_eq!(hub.answer().clusters.failed, 1);
    pass(&mut hub, 30, &[]);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

#[test]
fn progressive_rollouts_do_not_count_what_cannot_be_reached_as_failed() {
    let mut hub = hub(canary(true));
    for away in ["c7", "c8", "c9"] {
        hub.cluster(away, |it| it.connection = ConnectionState::Silent);
    }
    pass(&mut hub, 30, &["c7", "c8", "c9"]);
    assert_eq!(hub.answer().clusters.failed, 0);
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

#[test]
fn a_release_condemned_late_goes_back_everywhere_at_once() {
    let mut it = canary(true);
    it.policy.stages[1].bake_seconds = 36_000;
    it.policy.stages[1].max_unavailable = None;
    it.policy.stages[1].max_failures = 1;
    let mut hub = hub(it);
    pass(&mut hub, 3, &[]);
    assert_eq!(hub.told("r2").len(), 10);
    hub.says("c3", rejecting("r2"));
    hub.says("c4", rejecting("r2"));
    hub.turn();
    assert!(
        hub.told("r2").is_empty(),
        "100 % go back at once by default"
    );
    assert_eq!(hub.answer().clusters.rolled_back, 0);
    hub.later(10);
    hub.beat_all(&[]);
    hub.obey(&[]);
    hub.turn();
    assert_eq!(hub.answer().clusters.rolled_back, 10);
}

#[test]
fn rolled_back_counts_only_clusters_that_had_the_revision() {
    let mut hub = hub(canary(true));
    hub.turn();
    hub.says("c0", rejecting("r2"));
    hub.turn();
    hub.obey(&[]);
    hub.turn();
    let counts = hub.answer().clusters;
    assert_eq!((counts.rolled_back, counts.pending), (1, 9));
}

#[test]
fn going_back_is_paced_by_its_own_budget() {
    let mut it = canary(true);
    it.policy.stages[1].bake_seconds = 36_000;
    it.policy.stages[1].max_unavailable = None;
    it.policy.rollback_max_concurrency = Amount::Percent(20);
    let mut hub = hub(it);
    pass(&mut hub, 3, &[]);
    hub.says("c3", rejecting("r2"));
    hub.turn();
    assert_eq!(hub.told("r2").len(), 8);
    assert!(matches!(hub.why("c9"), Some(Because::RollbackPaced { .. })));
    let on_r1 = hub.told("r1");
    assert!(
        on_r1.contains(&"c3".to_owned()),
        "the broken one first: {on_r1:?}"
    );
    for _ in 0..5 {
        hub.later(10);
        hub.beat_all(&[]);
        hub.obey(&[]);
        hub.turn();
    }
    assert!(hub.told("r2").is_empty());
}

#[test]
fn a_silent_cluster_is_called_back_and_does_not_go_on_when_it_returns() {
    let mut it = canary(true);
    it.policy.stages[1].bake_seconds = 36_000;
    it.policy.stages[1].max_unavailable = None;
    let mut hub = hub(it);
    pass(&mut hub, 2, &[]);
    pass(&mut hub, 7, &["c5"]);
    assert!(matches!(hub.why("c5"), Some(Because::Suspect { .. })));
    hub.says("c3", rejecting("r2"));
    hub.turn();
    assert!(hub.told("r2").is_empty());
    // It may have the revision until a later report says otherwise.
    assert_eq!(hub.answer().clusters.suspect, 1);
}

#[test]
fn a_placement_that_shrinks_takes_the_model_away_within_the_budget() {
    let mut it = canary(true);
    it.update = Some(rev("r1"));
    let mut hub = hub(it);
    pass(&mut hub, 2, &[]);
    hub.edit(|it| it.placement.clusters = Selector::label("tier", "canary"));
    hub.turn();
    assert_eq!(
        hub.told("r1").len(),
        9,
        "one goes, as many as may be unavailable"
    );
    for _ in 0..12 {
        hub.later(10);
        hub.beat_all(&[]);
        hub.obey(&[]);
        hub.turn();
    }
    assert_eq!(hub.told("r1"), ["c0"]);
    // Deleting is meant, and is not paced.
    let mut hub = self::hub(canary(true));
    hub.edit(|it| it.deleting = true);
    hub.turn();
    assert!(hub.told("r1").is_empty());
}

#[test]
fn proof_from_before_this_leader_listened_is_a_memory() {
    let mut it = canary(true);
    it.policy.stages[0].bake_seconds = 0;
    let mut hub = hub(it);
    hub.turn();
    hub.obey(&[]);
    hub.restart();
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"]);
    assert_eq!(hub.answer().gate.as_ref().unwrap().reason(), "Unheard");
    hub.later(5);
    hub.beat("c0");
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"], "nobody else was heard yet");
    hub.beat_all(&[]);
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0", "c1"]);
}

#[test]
fn by_default_a_stage_waits_for_every_cluster_that_is_heard() {
    let mut it = canary(false);
    it.policy.stages[0].members = Members::Count(3);
    it.policy.stages[0].max_unavailable = None;
    let mut hub = hub(it);
    hub.turn();
    for _ in 0..5 {
        hub.later(60);
        hub.beat_all(&[]);
        hub.obey(&["c2"]);
        hub.turn();
    }
    assert_eq!(hub.told("r2"), ["c0", "c1", "c2"]);
    hub.obey(&[]);
    hub.turn();
    assert!(hub.told("r2").len() > 3);
}

#[test]
fn a_stage_passes_with_as_many_proofs_as_it_asks_for_and_never_with_none() {
    let mut it = canary(true);
    it.policy.stages[1].max_unavailable = None;
    it.policy.stages[1].min_proven = Some(Amount::Percent(50));
    let mut hub = hub(it);
    pass(&mut hub, 1, &[]);
    assert_eq!(hub.told("r2").len(), 10);
    let slow = ["c5", "c6", "c7", "c8", "c9"];
    for _ in 0..3 {
        hub.later(10);
        hub.beat_all(&[]);
        hub.obey(&slow);
        hub.turn();
    }
    assert_eq!(hub.answer().standing.current, Some(rev("r1")), "4 of 9");
    let slow = &slow[1..];
    for _ in 0..3 {
        hub.later(10);
        hub.beat_all(&[]);
        hub.obey(slow);
        hub.turn();
    }
    assert_eq!(hub.answer().standing.current, Some(rev("r2")));
}

#[test]
fn one_dead_cluster_of_many_leaves_a_deployment_available() {
    let mut it = deployment("r1", Some("r1"));
    it.policy.stages = vec![stage("all", Members::Percent(100))];
    it.policy.stages[0].max_unavailable = Some(Amount::Count(1));
    let mut hub = hub(it);
    hub.update_r1();
    assert!(hub.answer().conditions.available.status);
    let mut limping = all_on("r1");
    limping.nodes.ready = 0;
    hub.says("c3", limping.clone());
    hub.turn();
    assert!(hub.answer().conditions.available.status);
    hub.says("c4", limping);
    hub.turn();
    assert!(!hub.answer().conditions.available.status);
    hub.edit(|it| it.min_available = Some(Amount::Count(8)));
    hub.turn();
    assert!(hub.answer().conditions.available.status);
}
