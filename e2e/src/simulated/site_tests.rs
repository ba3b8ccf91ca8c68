//! A site by itself, on a clock of its own.

use std::time::Duration;

use rimward_core::summary::Phase;
use rimward_crds::ClusterAssignment;
use serde_json::json;

use super::*;

const TIMING: Timing = Timing {
    heartbeat: Duration::from_secs(1),
    retry_max: Duration::from_secs(1),
    staging: Duration::from_secs(2),
    trial: Duration::from_secs(3),
    blocked_retry: Duration::from_secs(1),
    node_silence: Duration::from_secs(10),
};

/// A site of two nodes that is told to run `revision`.
fn told(site: &mut Site, generation: i64, revision: &str) {
    let digest = format!("sha256:{}", "0".repeat(64));
    let assignment: ClusterAssignment = serde_json::from_value(json!({
        "apiVersion": "rimward.dev/v1alpha1", "kind": "ClusterAssignment",
        "metadata": {"name": "site", "generation": generation},
        "spec": {"models": [{
            "namespace": "team", "name": "digits", "endpointName": "digits", "revision": revision,
            "package": {"repository": "r.example/m", "digest": digest},
            "runtime": {}, "health": {}, "maxUnavailable": 1, "action": "Run", "progressDeadlineSeconds": 600,
        }]},
    }))
    .unwrap();
    assert!(site.order(&assignment));
}

fn site() -> Site {
    Site::new(["n0", "n1"].into_iter().map(|name| name.parse().unwrap()))
}

/// Lets the site live until nothing more is to happen; when that was, in milliseconds, and what it says then.
fn live(site: &mut Site, from: u64, faults: &Faults) -> (u64, Round) {
    let mut now = from;
    loop {
        let round = site.round(now, &TIMING, faults);
        match round.next {
            // Deadlines are far; what nodes do is near.
            Some(next) if next < now + 60_000 && !round.dies => now = next,
            _ => return (now, round),
        }
    }
}

fn key() -> ModelKey {
    ModelKey::parse("team", "digits").unwrap()
}

#[test]
fn nodes_take_a_release_one_after_the_other_and_each_takes_its_time() {
    let mut site = site();
    told(&mut site, 1, "digits-1");
    let (end, round) = live(&mut site, 0, &Faults::default());
    assert_eq!(end, 10_000, "two nodes, five seconds each");
    let report = &round.report[&key()];
    assert_eq!((report.phase, report.nodes.updated), (Phase::Passed, 2));
    assert_eq!(site.serves(&key()).unwrap().as_str(), "digits-1");
}

#[test]
fn a_release_that_nodes_reject_goes_no_further_than_the_first() {
    let mut site = site();
    told(&mut site, 1, "digits-1");
    live(&mut site, 0, &Faults::default());
    told(&mut site, 2, "digits-2");
    let faults = Faults {
        rejected: vec!["digits-2".to_owned()],
        ..Faults::default()
    };
    let (_, round) = live(&mut site, 20_000, &faults);
    let report = &round.report[&key()];
    assert_eq!((report.phase, report.nodes.rejected()), (Phase::Failed, 1));
    assert_eq!(site.serves(&key()).unwrap().as_str(), "digits-1");
}

#[test]
fn a_release_that_silences_the_site_ends_its_round_and_the_order_is_remembered() {
    let mut site = site();
    told(&mut site, 1, "digits-1");
    let faults = Faults {
        silences_site: vec!["digits-1".to_owned()],
        ..Faults::default()
    };
    let (end, round) = live(&mut site, 0, &faults);
    assert!(round.dies && end == 2_000, "{round:?} at {end}");
    assert!(site.was_exposed_to("digits-1"));
}

#[test]
fn what_is_blocked_goes_on_once_it_is_not() {
    let mut site = site();
    told(&mut site, 1, "digits-1");
    let faults = Faults {
        blocked: vec!["r.example/m".to_owned()],
        ..Faults::default()
    };
    for second in 0..20 {
        let round = site.round(second * 1000, &TIMING, &faults);
        assert_ne!(round.report[&key()].phase, Phase::Failed);
    }
    assert_eq!(site.serves(&key()), None);
    live(&mut site, 20_000, &Faults::default());
    assert_eq!(site.serves(&key()).unwrap().as_str(), "digits-1");
}

#[test]
fn what_died_of_a_release_dies_of_it_again_when_it_has_power() {
    let mut site = site();
    told(&mut site, 1, "digits-1");
    let kills_site = Faults {
        silences_site: vec!["digits-1".to_owned()],
        ..Faults::default()
    };
    let (first, _) = live(&mut site, 0, &kills_site);
    site.revive(first + 50_000);
    let (again, round) = live(&mut site, first + 50_000, &kills_site);
    assert!(round.dies, "{round:?}");
    assert_eq!(again, first + 52_000, "staged once more");
    assert_eq!(round.report[&key()].nodes.updated, 0);
    assert_eq!(site.serves(&key()), None);

    // A node by itself, in a site that was never dead.
    let kills_node = Faults {
        silences_node: vec!["digits-1".to_owned()],
        ..Faults::default()
    };
    site.revive(100_000);
    live(&mut site, 100_000, &kills_node);
    assert_eq!(site.count(), (1, 2));
    site.power(0, true, 200_000).unwrap();
    assert_eq!(site.count(), (2, 2));
    live(&mut site, 200_000, &kills_node);
    assert_eq!(site.count(), (1, 2), "it died of it again");
    assert_eq!(site.serves(&key()), None);
}
