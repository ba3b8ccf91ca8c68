//! Bakes: time counts that was heard, and no other.

use rimward_core::fleet::{ActionKind, ConnectionState, Deployment, Members, StagePhase};
use rimward_core::selector::Selector;
use rimward_core::summary::Phase;
use rimward_core::time::Timestamp;

use crate::fixtures::{NOW, all_on, cluster, deployment, fleet_of, one, stage, with};
use crate::fleet_words::canary_then_rest;
use crate::hub::Hub;

/// Two clusters without anything, of which the first is the canary and bakes for so long.
fn empty(bake_seconds: u32) -> Hub {
    let mut it = canary_then_rest("r1", None);
    it.policy.stages[0].bake_seconds = bake_seconds;
    Hub::new(one(it), fleet_of([("c0", cluster()), ("c1", cluster())]))
}

/// Clusters that all run r1.
fn on_r1<const N: usize>(it: Deployment, names: [&'static str; N]) -> Hub {
    let clusters = names.map(|name| (name, with("r1", all_on("r1"))));
    Hub::new(one(it), fleet_of(clusters))
}

/// Time goes by in which all are heard.
fn heard(hub: &mut Hub, seconds: u32) {
    hub.later(seconds);
    hub.beat_all(&[]);
    hub.turn();
}

#[test]
fn the_next_stage_waits_until_the_bake_is_over() {
    let mut hub = empty(60);
    hub.turn();
    hub.obey(&[]);
    let baking = hub.turn();
    assert_eq!(hub.told("r1"), ["c0"]);
    assert_eq!(
        baking.wake_at,
        Some(NOW.plus_seconds(10)),
        "to persist a part of it"
    );
    let phase = |hub: &Hub| hub.answer().standing.stage.as_ref().unwrap().phase;
    assert_eq!(phase(&hub), StagePhase::Baking);
    for _ in 0..59 {
        heard(&mut hub, 1);
    }
    assert_eq!(hub.told("r1"), ["c0"]);
    heard(&mut hub, 1);
    assert_eq!(hub.told("r1"), ["c0", "c1"]);
}

#[test]
fn a_bake_counts_only_what_was_heard() {
    let mut hub = empty(60);
    hub.turn();
    hub.obey(&[]);
    hub.turn();
    hub.later(30);
    hub.beat_all(&[]);
    // No beat of c0 for twice the rest, which is less than the grace.
    for _ in 0..60 {
        hub.later(1);
        hub.beat_all(&["c0"]);
        hub.turn();
    }
    assert_eq!(hub.told("r1"), ["c0"], "nobody knows how it fared since");
    hub.beat_all(&[]);
    hub.later(1);
    hub.turn();
    assert_eq!(hub.told("r1"), ["c0", "c1"]);
}

#[test]
fn a_cluster_that_is_no_longer_ready_starts_the_bake_again() {
    let mut hub = empty(60);
    hub.turn();
    hub.obey(&[]);
    hub.turn();
    heard(&mut hub, 40);
    let mut limping = all_on("r1");
    limping.nodes.ready = 1;
    // So a cluster says that a node of it has the revision and does not serve.
    limping.phase = Phase::Pending;
    hub.says("c0", limping);
    hub.turn();
    let record = hub.answer().standing.stage.clone().unwrap();
    assert_eq!(
        (record.baked_seconds, record.phase),
        (0, StagePhase::Progressing)
    );
    hub.says("c0", all_on("r1"));
    hub.turn();
    heard(&mut hub, 59);
    assert_eq!(hub.told("r1"), ["c0"]);
    heard(&mut hub, 1);
    assert_eq!(hub.told("r1"), ["c0", "c1"]);
}

#[test]
fn a_hub_that_was_away_has_baked_nothing_and_lost_little() {
    let mut hub = empty(800);
    hub.turn();
    hub.obey(&[]);
    for _ in 0..45 {
        hub.turn();
        hub.later(10);
        hub.beat_all(&[]);
    }
    hub.later(200_000);
    hub.restart();
    hub.turn();
    heard(&mut hub, 30);
    assert_eq!(hub.told("r1"), ["c0"]);
    let baked = hub.answer().standing.stage.as_ref().unwrap().baked_seconds;
    assert!((300..=450).contains(&baked), "{baked}");
    // The clock of the next leader may begin anywhere.
    hub.now = Timestamp(5);
    hub.restart();
    let mut waited = 0;
    while hub.told("r1").len() == 1 {
        hub.turn();
        hub.later(10);
        hub.beat_all(&[]);
        waited += 10;
        assert!(waited < 1000);
    }
    assert!(waited >= 350, "{waited}");
}

/// Ten clusters: 2 % of them are what 1 % were, and with an empty selector nobody is added either.
#[test]
fn a_stage_that_adds_nobody_bakes_on_those_before_it_and_ends() {
    for second in [Members::Percent(2), Members::Selector(Selector::Nothing)] {
        let mut it = deployment("r2", Some("r1"));
        it.policy.stages = vec![
            stage("one", Members::Percent(1)),
            stage("two", second),
            stage("all", Members::Percent(100)),
        ];
        it.policy.stages[1].bake_seconds = 600;
        it.policy.stages[1].allow_empty = true;
        let names = ["c0", "c1", "c2", "c3", "c4", "c5", "c6", "c7", "c8", "c9"];
        let mut hub = on_r1(it, names);
        hub.run(8, 60, &[]);
        assert_eq!(hub.told("r2"), ["c0"], "it bakes");
        hub.run(8, 60, &[]);
        assert_eq!(hub.told("r2").len(), 10);
    }
}

#[test]
fn a_first_stage_without_anybody_has_nothing_to_bake() {
    let mut it = deployment("r2", Some("r1"));
    it.policy.stages = vec![stage("none", Members::Selector(Selector::Nothing))];
    it.policy.stages[0].bake_seconds = 600;
    it.policy.stages[0].allow_empty = true;
    let mut hub = on_r1(it, ["c0"]);
    hub.run(2, 60, &[]);
    assert_eq!(hub.told("r2"), ["c0"]);
}

/// A turn may take longer than a grace: what was silent and came back meanwhile was silent all the same.
#[test]
fn a_silence_between_two_plans_is_not_baked() {
    let mut it = canary_then_rest("r2", Some("r1"));
    it.policy.stages[0].bake_seconds = 700;
    let mut hub = on_r1(it, ["c0", "c1"]);
    hub.turn();
    hub.obey(&[]);
    hub.turn();
    heard(&mut hub, 600);
    heard(&mut hub, 110);
    assert_eq!(hub.told("r2"), ["c0"], "600 s of those nobody heard");
    hub.run(7, 100, &[]);
    assert_eq!(hub.told("r2"), ["c0", "c1"]);
}

/// Sites that were off come back one by one for as long as a fleet lives: a bake begun anew by each would never end.
#[test]
fn one_that_comes_late_lets_the_bake_rest_and_loses_nothing_of_it() {
    let mut it = canary_then_rest("r2", Some("r1"));
    it.policy.stages[0].members = Members::Count(2);
    it.policy.stages[0].bake_seconds = 800;
    let mut hub = on_r1(it, ["c0", "c1", "c2"]);
    for away in ["c1", "c2"] {
        hub.cluster(away, |it| it.connection = ConnectionState::Silent);
    }
    hub.run(8, 60, &["c1", "c2"]);
    let baked = |hub: &Hub| hub.answer().standing.stage.clone().unwrap().baked_seconds;
    let before = baked(&hub);
    assert!(before >= 300, "{before}");
    hub.later(1);
    hub.beat("c1");
    hub.turn();
    assert!(hub.told("r2").contains(&"c1".to_owned()));
    let mut on_its_way = all_on("r2");
    (on_its_way.phase, on_its_way.nodes.updated) = (Phase::Trial, 1);
    on_its_way.nodes.pending = 1;
    hub.says("c1", on_its_way);
    hub.turn();
    assert!(baked(&hub) >= before, "{}", baked(&hub));
    hub.run(8, 60, &["c2"]);
    assert_eq!(hub.answer().standing.stage.as_ref().unwrap().index, 1);
}

/// Its suspect was gone past, and nobody else is there: nothing lives on which the next stage could bake.
#[test]
fn a_stage_that_adds_nobody_says_that_nobody_is_heard_before_it() {
    let mut it = deployment("r2", Some("r1"));
    it.policy.stages = vec![
        stage("one", Members::Count(1)),
        stage("two", Members::Count(1)),
        stage("all", Members::Percent(100)),
    ];
    it.policy.stages[1].bake_seconds = 60;
    let mut hub = on_r1(it, ["c0", "c1", "c2"]);
    hub.turn();
    hub.run(8, 60, &["c0"]);
    let promote = ActionKind::Promote { stage: None };
    assert!(hub.ask(promote.clone()).0);
    hub.run(3, 60, &["c0"]);
    assert_eq!(hub.told("r2"), ["c0"]);
    let waits = hub.answer().waiting_for().unwrap();
    assert!(waits.contains("promote digits"), "{waits}");
    assert!(hub.ask(promote).0);
    assert_eq!(hub.told("r2").len(), 3);
}
