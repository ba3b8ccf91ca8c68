//! A canary that nobody asks anything: from the device's words to what the hub does with them.

use rimward_core::cluster::{self, NodeState};
use rimward_core::fleet::{Because, Outcome, StagePhase};
use rimward_core::node::{
    Attempt, AttemptStage, Observation, Order, Phase, Reason, Record, Report, Standing, State,
    Target, step,
};
use rimward_core::verdict::Health;

use crate::fixtures::{NOW, all_on, deployment, fleet_of, key, one, rev, stage, with};
use crate::hub::Hub;
use crate::node_fixtures::{apply, assigned, node, nodes, report, said, waiting};

/// What a device says whose candidate's probation is over, and which nobody asked anything.
fn device() -> Report {
    let target = Target {
        revision: rev("r2"),
        package: rimward_core::ids::Digest::from_sha256([2; 32]),
        health: Health {
            probation_seconds: 60,
            samples_min: 500,
            ..Health::default()
        },
        keep_revisions: 2,
        attempt: 1,
        forget_verdicts_before: 0,
    };
    let record = Record {
        attempt: Some(Attempt {
            target: target.clone(),
            install: target.package,
            stage: AttemptStage::Staged,
            writes: 0,
            preflights: 1,
        }),
        ..Record::default()
    };
    let mut state = State::recover(record, "boot");
    let seen = [
        (Observation::Ordered(Order::Run(target)), 0),
        // That its preflight begins.
        (Observation::Persisted, 0),
        (Observation::PreflightPassed(rev("r2")), 0),
        (Observation::Persisted, 0),
        (Observation::Loaded(rev("r2")), 0),
        (Observation::Tick, 3_600_000),
    ];
    for (observation, now) in seen {
        state = step(state, observation, now).0;
    }
    assert!(matches!(state.phase(), Phase::Trial { .. }));
    state.report()
}

/// A cluster of two nodes, of which the first is in trial and says what the device says.
fn site() -> crate::node_fixtures::Cluster {
    let told = device();
    assert_eq!(told.standing, Standing::Trial);
    let problem = told.problem.unwrap();
    assert_eq!(problem.reason, Reason::TOO_FEW_SAMPLES);
    let mut site = nodes([
        node("r2", NodeState::Trial),
        node("r1", NodeState::Committed),
    ]);
    let first = said(&mut site, "n0");
    first.reason = problem.reason.as_str().to_owned();
    first.message = problem.message;
    site
}

#[test]
fn a_cluster_without_traffic_says_so_of_the_node_and_of_itself() {
    let plan = cluster::plan(&assigned("r2", 1), &site(), NOW);
    let words = waiting(&plan, "n0").unwrap().to_string();
    assert!(
        words.starts_with("on its way to revision r2 (in trial: its probation of 60 s is over"),
        "{words}"
    );
    let report = report(&plan);
    assert_eq!(report.reason, "TooFewSamples");
    assert!(
        report.problems[0]
            .message
            .contains("of at least 500 requests")
    );
    assert_eq!((report.nodes.pending, report.nodes.failed), (2, 0));
}

#[test]
fn a_canary_without_traffic_condemns_nobody() {
    let mut it = deployment("r2", Some("r1"));
    it.policy.stages = vec![
        stage("canary", rimward_core::fleet::Members::Count(1)),
        stage("all", rimward_core::fleet::Members::Percent(100)),
    ];
    let fleet = ["c0", "c1", "c2"].map(|name| (name, with("r1", all_on("r1"))));
    let mut hub = Hub::new(one(it), fleet_of(fleet));
    hub.turn();
    assert_eq!(hub.told("r2"), ["c0"]);
    let mut site = site();
    let (mut in_time, mut late) = (0, 0);
    for minute in 0..100 {
        let now = NOW.plus_seconds(minute * 60);
        let plan = cluster::plan(&assigned("r2", 1), &site, now);
        apply(&mut site, &plan);
        hub.says("c0", report(&plan).clone());
        hub.later(60);
        hub.beat_all(&[]);
        hub.turn();
        let why = hub.why("c0").unwrap();
        assert!(
            why.to_string().contains("of at least 500 requests"),
            "{why}"
        );
        if matches!(why, Because::Updating { .. }) {
            in_time += 1;
            assert_eq!(hub.answer().clusters.failed, 0);
            assert!(hub.answer().outcomes.is_empty());
        } else {
            late += 1;
        }
    }
    assert!(in_time > 0 && late > 0, "{in_time} minutes, then {late}");
    assert_eq!(hub.told("r2"), ["c0"]);
    // Its deadline is over, and so is the rollout: for want of time, which says nothing about the content.
    let stage = hub.answer().standing.stage.clone().unwrap();
    assert_eq!(stage.phase, StagePhase::Stopped);
    let revisions = &hub.desired.deployments[&key("digits")].revisions;
    assert_eq!(revisions[&rev("r2")].outcome, Outcome::Stopped);
}
